//! Levels of a trellis-coded quantizer: those that come with the library, and their training.
#![forbid(unsafe_code)]

use super::tcq::Tcq;
use crate::error::Error;
use crate::mem::zeroed;
use crate::trellis::{check, check_values};

/// The training of levels: generalised Lloyd. Each round finds the best paths through the trellis and makes each
/// level the mean of the values it stands for, weighted by their importance.
///
/// In the first three quarters of the rounds levels move beyond the mean, since the last hundredths of a decibel
/// come slowly: on a unit Gaussian 30 rounds are within 0.002 dB of many more at 3 bits, 100 within 0.01 dB at 4 bits.
///
/// ```
/// use qrs_core::trellis::{Lloyd, Tcq, gaussian};
/// let mut samples = vec![0.0; 1 << 14];
/// gaussian(1, &mut samples);
/// let levels = Lloyd { bits: 2, states: 8, rounds: 10 }.run(&samples, None)?;
/// let tcq = Tcq::new(2, 8, &levels)?;
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lloyd {
    /// Bits of a value, 1 to 8.
    pub bits: usize,
    /// States of the code: a power of two from 4 to 256.
    pub states: usize,
    /// Rounds, each of which encodes all samples.
    pub rounds: usize,
}

impl Lloyd {
    /// Trains `2^(bits + 1)` levels on samples, for each level some hundred of them.
    ///
    /// # Errors
    /// A number that no quantizer can have; samples that are all equal; those of [`Tcq::encode`].
    pub fn run(&self, samples: &[f32], importance: Option<&[f32]>) -> Result<Vec<f32>, Error> {
        let mut levels = self.first(samples)?;
        let mut codes = zeroed(samples.len())?;
        let mut numbers = zeroed(samples.len())?;
        for round in 0..self.rounds {
            Tcq::new(self.bits, self.states, &levels)?.encode(samples, importance, &mut codes, None)?;
            // A decoder whose levels are their numbers finds the level of each sample.
            let count: Vec<f32> = (0..levels.len()).map(|number| number as f32).collect();
            Tcq::new(self.bits, self.states, &count)?.decode(&codes, &mut numbers)?;
            let mut sums = vec![(0f64, 0f64); levels.len()];
            for (i, (x, number)) in samples.iter().zip(&numbers).enumerate() {
                let weight = importance.map_or(1.0, |weights| f64::from(weights[i]));
                let (sum, total) = &mut sums[*number as usize];
                *sum += weight * f64::from(*x);
                *total += weight;
            }
            let moved = |by: f64| -> Vec<f32> {
                let level = |(level, (sum, total)): (&f32, &(f64, f64))| {
                    let level = f64::from(*level);
                    if *total > 0.0 { (level + by * (sum / total - level)) as f32 } else { level as f32 }
                };
                levels.iter().zip(&sums).map(level).collect()
            };
            let by = if 4 * round < 3 * self.rounds { MOVE } else { 1.0 };
            // A level that nothing chose stays, and others may pass it.
            let next = [by, 1.0].map(moved).into_iter().find(|levels| levels.is_sorted_by(|a, b| a < b));
            match next {
                Some(next) => levels = next,
                None => break,
            }
        }
        Ok(levels)
    }

    /// Where the rounds begin: levels that suit a scalar quantizer of so many, whose density goes with the cube root
    /// of that of the samples (Panter and Dite 1951). Between two of 512 quantiles, a distance w apart, the
    /// density is 1 / (512·w), so w · w^(−1/3) of the levels belong there; the exponent 5/8 takes roots alone.
    fn first(&self, samples: &[f32]) -> Result<Vec<f32>, Error> {
        check("bits", self.bits, 1, 8)?;
        check_values(samples, None)?;
        let mut sorted = zeroed(samples.len())?;
        sorted.copy_from_slice(samples);
        sorted.sort_unstable_by(f32::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let spread = match (sorted.first(), sorted.get(last)) {
            (Some(low), Some(high)) if low < high => f64::from(*high) - f64::from(*low),
            _ => {
                let (got, expected) = ("one value".to_owned(), "at least two that differ".to_owned());
                return Err(Error::Value { what: "samples", got, expected });
            }
        };
        let quantiles: Vec<f64> = (0..=QUANTILES).map(|q| f64::from(sorted[last * q / QUANTILES])).collect();
        let shares = quantiles.array_windows().map(|[low, high]| {
            // A thousandth of the levels is spread evenly: none may fall on another.
            let w = (high - low) / spread + 1e-3 / QUANTILES as f64;
            w.sqrt() * w.sqrt().sqrt().sqrt()
        });
        let shares: Vec<f64> = shares.collect();
        let total: f64 = shares.iter().sum();
        let count = 2 << self.bits;
        let (mut levels, mut passed, mut at) = (Vec::with_capacity(count), 0.0, 0);
        for i in 0..count {
            let wanted = total * (i as f64 + 0.5) / count as f64;
            while passed + shares[at] < wanted && at + 1 < QUANTILES {
                passed += shares[at];
                at += 1;
            }
            let [low, high] = [quantiles[at], quantiles[at + 1]];
            levels.push((low + (high - low) * (wanted - passed) / shares[at]) as f32);
        }
        Ok(levels)
    }
}

const QUANTILES: usize = 512;
/// How far a level moves at first, in distances to the mean.
const MOVE: f64 = 1.8;

/// The levels for a unit Gaussian of 1 to 4 bits and `2^memory` states.
pub(super) fn gaussian(bits: usize, memory: usize) -> Vec<f32> {
    let positive = &GAUSSIAN[memory - 2][(1 << bits) - 2..][..1 << bits];
    positive.iter().rev().map(|level| -level).chain(positive.iter().copied()).collect()
}

/// The positive levels for 4, 8 … 256 states, in each row those of 1, 2, 3 and 4 bits in turn: [`Lloyd`] of 200
/// rounds on the 2²⁰ samples `gaussian(999, …)`, made symmetric and rounded.
#[rustfmt::skip]
#[allow(clippy::approx_constant, reason = "a trained level came out as log₁₀ 2")]
const GAUSSIAN: [[f32; 30]; 7] = [
    [
        0.3830, 1.1950, 0.1739, 0.6342, 1.0621, 1.8661, 0.0948, 0.3213, 0.5228, 0.7724,
        1.0229, 1.3396, 1.7695, 2.4664, 0.0504, 0.1674, 0.2677, 0.3887, 0.4939, 0.6201,
        0.7359, 0.8718, 1.0048, 1.1585, 1.3216, 1.5140, 1.7463, 2.0423, 2.4370, 3.0394,
    ],
    [
        0.3449, 1.2019, 0.1907, 0.6038, 1.0650, 1.8653, 0.1049, 0.3010, 0.5204, 0.7460,
        1.0079, 1.3216, 1.7666, 2.4675, 0.0555, 0.1540, 0.2653, 0.3652, 0.4817, 0.5915,
        0.7152, 0.8399, 0.9788, 1.1272, 1.2975, 1.4950, 1.7365, 2.0375, 2.4341, 3.0355,
    ],
    [
        0.3273, 1.2107, 0.1877, 0.5992, 1.0656, 1.8684, 0.1036, 0.3013, 0.5199, 0.7483,
        1.0090, 1.3300, 1.7798, 2.4823, 0.0537, 0.1574, 0.2647, 0.3722, 0.4834, 0.5994,
        0.7213, 0.8500, 0.9875, 1.1378, 1.3076, 1.5051, 1.7442, 2.0425, 2.4371, 3.0376,
    ],
    [
        0.3187, 1.2200, 0.1838, 0.5961, 1.0620, 1.8712, 0.0992, 0.3050, 0.5162, 0.7518,
        1.0110, 1.3377, 1.7883, 2.4901, 0.0520, 0.1586, 0.2631, 0.3726, 0.4825, 0.5993,
        0.7195, 0.8495, 0.9850, 1.1370, 1.3094, 1.5119, 1.7571, 2.0587, 2.4540, 3.0548,
    ],
    [
        0.2753, 1.2287, 0.1793, 0.5876, 1.0588, 1.8742, 0.0930, 0.3028, 0.5051, 0.7419,
        0.9981, 1.3341, 1.7904, 2.4932, 0.0482, 0.1549, 0.2536, 0.3623, 0.4671, 0.5821,
        0.7007, 0.8279, 0.9647, 1.1195, 1.2944, 1.5008, 1.7485, 2.0527, 2.4485, 3.0486,
    ],
    [
        0.2617, 1.2251, 0.1936, 0.5662, 1.0644, 1.8793, 0.1039, 0.2920, 0.5068, 0.7308,
        0.9957, 1.3335, 1.7953, 2.4985, 0.0545, 0.1519, 0.2590, 0.3617, 0.4731, 0.5829,
        0.7058, 0.8313, 0.9709, 1.1239, 1.3012, 1.5094, 1.7598, 2.0642, 2.4599, 3.0586,
    ],
    [
        0.2213, 1.2345, 0.1782, 0.5696, 1.0608, 1.8821, 0.0932, 0.2991, 0.4992, 0.7318,
        0.9933, 1.3362, 1.7981, 2.5014, 0.0489, 0.1544, 0.2527, 0.3610, 0.4649, 0.5819,
        0.6988, 0.8280, 0.9653, 1.1223, 1.3024, 1.5138, 1.7654, 2.0719, 2.4712, 3.0719,
    ],
];
