//! Number formats: what levels a code of so many bits can stand for. A format knows no scale.
//!
//! A new format is one file and one row of [`TABLE`]; names, packing, tests, products and the Python objects follow.

#![forbid(unsafe_code)]

mod bitsandbytes;
mod codebook;
mod float;
pub mod gguf;
mod int;
mod levels;
mod log;
mod micro;
mod scale;
mod sign;
mod trellis;

use crate::error::Error;
use crate::trellis::Sequence;
use codebook::Codebook;
pub(crate) use float::HalfEven;
pub use float::Rounder;
pub use gguf::Blocks;
use int::Int;
pub use levels::Levels;
pub(crate) use levels::Picker;
pub use scale::ScaleType;

/// A finite set of levels, and how the index of one is stored.
///
/// ```
/// let int4 = qrs_core::format::find("int4")?;
/// assert_eq!((int4.bits(), int4.codes()), (4, (-8, 7)));
/// assert_eq!(int4.level(-8), -8.0);
/// # Ok::<(), qrs_core::Error>(())
/// ```
pub trait Format: Sync {
    /// The name in Python and in files. Permanent.
    fn name(&self) -> &'static str;

    /// Bits of a code: 1 to 8, or 16.
    fn bits(&self) -> u32;

    /// The lowest and the highest code. A negative lowest code means that codes are stored in two's complement.
    fn codes(&self) -> (i32, i32) {
        (0, (1 << self.bits()) - 1)
    }

    /// The level of a code that lies in [`codes`](Format::codes): a finite number, or what a floating-point format
    /// keeps beside numbers. A learned format numbers its levels.
    fn level(&self, code: i32) -> f32;

    /// How levels hang on codes.
    fn spacing(&'static self) -> Spacing;

    /// How codes lie in bytes.
    fn packing(&self) -> Packing {
        Packing::Bits(self.bits())
    }

    /// What a scheme of this format says unless it is told otherwise.
    fn defaults(&self) -> Defaults {
        Defaults::default()
    }
}

/// How levels hang on codes: it decides which loop encodes and decodes.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Spacing {
    /// `level(code) == code`: encoding is arithmetic, `clamp(round(x / scale)) + zero_point`.
    Uniform,
    /// Floating-point numbers: the same, with a step that the exponent gives. The zero point is 0.
    Float(Rounder),
    /// A table: the level next to `x / scale`. The zero point is 0.
    Table(&'static Levels),
    /// A table that comes with the scales of a tensor.
    Learned,
    /// None by itself: codes and scales stand together in blocks of bytes.
    Blocks(&'static dyn Blocks),
    /// None by itself: which level a code stands for hangs on the codes before. The zero point is 0.
    Trellis(Sequence),
}

impl Spacing {
    /// Whether codes are levels.
    pub(crate) fn is_uniform(&self) -> bool {
        matches!(self, Spacing::Uniform)
    }
}

/// How codes lie in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// So many bits a code, without gaps.
    Bits(u32),
    /// Five codes of 0 to 2 a byte: 3⁵ = 243.
    Trits,
    /// So many elements in so many bytes, that none has by itself.
    Blocks(usize, usize),
}

/// What a scheme of a format says unless it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Defaults {
    /// Fit scales to the data rather than to its range.
    pub fitted: bool,
    /// A scale of 1 wherever that holds the range: the format is a number type in its own right.
    pub cast: bool,
    /// What a block of a standard is: its elements, and the type of its scales, if these stand apart from the codes.
    /// Nothing else is allowed then.
    pub block: Option<(usize, Option<ScaleType>)>,
}

/// Every format.
pub static TABLE: &[&dyn Format] = &[
    &Int::signed("int1", 1),
    &Int::signed("int2", 2),
    &Int::signed("int3", 3),
    &Int::signed("int4", 4),
    &Int::signed("int5", 5),
    &Int::signed("int6", 6),
    &Int::signed("int7", 7),
    &Int::signed("int8", 8),
    &Int::unsigned("uint1", 1),
    &Int::unsigned("uint2", 2),
    &Int::unsigned("uint3", 3),
    &Int::unsigned("uint4", 4),
    &Int::unsigned("uint5", 5),
    &Int::unsigned("uint6", 6),
    &Int::unsigned("uint7", 7),
    &Int::unsigned("uint8", 8),
    &Int::signed("int16", 16),
    &Int::unsigned("uint16", 16),
    &float::FLOAT16,
    &float::BFLOAT16,
    &float::FLOAT8_E4M3FN,
    &float::FLOAT8_E5M2,
    &float::FLOAT8_E4M3,
    &float::FLOAT8_E3M4,
    &float::FLOAT8_E4M3FNUZ,
    &float::FLOAT8_E5M2FNUZ,
    &float::FLOAT8_E4M3B11FNUZ,
    &float::FLOAT6_E2M3FN,
    &float::FLOAT6_E3M2FN,
    &float::FLOAT4_E2M1FN,
    &micro::MXFP4,
    &micro::MXFP6_E2M3,
    &micro::MXFP6_E3M2,
    &micro::MXFP8_E4M3,
    &micro::MXFP8_E5M2,
    &micro::MXINT8,
    &micro::NVFP4,
    &bitsandbytes::NF4,
    &bitsandbytes::FP4,
    &log::POW2[0],
    &log::POW2[1],
    &log::POW2[2],
    &log::POW2[3],
    &log::POW2[4],
    &log::APOT4,
    &log::APOT5,
    &log::APOT6,
    &log::APOT7,
    &Codebook::new("codebook:1", 1),
    &Codebook::new("codebook:2", 2),
    &Codebook::new("codebook:3", 3),
    &Codebook::new("codebook:4", 4),
    &Codebook::new("codebook:5", 5),
    &Codebook::new("codebook:6", 6),
    &Codebook::new("codebook:7", 7),
    &Codebook::new("codebook:8", 8),
    &sign::BINARY,
    &sign::TERNARY,
    &trellis::ROWS[0],
    &trellis::ROWS[1],
    &trellis::ROWS[2],
    &trellis::ROWS[3],
    &trellis::SCALAR[0],
    &trellis::SCALAR[1],
    &trellis::SCALAR[2],
    &trellis::SCALAR[3],
    gguf::Q4_0,
    gguf::Q4_1,
    gguf::Q5_0,
    gguf::Q5_1,
    gguf::Q8_0,
    gguf::Q2_K,
    gguf::Q3_K,
    gguf::Q4_K,
    gguf::Q5_K,
    gguf::Q6_K,
    gguf::IQ4_NL,
    gguf::IQ4_XS,
    gguf::TQ1_0,
    gguf::TQ2_0,
    gguf::MXFP4,
];

/// The format of this name: a row of [`TABLE`], or one of the grammars `float:eXmY`, `trellis:B:L=N:code=C`
/// and `tcq:B:states=N`.
///
/// # Errors
/// There is none; the message lists them.
pub fn find(name: &str) -> Result<&'static dyn Format, Error> {
    let listed = TABLE.iter().copied().find(|format| format.name() == name);
    let parsed = || float::parse(name).or_else(|| trellis::parse(name));
    listed.or_else(parsed).ok_or_else(|| Error::Unknown {
        what: "format",
        got: name.to_owned(),
        known: TABLE
            .iter()
            .map(|format| format.name())
            .chain([float::GRAMMAR])
            .chain(trellis::GRAMMARS)
            .collect(),
    })
}

/// The level of each code from 0 on.
fn levels_of(format: &dyn Format) -> Vec<f32> {
    (0..=format.codes().1).map(|code| format.level(code)).collect()
}

impl dyn Format {
    /// Whether there is a code for each element.
    ///
    /// # Errors
    /// Elements have bytes in blocks only.
    pub(crate) fn check_codes(&self) -> Result<(), Error> {
        match self.packing() {
            Packing::Blocks(..) => Err(Error::Value {
                what: "format",
                got: self.name().into(),
                expected: "one that has a code for each element".into(),
            }),
            _ => Ok(()),
        }
    }

    /// Why there are no parameters for a range: a format of blocks keeps its scales in them.
    pub(crate) fn no_range(&self) -> Error {
        Error::Value {
            what: "format",
            got: self.name().into(),
            expected: "one whose scales stand apart from its codes".into(),
        }
    }

    /// Whether codes are stored in two's complement.
    pub fn signed(&self) -> bool {
        self.codes().0 < 0
    }

    /// The lowest and the highest code in use: all of [`codes`](Format::codes), or all but the lowest
    /// (`narrow`), which makes a signed range symmetric.
    ///
    /// # Errors
    /// `narrow` would leave a single code.
    pub fn code_range(&'static self, narrow: bool) -> Result<(i32, i32), Error> {
        let (lowest, highest) = self.codes();
        if narrow && !self.spacing().is_uniform() {
            return Err(Error::Value {
                what: "narrow_range",
                got: format!("true for {}", self.name()),
                expected: "false for formats other than integers".into(),
            });
        }
        if narrow && lowest + 1 >= highest {
            return Err(Error::Value {
                what: "narrow_range",
                got: format!("true for {}", self.name()),
                expected: "false for formats of 1 bit: a single code would be left".into(),
            });
        }
        Ok((lowest + i32::from(narrow), highest))
    }
}

impl std::fmt::Debug for dyn Format + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for format in TABLE {
            assert_eq!(find(format.name()).unwrap().name(), format.name());
            assert_eq!(TABLE.iter().filter(|other| other.name() == format.name()).count(), 1);
        }
        assert!(find("int44").unwrap_err().to_string().contains("did you mean \"int4\""));
    }

    #[test]
    fn codes_fit_their_bits() {
        for format in TABLE.iter().filter(|format| format.check_codes().is_ok()) {
            let (lowest, highest) = format.codes();
            let unused = u32::from(format.packing() == Packing::Trits);
            assert!((highest - lowest) as u32 == (1 << format.bits()) - 1 - unused);
            if format.spacing().is_uniform() {
                assert!((lowest..=highest).all(|code| format.level(code) == code as f32));
            }
        }
    }

    #[test]
    fn a_narrow_range_drops_the_lowest_code() {
        assert_eq!(find("int8").unwrap().code_range(true), Ok((-127, 127)));
        assert_eq!(find("uint2").unwrap().code_range(true), Ok((1, 3)));
        assert!(find("int1").unwrap().code_range(true).unwrap_err().to_string().contains("true for int1"));
    }
}
