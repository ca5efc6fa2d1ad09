//! The block types of GGUF: codes and scales together in blocks of bytes, as llama.cpp stores weights.
//!
//! | file | types | elements | levels |
//! |---|---|---|---|
//! | `legacy.rs` | `q4_0` `q5_0` `q8_0` | 32 | `d · q` |
//! | `legacy.rs` | `q4_1` `q5_1` | 32 | `d · q + m` |
//! | `mxfp4.rs` | `mxfp4` | 32 | `2^(e − 127) · e2m1[q]` |
//! | `ternary.rs` | `tq1_0` `tq2_0` | 256 | `d · q`, q = −1, 0, 1 |
//! | `k.rs` | `q3_k` `q6_k` | 256 in parts of 16 | `d · scale · q` |
//! | `k.rs` | `q2_k` `q4_k` `q5_k` | 256 in parts of 16, 32 | `d · scale · q − dmin · min` |
//! | `iq4.rs` | `iq4_nl`, `iq4_xs` | 32; 256 in parts of 32 | `d · level[q]`, `d · scale · level[q]` |
//!
//! The layouts are those of `ggml-common.h`; every number is little-endian, `d`, `m` and `dmin` are float16. Decoding
//! gives the bits of the `gguf` package. Encoding without importance gives its bytes for `q4_0` to `q8_0`,
//! `tq1_0`, `tq2_0` and `mxfp4`, whose rule is fixed. For the others, and for all under an importance, scales and
//! minima are searched for the least (weighted) squared error: `signed.rs`, `affine.rs`.
//!
//! Scales that would leave float16 are held at ±65504, so that finite input always decodes to finite output: values
//! beyond the largest level then are encoded as that. A searched scale below 2⁻²⁴ is that or 0, whichever loses
//! less; a fixed rule rounds it.
//!
//! Encoding what a block decodes to gives the same values again for the types with a fixed rule. The searches do not
//! promise it: they find other scales, at a distance that is small beside the first error.

#![forbid(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "arrays are indexed in step: counting loops become vector code"
)]

mod affine;
mod half;
mod iq4;
mod k;
mod lanes;
mod legacy;
mod mxfp4;
mod signed;
mod ternary;

#[cfg(test)]
mod tests;

use super::{Defaults, Format, Packing, Spacing};
use crate::isa::{Isa, Op};
use std::hint::black_box;
use std::marker::PhantomData;

/// A format whose codes and scales stand together in blocks of bytes.
///
/// ```
/// use qrs_core::format::gguf;
/// let q4_0 = gguf::TABLE.iter().find(|blocks| blocks.name() == "q4_0").unwrap();
/// let x: Vec<f32> = (0..32).map(|i| (i - 16) as f32 / 16.0).collect();
/// let (mut bytes, mut back) = (vec![0; q4_0.bytes()], vec![0.0; q4_0.len()]);
/// q4_0.encode(&x, None, &mut bytes);
/// q4_0.decode(&bytes, &mut back);
/// assert_eq!((back[0], back[16], back[31]), (-1.0, 0.0, 0.875));
/// ```
#[allow(clippy::len_without_is_empty, reason = "a block is never empty")]
pub trait Blocks: Sync {
    /// The name in Python and in files. Permanent.
    fn name(&self) -> &'static str;

    /// Elements of a block.
    fn len(&self) -> usize;

    /// Bytes of a block.
    fn bytes(&self) -> usize;

    /// Encodes `x`, finite numbers, into the blocks `out`: [`bytes`](Blocks::bytes) for every
    /// [`len`](Blocks::len) elements. What is left over of any argument is left alone.
    ///
    /// `importance` holds a finite weight of at least 0 for each element: the squared error of an element counts
    /// that often. Without it all count alike. A block is encoded by itself: the bytes do not depend on the blocks
    /// beside it, nor on the instruction set.
    fn encode(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]);

    /// Decodes blocks into `out`, any bytes at all: scales may be infinite or NaN, and so are then the elements.
    fn decode(&self, bytes: &[u8], out: &mut [f32]);
}

macro_rules! rows {
    ($($row:ident $name:literal $codec:ty, $len:literal in $bytes:literal;)*) => {
        $(pub(super) const $row: &dyn Format = &Row::<$codec, $len, $bytes>::named($name);)*

        /// Every type.
        pub static TABLE: &[&dyn Blocks] = &[$(&Row::<$codec, $len, $bytes>::named($name),)*];

        #[cfg(test)]
        static PINNED: &[&dyn tests::Pinned] = &[$(&Row::<$codec, $len, $bytes>::named($name),)*];
    };
}

rows! {
    Q4_0 "q4_0" legacy::Signed<4>, 32 in 18;
    Q4_1 "q4_1" legacy::Affine<4>, 32 in 20;
    Q5_0 "q5_0" legacy::Signed<5>, 32 in 22;
    Q5_1 "q5_1" legacy::Affine<5>, 32 in 24;
    Q8_0 "q8_0" legacy::Q8, 32 in 34;
    Q2_K "q2_k" k::Q2, 256 in 84;
    Q3_K "q3_k" k::Q3, 256 in 110;
    Q4_K "q4_k" k::Q4, 256 in 144;
    Q5_K "q5_k" k::Q5, 256 in 176;
    Q6_K "q6_k" k::Q6, 256 in 210;
    IQ4_NL "iq4_nl" iq4::Nl, 32 in 18;
    IQ4_XS "iq4_xs" iq4::Xs, 256 in 136;
    TQ1_0 "tq1_0" ternary::Trits, 256 in 54;
    TQ2_0 "tq2_0" ternary::Pairs, 256 in 66;
    MXFP4 "mxfp4_gguf" mxfp4::Mxfp4, 32 in 17;
}

/// A type as a number format: of its bits, and of no codes and levels apart from the blocks.
impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Format for Row<C, LEN, BYTES> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        (8 * BYTES).div_ceil(LEN) as u32
    }

    fn codes(&self) -> (i32, i32) {
        (0, 0)
    }

    fn level(&self, _: i32) -> f32 {
        f32::NAN
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Blocks(self)
    }

    fn packing(&self) -> Packing {
        Packing::Blocks(LEN, BYTES)
    }

    fn defaults(&self) -> Defaults {
        Defaults { block: Some((LEN, None)), ..Defaults::default() }
    }
}

/// What a type does to blocks of `LEN` elements and `BYTES` bytes, in code that is compiled for every instruction
/// set: both functions must be `#[inline(always)]`.
trait Codec<const LEN: usize, const BYTES: usize>: Sync {
    fn encode(x: &[[f32; LEN]], importance: Option<&[[f32; LEN]]>, out: &mut [[u8; BYTES]]);
    fn decode(block: &[u8; BYTES], out: &mut [f32; LEN]);
}

/// A codec with its name.
struct Row<C, const LEN: usize, const BYTES: usize> {
    name: &'static str,
    codec: PhantomData<C>,
}

impl<C, const LEN: usize, const BYTES: usize> Row<C, LEN, BYTES> {
    const fn named(name: &'static str) -> Self {
        Row { name, codec: PhantomData }
    }
}

/// The blocks have the same bits on every instruction set, so that a wrong `QRS_ISA`, which whoever opens the
/// library is told of, matters to speed alone.
fn isa() -> Isa {
    Isa::active().unwrap_or_else(|_| Isa::detected())
}

impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Row<C, LEN, BYTES> {
    fn encode_on(&self, isa: Isa, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        isa.run(Encode::<C, LEN, BYTES> { x, importance, out, codec: PhantomData });
    }

    fn decode_on(&self, isa: Isa, bytes: &[u8], out: &mut [f32]) {
        isa.run(Decode::<C, LEN, BYTES> { bytes, out, codec: PhantomData });
    }
}

impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Blocks for Row<C, LEN, BYTES> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn len(&self) -> usize {
        LEN
    }

    fn bytes(&self) -> usize {
        BYTES
    }

    fn encode(&self, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        self.encode_on(isa(), x, importance, out);
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        self.decode_on(isa(), bytes, out);
    }
}

struct Encode<'a, C, const LEN: usize, const BYTES: usize> {
    x: &'a [f32],
    importance: Option<&'a [f32]>,
    out: &'a mut [u8],
    codec: PhantomData<C>,
}

impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Op for Encode<'_, C, LEN, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (x, out) = (self.x.as_chunks().0, self.out.as_chunks_mut().0);
        let importance = self.importance.map(|importance| importance.as_chunks().0);
        let blocks = x.len().min(out.len()).min(importance.map_or(usize::MAX, <[_]>::len));
        C::encode(&x[..blocks], importance.map(|importance| &importance[..blocks]), &mut out[..blocks]);
    }
}

struct Decode<'a, C, const LEN: usize, const BYTES: usize> {
    bytes: &'a [u8],
    out: &'a mut [f32],
    codec: PhantomData<C>,
}

impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Op for Decode<'_, C, LEN, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (block, out) in self.bytes.as_chunks().0.iter().zip(self.out.as_chunks_mut().0) {
            C::decode(block, out);
        }
    }
}

impl std::fmt::Debug for dyn Blocks + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The `N` bytes from `at` on; both are constants where it is called.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

/// The codes of 16 bytes whose low nibbles come first, then the high ones.
#[inline(always)]
fn nibbles(bytes: [u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..16 {
        codes[i] = bytes[i] & 15;
        codes[i + 16] = bytes[i] >> 4;
    }
    codes
}

/// The bytes that [`nibbles`] reads; bits of codes above the fourth are dropped.
#[inline(always)]
fn pack_nibbles(codes: [u8; 32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for i in 0..16 {
        bytes[i] = codes[i] & 15 | codes[i + 16] << 4;
    }
    bytes
}

/// `scale · code`.
#[inline(always)]
fn scaled<const N: usize>(scale: f32, codes: [i8; N], out: &mut [f32; N]) {
    // By value and through memory: otherwise the compiler takes the loop around this one, over blocks, for the one
    // to vectorise, and gathers bytes one by one.
    let codes = black_box(codes);
    let mut values = [0.0; N];
    for i in 0..N {
        values[i] = scale * f32::from(codes[i]);
    }
    *out = values;
}

/// `scale · code + offset`; codes are below 128.
#[inline(always)]
fn shifted<const N: usize>(scale: f32, offset: f32, codes: [u8; N], out: &mut [f32; N]) {
    let codes = black_box(codes);
    let mut values = [0.0; N];
    for i in 0..N {
        values[i] = scale * f32::from(codes[i] as i8) + offset;
    }
    *out = values;
}
