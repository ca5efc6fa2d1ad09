//! AVX-VNNI kernels: `vpdpbusd` on 32-byte vectors, for CPUs that have it without AVX-512.
//!
//! Sixteen registers hold the twelve accumulators of a 6 × 16 tile, two halves of a line and a broadcast; the dot
//! product (5 cycles on 2 ports) asks for ten.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordU8, by_shape, load_sums, store_sums};
use crate::isa::{Isa, avxvnni};
use crate::mem::{LineI8, LineU4};
use std::arch::x86_64::*;

pub(crate) const BYTES_I8: Kernel<WordU8, LineI8, i32> = Kernel {
    name: "gemm_u8_i8_i32_6x16_avxvnni",
    isa: Isa::AvxVnni,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: bytes_i8,
};

/// One row: eight accumulators, where a single panel has two.
pub(crate) const BYTES_I8_ROW: Kernel<WordU8, LineI8, i32> = Kernel {
    name: "gemm_u8_i8_i32_1x64_avxvnni",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: bytes_i8_row,
    ..BYTES_I8
};

pub(crate) const BYTES_U4: Kernel<WordU8, LineU4, i32> = Kernel {
    name: "gemm_u8_u4_i32_4x16_avxvnni",
    isa: Isa::AvxVnni,
    mr: 4,
    panels: 1,
    // Unpacking costs three operations a half line and row tile; from the third tile on a buffer of bytes is
    // cheaper.
    max_m: 8,
    tile: bytes_u4,
};

pub(crate) const BYTES_U4_ROW: Kernel<WordU8, LineU4, i32> = Kernel {
    name: "gemm_u8_u4_i32_1x64_avxvnni",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: bytes_u4_row,
    ..BYTES_U4
};

avxvnni! {
    fn bytes_i8(t: Tile<'_, WordU8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_i8_tile, [1 2 3 4 5 6] x [1]);
    }

    fn bytes_i8_row(t: Tile<'_, WordU8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_i8_tile, [1] x [1 2 3 4]);
    }

    fn bytes_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineI8>,
        acc: Accumulators<'_, i32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256i; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                let b: [__m256i; 2] = b[panel][l].load(0);
                for row in 0..ROWS {
                    let a = _mm256_set1_epi32(i32::from_le_bytes(a[row][l][0]));
                    for half in 0..2 {
                        let sum = &mut sums[row][panel][half];
                        *sum = _mm256_dpbusd_avx_epi32(*sum, a, b[half]);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn bytes_u4(t: Tile<'_, WordU8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_u4_tile, [1 2 3 4] x [1]);
    }

    fn bytes_u4_row(t: Tile<'_, WordU8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_u4_tile, [1] x [1 2 3 4]);
    }

    fn bytes_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineU4>,
        acc: Accumulators<'_, i32>,
    ) {
        let low = _mm256_set1_epi8(0x0F);
        let a = t.rows_of::<2, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256i; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for half in 0..2 {
                    let x: __m256i = b[panel][l].load(half);
                    let b = [_mm256_and_si256(x, low), _mm256_and_si256(_mm256_srli_epi16::<4>(x), low)];
                    for row in 0..ROWS {
                        let sum = &mut sums[row][panel][half];
                        for part in 0..2 {
                            let a = _mm256_set1_epi32(i32::from_le_bytes(a[row][l][part]));
                            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b[part]);
                        }
                    }
                }
            }
        }
        store_sums(sums, acc);
    }
}
