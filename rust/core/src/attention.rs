//! Scaled dot-product attention in float32, a few heads of one batch entry for each task.
//!
//! ```text
//! for each task (some heads of one batch entry)           one thread
//!   for each group of heads                               panels fit the second cache
//!     keys and values into panels
//!     for each block of query rows, for each head         scores fit the first cache
//!       for each set of key panels, for each tile         products with q
//!       for each row                                      scores, their maximum, powers and their sum
//!       for each set of value panels, for each tile       products with the weights
//!       for each row                                      divided by the sum
//! ```
//!
//! Scores are in units of log 2, so that a power of two makes weights of them. It is not the weights that are
//! divided by their sum but the results, which are fewer.

use crate::error::Error;
use crate::gemm::FloatTiles;
use crate::isa::{Isa, Op};
use crate::math::{LANES, added, at_least, exp2_fused, join, larger, largest};
use crate::mem::{Line, LineF32, Rectangle, zeroed};
use crate::parallel;
use std::f32::consts::LOG2_E;
use std::ops::Range;
use std::sync::Mutex;

/// Columns of a panel.
const WIDTH: usize = LANES;

/// Scores of a block of rows, where that is several tiles: 12 KiB, and as much for the products they come from.
const BLOCK: usize = 3 * 1024;

/// Tiles of a block, at least: each reads the panels of its head once, from the second cache or beyond.
const TILES: usize = 4;

/// Lines of panels that a group of heads has, where that is several heads: 128 KiB, a quarter of the second cache of
/// Zen 3. Neighbouring heads are neighbours in memory: one head at a time took 7 % longer.
const GROUP: usize = 2 * 1024;

/// Tasks for each thread where there are enough heads: a thread that is interrupted hands the rest to the others.
const TASKS_PER_THREAD: usize = 4;

/// The sizes of an [`attention`] and what its scores are subject to.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Entries of the batch.
    pub batch: usize,
    /// Rows of q in each entry.
    pub queries: usize,
    /// Rows of k and v in each entry.
    pub keys: usize,
    /// Elements of a row, all heads side by side.
    pub width: usize,
    /// Heads that share the width evenly.
    pub heads: usize,
    /// What the dot products are multiplied with, commonly 1/√(width/heads).
    pub scale: f32,
    /// Added to the scores of a key, (batch, keys): 0 to attend, −∞ not to.
    pub mask: Option<&'a [f32]>,
}

/// `out = softmax(q · kᵀ · scale + mask) · v` for each head and batch entry, q and out (batch, queries, width),
/// k and v (batch, keys, width).
///
/// With `t = (q · kᵀ) · (scale · log₂ e) + mask · log₂ e` and `w = 2^(t − max t)` the result is `(w · v) · (1 / Σ w)`.
/// Both products run in one chain of fused steps over ascending head columns and keys, the sum of the weights as
/// lane sum; so the bits depend neither on the instruction set nor on the number of threads. A power is within
/// 2.5 ulp; weights below 2⁻¹²⁶ of the largest are 0. A finite mask stays finite: where every key has the
/// lowest float32 as mask, all get the same weight. A query that may attend to no key gives zeros. Sums of |v| beyond
/// float32 overflow, though their mean would not.
///
/// ```
/// use qrs_core::{Attention, attention};
/// let size = Attention { batch: 1, queries: 1, keys: 2, width: 1, heads: 1, scale: 1.0, mask: None };
/// let mut out = [0.0];
/// attention(&[0.0], &[5.0, -5.0], &[1.0, 3.0], size, &mut out)?;
/// assert_eq!(out, [2.0]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// Lengths that do not fit the sizes; heads that do not divide the width.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], size: Attention<'_>, out: &mut [f32]) -> Result<(), Error> {
    attention_on(Isa::active()?, [q, k, v], size, out)
}

fn attention_on(isa: Isa, qkv: [&[f32]; 3], size: Attention<'_>, out: &mut [f32]) -> Result<(), Error> {
    let Attention { batch, queries, keys, width, heads, .. } = size;
    size.check(qkv, out)?;
    if out.is_empty() || keys == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let tiles = FloatTiles::new(isa, queries)?;
    let rows = (0..=batch).map(|entry| entry * queries).collect();
    let bands = (TASKS_PER_THREAD * parallel::threads()?).div_ceil(batch).min(heads);
    let columns = (0..=bands).map(|band| heads * band / bands * (width / heads)).collect();
    // Two products of 48 multiplications a nanosecond, and half a nanosecond for each weight.
    let nanoseconds = batch * queries * keys * (width + 12 * heads) / 24;
    let failure = Mutex::new(None);
    parallel::for_each_rectangle(out, width, rows, columns, nanoseconds, |out| {
        if let Err(error) = tiles.isa().run(Heads { qkv, size, tiles, out })
            && let Ok(mut failure) = failure.lock()
        {
            *failure = Some(error);
        }
    })?;
    failure.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

impl Attention<'_> {
    fn check(&self, qkv: [&[f32]; 3], out: &[f32]) -> Result<(), Error> {
        let Attention { batch, queries, keys, width, heads, mask, .. } = *self;
        if heads == 0 || width % heads != 0 {
            let expected = format!("a divisor of the width {width}");
            return Err(Error::Value { what: "heads", got: heads.to_string(), expected });
        }
        let lengths = [
            ("q", qkv[0].len(), [batch, queries, width]),
            ("k", qkv[1].len(), [batch, keys, width]),
            ("v", qkv[2].len(), [batch, keys, width]),
            ("out", out.len(), [batch, queries, width]),
            ("mask", mask.map_or(batch * keys, <[f32]>::len), [batch, keys, 1]),
        ];
        for (what, got, shape) in lengths {
            if shape.iter().product::<usize>() != got {
                return Err(Error::Shape { what, got: vec![got], expected: format!("{shape:?} elements") });
            }
        }
        Ok(())
    }
}

/// One task: some heads of one batch entry.
struct Heads<'a> {
    qkv: [&'a [f32]; 3],
    size: Attention<'a>,
    tiles: FloatTiles,
    out: Rectangle<'a, f32>,
}

impl Op for Heads<'_> {
    type Output = Result<(), Error>;
    const ISAS: u8 = FloatTiles::ISAS;

    #[inline(always)]
    fn run(mut self) -> Result<(), Error> {
        let Attention { queries, keys, width, heads, scale, mask, .. } = self.size;
        let (depth, entry) = (width / heads, self.out.rows.start / queries);
        let [q, k, v] = self.qkv;
        let q = &q[entry * queries * width..][..queries * width];
        let [k, v] = [k, v].map(|x| &x[entry * keys * width..][..keys * width]);
        let padded = keys.next_multiple_of(WIDTH);
        let factor = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        let bias = bias(mask.map(|mask| &mask[entry * keys..][..keys]), keys, padded)?;
        let tiles = queries.div_ceil(self.tiles.rows());
        let step = (BLOCK / (self.tiles.rows() * padded)).max(TILES).min(tiles);
        let cuts = Cuts { height: queries / tiles, taller: queries % tiles };
        let (k_lines, v_lines) = (padded / WIDTH * depth, depth.div_ceil(WIDTH) * keys);
        let group = (GROUP / (k_lines + v_lines)).clamp(1, self.out.columns.len() / depth);
        let mut k_panels = zeroed(group * k_lines)?;
        let mut v_panels = zeroed(group * v_lines)?;
        let mut block = Block::new(self.tiles, step * self.tiles.rows(), padded, v_lines / keys)?;
        let Range { start, end } = self.out.columns;
        for start in (start..end).step_by(group * depth) {
            let columns = start..end.min(start + group * depth);
            key_panels(k, width, columns.clone(), depth, &mut k_panels);
            value_panels(v, width, columns.clone(), depth, &mut v_panels);
            for tile in (0..tiles).step_by(step) {
                block.cut(cuts, tile..tiles.min(tile + step));
                let panels = k_panels.chunks_exact(k_lines).zip(v_panels.chunks_exact(v_lines));
                for (start, (k_panels, v_panels)) in columns.clone().step_by(depth).zip(panels) {
                    block.scores((&q[start..], width), (k_panels, depth));
                    block.weights(factor, &bias);
                    block.values((v_panels, keys));
                    block.write(&mut self.out, entry * queries, start..start + depth);
                }
            }
        }
        Ok(())
    }
}

/// How the query rows are cut into tiles: all of nearly equal height, since one of few rows would keep the
/// multipliers waiting for its sums.
#[derive(Clone, Copy)]
struct Cuts {
    height: usize,
    /// The first tiles, which have one more row.
    taller: usize,
}

impl Cuts {
    /// The first row of tile `tile`.
    #[inline(always)]
    fn row(self, tile: usize) -> usize {
        self.height * tile + self.taller.min(tile)
    }
}

/// A block of query rows of one head.
struct Block {
    kernel: FloatTiles,
    cuts: Cuts,
    tiles: Range<usize>,
    /// The query rows of these tiles.
    rows: Range<usize>,
    /// Products as they come from the kernel: for each set of panels, for each row, for each panel one line.
    products: Vec<LineF32>,
    /// Scores, then weights, `padded` for each row. Rows start on cache lines, the first one with element `first`.
    weights: Vec<f32>,
    first: usize,
    padded: usize,
    /// The largest score of each row.
    tops: Vec<f32>,
    /// One over the sum of the weights of each row.
    inverses: Vec<f32>,
}

impl Block {
    /// Room for `rows` rows of `padded` weights and `panels` panels of results.
    #[inline(always)]
    fn new(kernel: FloatTiles, rows: usize, padded: usize, panels: usize) -> Result<Block, Error> {
        let weights = zeroed::<f32>(rows * padded + WIDTH - 1)?;
        Ok(Block {
            kernel,
            cuts: Cuts { height: 0, taller: 0 },
            tiles: 0..0,
            rows: 0..0,
            products: zeroed(rows * panels.max(padded / WIDTH))?,
            first: weights.as_ptr().align_offset(align_of::<LineF32>()).min(WIDTH - 1),
            weights,
            padded,
            tops: zeroed(rows)?,
            inverses: zeroed(rows)?,
        })
    }

    /// Turns to other rows.
    #[inline(always)]
    fn cut(&mut self, cuts: Cuts, tiles: Range<usize>) {
        self.rows = cuts.row(tiles.start)..cuts.row(tiles.end);
        (self.cuts, self.tiles) = (cuts, tiles);
    }

    /// The products of the rows with the keys; rows of `q` are `stride` apart, panels `depth` lines long.
    #[inline(always)]
    fn scores(&mut self, (q, stride): (&[f32], usize), k: (&[LineF32], usize)) {
        let q = &q[self.rows.start * stride..];
        multiply(self.kernel, (self.cuts, self.tiles.clone()), (q, stride), k, &mut self.products);
    }

    /// Where the products with panel `panel` of `count` stand: the line of the first row, and lines from row to row.
    #[inline(always)]
    fn place(&self, panel: usize, count: usize) -> (usize, usize) {
        let panels = self.kernel.panels();
        let set = panel / panels * panels;
        (set * self.rows.len() + panel - set, panels.min(count - set))
    }

    /// Makes weights of the scores.
    #[inline(always)]
    fn weights(&mut self, factor: f32, bias: &[LineF32]) {
        let (rows, count) = (self.rows.len(), bias.len());
        // Each step runs over the whole block: while the lanes of one row are joined, its neighbours are worked on.
        for (panel, bias) in bias.iter().enumerate() {
            let (first, step) = self.place(panel, count);
            let lines = self.weights[self.first..].as_chunks_mut::<LANES>().0;
            for row in 0..rows {
                lines[row * count + panel] = score(self.products[first + row * step].0, factor, bias.0);
            }
        }
        let weights = &mut self.weights[self.first..][..rows * self.padded];
        for (weights, top) in weights.chunks_exact(self.padded).zip(&mut self.tops) {
            let mut tops = [f32::NEG_INFINITY; LANES];
            for line in weights.as_chunks().0 {
                tops = largest(tops, *line);
            }
            let largest_score = join(std::hint::black_box(tops), larger);
            // −∞ − −∞ would be NaN.
            *top = if largest_score == f32::NEG_INFINITY { 0.0 } else { largest_score };
        }
        let tops = self.tops.iter().zip(&mut self.inverses);
        for (weights, (top, inverse)) in weights.chunks_exact_mut(self.padded).zip(tops) {
            let mut sums = [0.0; LANES];
            for line in weights.as_chunks_mut().0 {
                *line = powers(*line, *top);
                sums = added(sums, *line);
            }
            let sum = join(std::hint::black_box(sums), |a, b| a + b);
            // At least 1, since the largest score gave 1, unless there was none.
            *inverse = if sum == 0.0 { 1.0 } else { 1.0 / sum };
        }
    }

    /// The products of the weights with the values, panels of `keys` lines.
    #[inline(always)]
    fn values(&mut self, v: (&[LineF32], usize)) {
        let weights = (&self.weights[self.first..], self.padded);
        multiply(self.kernel, (self.cuts, self.tiles.clone()), weights, v, &mut self.products);
    }

    /// Divides the products by the sums of the weights and writes them to columns `columns`, from row `top` on.
    #[inline(always)]
    fn write(&self, out: &mut Rectangle<'_, f32>, top: usize, columns: Range<usize>) {
        let count = columns.len().div_ceil(WIDTH);
        for panel in 0..count {
            let (first, step) = self.place(panel, count);
            let start = columns.start + panel * WIDTH;
            let columns = start..columns.end.min(start + WIDTH);
            for (row, inverse) in self.rows.clone().zip(&self.inverses) {
                let y = scaled(self.products[first + (row - self.rows.start) * step].0, *inverse);
                let out = out.row(top + row, columns.clone());
                // A copy of known length is a move, one of unknown length a call.
                match out.first_chunk_mut() {
                    Some(out) => *out = y,
                    None => out.copy_from_slice(&y[..out.len()]),
                }
            }
        }
    }
}

/// The products of the rows of some tiles, the first of which is row 0 of `a`, with panels of `lines` lines; see
/// [`Block`] for the order of the result.
#[inline(always)]
fn multiply(
    kernel: FloatTiles,
    (cuts, tiles): (Cuts, Range<usize>),
    (a, stride): (&[f32], usize),
    (b, lines): (&[LineF32], usize),
    out: &mut [LineF32],
) {
    let top = cuts.row(tiles.start);
    let rows = cuts.row(tiles.end) - top;
    let count = b.len() / lines;
    out[..rows * count].fill(Line::zero());
    // A set of panels stays in the first cache for all tiles.
    for panel in (0..count).step_by(kernel.panels()) {
        let panels = kernel.panels().min(count - panel);
        let b = &b[panel * lines..][..panels * lines];
        let out = &mut out[panel * rows..][..panels * rows];
        for tile in tiles.clone() {
            let (start, end) = (cuts.row(tile) - top, cuts.row(tile + 1) - top);
            let out = &mut out[start * panels..end * panels];
            kernel.multiply_add((&a[start * stride..], stride, end - start), (b, lines, panels), out);
        }
    }
}

// Steps on whole lines, by value: on references the compiler cannot rule out that they overlap.

#[inline(always)]
fn score(products: [f32; LANES], factor: f32, bias: [f32; LANES]) -> [f32; LANES] {
    let mut scores = [0.0; LANES];
    for i in 0..LANES {
        scores[i] = products[i] * factor + bias[i];
    }
    scores
}

#[inline(always)]
fn powers(mut line: [f32; LANES], top: f32) -> [f32; LANES] {
    for x in &mut line {
        *x = exp2_fused(at_least(*x - top, -127.0));
    }
    line
}

#[inline(always)]
fn scaled(mut line: [f32; LANES], factor: f32) -> [f32; LANES] {
    for x in &mut line {
        *x *= factor;
    }
    line
}

/// The mask in units of log 2: finite where the mask is, and −∞ for the keys that only fill the last panel.
fn bias(mask: Option<&[f32]>, keys: usize, padded: usize) -> Result<Vec<LineF32>, Error> {
    let mut bias = zeroed::<LineF32>(padded / WIDTH)?;
    for key in 0..padded {
        let mask = if key < keys { mask.map_or(0.0, |mask| mask[key]) } else { f32::NEG_INFINITY };
        let log = mask * LOG2_E;
        bias[key / WIDTH].0[key % WIDTH] = if mask.is_finite() { log.clamp(f32::MIN, f32::MAX) } else { log };
    }
    Ok(bias)
}

/// Panels of sixteen keys, one line for each column of the head. The last key fills its panel: whatever its score
/// is, −∞ or NaN come of it with a bias of −∞, and NaN is then in its row anyway.
#[inline(always)]
fn key_panels(k: &[f32], width: usize, columns: Range<usize>, depth: usize, panels: &mut [LineF32]) {
    /// Rows that are read together: as many as there are registers for their addresses.
    const ROWS: usize = 8;
    let keys = k.len() / width;
    let size = keys.div_ceil(WIDTH) * depth;
    for number in 0..keys.div_ceil(WIDTH) {
        for (start, panels) in columns.clone().step_by(depth).zip(panels.chunks_exact_mut(size)) {
            let lines = &mut panels[number * depth..][..depth];
            for part in 0..WIDTH / ROWS {
                let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
                for (i, row) in rows.iter_mut().enumerate() {
                    let key = (number * WIDTH + part * ROWS + i).min(keys - 1);
                    *row = &k[key * width + start..][..depth];
                }
                for column in 0..depth {
                    // With an index it knows, the compiler makes scatters of this on AVX-512, which take 16 cycles
                    // and more for as many elements.
                    let column = std::hint::black_box(column);
                    for (i, row) in rows.iter().enumerate() {
                        lines[column].0[part * ROWS + i] = row[column];
                    }
                }
            }
        }
    }
}

/// Panels of sixteen columns of a head, one line for each key; columns beyond the head stay as they are.
#[inline(always)]
fn value_panels(v: &[f32], width: usize, columns: Range<usize>, depth: usize, panels: &mut [LineF32]) {
    let keys = v.len() / width;
    for (key, row) in v.chunks_exact(width).enumerate() {
        let parts = row[columns.clone()].chunks(depth).flat_map(|head| head.chunks(WIDTH));
        for (number, part) in parts.enumerate() {
            let line = &mut panels[number * keys + key].0;
            match part.first_chunk() {
                Some(part) => *line = *part,
                None => line[..part.len()].copy_from_slice(part),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// The definition in float64.
    fn exact([q, k, v]: [&[f32]; 3], s: Attention<'_>) -> Vec<f64> {
        let d = s.width / s.heads;
        let mut out = vec![0.0; q.len()];
        for (b, i, h) in
            (0..s.batch).flat_map(|b| (0..s.queries).flat_map(move |i| (0..s.heads).map(move |h| (b, i, h))))
        {
            let at = |x: &[f32], rows: usize, row: usize, c: usize| {
                f64::from(x[(b * rows + row) * s.width + h * d + c])
            };
            let scores: Vec<f64> = (0..s.keys)
                .map(|j| {
                    let dot: f64 = (0..d).map(|c| at(q, s.queries, i, c) * at(k, s.keys, j, c)).sum();
                    dot * f64::from(s.scale) + s.mask.map_or(0.0, |mask| f64::from(mask[b * s.keys + j]))
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> =
                scores.iter().map(|x| if *x == f64::NEG_INFINITY { 0.0 } else { (x - top).exp() }).collect();
            let total: f64 = powers.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..s.keys).map(|j| powers[j] * at(v, s.keys, j, c)).sum();
                out[(b * s.queries + i) * s.width + h * d + c] = if total > 0.0 { sum / total } else { 0.0 };
            }
        }
        out
    }

    #[test]
    fn attention_is_the_definition_with_the_same_bits_on_every_instruction_set() {
        // The last one is several blocks of rows and, with its batch, several groups of heads in a task.
        for (batch, queries, keys, width, heads) in [
            (2, 1, 1, 1, 1),
            (2, 5, 17, 24, 3),
            (2, 13, 40, 64, 2),
            (2, 7, 16, 20, 1),
            (2, 3, 0, 4, 2),
            (16, 70, 130, 120, 6),
        ] {
            let q = numbers(batch * queries * width, 1);
            let (k, v) = (numbers(batch * keys * width, 2), numbers(batch * keys * width, 3));
            let mut mask = vec![0.0; batch * keys];
            // The second half of the entries sees nothing, the one before not its last key.
            mask.iter_mut().skip((batch * keys / 2).saturating_sub(1)).for_each(|m| *m = f32::NEG_INFINITY);
            for mask in [None, Some(&mask[..])] {
                let size = Attention { batch, queries, keys, width, heads, scale: 0.7, mask };
                let expected = exact([&q, &k, &v], size);
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; q.len()];
                    attention_on(isa, [&q, &k, &v], size, &mut out).unwrap();
                    for (got, expected) in out.iter().zip(&expected) {
                        assert!((f64::from(*got) - expected).abs() < 3e-6, "{size:?}: {got} {expected}");
                    }
                    assert_eq!(*first.get_or_insert(out.clone()), out, "{isa:?}");
                }
            }
        }
    }

    /// Attention of one entry and one head on every instruction set, which agree to the bit, NaN being NaN.
    fn one_head(q: &[f32], k: &[f32], v: &[f32], keys: usize, mask: Option<&[f32]>) -> Vec<f32> {
        let width = k.len() / keys;
        let queries = q.len() / width;
        let size = Attention { batch: 1, queries, keys, width, heads: 1, scale: 0.5, mask };
        let on = |isa| {
            let mut out = vec![9.0; q.len()];
            attention_on(isa, [q, k, v], size, &mut out).unwrap();
            out
        };
        let out = on(Isa::Portable);
        let bits = |out: &[f32]| -> Vec<Option<u32>> {
            out.iter().map(|y| (!y.is_nan()).then_some(y.to_bits())).collect()
        };
        assert!(Isa::available().into_iter().all(|isa| bits(&on(isa)) == bits(&out)));
        out
    }

    #[test]
    fn masks_have_one_answer() {
        let (keys, width) = (21, 5);
        let (q, k, v) = (numbers(7 * width, 1), numbers(keys * width, 2), numbers(keys * width, 3));
        // One open key gives its values, whatever stands in the others.
        let mut mask = vec![f32::NEG_INFINITY; keys];
        mask[18] = 0.25;
        let out = one_head(&q, &k, &v, keys, Some(&mask));
        assert!(out.chunks(width).all(|row| *row == v[18 * width..][..width]));
        // The lowest number is a number: where all keys have it, all have the same weight.
        let out = one_head(&q, &k, &v, keys, Some(&vec![f32::MIN; keys]));
        let equal = one_head(&vec![0.0; q.len()], &k, &v, keys, None);
        assert_eq!(out, equal);
        // Beside a key without it, it closes.
        let lowest: Vec<f32> = mask.iter().map(|m| m.max(f32::MIN)).collect();
        assert_eq!(one_head(&q, &k, &v, keys, Some(&lowest)), one_head(&q, &k, &v, keys, Some(&mask)));
        assert_eq!(one_head(&q, &k, &v, keys, Some(&vec![f32::NEG_INFINITY; keys])), vec![0.0; q.len()]);
        mask[3] = f32::NAN;
        assert!(one_head(&q, &k, &v, keys, Some(&mask)).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row() {
        let inf = f32::INFINITY;
        // Sixteen keys fill a panel, seventeen leave the next one to copies of the last.
        for keys in [1, 16, 17] {
            let (k, v) = (vec![1.0; keys * 2], numbers(keys * 2, 3));
            let q = [[0.0, 0.0], [f32::NAN, 0.0], [inf, 0.0], [-inf, 0.0], [-1e38, -3e38], [1.0, 2.0]];
            let out = one_head(q.as_flattened(), &k, &v, keys, None);
            let rows = out.as_chunks::<2>().0;
            assert!(rows[1..3].as_flattened().iter().all(|y| y.is_nan()), "{rows:?}");
            // Scores of −∞ alone: no key is open.
            assert_eq!(rows[3..5], [[0.0; 2]; 2]);
            assert_eq!(rows[0], rows[5]);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let size = Attention { batch: 1, queries: 1, keys: 1, width: 4, heads: 3, scale: 1.0, mask: None };
        let x = [0.0; 4];
        let error = attention(&x, &x, &x, size, &mut [0.0; 4]).unwrap_err().to_string();
        assert_eq!(error, "heads is 3, expected a divisor of the width 4");
        let error = attention(&x, &x[..3], &x, Attention { heads: 2, ..size }, &mut [0.0; 4]).unwrap_err();
        assert!(error.to_string().starts_with("k has shape (3,)"), "{error}");
    }
}
