//! A band of an image as the kernels read it: pixel by pixel, all channels of a pixel together, with its padding.

use super::Job;
use crate::error::Error;
use crate::gemm::Elements;
use crate::mem::zeroed;
use crate::quantize::Affine;
use std::ops::{Add, Range};

/// The rows of an image that some rows of the result are made of.
pub(super) struct Band<A: Elements> {
    /// `[row][column]`, a few words for each pixel.
    pub(super) words: Vec<A>,
    /// Words of a pixel.
    pub(super) pixel: usize,
    /// Words of a row.
    pub(super) row: usize,
    /// For each pixel of the result, the sum over its window of what is stored, less the zero point of each. Empty
    /// where no filter has a zero point to multiply it with.
    pub(super) sums: Vec<A::Sum>,
    /// Zero point of the elements.
    pub(super) zero: i32,
}

/// Which band of which image.
pub(super) struct Place {
    /// The first input channel, counted over all images.
    pub(super) channel: usize,
    /// Rows of the result.
    pub(super) rows: Range<usize>,
    /// Elements of a pixel: the channels of a group, padded.
    pub(super) padded: usize,
    /// Whether `sums` are wanted.
    pub(super) sums: bool,
}

impl<A: Elements<Sum: Default + Add<Output = A::Sum>>> Band<A> {
    /// Quantizes and turns a band. Padding holds the zero point, so that it is worth 0 and needs no care later.
    #[inline(always)]
    pub(super) fn new(job: &Job<'_>, place: &Place) -> Result<Self, Error> {
        let (inputs, plane) = (job.filters.inputs, job.rows.len * job.columns.len);
        let plain = Affine { scale: 1.0, zero_point: 0, qmin: 0, qmax: 0 };
        let affine = A::stored(job.affine.unwrap_or(plain));
        let (height, width) = (job.rows.span(place.rows.len()), job.columns.span(job.columns.out));
        let (inside, first_row) = job.rows.inside(place.rows.start, height);
        let (columns, first_column) = job.columns.inside(0, width);
        let pixel = place.padded / A::K;
        let row = width * pixel;
        let mut words = zeroed::<A>(height * row)?;
        let mut pixel_sums = zeroed::<A::Sum>(if place.sums { height * width } else { 0 })?;
        let mut encoded = zeroed::<A::Element>(columns.len())?;
        let mut elements = zeroed::<A::Element>(width * place.padded)?;
        elements.fill(A::zero(affine));
        let mut blank = zeroed::<A>(row)?;
        A::join(&elements, &mut blank);
        for (y, out) in words.chunks_exact_mut(row.max(1)).enumerate() {
            if !inside.contains(&y) || !job.rows.is_read(y) {
                out.copy_from_slice(&blank);
                continue;
            }
            let start = (first_row + y - inside.start) * job.columns.len + first_column;
            for channel in 0..inputs {
                let x = &job.x[(place.channel + channel) * plane + start..][..columns.len()];
                A::encode(x, affine, &mut encoded);
                let pixels = elements[columns.start * place.padded..].chunks_exact_mut(place.padded);
                for (pixel, code) in pixels.zip(&encoded) {
                    pixel[channel] = *code;
                }
            }
            A::join(&elements, out);
            if place.sums {
                let pixels = elements.chunks_exact(place.padded);
                for (sum, pixel) in pixel_sums[y * width..].iter_mut().zip(pixels).take(columns.end) {
                    *sum = A::sum(&pixel[..inputs], affine);
                }
            }
        }
        let sums = if place.sums { window_sums(job, &place.rows, &pixel_sums)? } else { Vec::new() };
        Ok(Band { words, pixel, row, sums, zero: affine.zero_point })
    }
}

/// Adds up the sums of the pixels of each window, row by row.
#[inline(always)]
fn window_sums<S>(job: &Job<'_>, rows: &Range<usize>, pixels: &[S]) -> Result<Vec<S>, Error>
where
    S: Copy + Default + Add<Output = S>,
{
    let width = job.columns.span(job.columns.out);
    let mut sums = zeroed::<S>(rows.len() * job.columns.out)?;
    for (y, sums) in sums.chunks_exact_mut(job.columns.out).enumerate() {
        for ky in 0..job.rows.kernel {
            let row = &pixels[(y * job.rows.stride + ky * job.rows.dilation) * width..][..width];
            for kx in 0..job.columns.kernel {
                let row = row[kx * job.columns.dilation..].iter().step_by(job.columns.stride);
                for (sum, pixel) in sums.iter_mut().zip(row) {
                    *sum = *sum + *pixel;
                }
            }
        }
    }
    Ok(sums)
}
