//! Weights that panels are packed from: packed codes of a quantized array, and plain matrices of bytes.

use super::panel::{Panels, Weight};
use crate::error::Error;
use crate::pack::spread;
use crate::quantize::Packed;
use std::ops::Range;

impl Panels {
    /// Packs a quantized weight of shape (n, k) whose cells are `block` = (rows, elements along k) large.
    ///
    /// # Errors
    /// The weight has not two axes, its codes or parameters do not fit, or there is no memory.
    pub fn new(weight: Packed<'_>, block: [usize; 2]) -> Result<Panels, Error> {
        weight.check()?;
        let shape = weight.grid.shape();
        let &[n, k] = shape else {
            return Err(Error::Shape { what: "weight", got: shape.to_vec(), expected: "(n, k)".into() });
        };
        Panels::pack(&Quantized { weight, k, group: block[1].clamp(1, k.max(1)) }, n, k, block[1])
    }
}

/// A quantized array as rows of `k` elements.
pub(crate) struct Quantized<'a> {
    pub(crate) weight: Packed<'a>,
    pub(crate) k: usize,
    /// Elements that share parameters along a row.
    pub(crate) group: usize,
}

impl Weight for Quantized<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        let (bits, signed) = (self.weight.format.bits(), self.weight.format.signed());
        let mut codes = vec![0; k.len() + 7];
        for (column, out) in columns.zip(out.chunks_exact_mut(k.len().max(1))) {
            // Multiples of eight codes begin on a byte.
            let start = column * self.k + k.start;
            let skip = start % 8;
            let codes = &mut codes[..skip + k.len()];
            spread(&self.weight.codes[(start - skip) / 8 * bits as usize..], bits, signed, codes);
            for (out, code) in out.iter_mut().zip(&codes[skip..]) {
                *out = code.wrapping_add(self.shift() as u8) as i8;
            }
        }
    }

    fn shift(&self) -> i32 {
        match (self.nibbles(), self.weight.format.codes()) {
            (true, (lowest, _)) => -lowest,
            (false, (_, highest)) if highest > i32::from(i8::MAX) => -128,
            _ => 0,
        }
    }

    fn nibbles(&self) -> bool {
        self.weight.format.bits() <= 4
    }

    fn parameters(&self, column: usize, group: usize) -> (f32, i32) {
        let cell = self.weight.grid.cell_of(column * self.k + group * self.group);
        (self.weight.params.scale[cell], self.weight.params.zero_point[cell])
    }
}

/// A matrix of 8-bit codes.
#[derive(Debug, Clone, Copy)]
pub enum Bytes<'a> {
    /// Signed codes.
    I8(&'a [i8]),
    /// Unsigned codes.
    U8(&'a [u8]),
}

impl Bytes<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Bytes::I8(x) => x.len(),
            Bytes::U8(x) => x.len(),
        }
    }

    /// The largest magnitude of a code less the zero point.
    ///
    /// # Errors
    /// The zero point is no code of the type: products rely on differences of at most 255.
    pub(super) fn spread(&self, what: &'static str, zero_point: i32) -> Result<usize, Error> {
        let (min, max) = match self {
            Bytes::I8(_) => (-128, 127),
            Bytes::U8(_) => (0, 255),
        };
        if !(min..=max).contains(&zero_point) {
            let expected = format!("a code from {min} to {max}");
            return Err(Error::Value { what, got: zero_point.to_string(), expected });
        }
        Ok(zero_point.abs_diff(min).max(zero_point.abs_diff(max)) as usize)
    }
}

/// A (k, n) matrix of codes with one zero point as a weight.
pub(super) struct Matrix<'a> {
    pub(super) bytes: Bytes<'a>,
    pub(super) n: usize,
    pub(super) zero_point: i32,
}

impl Weight for Matrix<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        for (i, row) in k.clone().enumerate() {
            let at = row * self.n + columns.start..row * self.n + columns.end;
            let out = out[i..].iter_mut().step_by(k.len());
            match self.bytes {
                Bytes::I8(b) => out.zip(&b[at]).for_each(|(out, code)| *out = *code),
                Bytes::U8(b) => out.zip(&b[at]).for_each(|(out, code)| *out = (*code ^ 0x80) as i8),
            }
        }
    }

    fn shift(&self) -> i32 {
        match self.bytes {
            Bytes::I8(_) => 0,
            Bytes::U8(_) => -128,
        }
    }

    fn nibbles(&self) -> bool {
        false
    }

    fn parameters(&self, _: usize, _: usize) -> (f32, i32) {
        (1.0, self.zero_point)
    }
}
