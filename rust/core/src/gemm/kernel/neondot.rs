//! NEON kernels with dot products: `sdot` adds four i8 × i8 products to each of four int32 lanes.
//!
//! A dot product reads its word of A from a lane, so eight bytes of a row serve two words and need no broadcast.
//! 6 × 16 tiles: 24 accumulators, six rows and a vector of B fill the 32 registers.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI8, by_shape, load_sums, store_sums};
use crate::intrinsics::vdotq_lane_s32;
use crate::isa::{Isa, neondot};
use crate::mem::{LineI8, LineU4, vector};
use std::arch::aarch64::*;

pub(crate) const SIGNED_I8: Kernel<WordI8, LineI8, i32> = Kernel {
    name: "gemm_i8_i8_i32_6x16_neondot",
    isa: Isa::NeonDot,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: signed_i8,
};

/// One row: sixteen accumulators, where a single panel has four for a latency of 4 cycles on 2 to 4 pipes.
pub(crate) const SIGNED_I8_ROW: Kernel<WordI8, LineI8, i32> = Kernel {
    name: "gemm_i8_i8_i32_1x64_neondot",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: signed_i8_row,
    ..SIGNED_I8
};

pub(crate) const SIGNED_U4: Kernel<WordI8, LineU4, i32> = Kernel {
    name: "gemm_i8_u4_i32_4x16_neondot",
    isa: Isa::NeonDot,
    mr: 4,
    panels: 1,
    // Unpacking costs two operations a vector and row tile; from the third tile on a buffer of bytes is cheaper.
    max_m: 8,
    tile: signed_u4,
};

pub(crate) const SIGNED_U4_ROW: Kernel<WordI8, LineU4, i32> = Kernel {
    name: "gemm_i8_u4_i32_1x64_neondot",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: signed_u4_row,
    ..SIGNED_U4
};

neondot! {
    fn signed_i8(t: Tile<'_, WordI8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_i8_tile, [1 2 3 4 5 6] x [1]);
    }

    fn signed_i8_row(t: Tile<'_, WordI8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_i8_tile, [1] x [1 2 3 4]);
    }

    fn signed_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI8, LineI8>,
        acc: Accumulators<'_, i32>,
    ) {
        let (rows, panels) = (t.rows_of::<1, ROWS>(), t.panels_of::<PANELS>());
        let mut sums: [[[int32x4_t; 4]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines / 2 {
            let mut a = [vdup_n_s8(0); ROWS];
            for row in 0..ROWS {
                let [[first], [second]] = rows[row].as_chunks::<2>().0[l];
                a[row] = vector(&[first, second]);
            }
            for panel in 0..PANELS {
                let [first, second] = &panels[panel].as_chunks::<2>().0[l];
                for part in 0..4 {
                    let b = first.load(part);
                    for row in 0..ROWS {
                        let sum = &mut sums[row][panel][part];
                        *sum = vdotq_lane_s32::<0>(*sum, b, a[row]);
                    }
                }
                for part in 0..4 {
                    let b = second.load(part);
                    for row in 0..ROWS {
                        let sum = &mut sums[row][panel][part];
                        *sum = vdotq_lane_s32::<1>(*sum, b, a[row]);
                    }
                }
            }
        }
        if let Some(l) = (t.lines % 2 == 1).then(|| t.lines - 1) {
            for row in 0..ROWS {
                let a = vector(&[rows[row][l][0], [0; 4]]);
                for panel in 0..PANELS {
                    for part in 0..4 {
                        let sum = &mut sums[row][panel][part];
                        *sum = vdotq_lane_s32::<0>(*sum, panels[panel][l].load(part), a);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn signed_u4(t: Tile<'_, WordI8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_u4_tile, [1 2 3 4] x [1]);
    }

    fn signed_u4_row(t: Tile<'_, WordI8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, signed_u4_tile, [1] x [1 2 3 4]);
    }

    fn signed_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI8, LineU4>,
        acc: Accumulators<'_, i32>,
    ) {
        let (rows, panels) = (t.rows_of::<2, ROWS>(), t.panels_of::<PANELS>());
        let mut sums: [[[int32x4_t; 4]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for part in 0..4 {
                    let x: uint8x16_t = panels[panel][l].load(part);
                    // 0..=15 is as good an i8 as a u8.
                    let low = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(0x0F)));
                    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(x));
                    for row in 0..ROWS {
                        let a = vector(&rows[row][l]);
                        let sum = &mut sums[row][panel][part];
                        *sum = vdotq_lane_s32::<0>(*sum, low, a);
                        *sum = vdotq_lane_s32::<1>(*sum, high, a);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }
}
