//! How the codes of a line are read: integers, floating-point numbers, levels that are looked up.

#![forbid(unsafe_code)]

use crate::format::Rounder;
use crate::pack::unpack_line;
use std::hint::black_box;

/// Elements of a line: four vectors of AVX2, one of their codes.
pub(crate) const LINE: usize = 32;
/// Elements that share a cell where lines are taken: the smallest block of a standard (NVFP4).
pub(crate) const HALF: usize = LINE / 2;
/// How the codes of a line are read: `BITS` each, and what they stand for.
pub(crate) trait Reading: Copy {
    const BITS: usize;
    /// Whether zero points are read, which need not come from memory otherwise.
    const SHIFTED: bool = false;
    /// The levels of a line, whose halves have these zero points.
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE];
}

/// The codes of a line, a byte each. Through memory: otherwise the compiler takes words apart one code at a time, in
/// twice the time.
#[inline(always)]
fn codes<const B: usize>(bytes: &[u8]) -> [u8; LINE] {
    let codes = unpack_line::<B, LINE>(bytes);
    if B == 8 { codes } else { black_box(codes) }
}

/// Integers of `B` bits, and the bit of their sign, or 0.
#[derive(Clone, Copy)]
pub(crate) struct Integers<const B: usize>(pub(crate) i32);

impl<const B: usize> Reading for Integers<B> {
    const BITS: usize = B;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE] {
        let codes = codes::<B>(bytes);
        let mut levels = [0.0; LINE];
        for (half, zero_point) in zero_points.into_iter().enumerate() {
            // x ^ s − s extends the sign bit s; with s = 0 it leaves the code as it is.
            let zero = zero_point.wrapping_add(self.0);
            for i in half * HALF..(half + 1) * HALF {
                levels[i] = (i32::from(codes[i]) ^ self.0).wrapping_sub(zero) as f32;
            }
        }
        levels
    }
}

/// [`Integers`] of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct Wide(pub(crate) i32);

impl Reading for Wide {
    const BITS: usize = 16;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE] {
        let codes = pairs(bytes);
        let mut levels = [0.0; LINE];
        for (half, zero_point) in zero_points.into_iter().enumerate() {
            let zero = zero_point.wrapping_add(self.0);
            for i in half * HALF..(half + 1) * HALF {
                levels[i] = (i32::from(codes[i]) ^ self.0).wrapping_sub(zero) as f32;
            }
        }
        levels
    }
}

/// A line of codes of two bytes.
#[inline(always)]
fn pairs(bytes: &[u8]) -> [u16; LINE] {
    let mut codes = [0; LINE];
    for (code, &pair) in codes.iter_mut().zip(bytes.as_chunks().0) {
        *code = u16::from_le_bytes(pair);
    }
    codes
}

/// Floating-point numbers of `B` bits.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<const B: usize>(pub(crate) Rounder);

impl<const B: usize> Reading for Numbers<B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let mut levels = [0.0; LINE];
        if B == 16 {
            let codes = pairs(bytes);
            for i in 0..LINE {
                levels[i] = self.0.level(codes[i]);
            }
        } else {
            let codes = black_box(unpack_line::<B, LINE>(bytes));
            for i in 0..LINE {
                levels[i] = self.0.level(codes[i].into());
            }
        }
        levels
    }
}

/// Levels of codes of `B` bits, one by one.
#[derive(Clone, Copy)]
pub(crate) struct Single<'a, const B: usize>(pub(crate) &'a [f32; 256]);

impl<const B: usize> Reading for Single<'_, B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let mut levels = [0.0; LINE];
        if B == 8 {
            // As they lie: a copy would be a vector, whose bytes come out one after another.
            for (level, &code) in levels.iter_mut().zip(bytes) {
                *level = self.0[usize::from(code)];
            }
        } else {
            for (level, code) in levels.iter_mut().zip(unpack_line::<B, LINE>(bytes)) {
                *level = self.0[usize::from(code)];
            }
        }
        levels
    }
}

/// Levels of codes of `B` bits, two by two.
#[derive(Clone, Copy)]
pub(crate) struct Double<'a, const B: usize>(pub(crate) &'a [[f32; 2]; 256]);

impl<const B: usize> Reading for Double<'_, B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let codes: [u8; HALF] = match B {
            1 => unpack_line::<2, HALF>(bytes),
            2 => unpack_line::<4, HALF>(bytes),
            3 => unpack_line::<6, HALF>(bytes),
            _ => unpack_line::<8, HALF>(bytes),
        };
        let mut levels = [0.0; LINE];
        for (pair, code) in levels.as_chunks_mut().0.iter_mut().zip(codes) {
            *pair = self.0[usize::from(code)];
        }
        levels
    }
}
