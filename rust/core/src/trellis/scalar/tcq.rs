//! The trellis-coded quantizer of a fixed rate.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "lanes of several arrays are indexed in step")]

use super::levels;
use super::paths::{Lanes, Metric, PATHS, RUN, Scratches, Search, lower};
use super::ungerboeck::Machine;
use crate::error::Error;
use crate::isa::Isa;
use crate::parallel;
use crate::trellis::{Progress, check, check_values};

/// The classic trellis-coded quantizer: `bits` bits a value choose from `2^(bits + 1)` levels.
///
/// The levels are dealt out to the four subsets of an Ungerboeck code. A value's code is `u + 2i`: the path bit u moves the
/// code on and names the subset, and i counts the level in it, so that level number `4i + z` is meant. Sixteen paths take
/// turns, value i belongs to path `i mod 16`, and every [`Tcq::RUN`] values all states are 0 again: a run can be decoded by itself.
/// Any number of values will do.
///
/// On a unit Gaussian 8 states reach 5.2, 10.7 and 16.3 dB at 1, 2 and 3 bits, 256 states 5.55, 11.0 and 16.6: half of what
/// there is between a scalar quantizer (4.4, 9.3 and 14.6 dB) and the rate-distortion bound (6.02 dB a bit), or
/// two thirds.
///
/// Source: M. W. Marcellin, T. R. Fischer, Trellis coded quantization of memoryless and Gauss-Markov sources, IEEE
/// Trans. Commun. 38, 1990.
///
/// ```
/// use qrs_core::trellis::{Tcq, gaussian};
/// let tcq = Tcq::gaussian(2, 8)?;
/// let mut x = vec![0.0; 1000];
/// gaussian(1, &mut x);
/// let mut codes = vec![0; x.len()];
/// tcq.encode(&x, None, &mut codes, None)?;
/// assert!(codes.iter().all(|code| *code < 4));
/// let mut decoded = vec![0.0; x.len()];
/// tcq.decode(&codes, &mut decoded)?;
/// let error: f32 = x.iter().zip(&decoded).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / 1000.0;
/// assert!(error < 0.1);
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tcq {
    bits: usize,
    machine: Machine,
    levels: Vec<f32>,
    nearest: Nearest,
}

impl Tcq {
    /// Values after which all paths start anew.
    pub const RUN: usize = RUN;

    /// A quantizer of `bits` bits a value (1 to 8), `states` states (a power of two from 4 to 256) and `2^(bits + 1)`
    /// levels, in ascending order: those that [`Lloyd`](super::Lloyd) trains, or evenly spaced ones for uniform values.
    ///
    /// # Errors
    /// One of the numbers is outside of its range; another number of levels; levels that are not finite or do not ascend.
    pub fn new(bits: usize, states: usize, levels: &[f32]) -> Result<Tcq, Error> {
        check("bits", bits, 1, 8)?;
        let machine = Machine::new(states)?;
        if levels.len() != 2 << bits {
            let expected = format!("({},): twice as many as codes of {bits} bits", 2 << bits);
            return Err(Error::Shape { what: "levels", got: vec![levels.len()], expected });
        }
        if let Some(bad) = levels.iter().find(|level| !level.is_finite()) {
            let expected = "finite numbers".to_owned();
            return Err(Error::Value { what: "levels", got: bad.to_string(), expected });
        }
        if let Some([a, b]) = levels.array_windows().find(|[a, b]| a >= b) {
            let (got, expected) = (format!("{a} before {b}"), "ascending numbers".to_owned());
            return Err(Error::Value { what: "levels", got, expected });
        }
        Ok(Tcq { bits, machine, levels: levels.to_vec(), nearest: Nearest::new(levels) })
    }

    /// [`Tcq::gaussian`] of 1 to 4 bits and 8 states.
    pub(crate) fn usual(bits: usize) -> Tcq {
        let machine = Machine::with_memory(3);
        let levels = levels::gaussian(bits, machine.memory);
        let nearest = Nearest::new(&levels);
        Tcq { bits, machine, levels, nearest }
    }

    /// The quantizer of 1 to 4 bits whose levels come with this library, trained on a unit Gaussian.
    ///
    /// # Errors
    /// One of the numbers is outside of its range.
    pub fn gaussian(bits: usize, states: usize) -> Result<Tcq, Error> {
        check("bits", bits, 1, 4)?;
        let machine = Machine::new(states)?;
        Tcq::new(bits, states, &levels::gaussian(bits, machine.memory))
    }

    /// Bits of a value.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// States of the code.
    pub fn states(&self) -> usize {
        self.machine.states()
    }

    /// The levels in ascending order.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// Finds the paths of least squared error, or of least `Σ importance · (x − x̂)²`, and writes their codes.
    ///
    /// Values beyond a million times the largest level count as that. The bits of the result depend neither on the
    /// instruction set nor on the number of threads.
    ///
    /// # Errors
    /// `importance` or `out` does not fit `x`; NaN or infinity in `x`; an importance that is negative or not finite; no
    /// memory.
    pub fn encode(
        &self,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        self.encode_on(Isa::active()?, x, importance, out, progress)
    }

    pub(super) fn encode_on(
        &self,
        isa: Isa,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        check_len("out", out.len(), x.len())?;
        check_values(x, importance)?;
        let heaviest = importance.map_or(1.0, |w| w.iter().fold(f32::MIN_POSITIVE, |top, w| top.max(*w)));
        let scratches = Scratches::new(&self.machine, x.len());
        // A nanosecond for sixteen states, and some for the values.
        let nanoseconds = x.len() * (8 + self.states() / 16);
        parallel::for_each_chunk(out, RUN, nanoseconds, |number, out| {
            let run = number * RUN..x.len().min((number + 1) * RUN);
            scratches.with(|scratch| {
                // Relative to the largest level and the largest weight, no number of the search overflows.
                let x: Vec<f32> = x[run.clone()].iter().map(|x| self.nearest.relative(*x)).collect();
                let weights: Option<Vec<f32>> =
                    importance.map(|w| w[run.clone()].iter().map(|w| w / heaviest).collect());
                let search = Search {
                    machine: &self.machine,
                    metric: &self.nearest,
                    x: &x,
                    weights: weights.as_deref(),
                    scratch,
                };
                for ((branch, x), code) in search.run(isa).iter().zip(&x).zip(out) {
                    let index = self.nearest.index(usize::from(branch & 3), *x);
                    *code = (index as u8) << 1 | branch >> 2;
                }
            });
            if let Some(progress) = progress {
                progress(run.len());
            }
        })?;
        scratches.check()
    }

    /// Writes the values that the codes stand for; of codes above the highest, their low bits count.
    ///
    /// # Errors
    /// There are not as many codes as values.
    pub fn decode(&self, codes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        check_len("codes", codes.len(), out.len())?;
        parallel::for_each_chunk(out, RUN, 2 * codes.len(), |number, out| {
            self.decode_from(number * RUN, &codes[number * RUN..][..out.len()], out);
        })
    }

    /// Writes the values of codes from flat index `start` on, a multiple of [`PATHS`]. Where no run begins there, the first
    /// [`MEMORY`] codes lead to the states, and their values are any.
    pub(crate) fn decode_from(&self, start: usize, codes: &[u8], out: &mut [f32]) {
        let (branches, highest) = (self.states() as u16 - 1, (self.levels.len() / 2 - 1) as u8);
        let mut states = [0u16; PATHS];
        for (step, (codes, out)) in codes.chunks(PATHS).zip(out.chunks_mut(PATHS)).enumerate() {
            if (start + step * PATHS).is_multiple_of(RUN) {
                states = [0; PATHS];
            }
            for ((code, state), out) in codes.iter().zip(&mut states).zip(out) {
                let code = code & highest;
                let branch = *state << 1 | u16::from(code & 1);
                let z = self.machine.subsets[usize::from(branch)];
                *out = self.levels[4 * usize::from(code >> 1) + usize::from(z)];
                *state = branch & branches;
            }
        }
    }
}

/// Codes that lead to a state from any: bits of 256 states on every path.
pub(crate) const MEMORY: usize = 8 * PATHS;

fn check_len(what: &'static str, got: usize, count: usize) -> Result<(), Error> {
    if got != count {
        return Err(Error::Shape {
            what,
            got: vec![got],
            expected: format!("({count},): one for each value"),
        });
    }
    Ok(())
}

/// The nearest level of each subset. All numbers are relative to the largest level.
#[derive(Debug, Clone)]
struct Nearest {
    largest: f32,
    /// The lowest level of each subset.
    lowest: [f32; 4],
    /// For each subset the limits between neighbouring levels with the level above.
    above: [Vec<(f32, f32)>; 4],
}

impl Nearest {
    fn new(levels: &[f32]) -> Nearest {
        let largest = levels.iter().fold(f32::MIN_POSITIVE, |top, level| top.max(level.abs()));
        let subset = |z: usize| levels.iter().skip(z).step_by(4).map(|level| level / largest);
        let above = std::array::from_fn(|z| {
            subset(z).zip(subset(z).skip(1)).map(|(a, b)| (0.5 * (a + b), b)).collect()
        });
        Nearest { largest, lowest: std::array::from_fn(|z| levels[z] / largest), above }
    }

    /// A value as a multiple of the largest level: at most a million, whose square is a number like others.
    fn relative(&self, x: f32) -> f32 {
        (x / self.largest).clamp(-1e6, 1e6)
    }

    /// The weighted squared distance to the nearest level of a subset.
    #[inline(always)]
    fn cost(&self, z: usize, x: Lanes<f32>, weights: Lanes<f32>) -> Lanes<f32> {
        let mut nearest = [self.lowest[z]; PATHS];
        for (limit, level) in &self.above[z] {
            nearest = raised(nearest, x, *limit, *level);
        }
        let d = difference(x, nearest);
        weighted(weighted(d, d), weights)
    }

    /// The number of the level of this subset that is nearest.
    fn index(&self, z: usize, x: f32) -> usize {
        self.above[z].iter().map(|(limit, _)| usize::from(x > *limit)).sum()
    }
}

impl Metric for Nearest {
    #[inline(always)]
    fn costs(&self, x: Lanes<f32>, weights: Lanes<f32>) -> [Lanes<f32>; 4] {
        let costs = [
            self.cost(0, x, weights),
            self.cost(1, x, weights),
            self.cost(2, x, weights),
            self.cost(3, x, weights),
        ];
        // What all have in common decides nothing, and would take bits from sums: far values have large squares.
        let low = lower(lower(costs[0], costs[1]), lower(costs[2], costs[3]));
        let [a, b, c, d] = costs;
        [difference(a, low), difference(b, low), difference(c, low), difference(d, low)]
    }
}

/// `level` where the value lies above its limit.
#[inline(always)]
fn raised(mut nearest: Lanes<f32>, x: Lanes<f32>, limit: f32, level: f32) -> Lanes<f32> {
    for lane in 0..PATHS {
        nearest[lane] = if x[lane] > limit { level } else { nearest[lane] };
    }
    nearest
}

#[inline(always)]
fn difference(mut x: Lanes<f32>, y: Lanes<f32>) -> Lanes<f32> {
    for lane in 0..PATHS {
        x[lane] -= y[lane];
    }
    x
}

#[inline(always)]
fn weighted(mut x: Lanes<f32>, weights: Lanes<f32>) -> Lanes<f32> {
    for lane in 0..PATHS {
        x[lane] *= weights[lane];
    }
    x
}
