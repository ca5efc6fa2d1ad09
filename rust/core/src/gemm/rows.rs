//! The rows of A as the kernels read them: quantized on the way where asked, padded to whole lines, with the
//! sums that the epilogue needs. Rows are never packed into panels: kernels broadcast from them as they lie.

use super::kernel::{Word, WordI8, WordI16, WordU8};
use super::panel::Panels;
use crate::error::Error;
use crate::format::Format;
use crate::math;
use crate::mem::zeroed;
use crate::qparams::{self, QParams, Target};
use crate::quantize::{Affine, encode};
use std::borrow::Cow;
use std::ops::Range;

/// How a float32 input becomes codes.
#[derive(Debug, Clone, Copy)]
pub struct Input(pub(crate) Mapping);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Mapping {
    PerToken(Target),
    PerTensor(Target),
    Static(Affine),
    Blocks16,
}

impl Input {
    /// 16 bits, with a scale for every 256 elements of a row: for weights along a trellis, which such rows meet block by
    /// block. A product costs one pass over the weight for each row, so it is one for few rows.
    pub fn blocks16() -> Input {
        Input(Mapping::Blocks16)
    }

    /// Scale and zero point of each row from the row's own range.
    ///
    /// # Errors
    /// The target is no integer format of at most 8 bits.
    pub fn per_token(target: Target) -> Result<Input, Error> {
        operand(target.format())?;
        Ok(Input(Mapping::PerToken(target)))
    }

    /// One scale and zero point for all rows, from the range of the whole input.
    ///
    /// # Errors
    /// As [`per_token`](Self::per_token).
    pub fn per_tensor(target: Target) -> Result<Input, Error> {
        operand(target.format())?;
        Ok(Input(Mapping::PerTensor(target)))
    }

    /// Scale and zero point known beforehand; `narrow` leaves the lowest code out.
    ///
    /// # Errors
    /// The scale is not a normal positive number, the zero point is no code of the format, or the format has a
    /// single code left.
    pub fn fixed(
        format: &'static dyn Format,
        scale: f32,
        zero_point: i32,
        narrow: bool,
    ) -> Result<Input, Error> {
        Ok(Input(Mapping::Static(affine(format, scale, zero_point, narrow)?)))
    }
}

/// Whether codes of the format are operands of integer products.
///
/// # Errors
/// They are not.
pub(crate) fn operand(format: &'static dyn Format) -> Result<(), Error> {
    if format.spacing().is_uniform() && format.bits() <= 8 {
        return Ok(());
    }
    Err(Error::Value {
        what: "input",
        got: format.name().into(),
        expected: "an integer format of at most 8 bits".into(),
    })
}

/// Parameters of one cell, checked.
pub(crate) fn affine(
    format: &'static dyn Format,
    scale: f32,
    zero_point: i32,
    narrow: bool,
) -> Result<Affine, Error> {
    let range = format.code_range(narrow)?;
    operand(format)?;
    QParams { scale: &[scale], zero_point: &[zero_point], levels: &[] }.check(1, format, range)?;
    Ok(Affine { scale, zero_point, qmin: range.0, qmax: range.1 })
}

/// Where the rows come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// float32, multiplied as they are.
    Floats(&'a [f32]),
    /// float32, quantized row by row.
    PerToken(&'a [f32], Target),
    /// float32, quantized with given parameters.
    Static(&'a [f32], Affine),
    /// Codes with one zero point.
    I8(&'a [i8], i32),
    /// Codes with one zero point.
    U8(&'a [u8], i32),
}

/// A block of rows, ready for the kernels.
pub(crate) struct Rows<'a, A: Word, C: Copy> {
    pub(crate) words: Cow<'a, [A]>,
    /// Words from one row to the next.
    pub(crate) stride: usize,
    /// `[row][group]`: the sum of what is stored, less the zero point of each element. Empty where the columns
    /// have no zero points to multiply it with.
    pub(crate) sums: Vec<C>,
    /// Zero point of each row, in terms of what is stored.
    pub(crate) zero: Vec<i32>,
    /// Scale of each row.
    pub(crate) scale: Vec<f32>,
}

/// A word type that rows can be prepared as.
pub(crate) trait Prepare: Word {
    type Sum: Copy + Send + Sync;
    /// Prepares rows `rows` of the source for a product with `panels`.
    ///
    /// # Errors
    /// The flat index of an element that is to be quantized and is NaN or infinite, or no memory.
    fn prepare<'a>(
        source: Source<'a>,
        rows: Range<usize>,
        panels: &Panels,
    ) -> Result<Rows<'a, Self, Self::Sum>, Refusal>;
}

/// Why rows could not be prepared.
pub(crate) enum Refusal {
    NotFinite(usize),
    Other(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Other(error)
    }
}

impl Prepare for f32 {
    type Sum = f32;

    #[inline(always)]
    fn prepare<'a>(
        source: Source<'a>,
        rows: Range<usize>,
        panels: &Panels,
    ) -> Result<Rows<'a, f32, f32>, Refusal> {
        let Source::Floats(x) = source else { unreachable!("integer codes go to integer kernels") };
        let groups = panels.groups;
        let (k, count) = (groups.k, groups.count());
        let mut sums = zeroed(rows.len() * count)?;
        for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(count.max(1))) {
            for (group, sum) in sums.iter_mut().enumerate() {
                *sum = math::sum(&x[row * k..][groups.range(group)]);
            }
        }
        let stride = groups.padded_k();
        let words = if groups.is_dense() {
            Cow::Borrowed(&x[rows.start * k..rows.end * k])
        } else {
            let mut words = zeroed(rows.len() * stride)?;
            for (row, out) in rows.clone().zip(words.chunks_exact_mut(stride)) {
                for group in 0..count {
                    let part = &x[row * k..][groups.range(group)];
                    out[groups.padded(group).start..][..part.len()].copy_from_slice(part);
                }
            }
            Cow::Owned(words)
        };
        Ok(Rows { words, stride, sums, zero: vec![0; rows.len()], scale: vec![1.0; rows.len()] })
    }
}

/// Word types that hold integer codes.
pub(crate) trait Arrange: Word {
    /// What is added to a signed and to an unsigned 8-bit code to store it.
    const SHIFT: [i32; 2];
    /// Stores codes, already shifted, as words: `out.len() · Self::K` codes.
    fn arrange(codes: &[i16], out: &mut [Self]);
}

impl Arrange for WordU8 {
    const SHIFT: [i32; 2] = [128, 0];

    #[inline(always)]
    fn arrange(codes: &[i16], out: &mut [Self]) {
        for (codes, out) in codes.as_chunks::<4>().0.iter().zip(out) {
            for (code, out) in codes.iter().zip(out) {
                *out = *code as u8;
            }
        }
    }
}

/// Arm's dot products multiply int8 with int8, so there it is uint8 codes that are shifted.
impl Arrange for WordI8 {
    const SHIFT: [i32; 2] = [0, -128];

    #[inline(always)]
    fn arrange(codes: &[i16], out: &mut [Self]) {
        for (codes, out) in codes.as_chunks::<4>().0.iter().zip(out) {
            for (code, out) in codes.iter().zip(out) {
                *out = *code as i8;
            }
        }
    }
}

impl Arrange for WordI16 {
    const SHIFT: [i32; 2] = [0, 0];

    #[inline(always)]
    fn arrange(codes: &[i16], out: &mut [Self]) {
        /// Words of a vector; in a whole one the compiler sees a shuffle.
        const WORDS: usize = 8;
        let (whole, tail) = codes.as_chunks::<{ 2 * WORDS }>();
        let (out_whole, out_tail) = out.as_chunks_mut::<WORDS>();
        for (codes, out) in whole.iter().zip(out_whole) {
            let (codes, mut words) = (*codes, [[0; 2]; WORDS]);
            for quad in 0..WORDS / 2 {
                words[2 * quad] = [codes[4 * quad], codes[4 * quad + 2]];
                words[2 * quad + 1] = [codes[4 * quad + 1], codes[4 * quad + 3]];
            }
            *out = words;
        }
        for ([k0, k1, k2, k3], [even, odd]) in tail.as_chunks().0.iter().zip(out_tail.as_chunks_mut().0) {
            *even = [*k0, *k2];
            *odd = [*k1, *k3];
        }
    }
}

impl<A: Arrange + Default> Prepare for A {
    type Sum = i32;

    #[inline(always)]
    fn prepare<'a>(
        source: Source<'a>,
        rows: Range<usize>,
        panels: &Panels,
    ) -> Result<Rows<'a, A, i32>, Refusal> {
        let groups = panels.groups;
        let (k, count, padded) = (groups.k, groups.count(), groups.padded_k());
        // Padding to whole lines of B keeps every word that a kernel reads inside the row.
        let stride = padded / A::K;
        let mut words = zeroed::<A>(rows.len() * stride)?;
        let mut sums = zeroed(if panels.has_zeros { rows.len() * count } else { 0 })?;
        let mut zero = zeroed(rows.len())?;
        let mut scale = zeroed(rows.len())?;
        let mut codes = zeroed::<i16>(k)?;
        let mut padded_codes = zeroed::<i16>(if groups.is_dense() { 0 } else { padded })?;
        for (i, row) in rows.enumerate() {
            let affine = store_codes(source, row * k..(row + 1) * k, A::SHIFT, &mut codes)?;
            zero[i] = affine.zero_point;
            scale[i] = affine.scale;
            if panels.has_zeros {
                for (group, sum) in sums[i * count..(i + 1) * count].iter_mut().enumerate() {
                    let part = &codes[groups.range(group)];
                    *sum = sum_codes(part).wrapping_sub((part.len() as i32).wrapping_mul(zero[i]));
                }
            }
            let out = &mut words[i * stride..(i + 1) * stride];
            if groups.is_dense() {
                A::arrange(&codes, out);
            } else {
                for group in 0..count {
                    let part = &codes[groups.range(group)];
                    padded_codes[groups.padded(group).start..][..part.len()].copy_from_slice(part);
                }
                A::arrange(&padded_codes, out);
            }
        }
        Ok(Rows { words: Cow::Owned(words), stride, sums, zero, scale })
    }
}

/// Words that are put together from single elements, as those of an image are, which come channel by channel.
pub(crate) trait Elements: Prepare + Default {
    /// What a word holds `K` of.
    type Element: Copy + Default;
    /// Parameters of the input in terms of what is stored.
    fn stored(affine: Affine) -> Affine;
    /// The element that stands for 0.0.
    fn zero(stored: Affine) -> Self::Element;
    /// Makes elements of float32.
    fn encode(x: &[f32], stored: Affine, out: &mut [Self::Element]);
    /// Makes words of elements.
    fn join(elements: &[Self::Element], out: &mut [Self]);
    /// The sum of elements less the zero point of each.
    fn sum(elements: &[Self::Element], stored: Affine) -> Self::Sum;
}

impl Elements for f32 {
    type Element = f32;

    fn stored(affine: Affine) -> Affine {
        affine
    }

    fn zero(_: Affine) -> f32 {
        0.0
    }

    #[inline(always)]
    fn encode(x: &[f32], _: Affine, out: &mut [f32]) {
        out.copy_from_slice(x);
    }

    #[inline(always)]
    fn join(elements: &[f32], out: &mut [f32]) {
        out.copy_from_slice(elements);
    }

    #[inline(always)]
    fn sum(elements: &[f32], _: Affine) -> f32 {
        math::sum(elements)
    }
}

impl<A: Arrange + Default> Elements for A {
    type Element = i16;

    fn stored(affine: Affine) -> Affine {
        shifted(affine, A::SHIFT)
    }

    fn zero(stored: Affine) -> i16 {
        stored.zero_point as i16
    }

    #[inline(always)]
    fn encode(x: &[f32], stored: Affine, out: &mut [i16]) {
        encode(x, stored, out);
    }

    #[inline(always)]
    fn join(elements: &[i16], out: &mut [A]) {
        A::arrange(elements, out);
    }

    #[inline(always)]
    fn sum(elements: &[i16], stored: Affine) -> i32 {
        sum_codes(elements).wrapping_sub((elements.len() as i32).wrapping_mul(stored.zero_point))
    }
}

/// Writes the codes of elements `at`, shifted, and returns their parameters in terms of what is stored.
#[inline(always)]
fn store_codes(
    source: Source<'_>,
    at: Range<usize>,
    [signed, unsigned]: [i32; 2],
    codes: &mut [i16],
) -> Result<Affine, Refusal> {
    let not_finite = |i| Refusal::NotFinite(at.start + i);
    let plain = |zero_point| Affine { scale: 1.0, zero_point, qmin: 0, qmax: 0 };
    let (x, mut affine) = match source {
        Source::PerToken(x, target) => {
            let x = &x[at.clone()];
            let (lo, hi) = range(x).map_err(not_finite)?;
            (x, of_range(lo, hi, &target))
        }
        Source::Static(x, affine) => {
            let x = &x[at.clone()];
            range(x).map_err(not_finite)?;
            (x, affine)
        }
        Source::I8(x, zero_point) => {
            copy(&x[at], signed as i16, codes);
            return Ok(plain(zero_point + signed));
        }
        Source::U8(x, zero_point) => {
            copy(&x[at], unsigned as i16, codes);
            return Ok(plain(zero_point + unsigned));
        }
        Source::Floats(_) => unreachable!("float32 rows go to float32 kernels"),
    };
    affine = shifted(affine, [signed, unsigned]);
    encode(x, affine, codes);
    Ok(affine)
}

/// The parameters in terms of what is stored: shifting all three leaves the clamp where it was and moves the codes.
#[inline(always)]
fn shifted(affine: Affine, [signed, unsigned]: [i32; 2]) -> Affine {
    let shift = if affine.qmin < 0 { signed } else { unsigned };
    let Affine { scale, zero_point, qmin, qmax } = affine;
    Affine { scale, zero_point: zero_point + shift, qmin: qmin + shift, qmax: qmax + shift }
}

#[inline(always)]
fn copy<T: Copy + Into<i16>>(x: &[T], shift: i16, out: &mut [i16]) {
    for (x, out) in x.iter().zip(out) {
        *out = (*x).into() + shift;
    }
}

#[inline(always)]
fn sum_codes(codes: &[i16]) -> i32 {
    let mut total = 0i32;
    for code in codes {
        total = total.wrapping_add(i32::from(*code));
    }
    total
}

/// The parameters that a target gives a range.
pub(crate) fn of_range(lo: f32, hi: f32, target: &Target) -> Affine {
    let (scale, zero_point) = qparams::one(lo, hi, target);
    let (qmin, qmax) = target.code_range();
    Affine { scale, zero_point, qmin, qmax }
}

/// The smallest and the largest element and 0, or the index of the first NaN or infinity.
#[inline(always)]
pub(crate) fn range(x: &[f32]) -> Result<(f32, f32), usize> {
    let mut seen = Range16 { lo: [0.0; 16], hi: [0.0; 16], top: [0; 16] };
    let (lines, tail) = x.as_chunks::<16>();
    for line in lines {
        seen.see(line);
    }
    let mut last = [0.0; 16];
    last[..tail.len()].copy_from_slice(tail);
    seen.see(&last);
    if seen.top.iter().any(|top| *top >= f32::INFINITY.to_bits()) {
        return Err(x.iter().position(|x| !x.is_finite()).unwrap_or(0));
    }
    Ok((seen.lo.into_iter().fold(0.0, f32::min), seen.hi.into_iter().fold(0.0, f32::max)))
}

/// Sixteen ranges and sixteen largest magnitudes.
struct Range16 {
    lo: [f32; 16],
    hi: [f32; 16],
    top: [u32; 16],
}

impl Range16 {
    #[allow(clippy::needless_range_loop, reason = "four arrays in step")]
    #[inline(always)]
    fn see(&mut self, x: &[f32; 16]) {
        for i in 0..16 {
            self.lo[i] = if x[i] < self.lo[i] { x[i] } else { self.lo[i] };
            self.hi[i] = if x[i] > self.hi[i] { x[i] } else { self.hi[i] };
            // As integers, the magnitudes of NaN and infinity are above all others.
            self.top[i] = self.top[i].max(x[i].to_bits() & 0x7FFF_FFFF);
        }
    }
}
