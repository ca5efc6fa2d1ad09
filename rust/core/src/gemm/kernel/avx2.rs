//! AVX2 kernels. Sixteen registers: 6 × 16 tiles hold twelve accumulators, two lines of B and a broadcast.
//!
//! Products of bytes go through `vpmaddwd` on 16-bit pairs, which is exact for any 8-bit operands; `vpmaddubsw`
//! would be twice as wide but saturates at 2 · 255 · 127. With 4-bit codes it cannot, so those go through it.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI16, WordU8, by_shape, load_sums, store_sums};
use crate::isa::{Isa, avx2};
use crate::mem::{LineF32, LineI8, LineI16, LineN4, LineU4};
use std::arch::x86_64::*;

/// How many sums of two products, each at most 2 · 255 · 15, 16 bits hold.
const EXACT_PAIRS: usize = i16::MAX as usize / (2 * 255 * 15);

pub(crate) const PAIRS: Kernel<WordI16, LineI16, i32> = Kernel {
    name: "gemm_i16_i16_i32_6x16_avx2",
    isa: Isa::Avx2,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: pairs,
};

pub(crate) const PAIRS_I8: Kernel<WordI16, LineI8, i32> = Kernel {
    name: "gemm_i16_i8_i32_3x16_avx2",
    isa: Isa::Avx2,
    mr: 3,
    panels: 1,
    // Widening on the fly costs 3 operations per 32 weights and row tile; from the third tile on it is
    // cheaper to widen once into a buffer.
    max_m: 6,
    tile: pairs_i8,
};

/// One row: four panels share a call, whose set-up is as long as a group of 32.
pub(crate) const PAIRS_I8_ROW: Kernel<WordI16, LineI8, i32> =
    Kernel { name: "gemm_i16_i8_i32_1x64_avx2", mr: 1, panels: 4, max_m: 1, tile: pairs_i8_row, ..PAIRS_I8 };

/// 4-bit codes in bytes. 6 × 16 tiles hold their sums of 16 bits in registers, those of 32 bits in the first cache.
pub(crate) const BYTES_N4: Kernel<WordU8, LineN4, i32> = Kernel {
    name: "gemm_u8_n4_i32_6x16_avx2",
    isa: Isa::Avx2,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: bytes_n4,
};

pub(crate) const BYTES_U4: Kernel<WordU8, LineU4, i32> = Kernel {
    name: "gemm_u8_u4_i32_3x16_avx2",
    isa: Isa::Avx2,
    mr: 3,
    panels: 1,
    // Taking nibbles apart costs 3 operations per 64 weights and row tile; from the third tile on it is cheaper
    // to widen once into a buffer.
    max_m: 6,
    tile: bytes_u4,
};

pub(crate) const BYTES_U4_ROW: Kernel<WordU8, LineU4, i32> =
    Kernel { name: "gemm_u8_u4_i32_1x64_avx2", mr: 1, panels: 4, max_m: 1, tile: bytes_u4_row, ..BYTES_U4 };

pub(crate) const FLOATS: Kernel<f32, LineF32, f32> = Kernel {
    name: "gemm_f32_f32_f32_6x16_avx2",
    isa: Isa::Avx2,
    mr: 6,
    panels: 1,
    max_m: usize::MAX,
    tile: floats,
};

pub(crate) const FLOATS_I8: Kernel<f32, LineI8, f32> =
    Kernel { name: "gemm_f32_i8_f32_4x16_avx2", isa: Isa::Avx2, mr: 4, panels: 1, max_m: 4, tile: floats_i8 };

/// One row: two panels keep their sums and lines in registers, and taking the codes apart hides the latency of the
/// products.
pub(crate) const FLOATS_I8_ROW: Kernel<f32, LineI8, f32> = Kernel {
    name: "gemm_f32_i8_f32_1x32_avx2",
    mr: 1,
    panels: 2,
    max_m: 1,
    tile: floats_i8_row,
    ..FLOATS_I8
};

pub(crate) const FLOATS_U4: Kernel<f32, LineU4, f32> =
    Kernel { name: "gemm_f32_u4_f32_4x16_avx2", isa: Isa::Avx2, mr: 4, panels: 1, max_m: 4, tile: floats_u4 };

pub(crate) const FLOATS_U4_ROW: Kernel<f32, LineU4, f32> = Kernel {
    name: "gemm_f32_u4_f32_1x32_avx2",
    mr: 1,
    panels: 2,
    max_m: 1,
    tile: floats_u4_row,
    ..FLOATS_U4
};

avx2! {
    fn pairs(t: Tile<'_, WordI16, LineI16>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, pairs_tile, [1 2 3 4 5 6] x [1]);
    }

    fn pairs_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI16, LineI16>,
        acc: Accumulators<'_, i32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let mut sums: [[[__m256i; 2]; PANELS]; ROWS] = load_sums(acc);
        for (l, line) in t.panel(0).iter().enumerate() {
            let b: [__m256i; 2] = [line.load(0), line.load(1)];
            for row in 0..ROWS {
                let a = broadcast_pair(a[row][l][0]);
                for half in 0..2 {
                    sums[row][0][half] = _mm256_add_epi32(sums[row][0][half], _mm256_madd_epi16(a, b[half]));
                }
            }
        }
        store_sums(sums, acc);
    }

    fn pairs_i8(t: Tile<'_, WordI16, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, pairs_i8_tile, [1 2 3] x [1]);
    }

    fn pairs_i8_row(t: Tile<'_, WordI16, LineI8>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, pairs_i8_tile, [1] x [1 2 3 4]);
    }

    fn pairs_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI16, LineI8>,
        acc: Accumulators<'_, i32>,
    ) {
        let a = t.rows_of::<2, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256i; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for half in 0..2 {
                    let bytes: __m256i = b[panel][l].load(half);
                    let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
                    let odd = _mm256_srai_epi16::<8>(bytes);
                    for row in 0..ROWS {
                        let [a_even, a_odd] = a[row][l];
                        let even = _mm256_madd_epi16(broadcast_pair(a_even), even);
                        let odd = _mm256_madd_epi16(broadcast_pair(a_odd), odd);
                        let sum = &mut sums[row][panel][half];
                        *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(even, odd));
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn bytes_n4(t: Tile<'_, WordU8, LineN4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_n4_tile, [1 2 3 4 5 6] x [1]);
    }

    fn bytes_n4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineN4>,
        acc: Accumulators<'_, i32>,
    ) {
        let one = _mm256_set1_epi16(1);
        let a = t.rows_of::<1, ROWS>();
        let b = t.panel(0);
        for (block, lines) in b.chunks(EXACT_PAIRS).enumerate() {
            let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS];
            for (i, line) in lines.iter().enumerate() {
                let b: [__m256i; 2] = [line.load(0), line.load(1)];
                for row in 0..ROWS {
                    let a = broadcast_four(a[row][block * EXACT_PAIRS + i][0]);
                    for half in 0..2 {
                        let products = _mm256_maddubs_epi16(a, b[half]);
                        pairs[row][half] = _mm256_add_epi16(pairs[row][half], products);
                    }
                }
            }
            for row in 0..ROWS {
                for half in 0..2 {
                    let products = _mm256_madd_epi16(pairs[row][half], one);
                    acc[row].store(half, _mm256_add_epi32(acc[row].load(half), products));
                }
            }
        }
    }

    fn bytes_u4(t: Tile<'_, WordU8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_u4_tile, [1 2 3] x [1]);
    }

    fn bytes_u4_row(t: Tile<'_, WordU8, LineU4>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, bytes_u4_tile, [1] x [1 2 3 4]);
    }

    fn bytes_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordU8, LineU4>,
        acc: Accumulators<'_, i32>,
    ) {
        let (low, one) = (_mm256_set1_epi8(0x0F), _mm256_set1_epi16(1));
        let a = t.rows_of::<2, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256i; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                for half in 0..2 {
                    let x: __m256i = b[panel][l].load(half);
                    let b = [_mm256_and_si256(x, low), _mm256_and_si256(_mm256_srli_epi16::<4>(x), low)];
                    for row in 0..ROWS {
                        // Four lines would fit 16 bits, but the sums of two at once no longer fit the registers.
                        let pairs = _mm256_add_epi16(
                            _mm256_maddubs_epi16(broadcast_four(a[row][l][0]), b[0]),
                            _mm256_maddubs_epi16(broadcast_four(a[row][l][1]), b[1]),
                        );
                        let sum = &mut sums[row][panel][half];
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, one));
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats(t: Tile<'_, f32, LineF32>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_tile, [1 2 3 4 5 6] x [1]);
    }

    fn floats_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineF32>,
        acc: Accumulators<'_, f32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let mut sums: [[[__m256; 2]; PANELS]; ROWS] = load_sums(acc);
        for (l, line) in t.panel(0).iter().enumerate() {
            let b: [__m256; 2] = [line.load(0), line.load(1)];
            for row in 0..ROWS {
                let a = _mm256_set1_ps(a[row][l][0]);
                for half in 0..2 {
                    sums[row][0][half] = _mm256_fmadd_ps(a, b[half], sums[row][0][half]);
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats_i8(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1 2 3 4] x [1]);
    }

    fn floats_i8_row(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1] x [1 2]);
    }

    // In both of these k is the outer loop: neighbouring products then belong to different accumulators and do
    // not wait for each other.
    fn floats_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineI8>,
        acc: Accumulators<'_, f32>,
    ) {
        let a = t.rows_of::<4, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for k in 0..4 {
                let up = _mm_cvtsi32_si128(24 - 8 * k as i32);
                for panel in 0..PANELS {
                    for half in 0..2 {
                        let byte = _mm256_srai_epi32::<24>(_mm256_sll_epi32(b[panel][l].load(half), up));
                        let weight = _mm256_cvtepi32_ps(byte);
                        for row in 0..ROWS {
                            let sum = &mut sums[row][panel][half];
                            *sum = _mm256_fmadd_ps(_mm256_set1_ps(a[row][l][k]), weight, *sum);
                        }
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats_u4(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1 2 3 4] x [1]);
    }

    fn floats_u4_row(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1] x [1 2]);
    }

    fn floats_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineU4>,
        acc: Accumulators<'_, f32>,
    ) {
        let low = _mm256_set1_epi32(0x0F);
        let a = t.rows_of::<8, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[[__m256; 2]; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for k in 0..8 {
                let down = _mm_cvtsi32_si128((8 * (k % 4) + 4 * (k / 4)) as i32);
                for panel in 0..PANELS {
                    for half in 0..2 {
                        let nibble = _mm256_and_si256(_mm256_srl_epi32(b[panel][l].load(half), down), low);
                        let weight = _mm256_cvtepi32_ps(nibble);
                        for row in 0..ROWS {
                            let sum = &mut sums[row][panel][half];
                            *sum = _mm256_fmadd_ps(_mm256_set1_ps(a[row][l][k]), weight, *sum);
                        }
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    #[inline]
    fn broadcast_four(four: WordU8) -> __m256i {
        _mm256_set1_epi32(i32::from_le_bytes(four))
    }

    #[inline]
    fn broadcast_pair(pair: WordI16) -> __m256i {
        _mm256_set1_epi32(i32::from(pair[0] as u16) | i32::from(pair[1]) << 16)
    }
}
