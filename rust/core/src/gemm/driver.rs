//! The loop nest: rows and panels are dealt out to threads, panels are widened where the kernel asks for it,
//! and each tile runs through its groups and its epilogue while it is in the first cache.
//!
//! ```text
//! for each task (a block of rows × a band of panels)      one thread
//!   prepare the rows                                      fits the second cache
//!   for each strip of panels                              widened once for all rows of the block
//!     for each tile of mr rows
//!       for each set of panels that the kernel takes
//!         for each group: kernel, correct, fold           accumulators in registers, sums in the first cache
//!       finish, put
//! ```
//!
//! There is no blocking along k: the sums of a tile stay in registers over a whole group.

use super::epilogue::{Accumulator, Output};
use super::kernel::{Family, Floats, Kernel, Lines, Tile, Word};
use super::panel::{Panels, Staged, Strips, WIDTH};
use super::rows::{Prepare, Refusal, Rows, Source};
use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::mem::{Line, LineF32, Rectangle, zeroed};
use crate::parallel;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of prepared rows that a task works on: they stay in the second cache (512 KiB on Zen 3, 1 MiB on
/// Cascade Lake) beside a panel.
pub(crate) const BLOCK_BYTES: usize = 192 * 1024;

/// Tasks for each thread where there is enough work: a thread that is interrupted hands the rest to the others.
const TASKS_PER_THREAD: usize = 4;

/// Panels of a strip, at least. A tile is finished and written this wide: 256 bytes of a row of float32 at once are
/// few page and cache line crossings, and an activation that loops over hundreds of elements hides its latency.
pub(crate) const STRIP: usize = 4;

/// A product with everything but its kernel.
pub(crate) struct Product<'a, O> {
    pub(crate) source: Source<'a>,
    pub(crate) m: usize,
    pub(crate) panels: &'a Panels,
    pub(crate) output: O,
    pub(crate) isa: Isa,
}

/// Runs the product with the family's best kernel and says whether there was one.
pub(crate) fn multiply<F, O>(product: &Product<'_, O>, out: &mut [O::Element]) -> Result<bool, Error>
where
    F: Family,
    F::A: Prepare<Sum = F::C>,
    F::B: Staged + Default,
    F::C: Accumulator,
    O: Output<F::C>,
{
    let Some(kernel) = F::select(product.isa, product.m) else { return Ok(false) };
    multiply_with::<F, O>(kernel, product, out)?;
    Ok(true)
}

/// Runs the product with the given kernel.
pub(crate) fn multiply_with<F, O>(
    kernel: &KernelOf<F>,
    product: &Product<'_, O>,
    out: &mut [O::Element],
) -> Result<(), Error>
where
    F: Family,
    F::A: Prepare<Sum = F::C>,
    F::B: Staged + Default,
    F::C: Accumulator,
    O: Output<F::C>,
{
    let (m, n) = (product.m, product.panels.n);
    if m == 0 || n == 0 {
        return Ok(());
    }
    let row_bytes = product.panels.groups.padded_k() / F::A::K * size_of::<F::A>();
    let block = (BLOCK_BYTES / row_bytes.max(1)).clamp(4 * kernel.mr, 512).next_multiple_of(kernel.mr);
    // A multiply and an add a nanosecond is slow for m = 1 and fast enough to be a guide.
    let work = m.saturating_mul(n).saturating_mul(product.panels.groups.k) / 32;
    let tasks = tasks(work)?;
    let blocks = m.div_ceil(block);
    let strip = STRIP.next_multiple_of(kernel.panels);
    let bands = tasks.div_ceil(blocks).min(product.panels.count().div_ceil(strip));
    let rows = even_cuts(m, blocks, kernel.mr);
    let columns = even_cuts(n, bands, strip * WIDTH);
    // The flat index of the first element that could not be quantized.
    let refused = AtomicUsize::new(usize::MAX);
    let failure = Mutex::new(None);
    parallel::for_each_rectangle(out, n, rows, columns, work, |rectangle| {
        match kernel.isa.run(Block::<F, O> { kernel, product, rectangle }) {
            Ok(()) => {}
            Err(Refusal::NotFinite(index)) => {
                refused.fetch_min(index, Ordering::Relaxed);
            }
            Err(Refusal::Other(error)) => {
                if let Ok(mut failure) = failure.lock() {
                    *failure = Some(error);
                }
            }
        }
    })?;
    if let Some(error) = failure.into_inner().unwrap_or_default() {
        return Err(error);
    }
    match (refused.into_inner(), product.source) {
        (first, Source::PerToken(x, _) | Source::Static(x, _)) if first != usize::MAX => {
            Err(Error::NotFinite { what: "x", count: x.iter().filter(|x| !x.is_finite()).count(), first })
        }
        _ => Ok(()),
    }
}

/// Tasks for work of this many nanoseconds.
pub(crate) fn tasks(work: usize) -> Result<usize, Error> {
    let threads = parallel::threads()?;
    Ok(if work < 1_000_000 { threads } else { TASKS_PER_THREAD * threads })
}

/// Cut points that divide `len` into at most `parts` nearly equal parts, each a multiple of `unit` but the last.
pub(crate) fn even_cuts(len: usize, parts: usize, unit: usize) -> Vec<usize> {
    let units = len.div_ceil(unit);
    let parts = parts.clamp(1, units.max(1));
    (0..=parts).map(|part| (units * part / parts * unit).min(len)).collect()
}

type KernelOf<F> = Kernel<<F as Family>::A, <F as Family>::B, <F as Family>::C>;

/// One task.
struct Block<'a, F: Family, O: Output<F::C>> {
    kernel: &'a KernelOf<F>,
    product: &'a Product<'a, O>,
    rectangle: Rectangle<'a, O::Element>,
}

impl<F, O> Op for Block<'_, F, O>
where
    F: Family,
    F::A: Prepare<Sum = F::C>,
    F::B: Staged + Default,
    F::C: Accumulator,
    O: Output<F::C>,
{
    type Output = Result<(), Refusal>;
    const ISAS: u8 = F::ISAS;

    #[inline(always)]
    fn run(mut self) -> Self::Output {
        let (kernel, panels) = (self.kernel, self.product.panels);
        let rows = F::A::prepare(self.product.source, self.rectangle.rows.clone(), panels)?;
        let strip = STRIP.next_multiple_of(kernel.panels);
        let mut strips = Strips::<F::B>::new(panels, strip)?;
        let mut scratch = Scratch {
            acc: zeroed(kernel.mr * kernel.panels)?,
            rows: zeroed(kernel.mr)?,
            sums: zeroed(kernel.mr * strip)?,
        };
        let (first, last) =
            (self.rectangle.columns.start / WIDTH, self.rectangle.columns.end.div_ceil(WIDTH));
        for panel in (first..last).step_by(strip) {
            let count = strip.min(last - panel);
            let b = strips.lines_of(panel..panel + count);
            self.strip(&rows, b, panel..panel + count, &mut scratch);
        }
        Ok(())
    }
}

/// Buffers of one tile.
struct Scratch<C: Accumulator, S> {
    /// What the kernel adds to.
    acc: Vec<Line<C, 16>>,
    /// What the correction knows of each row.
    rows: Vec<C::Row>,
    /// `[row][panel of the strip]`: what the groups add up to.
    sums: Vec<Line<S, 16>>,
}

impl<F, O> Block<'_, F, O>
where
    F: Family,
    F::A: Prepare<Sum = F::C>,
    F::C: Accumulator,
    O: Output<F::C>,
{
    /// All row tiles of a strip.
    #[inline(always)]
    fn strip(
        &mut self,
        rows: &Rows<'_, F::A, F::C>,
        b: &[F::B],
        strip: Range<usize>,
        scratch: &mut Scratch<F::C, O::Sum>,
    ) {
        let (kernel, panels) = (self.kernel, self.product.panels);
        let lines = b.len() / strip.len();
        let columns = strip.start * WIDTH..(strip.end * WIDTH).min(panels.n);
        for start in (0..self.rectangle.rows.len()).step_by(kernel.mr) {
            let tile = start..self.rectangle.rows.len().min(start + kernel.mr);
            scratch.sums[..tile.len() * strip.len()].fill(Line::zero());
            for first in (0..strip.len()).step_by(kernel.panels) {
                let set = first..strip.len().min(first + kernel.panels);
                let b = &b[set.start * lines..set.end * lines];
                let part = Part { rows: tile.clone(), strip: strip.clone(), set };
                self.add_products(rows, b, &part, scratch);
            }
            let sums = &mut scratch.sums[..tile.len() * strip.len()];
            self.product.output.finish(&rows.scale[tile.clone()], columns.clone(), sums);
            for (row, sums) in tile.zip(sums.chunks_exact(strip.len())) {
                let out = self.rectangle.row(self.rectangle.rows.start + row, columns.clone());
                self.product.output.put(sums, out);
            }
        }
    }

    /// Adds the products of a part to the sums of its tile, `[row][panel]`, group by group.
    #[inline(always)]
    fn add_products(
        &self,
        rows: &Rows<'_, F::A, F::C>,
        b: &[F::B],
        part: &Part,
        scratch: &mut Scratch<F::C, O::Sum>,
    ) {
        let panels = self.product.panels;
        let groups = panels.groups;
        let count = groups.count();
        let (start, width) = (part.rows.start, part.set.len());
        let panel_stride = b.len() / width;
        let acc = &mut scratch.acc[..part.rows.len() * width];
        let row_parts = &mut scratch.rows[..part.rows.len()];
        for group in 0..count {
            let k = groups.padded(group);
            acc.fill(Line::zero());
            let tile = Tile {
                a: &rows.words[start * rows.stride + k.start / F::A::K..],
                stride: rows.stride,
                rows: part.rows.len(),
                b: &b[k.start / F::B::K..],
                panel_stride,
                panels: width,
                lines: k.len() / F::B::K,
            };
            // SAFETY: kernels only ask for the features of their instruction set, and `Family::select` hands out
            // none that this CPU lacks.
            unsafe { (self.kernel.tile)(tile, acc) };
            for (row, part) in part.rows.clone().zip(row_parts.iter_mut()) {
                let sum = rows.sums.get(row * count + group).copied().unwrap_or_default();
                *part = F::C::row(sum, rows.zero[row]);
            }
            let sums = &mut scratch.sums[part.set.start..];
            let at =
                Folded { panels, first: part.strip.start + part.set.start, group, pitch: part.strip.len() };
            fold(&self.product.output, at, acc, row_parts, sums);
        }
    }
}

/// Where products belong.
pub(crate) struct Folded<'a> {
    pub(crate) panels: &'a Panels,
    /// The first panel.
    pub(crate) first: usize,
    pub(crate) group: usize,
    /// Lines of sums from one row to the next.
    pub(crate) pitch: usize,
}

/// Frees the products of a tile, `[row][panel]`, of zero points and adds them, scaled, to the sums.
#[inline(always)]
pub(crate) fn fold<C: Accumulator, O: Output<C>>(
    output: &O,
    place: Folded<'_>,
    products: &[Line<C, 16>],
    rows: &[C::Row],
    sums: &mut [Line<O::Sum, 16>],
) {
    let Folded { panels, first, group, pitch } = place;
    let width = products.len() / rows.len();
    for panel in 0..width {
        let at = (first + panel) * panels.groups.count() + group;
        let (scale, columns) = (panels.scale[at].0, panels.offsets.at(at));
        for (row, row_part) in rows.iter().enumerate() {
            let products = C::correct(&products[row * width + panel], columns, row_part);
            output.fold(products, &scale, &mut sums[row * pitch + panel]);
        }
    }
}

/// What one kernel call covers.
struct Part {
    /// Rows of the tile, counted in the block.
    rows: Range<usize>,
    /// Panels of the strip, counted in the weight.
    strip: Range<usize>,
    /// Panels of the call, counted in the strip.
    set: Range<usize>,
}

/// A kernel that this CPU runs, for operations with loops of their own.
pub(crate) struct Tiles<F: Family>(&'static KernelOf<F>);

/// Plain float32 products for operations that bring their own panels, as attention does.
pub(crate) type FloatTiles = Tiles<Floats>;

impl<F: Family> Clone for Tiles<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Family> Copy for Tiles<F> {}

impl<F: Family> Tiles<F> {
    /// The instruction sets it is compiled for.
    pub(crate) const ISAS: u8 = F::ISAS;

    /// The best kernel for `m` rows, if the family has one here.
    pub(crate) fn select(isa: Isa, m: usize) -> Option<Tiles<F>> {
        F::select(isa, m).map(Tiles)
    }

    /// Every kernel of the family that this CPU runs.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Tiles<F>> {
        F::TABLE.iter().filter(|row| row.isa.supported()).map(Tiles)
    }

    /// The instruction set of the kernel.
    pub(crate) fn isa(self) -> Isa {
        self.0.isa
    }

    /// The most rows of a tile.
    pub(crate) fn rows(self) -> usize {
        self.0.mr
    }

    /// The most panels of a tile.
    pub(crate) fn panels(self) -> usize {
        self.0.panels
    }

    /// Adds the products of a tile to `acc`, `[row][panel]`.
    #[inline(always)]
    pub(crate) fn add(self, tile: Tile<'_, F::A, F::B>, acc: &mut [Line<F::C, 16>]) {
        // SAFETY: as in `Block::add_products`: only `select` and `all` make this value, of kernels whose features
        // this CPU has.
        unsafe { (self.0.tile)(tile, acc) };
    }
}

impl FloatTiles {
    /// The best kernel for `m` rows.
    ///
    /// # Errors
    /// No kernel runs here, which the portable row rules out.
    pub(crate) fn new(isa: Isa, m: usize) -> Result<FloatTiles, Error> {
        let missing = || Error::Unknown { what: "isa", got: isa.name().to_owned(), known: Vec::new() };
        Self::select(isa, m).ok_or_else(missing)
    }

    /// Adds the products of `rows` rows of `a`, `stride` apart, with `panels` panels of `lines` lines to `acc`, where
    /// row `r` and panel `p` stand at `r · panels + p`.
    #[inline(always)]
    pub(crate) fn multiply_add(
        self,
        (a, stride, rows): (&[f32], usize, usize),
        (b, lines, panels): (&[LineF32], usize, usize),
        acc: &mut [LineF32],
    ) {
        self.add(Tile { a, stride, rows, b, panel_stride: lines, panels, lines }, acc);
    }
}
