//! The count of elements that are NaN or infinite, gathered by several threads.

#![forbid(unsafe_code)]

use crate::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many elements are not finite, and the first of them. The result hangs on no order.
pub(crate) struct Census {
    count: AtomicUsize,
    first: AtomicUsize,
}

impl Census {
    pub(crate) fn new() -> Census {
        Census { count: AtomicUsize::new(0), first: AtomicUsize::new(usize::MAX) }
    }

    /// Counts the elements of `x`, whose first stands at flat index `start`. Call it on a few thousand elements
    /// that are used right after, so that memory is read once.
    #[inline(always)]
    pub(crate) fn see(&self, x: &[f32], start: usize) {
        let count: u32 = x.iter().map(|&v| u32::from(not_finite(v))).sum();
        if count > 0 {
            let first = x.iter().position(|&v| not_finite(v)).unwrap_or(0);
            self.count.fetch_add(count as usize, Ordering::Relaxed);
            self.first.fetch_min(start + first, Ordering::Relaxed);
        }
    }

    /// What was seen.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if anything was.
    pub(crate) fn check(self, what: &'static str) -> Result<(), Error> {
        match self.count.into_inner() {
            0 => Ok(()),
            count => Err(Error::NotFinite { what, count, first: self.first.into_inner() }),
        }
    }
}

/// The [`magnitude`] of infinity; above it are those of NaN.
pub(crate) const INFINITE: u32 = f32::INFINITY.to_bits();

/// The magnitude as an integer, in the order of the numbers.
#[inline(always)]
pub(crate) fn magnitude(v: f32) -> u32 {
    v.to_bits() & 0x7fff_ffff
}

/// In integers: one mask and one comparison, on every instruction set.
#[inline(always)]
fn not_finite(v: f32) -> bool {
    magnitude(v) >= INFINITE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_is_found_in_any_order() {
        let mut x = vec![f32::MAX; 100];
        (x[30], x[77], x[78]) = (f32::NEG_INFINITY, f32::NAN, -f32::NAN);
        let census = Census::new();
        census.see(&x[50..], 50);
        census.see(&x[..50], 0);
        assert_eq!(census.check("x"), Err(Error::NotFinite { what: "x", count: 3, first: 30 }));
        let census = Census::new();
        census.see(&[0.0, -0.0, 1e-45, f32::MIN], 0);
        assert_eq!(census.check("x"), Ok(()));
    }
}
