//! Integers of 1 to 8 and of 16 bits, two's complement or unsigned: `level(code) == code`.

#![forbid(unsafe_code)]

use super::{Format, Spacing};

/// An integer format.
pub(super) struct Int {
    name: &'static str,
    bits: u32,
    signed: bool,
}

impl Int {
    /// Codes −2^(bits−1) … 2^(bits−1) − 1.
    pub(super) const fn signed(name: &'static str, bits: u32) -> Int {
        Int { name, bits, signed: true }
    }

    /// Codes 0 … 2^bits − 1.
    pub(super) const fn unsigned(name: &'static str, bits: u32) -> Int {
        Int { name, bits, signed: false }
    }
}

impl Format for Int {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.bits
    }

    fn codes(&self) -> (i32, i32) {
        let count = 1 << self.bits;
        let lowest = if self.signed { -(count / 2) } else { 0 };
        (lowest, lowest + count - 1)
    }

    fn level(&self, code: i32) -> f32 {
        code as f32
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Uniform
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_integers() {
        assert_eq!(Int::signed("int1", 1).codes(), (-1, 0));
        assert_eq!(Int::signed("int8", 8).codes(), (i8::MIN.into(), i8::MAX.into()));
        assert_eq!(Int::unsigned("uint1", 1).codes(), (0, 1));
        assert_eq!(Int::unsigned("uint8", 8).codes(), (0, u8::MAX.into()));
        assert_eq!(Int::signed("int16", 16).codes(), (i16::MIN.into(), i16::MAX.into()));
    }
}
