//! The types that scales are rounded to and stored as.

#![forbid(unsafe_code)]

use super::float::{BFLOAT16, FLOAT8_E4M3FN, FLOAT16, Float};
use crate::error::Error;

/// The float type that scales are rounded to. In memory they are float32 all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScaleType {
    /// 24 significant bits.
    Float32,
    /// IEEE half precision: 11 significant bits, 6.1e-5 to 65504.
    Float16,
    /// The upper half of a float32: 8 significant bits.
    BFloat16,
    /// A power of two, 2⁻¹²⁶ to 2¹²⁷.
    E8M0,
    /// A float8_e4m3fn, 2⁻⁹ to 448, times a float32 that all scales of a tensor share.
    E4M3,
}

impl ScaleType {
    /// Every scale type.
    pub const ALL: &'static [ScaleType] =
        &[ScaleType::Float32, ScaleType::Float16, ScaleType::BFloat16, ScaleType::E8M0, ScaleType::E4M3];

    /// The name in Python and in files.
    pub fn name(self) -> &'static str {
        match self {
            ScaleType::Float32 => "float32",
            ScaleType::Float16 => "float16",
            ScaleType::BFloat16 => "bfloat16",
            ScaleType::E8M0 => "e8m0",
            ScaleType::E4M3 => "e4m3",
        }
    }

    /// The scale type of this name.
    ///
    /// # Errors
    /// There is none; the message lists them.
    pub fn from_name(name: &str) -> Result<ScaleType, Error> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| Error::Unknown {
            what: "scale_dtype",
            got: name.to_owned(),
            known: Self::ALL.iter().map(|kind| kind.name()).collect(),
        })
    }

    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            ScaleType::Float32 => 4,
            ScaleType::Float16 | ScaleType::BFloat16 => 2,
            ScaleType::E8M0 | ScaleType::E4M3 => 1,
        }
    }

    /// The least and the greatest scale.
    pub(crate) fn range(self) -> (f32, f32) {
        match self {
            ScaleType::Float32 => (f32::MIN_POSITIVE, f32::MAX),
            ScaleType::Float16 => (2f32.powi(-14), FLOAT16.rounder().top()),
            ScaleType::BFloat16 => (f32::MIN_POSITIVE, BFLOAT16.rounder().top()),
            ScaleType::E8M0 => (f32::MIN_POSITIVE, 2f32.powi(127)),
            // Subnormal ones too: they are as exact as the smallest normal one.
            ScaleType::E4M3 => (2f32.powi(-9), FLOAT8_E4M3FN.rounder().top()),
        }
    }

    /// A positive `scale` rounded half to even, a power of two up, within [`range`](Self::range).
    #[inline]
    pub(crate) fn round(self, scale: f32) -> f32 {
        let (least, most) = self.range();
        let scale = scale.clamp(least, most);
        match self {
            ScaleType::Float32 => scale,
            ScaleType::Float16 => nearest(&FLOAT16, scale),
            ScaleType::BFloat16 => nearest(&BFLOAT16, scale),
            ScaleType::E4M3 => nearest(&FLOAT8_E4M3FN, scale),
            ScaleType::E8M0 => {
                // Any mantissa carries into the exponent; the clamp keeps it below that of infinity.
                f32::from_bits((scale.to_bits() + 0x007f_ffff) & 0x7f80_0000)
            }
        }
    }

    /// The largest number of this type up to `limit`, which lies within its range or above.
    pub(crate) fn floor(self, limit: f64) -> f32 {
        let nearest = self.round(limit as f32);
        if f64::from(nearest) <= limit {
            return nearest;
        }
        self.below(nearest)
    }

    /// The largest number of this type below a number of this type, or the least.
    pub(crate) fn below(self, scale: f32) -> f32 {
        // A unit of the last place.
        let unit = match self {
            ScaleType::Float32 => 1,
            ScaleType::Float16 => 1 << 13,
            ScaleType::BFloat16 => 1 << 16,
            ScaleType::E8M0 => 1 << 23,
            // Below 2⁻⁶ the steps stay 2⁻⁹.
            ScaleType::E4M3 if scale <= 2f32.powi(-6) => return (scale - 2f32.powi(-9)).max(self.range().0),
            ScaleType::E4M3 => 1 << 20,
        };
        f32::from_bits(scale.to_bits().saturating_sub(unit)).max(self.range().0)
    }
}

fn nearest(format: &Float, scale: f32) -> f32 {
    format.rounder().half_even(None).nearest(scale).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_stays_in_range_and_keeps_what_the_type_holds() {
        for kind in ScaleType::ALL {
            let (least, most) = kind.range();
            for scale in [1e-45, least, 0.1, 1.0, 1.5, 3.0, 447.0, 65519.0, most, f32::MAX] {
                let rounded = kind.round(scale);
                assert!((least..=most).contains(&rounded), "{kind:?} {scale}");
                assert_eq!(kind.round(rounded), rounded, "{kind:?} {scale}");
                if scale >= least {
                    assert!(kind.floor(f64::from(scale)) <= scale, "{kind:?} {scale}");
                }
            }
            assert_eq!(ScaleType::from_name(kind.name()), Ok(*kind));
        }
        assert_eq!([0.75, 1.0, 1.0001].map(|scale| ScaleType::E8M0.round(scale)), [1.0, 1.0, 2.0]);
        assert_eq!([1.06, 1.07].map(|scale| ScaleType::E4M3.round(scale)), [1.0, 1.125]);
    }
}
