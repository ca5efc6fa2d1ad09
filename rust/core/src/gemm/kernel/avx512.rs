//! AVX-512 kernels without dot products: 16-bit pair products and float32 products in 6 × 64 tiles.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI16, by_shape, load_lines, load_sums, store_sums};
use crate::isa::{Isa, avx512};
use crate::mem::{LineF32, LineI8, LineI16, LineU4};
use std::arch::x86_64::*;

pub(crate) const PAIRS: Kernel<WordI16, LineI16, i32> = Kernel {
    name: "gemm_i16_i16_i32_6x64_avx512",
    isa: Isa::Avx512,
    mr: 6,
    panels: 4,
    max_m: usize::MAX,
    tile: pairs,
};

pub(crate) const FLOATS: Kernel<f32, LineF32, f32> = Kernel {
    name: "gemm_f32_f32_f32_6x64_avx512",
    isa: Isa::Avx512,
    mr: 6,
    panels: 4,
    max_m: usize::MAX,
    tile: floats,
};

/// Two panels: of more the compiler keeps the sums of four rows in memory, 8 products after one another on each.
pub(crate) const FLOATS_I8: Kernel<f32, LineI8, f32> = Kernel {
    name: "gemm_f32_i8_f32_4x32_avx512",
    isa: Isa::Avx512,
    mr: 4,
    panels: 2,
    max_m: 4,
    tile: floats_i8,
};

pub(crate) const FLOATS_I8_ROW: Kernel<f32, LineI8, f32> = Kernel {
    name: "gemm_f32_i8_f32_1x64_avx512",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: floats_i8_row,
    ..FLOATS_I8
};

pub(crate) const FLOATS_U4: Kernel<f32, LineU4, f32> = Kernel {
    name: "gemm_f32_u4_f32_4x32_avx512",
    isa: Isa::Avx512,
    mr: 4,
    panels: 2,
    max_m: 4,
    tile: floats_u4,
};

pub(crate) const FLOATS_U4_ROW: Kernel<f32, LineU4, f32> = Kernel {
    name: "gemm_f32_u4_f32_1x64_avx512",
    mr: 1,
    panels: 4,
    max_m: 1,
    tile: floats_u4_row,
    ..FLOATS_U4
};

avx512! {
    fn pairs(t: Tile<'_, WordI16, LineI16>, acc: Accumulators<'_, i32>) {
        by_shape!(t, acc, pairs_tile, [1 2 3 4 5 6] x [1 2 3 4]);
    }

    fn pairs_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, WordI16, LineI16>,
        acc: Accumulators<'_, i32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512i; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            let b: [__m512i; PANELS] = load_lines(&b, l);
            for row in 0..ROWS {
                let [a0, a1] = a[row][l][0];
                let a = _mm512_set1_epi32(i32::from(a0 as u16) | i32::from(a1) << 16);
                for panel in 0..PANELS {
                    sums[row][panel] = _mm512_add_epi32(sums[row][panel], _mm512_madd_epi16(a, b[panel]));
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats(t: Tile<'_, f32, LineF32>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_tile, [1 2 3 4 5 6] x [1 2 3 4]);
    }

    fn floats_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineF32>,
        acc: Accumulators<'_, f32>,
    ) {
        let a = t.rows_of::<1, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            let b: [__m512; PANELS] = load_lines(&b, l);
            for row in 0..ROWS {
                let a = _mm512_set1_ps(a[row][l][0]);
                for panel in 0..PANELS {
                    sums[row][panel] = _mm512_fmadd_ps(a, b[panel], sums[row][panel]);
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats_i8(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1 2 3 4] x [1 2]);
    }

    fn floats_i8_row(t: Tile<'_, f32, LineI8>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_i8_tile, [1] x [1 2 3 4]);
    }

    fn floats_i8_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineI8>,
        acc: Accumulators<'_, f32>,
    ) {
        let a = t.rows_of::<4, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                let x: __m512i = b[panel][l].load(0);
                let weights = [
                    _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(x)),
                    _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(x)),
                    _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(x)),
                    _mm512_srai_epi32::<24>(x),
                ];
                for (k, weight) in weights.into_iter().enumerate() {
                    let weight = _mm512_cvtepi32_ps(weight);
                    for row in 0..ROWS {
                        let a = _mm512_set1_ps(a[row][l][k]);
                        sums[row][panel] = _mm512_fmadd_ps(a, weight, sums[row][panel]);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }

    fn floats_u4(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1 2 3 4] x [1 2]);
    }

    fn floats_u4_row(t: Tile<'_, f32, LineU4>, acc: Accumulators<'_, f32>) {
        by_shape!(t, acc, floats_u4_tile, [1] x [1 2 3 4]);
    }

    fn floats_u4_tile<const ROWS: usize, const PANELS: usize>(
        t: Tile<'_, f32, LineU4>,
        acc: Accumulators<'_, f32>,
    ) {
        // A permutation reads the low four bits of each index, so one shift and one table look-up replace
        // shift, mask and conversion.
        let levels = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
        let a = t.rows_of::<8, ROWS>();
        let b = t.panels_of::<PANELS>();
        let mut sums: [[__m512; PANELS]; ROWS] = load_sums(acc);
        for l in 0..t.lines {
            for panel in 0..PANELS {
                let x: __m512i = b[panel][l].load(0);
                let indices = [
                    x,
                    _mm512_srli_epi32::<8>(x),
                    _mm512_srli_epi32::<16>(x),
                    _mm512_srli_epi32::<24>(x),
                    _mm512_srli_epi32::<4>(x),
                    _mm512_srli_epi32::<12>(x),
                    _mm512_srli_epi32::<20>(x),
                    _mm512_srli_epi32::<28>(x),
                ];
                for (k, index) in indices.into_iter().enumerate() {
                    let weight = _mm512_permutexvar_ps(index, levels);
                    for row in 0..ROWS {
                        let a = _mm512_set1_ps(a[row][l][k]);
                        sums[row][panel] = _mm512_fmadd_ps(a, weight, sums[row][panel]);
                    }
                }
            }
        }
        store_sums(sums, acc);
    }
}
