//! The entropy-coded trellis quantizer.
#![forbid(unsafe_code)]

use super::paths::{PATHS, RUN, Scratches, Search};
use super::prices::{Counts, Prices, lambda};
use super::rans::{Alphabets, Encoder};
use super::stream::{self, LARGEST_STEP};
use super::ungerboeck::Machine;
use crate::error::Error;
use crate::isa::Isa;
use crate::mem::zeroed;
use crate::parallel;
use crate::trellis::{Progress, check_values};
use std::sync::{Mutex, PoisonError};

/// Entropy-coded trellis quantization: evenly spaced levels without end, paths chosen by error and bits, and a coder
/// that spends on each level what its frequency is worth.
///
/// The levels are the multiples of a step, `x̂ = step · n`, and level n belongs to subset `n mod 4` of an Ungerboeck
/// code: a state takes even multiples (A0) or odd ones (A1), and the next state hangs on `n mod 4`. The search finds
/// the paths of least `Σ (x − x̂)² + λ·bits`, where bits are those of the coder; prices, paths and frequencies are
/// found in turn on a sample. The price λ of a bit follows from the rate, so the step alone says how fine the
/// quantizer is. No value is clipped: rare ones are escapes.
///
/// At 1 to 4 bits 2²⁰ values of a Gaussian are coded with 8 states within 0.47 dB of the rate-distortion bound, 6.02 dB
/// a bit, and with 256 within 0.23 dB, all bytes counted; 0.01 to 0.02 dB of that are the head and the ends of the
/// coders. A scalar quantizer with an ideal coder stays 1.53 dB away. Sixteen paths take turns in runs of 65536 values,
/// each starting in state 0, and a head takes some hundred bytes: for a thousand values a fixed rate serves better.
///
/// Odd levels at their places, and no zero among them, are better than the mirrored form of JPEG 2000 part 2 and
/// VVC, in which both supersets have a zero: at 1 and 2 bits by 0.23 and 0.07 dB. At low rates paths stay in states
/// that take even levels.
///
/// Sources: T. R. Fischer, M. Wang, Entropy-constrained trellis-coded quantization, IEEE Trans. Inf. Theory 38, 1992;
/// H. Schwarz et al., Quantization and entropy coding in the Versatile Video Coding standard, IEEE Trans. Circuits
/// Syst. Video Technol. 31, 2021.
///
/// ```
/// use qrs_core::trellis::{Ectcq, Stream, gaussian};
/// let mut x = vec![0.0; 1 << 14];
/// gaussian(1, &mut x);
/// let bytes = Ectcq::new(8)?.encode_at(&x, 2.0, None, None)?;
/// assert!(bytes.len() <= x.len() / 4);
/// let mut decoded = vec![0.0; x.len()];
/// Stream::parse(&bytes)?.decode(&mut decoded)?;
/// let error: f32 = x.iter().zip(&decoded).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / x.len() as f32;
/// assert!(error < 0.075);
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ectcq {
    machine: Machine,
}

impl Ectcq {
    /// A quantizer of `states` states, a power of two from 4 to 256.
    ///
    /// # Errors
    /// Another number.
    pub fn new(states: usize) -> Result<Ectcq, Error> {
        Ok(Ectcq { machine: Machine::new(states)? })
    }

    /// States of the code.
    pub fn states(&self) -> usize {
        self.machine.states()
    }

    /// Encodes values to multiples of `step`, with which [`Stream`](super::Stream) begins.
    ///
    /// At 2 bits and more the squared error is 0.28 to 0.26 squared steps with 8 states, 0.27 to 0.25 with 256. The
    /// levels of the search are decoded with the step that fits them best, which is not quite `step` below 2 bits. With
    /// `importance` the search weighs squared errors by it, relative to its mean. The bytes depend neither on the
    /// instruction set nor on the number of threads.
    ///
    /// # Errors
    /// A step that is not from 1.2e-38 to 1e30, or so small that a value is 2²¹ steps or more; `importance` does not
    /// fit `x`; NaN or infinity in `x`; an importance that is negative or not finite; no memory.
    pub fn encode(
        &self,
        x: &[f32],
        step: f32,
        importance: Option<&[f32]>,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, Error> {
        let source = Source::new(Isa::active()?, x, importance)?;
        self.encode_source(&source, step, progress)
    }

    /// Encodes values in at most `bits` bits each, head included, with the smallest step that is found to do so: the
    /// step is searched on a sample first, then by encoding everything some two to four times, until a thousandth of
    /// the bytes at most is left. More is left where the rate jumps from one step to the next: of few values, and of
    /// values that are encoded without error. `progress` hears of all values each time.
    ///
    /// ```
    /// use qrs_core::trellis::{Ectcq, Stream};
    /// let x: Vec<f32> = (0..5000).map(|i| (i as f32).sin()).collect();
    /// let bytes = Ectcq::new(4)?.encode_at(&x, 3.5, None, None)?;
    /// assert!(bytes.len() <= 5000 * 7 / 16);
    /// # Ok::<(), qrs_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `bits` is not from 0 to 20, or so little that the head alone takes more; those of [`Ectcq::encode`].
    pub fn encode_at(
        &self,
        x: &[f32],
        bits: f64,
        importance: Option<&[f32]>,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, Error> {
        if !(0.0..=20.0).contains(&bits) {
            let (got, expected) = (bits.to_string(), "0 to 20 bits a value".to_owned());
            return Err(Error::Value { what: "bits", got, expected });
        }
        let source = Source::new(Isa::active()?, x, importance)?;
        let values = x.len().max(1) as f64;
        let sample = source.sample()?;
        let largest = x.iter().fold(0f32, |top, x| top.max(x.abs()));
        let mut search = Bisection::new(largest, bits);
        search.run(0.01, 24, |step| Ok(self.learn(&sample, step)?.rate()))?;
        let mut search = Bisection { target: bits, ..search.narrowed() };
        let (mut best, mut least): (Option<Vec<u8>>, usize) = (None, usize::MAX);
        let tolerance = (1e-3 * bits).max(8.0 / values);
        search.run(tolerance, 24, |step| {
            let bytes = self.encode_source(&source, step, progress)?;
            least = least.min(bytes.len());
            let rate = 8.0 * bytes.len() as f64 / values;
            if rate <= bits && best.as_ref().is_none_or(|best| best.len() < bytes.len()) {
                best = Some(bytes);
            }
            Ok(rate)
        })?;
        best.ok_or_else(|| {
            let expected =
                format!("more, or a step: {} values and the head of a stream take {least} bytes", x.len());
            Error::Value { what: "bits", got: bits.to_string(), expected }
        })
    }

    pub(super) fn encode_source(
        &self,
        source: &Source<'_>,
        step: f32,
        progress: Progress<'_>,
    ) -> Result<Vec<u8>, Error> {
        source.check_step(step)?;
        let counts = self.learn(&source.sample()?, step)?;
        let mut levels = zeroed(source.x.len())?;
        self.quantize(source, step, &counts, &mut levels, progress)?;
        let alphabets = Alphabets::new(&Counts::of(&levels).0);
        let encoder = Encoder::new(&alphabets);
        let failure = Mutex::new(None);
        let mut runs = vec![Vec::new(); levels.len().div_ceil(RUN)];
        parallel::for_each_chunk(&mut runs, 1, 8 * levels.len(), |number, run| {
            let end = levels.len().min((number + 1) * RUN);
            match encoder.encode(&levels[number * RUN..end]) {
                Ok(words) => run[0] = words,
                Err(error) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
        })?;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        stream::write(&self.machine, source.fitted(&levels, step), levels.len(), &alphabets, &runs)
    }

    /// How often each level is used when paths and prices suit each other.
    fn learn(&self, sample: &Sample, step: f32) -> Result<Counts, Error> {
        /// Paths and prices are found in turn so often.
        const ROUNDS: usize = 10;
        let source = sample.source();
        let scaled: Vec<f32> = source.x.iter().map(|x| x / step).collect();
        let mut counts = Counts::nearest(&scaled);
        let mut levels = zeroed(source.x.len())?;
        for _ in 0..ROUNDS {
            self.quantize(&source, step, &counts, &mut levels, None)?;
            counts = Counts::of(&levels);
        }
        Ok(counts)
    }

    /// The levels of the best paths at the prices of these counts.
    fn quantize(
        &self,
        source: &Source<'_>,
        step: f32,
        counts: &Counts,
        levels: &mut [i32],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        let prices = Prices::new(counts, lambda(counts.rate()));
        let scratches = Scratches::new(&self.machine, levels.len());
        let nanoseconds = levels.len() * (20 + self.states() / 4);
        parallel::for_each_chunk(levels, RUN, nanoseconds, |number, levels| {
            let run = number * RUN..number * RUN + levels.len();
            scratches.with(|scratch| {
                let y: Vec<f32> = source.x[run.clone()].iter().map(|x| x / step).collect();
                let weights: Option<Vec<f32>> =
                    source.importance.map(|w| w[run].iter().map(|w| w * source.weight).collect());
                let weights = weights.as_deref();
                let search = Search { machine: &self.machine, metric: &prices, x: &y, weights, scratch };
                for (i, (level, branch)) in levels.iter_mut().zip(search.run(source.isa)).enumerate() {
                    let weight = weights.map_or(1.0, |w| w[i]);
                    *level = prices.choose(i32::from(branch & 3), y[i], weight);
                }
            });
            if let Some(progress) = progress {
                progress(levels.len());
            }
        })?;
        scratches.check()
    }
}

/// Values that were checked, and what belongs to them.
pub(super) struct Source<'a> {
    isa: Isa,
    x: &'a [f32],
    importance: Option<&'a [f32]>,
    /// The inverse of the mean importance.
    weight: f32,
}

/// Values that stand for all, and their importances.
struct Sample {
    isa: Isa,
    x: Vec<f32>,
    importance: Option<Vec<f32>>,
    weight: f32,
}

impl Sample {
    fn source(&self) -> Source<'_> {
        Source { isa: self.isa, x: &self.x, importance: self.importance.as_deref(), weight: self.weight }
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(isa: Isa, x: &'a [f32], importance: Option<&'a [f32]>) -> Result<Source<'a>, Error> {
        check_values(x, importance)?;
        let sum = importance.map_or(0.0, |w| w.iter().map(|w| f64::from(*w)).sum::<f64>());
        let weight = if sum > 0.0 { (x.len() as f64 / sum) as f32 } else { 1.0 };
        Ok(Source { isa, x, importance, weight: weight.min(f32::MAX) })
    }

    fn check_step(&self, step: f32) -> Result<(), Error> {
        let expected = if !(f32::MIN_POSITIVE..=LARGEST_STEP).contains(&step) {
            "1.2e-38 to 1e30".to_owned()
        } else if let Some(far) = self.x.iter().find(|x| x.abs() / step >= FARTHEST) {
            format!("more than {} for the value {far}: at most 2²¹ steps", far.abs() / FARTHEST)
        } else {
            return Ok(());
        };
        Err(Error::Value { what: "step", got: step.to_string(), expected })
    }

    /// The step with which these levels have the least error: at low rates, where levels away from zero are chosen
    /// later than the nearest would be, a few hundredths from the step of the search.
    fn fitted(&self, levels: &[i32], step: f32) -> f32 {
        let (mut xn, mut nn) = (0f64, 0f64);
        for (i, (x, n)) in self.x.iter().zip(levels).enumerate() {
            let w = self.importance.map_or(1.0, |w| f64::from(w[i]));
            xn += w * f64::from(*x) * f64::from(*n);
            nn += w * f64::from(*n) * f64::from(*n);
        }
        let fitted = (xn / nn) as f32;
        if (f32::MIN_POSITIVE..=LARGEST_STEP).contains(&fitted) { fitted } else { step }
    }

    /// At most [`RUN`] values: all, or pieces of 64 spread evenly.
    fn sample(&self) -> Result<Sample, Error> {
        const PIECE: usize = 4 * PATHS;
        let take = |x: &[f32]| {
            let mut out = zeroed(x.len().min(RUN))?;
            let (pieces, all) = (out.len().div_ceil(PIECE), x.len().div_ceil(PIECE));
            for (number, out) in out.chunks_mut(PIECE).enumerate() {
                let piece = if all > pieces { number * (all - 2) / (pieces - 1) } else { number };
                out.copy_from_slice(&x[piece * PIECE..][..out.len()]);
            }
            Ok(out)
        };
        let importance = self.importance.map(take).transpose()?;
        Ok(Sample { isa: self.isa, x: take(self.x)?, importance, weight: self.weight })
    }
}

/// Values are less than so many steps.
const FARTHEST: f32 = (1 << 21) as f32;

/// The search for the step of a rate: steps are counted by their bit patterns, which are as good as logarithms, and
/// a step half as large costs at most a bit more.
#[derive(Clone, Copy)]
struct Bisection {
    target: f64,
    /// The step to try next, as its pattern in binades.
    at: f64,
    /// The least and the largest that may be tried.
    ends: [f64; 2],
    /// The largest known to take too many bits with how many too many, and the least known not to.
    too_small: Option<(f64, f64)>,
    enough: Option<(f64, f64)>,
}

impl Bisection {
    fn new(largest: f32, target: f64) -> Bisection {
        let binades = |step: f32| f64::from(step.to_bits()) / BINADE;
        let least = binades((largest / FARTHEST * 1.01).max(f32::MIN_POSITIVE));
        let most = binades((4.0 * largest).clamp(f32::MIN_POSITIVE, LARGEST_STEP)).max(least);
        // A Gaussian's largest value is some four standard deviations, and its step 2 to the power of −bits of two.
        let at = (most - 3.0 - target).clamp(least, most);
        Bisection { target, at, ends: [least, most], too_small: None, enough: None }
    }

    /// The same place, of which nothing is known.
    fn narrowed(self) -> Bisection {
        Bisection { too_small: None, enough: None, ..self }
    }

    /// Tries steps until the rate is below the target by no more than `tolerance`, or no step is left to try.
    fn run(
        &mut self,
        tolerance: f64,
        tries: usize,
        mut rate: impl FnMut(f32) -> Result<f64, Error>,
    ) -> Result<(), Error> {
        for _ in 0..tries {
            let excess = rate(f32::from_bits((self.at * BINADE) as u32))? - self.target;
            if (-tolerance..=0.0).contains(&excess) {
                return Ok(());
            }
            *(if excess > 0.0 { &mut self.too_small } else { &mut self.enough }) = Some((self.at, excess));
            // The middle of what is accepted is aimed at.
            let excess = excess + 0.5 * tolerance;
            let next = match (self.too_small, self.enough) {
                (Some((low, over)), Some((high, under))) => {
                    let part = (over + 0.5 * tolerance) / (over - under);
                    low + (high - low) * part.clamp(0.1, 0.9)
                }
                _ => (self.at + excess).clamp(self.ends[0], self.ends[1]),
            };
            if next == self.at {
                return Ok(());
            }
            self.at = next;
        }
        Ok(())
    }
}

/// Bit patterns between a power of two and the next.
const BINADE: f64 = (1 << 23) as f64;
