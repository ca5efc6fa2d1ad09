//! The scale of a cell whose codes lose least.
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
//!
//! Levels that reach farther on one side of zero are tried both ways round, that is with a negative scale: at 4 bits and
//! groups of 32 that is worth 0.5 dB. Scale types of a byte have so few scales near the best that all are measured.

#![forbid(unsafe_code)]

use super::Cells;
use crate::format::{Picker, Rounder, ScaleType};
use crate::isa::Op;
use crate::math::{self, LANES};
use crate::qparams::{self, Target};
use crate::rounding::{Mode, mode};
use crate::values::Values;

/// Elements whose errors are added in float32; sums over tiles are float64. Part of what a sum is.
const TILE: usize = 128;
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
/// The same for levels that are not evenly spaced, where a larger scale may bring a large element to a lower level:
/// 1.5 times as large for 6 to become 4 in float4_e2m1fn (Cook et al. 2025, arXiv:2512.02010).
const UNEVEN_SHIFTS: [(i32, f64); 4] = [(0, 1.6), (0, 1.544), (0, 0.55), (0, 1.07)];
/// The first of the scales of a byte, in units of the one that holds the range.
const FIRST: f32 = 1.7;

/// How levels hang on codes, for [`LANES`] candidates at a time.
pub(super) trait Law: Copy + Sync {
    const EVEN: bool;
    /// The level next to each `v`; where levels are codes, between `low` and `high`.
    fn levels(self, v: [f32; LANES], low: &[f32; LANES], high: &[f32; LANES]) -> [f32; LANES];
}

#[derive(Clone, Copy)]
pub(super) struct Integers;

impl Law for Integers {
    const EVEN: bool = true;
    #[inline(always)]
    fn levels(self, mut v: [f32; LANES], low: &[f32; LANES], high: &[f32; LANES]) -> [f32; LANES] {
        for i in 0..LANES {
            let above = if v[i] > low[i] { v[i] } else { low[i] };
            let inside = if above < high[i] { above } else { high[i] };
            v[i] = mode::HalfEven::round(inside, 0.0);
        }
        v
    }
}

impl Law for Rounder {
    const EVEN: bool = false;
    #[inline(always)]
    fn levels(self, mut v: [f32; LANES], _: &[f32; LANES], _: &[f32; LANES]) -> [f32; LANES] {
        let even = self.half_even(None);
        for v in &mut v {
            *v = even.nearest(*v).1;
        }
        v
    }
}

impl Law for &Picker {
    const EVEN: bool = false;
    #[inline(always)]
    fn levels(self, v: [f32; LANES], _: &[f32; LANES], _: &[f32; LANES]) -> [f32; LANES] {
        Picker::levels(self, v)
    }
}

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
struct Search<'a, L> {
    law: L,
    values: Values<'a>,
    target: &'a Target,
    /// A power of two that brings the largest element near to 1, so that no square leaves float32.
    unit: f32,
    /// The same for its largest weight.
    weight_unit: f32,
    /// −1 where levels are tried the other way round, else 1.
    turn: f32,
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
pub(super) fn held(x: f32) -> f32 {
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
    /// `[Σwr², Σwrt, Σwt²]` with `r = x − st`, in the order of `x`. Without weights they are 1, which changes no bit and
    /// costs two multiplications beside a division.
    #[inline(always)]
    fn sums(&self, law: impl Law, x: &[f32], weights: &[f32]) -> [[f32; LANES]; 3] {
        let Lanes { scale, low, high } = self;
        let [mut error, mut slope, mut squares] = [[0.0; LANES]; 3];
        let (mut v, mut r, mut weighted) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        // Plain loops, one for each array: these become vector code of the row's features. What a closure of
        // `from_fn` holds may be compiled without them.
        for (&x, &weight) in x.iter().zip(weights) {
            for i in 0..LANES {
                v[i] = x / scale[i];
            }
            let t = law.levels(v, low, high);
            for i in 0..LANES {
                r[i] = x - scale[i] * t[i];
            }
            for i in 0..LANES {
                weighted[i] = weight * r[i];
            }
            for i in 0..LANES {
                error[i] += weighted[i] * r[i];
            }
            for i in 0..LANES {
                slope[i] += weighted[i] * t[i];
            }
            for i in 0..LANES {
                squares[i] += (weight * t[i]) * t[i];
            }
        }
        [error, slope, squares]
    }
}

/// The scale and zero point of the cell `x` with the least error.
#[inline(always)]
fn fit_cell(law: impl Law, values: Values<'_>, target: &Target) -> (f32, i32) {
    let Values { x, importance } = values;
    let (mut lo, mut hi) = (math::fold(x, 0.0, smaller, smaller), math::fold(x, 0.0, larger, larger));
    let heaviest = math::fold(importance.unwrap_or(&[1.0]), 0.0, larger, larger);
    if let Some(importance) = importance.filter(|importance| heaviest > 0.0 && importance.contains(&0.0)) {
        // What does not count may be clipped.
        let counts = x.iter().zip(importance).filter(|(_, weight)| **weight > 0.0);
        (lo, hi) = counts.fold((0.0, 0.0), |(lo, hi), (x, _)| (smaller(lo, *x), larger(hi, *x)));
    }
    let (lo, hi) = (held(lo), held(hi));
    if lo == hi {
        return qparams::one(0.0, 0.0, target);
    }
    // Where nothing counts, neither does the choice.
    if heaviest == 0.0 {
        return qparams::one(lo, hi, target);
    }
    let (unit, weight_unit) = (unit(larger(-lo, hi)), unit(heaviest));
    // Where even the smallest scale is so large that errors overflow, that of the range is taken.
    let (mut found, mut least) = (qparams::one(lo, hi, target), f64::INFINITY);
    for (turn, range) in [(1.0, (lo, hi)), (-1.0, (-hi, -lo))] {
        if turn < 0.0 && !target.lopsided() {
            break;
        }
        let best = Best { range, error: f64::INFINITY };
        let best = Search { law, values, target, unit, weight_unit, turn, best }.run();
        if best.error < least {
            let (scale, zero_point) = qparams::one(best.range.0, best.range.1, target);
            (found, least) = ((scale * turn, zero_point), best.error);
        }
    }
    found
}

impl<L: Law> Search<'_, L> {
    #[inline(always)]
    fn run(mut self) -> Best {
        let few = matches!(self.target.scale_type(), ScaleType::E8M0 | ScaleType::E4M3);
        let (mut ranges, moves) =
            if few && self.target.symmetric() { (self.ladder(), 1) } else { (self.sweeps(), MOVES) };
        for _ in 0..moves {
            let moved = self.measure_ranges(ranges);
            for (range, candidate) in ranges.iter_mut().zip(moved) {
                *range = self.range(candidate);
            }
        }
        self.best
    }

    /// The scales that the scale type has from [`FIRST`] times that of the whole range down, as ranges.
    #[inline(always)]
    fn ladder(&self) -> [(f32, f32); LANES] {
        let (lo, hi) = self.best.range;
        let (low, high) = self.target.ends();
        let mut scale = self.target.stored(qparams::one(lo, hi, self.target).0 * FIRST);
        let mut ranges = [(0.0, 0.0); LANES];
        for range in &mut ranges {
            *range = (held(scale * low), held(scale * high));
            scale = self.target.below(scale);
        }
        ranges
    }

    /// The whole range, which wins where others are no better, and those of the most promising candidate of each sweep.
    #[inline(always)]
    fn sweeps(&self) -> [(f32, f32); LANES] {
        let (coarse, shifts): (usize, &[(i32, f64)]) = match (L::EVEN, self.target.symmetric()) {
            (false, _) => (3, &UNEVEN_SHIFTS),
            (true, true) => (2, &EVEN_SHIFTS),
            (true, false) => (5, &SHIFTS),
        };
        let (lo, hi) = self.best.range;
        let (scale, zero_point) = qparams::one(lo, hi, self.target);
        let better = f64::from(scale) * f64::from(self.unit);
        let whole = Candidate { zero_point, better, ..Candidate::UNMEASURED };
        let (mut ranges, mut top) = ([self.best.range; LANES], whole);
        for (i, (range, &(shift, first))) in ranges[1..].iter_mut().zip(shifts).enumerate() {
            // Fine sweeps are around the best of the coarse ones.
            let (center, ratio) = if i < coarse { (whole, COARSE) } else { (top, FINE) };
            let candidate = self.sweep(center, shift, (first, ratio));
            *range = self.range(candidate);
            if i < coarse && candidate.hoped < top.hoped {
                top = candidate;
            }
        }
        ranges
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
        let scale = candidate.better / f64::from(self.unit);
        let end = |level: f32| held((scale * f64::from(level)) as f32);
        let (low, high) = self.target.levels_around(candidate.zero_point);
        (end(low), end(high))
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
        let mut lanes = Lanes { scale, low: [0.0; LANES], high: [0.0; LANES] };
        for (i, &zero_point) in zero_points.iter().enumerate() {
            (lanes.low[i], lanes.high[i]) = self.target.levels_around(zero_point);
        }
        let mut total = [[0.0f64; LANES]; 3];
        let (mut tile, mut weights) = ([0.0; TILE], [1.0; TILE]);
        for (i, x) in self.values.x.chunks(TILE).enumerate() {
            let (tile, weights) = (&mut tile[..x.len()], &mut weights[..x.len()]);
            if let Some(importance) = self.values.importance {
                for (weight, importance) in weights.iter_mut().zip(&importance[i * TILE..]) {
                    *weight = importance * self.weight_unit;
                }
            }
            for (tile, &x) in tile.iter_mut().zip(x) {
                *tile = in_unit(x, self.unit) * self.turn;
            }
            let sums = lanes.sums(self.law, tile, weights);
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

/// Parameters of some cells, from cell number `first` on.
pub(super) struct Fitting<'a, L> {
    pub(super) law: L,
    pub(super) cells: &'a Cells<'a>,
    pub(super) first: usize,
    pub(super) target: &'a Target,
    pub(super) out: &'a mut [(f32, i32)],
}

impl<L: Law> Op for Fitting<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Fitting { law, cells: Cells { x, importance, starts }, first, target, out } = self;
        let values = Values { x, importance: *importance };
        for (out, ends) in out.iter_mut().zip(starts[first..].windows(2)) {
            *out = fit_cell(law, values.part(ends[0]..ends[1]), target);
        }
    }
}
