//! `q4_0` `q4_1` `q5_0` `q5_1` `q8_0`: 32 integer codes with one scale, or a scale and a minimum.
//!
//! ```text
//! q4_0   byte   0   2              18                  x = d · (q − 8)
//!              | d | q₀ … q₁₅     |
//! q4_1         | d | m | q₀ … q₁₅     |                x = d · q + m
//! q5_0         | d | h h h h | q₀ … q₁₅     |          x = d · (q − 16)
//! q5_1         | d | m | h h h h | q₀ … q₁₅     |      x = d · q + m
//! q8_0         | d | q₀ … q₃₁                      |   x = d · q, q in two's complement
//! ```
//!
//! Low nibbles are the elements 0 to 15, high nibbles 16 to 31; bit `i` of the little-endian word `h` is the fifth bit
//! of element `i`. The rule for the scale is fixed: in `q4_0` and `q5_0` the element of largest magnitude takes
//! the lowest code, whose magnitude is the largest, so that `d` has the opposite sign; `q4_1` and `q5_1` go from
//! the smallest to the largest element; in `q8_0` the largest magnitude takes ±127. With an importance the scale
//! (and the minimum) are searched.

use super::affine::Eight as AffineEight;
use super::lanes::LANES;
use super::signed::{Eight, Integers};
use super::{Codec, half, nibbles, pack_nibbles, part, scaled, shifted};

/// `q4_0` and `q5_0`.
pub(super) struct Signed<const BITS: u32>;
/// `q4_1` and `q5_1`.
pub(super) struct Affine<const BITS: u32>;
/// `q8_0`.
pub(super) struct Q8;

/// 1 / d, and 0 where that is no finite number: then `d` rounds to a float16 of 0, and the codes mean nothing.
#[inline(always)]
pub(super) fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[inline(always)]
fn held(v: f32) -> f32 {
    v.clamp(-half::LARGEST, half::LARGEST)
}

/// The smallest and the largest of 32.
#[inline(always)]
fn extremes(x: [f32; 32]) -> (f32, f32) {
    let (mut lo, mut hi) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    for line in x.as_chunks::<8>().0 {
        for i in 0..8 {
            lo[i] = if line[i] < lo[i] { line[i] } else { lo[i] };
        }
        for i in 0..8 {
            hi[i] = if line[i] > hi[i] { line[i] } else { hi[i] };
        }
    }
    for half in [4, 2, 1] {
        for i in 0..half {
            lo[i] = if lo[i + half] < lo[i] { lo[i + half] } else { lo[i] };
            hi[i] = if hi[i + half] > hi[i] { hi[i + half] } else { hi[i] };
        }
    }
    (lo[0], hi[0])
}

/// The element of largest magnitude, of equal ones the first.
#[inline(always)]
fn extreme(x: &[f32; 32]) -> f32 {
    let (lo, hi) = extremes(*x);
    if hi > -lo {
        hi
    } else if hi < -lo {
        lo
    } else {
        x.iter().copied().find(|x| x.abs() == hi.abs()).unwrap_or(0.0)
    }
}

/// ⌊v⌋ in 0 … `top`.
#[inline(always)]
fn floor(v: f32, top: f32) -> u8 {
    let v = if v > 0.0 { v } else { 0.0 };
    let v = if v < top { v } else { top };
    v as i32 as u8
}

#[inline(always)]
fn codes<const BITS: u32>(block: &[u8], at: usize) -> [u8; 32] {
    if BITS == 4 {
        return nibbles(part(block, at));
    }
    let high = u32::from_le_bytes(part(block, at));
    let mut codes = nibbles(part(block, at + 4));
    for i in 0..32 {
        codes[i] |= ((high >> i & 1) << 4) as u8;
    }
    codes
}

#[inline(always)]
fn store_codes<const BITS: u32>(codes: [u8; 32], out: &mut [u8]) {
    let (high, low) = out.split_at_mut(if BITS == 5 { 4 } else { 0 });
    if BITS == 5 {
        let mut word = 0;
        for i in 0..32 {
            word |= u32::from(codes[i] >> 4) << i;
        }
        high.copy_from_slice(&word.to_le_bytes());
    }
    low.copy_from_slice(&pack_nibbles(codes));
}

impl<const BITS: u32> Signed<BITS> {
    const ZERO: i8 = 1 << (BITS - 1);

    #[inline(always)]
    fn search<const BYTES: usize>(
        x: &[[f32; 32]],
        importance: Option<&[[f32; 32]]>,
        out: &mut [[u8; BYTES]],
    ) {
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let found = if BITS == 4 {
                Eight::encode::<Integers<-8, 7>>(x, importance, LANES * i)
            } else {
                Eight::encode::<Integers<-16, 15>>(x, importance, LANES * i)
            };
            for (lane, out) in out.iter_mut().enumerate() {
                let mut codes = [0; 32];
                for i in 0..32 {
                    codes[i] = (found.levels[lane][i] + Self::ZERO) as u8;
                }
                out[..2].copy_from_slice(&half::store(found.d.0[lane]));
                store_codes::<BITS>(codes, &mut out[2..]);
            }
        }
    }
}

impl<const BITS: u32, const BYTES: usize> Codec<32, BYTES> for Signed<BITS> {
    #[inline(always)]
    fn encode(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; BYTES]]) {
        if importance.is_some() {
            return Self::search(x, importance, out);
        }
        let zero = f32::from(Self::ZERO);
        for (x, out) in x.iter().zip(out) {
            let d = held(extreme(x) / -zero);
            let inverse = inverse(d);
            let mut codes = [0; 32];
            for i in 0..32 {
                codes[i] = floor(x[i] * inverse + (zero + 0.5), 2.0 * zero - 1.0);
            }
            out[..2].copy_from_slice(&half::store(d));
            store_codes::<BITS>(codes, &mut out[2..]);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; BYTES], out: &mut [f32; 32]) {
        let codes = codes::<BITS>(block, 2);
        let mut levels = [0; 32];
        for i in 0..32 {
            levels[i] = codes[i] as i8 - Self::ZERO;
        }
        scaled(half::load(part(block, 0)), levels, out);
    }
}

impl<const BITS: u32> Affine<BITS> {
    #[inline(always)]
    fn search<const BYTES: usize>(
        x: &[[f32; 32]],
        importance: Option<&[[f32; 32]]>,
        out: &mut [[u8; BYTES]],
    ) {
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let found = if BITS == 4 {
                AffineEight::encode::<15>(x, importance, LANES * i)
            } else {
                AffineEight::encode::<31>(x, importance, LANES * i)
            };
            for (lane, out) in out.iter_mut().enumerate() {
                out[..2].copy_from_slice(&half::store(found.d.0[lane]));
                out[2..4].copy_from_slice(&half::store(found.m.0[lane]));
                store_codes::<BITS>(found.codes[lane], &mut out[4..]);
            }
        }
    }
}

impl<const BITS: u32, const BYTES: usize> Codec<32, BYTES> for Affine<BITS> {
    #[inline(always)]
    fn encode(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; BYTES]]) {
        if importance.is_some() {
            return Self::search(x, importance, out);
        }
        let top = ((1 << BITS) - 1) as f32;
        for (x, out) in x.iter().zip(out) {
            let (lo, hi) = extremes(*x);
            let min = held(lo);
            let d = held((hi - min) / top);
            let inverse = inverse(d);
            let mut codes = [0; 32];
            for i in 0..32 {
                codes[i] = floor((x[i] - min) * inverse + 0.5, top);
            }
            out[..2].copy_from_slice(&half::store(d));
            out[2..4].copy_from_slice(&half::store(min));
            store_codes::<BITS>(codes, &mut out[4..]);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; BYTES], out: &mut [f32; 32]) {
        let (d, m) = (half::load(part(block, 0)), half::load(part(block, 2)));
        shifted(d, m, codes::<BITS>(block, 4), out);
    }
}

impl Q8 {
    #[inline(always)]
    fn search(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; 34]]) {
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let found = Eight::encode::<Integers<-128, 127>>(x, importance, LANES * i);
            for (lane, out) in out.iter_mut().enumerate() {
                out[..2].copy_from_slice(&half::store(found.d.0[lane]));
                for i in 0..32 {
                    out[2 + i] = found.levels[lane][i] as u8;
                }
            }
        }
    }
}

impl Codec<32, 34> for Q8 {
    #[inline(always)]
    fn encode(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; 34]]) {
        if importance.is_some() {
            return Self::search(x, importance, out);
        }
        /// 1.5 · 2²³: adding it rounds to an integer.
        const ROUND: f32 = 12_582_912.0;
        for (x, out) in x.iter().zip(out) {
            let (lo, hi) = extremes(*x);
            let d = held((if hi > -lo { hi } else { -lo }).abs() / 127.0);
            let inverse = inverse(d);
            out[..2].copy_from_slice(&half::store(d));
            for i in 0..32 {
                let v = (x[i] * inverse).abs();
                let v = if v < 127.0 { v } else { 127.0 };
                // Half to even, then ties that went down up again: half away from zero.
                let even = (v + ROUND) - ROUND;
                let code = if v - even >= 0.5 { even + 1.0 } else { even };
                out[2 + i] = code.copysign(x[i]) as i32 as u8;
            }
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
        let mut codes = [0; 32];
        for i in 0..32 {
            codes[i] = block[2 + i] as i8;
        }
        scaled(half::load(part(block, 0)), codes, out);
    }
}
