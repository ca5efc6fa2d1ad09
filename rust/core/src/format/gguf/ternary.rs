//! `tq1_0` and `tq2_0`: −d, 0 and d, for networks trained to three values (Ma et al., *The Era of 1-bit LLMs*, 2024).
//!
//! ```text
//! tq2_0   byte   0              32             64    66
//!               | q₀ … q₃₁     | q₀ … q₃₁     | d   |         bits 2n, 2n + 1 of byte j in half h:
//!                 elements 0 …   128 …                        element 128h + 32n + j, plus 1
//!
//! tq1_0   byte   0          32         48        52    54
//!               | q₀ … q₃₁ | q₀ … q₁₅ | q₀ … q₃ | d   |      digit n of byte j, from the highest on:
//!                 0 … 159    160 …      240 …                 element 32n + j, 160 + 16n + j, 240 + 4n + j
//! ```
//!
//! A byte of `tq1_0` holds five digits of base 3, `v = Σ 3^(4−n) · digit`, as the fraction `v / 243` in 256ths, rounded
//! up: the next digit is then always what a multiplication by 3 carries out of the byte, without a division. The last
//! four bytes hold four digits.

use super::lanes::LANES;
use super::signed::{Eight, Integers};
use super::{Codec, half, part, scaled};

/// Four to the byte.
pub(super) struct Pairs;
/// Five to the byte.
pub(super) struct Trits;

/// The codes −1, 0, 1 plus 1 by the published rule, `round(x / d)` with the largest magnitude for `d`.
#[inline(always)]
fn round(x: &[f32; 256], d: f32) -> [u8; 256] {
    let inverse = super::legacy::inverse(d);
    let mut codes = [0u8; 256];
    for i in 0..256 {
        let v = x[i] * inverse;
        codes[i] = 1 + u8::from(v >= 0.5) - u8::from(v <= -0.5);
    }
    codes
}

#[inline(always)]
fn largest(x: &[f32; 256]) -> f32 {
    let mut lanes = [0f32; 16];
    for line in x.as_chunks::<16>().0 {
        for j in 0..16 {
            lanes[j] = if line[j].abs() > lanes[j] { line[j].abs() } else { lanes[j] };
        }
    }
    lanes.into_iter().fold(0.0, |a, b| if b > a { b } else { a }).min(half::LARGEST)
}

/// Scales that lose least, and the codes that suit them; `at` is where a block has its scale.
#[inline(always)]
fn search<const BYTES: usize>(
    x: &[[f32; 256]],
    importance: Option<&[[f32; 256]]>,
    out: &mut [[u8; BYTES]],
    pack: impl Fn([u8; 256], &mut [u8; BYTES]),
    at: usize,
) {
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        let found = Eight::encode::<Integers<-1, 1>>(x, importance, LANES * i);
        for (lane, out) in out.iter_mut().enumerate() {
            let mut codes = [0; 256];
            for i in 0..256 {
                codes[i] = (found.levels[lane][i] + 1) as u8;
            }
            pack(codes, out);
            out[at..].copy_from_slice(&half::store(found.d.0[lane]));
        }
    }
}

#[inline(always)]
fn scale(block: &[u8], at: usize) -> f32 {
    half::load(part(block, at))
}

impl Codec<256, 66> for Pairs {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 66]]) {
        if importance.is_some() {
            return search(x, importance, out, pack_pairs, 64);
        }
        for (x, out) in x.iter().zip(out) {
            let d = largest(x);
            pack_pairs(round(x, d), out);
            out[64..].copy_from_slice(&half::store(d));
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
        let mut codes = [0i8; 256];
        for (bytes, codes) in block.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
            for n in 0..4 {
                for j in 0..32 {
                    codes[32 * n + j] = (bytes[j] >> (2 * n) & 3) as i8 - 1;
                }
            }
        }
        scaled(scale(block, 64), codes, out);
    }
}

#[inline(always)]
fn pack_pairs(codes: [u8; 256], out: &mut [u8; 66]) {
    for (codes, out) in codes.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for j in 0..32 {
            out[j] = codes[j] | codes[32 + j] << 2 | codes[64 + j] << 4 | codes[96 + j] << 6;
        }
    }
}

impl Codec<256, 54> for Trits {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 54]]) {
        if importance.is_some() {
            return search(x, importance, out, pack_trits, 52);
        }
        for (x, out) in x.iter().zip(out) {
            let d = largest(x);
            pack_trits(round(x, d), out);
            out[52..].copy_from_slice(&half::store(d));
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 54], out: &mut [f32; 256]) {
        let mut codes = [0; 256];
        let (first, rest) = codes.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        digits::<32>(part(block, 0), first);
        digits::<16>(part(block, 32), second);
        digits::<4>(part(block, 48), third);
        scaled(scale(block, 52), codes, out);
    }
}

/// The digits of `ABREAST` bytes, less 1: first the highest of each byte, then the next.
#[inline(always)]
fn digits<const ABREAST: usize>(mut bytes: [u8; ABREAST], out: &mut [i8]) {
    for out in out.as_chunks_mut::<ABREAST>().0 {
        for j in 0..ABREAST {
            let tripled = u16::from(bytes[j]) * 3;
            out[j] = (tripled >> 8) as i8 - 1;
            bytes[j] = tripled as u8;
        }
    }
}

/// The bytes that [`digits`] reads, of codes plus 1.
#[inline(always)]
fn pack_digits<const ABREAST: usize>(codes: &[u8], out: &mut [u8]) {
    let mut values = [0u16; ABREAST];
    for n in 0..5 {
        for j in 0..ABREAST {
            let digit = if n * ABREAST + j < codes.len() { codes[n * ABREAST + j] } else { 0 };
            values[j] = 3 * values[j] + u16::from(digit);
        }
    }
    for j in 0..ABREAST {
        // ⌈256 v / 243⌉ for v below 243, in 16 bits.
        out[j] = (values[j] + (13 * values[j]).div_ceil(243)) as u8;
    }
}

#[inline(always)]
fn pack_trits(codes: [u8; 256], out: &mut [u8; 54]) {
    pack_digits::<32>(&codes[..160], &mut out[..32]);
    pack_digits::<16>(&codes[160..240], &mut out[32..48]);
    pack_digits::<4>(&codes[240..], &mut out[48..52]);
}
