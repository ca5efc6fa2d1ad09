//! Float16 as the blocks store it: two bytes, little end first.

/// The largest finite float16.
pub(super) const LARGEST: f32 = 65504.0;
/// The smallest float16 above zero.
pub(super) const SMALLEST: f32 = 1.0 / 16_777_216.0;

/// The value of a float16, infinities and NaN as they are.
///
/// Without a branch, for loops over blocks: the 15 low bits moved up to where float32 has them differ from the value
/// by the factor 2^(127 − 15), subnormal ones too, and that product is exact.
#[inline(always)]
pub(super) fn load(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}

/// The nearest float16, ties to even; beyond [`LARGEST`] that, with the sign of `v`. `v` is not NaN.
#[inline(always)]
pub(super) fn store(v: f32) -> [u8; 2] {
    let sign = (v.to_bits() >> 16) & 0x8000;
    let a = if v.abs() > LARGEST { LARGEST } else { v.abs() };
    // Between 1/2 and 1 float32 counts in steps of 2⁻²⁴, as float16 does below 2⁻¹⁴: the sum rounds to them.
    let low = (a + 0.5).to_bits() - 0.5f32.to_bits();
    let bits = a.to_bits();
    let high = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
    let magnitude = if a < f32::from_bits((127 - 14) << 23) { low } else { high };
    ((sign | magnitude) as u16).to_le_bytes()
}

/// `v` as it comes back from a float16.
#[inline(always)]
pub(super) fn round(v: f32) -> f32 {
    load(store(v))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_float16_comes_back_and_every_neighbourhood_rounds_as_the_standard_says() {
        for bits in 0..=u16::MAX {
            let (exact, got) = (f16::from_bits(bits).to_f32(), load(bits.to_le_bytes()));
            assert!(exact.to_bits() == got.to_bits() || exact.is_nan() && got.is_nan(), "{bits:x}");
            if !exact.is_finite() {
                continue;
            }
            assert_eq!(store(exact), bits.to_le_bytes());
            let next = f16::from_bits(bits + 1).to_f32();
            let middle = if next.is_finite() { (exact + next) / 2.0 } else { exact };
            for near in [middle.next_down(), middle, middle.next_up()] {
                let rounded = f16::from_f32(near.clamp(-LARGEST, LARGEST));
                assert_eq!(store(near), rounded.to_le_bytes(), "{near}");
            }
        }
        assert_eq!(load(store(1e30)), LARGEST);
        assert_eq!(load(store(-f32::INFINITY)), -LARGEST);
        assert_eq!(load(store(SMALLEST)), SMALLEST);
        assert_eq!(store(-0.0), [0, 0x80]);
    }
}
