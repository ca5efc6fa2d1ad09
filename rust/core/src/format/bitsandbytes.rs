//! The 4-bit tables of bitsandbytes: NF4, and its FP4.

#![forbid(unsafe_code)]

use super::levels::Levels;
use super::{Format, Spacing};
use std::sync::OnceLock;

/// Sixteen levels by code.
pub(super) struct Table16 {
    name: &'static str,
    levels: [f32; 16],
    sorted: OnceLock<Levels>,
}

/// NormalFloat (Dettmers et al. 2023, QLoRA, arXiv:2305.14314): quantiles of the normal distribution, 0 among them,
/// divided by the largest.
pub(super) static NF4: Table16 = Table16 {
    name: "nf4",
    levels: [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ],
    sorted: OnceLock::new(),
};

/// The FP4 of bitsandbytes: a sign bit above three bits whose order is not that of their magnitudes.
pub(super) static FP4: Table16 = Table16 {
    name: "bnb_fp4",
    levels: [
        0.0,
        0.005_208_333_5,
        0.666_666_7,
        1.0,
        0.333_333_34,
        0.5,
        0.166_666_67,
        0.25,
        -0.0,
        -0.005_208_333_5,
        -0.666_666_7,
        -1.0,
        -0.333_333_34,
        -0.5,
        -0.166_666_67,
        -0.25,
    ],
    sorted: OnceLock::new(),
};

impl Format for Table16 {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        4
    }

    fn level(&self, code: i32) -> f32 {
        self.levels[code as usize & 15]
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Table(self.sorted.get_or_init(|| Levels::new(&self.levels)))
    }
}
