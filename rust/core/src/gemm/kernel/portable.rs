//! Kernels in plain Rust: the baseline of every build and what the others are compared with.
#![forbid(unsafe_code)]

use super::{Accumulators, Kernel, Tile, WordI16};
use crate::isa::Isa;
use crate::mem::{LineF32, LineI16};

pub(crate) const PAIRS: Kernel<WordI16, LineI16, i32> = Kernel {
    name: "gemm_i16_i16_i32_4x16_portable",
    isa: Isa::Portable,
    mr: 4,
    panels: 1,
    max_m: usize::MAX,
    tile: pairs,
};

/// An odd shape that no CPU asks for: it takes the driver through edges that even shapes hide.
#[cfg(test)]
pub(crate) const PAIRS_ODD: Kernel<WordI16, LineI16, i32> =
    Kernel { name: "gemm_i16_i16_i32_3x80_portable", mr: 3, panels: 5, ..PAIRS };

pub(crate) const FLOATS: Kernel<f32, LineF32, f32> = Kernel {
    name: "gemm_f32_f32_f32_4x16_portable",
    isa: Isa::Portable,
    mr: 4,
    panels: 1,
    max_m: usize::MAX,
    tile: floats,
};

fn pairs(t: Tile<'_, WordI16, LineI16>, acc: Accumulators<'_, i32>) {
    for row in 0..t.rows {
        for panel in 0..t.panels {
            let sums = &mut acc[row * t.panels + panel].0;
            for (a, b) in t.row(row, 1).iter().zip(t.panel(panel)) {
                let [a0, a1] = a.map(i32::from);
                for (sum, pair) in sums.iter_mut().zip(b.0.as_chunks::<2>().0) {
                    // Wrapping: the final sum is in range (checked by the caller), its parts need not be.
                    let product = (a0 * i32::from(pair[0])).wrapping_add(a1 * i32::from(pair[1]));
                    *sum = sum.wrapping_add(product);
                }
            }
        }
    }
}

fn floats(t: Tile<'_, f32, LineF32>, acc: Accumulators<'_, f32>) {
    for row in 0..t.rows {
        for panel in 0..t.panels {
            let sums = &mut acc[row * t.panels + panel].0;
            for (a, b) in t.row(row, 1).iter().zip(t.panel(panel)) {
                for (sum, weight) in sums.iter_mut().zip(&b.0) {
                    *sum = a.mul_add(*weight, *sum);
                }
            }
        }
    }
}
