//! The range of every cell whose codes lose least: the search behind `fit = "mse"`.
//!
//! A range wider than needed spends codes on values that are rare, a narrower one clips. The error has many local
//! minima over scale and zero point, so candidates are measured, [`LANES`] at a time: element by element what
//! decode after encode would give. The sums for a least-squares scale come along, so that every candidate stands
//! for a stretch of scales: with `t = code − zero_point` held fixed, `Σ(x − st)²` is least at `s + Σ(x − st)t / Σt²`.
//! A coarse sweep over scales for some zero points, a fine one around the most promising; then the best of each are
//! moved to their least-squares scales and measured with the parameters that [`qparams`](crate::qparams()) makes of
//! their ranges, which is what counts.
//!
//! The range from the smallest to the largest element is measured in the same way, and another one replaces it
//! only if its error is smaller: no cell is worse than it would be without the search.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::finite::Census;
use crate::grid::{Cell, Grid};
use crate::isa::{Isa, Op};
use crate::math::{self, LANES};
use crate::mem;
use crate::parallel;
use crate::qparams::{self, Target};
use crate::reduce::min_max;
use crate::rounding::{Mode, mode};

/// Elements whose errors are added in float32; sums over tiles are float64. Part of what a sum is.
const TILE: usize = 128;
/// Elements of a parallel task, as many whole cells as it takes.
const CHUNK: usize = 1 << 13;

/// A coarse sweep goes from the whole range down to a third of it.
const COARSE: f64 = 0.93;
/// A fine one covers two steps of a coarse one.
const FINE: f64 = 0.9911;
/// How often candidates are moved to their least-squares scales.
const MOVES: usize = 2;
/// The sweeps of a free zero point, five coarse and three fine: how far from that of the center the zero point
/// stands, and how the first scale relates to that of the center.
const SHIFTS: [(i32, f64); 8] =
    [(0, 1.0), (-1, 1.0), (1, 1.0), (-2, 1.0), (2, 1.0), (0, 1.07), (-1, 1.07), (1, 1.07)];
/// The same for a fixed zero point: two coarse sweeps that interlock, and a fine one.
const EVEN_SHIFTS: [(i32, f64); 3] = [(0, 1.0), (0, 0.965), (0, 1.07)];

/// Scale and zero point, and what was measured with them. Scales and errors are in the unit of the cell.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    zero_point: i32,
    /// Σ(x − st)²
    error: f64,
    /// The scale that suits its codes best.
    better: f64,
    /// The error with that scale and the same codes.
    hoped: f64,
}

impl Candidate {
    const UNMEASURED: Candidate =
        Candidate { zero_point: 0, error: f64::INFINITY, better: 1.0, hoped: f64::INFINITY };
}

/// The best range so far.
#[derive(Debug, Clone, Copy)]
struct Best {
    range: (f32, f32),
    error: f64,
}

/// The search for the range of one cell.
struct Search<'a> {
    x: &'a [f32],
    target: &'a Target,
    /// A power of two that brings the largest element near to 1, so that no square leaves float32.
    unit: f32,
    best: Best,
}

/// `x` in the cell's unit; NaN, which is encoded as 0.0, as that.
#[inline(always)]
fn in_unit(x: f32, unit: f32) -> f32 {
    let x = if x.is_nan() { 0.0 } else { x };
    held(x) * unit
}

/// Infinities as the largest finite numbers.
#[inline(always)]
fn held(x: f32) -> f32 {
    x.clamp(-f32::MAX, f32::MAX)
}

/// The power of two of [`Search::unit`]; scaling with it is exact but for subnormal numbers.
fn unit(largest: f32) -> f32 {
    let exponent = largest.to_bits() >> 23;
    f32::from_bits(254u32.saturating_sub(exponent).clamp(1, 254) << 23)
}

/// What [`LANES`] candidates are, one in each lane, and their sums over one tile.
struct Lanes {
    scale: [f32; LANES],
    low: [f32; LANES],
    high: [f32; LANES],
}

impl Lanes {
    /// `[Σr², Σrt, Σt²]` with `r = x − st`, in the order of `x`.
    #[inline(always)]
    fn sums(&self, x: &[f32]) -> [[f32; LANES]; 3] {
        let Lanes { scale, low, high } = self;
        let [mut error, mut slope, mut squares] = [[0.0; LANES]; 3];
        let (mut t, mut r) = ([0.0; LANES], [0.0; LANES]);
        // Plain loops, one for each array: these become vector code of the row's features. What a closure of
        // `from_fn` holds may be compiled without them.
        for &x in x {
            for i in 0..LANES {
                let v = x / scale[i];
                let v = if v > low[i] { v } else { low[i] };
                let v = if v < high[i] { v } else { high[i] };
                t[i] = mode::HalfEven::round(v, 0.0);
            }
            for i in 0..LANES {
                r[i] = x - scale[i] * t[i];
            }
            for i in 0..LANES {
                error[i] += r[i] * r[i];
            }
            for i in 0..LANES {
                slope[i] += r[i] * t[i];
            }
            for i in 0..LANES {
                squares[i] += t[i] * t[i];
            }
        }
        [error, slope, squares]
    }
}

impl<'a> Search<'a> {
    /// The best range for the cell `x`.
    #[inline(always)]
    fn run(x: &'a [f32], target: &'a Target) -> (f32, f32) {
        let lo = held(math::fold(x, 0.0, smaller, smaller));
        let hi = held(math::fold(x, 0.0, larger, larger));
        if lo == hi {
            return (0.0, 0.0);
        }
        let whole = Best { range: (lo, hi), error: f64::INFINITY };
        let mut search = Search { x, target, unit: unit(larger(-lo, hi)), best: whole };
        let found = if target.symmetric() {
            search.sweeps(&EVEN_SHIFTS[..2], &EVEN_SHIFTS[2..])
        } else {
            search.sweeps(&SHIFTS[..5], &SHIFTS[5..])
        };
        let mut ranges = [(lo, hi); LANES];
        // The whole range stays in the first lane: it wins where others are no better.
        for (range, found) in ranges[1..].iter_mut().zip(found) {
            if let Some(candidate) = found {
                *range = search.range(candidate);
            }
        }
        for _ in 0..MOVES {
            let moved = search.measure_ranges(ranges);
            for (range, candidate) in ranges.iter_mut().zip(moved) {
                *range = search.range(candidate);
            }
        }
        search.best.range
    }

    /// The most promising candidate of each sweep, in the first lanes; the others stay free for the whole range.
    #[inline(always)]
    fn sweeps(&self, coarse: &[(i32, f64)], fine: &[(i32, f64)]) -> [Option<Candidate>; LANES] {
        let (lo, hi) = self.best.range;
        let (scale, zero_point) = qparams::one(lo, hi, self.target);
        let better = f64::from(scale) * f64::from(self.unit);
        let whole = Candidate { zero_point, better, ..Candidate::UNMEASURED };
        let (mut found, mut top) = ([None; LANES], whole);
        for (found, &(shift, first)) in found.iter_mut().zip(coarse) {
            let candidate = self.sweep(whole, shift, (first, COARSE));
            *found = Some(candidate);
            if candidate.hoped < top.hoped {
                top = candidate;
            }
        }
        for (found, &(shift, first)) in found[coarse.len()..].iter_mut().zip(fine) {
            *found = Some(self.sweep(top, shift, (first, FINE)));
        }
        found
    }

    /// Measures scales from `first` times that of `center` on, each `ratio` times the one before; gives the most
    /// promising.
    #[inline(always)]
    fn sweep(&self, center: Candidate, shift: i32, (first, ratio): (f64, f64)) -> Candidate {
        let (qmin, qmax) = self.target.code_range();
        let zero_point = (center.zero_point + shift).clamp(qmin, qmax);
        let mut scales = [0.0; LANES];
        let mut scale = center.better * first;
        for each in &mut scales {
            *each = larger(scale as f32, f32::MIN_POSITIVE);
            scale *= ratio;
        }
        let measured = self.measure(scales, [zero_point; LANES]);
        let mut most = measured[0];
        for candidate in &measured[1..] {
            if candidate.hoped < most.hoped {
                most = *candidate;
            }
        }
        most
    }

    /// The range whose codes reach from one end of the format to the other.
    #[inline(always)]
    fn range(&self, candidate: Candidate) -> (f32, f32) {
        let (qmin, qmax) = self.target.code_range();
        let scale = candidate.better / f64::from(self.unit);
        let end = |code: i32| held((scale * f64::from(code - candidate.zero_point)) as f32);
        (end(qmin), end(qmax))
    }

    /// Measures the parameters of these ranges, and keeps the best; of equal ones the first.
    #[inline(always)]
    fn measure_ranges(&mut self, ranges: [(f32, f32); LANES]) -> [Candidate; LANES] {
        let (mut scales, mut zero_points) = ([0.0; LANES], [0; LANES]);
        for (i, &(lo, hi)) in ranges.iter().enumerate() {
            let (scale, zero_point) = qparams::one(lo, hi, self.target);
            (scales[i], zero_points[i]) = (scale * self.unit, zero_point);
        }
        let measured = self.measure(scales, zero_points);
        for (candidate, range) in measured.iter().zip(ranges) {
            if candidate.error < self.best.error {
                self.best = Best { range, error: candidate.error };
            }
        }
        measured
    }

    /// Measures one candidate in each lane.
    #[inline(always)]
    fn measure(&self, scale: [f32; LANES], zero_points: [i32; LANES]) -> [Candidate; LANES] {
        let (qmin, qmax) = self.target.code_range();
        let mut lanes = Lanes { scale, low: [0.0; LANES], high: [0.0; LANES] };
        for (i, zero_point) in zero_points.iter().enumerate() {
            (lanes.low[i], lanes.high[i]) = ((qmin - zero_point) as f32, (qmax - zero_point) as f32);
        }
        let mut total = [[0.0f64; LANES]; 3];
        let mut tile = [0.0; TILE];
        for x in self.x.chunks(TILE) {
            let tile = &mut tile[..x.len()];
            for (tile, &x) in tile.iter_mut().zip(x) {
                *tile = in_unit(x, self.unit);
            }
            let sums = lanes.sums(tile);
            for (total, sums) in total.iter_mut().zip(&sums) {
                for (total, &sum) in total.iter_mut().zip(sums) {
                    *total += f64::from(sum);
                }
            }
        }
        let [error, slope, squares] = total;
        let mut measured = [Candidate::UNMEASURED; LANES];
        for (i, candidate) in measured.iter_mut().enumerate() {
            // Without a code other than the zero point no scale is better.
            let step = slope[i] / if squares[i] > 0.0 { squares[i] } else { f64::INFINITY };
            let (better, hoped) = (f64::from(scale[i]) + step, error[i] - step * slope[i]);
            *candidate = Candidate { zero_point: zero_points[i], error: error[i], better, hoped };
        }
        measured
    }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The cells of an array one after another.
struct Cells<'a> {
    x: &'a [f32],
    /// Where each cell starts; the last entry is the end.
    starts: Vec<usize>,
}

/// Ranges of some cells, from cell number `first` on.
struct Fitting<'a> {
    cells: &'a Cells<'a>,
    first: usize,
    target: &'a Target,
    out: &'a mut [(f32, f32)],
}

impl Op for Fitting<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Fitting { cells: Cells { x, starts }, first, target, out } = self;
        for (out, ends) in out.iter_mut().zip(starts[first..].windows(2)) {
            *out = Search::run(&x[ends[0]..ends[1]], target);
        }
    }
}

/// Where the cells start if each is put after the one before, and whether they stand so in the array.
fn layout(grid: &Grid) -> Result<(Vec<usize>, bool), Error> {
    let mut starts = room::<usize>(grid.cells() + 1)?;
    starts.resize(grid.cells() + 1, 0);
    let mut in_order = true;
    let mut last = 0;
    for (run, cell) in grid.runs(0..grid.len()) {
        match cell {
            Cell::One(cell) => {
                starts[cell + 1] += run.len();
                in_order &= cell >= last;
                last = cell;
            }
            Cell::Each(first) => {
                starts[first + 1..][..run.len()].iter_mut().for_each(|len| *len += 1);
                in_order &= first >= last;
                last = first + run.len() - 1;
            }
        }
    }
    for cell in 0..grid.cells() {
        starts[cell + 1] += starts[cell];
    }
    Ok((starts, in_order))
}

/// The elements, cell after cell, in C order within each.
fn gathered(x: &[f32], grid: &Grid, starts: &[usize]) -> Result<Vec<f32>, Error> {
    let (mut out, mut next) = (mem::zeroed(x.len())?, room::<usize>(grid.cells())?);
    next.extend_from_slice(&starts[..grid.cells()]);
    for (run, cell) in grid.runs(0..grid.len()) {
        let x = &x[run];
        match cell {
            Cell::One(cell) => {
                out[next[cell]..][..x.len()].copy_from_slice(x);
                next[cell] += x.len();
            }
            Cell::Each(first) => {
                for (next, &x) in next[first..].iter_mut().zip(x) {
                    out[*next] = x;
                    *next += 1;
                }
            }
        }
    }
    Ok(out)
}

fn room<T>(len: usize) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) })?;
    Ok(out)
}

/// How the range of a cell is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// From the smallest to the largest element.
    MinMax,
    /// The one whose codes lose least: [`fit_mse`].
    Mse,
}

impl Fit {
    /// Every way.
    pub const ALL: &'static [Fit] = &[Fit::MinMax, Fit::Mse];

    /// The name in Python and in files.
    pub fn name(self) -> &'static str {
        match self {
            Fit::MinMax => "minmax",
            Fit::Mse => "mse",
        }
    }

    /// The way of this name.
    ///
    /// # Errors
    /// There is none; the message lists them.
    pub fn from_name(name: &str) -> Result<Fit, Error> {
        Self::ALL.iter().copied().find(|fit| fit.name() == name).ok_or_else(|| Error::Unknown {
            what: "fit",
            got: name.to_owned(),
            known: Self::ALL.iter().map(|fit| fit.name()).collect(),
        })
    }

    /// Scale and zero point of every cell of `x`: [`qparams`](crate::qparams()) of the ranges. Unchecked, an
    /// infinity counts as the largest finite number, and NaN is passed over.
    ///
    /// ```
    /// use qrs_core::{Fit, Grid, ScaleType, Target, format};
    /// let target = Target::new(format::find("uint8")?, false, false, ScaleType::Float32)?;
    /// let grid = Grid::new(&[4], &[2])?; // two groups of two
    /// let (scale, zero_point) = Fit::MinMax.qparams(&[0.0, 255.0, -1.0, 1.55], &grid, &target, true)?;
    /// assert_eq!(scale, [1.0, 0.01]);
    /// assert_eq!(zero_point, [0, 100]);
    /// # Ok::<(), qrs_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `x` does not fit the grid, or (with `check_finite`) holds NaN or infinity.
    pub fn qparams(
        self,
        x: &[f32],
        grid: &Grid,
        target: &Target,
        check_finite: bool,
    ) -> Result<(Vec<f32>, Vec<i32>), Error> {
        let (lo, hi) = match self {
            Fit::MinMax => {
                let (mut lo, mut hi) = min_max(x, grid, check_finite)?;
                if !check_finite {
                    lo.iter_mut().chain(&mut hi).for_each(|end| *end = held(*end));
                }
                (lo, hi)
            }
            Fit::Mse => fit_mse(x, grid, target, check_finite)?,
        };
        qparams::qparams(&lo, &hi, target)
    }
}

/// The range of every cell that gives the least sum of squared errors of decode after encode, half to even,
/// among some two hundred candidates; never worse than [`min_max`](crate::min_max).
///
/// NaN, where it is not refused, is passed over, and an infinity counts as the largest finite number. A cell without
/// elements has `lo = hi = 0`. The result is the same on every instruction set and for every number of threads.
///
/// ```
/// use qrs_core::{Grid, ScaleType, Target, fit_mse, format, qparams};
/// let target = Target::new(format::find("int2")?, true, false, ScaleType::Float32)?;
/// // One large value: codes −2 to 1 hold the many small ones better if it is clipped.
/// let mut x = [-0.5; 32];
/// x[0] = -1.2;
/// let (lo, hi) = fit_mse(&x, &Grid::new(&[32], &[32])?, &target, true)?;
/// let (scale, _) = qparams(&lo, &hi, &target)?;
/// assert!((scale[0] - 0.5).abs() < 0.02);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `x` does not fit the grid, or (with `check_finite`) holds NaN or infinity; memory for the gathered elements is
/// not to be had.
pub fn fit_mse(
    x: &[f32],
    grid: &Grid,
    target: &Target,
    check_finite: bool,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    fit_mse_on(Isa::active()?, (x, grid), target, check_finite)
}

fn fit_mse_on(
    isa: Isa,
    (x, grid): (&[f32], &Grid),
    target: &Target,
    check_finite: bool,
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    grid.check_len("x", x.len())?;
    if check_finite {
        let census = Census::new();
        x.chunks(4096).enumerate().for_each(|(i, x)| census.see(x, i * 4096));
        census.check("x")?;
    }
    let (starts, in_order) = layout(grid)?;
    let moved = if in_order { Vec::new() } else { gathered(x, grid, &starts)? };
    let cells = Cells { x: if in_order { x } else { &moved }, starts };
    let mut ranges = room(grid.cells())?;
    ranges.resize(grid.cells(), (0.0, 0.0));
    let size = (CHUNK * grid.cells()).div_ceil(x.len().max(1)).max(1);
    parallel::for_each_chunk(&mut ranges, size, x.len().saturating_mul(100), |i, out| {
        isa.run(Fitting { cells: &cells, first: i * size, target, out });
    })?;
    Ok(ranges.into_iter().unzip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;
    use crate::qparams::ScaleType;

    /// Sums of uniform numbers, near enough to a normal distribution.
    fn gauss(len: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..len).map(|_| (0..12).map(|_| next()).sum()).collect()
    }

    fn target(name: &str, symmetric: bool) -> Target {
        Target::new(format::find(name).unwrap(), symmetric, false, ScaleType::Float32).unwrap()
    }

    /// The squared error of decode after encode, written out.
    fn error(x: &[f32], (lo, hi): (f32, f32), target: &Target) -> f64 {
        let (scale, zero_point) = qparams::one(lo, hi, target);
        let (qmin, qmax) = target.code_range();
        let (low, high) = ((qmin - zero_point) as f32, (qmax - zero_point) as f32);
        let mut sum = 0.0;
        for &x in x {
            let v = (x / scale).max(low).min(high);
            let r = x - scale * ((v + 12_582_912.0) - 12_582_912.0);
            sum += f64::from(r * r);
        }
        sum
    }

    fn brute(x: &[f32], target: &Target) -> f64 {
        let ((lo, hi), mut best) = (whole(x), f64::INFINITY);
        if target.symmetric() {
            for i in 0..4000 {
                let f = 1.0 - i as f32 / 4000.0 * 0.75;
                best = best.min(error(x, (lo * f, hi * f), target));
            }
            return best;
        }
        for i in 0..200 {
            for j in 0..200 {
                let (f, g) = (1.0 - i as f32 / 200.0 * 0.75, 1.0 - j as f32 / 200.0 * 0.75);
                best = best.min(error(x, (lo * f, hi * g), target));
            }
        }
        best
    }

    /// The ranges of all cells, the same on every instruction set and never worse than the whole range.
    fn fitted(x: &[f32], grid: &Grid, target: &Target) -> (Vec<f32>, Vec<f32>) {
        let expected = fit_mse_on(Isa::Portable, (x, grid), target, true).unwrap();
        for isa in Isa::available() {
            assert_eq!(fit_mse_on(isa, (x, grid), target, true).unwrap(), expected, "{}", isa.name());
        }
        for cell in 0..grid.cells() {
            let own: Vec<f32> = (0..x.len()).filter(|&i| grid.cell_of(i) == cell).map(|i| x[i]).collect();
            let (ours, theirs) =
                (error(&own, (expected.0[cell], expected.1[cell]), target), error(&own, whole(&own), target));
            assert!(ours <= theirs * (1.0 + 1e-6), "cell {cell}: {ours} and {theirs}");
        }
        expected
    }

    fn whole(x: &[f32]) -> (f32, f32) {
        (x.iter().copied().fold(0.0, f32::min), x.iter().copied().fold(0.0, f32::max))
    }

    #[test]
    fn groups_come_near_to_a_brute_force_search() {
        for (name, symmetric) in [("int", true), ("uint", false)] {
            for (bits, size) in [(2, 32), (3, 32), (4, 32), (8, 32), (2, 128), (3, 128), (4, 128), (8, 128)] {
                let groups = if symmetric { 40 } else { 4 };
                let target = target(&format!("{name}{bits}"), symmetric);
                let x = gauss(groups * size, bits + size as u64);
                let (lo, hi) = fitted(&x, &Grid::new(&[groups, size], &[1, size]).unwrap(), &target);
                let (mut decibels, mut worst) = (0.0, 0f64);
                for (i, x) in x.chunks(size).enumerate() {
                    let ratio = error(x, (lo[i], hi[i]), &target) / brute(x, &target);
                    decibels += 10.0 * ratio.log10() / groups as f64;
                    worst = worst.max(ratio);
                }
                println!("{name}{bits}, groups of {size}: {decibels:+.4} dB, at worst {worst:.4}");
                // Eight bits have thousands of minima, of which either search sees some.
                assert!(decibels <= 0.02 && worst <= if bits < 8 { 1.02 } else { 1.1 });
            }
        }
    }

    #[test]
    fn every_granularity_and_magnitude_is_fitted() {
        let x = gauss(6 * 70, 3);
        for block in [[6, 70], [1, 70], [6, 1], [1, 32], [4, 32], [4, 1], [1, 1]] {
            let grid = Grid::new(&[6, 70], &block).unwrap();
            for (name, symmetric) in
                [("int4", true), ("uint4", false), ("uint3", true), ("int1", true), ("uint1", false)]
            {
                fitted(&x, &grid, &target(name, symmetric));
            }
        }
        let (grid, target) = (Grid::new(&[420], &[32]).unwrap(), target("uint4", false));
        let (lo, hi) = fitted(&x, &grid, &target);
        for power in [60, -60] {
            let factor = 2f32.powi(power);
            let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let of = |ends: &[f32]| ends.iter().map(|end| end * factor).collect::<Vec<_>>();
            assert_eq!(fitted(&scaled, &grid, &target), (of(&lo), of(&hi)), "2^{power}");
        }
    }

    #[test]
    fn fits_have_names_and_end_in_parameters() {
        let target = target("uint4", false);
        let x = [f32::NAN, f32::INFINITY, -1.0, 0.5, f32::NAN, f32::NAN];
        let grid = Grid::new(&[6], &[2]).unwrap();
        for &fit in Fit::ALL {
            assert_eq!(Fit::from_name(fit.name()), Ok(fit));
            let (scale, zero_point) = fit.qparams(&x, &grid, &target, false).unwrap();
            assert!(scale.iter().all(|scale| scale.is_finite()), "{scale:?}");
            assert_eq!((scale[2], zero_point[0], zero_point[2]), (1.0, 0, 0));
            assert!(fit.qparams(&x, &grid, &target, true).unwrap_err().to_string().contains("flat index 0"));
        }
        let text = Fit::from_name("mean").unwrap_err().to_string();
        assert!(text.contains("minmax") && text.contains("mse"), "{text}");
        let x = [-0.5, 1.0, 0.25, -3.0, 7.5, 0.0];
        let (lo, hi) = min_max(&x, &grid, true).unwrap();
        assert_eq!(Fit::MinMax.qparams(&x, &grid, &target, true), qparams::qparams(&lo, &hi, &target));
        let (lo, hi) = fit_mse(&x, &grid, &target, true).unwrap();
        assert_eq!(Fit::Mse.qparams(&x, &grid, &target, true), qparams::qparams(&lo, &hi, &target));
    }

    #[test]
    fn special_cells_have_an_answer() {
        let target = target("uint4", false);
        let of = |x: &[f32], check| {
            let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
            fit_mse(x, &grid, &target, check).map(|(lo, hi)| (lo[0], hi[0]))
        };
        assert_eq!(of(&[], true), Ok((0.0, 0.0)));
        assert_eq!(of(&[0.0, -0.0, 0.0], true), Ok((0.0, 0.0)));
        assert_eq!(of(&[1e-45; 5], true), Ok((0.0, 1e-45)));
        assert_eq!(of(&[f32::MAX, f32::MIN], true), Ok((f32::MIN, f32::MAX)));
        let constant = of(&[3.0; 9], true).unwrap();
        assert!(error(&[3.0; 9], constant, &target) == 0.0, "{constant:?}");
        assert_eq!(of(&[f32::NAN, f32::NAN], false), Ok((0.0, 0.0)));
        let (lo, hi) = of(&[f32::NAN, f32::INFINITY, -1.0], false).unwrap();
        assert!(lo <= 0.0 && hi > 1e38 && hi.is_finite());
        let text = of(&[1.0, f32::NAN, f32::INFINITY], true).unwrap_err().to_string();
        assert!(text.contains("flat index 1"), "{text}");
        assert!(fit_mse(&[1.0], &Grid::new(&[2], &[2]).unwrap(), &target, true).is_err());
        assert_eq!(
            fit_mse(&[], &Grid::new(&[3, 0], &[1, 0]).unwrap(), &target, true),
            Ok((vec![0.0; 3], vec![0.0; 3]))
        );
    }
}
