//! NEON kernels with matrix products: `smmla` multiplies two rows with two columns over eight k, twice the
//! products of a dot product.
//!
//! Its columns are made from two vectors of dot product operands by one interleaving, which four pairs of rows share.
//! An 8 × 16 tile runs as two halves of eight columns: sixteen accumulators each, which leave room for the operands;
//! 24 were spilled. A sum lies among those of its neighbours and is put in its place at the end. An odd last row is
//! multiplied twice.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI8};
use crate::intrinsics::vmmlaq_s32;
use crate::isa::{Isa, neoni8mm};
use crate::mem::{LineI8, LineU4, vector};
use std::arch::aarch64::*;

pub(crate) const SIGNED_I8: Kernel<WordI8, LineI8, i32> = Kernel {
    name: "gemm_i8_i8_i32_8x16_neoni8mm",
    isa: Isa::NeonI8mm,
    mr: 8,
    panels: 1,
    max_m: usize::MAX,
    tile: signed_i8,
};

pub(crate) const SIGNED_U4: Kernel<WordI8, LineU4, i32> = Kernel {
    name: "gemm_i8_u4_i32_8x16_neoni8mm",
    isa: Isa::NeonI8mm,
    mr: 8,
    panels: 1,
    // Unpacking costs two operations a vector and row tile; from the third tile on a buffer of bytes is cheaper.
    max_m: 16,
    tile: signed_u4,
};

/// Sums of pairs of rows with the four pairs of columns of half a panel: `[pair][vector of the half][two columns]`.
type Sums<const PAIRS: usize> = [[[int32x4_t; 2]; 2]; PAIRS];

/// The words of pairs of rows.
type Pairs<'a, const PAIRS: usize> = [[&'a [WordI8]; 2]; PAIRS];

/// Calls `$tile::<PAIRS>` for the rows in `$t`.
macro_rules! by_pairs {
    ($t:expr, $acc:expr, $tile:ident) => {
        match $t.rows.div_ceil(2) {
            1 => $tile::<1>($t, $acc),
            2 => $tile::<2>($t, $acc),
            3 => $tile::<3>($t, $acc),
            _ => $tile::<4>($t, $acc),
        }
    };
}

neoni8mm! {
    fn signed_i8(t: Tile<'_, WordI8, LineI8>, acc: Accumulators<'_, i32>) {
        by_pairs!(t, acc, signed_i8_tile);
    }

    fn signed_i8_tile<const PAIRS: usize>(t: Tile<'_, WordI8, LineI8>, acc: Accumulators<'_, i32>) {
        let rows = pairs::<PAIRS, _>(&t, 1);
        let (twos, last) = t.panel(0).as_chunks::<2>();
        for half in 0..2 {
            let mut sums: Sums<PAIRS> = [[[vdupq_n_s32(0); 2]; 2]; PAIRS];
            for (l, [first, second]) in twos.iter().enumerate() {
                let a = eights(&rows, l);
                for part in 0..2 {
                    let b = [first.load(2 * half + part), second.load(2 * half + part)];
                    multiply(&mut sums, &a, part, b);
                }
            }
            if let [line] = last {
                let mut a = [vdupq_n_s8(0); PAIRS];
                for pair in 0..PAIRS {
                    let [first, second] = rows[pair];
                    a[pair] = vector(&[first[t.lines - 1], [0; 4], second[t.lines - 1], [0; 4]]);
                }
                for part in 0..2 {
                    multiply(&mut sums, &a, part, [line.load(2 * half + part), vdupq_n_s8(0)]);
                }
            }
            add(sums, half, acc);
        }
    }

    fn signed_u4(t: Tile<'_, WordI8, LineU4>, acc: Accumulators<'_, i32>) {
        by_pairs!(t, acc, signed_u4_tile);
    }

    fn signed_u4_tile<const PAIRS: usize>(t: Tile<'_, WordI8, LineU4>, acc: Accumulators<'_, i32>) {
        let rows = pairs::<PAIRS, _>(&t, 2);
        for half in 0..2 {
            let mut sums: Sums<PAIRS> = [[[vdupq_n_s32(0); 2]; 2]; PAIRS];
            for (l, line) in t.panel(0).iter().enumerate() {
                let a = eights(&rows, l);
                for part in 0..2 {
                    let x: uint8x16_t = line.load(2 * half + part);
                    let low = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(0x0F)));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(x));
                    multiply(&mut sums, &a, part, [low, high]);
                }
            }
            add(sums, half, acc);
        }
    }

    /// The rows of the tile two by two, with `words` words a line.
    #[inline]
    fn pairs<'a, const PAIRS: usize, B>(t: &Tile<'a, WordI8, B>, words: usize) -> Pairs<'a, PAIRS> {
        let mut out: Pairs<'a, PAIRS> = [[&[]; 2]; PAIRS];
        for pair in 0..PAIRS {
            for half in 0..2 {
                out[pair][half] = t.row((2 * pair + half).min(t.rows - 1), words);
            }
        }
        out
    }

    /// Codes 8·l to 8·l + 8 of each pair of rows.
    #[inline]
    fn eights<const PAIRS: usize>(rows: &Pairs<'_, PAIRS>, l: usize) -> [int8x16_t; PAIRS] {
        let mut out = [vdupq_n_s8(0); PAIRS];
        for pair in 0..PAIRS {
            let [first, second] = rows[pair];
            let (first, second) = (first.as_chunks::<2>().0, second.as_chunks::<2>().0);
            out[pair] = vcombine_s8(vector(&first[l]), vector(&second[l]));
        }
        out
    }

    /// Multiplies pairs of rows with four columns whose first and second four k are given.
    #[inline]
    fn multiply<const PAIRS: usize>(
        sums: &mut Sums<PAIRS>,
        a: &[int8x16_t; PAIRS],
        part: usize,
        [first, second]: [int8x16_t; 2],
    ) {
        let (first, second) = (vreinterpretq_s32_s8(first), vreinterpretq_s32_s8(second));
        let b = [vzip1q_s32(first, second), vzip2q_s32(first, second)];
        for pair in 0..PAIRS {
            for half in 0..2 {
                let sum = &mut sums[pair][part][half];
                *sum = vmmlaq_s32(*sum, a[pair], vreinterpretq_s8_s32(b[half]));
            }
        }
    }

    /// Adds the sums of half a panel to the accumulators of their rows.
    #[inline]
    fn add<const PAIRS: usize>(sums: Sums<PAIRS>, half: usize, acc: Accumulators<'_, i32>) {
        for (row, line) in acc.iter_mut().enumerate() {
            for part in 0..2 {
                let [left, right] = sums[row / 2][part];
                let sum = match row % 2 {
                    0 => vcombine_s32(vget_low_s32(left), vget_low_s32(right)),
                    _ => vcombine_s32(vget_high_s32(left), vget_high_s32(right)),
                };
                let at = 2 * half + part;
                line.store(at, vaddq_s32(line.load(at), sum));
            }
        }
    }
}
