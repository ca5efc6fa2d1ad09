use super::*;
use crate::gemm::driver::multiply_with;
use crate::gemm::kernel::{Family, Kernel};

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

/// Every row of a family that multiplies codes, against the naive loop over shapes around its own tile.
fn check_family<F>(nibbles: bool)
where
    F: Family<C = i32>,
    F::A: rows::Prepare<Sum = i32>,
    F::B: panel::Staged + Default,
{
    for kernel in F::table().iter().filter(|row| row.isa.supported()) {
        check_kernel(kernel, nibbles);
    }
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
        (1.0, self.0.zero + ((column + group) % 3) as i32)
    }
}

fn check_kernel<A, B>(kernel: &Kernel<A, B, i32>, nibbles: bool)
where
    A: rows::Prepare<Sum = i32>,
    B: panel::Staged + Default,
{
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
                    let matrix = Matrix { bytes, n, zero: zero[1] };
                    let panels = if nibbles {
                        // Zero points that differ between columns.
                        Panels::pack(&Nibbles(matrix), n, k, k).unwrap()
                    } else {
                        Panels::pack(&matrix, n, k, k).unwrap()
                    };
                    let source = if sa { Source::I8(&ai, zero[0]) } else { Source::U8(&a, zero[0]) };
                    let product = Product { source, m, panels: &panels, output: Exact, isa: kernel.isa };
                    let mut out = vec![0; m * n];
                    multiply_with(kernel, &product, &mut out).unwrap();
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

#[test]
fn every_integer_kernel_equals_the_naive_loop() {
    check_family::<kernel::BytesI8>(false);
    check_family::<kernel::BytesU4>(true);
    check_family::<kernel::BytesI8>(true);
    check_family::<kernel::Pairs>(false);
    check_family::<kernel::Pairs>(true);
    check_family::<kernel::PairsI8>(false);
    check_family::<kernel::PairsU4>(true);
}
