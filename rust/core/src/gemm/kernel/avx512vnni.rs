//! AVX512-VNNI kernels: `vpdpbusd` adds four u8 × i8 products to each of sixteen int32 lanes.
//!
//! 6 × 64 tiles: 24 accumulators hide the latency of the dot product (5 cycles on 2 ports asks for 10), six row
//! and four panel pointers fit the general registers, and one load of B serves six dot products.
//! The non-saturating form is used throughout, so sums are exact modulo 2³².
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, load_lines, load_sums, store_sums, WordU8, by_shape};
use crate::isa::{Isa, avx512vnni};
use crate::mem::{LineI8, LineU4};
use std::arch::x86_64::*;

pub(crate) const BYTES_I8: Kernel<WordU8, LineI8, i32> = Kernel {
    name: "gemm_u8_i8_i32_6x64_avx512vnni",
    isa: Isa::Avx512Vnni,
    mr: 6,
    panels: 4,
    max_m: usize::MAX,
    tile: bytes_i8,
};

pub(crate) const BYTES_U4: Kernel<WordU8, LineU4, i32> = Kernel {
    name: "gemm_u8_u4_i32_4x64_avx512vnni",
    isa: Isa::Avx512Vnni,
    mr: 4,
    panels: 4,
    // Unpacking costs three operations a line and row tile; from the third tile on a buffer of bytes is cheaper.
    max_m: 8,
    tile: bytes_u4,
};

avx512vnni! {
    fn bytes_i8(t: Tile<'_, WordU8, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_i8_tile, [1 2 3 4 5 6] x [1 2 3 4]);
    }

    fn bytes_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineI8>,
        acc: Accumulators<'_, i32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512i; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            let b: [__m512i; PANELS] = load_lines(&b, l);
            for row in 0..ROWS {
                let a = _mm512_set1_epi32(i32::from_le_bytes(a[row][l][0]));
                for panel in 0..PANELS {
                    sums[row][panel] = _mm512_dpbusd_epi32(sums[row][panel], a, b[panel]);
                }
            }
        }
        store_sums(sums, acc);
    }

    fn bytes_u4(t: Tile<'_, WordU8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_u4_tile, [1 2 3 4] x [1 2 3 4]);
    }

    fn bytes_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineU4>,
        acc: Accumulators<'_, i32>,
    ) {
        let low = _mm512_set1_epi8(0x0F);
        let a = t.rows_of::<2, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512i; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                let x: __m512i = b[panel][l].load(0);
                // 0..=15 is as good an i8 as a u8, so 4-bit codes stand in the signed operand like bytes do.
                let b = [_mm512_and_si512(x, low), _mm512_and_si512(_mm512_srli_epi16::<4>(x), low)];
                for row in 0..ROWS {
                    for (word, b) in a[row][l].iter().zip(b) {
                        let a = _mm512_set1_epi32(i32::from_le_bytes(*word));
                        sums[row][panel] = _mm512_dpbusd_epi32(sums[row][panel], a, b);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }
}
