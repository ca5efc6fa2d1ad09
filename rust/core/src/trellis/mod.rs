//! Trellis-coded quantization: a weight costs k bits, but which levels those choose from hangs on the bits before.
//!
//! A *bitshift trellis* (QTIP, Tseng et al. 2024) has a state of L bits. Each step shifts `k` new bits in, and the
//! state stands for `V` levels: `x̂ₜ = code(stateₜ)`. With L = 16 a weight chooses from 2¹⁶ levels, though it is stored
//! in 2 bits. Encoding is a search for the best path (Viterbi's algorithm, [`viterbi`]); decoding shifts and looks
//! up, or computes, and can begin anywhere ([`decode`] draws the layout). A block of [`BLOCK`] weights is
//! *tail-biting*: its last states end in its first bits, so it takes `256 · k / V` bits and nothing else.
//!
//! Two quantizers of any number of values stand on the classic trellis instead, Ungerboeck's codes of 4 to 256 states
//! over the levels of a scalar quantizer: [`Tcq`], at 1 to 8 bits a value, and [`Ectcq`], whose levels are entropy-coded to
//! bytes that [`Stream`] reads. In decibels below the variance of a unit Gaussian:
//!
//! | quantizer | 1 bit | 2 bits | 3 bits | 4 bits |
//! |---|---|---|---|---|
//! | [`Tcq`], 8 and 256 states | 5.19, 5.53 | 10.68, 11.00 | 16.32, 16.64 | 22.11, 22.43 |
//! | [`Ectcq`], 8 and 256 states, all bytes counted | 5.56, 5.80 | 11.58, 11.82 | 17.59, 17.82 | 23.60, 23.84 |
//! | bound | 6.02 | 12.04 | 18.06 | 24.08 |
//!
//! ```
//! use qrs_core::trellis::{BLOCK, Code, Trellis};
//! let trellis = Trellis::new(2, 8, 1, Code::find("table", 2, 8)?)?;
//! let x: Vec<f32> = (0..BLOCK).map(|i| (i as f32 * 0.7).sin() * 1.4).collect();
//! let mut bytes = vec![0; trellis.bytes()];
//! trellis.encode(&x, None, &mut bytes, None)?;
//! assert_eq!(bytes.len(), 64);
//! let mut decoded = vec![0.0; BLOCK];
//! trellis.decode(&bytes, &mut decoded)?;
//! let error: f32 = x.iter().zip(&decoded).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / BLOCK as f32;
//! assert!(error < 0.08);
//! # Ok::<(), qrs_core::Error>(())
//! ```

mod code;
mod decode;
mod product;
mod scalar;
mod tables;
#[cfg(test)]
mod tests;
mod train;
mod viterbi;

pub use code::{Code, Quintic, Table};
pub(crate) use scalar::MEMORY;
pub use scalar::{Ectcq, Lloyd, Stream, Tcq};
use train::ln;
pub use train::{Training, fit_scale, gaussian};

use crate::error::Error;
use crate::finite::Census;
use crate::isa::Isa;
use crate::parallel;
use crate::values::Values;
use std::sync::Mutex;
use viterbi::{Branches, Scratch, Search};

/// Weights of a block.
pub const BLOCK: usize = 256;

/// What is told how many more weights have been encoded; any thread may call it.
pub type Progress<'a> = Option<&'a (dyn Fn(usize) + Sync)>;

/// What quantizes a sequence at a fixed rate: the codes of values hang together.
#[derive(Debug, Clone, Copy)]
pub enum Sequence {
    /// By blocks of [`BLOCK`] values.
    Bitshift(&'static Trellis),
    /// By a code for each value.
    Scalar(&'static Tcq),
}

impl Sequence {
    /// The levels: of each state, or all there are, ascending.
    pub fn levels(self) -> &'static [f32] {
        match self {
            Sequence::Bitshift(trellis) => trellis.levels(),
            Sequence::Scalar(tcq) => tcq.levels(),
        }
    }

    /// The lowest and the highest level.
    pub(crate) fn ends(self) -> (f32, f32) {
        self.levels().iter().fold((0.0, 0.0), |(lo, hi), level| (lo.min(*level), hi.max(*level)))
    }
}

/// A bitshift trellis and its code.
#[derive(Debug, Clone)]
pub struct Trellis {
    bits: usize,
    state_bits: usize,
    values: usize,
    code: Code,
    /// What an integer level of 1 stands for.
    unit: f32,
    /// The levels of each state.
    levels: Vec<f32>,
    branches: Branches,
}

impl Trellis {
    /// A trellis that adds `bits` bits a step (1 to 4) to a state of `state_bits` (8 to 16), which stands for
    /// `values` values (1 or 2): `bits / values` bits a weight.
    ///
    /// # Errors
    /// One of the numbers is outside of its range; a computed code with two values; a table of another length than
    /// `values · 2^state_bits`, with more than 12 state bits, or with a scale that is not positive and finite.
    pub fn new(bits: usize, state_bits: usize, values: usize, code: Code) -> Result<Trellis, Error> {
        check("bits", bits, 1, 4)?;
        check("state_bits", state_bits, 8, 16)?;
        check("values", values, 1, 2)?;
        code.check(state_bits, values)?;
        let levels = code.levels(state_bits);
        Ok(Self::with_levels(bits, state_bits, values, code, levels))
    }

    /// The trellis of 1 to 4 bits a weight whose code is the table for 12 state bits.
    pub(crate) fn tabled(bits: usize) -> Trellis {
        let code = Code::Table(tables::largest(bits));
        let levels = code.levels(12);
        Self::with_levels(bits, 12, 1, code, levels)
    }

    fn with_levels(bits: usize, state_bits: usize, values: usize, code: Code, levels: Vec<f32>) -> Trellis {
        let (unit, branches) = (code.unit(state_bits), Branches::new(bits, values, &levels));
        Trellis { bits, state_bits, values, code, unit, levels, branches }
    }

    /// Bits that a step adds.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Bits of a state.
    pub fn state_bits(&self) -> usize {
        self.state_bits
    }

    /// Values of a step.
    pub fn values(&self) -> usize {
        self.values
    }

    /// The code.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The levels of each state in turn, `values` to each.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// Bytes of a block: `256 · bits / values / 8`.
    pub fn bytes(&self) -> usize {
        BLOCK / 8 * self.bits / self.values
    }

    /// Steps of a block.
    fn steps(&self) -> usize {
        BLOCK / self.values
    }

    /// Finds for each block of `x`, whole blocks of values of about unit variance, the path of least squared error, or
    /// of least `Σ importance · (x − x̂)²`, and writes its bytes.
    ///
    /// The path is the best that passes through one node at the block's seam; that node is the best for a path without
    /// ends around it. Squares are rounded to 16 bits, so of paths that hardly differ either may be found. The bits of
    /// the result depend neither on the instruction set nor on the number of threads.
    ///
    /// # Errors
    /// `x` is no whole number of blocks; `importance` or `out` does not fit it; NaN or infinity in `x`; an importance
    /// that is negative or not finite; no memory.
    pub fn encode(
        &self,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        self.encode_on(Isa::active()?, x, importance, out, progress)
    }

    fn encode_on(
        &self,
        isa: Isa,
        x: &[f32],
        importance: Option<&[f32]>,
        out: &mut [u8],
        progress: Progress<'_>,
    ) -> Result<(), Error> {
        self.check_lens("x", x.len(), "out", out.len())?;
        check_values(x, importance)?;
        // As many blocks to a task as take half a millisecond.
        let blocks = (1 << 14 >> self.state_bits).max(1);
        let (scratches, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
        let nanoseconds = x.len() << (self.state_bits - 3);
        let bytes = self.bytes();
        parallel::for_each_chunk(out, blocks * bytes, nanoseconds, |number, out| {
            let first = number * blocks * BLOCK;
            let len = out.len() / bytes * BLOCK;
            let part = Part {
                trellis: self,
                isa,
                x: &x[first..first + len],
                importance: importance.map(|w| &w[first..first + len]),
            };
            // As many as run at once are made, and used again.
            let scratch: Option<Scratch> = scratches.lock().ok().and_then(|mut all| all.pop());
            match scratch.map_or_else(|| self.branches.scratch(self.steps()), Ok) {
                Ok(mut scratch) => {
                    part.encode(&mut scratch, out);
                    if let Ok(mut all) = scratches.lock() {
                        all.push(scratch);
                    }
                }
                Err(error) => {
                    if let Ok(mut failure) = failure.lock() {
                        *failure = Some(error);
                    }
                }
            }
            if let Some(progress) = progress {
                progress(len);
            }
        })?;
        match failure.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(error)) => Err(error),
            Err(poisoned) => poisoned.into_inner().map_or(Ok(()), Err),
        }
    }

    /// Writes the values of whole blocks.
    ///
    /// # Errors
    /// `bytes` is no whole number of blocks, or `out` does not fit it.
    pub fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        self.check_lens("out", out.len(), "bytes", bytes.len())?;
        // Some nanoseconds a weight; 64 blocks are 64 KiB of values.
        let nanoseconds = 2 * out.len();
        parallel::for_each_chunk(out, 64 * BLOCK, nanoseconds, |number, out| {
            let bytes = &bytes[number * 64 * self.bytes()..];
            for (bytes, out) in bytes.chunks(self.bytes()).zip(out.chunks_mut(BLOCK)) {
                self.decode_block(bytes, out);
            }
        })
    }

    /// Writes the levels of the elements from `start` on of a stream of blocks with one value a step.
    pub(crate) fn decode_from(&self, bytes: &[u8], start: usize, out: &mut [f32]) {
        let mut block = [0.0; BLOCK];
        let (mut at, mut out) = (start, out);
        while !out.is_empty() {
            let skip = at % BLOCK;
            let (part, rest) = out.split_at_mut(out.len().min(BLOCK - skip));
            let bytes = &bytes[at / BLOCK * self.bytes()..][..self.bytes()];
            if part.len() == BLOCK {
                self.decode_block(bytes, part);
            } else {
                self.decode_block(bytes, &mut block);
                part.copy_from_slice(&block[skip..][..part.len()]);
            }
            at += part.len();
            out = rest;
        }
    }

    fn decode_block(&self, bytes: &[u8], out: &mut [f32]) {
        decode::decode(bytes, self.bits, self.state_bits, &self.levels, out);
    }

    /// Whole blocks of values and the bytes of as many blocks.
    fn check_lens(
        &self,
        values: &'static str,
        len: usize,
        bytes: &'static str,
        byte_len: usize,
    ) -> Result<(), Error> {
        if !len.is_multiple_of(BLOCK) {
            let expected = format!("whole blocks of {BLOCK}");
            return Err(Error::Shape { what: values, got: vec![len], expected });
        }
        if byte_len != len / BLOCK * self.bytes() {
            let expected = format!("({},): {} bytes a block", len / BLOCK * self.bytes(), self.bytes());
            return Err(Error::Shape { what: bytes, got: vec![byte_len], expected });
        }
        Ok(())
    }
}

/// The widest of the instruction sets that hot loops are compiled for: 8-bit dot products are of no use here, so rows
/// that differ in those alone run the code of the row that they include.
#[cfg(target_arch = "x86_64")]
fn compiled(isa: Isa) -> Isa {
    match isa {
        Isa::AvxVnni => Isa::Avx2,
        Isa::Avx512Vnni => Isa::Avx512,
        other => other,
    }
}
#[cfg(target_arch = "x86_64")]
const COMPILED: u8 = Isa::Portable.bit() | Isa::Avx2.bit() | Isa::Avx512.bit();

#[cfg(target_arch = "aarch64")]
fn compiled(_: Isa) -> Isa {
    Isa::Neon
}
#[cfg(target_arch = "aarch64")]
const COMPILED: u8 = Isa::Neon.bit();

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn compiled(isa: Isa) -> Isa {
    isa
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const COMPILED: u8 = u8::MAX;

/// The blocks of one task.
struct Part<'a> {
    trellis: &'a Trellis,
    isa: Isa,
    x: &'a [f32],
    importance: Option<&'a [f32]>,
}

impl Part<'_> {
    fn encode(&self, scratch: &mut Scratch, out: &mut [u8]) {
        let Trellis { bits, branches, .. } = self.trellis;
        let (bytes, steps) = (self.trellis.bytes(), self.trellis.steps());
        let together = branches.together();
        let mut symbols = [0; viterbi::TOGETHER * BLOCK];
        let mut block = 0;
        while block * BLOCK < self.x.len() {
            let left = self.x.len() / BLOCK - block;
            let count = if left < together { 1 } else { together };
            let values = block * BLOCK..(block + count) * BLOCK;
            let search = Search {
                branches,
                x: &self.x[values.clone()],
                importance: self.importance.map(|w| &w[values.clone()]),
                scratch,
                symbols: &mut symbols[..count * steps],
            };
            search.run(self.isa);
            let out = &mut out[block * bytes..(block + count) * bytes];
            for (symbols, out) in symbols.chunks(steps).zip(out.chunks_mut(bytes)) {
                decode::pack(symbols, *bits, out);
            }
            block += count;
        }
    }
}

/// Finite values, and importances that are finite and not negative.
fn check_values(x: &[f32], importance: Option<&[f32]>) -> Result<(), Error> {
    let census = Census::new();
    census.see(x, 0);
    census.check("x")?;
    Values { x, importance }.check()
}

fn check(what: &'static str, got: usize, least: usize, most: usize) -> Result<(), Error> {
    if got < least || got > most {
        return Err(Error::Value { what, got: got.to_string(), expected: format!("{least} to {most}") });
    }
    Ok(())
}
