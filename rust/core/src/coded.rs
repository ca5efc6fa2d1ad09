//! Quantizing along a trellis: elements over their scales make one stream through the array, whatever its cells, and
//! neighbours in it are encoded together.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::format::Packing;
use crate::grid::{Cell, Grid};
use crate::interrupt::pause;
use crate::mem::zeroed;
use crate::pack::TILE;
use crate::trellis::{BLOCK, MEMORY, Sequence, Tcq};
use crate::values::Values;
use std::ops::Range;

/// Elements, whole blocks of them, whose quotients are in memory at a time: seconds of work at most.
const SLAB: usize = 1 << 18;

/// The stream of an array: what is encoded slab by slab.
pub(crate) struct Stream<'a> {
    pub(crate) sequence: Sequence,
    pub(crate) packing: Packing,
    pub(crate) values: Values<'a>,
    pub(crate) grid: &'a Grid,
    /// One for each cell.
    pub(crate) scale: &'a [f32],
}

impl Stream<'_> {
    /// Calls `each` with the elements of every slab and their bytes.
    pub(crate) fn encode(
        &self,
        mut each: impl FnMut(Range<usize>, &[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Values { x, importance } = self.values;
        let block = match self.sequence {
            Sequence::Bitshift(_) => BLOCK,
            Sequence::Scalar(_) => 1,
        };
        let len = x.len();
        let most = len.next_multiple_of(block).min(SLAB);
        let mut quotients = zeroed(most)?;
        let mut bytes = zeroed(self.packing.len(most))?;
        for start in (0..len).step_by(SLAB) {
            pause()?;
            let elements = start..len.min(start + SLAB);
            // Behind the last element stand zeros.
            let quotients = &mut quotients[..elements.len().next_multiple_of(block)];
            quotients[elements.len()..].fill(0.0);
            self.divide(elements.clone(), quotients);
            let bytes = &mut bytes[..self.packing.len(quotients.len())];
            // Of blocks that count evenly, the last alone may have places that do not count.
            let even = if importance.is_none() { elements.len() / block * block } else { 0 };
            let (quotients, rest) = quotients.split_at(even);
            let (begin, end) = bytes.split_at_mut(self.packing.len(even));
            self.search(quotients, None, begin)?;
            if !rest.is_empty() {
                let weights = weights(importance, elements.start + even..elements.end, rest.len())?;
                self.search(rest, Some(&weights), end)?;
            }
            each(elements, bytes)?;
        }
        Ok(())
    }

    /// Finds the path of some values and writes its bytes.
    fn search(&self, x: &[f32], weights: Option<&[f32]>, out: &mut [u8]) -> Result<(), Error> {
        match self.sequence {
            Sequence::Bitshift(trellis) => trellis.encode(x, weights, out, None),
            Sequence::Scalar(tcq) => {
                let mut codes = zeroed(x.len())?;
                tcq.encode(x, weights, &mut codes, None)?;
                self.packing.squeeze(&codes, out);
                Ok(())
            }
        }
    }

    /// Elements over their scales. NaN becomes 0, and what is too large for float32 its largest number.
    fn divide(&self, elements: Range<usize>, out: &mut [f32]) {
        let over = |x: f32, scale: f32| {
            let v = x / scale;
            if v.is_nan() { 0.0 } else { v.clamp(-f32::MAX, f32::MAX) }
        };
        for (run, cell) in self.grid.runs(elements.clone()) {
            let out = &mut out[run.start - elements.start..run.end - elements.start];
            let values = out.iter_mut().zip(&self.values.x[run]);
            match cell {
                Cell::One(cell) => {
                    let scale = self.scale[cell];
                    values.for_each(|(out, x)| *out = over(*x, scale));
                }
                Cell::Each(first) => {
                    values.zip(&self.scale[first..]).for_each(|((out, x), scale)| *out = over(*x, *scale));
                }
            }
        }
    }

    /// Writes the values of a slab: levels times scales.
    pub(crate) fn decode(&self, bytes: &[u8], elements: Range<usize>, out: &mut [f32]) {
        levels_from(self.sequence, self.packing, bytes, 0, out);
        for (run, cell) in self.grid.runs(elements.clone()) {
            let out = &mut out[run.start - elements.start..run.end - elements.start];
            match cell {
                Cell::One(cell) => out.iter_mut().for_each(|out| *out *= self.scale[cell]),
                Cell::Each(first) => {
                    out.iter_mut().zip(&self.scale[first..]).for_each(|(out, scale)| *out *= scale);
                }
            }
        }
    }
}

/// How much an element counts at least, where others count 1: what has no importance is to follow its values too, where
/// that costs the others next to nothing, and not to become noise.
const LEAST: f32 = 1.0 / 4096.0;

/// The weights of `len` quotients: those behind the last element count for nothing.
fn weights(importance: Option<&[f32]>, elements: Range<usize>, len: usize) -> Result<Vec<f32>, Error> {
    let mut weights = zeroed(len)?;
    let given = &mut weights[..elements.len()];
    match importance {
        Some(importance) => {
            given.copy_from_slice(&importance[elements]);
            let largest = |weights: &[f32]| weights.iter().fold(0.0, |top: f32, weight| top.max(*weight));
            let of_all = largest(given);
            for block in given.chunks_mut(BLOCK) {
                let top = largest(block);
                let least = LEAST * if top > 0.0 { top } else { of_all };
                block.iter_mut().for_each(|weight| *weight = weight.max(least));
            }
        }
        None => given.fill(1.0),
    }
    Ok(weights)
}

/// Writes the levels of the elements from flat index `start` on.
pub(crate) fn levels_from(sequence: Sequence, packing: Packing, bytes: &[u8], start: usize, out: &mut [f32]) {
    let tcq = match sequence {
        Sequence::Bitshift(trellis) => return trellis.decode_from(bytes, start, out),
        Sequence::Scalar(tcq) => tcq,
    };
    let (mut codes, mut levels) = ([0; TILE + MEMORY], [0.0; TILE + MEMORY]);
    for (i, out) in out.chunks_mut(TILE / 2).enumerate() {
        let start = start + i * (TILE / 2);
        // States come from the codes before, back to the start of a run; steps and packed bytes start at multiples of 16.
        let from = start.saturating_sub(MEMORY).max(start / Tcq::RUN * Tcq::RUN) / 16 * 16;
        let len = start + out.len() - from;
        let (codes, levels) = (&mut codes[..len], &mut levels[..len]);
        packing.spread(&bytes[packing.len(from)..], false, codes);
        tcq.decode_from(from, codes, levels);
        out.copy_from_slice(&levels[start - from..]);
    }
}
