//! Binary and ternary: the sign of a value, and the sign or nothing.
//!
//! Their scale is what they stand for, so it is fitted by default: with codes held fixed, the least squared error
//! has α = mean |x| for binary (Rastegari et al. 2016, XNOR-Net, arXiv:1603.05279), and the mean of the magnitudes
//! that are not dropped for ternary (Li et al. 2016, TWN, arXiv:1605.04711).

#![forbid(unsafe_code)]

use super::levels::Levels;
use super::{Defaults, Format, Packing, Spacing};
use std::sync::OnceLock;

/// Levels −1 and 1, codes 0 and 1.
pub(super) static BINARY: Sign = Sign { name: "binary", levels: &[-1.0, 1.0], sorted: OnceLock::new() };

/// Levels −1, 0 and 1, codes 0, 1 and 2; five codes to a byte.
pub(super) static TERNARY: Sign =
    Sign { name: "ternary", levels: &[-1.0, 0.0, 1.0], sorted: OnceLock::new() };

pub(super) struct Sign {
    name: &'static str,
    levels: &'static [f32],
    sorted: OnceLock<Levels>,
}

impl Format for Sign {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.levels.len() as u32 - 1
    }

    fn codes(&self) -> (i32, i32) {
        (0, self.levels.len() as i32 - 1)
    }

    fn level(&self, code: i32) -> f32 {
        self.levels[code as usize]
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Table(self.sorted.get_or_init(|| Levels::new(self.levels)))
    }

    fn packing(&self) -> Packing {
        if self.levels.len() == 3 { Packing::Trits } else { Packing::Bits(1) }
    }

    fn defaults(&self) -> Defaults {
        Defaults { fitted: true, ..Defaults::default() }
    }
}
