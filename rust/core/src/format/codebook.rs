//! Codebooks: levels that are learned for a tensor, or that a user gives, and that come with its scales.

#![forbid(unsafe_code)]

use super::{Defaults, Format, Spacing};

/// Codes of 1 to 8 bits for levels that ascend.
pub(super) struct Codebook {
    name: &'static str,
    bits: u32,
}

impl Codebook {
    pub(super) const fn new(name: &'static str, bits: u32) -> Codebook {
        Codebook { name, bits }
    }
}

impl Format for Codebook {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn level(&self, code: i32) -> f32 {
        code as f32
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Learned
    }

    fn defaults(&self) -> Defaults {
        Defaults { fitted: true, ..Defaults::default() }
    }
}
