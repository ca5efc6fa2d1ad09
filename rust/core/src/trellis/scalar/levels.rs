//! Levels of a trellis-coded quantizer: those that come with the library, and their training.
#![forbid(unsafe_code)]

use super::tcq::Tcq;
use crate::error::Error;
use crate::mem::zeroed;
use crate::trellis::{check, check_values};

/// The training of levels: generalised Lloyd. Each round finds the best paths through the trellis and makes each level the mean
/// of the values it stands for, weighted by their importance.
///
/// The rounds begin with evenly spaced levels. The error falls slowly in the end; 100 rounds are within 0.002 dB
/// of many more.
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
        for _ in 0..self.rounds {
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
            let mut next = levels.clone();
            for (level, (sum, total)) in next.iter_mut().zip(sums) {
                if total > 0.0 {
                    *level = (sum / total) as f32;
                }
            }
            // A level that nothing chose stays, and the mean of few may pass it: then this round is the last.
            if next.is_sorted_by(|a, b| a < b) {
                levels = next;
            } else {
                break;
            }
        }
        Ok(levels)
    }

    /// Where the rounds begin: as many levels as suit a scalar quantizer of so many, whose density goes with the cube root
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

pub(super) fn gaussian(bits: usize, memory: usize) -> Vec<f32> {
    let _ = memory;
    let mut x = vec![0.0; 1 << 17];
    crate::trellis::gaussian(999, &mut x);
    Lloyd { bits, states: 1 << memory, rounds: 100 }.run(&x, None).unwrap_or_default()
}
