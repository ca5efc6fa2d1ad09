//! Powers of two, and sums of them: levels that a product needs only shifts for.
//!
//! A code is a sign bit above a magnitude; the magnitude 0 is zero. Levels are whole numbers, the smallest 1.
//!
//! - `pow2:b`: 2^(magnitude − 1). Between two of them the nearer is taken, as everywhere, not the nearer logarithm:
//!   that would lose 0.5 dB (Miyashita et al. 2016, arXiv:1603.01025, round the logarithm).
//! - `apot:b`: additive powers of two (Li et al. 2020, arXiv:1909.13144), a sum with one term from each of two or three
//!   sets, which each field of two bits (or one) picks from:
//!
//! ```text
//! apot:4   {0 8 4 1} + {0 2}                            apot:6   {0 64 16 2} + {0 32 8 1} + {0 4}
//! apot:5   {0 32 8 2} + {0 16 4 1}                      apot:7   {0 256 32 4} + {0 128 16 2} + {0 64 8 1}
//! ```

#![forbid(unsafe_code)]

use super::levels::Levels;
use super::{Format, Spacing};
use std::sync::OnceLock;

/// A sign bit above a magnitude.
pub(super) struct Log {
    name: &'static str,
    bits: u32,
    magnitude: fn(u32) -> u32,
    sorted: OnceLock<Levels>,
}

impl Log {
    const fn powers(name: &'static str, bits: u32) -> Log {
        Log {
            name,
            bits,
            magnitude: |code| if code == 0 { 0 } else { 1 << (code - 1) },
            sorted: OnceLock::new(),
        }
    }

    const fn sums(name: &'static str, bits: u32, magnitude: fn(u32) -> u32) -> Log {
        Log { name, bits, magnitude, sorted: OnceLock::new() }
    }
}

/// Of 2 to 6 bits: with 6 the largest level is 2³⁰.
pub(super) static POW2: [Log; 5] = [
    Log::powers("pow2:2", 2),
    Log::powers("pow2:3", 3),
    Log::powers("pow2:4", 4),
    Log::powers("pow2:5", 5),
    Log::powers("pow2:6", 6),
];

fn term(set: &[u32], field: u32) -> u32 {
    set[field as usize & (set.len() - 1)]
}

pub(super) static APOT4: Log =
    Log::sums("apot:4", 4, |code| term(&[0, 8, 4, 1], code) + term(&[0, 2], code >> 2));
pub(super) static APOT5: Log =
    Log::sums("apot:5", 5, |code| term(&[0, 32, 8, 2], code) + term(&[0, 16, 4, 1], code >> 2));
pub(super) static APOT6: Log = Log::sums("apot:6", 6, |code| {
    term(&[0, 64, 16, 2], code) + term(&[0, 32, 8, 1], code >> 2) + term(&[0, 4], code >> 4)
});
pub(super) static APOT7: Log = Log::sums("apot:7", 7, |code| {
    term(&[0, 256, 32, 4], code) + term(&[0, 128, 16, 2], code >> 2) + term(&[0, 64, 8, 1], code >> 4)
});

impl Format for Log {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn level(&self, code: i32) -> f32 {
        let sign = 1 << (self.bits - 1);
        let magnitude = (self.magnitude)((code & (sign - 1)) as u32) as f32;
        if code & sign != 0 { -magnitude } else { magnitude }
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Table(self.sorted.get_or_init(|| Levels::new(&super::levels_of(self))))
    }
}
