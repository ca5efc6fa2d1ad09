//! Convolution as products: a row of neighbouring outputs is a tile, whose rows of A lie a stride of pixels apart.
//!
//! ```text
//! for each task (an image, a group, a band of rows × a band of panels)   one thread
//!   quantize and turn the band of the image                              fits the second cache
//!   for each strip of panels                                             widened once for all rows of the band
//!     for each row and stretch of the result
//!       for each tile of mr outputs and set of panels
//!         for each run of the window: kernel                             neighbours in memory: a row, or one pixel
//!         correct, fold
//!       finish, turn, put
//! ```

use super::Job;
use super::image::{Band, Place};
use crate::error::Error;
use crate::gemm::{
    Accumulator, BLOCK_BYTES, Elements, Family, Float, Folded, Lines, Output, Panels, Ready, STRIP, Strips,
    Tile, Tiles, WIDTH, Word, Work, even_cuts, fold, tasks,
};
use crate::isa::Op;
use crate::mem::{Line, LineF32, Rectangle, zeroed};
use crate::parallel;
use std::ops::Range;
use std::sync::Mutex;

/// Outputs of a stretch, at most: with the columns of a strip 16 KiB of sums, and whole cache lines of the result.
const STRETCH: usize = 64;

/// Work for the families of kernels.
pub(super) struct Convolve<'a> {
    pub(super) job: Job<'a>,
    /// One for each group.
    pub(super) panels: &'a [Panels],
    pub(super) out: &'a mut [f32],
}

impl<C: Accumulator> Work<C> for Convolve<'_> {
    fn run<F: Ready<C>>(&mut self) -> Result<bool, Error> {
        let outputs = self.job.rows.out * self.job.columns.out;
        let Some(tiles) = Tiles::<F>::select(self.job.isa, outputs) else { return Ok(false) };
        convolve(tiles, &self.job, self.panels, self.out)?;
        Ok(true)
    }
}

/// Runs the convolution with the given kernel.
pub(super) fn convolve<C: Accumulator, F: Family<C = C> + Ready<C>>(
    tiles: Tiles<F>,
    job: &Job<'_>,
    panels: &[Panels],
    out: &mut [f32],
) -> Result<(), Error> {
    let (filters, pixels) = (job.filters, job.rows.out * job.columns.out);
    let work = out.len().saturating_mul(filters.window_len()) / 32;
    let strip = STRIP.next_multiple_of(tiles.panels());
    let (bands, columns) = partition::<F>(job, &panels[0], strip, tasks(work)?);
    let rows: Vec<usize> =
        even_cuts(job.rows.out, bands, 1).iter().map(|row| row * job.columns.out).collect();
    let bands = even_cuts(filters.outputs, columns, strip * WIDTH);
    let first_filters = (0..job.batch * filters.groups).map(|group| group * filters.outputs);
    // The last cut of a group is the first of the next.
    let starts = first_filters.flat_map(|first| bands[..bands.len() - 1].iter().map(move |cut| first + cut));
    let channels = starts.chain([job.batch * filters.count()]).collect();
    let failure = Mutex::new(None);
    parallel::for_each_rectangle(out, pixels, channels, rows, work, |out| {
        if let Err(error) = tiles.isa().run(Task { tiles, job, panels, out })
            && let Ok(mut failure) = failure.lock()
        {
            *failure = Some(error);
        }
    })?;
    failure.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// Into how many bands of rows, and how many bands of panels, a group of an image is cut: as many as fit the second
/// cache and make enough tasks. A band of rows widens all panels again, a band of panels quantizes all pixels again;
/// the smaller of the two is repeated.
fn partition<F: Family>(job: &Job<'_>, panels: &Panels, strip: usize, tasks: usize) -> (usize, usize) {
    let (filters, rows) = (job.filters, job.rows);
    // Elements of a row, rows of the image, and rows that a band reaches over.
    let (row, height, reach, stride) = if filters.unfolded {
        (job.columns.out * panels.groups.padded_k(), rows.out, 1, 1)
    } else {
        (job.columns.span(job.columns.out) * filters.pixel, rows.len, rows.reach(), rows.stride)
    };
    let row = row / F::A::K * size_of::<F::A>();
    let held = BLOCK_BYTES / row.max(1);
    // A band shares rows with its neighbours, which are prepared twice: at least as many are its own.
    let fitting = (held.saturating_sub(reach) / stride + 1).max(reach.div_ceil(stride));
    let mut bands = job.rows.out.div_ceil(fitting);
    let missing = tasks.div_ceil(job.batch * filters.groups * bands);
    let mut columns = 1;
    if panels.nbytes() > height * row {
        columns = missing.min(panels.count().div_ceil(strip));
    }
    bands = job.rows.out.min(bands * missing.div_ceil(columns));
    (bands, columns)
}

/// One task.
struct Task<'a, F: Family> {
    tiles: Tiles<F>,
    job: &'a Job<'a>,
    panels: &'a [Panels],
    out: Rectangle<'a, f32>,
}

/// Part of a window that lies in one piece, in the image and in a panel.
struct Run {
    /// Words from the first pixel of the window.
    words: usize,
    /// Lines of the panel.
    lines: Range<usize>,
}

/// Buffers of a stretch.
struct Scratch<C: Accumulator> {
    acc: Vec<Line<C, 16>>,
    rows: Vec<C::Row>,
    /// `[output][panel of the strip]`.
    sums: Vec<LineF32>,
    /// One scale for each output.
    scales: Vec<f32>,
    /// `[column of a panel][sixteen outputs]`.
    turned: Vec<LineF32>,
}

/// A stretch of a row of the result under a strip of panels.
struct Stretch<'a, F: Family<A: Elements>> {
    panels: &'a Panels,
    output: Float<'a>,
    band: &'a Band<F::A>,
    runs: &'a [Run],
    b: &'a [F::B],
    /// Panels of the strip.
    strip: Range<usize>,
    /// The row, counted in the band, and outputs in it.
    row: usize,
    outputs: Range<usize>,
}

impl<C: Accumulator, F: Family<C = C> + Ready<C>> Op for Task<'_, F> {
    type Output = Result<(), Error>;
    const ISAS: u8 = F::ISAS;

    #[inline(always)]
    fn run(mut self) -> Result<(), Error> {
        let (job, filters, tiles) = (self.job, self.job.filters, self.tiles);
        let (group, first) = (self.out.rows.start / filters.outputs, self.out.rows.start % filters.outputs);
        let panels = &self.panels[group % filters.groups];
        let width = job.columns.out;
        let rows = self.out.columns.start / width..self.out.columns.end / width;
        let channel = group * filters.inputs;
        let band = Band::<F::A>::new(job, &Place { channel, rows: rows.clone(), panels })?;
        let runs = runs::<F>(job, &band, panels);
        let bias =
            job.output.bias.map(|bias| &bias[group % filters.groups * filters.outputs..][..filters.outputs]);
        let output = Float { bias, activation: job.output.activation };
        let strip = STRIP.next_multiple_of(tiles.panels());
        let mut strips = Strips::<F::B>::new(panels, strip)?;
        let stretches = width.div_ceil(STRETCH);
        let mut scratch = Scratch {
            acc: zeroed(tiles.rows() * tiles.panels())?,
            rows: zeroed(tiles.rows())?,
            sums: zeroed(STRETCH * strip)?,
            scales: vec![job.affine.map_or(1.0, |affine| affine.scale); STRETCH],
            turned: zeroed(WIDTH * STRETCH.div_ceil(WIDTH))?,
        };
        let (first, last) = (first / WIDTH, (first + self.out.rows.len()).div_ceil(WIDTH));
        for panel in (first..last).step_by(strip) {
            let strip = panel..last.min(panel + strip);
            let b = strips.lines_of(strip.clone());
            for row in 0..rows.len() {
                for stretch in 0..stretches {
                    let outputs = width * stretch / stretches..width * (stretch + 1) / stretches;
                    let strip = strip.clone();
                    let stretch =
                        Stretch::<F> { panels, output, band: &band, runs: &runs, b, strip, row, outputs };
                    stretch.multiply(tiles, job, &mut scratch);
                    let at = (rows.start + row) * width;
                    stretch.put(group * filters.outputs, at, &mut scratch, &mut self.out);
                }
            }
        }
        Ok(())
    }
}

/// The runs of a window: all of it, where windows are unfolded; its rows, where neighbours in a row are neighbours in
/// memory; otherwise its pixels.
fn runs<F: Family<A: Elements>>(job: &Job<'_>, band: &Band<F::A>, panels: &Panels) -> Vec<Run> {
    let (height, width) = (job.rows.kernel, job.columns.kernel);
    if job.filters.unfolded {
        return vec![Run { words: 0, lines: 0..panels.groups.padded_k() / F::B::K }];
    }
    let lines = job.filters.pixel / F::B::K;
    let (pieces, pixels) = if job.columns.dilation == 1 { (1, width) } else { (width, 1) };
    let run = |index: usize| {
        let (y, x) = (index / pieces, index % pieces);
        let start = (y * width + x * pixels) * lines;
        Run { words: y * band.inner[0] + x * band.inner[1], lines: start..start + pixels * lines }
    };
    (0..height * pieces).map(run).collect()
}

impl<C: Accumulator, F: Family<C = C> + Ready<C>> Stretch<'_, F> {
    /// Brings the sums of the stretch to their final values.
    #[inline(always)]
    fn multiply(&self, tiles: Tiles<F>, job: &Job<'_>, scratch: &mut Scratch<F::C>) {
        let (count, panels) = (self.outputs.len(), self.strip.len());
        scratch.sums[..count * panels].fill(LineF32::zero());
        let parts = count.div_ceil(tiles.rows());
        for part in 0..parts {
            // Nearly equal tiles: a kernel of few rows waits for its own additions.
            let tile = count * part / parts..count * (part + 1) / parts;
            for set in (0..panels).step_by(tiles.panels()) {
                let set = set..panels.min(set + tiles.panels());
                self.add_products(tiles, job, (tile.clone(), set), scratch);
            }
        }
        let columns = self.strip.start * WIDTH..(self.strip.end * WIDTH).min(self.panels.n);
        let sums = &mut scratch.sums[..count * panels];
        <Float<'_> as Output<F::C>>::finish(&self.output, &scratch.scales[..count], columns, sums);
    }

    /// Adds the products of a tile, outputs of the stretch × panels of the strip.
    #[inline(always)]
    fn add_products(
        &self,
        tiles: Tiles<F>,
        job: &Job<'_>,
        (tile, set): (Range<usize>, Range<usize>),
        scratch: &mut Scratch<F::C>,
    ) {
        let (band, [down, stride]) = (self.band, self.band.step);
        let start = self.row * down + (self.outputs.start + tile.start) * stride;
        let panel_stride = self.b.len() / self.strip.len();
        let (rows, panels) = (tile.len(), set.len());
        let acc = &mut scratch.acc[..rows * panels];
        acc.fill(Line::zero());
        for run in self.runs {
            let (a, lines) = (&band.words[start + run.words..], run.lines.len());
            let b = &self.b[set.start * panel_stride + run.lines.start..];
            tiles.add(Tile { a, stride, rows, b, panel_stride, panels, lines }, acc);
        }
        let first = self.row * job.columns.out + self.outputs.start + tile.start;
        let row_parts = &mut scratch.rows[..rows];
        for (row, part) in row_parts.iter_mut().enumerate() {
            *part = F::C::row(band.sums.get(first + row).copied().unwrap_or_default(), band.zero);
        }
        let pitch = self.strip.len();
        let place = Folded { panels: self.panels, first: self.strip.start + set.start, group: 0, pitch };
        fold(&self.output, place, acc, row_parts, &mut scratch.sums[tile.start * pitch + set.start..]);
    }

    /// Writes the finished stretch, channel by channel, from pixel `at` of the result on.
    #[inline(always)]
    fn put(&self, filter: usize, at: usize, scratch: &mut Scratch<F::C>, out: &mut Rectangle<'_, f32>) {
        let (count, pitch) = (self.outputs.len(), self.strip.len());
        let blocks = count.div_ceil(WIDTH);
        let pixels = at + self.outputs.start..at + self.outputs.end;
        for panel in 0..pitch {
            turn(&scratch.sums[panel..count * pitch], pitch, blocks, &mut scratch.turned);
            let first = (self.strip.start + panel) * WIDTH;
            for column in 0..WIDTH.min(self.panels.n - first) {
                let lines = &scratch.turned[column * blocks..(column + 1) * blocks];
                <Float<'_> as Output<F::C>>::put(
                    &self.output,
                    lines,
                    out.row(filter + first + column, pixels.clone()),
                );
            }
        }
    }
}

/// Turns lines of sixteen columns, every `pitch`-th of `sums`, into `blocks` lines for each column.
#[inline(always)]
fn turn(sums: &[LineF32], pitch: usize, blocks: usize, out: &mut [LineF32]) {
    let mut lines = sums.iter().step_by(pitch);
    for block in 0..blocks {
        let mut square = [[0.0; WIDTH]; WIDTH];
        for (row, line) in square.iter_mut().zip(lines.by_ref()) {
            *row = line.0;
        }
        for column in 0..WIDTH {
            let mut line = [0.0; WIDTH];
            for row in 0..WIDTH {
                line[row] = square[row][column];
            }
            out[column * blocks + block].0 = line;
        }
    }
}
