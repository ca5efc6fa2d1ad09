//! Scales fitted to data: `fit = "minmax"` and `"mse"`, and the levels of learned formats.

mod codebook;
mod search;
mod trellis;

use crate::error::Error;
use crate::format::Spacing;
use crate::grid::{Cell, Grid};
use crate::interrupt::pause;
use crate::isa::Isa;
use crate::mem;
use crate::parallel;
use crate::qparams::{self, Target};
use crate::reduce::min_max;
use crate::rounding::Rounding;
use crate::values::Values;
use search::{Fitting, Law, held};

/// Elements of a parallel task, as many whole cells as it takes.
const CHUNK: usize = 1 << 13;
/// Parallel tasks, some hundred milliseconds, between two looks at whether to stop.
const PORTION: usize = 1 << 9;

/// The cells of an array one after another.
struct Cells<'a> {
    x: &'a [f32],
    /// How much the squared error of each element counts.
    importance: Option<&'a [f32]>,
    /// Where each cell starts; the last entry is the end.
    starts: Vec<usize>,
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

/// How the scale of a cell is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// From the smallest to the largest element.
    MinMax,
    /// That whose codes, rounded half to even, have the least (weighted) sum of squared errors among some two hundred; never
    /// worse than [`MinMax`](Fit::MinMax).
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

    /// Scale and zero point of every cell of `x`, and the levels of a learned format.
    ///
    /// With an importance, [`Mse`](Fit::Mse) minimises `Σ importance · (x − x̂)²`; [`MinMax`](Fit::MinMax) looks at ranges
    /// alone, but learned levels are weighted.
    ///
    /// Unchecked, an infinity counts as the largest finite number and NaN as none. A cell without elements counts as
    /// one of zeros. The result is the same on every instruction set and for every number of threads.
    ///
    /// ```
    /// use qrs_core::{Fit, Grid, ScaleType, Target, format};
    /// let target = Target::new(format::find("int2")?, true, false, ScaleType::Float32)?;
    /// // One large value: codes −2 to 1 hold the many small ones better if it is clipped.
    /// let mut x = [-0.5; 32];
    /// x[0] = -1.2;
    /// let fitted = Fit::Mse.params(&x, &Grid::new(&[32], &[32])?, &target, true)?;
    /// assert!((fitted.scale[0].abs() - 0.5).abs() < 0.02);
    /// # Ok::<(), qrs_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `x` does not fit the grid, an importance is illegal, or `x` (with `check_finite`) holds NaN or infinity; memory for copies of elements is
    /// not to be had.
    pub fn params<'a>(
        self,
        values: impl Into<Values<'a>>,
        grid: &Grid,
        target: &Target,
        check_finite: bool,
    ) -> Result<Fitted, Error> {
        fit_on(Isa::active()?, self, (values.into(), grid), target, check_finite)
    }
}

/// What was fitted to an array: the parameters of its cells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fitted {
    /// One for each cell.
    pub scale: Vec<f32>,
    /// One for each cell.
    pub zero_point: Vec<i32>,
    /// The level of each code of a learned format.
    pub levels: Vec<f32>,
}

fn fit_on(
    isa: Isa,
    fit: Fit,
    (values, grid): (Values<'_>, &Grid),
    target: &Target,
    check_finite: bool,
) -> Result<Fitted, Error> {
    let Values { x, importance } = values;
    values.check()?;
    let (mut lo, mut hi) = min_max(x, grid, check_finite)?;
    if !check_finite {
        lo.iter_mut().chain(&mut hi).for_each(|end| *end = held(*end));
    }
    let whole = fit == Fit::MinMax || target.format().defaults().cast;
    if whole && !matches!(target.format().spacing(), Spacing::Learned) {
        let (scale, zero_point) = qparams::qparams(&lo, &hi, target)?;
        return Ok(Fitted { scale, zero_point, levels: Vec::new() });
    }
    let target = target.fitted().shared(lo.iter().copied().zip(hi.iter().copied()));
    if let Spacing::Trellis(sequence) = target.format().spacing() {
        return trellis::fit(sequence, (values, grid), &target);
    }
    let (starts, in_order) = layout(grid)?;
    let (moved, weights);
    let mut cells = Cells { x, importance, starts };
    if !in_order {
        moved = gathered(x, grid, &cells.starts)?;
        cells.x = &moved;
        if let Some(importance) = importance {
            weights = gathered(importance, grid, &cells.starts)?;
            cells.importance = Some(&weights);
        }
    }
    match target.format().spacing() {
        Spacing::Uniform => cells.fit(isa, search::Integers, &target),
        Spacing::Float(rounder) => cells.fit(isa, rounder, &target),
        Spacing::Table(levels) => cells.fit(isa, &levels.picker(Rounding::HalfEven), &target),
        Spacing::Learned => codebook::learn(isa, &cells, fit, &target),
        Spacing::Blocks(_) | Spacing::Trellis(_) => Err(target.format().no_range()),
    }
}

impl Cells<'_> {
    /// The parameters of every cell by search.
    fn fit(&self, isa: Isa, law: impl Law, target: &Target) -> Result<Fitted, Error> {
        let count = self.starts.len() - 1;
        let mut found = room(count)?;
        found.resize(count, (0.0, 0));
        let size = (CHUNK * count).div_ceil(self.x.len().max(1)).max(1);
        for (portion, found) in found.chunks_mut(PORTION * size).enumerate() {
            pause()?;
            let first = portion * PORTION * size;
            parallel::for_each_chunk(found, size, self.x.len().saturating_mul(100), |i, out| {
                isa.run(Fitting { law, cells: self, first: first + i * size, target, out });
            })?;
        }
        let (scale, zero_point) = found.into_iter().unzip();
        Ok(Fitted { scale, zero_point, levels: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;
    use crate::format::ScaleType;

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
    fn error(x: &[f32], (scale, zero_point): (f32, i32), target: &Target) -> f64 {
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
                let (scale, zero_point) = qparams::one(lo * f, hi * f, target);
                best = best.min(error(x, (scale, zero_point), target));
                best = best.min(error(x, (-scale, zero_point), target));
            }
            return best;
        }
        for i in 0..200 {
            for j in 0..200 {
                let (f, g) = (1.0 - i as f32 / 200.0 * 0.75, 1.0 - j as f32 / 200.0 * 0.75);
                best = best.min(error(x, qparams::one(lo * f, hi * g, target), target));
            }
        }
        best
    }

    /// The parameters of all cells, the same on every instruction set and never worse than the whole range.
    fn fitted(x: &[f32], grid: &Grid, target: &Target) -> Fitted {
        let expected = fit_on(Isa::Portable, Fit::Mse, (x.into(), grid), target, true).unwrap();
        for isa in Isa::available() {
            assert_eq!(
                fit_on(isa, Fit::Mse, (x.into(), grid), target, true).unwrap(),
                expected,
                "{}",
                isa.name()
            );
        }
        for cell in 0..grid.cells() {
            let own: Vec<f32> = (0..x.len()).filter(|&i| grid.cell_of(i) == cell).map(|i| x[i]).collect();
            let (lo, hi) = whole(&own);
            let ours = error(&own, (expected.scale[cell], expected.zero_point[cell]), target);
            let theirs = error(&own, qparams::one(lo, hi, target), target);
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
                let params = fitted(&x, &Grid::new(&[groups, size], &[1, size]).unwrap(), &target);
                let (mut decibels, mut worst) = (0.0, 0f64);
                for (i, x) in x.chunks(size).enumerate() {
                    let ours = error(x, (params.scale[i], params.zero_point[i]), &target);
                    let ratio = ours / brute(x, &target);
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
        let params = fitted(&x, &grid, &target);
        for power in [60, -60] {
            let factor = 2f32.powi(power);
            let scaled: Vec<f32> = x.iter().map(|x| x * factor).collect();
            let scale = params.scale.iter().map(|scale| scale * factor).collect();
            assert_eq!(fitted(&scaled, &grid, &target), Fitted { scale, ..params.clone() }, "2^{power}");
        }
    }

    #[test]
    fn fits_have_names_and_end_in_parameters() {
        let target = target("uint4", false);
        let x = [f32::NAN, f32::INFINITY, -1.0, 0.5, f32::NAN, f32::NAN];
        let grid = Grid::new(&[6], &[2]).unwrap();
        for &fit in Fit::ALL {
            assert_eq!(Fit::from_name(fit.name()), Ok(fit));
            let Fitted { scale, zero_point, .. } = fit.params(&x, &grid, &target, false).unwrap();
            assert!(scale.iter().all(|scale| scale.is_finite()), "{scale:?}");
            assert_eq!((scale[2], zero_point[0], zero_point[2]), (1.0, 0, 0));
            assert!(fit.params(&x, &grid, &target, true).unwrap_err().to_string().contains("flat index 0"));
        }
        let text = Fit::from_name("mean").unwrap_err().to_string();
        assert!(text.contains("minmax") && text.contains("mse"), "{text}");
    }

    #[test]
    fn special_cells_have_an_answer() {
        let target = target("uint4", false);
        let of = |x: &[f32], check| {
            let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
            let fitted = Fit::Mse.params(x, &grid, &target, check);
            fitted.map(|fitted| (fitted.scale[0], fitted.zero_point[0]))
        };
        assert_eq!(of(&[], true), Ok((1.0, 0)));
        assert_eq!(of(&[0.0, -0.0, 0.0], true), Ok((1.0, 0)));
        assert_eq!(of(&[1e-45; 5], true), Ok((f32::MIN_POSITIVE, 0)));
        assert_eq!(of(&[f32::MAX, f32::MIN], true).map(|(scale, _)| scale * 15.0 > f32::MAX), Ok(true));
        let constant = of(&[3.0; 9], true).unwrap();
        assert!(error(&[3.0; 9], constant, &target) == 0.0, "{constant:?}");
        assert_eq!(of(&[f32::NAN, f32::NAN], false), Ok((1.0, 0)));
        let (scale, zero_point) = of(&[f32::NAN, f32::INFINITY, -1.0], false).unwrap();
        assert!(scale * (15 - zero_point) as f32 > 1e38 && scale.is_finite());
        let text = of(&[1.0, f32::NAN, f32::INFINITY], true).unwrap_err().to_string();
        assert!(text.contains("flat index 1"), "{text}");
        assert!(Fit::Mse.params(&[1.0], &Grid::new(&[2], &[2]).unwrap(), &target, true).is_err());
        let empty = Fit::Mse.params(&[], &Grid::new(&[3, 0], &[1, 0]).unwrap(), &target, true).unwrap();
        assert_eq!((empty.scale, empty.zero_point), (vec![1.0; 3], vec![0; 3]));
    }

    /// Decibels of a fitted format over rows of `size` normal numbers.
    fn decibels(name: &str, size: usize, kind: ScaleType) -> f64 {
        let x = gauss((1 << 15) / size * size, 9);
        let grid = Grid::new(&[x.len() / size, size], &[1, size]).unwrap();
        let target = Target::new(format::find(name).unwrap(), true, false, kind).unwrap();
        let fitted = Fit::Mse.params(&x, &grid, &target, true).unwrap();
        let (format, mut y) = (target.format(), vec![0.0; x.len()]);
        let encoding = crate::Encoding {
            format,
            narrow_range: false,
            rounding: Rounding::HalfEven,
            seed: 0,
            check_finite: true,
            saturate: true,
        };
        let Fitted { scale, zero_point, levels } = &fitted;
        crate::fake_quantize(&x, &grid, qparams::QParams { scale, zero_point, levels }, &encoding, &mut y)
            .unwrap();
        let power = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v * v)).sum::<f64>();
        10.0 * (power(&mut x.iter().copied()) / power(&mut x.iter().zip(&y).map(|(x, y)| x - y))).log10()
    }

    #[test]
    fn every_format_reaches_what_is_known_of_normal_numbers() {
        for (name, size, kind, least) in [
            ("int4", 128, ScaleType::Float16, 20.2),
            ("int4", 32, ScaleType::Float16, 21.7),
            ("int2", 128, ScaleType::Float16, 8.7),
            ("nf4", 64, ScaleType::Float16, 21.5),
            ("codebook:4", 64, ScaleType::Float16, 21.75),
            ("codebook:2", 1 << 15, ScaleType::Float32, 9.25),
            ("mxfp4", 32, ScaleType::E8M0, 18.95),
            ("nvfp4", 16, ScaleType::E4M3, 21.7),
            ("pow2:4", 128, ScaleType::Float16, 14.95),
            ("ternary", 128, ScaleType::Float16, 7.2),
            ("binary", 128, ScaleType::Float16, 4.35),
            ("float8_e4m3fn", 128, ScaleType::Float16, 31.4),
        ] {
            let reached = decibels(name, size, kind);
            println!("{name}, groups of {size}, {}: {reached:.2} dB", kind.name());
            assert!(reached >= least, "{name}: {reached}");
        }
    }
}
