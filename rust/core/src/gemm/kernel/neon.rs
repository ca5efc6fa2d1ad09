//! NEON kernels without dot products, and those of float32.
//!
//! Integer products are `smull`, eight i8 × i8 products of 16 bits, and `sadalp`, which adds neighbours of them to
//! int32 sums: two operations for eight products, on pipes of their own, where widened pairs take two `smlal` on one.
//! Nothing saturates. A column's sum lies in two lanes until the end.
//!
//! float32 products read A from a lane, so four elements of a row are one load.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI8, by_shape, load_sums, store_sums};
use crate::isa::{Isa, neon};
use crate::mem::{LineF32, LineI8, LineU4, vector};
use std::arch::aarch64::*;

pub(crate) const SIGNED_I8: Kernel<WordI8, LineI8, i32> = Kernel {
    name: "gemm_i8_i8_i32_2x16_neon",
    isa: Isa::Neon,
    mr: 2,
    panels: 1,
    max_m: usize::MAX,
    tile: signed_i8,
};

pub(crate) const SIGNED_U4: Kernel<WordI8, LineU4, i32> = Kernel {
    name: "gemm_i8_u4_i32_2x16_neon",
    isa: Isa::Neon,
    mr: 2,
    panels: 1,
    max_m: usize::MAX,
    tile: signed_u4,
};

pub(crate) const FLOATS: Kernel<f32, LineF32, f32> = Kernel {
    name: "gemm_f32_f32_f32_6x16_neon",
    isa: Isa::Neon,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: floats,
};

pub(crate) const FLOATS_I8: Kernel<f32, LineI8, f32> =
    Kernel { name: "gemm_f32_i8_f32_4x16_neon", isa: Isa::Neon, mr: 4, panels: 1, max_m: 4, tile: floats_i8 };

/// One row: sixteen accumulators, as four would wait for each other.
pub(crate) const FLOATS_I8_ROW: Kernel<f32, LineI8, f32> = Kernel {
    name: "gemm_f32_i8_f32_1x64_neon",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: floats_i8_row,
    ..FLOATS_I8
};

pub(crate) const FLOATS_U4: Kernel<f32, LineU4, f32> =
    Kernel { name: "gemm_f32_u4_f32_3x16_neon", isa: Isa::Neon, mr: 3, panels: 1, max_m: 3, tile: floats_u4 };

pub(crate) const FLOATS_U4_ROW: Kernel<f32, LineU4, f32> = Kernel {
    name: "gemm_f32_u4_f32_1x64_neon",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: floats_u4_row,
    ..FLOATS_U4
};

neon! {
    fn signed_i8(t: Tile<'_, WordI8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_i8_tile, [1 2] x [1]);
    }

    fn signed_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI8, LineI8>,
        acc: Accumulators<'_, i32>,
    ) {
        let rows = t.rows_of::<1, ROWS>();
        let mut sums = [[[vdupq_n_s32(0); 2]; 4]; ROWS];
        for (l, line) in t.panel(0).iter().enumerate() {
            for part in 0..4 {
                let b: int8x16_t = line.load(part);
                for row in 0..ROWS {
                    let a = broadcast(rows[row][l][0]);
                    let [left, right] = &mut sums[row][part];
                    *left = vpadalq_s16(*left, vmull_s8(vget_low_s8(b), vget_low_s8(a)));
                    *right = vpadalq_s16(*right, vmull_high_s8(b, a));
                }
            }
        }
        add_pairs(sums, acc);
    }

    fn signed_u4(t: Tile<'_, WordI8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_u4_tile, [1 2] x [1]);
    }

    fn signed_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI8, LineU4>,
        acc: Accumulators<'_, i32>,
    ) {
        let rows = t.rows_of::<2, ROWS>();
        let mut sums = [[[vdupq_n_s32(0); 2]; 4]; ROWS];
        for (l, line) in t.panel(0).iter().enumerate() {
            for part in 0..4 {
                let x: uint8x16_t = line.load(part);
                let low = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(0x0F)));
                let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(x));
                for row in 0..ROWS {
                    let [a_low, a_high] = rows[row][l];
                    let (a_low, a_high) = (broadcast(a_low), broadcast(a_high));
                    let [left, right] = &mut sums[row][part];
                    // Two products with codes of at most 15 fit 16 bits together.
                    let product = vmull_s8(vget_low_s8(low), vget_low_s8(a_low));
                    *left = vpadalq_s16(*left, vmlal_s8(product, vget_low_s8(high), vget_low_s8(a_high)));
                    let product = vmull_high_s8(low, a_low);
                    *right = vpadalq_s16(*right, vmlal_high_s8(product, high, a_high));
                }
            }
        }
        add_pairs(sums, acc);
    }

    #[inline]
    fn broadcast(word: WordI8) -> int8x16_t {
        vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(word.map(|code| code as u8))))
    }

    /// Adds sums of two lanes a column, `[row][part][half]`, to the accumulators.
    #[inline]
    fn add_pairs<const ROWS: usize>(sums: [[[int32x4_t; 2]; 4]; ROWS], acc: Accumulators<'_, i32>) {
        for row in 0..ROWS {
            for part in 0..4 {
                let [left, right] = sums[row][part];
                let sum = vaddq_s32(acc[row].load(part), vpaddq_s32(left, right));
                acc[row].store(part, sum);
            }
        }
    }

    fn floats(t: Tile<'_, f32, LineF32>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_tile, [1 2 3 4 5 6] x [1]);
    }

    fn floats_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineF32>,
        acc: Accumulators<'_, f32>,
    ) {
        let rows = t.rows_of::<1, ROWS>();
        let (fours, rest) = t.panel(0).as_chunks::<4>();
        let mut sums: [[[float32x4_t; 4]; PANELS]; ROWS] = load_sums(acc);
        for (l, lines) in fours.iter().enumerate() {
            let mut a = [vdupq_n_f32(0.0); ROWS];
            for row in 0..ROWS {
                a[row] = vector(&rows[row].as_chunks::<4>().0[l]);
            }
            floats_line::<0, ROWS, PANELS>(&mut sums, a, lines[0].load(0));
            floats_line::<1, ROWS, PANELS>(&mut sums, a, lines[1].load(0));
            floats_line::<2, ROWS, PANELS>(&mut sums, a, lines[2].load(0));
            floats_line::<3, ROWS, PANELS>(&mut sums, a, lines[3].load(0));
        }
        for (l, line) in rest.iter().enumerate() {
            let mut a = [vdupq_n_f32(0.0); ROWS];
            for row in 0..ROWS {
                a[row] = vdupq_n_f32(rows[row][4 * fours.len() + l][0]);
            }
            floats_line::<0, ROWS, PANELS>(&mut sums, a, line.load(0));
        }
        store_sums(sums, acc);
    }

    /// Multiplies lane `LANE` of each row with sixteen columns of the first panel.
    #[inline]
    fn floats_line<const LANE: i32, const ROWS: usize, const PANELS: usize>(
        sums: &mut [[[float32x4_t; 4]; PANELS]; ROWS],
        a: [float32x4_t; ROWS],
        b: [float32x4_t; 4],
    ) {
        for part in 0..4 {
            for row in 0..ROWS {
                sums[row][0][part] = vfmaq_laneq_f32::<LANE>(sums[row][0][part], b[part], a[row]);
            }
        }
    }

    fn floats_i8(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1 2 3 4] x [1]);
    }

    fn floats_i8_row(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1] x [1 2 3 4]);
    }

    fn floats_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineI8>,
        acc: Accumulators<'_, f32>,
    ) {
        let (rows, panels) = (t.rows_of::<4, ROWS>(), t.panels_of::<PANELS>());
        let mut sums: [[[float32x4_t; 4]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for part in 0..4 {
                    let x: int32x4_t = panels[panel][l].load(part);
                    let weights = [
                        vshrq_n_s32::<24>(vshlq_n_s32::<24>(x)),
                        vshrq_n_s32::<24>(vshlq_n_s32::<16>(x)),
                        vshrq_n_s32::<24>(vshlq_n_s32::<8>(x)),
                        vshrq_n_s32::<24>(x),
                    ];
                    for row in 0..ROWS {
                        let sum = &mut sums[row][panel][part];
                        *sum = four_products(*sum, weights, vector(&[rows[row][l]]));
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats_u4(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1 2 3] x [1]);
    }

    fn floats_u4_row(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1] x [1 2 3 4]);
    }

    fn floats_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineU4>,
        acc: Accumulators<'_, f32>,
    ) {
        let (rows, panels) = (t.rows_of::<8, ROWS>(), t.panels_of::<PANELS>());
        let mut sums: [[[float32x4_t; 4]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for high in 0..2 {
                    for part in 0..4 {
                        let x: uint8x16_t = panels[panel][l].load(part);
                        let x = if high == 0 { vandq_u8(x, vdupq_n_u8(0x0F)) } else { vshrq_n_u8::<4>(x) };
                        let (x, byte) = (vreinterpretq_s32_u8(x), vdupq_n_s32(0xFF));
                        let weights = [
                            vandq_s32(x, byte),
                            vandq_s32(vshrq_n_s32::<8>(x), byte),
                            vandq_s32(vshrq_n_s32::<16>(x), byte),
                            vshrq_n_s32::<24>(x),
                        ];
                        for row in 0..ROWS {
                            let a = rows[row][l].as_chunks::<4>().0[high];
                            let sum = &mut sums[row][panel][part];
                            *sum = four_products(*sum, weights, vector(&[a]));
                        }
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    /// Adds the products of four k with their lanes of `a`, in ascending order.
    #[inline]
    fn four_products(sum: float32x4_t, weights: [int32x4_t; 4], a: float32x4_t) -> float32x4_t {
        let sum = vfmaq_laneq_f32::<0>(sum, vcvtq_f32_s32(weights[0]), a);
        let sum = vfmaq_laneq_f32::<1>(sum, vcvtq_f32_s32(weights[1]), a);
        let sum = vfmaq_laneq_f32::<2>(sum, vcvtq_f32_s32(weights[2]), a);
        vfmaq_laneq_f32::<3>(sum, vcvtq_f32_s32(weights[3]), a)
    }
}
