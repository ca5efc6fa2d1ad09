//! A band of an image as the kernels read it: all channels of a pixel together, with its padding.
//!
//! Mostly that is pixel by pixel, and windows overlap. With few channels, which leave much of a word empty, windows
//! are unfolded instead, as many as fit the second cache: 7 × 7 × 3 elements are 37 words and not 49.

use super::Job;
use crate::error::Error;
use crate::gemm::{Elements, Panels};
use crate::mem::zeroed;
use crate::quantize::Affine;
use std::ops::{Add, Range};

/// The rows of an image that some rows of the result are made of.
pub(super) struct Band<A: Elements> {
    pub(super) words: Vec<A>,
    /// Words from the window of one output to that of the next, vertically and horizontally.
    pub(super) step: [usize; 2],
    /// Words from one element of a window to the next; unused where windows are unfolded.
    pub(super) inner: [usize; 2],
    /// For each pixel of the result, the sum over its window of what is stored, less the zero point of each. Empty
    /// where no filter has a zero point to multiply it with.
    pub(super) sums: Vec<A::Sum>,
    /// Zero point of the elements.
    pub(super) zero: i32,
}

/// Which band of which image.
pub(super) struct Place<'a> {
    /// The first input channel, counted over all images.
    pub(super) channel: usize,
    /// Rows of the result.
    pub(super) rows: Range<usize>,
    /// What it is multiplied with.
    pub(super) panels: &'a Panels,
}

impl<A: Elements<Sum: Default + Add<Output = A::Sum>>> Band<A> {
    /// Quantizes and turns a band. Padding holds the zero point, so that it is worth 0 and needs no care later.
    #[inline(always)]
    pub(super) fn new(job: &Job<'_>, place: &Place<'_>) -> Result<Self, Error> {
        let mut filler = Filler::<A>::new(job, place)?;
        let (words, step, inner) = if job.filters.unfolded {
            let pitch = place.panels.groups.padded_k() / A::K;
            (filler.windows(pitch)?, [job.columns.out * pitch, pitch], [0; 2])
        } else {
            let pixel = job.filters.pixel / A::K;
            let row = filler.width * pixel;
            (
                filler.pixels(row)?,
                [job.rows.stride * row, job.columns.stride * pixel],
                [job.rows.dilation * row, job.columns.dilation * pixel],
            )
        };
        let sums = if filler.pixel_sums.is_empty() {
            Vec::new()
        } else {
            window_sums(job, &place.rows, &filler.pixel_sums)?
        };
        Ok(Band { words, step, inner, sums, zero: filler.affine.zero_point })
    }
}

/// Makes the elements of a band, row by row.
struct Filler<'a, A: Elements> {
    job: &'a Job<'a>,
    place: &'a Place<'a>,
    /// Parameters in terms of what is stored.
    affine: Affine,
    /// Rows of the band that lie inside the image, and the number of the first there.
    rows: (Range<usize>, usize),
    /// The same for columns.
    columns: (Range<usize>, usize),
    height: usize,
    width: usize,
    /// Sixteen channels of a row, before they are turned.
    encoded: Vec<A::Element>,
    /// For each pixel the sum of its channels, where sums are wanted.
    pixel_sums: Vec<A::Sum>,
}

impl<'a, A: Elements<Sum: Default>> Filler<'a, A> {
    #[inline(always)]
    fn new(job: &'a Job<'a>, place: &'a Place<'a>) -> Result<Self, Error> {
        let plain = Affine { scale: 1.0, zero_point: 0, qmin: 0, qmax: 0 };
        let (height, width) = (job.rows.span(place.rows.len()), job.columns.span(job.columns.out));
        let columns = job.columns.inside(0, width);
        // In floats, a zero point of 0 meets the sum too: what is infinite becomes NaN, as in a product.
        let sums = place.panels.has_zeros || job.affine.is_none();
        Ok(Filler {
            affine: A::stored(job.affine.unwrap_or(plain)),
            rows: job.rows.inside(place.rows.start, height),
            encoded: zeroed(SIDE * columns.0.len().next_multiple_of(SIDE))?,
            pixel_sums: zeroed(if sums { height * width } else { 0 })?,
            job,
            place,
            columns,
            height,
            width,
        })
    }

    /// The band pixel by pixel, in rows of `row` words.
    #[inline(always)]
    fn pixels(&mut self, row: usize) -> Result<Vec<A>, Error> {
        let mut words = zeroed::<A>(self.height * row)?;
        let mut elements = zeroed::<A::Element>(self.width * self.job.filters.pixel)?;
        elements.fill(A::zero(self.affine));
        let mut blank = zeroed::<A>(row)?;
        A::join(&elements, &mut blank);
        for (y, out) in words.chunks_exact_mut(row).enumerate() {
            if self.fill(y, &mut elements) {
                A::join(&elements, out);
            } else {
                out.copy_from_slice(&blank);
            }
        }
        Ok(words)
    }

    /// The windows of the band, `pitch` words each.
    #[inline(always)]
    fn windows(&mut self, pitch: usize) -> Result<Vec<A>, Error> {
        let (rows, columns, pixel) = (self.job.rows, self.job.columns, self.job.filters.pixel);
        let (row, zero) = (self.width * pixel, A::zero(self.affine));
        let mut elements = zeroed::<A::Element>(self.height * row + MOVE)?;
        elements.fill(zero);
        for y in 0..self.height {
            self.fill(y, &mut elements[y * row..][..row]);
        }
        // Neighbours in a row are copied together.
        let (run, runs) =
            if columns.dilation == 1 { (columns.kernel * pixel, 1) } else { (pixel, columns.kernel) };
        let place = |i: usize, j: usize| i * rows.dilation * row + j * columns.dilation * pixel;
        let places: Vec<usize> = (0..rows.kernel).flat_map(|i| (0..runs).map(move |j| place(i, j))).collect();
        let (window, padded) = (places.len() * run, pitch * A::K);
        let mut line = zeroed::<A::Element>(columns.out * padded + MOVE)?;
        let mut words = zeroed::<A>(self.place.rows.len() * columns.out * pitch)?;
        for (y, out) in words.chunks_exact_mut(columns.out * pitch).enumerate() {
            for x in 0..columns.out {
                let seen = &elements[y * rows.stride * row + x * columns.stride * pixel..];
                for (index, place) in places.iter().enumerate() {
                    copy(&seen[*place..], run, &mut line[x * padded + index * run..]);
                }
                line[x * padded..][window..padded].fill(zero);
            }
            A::join(&line[..columns.out * padded], out);
        }
        Ok(words)
    }

    /// Fills the pixels of row `y` that lie inside the image, or says that there are none that are wanted.
    #[inline(always)]
    fn fill(&mut self, y: usize, elements: &mut [A::Element]) -> bool {
        let (job, pixel, inputs) = (self.job, self.job.filters.pixel, self.job.filters.inputs);
        let ((rows, first_row), (columns, first_column)) = (&self.rows, &self.columns);
        if !rows.contains(&y) || columns.is_empty() || !job.rows.is_read(y) {
            return false;
        }
        let start = (first_row + y - rows.start) * job.columns.len + first_column;
        let pitch = self.encoded.len() / SIDE;
        for first in (0..inputs).step_by(SIDE) {
            let channels = SIDE.min(inputs - first);
            for channel in 0..channels {
                let plane = (self.place.channel + first + channel) * job.rows.len * job.columns.len;
                let x = &job.x[plane + start..][..columns.len()];
                A::encode(x, self.affine, &mut self.encoded[channel * pitch..][..columns.len()]);
            }
            let out = &mut elements[columns.start * pixel + first..];
            turn(&self.encoded, (channels, columns.len()), out, pixel);
        }
        if !self.pixel_sums.is_empty() {
            let pixels = elements.chunks_exact(pixel).take(columns.end);
            for (sum, pixel) in self.pixel_sums[y * self.width..].iter_mut().zip(pixels) {
                *sum = A::sum(&pixel[..inputs], self.affine);
            }
        }
        true
    }
}

/// Elements that are moved at once.
const MOVE: usize = 8;

/// Copies `len` elements and up to seven more: moves of a known length take a fraction of a call.
#[inline(always)]
fn copy<T: Copy>(from: &[T], len: usize, to: &mut [T]) {
    for at in (0..len).step_by(MOVE) {
        if let (Some(from), Some(to)) = (from[at..].first_chunk::<MOVE>(), to[at..].first_chunk_mut()) {
            *to = *from;
        }
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

/// Channels and pixels that are turned at once.
const SIDE: usize = 16;

/// Turns up to sixteen rows of pixels, one for each channel and padded to sixteens, into neighbours: the channels of
/// a pixel stand side by side, and pixels `padded` elements apart.
#[inline(always)]
fn turn<T: Copy + Default>(rows: &[T], (channels, pixels): (usize, usize), out: &mut [T], padded: usize) {
    let pitch = rows.len() / SIDE;
    if channels < SIDE / 2 {
        for (channel, row) in rows.chunks_exact(pitch.max(1)).take(channels).enumerate() {
            for (out, pixel) in out[channel..].iter_mut().step_by(padded).zip(&row[..pixels]) {
                *out = *pixel;
            }
        }
        return;
    }
    for start in (0..pixels).step_by(SIDE) {
        let mut square = [[T::default(); SIDE]; SIDE];
        for (row, channel) in square.iter_mut().zip(rows.chunks_exact(pitch)) {
            if let Some(pixels) = channel[start..].first_chunk() {
                *row = *pixels;
            }
        }
        let square = shuffled(shuffled(shuffled(shuffled(square))));
        for (i, pixel) in square.iter().enumerate().take(pixels - start) {
            let out = &mut out[(start + i) * padded..];
            if let (SIDE, Some(out)) = (channels, out.first_chunk_mut()) {
                // A length known to the compiler: one move instead of a call.
                *out = *pixel;
            } else {
                out[..channels].copy_from_slice(&pixel[..channels]);
            }
        }
    }
}

/// Joins rows i and i + 8 like the teeth of a zip into rows 2 · i and 2 · i + 1. Four times, it turns the square;
/// the compiler makes each a few shuffles of vectors, where it would turn the whole element by element.
#[inline(always)]
fn shuffled<T: Copy + Default>(rows: [[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    const HALF: usize = SIDE / 2;
    let mut out = [[T::default(); SIDE]; SIDE];
    for i in 0..HALF {
        let (a, b) = (rows[i], rows[i + HALF]);
        for j in 0..HALF {
            out[2 * i][2 * j] = a[j];
            out[2 * i][2 * j + 1] = b[j];
            out[2 * i + 1][2 * j] = a[HALF + j];
            out[2 * i + 1][2 * j + 1] = b[HALF + j];
        }
    }
    out
}
