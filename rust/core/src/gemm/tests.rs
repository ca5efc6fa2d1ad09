//! Every kernel of the integer families against the naive loop, over shapes around its own tile.

use super::driver::multiply_with;
use super::epilogue::Accumulator;
use super::kernel::{Family, Lines, Word};
use super::panel::{Staged, Weight};
use super::rows::Prepare;
use super::weight::Matrix;
use super::*;
use std::ops::Range;

/// Deterministic codes with all extremes.
fn codes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            match state % 8 {
                0 => 0x80,
                1 => 0x7F,
                2 => 0xFF,
                3 => 0,
                _ => (state >> 16) as u8,
            }
        })
        .collect()
}

fn naive(a: &[u8], b: &[u8], signed: [bool; 2], zero: [i32; 2], m: usize, n: usize, k: usize) -> Vec<i32> {
    let value = |x: u8, signed: bool| if signed { i32::from(x as i8) } else { i32::from(x) };
    let mut out = vec![0; m * n];
    for i in 0..m {
        for j in 0..n {
            out[i * n + j] = (0..k)
                .map(|l| {
                    (value(a[i * k + l], signed[0]) - zero[0]) * (value(b[l * n + j], signed[1]) - zero[1])
                })
                .sum();
        }
    }
    out
}

fn signed(x: &[u8]) -> Vec<i8> {
    x.iter().map(|x| *x as i8).collect()
}

struct Nibbles<'a>(Matrix<'a>);

impl Weight for Nibbles<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        self.0.codes(columns, k, out);
    }
    fn shift(&self) -> i32 {
        0
    }
    fn nibbles(&self) -> bool {
        true
    }
    fn parameters(&self, column: usize, group: usize) -> (f32, i32) {
        (1.0, self.0.zero_point + ((column + group) % 3) as i32)
    }
}

fn check_family<F>(nibbles: bool)
where
    F: Family<C = i32>,
    F::A: Prepare<Sum = i32>,
    F::B: Staged + Default,
{
    for kernel in F::TABLE.iter().filter(|row| row.isa.supported()) {
        let nr = 16 * kernel.panels;
        for m in [1, 2, kernel.mr - 1, kernel.mr, kernel.mr + 1, 2 * kernel.mr + 1] {
            for n in [1, 15, 16, 17, nr - 1, nr, nr + 1] {
                for k in [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 129] {
                    let (a, mut b) = (codes(m * k, 7), codes(k * n, 11));
                    if nibbles {
                        b.iter_mut().for_each(|x| *x &= 15);
                    }
                    for (sa, sb) in [(true, true), (false, true), (true, false), (false, false)] {
                        if nibbles && !sb {
                            continue;
                        }
                        let zero = [if sa { -3 } else { 200 }, if sb { 5 } else { 255 }];
                        let (ai, bi) = (signed(&a), signed(&b));
                        let bytes = if sb { Bytes::I8(&bi) } else { Bytes::U8(&b) };
                        let matrix = Matrix { bytes, n, zero_point: zero[1] };
                        let panels = if nibbles {
                            // Zero points that differ between columns.
                            Panels::pack(&Nibbles(matrix), n, k, k).unwrap()
                        } else {
                            Panels::pack(&matrix, n, k, k).unwrap()
                        };
                        let source = if sa { Source::I8(&ai, zero[0]) } else { Source::U8(&a, zero[0]) };
                        let product = Product { source, m, panels: &panels, output: Exact, isa: kernel.isa };
                        let mut out = vec![0; m * n];
                        multiply_with::<F, _>(kernel, &product, &mut out).unwrap();
                        let mut expected = naive(&a, &b, [sa, sb], zero, m, n, k);
                        if nibbles {
                            for i in 0..m {
                                let row: i32 = (0..k)
                                .map(|l| if sa { i32::from(ai[i * k + l]) } else { i32::from(a[i * k + l]) } - zero[0])
                                .sum();
                                for j in 0..n {
                                    expected[i * n + j] -= (j % 3) as i32 * row;
                                }
                            }
                        }
                        assert_eq!(out, expected, "{} m={m} n={n} k={k} {sa} {sb}", kernel.name);
                    }
                }
            }
        }
    }
}

#[test]
fn every_integer_kernel_equals_the_naive_loop() {
    check_family::<kernel::BytesI8>(false);
    check_family::<kernel::BytesU4>(true);
    check_family::<kernel::BytesI8>(true);
    check_family::<kernel::SignedI8>(false);
    check_family::<kernel::SignedU4>(true);
    check_family::<kernel::SignedI8>(true);
    check_family::<kernel::Pairs>(false);
    check_family::<kernel::Pairs>(true);
    check_family::<kernel::PairsI8>(false);
    check_family::<kernel::BytesN4>(true);
}

/// A weight with groups, whose scales and zero points differ from cell to cell.
struct Grouped {
    codes: Vec<i8>,
    k: usize,
    nibbles: bool,
}

impl Weight for Grouped {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        for (column, out) in columns.zip(out.chunks_mut(k.len())) {
            out.copy_from_slice(&self.codes[column * self.k..][k.clone()]);
        }
    }
    fn shift(&self) -> i32 {
        0
    }
    fn nibbles(&self) -> bool {
        self.nibbles
    }
    fn parameters(&self, column: usize, group: usize) -> (f32, i32) {
        (0.01 + 0.003 * ((column * 7 + group * 3) % 11) as f32, ((column + 2 * group) % 5) as i32)
    }
}

/// The definition, one output at a time: float32 products of each group in one chain of fused steps.
fn naive_floats(x: &[f32], weight: &Grouped, group: usize, m: usize, n: usize) -> Vec<f32> {
    let k = weight.k;
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let mut y = 0.0f32;
            for g in 0..k.div_ceil(group) {
                let range = g * group..k.min((g + 1) * group);
                let (scale, zero) = weight.parameters(j, g);
                let product = range
                    .clone()
                    .fold(0.0f32, |sum, l| x[i * k + l].mul_add(f32::from(weight.codes[j * k + l]), sum));
                let sum = crate::math::sum(&x[i * k..][range]);
                y += (product - zero as f32 * sum) * scale;
            }
            out.push(y + 0.5 * j as f32);
        }
    }
    out
}

fn check_floats<F>(nibbles: bool)
where
    F: Family<C = f32>,
    F::A: Prepare<Sum = f32>,
    F::B: Staged + Default,
{
    for kernel in F::TABLE.iter().filter(|row| row.isa.supported()) {
        for m in [1, 2, kernel.mr, kernel.mr + 1] {
            for n in [1, 16, 33, 16 * kernel.panels + 5] {
                for (k, group) in [(1, 1), (5, 5), (32, 8), (64, 32), (70, 24), (31, 31)] {
                    let x: Vec<f32> = codes(m * k, 3).iter().map(|c| f32::from(*c) / 37.0 - 3.0).collect();
                    let mask = if nibbles { 15 } else { 255 };
                    let codes = codes(n * k, 5).iter().map(|c| (c & mask) as i8).collect();
                    let weight = Grouped { codes, k, nibbles };
                    let panels = Panels::pack(&weight, n, k, group).unwrap();
                    let bias: Vec<f32> = (0..n).map(|j| 0.5 * j as f32).collect();
                    let output = Float { bias: Some(&bias), activation: Activation::None };
                    let source = Source::Floats(&x);
                    let product = Product { source, m, panels: &panels, output, isa: kernel.isa };
                    let mut out = vec![0.0; m * n];
                    multiply_with::<F, _>(kernel, &product, &mut out).unwrap();
                    let expected = naive_floats(&x, &weight, group, m, n);
                    assert_eq!(out, expected, "{} m={m} n={n} k={k} group={group}", kernel.name);
                }
            }
        }
    }
}

#[test]
fn every_float_kernel_equals_the_definition_bit_for_bit() {
    check_floats::<kernel::FloatsI8>(false);
    check_floats::<kernel::FloatsU4>(true);
    check_floats::<kernel::Floats>(false);
    check_floats::<kernel::Floats>(true);
}

fn check_names<F: Family<C: Accumulator>>() {
    let accumulator =
        if std::any::TypeId::of::<F::C>() == std::any::TypeId::of::<i32>() { "i32" } else { "f32" };
    for row in F::TABLE {
        let name = format!(
            "gemm_{}_{}_{accumulator}_{}x{}_{}",
            F::A::NAME,
            F::B::NAME,
            row.mr,
            16 * row.panels,
            row.isa.name()
        );
        assert_eq!(row.name, name);
    }
}

#[test]
fn names_say_what_kernels_are() {
    check_names::<kernel::BytesI8>();
    check_names::<kernel::BytesU4>();
    check_names::<kernel::SignedI8>();
    check_names::<kernel::SignedU4>();
    check_names::<kernel::Pairs>();
    check_names::<kernel::PairsI8>();
    check_names::<kernel::BytesN4>();
    check_names::<kernel::Floats>();
    check_names::<kernel::FloatsI8>();
    check_names::<kernel::FloatsU4>();
}

#[test]
fn the_last_exact_k_is_computed_and_the_next_refused() {
    let limit = 65_793;
    for (k, exact) in [(limit, true), (limit + 1, false)] {
        let (a, b) = (vec![255u8; k], vec![-128i8; k]);
        let mut out = [0];
        let result = matmul_integer(Bytes::U8(&a), Bytes::I8(&b), [0, 0], k, &mut out);
        assert_eq!(result.is_ok(), exact);
        if exact {
            assert_eq!(i64::from(out[0]), -255 * 128 * k as i64);
        } else {
            assert_eq!(result.unwrap_err(), Error::Overflow { k, limit });
        }
    }
}
