//! Weights that panels are packed from: packed codes of a quantized array, and plain matrices of bytes.

use super::panel::{Panels, WIDTH, Weight};
use crate::dequantize::{Dequantize, Lookup, Packed};
use crate::error::Error;
use crate::format::{Format, Spacing};
use crate::grid::Grid;
use crate::isa::{Isa, Op};
use crate::mem::{LineF32, zeroed};
use crate::qparams::QParams;
use crate::trellis::{BLOCK, Sequence, Trellis};
use std::ops::Range;

impl Panels {
    /// Packs a quantized weight of shape (n, k) whose cells are `block` = (rows, elements along k) large.
    ///
    /// Levels that are multiples of a power of two in the range of int8 are packed as integers, scales taking the
    /// power: float4_e2m1fn counts halves. Those of other formats stay as they are and are decoded on the way, for
    /// products with float32 rows.
    ///
    /// # Errors
    /// The weight has not two axes, its codes or parameters do not fit, or there is no memory.
    pub fn new(weight: Packed<'_>, block: [usize; 2]) -> Result<Panels, Error> {
        weight.check()?;
        let shape = weight.grid.shape();
        let &[n, k] = shape else {
            return Err(Error::Shape { what: "weight", got: shape.to_vec(), expected: "(n, k)".into() });
        };
        match Quantized::new(weight, k, block[1].clamp(1, k.max(1))) {
            Some(rows) => Panels::pack(&rows, n, k, block[1]),
            None => Panels::decoded(Decoded::new(weight, [n, k], block[1].clamp(1, k.max(1)))?),
        }
    }
}

/// A quantized array whose levels are whole numbers, or multiples of a power of two, as rows of `k` elements.
pub(crate) struct Quantized<'a> {
    weight: Packed<'a>,
    pub(crate) k: usize,
    /// Elements that share parameters along a row.
    group: usize,
    /// What is stored for each code of a table; integers are their codes.
    multiples: Option<Multiples>,
}

/// Levels as multiples of a power of two.
struct Multiples {
    unit: f32,
    /// By the bits of the code.
    of_codes: [i8; 256],
    nibbles: bool,
}

impl Multiples {
    fn new(levels: &[f32]) -> Option<Multiples> {
        // 2^e of the lowest set bit of any level.
        let lowest = |level: f32| {
            let bits = level.to_bits();
            (bits >> 23 & 0xff) as i32 - 127 - 23 + (bits & 0x7f_ffff | 0x80_0000).trailing_zeros() as i32
        };
        let parts = levels.iter().filter(|level| **level != 0.0);
        let unit = 2f32.powi(parts.map(|&level| lowest(level)).min()?.max(-126));
        let (mut of_codes, mut nibbles) = ([0; 256], true);
        for (&level, out) in levels.iter().zip(&mut of_codes) {
            let multiple = level / unit;
            if multiple.fract() != 0.0 || !(-128.0..=127.0).contains(&multiple) {
                return None;
            }
            nibbles &= (-8.0..8.0).contains(&multiple);
            *out = multiple as i8;
        }
        Some(Multiples { unit, of_codes, nibbles })
    }
}

/// Whether every weight of a format multiplies as integers, so that its input may be quantized too: integers of up to
/// 8 bits, and formats whose levels are multiples of a power of two within int8.
pub fn is_integral(format: &'static dyn Format) -> bool {
    match format.spacing() {
        _ if format.bits() > 8 => false,
        Spacing::Uniform => true,
        Spacing::Float(_) | Spacing::Table(_) => {
            let levels: Vec<f32> = (0..=format.codes().1).map(|code| format.level(code)).collect();
            Multiples::new(&levels).is_some()
        }
        Spacing::Learned | Spacing::Blocks(_) | Spacing::Trellis(_) => false,
    }
}

impl<'a> Quantized<'a> {
    /// None where the levels of the format are no multiples of a common step within int8.
    pub(crate) fn new(weight: Packed<'a>, k: usize, group: usize) -> Option<Quantized<'a>> {
        let multiples = match weight.format.spacing() {
            _ if weight.format.bits() > 8 => return None,
            Spacing::Blocks(_) | Spacing::Trellis(_) => return None,
            Spacing::Uniform => None,
            _ => Some(Multiples::new(&weight.lookup().levels[..1 << weight.format.bits()])?),
        };
        Some(Quantized { weight, k, group, multiples })
    }
}

impl Weight for Quantized<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        let (packing, signed) = (self.weight.format.packing(), self.weight.format.signed());
        let mut codes = vec![0u8; k.len() + packing.unit() - 1];
        for (column, out) in columns.zip(out.chunks_exact_mut(k.len().max(1))) {
            // A row may start inside a byte: unpack from the byte boundary before it.
            let start = column * self.k + k.start;
            let skip = start % packing.unit();
            let codes = &mut codes[..skip + k.len()];
            packing.spread(&self.weight.codes[packing.len(start - skip)..], signed, codes);
            let shift = self.shift() as u8;
            for (out, code) in out.iter_mut().zip(&codes[skip..]) {
                let code = match &self.multiples {
                    Some(multiples) => multiples.of_codes[usize::from(*code)] as u8,
                    None => *code,
                };
                *out = code.wrapping_add(shift) as i8;
            }
        }
    }

    fn shift(&self) -> i32 {
        match (self.nibbles(), self.weight.format.codes()) {
            (true, _) if self.multiples.is_some() => 8,
            (false, _) if self.multiples.is_some() => 0,
            (true, (lowest, _)) => -lowest,
            (false, (_, highest)) if highest > i32::from(i8::MAX) => -128,
            _ => 0,
        }
    }

    fn nibbles(&self) -> bool {
        match &self.multiples {
            Some(multiples) => multiples.nibbles,
            None => self.weight.format.bits() <= 4,
        }
    }

    fn parameters(&self, column: usize, group: usize) -> (f32, i32) {
        let cell = self.weight.grid.cell_of(column * self.k + group * self.group);
        let unit = self.multiples.as_ref().map_or(1.0, |multiples| multiples.unit);
        (self.weight.params.scale[cell] * unit, self.weight.params.zero_point[cell])
    }
}

/// A quantized array that products decode a few rows at a time.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    codes: Vec<u8>,
    format: &'static dyn Format,
    grid: Grid,
    scale: Vec<f32>,
    zero_point: Vec<i32>,
    /// Those of a learned format.
    levels: Vec<f32>,
    /// What [`Packed::lookup`] gives.
    of_codes: Box<Lookup>,
    shape: [usize; 2],
    /// Elements of a row that share a scale.
    group: usize,
}

impl Decoded {
    fn new(weight: Packed<'_>, shape: [usize; 2], group: usize) -> Result<Decoded, Error> {
        Ok(Decoded {
            codes: copied(weight.codes)?,
            format: weight.format,
            grid: weight.grid.clone(),
            scale: copied(weight.params.scale)?,
            zero_point: copied(weight.params.zero_point)?,
            levels: weight.params.levels.to_vec(),
            of_codes: Box::new(weight.lookup()),
            shape,
            group,
        })
    }

    /// Why there is no product with integers.
    pub(super) fn refuse(&self) -> Error {
        Error::Value {
            what: "input",
            got: format!("quantized for a weight of {}", self.format.name()),
            expected: "none: its levels are no multiples of a common step within 8 bits".into(),
        }
    }

    /// The trellis, its bytes, and the scales of each row in turn.
    ///
    /// # Errors
    /// The weight is none, or a row is no whole blocks with scales of their own.
    pub(super) fn path(&self) -> Result<(&'static Trellis, &[u8], Vec<f32>), Error> {
        let Spacing::Trellis(Sequence::Bitshift(trellis)) = self.format.spacing() else {
            let got = format!("16 bits for a weight of {}", self.format.name());
            return Err(Error::Value { what: "input", got, expected: "at most 8 bits".into() });
        };
        let ([n, k], group) = (self.shape, self.group);
        if !k.is_multiple_of(BLOCK) || !group.is_multiple_of(BLOCK) || !k.is_multiple_of(group) {
            let expected = format!("rows of whole blocks of {BLOCK}, as many to each scale");
            return Err(Error::Shape { what: "weight", got: self.shape.to_vec(), expected });
        }
        let mut scales = zeroed(n * k / group)?;
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = self.scale[self.grid.cell_of(i * group)];
        }
        Ok((trellis, &self.codes, scales))
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    pub(super) fn nbytes(&self) -> usize {
        self.codes.len() + size_of_val(&self.scale[..]) + size_of_val(&self.zero_point[..])
    }

    /// Writes the panels that start at row `first`: line `k` holds element `k` of sixteen rows.
    pub(super) fn fill(&self, first: usize, out: &mut [LineF32]) {
        // One copy of this for each instruction set, called from all kernels; which one makes no difference to the
        // bits.
        let isa = Isa::active().unwrap_or(Isa::Portable);
        isa.run(Fill { isa, weight: self, first, out });
    }
}

/// [`Decoded::fill`].
struct Fill<'a> {
    isa: Isa,
    weight: &'a Decoded,
    first: usize,
    out: &'a mut [LineF32],
}

impl Op for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        /// Elements of a row at a time: sixteen times as many stay in the first cache.
        const PART: usize = 256;
        let Fill { isa, weight, first, out } = self;
        let [n, k] = weight.shape;
        let params = QParams { scale: &weight.scale, zero_point: &weight.zero_point, levels: &weight.levels };
        let packed = Packed { codes: &weight.codes, format: weight.format, grid: &weight.grid, params };
        let mut rows = [[0.0; PART]; WIDTH];
        for (panel, out) in out.chunks_mut(k.max(1)).enumerate() {
            let first = first + panel * WIDTH;
            for (part, out) in out.chunks_mut(PART).enumerate() {
                for (row, values) in rows.iter_mut().enumerate() {
                    let values = &mut values[..out.len()];
                    if first + row < n {
                        let start = (first + row) * k + part * PART;
                        isa.run(Dequantize { packed, lookup: &weight.of_codes, start, out: values });
                    } else {
                        values.fill(0.0);
                    }
                }
                for (i, line) in out.iter_mut().enumerate() {
                    for (row, value) in rows.iter().zip(&mut line.0) {
                        *value = row[i];
                    }
                }
            }
        }
    }
}

fn copied<T: Copy + Default>(values: &[T]) -> Result<Vec<T>, Error> {
    let mut out = zeroed(values.len())?;
    out.copy_from_slice(values);
    Ok(out)
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
