//! Convolution of planes by themselves: groups of one channel, as in a depthwise convolution.
//!
//! An output is a sum of a few products that no other output shares, so neighbours in a row are computed at once,
//! from channels as they lie, and nothing is turned around. A row of a plane is taken apart into `stride`
//! phases, those pixels that one element of the window meets as it moves; then neighbouring outputs read neighbouring
//! pixels whatever the stride.

#![allow(clippy::needless_range_loop, reason = "blocks and lanes are indexed in step")]

use super::Job;
use super::filters::Planes;
use crate::activation::Activation;
use crate::error::Error;
use crate::gemm::{BLOCK_BYTES, Float, Output, WIDTH, even_cuts, tasks};
use crate::isa::Op;
use crate::mem::{Line, LineF32, LineI16, Rectangle, elements, zeroed};
use crate::parallel;
use crate::quantize::{Affine, encode};
use std::ops::Range;
use std::sync::Mutex;

/// Outputs that are computed at once, and how many lines that is. With half as many the compiler finds no `vpmaddwd`.
const BLOCK: usize = 32;
const LINES: usize = BLOCK / WIDTH;

/// Runs the convolution.
pub(super) fn run(job: &Job<'_>, planes: &Planes, out: &mut [f32]) -> Result<(), Error> {
    match job.affine {
        // Less the zero point, codes of both operands fit 16 bits and padding is 0.
        Some(Affine { scale, zero_point: z, qmin, qmax }) => {
            let affine = Affine { scale, zero_point: 0, qmin: qmin - z, qmax: qmax - z };
            filter_planes(job, planes, Codes(affine), out)
        }
        None => filter_planes(job, planes, Floats, out),
    }
}

/// What a plane holds and how a row of it is filtered.
trait Kind: Copy + Sync {
    type Element: Copy + Default;
    /// Elements of a window that are computed with at once.
    type Tap;
    /// Makes elements of pixels; padding is the default element.
    fn encode(self, x: &[f32], out: &mut [Self::Element]);
    /// The taps of a filter whose elements meet the first output at these places of a plane, `[row][column]`.
    fn taps(codes: &[i16], zero: i32, places: &[usize]) -> Vec<Self::Tap>;
    /// Adds the scaled products of a row to its sums; `plane` begins with the first row of the window.
    fn filter(plane: &[Self::Element], taps: &[Self::Tap], zero: i32, scale: f32, sums: &mut [LineF32]);
}

/// Planes of codes, less their zero point.
#[derive(Clone, Copy)]
struct Codes(Affine);

/// Two elements of the window that meet neighbouring pixels, or one and a zero.
struct Pair {
    /// Where the first meets the first output.
    place: usize,
    /// Both, negated, sixteen times: operands of `vpmaddwd`.
    weights: LineI16,
}

impl Kind for Codes {
    type Element = i16;
    type Tap = Pair;

    #[inline(always)]
    fn encode(self, x: &[f32], out: &mut [i16]) {
        encode(x, self.0, out);
    }

    fn taps(codes: &[i16], zero: i32, places: &[usize]) -> Vec<Pair> {
        let mut taps: Vec<(usize, i16)> =
            places.iter().zip(codes).map(|(place, code)| (*place, zero as i16 - code)).collect();
        taps.sort_unstable_by_key(|(place, _)| *place);
        let mut pairs = Vec::new();
        let mut rest = &taps[..];
        while let [(place, first), after @ ..] = rest {
            let (second, after) = match after {
                [(next, second), after @ ..] if *next == place + 1 => (*second, after),
                _ => (0, after),
            };
            let mut weights = LineI16::zero();
            for pair in weights.0.as_chunks_mut().0 {
                *pair = [*first, second];
            }
            pairs.push(Pair { place: *place, weights });
            rest = after;
        }
        pairs
    }

    #[inline(always)]
    fn filter(plane: &[i16], taps: &[Pair], _: i32, scale: f32, sums: &mut [LineF32]) {
        let plain = Float { bias: None, activation: Activation::None };
        for (block, lines) in sums.as_chunks_mut::<LINES>().0.iter_mut().enumerate() {
            let plane = &plane[block * BLOCK..];
            // A pair of taps meets a pair of pixels, which makes every other output; from one pixel on, the others.
            // Each in a loop of its own: what they have in common would keep the compiler from using `vpmaddwd`.
            let (even, odd) = (every_other(plane, taps), every_other(&plane[1..], taps));
            for (half, line) in lines.iter_mut().enumerate() {
                let mut products = [0; WIDTH];
                for i in 0..WIDTH / 2 {
                    products[2 * i] = even[half * WIDTH / 2 + i];
                    products[2 * i + 1] = odd[half * WIDTH / 2 + i];
                }
                plain.fold(products, &[scale; WIDTH], line);
            }
        }
    }
}

/// The products of every other output of a block.
#[inline(always)]
fn every_other(plane: &[i16], taps: &[Pair]) -> [i32; WIDTH] {
    let mut sums = [0; WIDTH];
    for tap in taps {
        let Some(x) = plane[tap.place..].first_chunk() else { return sums };
        take_pairs(*x, tap.weights.0, &mut sums);
    }
    sums
}

/// Takes the products of neighbours away: `vpmaddwd` and a subtraction. A sum of three terms the compiler would put
/// into another order, and find no pairs in it.
#[inline(always)]
fn take_pairs(x: [i16; BLOCK], weights: [i16; BLOCK], sums: &mut [i32; WIDTH]) {
    let mut next = *sums;
    for i in 0..WIDTH {
        let even = i32::from(x[2 * i]) * i32::from(weights[2 * i]);
        let odd = i32::from(x[2 * i + 1]) * i32::from(weights[2 * i + 1]);
        next[i] = next[i].wrapping_sub(even.wrapping_add(odd));
    }
    *sums = next;
}

/// Planes of float32.
#[derive(Clone, Copy)]
struct Floats;

/// One element of the window and where it meets the first output.
struct Single {
    place: usize,
    weight: f32,
}

impl Kind for Floats {
    type Element = f32;
    type Tap = Single;

    #[inline(always)]
    fn encode(self, x: &[f32], out: &mut [f32]) {
        out.copy_from_slice(x);
    }

    fn taps(codes: &[i16], _: i32, places: &[usize]) -> Vec<Single> {
        places
            .iter()
            .zip(codes)
            .map(|(place, code)| Single { place: *place, weight: f32::from(*code) })
            .collect()
    }

    #[inline(always)]
    fn filter(plane: &[f32], taps: &[Single], zero: i32, scale: f32, sums: &mut [LineF32]) {
        let zero = zero as f32;
        for (block, line) in sums.iter_mut().enumerate() {
            let (mut products, mut total) = ([0f32; WIDTH], [0f32; WIDTH]);
            for tap in taps {
                let Some(x) = plane[tap.place + block * WIDTH..].first_chunk::<WIDTH>().copied() else {
                    return;
                };
                for i in 0..WIDTH {
                    products[i] = x[i].mul_add(tap.weight, products[i]);
                    total[i] += x[i];
                }
            }
            let mut y = line.0;
            for i in 0..WIDTH {
                y[i] += (products[i] - zero * total[i]) * scale;
            }
            line.0 = y;
        }
    }
}

/// Where the pixels of a plane lie: rows of `stride` phases, each with room for the whole blocks that are read.
#[derive(Clone, Copy)]
struct Layout {
    phase: usize,
    row: usize,
}

impl Layout {
    fn new(job: &Job<'_>) -> Layout {
        let reach = (job.columns.reach() - 1) / job.columns.stride;
        // Pairs read one pixel more.
        let phase = job.columns.out.next_multiple_of(BLOCK) + reach + 2;
        Layout { phase, row: phase * job.columns.stride }
    }

    /// Where the elements of the window meet the first output.
    fn places(self, job: &Job<'_>) -> Vec<usize> {
        let (rows, columns) = (job.rows, job.columns);
        let place = |y: usize, x: usize| {
            let at = x * columns.dilation;
            y * rows.dilation * self.row + at % columns.stride * self.phase + at / columns.stride
        };
        (0..rows.kernel).flat_map(|y| (0..columns.kernel).map(move |x| place(y, x))).collect()
    }
}

fn filter_planes<K: Kind>(job: &Job<'_>, planes: &Planes, kind: K, out: &mut [f32]) -> Result<(), Error> {
    let (pixels, channels) = (job.rows.out * job.columns.out, job.batch * job.filters.count());
    let layout = Layout::new(job);
    // Quantizing and finishing a pixel takes about as long as ten products.
    let work = out.len().saturating_mul(job.filters.window_len() + 10) / 16;
    let held = BLOCK_BYTES / (layout.row * size_of::<K::Element>());
    let fewest = job.rows.reach().div_ceil(job.rows.stride);
    let fitting = (held.saturating_sub(job.rows.reach()) / job.rows.stride + 1).max(fewest);
    let tasks = tasks(work)?;
    let bands = job.rows.out.div_ceil(fitting).max(tasks / channels).min(job.rows.out);
    let rows: Vec<usize> =
        even_cuts(job.rows.out, bands, 1).iter().map(|row| row * job.columns.out).collect();
    let channels = even_cuts(channels, tasks.div_ceil(bands), 1);
    let failure = Mutex::new(None);
    parallel::for_each_rectangle(out, pixels, channels, rows, work, |out| {
        if let Err(error) = job.isa.run(Task { job, planes, kind, layout, out })
            && let Ok(mut failure) = failure.lock()
        {
            *failure = Some(error);
        }
    })?;
    failure.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// Some channels of the result, and some rows of each.
struct Task<'a, K> {
    job: &'a Job<'a>,
    planes: &'a Planes,
    kind: K,
    layout: Layout,
    out: Rectangle<'a, f32>,
}

impl<K: Kind> Op for Task<'_, K> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run(mut self) -> Result<(), Error> {
        let (job, filters, layout) = (self.job, self.job.filters, self.layout);
        let (width, window) = (job.columns.out, filters.window_len());
        let rows = self.out.columns.start / width..self.out.columns.end / width;
        let places = layout.places(job);
        // The last row is followed by what its last block reads beyond it.
        let mut plane = zeroed::<K::Element>((job.rows.span(rows.len()) + 1) * layout.row)?;
        let mut encoded = zeroed::<K::Element>(job.columns.len + 2 * job.columns.stride)?;
        let mut sums = zeroed::<LineF32>(width.div_ceil(BLOCK) * LINES)?;
        let mut bias = zeroed::<LineF32>(sums.len())?;
        let mut held = None;
        for channel in self.out.rows.clone() {
            let (filter, source) = (channel % filters.count(), channel / filters.outputs);
            if held.replace(source) != Some(source) {
                self.fill(source, rows.clone(), &mut encoded, &mut plane);
            }
            let (scale, zero) = self.planes.parameters[filter];
            let taps = K::taps(&self.planes.codes[filter * window..][..window], zero, &places);
            let bias = job.output.bias.map(|all| {
                bias.fill(Line([all[filter]; WIDTH]));
                &*elements(&mut bias)
            });
            let output = Float { bias, activation: job.output.activation };
            for row in 0..rows.len() {
                sums.fill(LineF32::zero());
                K::filter(&plane[row * job.rows.stride * layout.row..], &taps, zero, scale, &mut sums);
                let columns = 0..sums.len() * WIDTH;
                let scale = [job.affine.map_or(1.0, |affine| affine.scale)];
                <Float<'_> as Output<i32>>::finish(&output, &scale, columns, &mut sums);
                let at = (rows.start + row) * width;
                <Float<'_> as Output<i32>>::put(&output, &sums, self.out.row(channel, at..at + width));
            }
        }
        Ok(())
    }
}

impl<K: Kind> Task<'_, K> {
    /// Quantizes the rows of a plane that the given rows of the result are made of. What stays as it is is padding.
    #[inline(always)]
    fn fill(&self, source: usize, rows: Range<usize>, encoded: &mut [K::Element], plane: &mut [K::Element]) {
        let (job, layout) = (self.job, self.layout);
        let (inside, first_row) = job.rows.inside(rows.start, job.rows.span(rows.len()));
        let (columns, first_column) = job.columns.inside(0, job.columns.span(job.columns.out));
        for y in inside.clone().filter(|y| job.rows.is_read(*y)) {
            let row = (source * job.rows.len + first_row + y - inside.start) * job.columns.len + first_column;
            let (x, out) = (&job.x[row..][..columns.len()], &mut plane[y * layout.row..][..layout.row]);
            if job.columns.stride == 1 {
                self.kind.encode(x, &mut out[columns.clone()]);
                continue;
            }
            // From the start of a chunk of `stride` pixels; those before the image and after it are padding.
            let skipped = columns.start % job.columns.stride;
            self.kind.encode(x, &mut encoded[skipped..][..x.len()]);
            let (first, used) = (columns.start / job.columns.stride, skipped + x.len());
            part(&encoded[..used.next_multiple_of(job.columns.stride)], first, out, job.columns.stride);
        }
    }
}

/// Deals the pixels of a row out to its phases, from pixel `first` of each on.
#[inline(always)]
fn part<T: Copy>(pixels: &[T], first: usize, row: &mut [T], stride: usize) {
    let phase = row.len() / stride;
    if stride == 2 {
        let (even, odd) = row.split_at_mut(phase);
        let outs = even[first..].iter_mut().zip(&mut odd[first..]);
        // A known stride: the compiler makes it shuffles.
        for ([a, b], (even, odd)) in pixels.as_chunks().0.iter().zip(outs) {
            (*even, *odd) = (*a, *b);
        }
        return;
    }
    for (row, start) in row.chunks_exact_mut(phase).zip(0..) {
        for (out, pixel) in row[first..].iter_mut().zip(pixels.iter().skip(start).step_by(stride)) {
            *out = *pixel;
        }
    }
}
