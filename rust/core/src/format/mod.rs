//! Number formats: what levels a code of so many bits can stand for. A format knows no scale.
//!
//! A new format is one file and one row of [`TABLE`]; names, packing, tests and the Python objects follow.

#![forbid(unsafe_code)]

mod int;

use crate::error::Error;
use int::Int;

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

    /// Bits a code, 1 to 8.
    fn bits(&self) -> u32;

    /// The lowest and the highest code. A negative lowest code means that codes are stored in two's complement.
    fn codes(&self) -> (i32, i32);

    /// The level of a code that lies in [`codes`](Format::codes).
    fn level(&self, code: i32) -> f32;

    /// How levels hang on codes.
    fn spacing(&self) -> Spacing;
}

/// How levels hang on codes: it decides which loop encodes and decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spacing {
    /// `level(code) == code`: encoding is arithmetic, `clamp(round(x / scale)) + zero_point`.
    Uniform,
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
];

/// The format of this name.
///
/// # Errors
/// There is none; the message lists them.
pub fn find(name: &str) -> Result<&'static dyn Format, Error> {
    TABLE.iter().copied().find(|format| format.name() == name).ok_or_else(|| Error::Unknown {
        what: "format",
        got: name.to_owned(),
        known: TABLE.iter().map(|format| format.name()).collect(),
    })
}

impl dyn Format + '_ {
    /// Whether codes are stored in two's complement.
    pub fn signed(&self) -> bool {
        self.codes().0 < 0
    }

    /// The lowest and the highest code in use: all of [`codes`](Format::codes), or all but the lowest
    /// (`narrow`), which makes a signed range symmetric.
    ///
    /// # Errors
    /// `narrow` would leave a single code.
    pub fn code_range(&self, narrow: bool) -> Result<(i32, i32), Error> {
        let (lowest, highest) = self.codes();
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
    fn codes_fit_their_bits_and_levels_ascend() {
        for format in TABLE {
            let (lowest, highest) = format.codes();
            assert!((highest - lowest) as u32 == (1 << format.bits()) - 1);
            assert!((lowest..highest).all(|code| format.level(code) < format.level(code + 1)));
        }
    }

    #[test]
    fn a_narrow_range_drops_the_lowest_code() {
        assert_eq!(find("int8").unwrap().code_range(true), Ok((-127, 127)));
        assert_eq!(find("uint2").unwrap().code_range(true), Ok((1, 3)));
        assert!(find("int1").unwrap().code_range(true).unwrap_err().to_string().contains("true for int1"));
    }
}
