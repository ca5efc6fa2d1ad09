//! Training of table codes, and the scale that fits best.
#![forbid(unsafe_code)]

use super::code::{Code, TABLE_BITS, Table};
use super::{Trellis, check};
use crate::error::Error;
use crate::mem::zeroed;
use crate::rounding::uniform;

/// How a table is trained: generalised Lloyd, annealed. Each round finds the best paths through the trellis and makes
/// each level the mean of the values it stands for.
///
/// With one value a step the rounds begin with the levels of the quintic code, with two from random ones: where they begin
/// counts for more than how many there are (0.2 dB at 2 bits and 8 state bits). In the first half of the rounds
/// levels move beyond the mean, and then by noise that fades, so that they do not come to rest too early.
///
/// The tables that come with this library are those of seed 0 and the samples `gaussian(999, …)`: 2¹⁷, 2¹⁸ and 2¹⁹ samples
/// and 60, 60 and 24 rounds for 8, 10 and 12 state bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// Bits that a step adds, 1 to 4.
    pub bits: usize,
    /// Bits of a state, 8 to 12.
    pub state_bits: usize,
    /// Values of a step, 1 or 2.
    pub values: usize,
    /// Rounds, each of which encodes all samples; some 60 are enough.
    pub rounds: usize,
    /// Seed of the noise, and with two values a step of the first levels.
    pub seed: u64,
}

/// The weight of a level's last value in its next, in samples: it keeps levels that are hardly used.
const INERTIA: f64 = 2.0;
/// How far a level moves at first, in distances to the mean.
const MOVE: f32 = 1.8;
/// Standard deviation of the first noise, in distances between levels: `2^(−k/V)`.
const NOISE: f32 = 0.15;

impl Training {
    /// Trains a table on samples: whole blocks of values of about unit variance, for each level some hundred of them.
    /// The samples of a weight matrix or those of [`gaussian`] will do.
    ///
    /// ```
    /// use qrs_core::trellis::{Code, Training, Trellis, gaussian};
    /// let mut samples = vec![0.0; 1 << 15];
    /// gaussian(1, &mut samples);
    /// let training = Training { bits: 2, state_bits: 8, values: 1, rounds: 10, seed: 0 };
    /// let trellis = Trellis::new(2, 8, 1, Code::Table(training.run(&samples, None)?))?;
    /// # Ok::<(), qrs_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// A number that no table can have; those of [`Trellis::encode`].
    pub fn run(&self, samples: &[f32], importance: Option<&[f32]>) -> Result<Table, Error> {
        check("bits", self.bits, 1, 4)?;
        check("state_bits", self.state_bits, 8, TABLE_BITS)?;
        check("values", self.values, 1, 2)?;
        let mut levels = zeroed(self.values << self.state_bits)?;
        let mut noise = levels.clone();
        if self.values == 1 {
            levels = Code::find("quintic", self.bits, self.state_bits)?.levels(self.state_bits);
        } else {
            gaussian(self.seed, &mut levels);
        }
        let mut assigned = Assigned::new(self, samples)?;
        let distance = 0.5f32.powi(self.bits as i32);
        let distance = if self.values == 1 { distance } else { distance.sqrt() };
        for round in 0..self.rounds {
            let code = Code::Table(Table { levels: Vec::new(), scale: 1.0 });
            let trellis = Trellis::with_levels(self.bits, self.state_bits, self.values, code, levels.clone());
            let sums = assigned.sums(trellis, importance)?;
            let heat = (1.0 - 2.0 * round as f32 / self.rounds as f32).max(0.0);
            gaussian(self.seed.wrapping_add(1 + round as u64), &mut noise);
            for ((level, Sum { value, weight }), noise) in levels.iter_mut().zip(sums).zip(&noise) {
                let mean = (value + INERTIA * f64::from(*level)) / (weight + INERTIA);
                let step = if heat > 0.0 { MOVE } else { 1.0 };
                *level += step * (mean as f32 - *level) + NOISE * distance * heat * noise;
            }
        }
        Ok(Table::new(&levels))
    }
}

/// The samples that a level stands for.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    weight: f64,
}

/// Which sample belongs to which level.
struct Assigned<'a> {
    samples: &'a [f32],
    bytes: Vec<u8>,
    /// The number of the level of each sample: a decoder whose levels are their numbers finds it.
    levels: Vec<f32>,
}

impl<'a> Assigned<'a> {
    fn new(training: &Training, samples: &'a [f32]) -> Result<Self, Error> {
        let bytes = samples.len() / 8 * training.bits / training.values;
        Ok(Assigned { samples, bytes: zeroed(bytes)?, levels: zeroed(samples.len())? })
    }

    /// Encodes all samples and sums up those of each level.
    fn sums(&mut self, mut trellis: Trellis, importance: Option<&[f32]>) -> Result<Vec<Sum>, Error> {
        trellis.encode(self.samples, importance, &mut self.bytes, None)?;
        let mut sums = vec![Sum::default(); trellis.levels.len()];
        trellis.levels = (0..sums.len()).map(|number| number as f32).collect();
        trellis.decode(&self.bytes, &mut self.levels)?;
        for (i, (x, level)) in self.samples.iter().zip(&self.levels).enumerate() {
            let weight = importance.map_or(1.0, |weights| f64::from(weights[i]));
            let sum = &mut sums[*level as usize];
            sum.value += weight * f64::from(*x);
            sum.weight += weight;
        }
        Ok(sums)
    }
}

/// The scale `Σ w·x·y / Σ w·y²` by which decoded values come nearest to `x`; 1 where they are all 0.
///
/// Encoding `x / scale` and fitting the scale in turn finds the scale of a group of weights: the error never grows but
/// by the rounding of the search, and two or three turns are enough.
///
/// ```
/// use qrs_core::trellis::fit_scale;
/// assert_eq!(fit_scale(&[2.0, -4.0], &[1.0, -2.0], None)?, 2.0);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// The lengths differ.
pub fn fit_scale(x: &[f32], decoded: &[f32], importance: Option<&[f32]>) -> Result<f32, Error> {
    for (what, len) in [("decoded", decoded.len()), ("importance", importance.map_or(x.len(), <[f32]>::len))]
    {
        if len != x.len() {
            return Err(Error::Shape { what, got: vec![len], expected: format!("({},), as x", x.len()) });
        }
    }
    let (mut xy, mut yy) = (0f64, 0f64);
    for (i, (x, y)) in x.iter().zip(decoded).enumerate() {
        let w = importance.map_or(1.0, |w| f64::from(w[i]));
        xy += w * f64::from(*x) * f64::from(*y);
        yy += w * f64::from(*y) * f64::from(*y);
    }
    Ok(if yy > 0.0 { (xy / yy) as f32 } else { 1.0 })
}

/// Fills `out` with unit Gaussian numbers, the same on every machine: Marsaglia's polar method on the uniform numbers of
/// Philox4x32-10.
///
/// ```
/// let mut x = [0.0; 2];
/// qrs_core::trellis::gaussian(1, &mut x);
/// assert!(x[0] != x[1]);
/// ```
pub fn gaussian(seed: u64, out: &mut [f32]) {
    let mut pairs = [0.0; 256];
    let (mut index, mut done) = (0, 0);
    while done < out.len() {
        uniform(seed, index, &mut pairs);
        index += pairs.len();
        for pair in pairs.as_chunks::<2>().0 {
            let [a, b] = pair.map(|u| 2.0 * f64::from(u) - 1.0);
            let square = a * a + b * b;
            if square > 0.0 && square < 1.0 {
                let length = (-2.0 * ln(square) / square).sqrt();
                for v in [a * length, b * length] {
                    if let Some(out) = out.get_mut(done) {
                        *out = v as f32;
                        done += 1;
                    }
                }
            }
        }
    }
}

/// The natural logarithm of a normal number, of additions and multiplications alone, so that every machine finds the
/// same numbers.
pub(super) fn ln(v: f64) -> f64 {
    const HALF: u64 = 0x3FE6_A09E_667F_3BCD;
    let shifted = v.to_bits().wrapping_sub(HALF);
    let exponent = (shifted as i64) >> 52;
    let m = f64::from_bits(v.to_bits().wrapping_sub((exponent as u64) << 52));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for n in (0..11).rev() {
        sum = sum * square + 2.0 / (2 * n + 1) as f64;
    }
    exponent as f64 * std::f64::consts::LN_2 + sum * s
}
