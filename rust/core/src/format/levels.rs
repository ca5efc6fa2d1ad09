//! A finite set of levels in a table, and the search for the one that a value is rounded to.
//!
//! A rounding mode decides from which value on the upper of two neighbouring levels is taken. For every mode but the
//! stochastic one that value is a constant: so encoding counts the thresholds that a value has reached, whatever
//! the mode.

#![forbid(unsafe_code)]

use crate::rounding::Rounding;
use std::cmp::Ordering;
use std::hint::black_box;

/// The most levels of a table.
pub(crate) const MOST: usize = 256;

/// Levels in ascending order, and the code of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    levels: Vec<f32>,
    codes: Vec<u8>,
}

impl Levels {
    /// From the level of each code, 2 to 256 finite ones; of equal levels (0 and −0) the first has the code.
    pub(crate) fn new(of_codes: &[f32]) -> Levels {
        let mut order: Vec<usize> = (0..of_codes.len().min(MOST)).collect();
        order.sort_by(|&a, &b| {
            of_codes[a].partial_cmp(&of_codes[b]).unwrap_or(Ordering::Equal).then(a.cmp(&b))
        });
        order.dedup_by(|next, first| of_codes[*next] == of_codes[*first]);
        Levels {
            levels: order.iter().map(|&code| of_codes[code]).collect(),
            codes: order.iter().map(|&code| code as u8).collect(),
        }
    }

    /// The lowest and the highest level.
    pub(crate) fn ends(&self) -> (f32, f32) {
        (self.levels[0], self.levels[self.levels.len() - 1])
    }

    /// Whether the levels turned round are others.
    pub(crate) fn lopsided(&self) -> bool {
        self.levels.iter().zip(self.levels.iter().rev()).any(|(a, b)| *a != -b)
    }

    /// The search as a rounding mode wants it.
    pub(crate) fn picker(&self, rounding: Rounding) -> Picker {
        let count = self.levels.len();
        let ordered = self.codes.iter().enumerate().all(|(i, code)| i == usize::from(*code));
        let mut picker = Picker {
            thresholds: [f32::NAN; MOST],
            levels: [self.ends().1; MOST],
            codes: [0; MOST],
            count,
            ordered,
        };
        picker.levels[..count].copy_from_slice(&self.levels);
        picker.codes[..count].copy_from_slice(&self.codes);
        for (i, pair) in self.levels.windows(2).enumerate() {
            picker.thresholds[i] = threshold(rounding, pair[0], pair[1], self.codes[i + 1].is_multiple_of(2));
        }
        picker
    }
}

/// The least value that goes up to `above` rather than down to `below`; `even`: the code of `above` is.
fn threshold(rounding: Rounding, below: f32, above: f32, even: bool) -> f32 {
    // The sum of two float32 numbers is exact in float64, unless they are more than 29 binary orders apart.
    let middle = (f64::from(below) + f64::from(above)) / 2.0;
    let nearest = middle as f32;
    let at_least = if f64::from(nearest) < middle { nearest.next_up() } else { nearest };
    let more_than = if f64::from(nearest) > middle { nearest } else { nearest.next_up() };
    match rounding {
        Rounding::HalfEven if even => at_least,
        Rounding::HalfEven => more_than,
        Rounding::HalfAway if middle < 0.0 => more_than,
        Rounding::HalfUp | Rounding::HalfAway => at_least,
        Rounding::Floor | Rounding::Stochastic => above,
        Rounding::Ceil => below.next_up(),
        Rounding::TowardZero if below >= 0.0 => above,
        Rounding::TowardZero if above <= 0.0 => below.next_up(),
        // Where no level is 0, neither neighbour of a value around it is nearer to zero than the value is.
        Rounding::TowardZero => at_least,
    }
}

/// Levels and thresholds as loops read them.
#[derive(Debug, Clone)]
pub(crate) struct Picker {
    /// `thresholds[i]` is the least value that reaches level `i + 1`; NaN, which nothing reaches, after the last.
    thresholds: [f32; MOST],
    levels: [f32; MOST],
    codes: [u8; MOST],
    count: usize,
    /// Whether codes number the levels, as most do: then they need not be looked up.
    ordered: bool,
}

/// Values that are compared side by side: four vectors of AVX2.
const SIDE: usize = 32;

impl Picker {
    /// Codes and, where they are asked for, levels of `v`. With `RANDOM`, from thresholds of stochastic rounding, the
    /// upper neighbour is taken where `u` is below the fraction. What NaN gives is unspecified.
    #[inline(always)]
    pub(crate) fn pick<const RANDOM: bool, const N: usize>(
        &self,
        v: [f32; N],
        u: [f32; N],
        want_levels: bool,
    ) -> ([i32; N], [f32; N]) {
        let index = self.index(v);
        let (mut codes, mut levels) = (index, [0.0; N]);
        if RANDOM || want_levels || !self.ordered {
            // Through memory: the compiler would take vectors apart to look levels up.
            let index = black_box(index);
            for i in 0..N {
                let at = index[i] as usize & (MOST - 1);
                let at = if RANDOM { self.drawn(at, v[i], u[i]) } else { at };
                codes[i] = self.codes[at].into();
                levels[i] = self.levels[at];
            }
        }
        (codes, levels)
    }

    /// How many thresholds each value has reached.
    #[inline(always)]
    fn index<const N: usize>(&self, v: [f32; N]) -> [i32; N] {
        let mut index = [0; N];
        let (sides, rest) = v.as_chunks();
        let (index_sides, index_rest) = index.as_chunks_mut();
        // Vectors compare with all of 255 thresholds in less time than they take to fetch eight of them.
        for (v, index) in sides.iter().zip(index_sides) {
            *index = self.side(*v);
        }
        for (v, index) in rest.iter().zip(index_rest) {
            for step in [128, 64, 32, 16, 8, 4, 2, 1] {
                let reached = *v >= self.thresholds[(*index + step - 1) as usize & (MOST - 1)];
                *index += if reached { step } else { 0 };
            }
        }
        index
    }

    /// [`index`](Self::index) of four vectors.
    #[inline(always)]
    fn side(&self, v: [f32; SIDE]) -> [i32; SIDE] {
        let mut index = [0; SIDE];
        for threshold in &self.thresholds[..self.count - 1] {
            // One after the other: the compiler would take eight thresholds abreast, and a value at a time.
            black_box(());
            for i in 0..SIDE {
                index[i] += i32::from(v[i] >= *threshold);
            }
        }
        index
    }

    /// The level at `at` or the one above it, with the probability that keeps the mean.
    #[inline(always)]
    fn drawn(&self, at: usize, v: f32, u: f32) -> usize {
        let above = (at + 1).min(self.count - 1);
        let (low, high) = (self.levels[at], self.levels[above]);
        // From the highest level on the fraction is 0 / 0 or infinite, and there is none above.
        if u < (v - low) / (high - low) { above } else { at }
    }

    /// The levels next to `v`, by selections alone: for a vector of candidates.
    #[inline(always)]
    pub(crate) fn levels<const N: usize>(&self, v: [f32; N]) -> [f32; N] {
        let mut levels = [self.levels[0]; N];
        for (threshold, above) in self.thresholds.iter().zip(&self.levels[1..]).take(self.count - 1) {
            for i in 0..N {
                levels[i] = if v[i] >= *threshold { *above } else { levels[i] };
            }
        }
        levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(levels: &Levels, rounding: Rounding, v: f32) -> i32 {
        let picker = levels.picker(rounding);
        let one = picker.pick::<false, 1>([v], [0.0], true);
        let side = picker.pick::<false, SIDE>([v; SIDE], [0.0; SIDE], true);
        assert_eq!(side, ([one.0[0]; SIDE], [one.1[0]; SIDE]));
        assert_eq!(picker.levels([v]), one.1);
        one.0[0]
    }

    #[test]
    fn whole_numbers_are_rounded_as_integers_are() {
        for count in [2, 15, 16, 17, 256] {
            let half = count / 2;
            let levels = Levels::new(&(0..count).map(|code| (code - half) as f32).collect::<Vec<_>>());
            for quarter in -4 * half - 9..4 * half + 9 {
                let v = quarter as f32 / 4.0;
                let inside = v.max(-half as f32).min((count - 1 - half) as f32);
                let floor = inside.floor();
                let expected = [
                    // The code of −half is 0, so an even code is an even number where half is.
                    (
                        Rounding::HalfEven,
                        if half % 2 == 0 {
                            inside.round_ties_even()
                        } else {
                            (inside + 1.0).round_ties_even() - 1.0
                        },
                    ),
                    (Rounding::HalfAway, inside.round()),
                    (Rounding::HalfUp, floor + f32::from(u8::from(inside - floor >= 0.5))),
                    (Rounding::Floor, floor),
                    (Rounding::Ceil, inside.ceil()),
                    (Rounding::TowardZero, inside.trunc()),
                ];
                for (rounding, expected) in expected {
                    assert_eq!(
                        picked(&levels, rounding, v),
                        expected as i32 + half,
                        "{count} {rounding:?} {v}"
                    );
                }
            }
        }
    }

    #[test]
    fn codes_need_not_ascend_and_zero_has_one() {
        let levels = Levels::new(&[0.0, 3.0, 1.0, -0.0, -1.0]);
        assert_eq!(levels.ends(), (-1.0, 3.0));
        let codes = [-9.0, -0.4, -0.0, 0.4, 1.9, 2.0, 2.1, f32::INFINITY]
            .map(|v| picked(&levels, Rounding::HalfUp, v));
        assert_eq!(codes, [4, 0, 0, 0, 2, 1, 1, 1]);
    }

    #[test]
    fn a_draw_keeps_the_mean() {
        let picker = Levels::new(&[-1.0, 0.0, 3.0]).picker(Rounding::Stochastic);
        let up =
            (0..100).filter(|&i| picker.pick::<true, 1>([1.2], [i as f32 / 100.0], true).0[0] == 2).count();
        assert_eq!(up, 40);
        for (v, code) in [(-5.0, 0), (-1.0, 0), (0.0, 1), (3.0, 2), (9.0, 2)] {
            assert_eq!(picker.pick::<true, 1>([v], [0.0], true).0[0], code, "{v}");
        }
    }
}
