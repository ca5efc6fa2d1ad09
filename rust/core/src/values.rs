//! What is to be quantized, and how much its errors count.

#![forbid(unsafe_code)]

use crate::error::Error;

/// Values with the weights of their squared errors.
///
/// ```
/// use qrs_core::Values;
/// assert_eq!(Values::from(&[1.0, 2.0]), Values { x: &[1.0, 2.0], importance: None });
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values<'a> {
    /// The values.
    pub x: &'a [f32],
    /// How often the squared error of each value counts; without it, all count once.
    pub importance: Option<&'a [f32]>,
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for Values<'a> {
    fn from(x: &'a T) -> Values<'a> {
        Values { x: x.as_ref(), importance: None }
    }
}

impl<'a> Values<'a> {
    /// The values in a range.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Values<'a> {
        Values { x: &self.x[range.clone()], importance: self.importance.map(|w| &w[range]) }
    }

    /// Whether there is an importance for each value or none at all.
    ///
    /// # Errors
    /// There is another number of them, or one is negative or not finite.
    pub(crate) fn check(self) -> Result<(), Error> {
        let Some(importance) = self.importance else { return Ok(()) };
        if importance.len() != self.x.len() {
            let expected = format!("({},), one for each value", self.x.len());
            return Err(Error::Shape { what: "importance", got: vec![importance.len()], expected });
        }
        if let Some(at) = importance.iter().position(|w| !(*w >= 0.0 && w.is_finite())) {
            let got = format!("{} at flat index {at}", importance[at]);
            return Err(Error::Value {
                what: "importance",
                got,
                expected: "finite numbers from 0 on".into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importance_is_one_finite_number_for_each_value() {
        let check = |importance| Values { x: &[1.0, 2.0], importance }.check().map_err(|e| e.to_string());
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some(&[0.0, 3.0])), Ok(()));
        assert!(check(Some(&[1.0])).unwrap_err().starts_with("importance has shape (1,)"));
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(check(Some(&[1.0, bad])).unwrap_err().contains("at flat index 1"));
        }
    }
}
