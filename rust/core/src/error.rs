//! The one error type of the core. Every variant carries what came and what was expected.

use std::fmt;

/// Why an operation was refused. The message names the argument, the value and what is accepted.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// An array has the wrong shape or length.
    Shape {
        /// The argument.
        what: &'static str,
        /// The shape that came.
        got: Vec<usize>,
        /// The shape that is accepted, in words.
        expected: String,
    },
    /// A value lies outside what is accepted.
    Value {
        /// The argument.
        what: &'static str,
        /// The value that came.
        got: String,
        /// What is accepted, in words.
        expected: String,
    },
    /// Data to be quantized holds NaN or infinity.
    NotFinite {
        /// The argument.
        what: &'static str,
        /// How many elements are NaN or infinite.
        count: usize,
        /// Flat index of the first one.
        first: usize,
    },
    /// A name is not in its table.
    Unknown {
        /// The kind of thing: format, isa, rounding, activation.
        what: &'static str,
        /// The name that came.
        got: String,
        /// The names that exist.
        known: Vec<&'static str>,
    },
    /// An exact integer result could leave the range of int32.
    Overflow {
        /// The inner dimension that came.
        k: usize,
        /// The largest inner dimension that is exact for these operands.
        limit: usize,
    },
    /// A buffer of this many bytes could not be allocated.
    Memory {
        /// Bytes wanted.
        bytes: usize,
    },
    /// Long work was told to end.
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { what, got, expected } => {
                write!(f, "{what} has shape {}, expected {expected}", Tuple(got))
            }
            Self::Value { what, got, expected } => write!(f, "{what} is {got}, expected {expected}"),
            Self::NotFinite { what, count, first } => write!(
                f,
                "{what} has {count} NaN or infinite element(s), the first at flat index {first}; expected finite \
                 numbers"
            ),
            Self::Unknown { what, got, known } => {
                write!(f, "unknown {what} {got:?}, expected one of: {}", known.join(", "))?;
                match nearest(got, known) {
                    Some(name) => write!(f, " (did you mean {name:?}?)"),
                    None => Ok(()),
                }
            }
            Self::Overflow { k, limit } => write!(
                f,
                "k is {k}, expected at most {limit}: beyond it an int32 sum of these operands can overflow; \
                 split k and add the parts in int64, or quantize the weight in groups"
            ),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Memory { bytes } => write!(f, "cannot allocate {bytes} bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// A shape in Python's notation, so that both sides of the border print the same text.
pub(crate) struct Tuple<'a>(pub(crate) &'a [usize]);

impl fmt::Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "({}{})", parts.join(", "), if parts.len() == 1 { "," } else { "" })
    }
}

/// The known name at the smallest edit distance, if it is close enough to be a slip of the pen.
fn nearest<'a>(got: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (edit_distance(got, name), *name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_thing_the_value_and_the_way_out() {
        let shape = Error::Shape { what: "scale", got: vec![3], expected: "(4,)".into() };
        assert_eq!(shape.to_string(), "scale has shape (3,), expected (4,)");
        let value = Error::Value { what: "group size", got: "0".into(), expected: "at least 1".into() };
        assert_eq!(value.to_string(), "group size is 0, expected at least 1");
        let unknown = Error::Unknown { what: "format", got: "int44".into(), known: vec!["int4", "uint8"] };
        assert_eq!(
            unknown.to_string(),
            "unknown format \"int44\", expected one of: int4, uint8 (did you mean \"int4\"?)"
        );
        assert!(Error::NotFinite { what: "x", count: 2, first: 7 }.to_string().contains("flat index 7"));
        assert!(Error::Overflow { k: 9, limit: 8 }.to_string().contains("at most 8"));
        assert_eq!(Error::Memory { bytes: 5 }.to_string(), "cannot allocate 5 bytes");
    }
}
