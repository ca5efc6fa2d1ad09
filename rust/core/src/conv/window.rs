//! How a window moves over an image: one [`Axis`] for the rows, one for the columns.

use crate::error::Error;
use std::ops::Range;

/// How a window moves over an image. Pairs are (vertical, horizontal).
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Pixels of zeros around the image: top, left, bottom, right.
    pub padding: [usize; 4],
    /// Pixels from one element of a window to the next.
    pub dilation: [usize; 2],
}

impl Window {
    /// The axes of images of this height and width under a kernel of this height and width.
    ///
    /// # Errors
    /// A stride or dilation of 0, or an image that, with its padding, is smaller than the window.
    pub(super) fn axes(&self, image: [usize; 2], kernel: [usize; 2]) -> Result<[Axis; 2], Error> {
        let axis = |i: usize, what| {
            let (stride, dilation) = (self.stride[i], self.dilation[i]);
            let (before, after) = (self.padding[i], self.padding[i + 2]);
            Axis { len: image[i], kernel: kernel[i], stride, dilation, before, out: 0 }.sized(what, after)
        };
        Ok([axis(0, "height of x")?, axis(1, "width of x")?])
    }
}

/// One axis of an image under a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    /// Pixels of the image.
    pub(super) len: usize,
    /// Elements of the window.
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// Padding before the image.
    pub(super) before: usize,
    /// Windows: pixels of the result.
    pub(super) out: usize,
}

impl Axis {
    /// Counts the windows.
    fn sized(mut self, what: &'static str, after: usize) -> Result<Axis, Error> {
        for (what, got) in [("stride", self.stride), ("dilation", self.dilation)] {
            if got == 0 {
                return Err(Error::Value { what, got: "0".to_owned(), expected: "at least 1".to_owned() });
            }
        }
        let reach = self.dilation.checked_mul(self.kernel - 1).and_then(|reach| reach.checked_add(1));
        let padded = self.before.checked_add(after).and_then(|padding| padding.checked_add(self.len));
        match (reach, padded) {
            (Some(reach), Some(padded)) if reach <= padded => self.out = (padded - reach) / self.stride + 1,
            _ => {
                let wanted =
                    reach.map_or("more pixels than there can be".to_owned(), |reach| reach.to_string());
                let got = format!("{} with {} of padding", self.len, self.before.saturating_add(after));
                let expected = format!("at least {wanted}, the reach of the window");
                return Err(Error::Value { what, got, expected });
            }
        }
        if self.out == 1 {
            // One window goes nowhere; two are never further apart than the padded image is long.
            self.stride = 1;
        }
        Ok(self)
    }

    /// Pixels that `windows` windows side by side reach over.
    pub(super) fn span(&self, windows: usize) -> usize {
        (windows - 1) * self.stride + self.reach()
    }

    /// Pixels that one window reaches over.
    pub(super) fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    /// Of the `span` pixels from window `first` on, those inside the image, and the number of the first in the image.
    pub(super) fn inside(&self, first: usize, span: usize) -> (Range<usize>, usize) {
        let start = first * self.stride;
        let end = (self.before + self.len).saturating_sub(start).min(span);
        let begin = self.before.saturating_sub(start).min(end);
        (begin..end, (start + begin).saturating_sub(self.before))
    }

    /// Whether some window has an element at pixel `at` of the span.
    pub(super) fn is_read(&self, at: usize) -> bool {
        (0..self.kernel)
            .map(|k| k * self.dilation)
            .any(|offset| at >= offset && (at - offset).is_multiple_of(self.stride))
    }
}
