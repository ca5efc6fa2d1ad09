//! Reductions over the cells of a grid: what observers and error measures stand on.
//!
//! Sums of floats depend on their order, so the order is fixed here: an array is cut into chunks of [`CHUNK`]
//! elements; a run within a chunk is added up in [`LANES`] interleaved sums that are joined pairwise, and the
//! elements that do not fill the lanes follow one by one; the runs of a cell are joined in ascending order. Threads
//! and vectors only decide who does the work: results have the same bits for any number of threads and any
//! instruction set. Extremes have no order and take wider lanes.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::finite::{Census, INFINITE, magnitude};
use crate::grid::{Cell, Grid};
use crate::isa::{Isa, Op};
use crate::parallel;
use std::array::from_fn;
use std::hint::black_box;
use std::ops::Range;

/// Elements of a chunk; part of what a sum is.
const CHUNK: usize = 1 << 16;
/// Interleaved partial results of a run; part of what a sum is.
const LANES: usize = 8;
/// Interleaved extremes of a run: min and max take one cycle each, so four vectors of them keep up with the first
/// cache.
const WIDE: usize = 32;
/// Elements of a run that are gone through once for each number, and so stay in the first cache.
const TILE: usize = 1024;
/// Chunks whose results are held at a time.
const ROUND: usize = 64;

/// `K` numbers that sum up elements. Reductions of one array take it as both `x` and `y`.
///
/// The numbers are made one by one, not as a whole, so that the lanes of each are vectors of one operation.
trait Summary<const K: usize>: Sized {
    /// The type of the numbers.
    type Number: Copy + Send + Sync;
    /// The numbers of no element.
    const NOTHING: [Self::Number; K];
    /// Number `k` of one element.
    fn of(k: usize, x: f32, y: f32) -> Self::Number;
    /// Number `k` of the elements of both.
    fn join(k: usize, a: Self::Number, b: Self::Number) -> Self::Number;

    /// The summary of a run, and whether all of `x` is finite; sums are not asked and say yes.
    #[inline(always)]
    fn run(x: &[f32], y: &[f32]) -> ([Self::Number; K], bool) {
        (summary::<Self, K>(x, y), true)
    }
}

#[inline(always)]
fn smaller<T: PartialOrd>(a: T, b: T) -> T {
    if b < a { b } else { a }
}

#[inline(always)]
fn larger<T: PartialOrd>(a: T, b: T) -> T {
    if b > a { b } else { a }
}

/// `[lo, hi]`. NaN is passed over.
struct Extremes;

impl Summary<2> for Extremes {
    type Number = f32;
    const NOTHING: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

    #[inline(always)]
    fn of(_: usize, x: f32, _: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn join(k: usize, a: f32, b: f32) -> f32 {
        if k == 0 { smaller(a, b) } else { larger(a, b) }
    }

    #[inline(always)]
    fn run(x: &[f32], _: &[f32]) -> ([f32; 2], bool) {
        if x.len() < WIDE {
            // Not worth the lanes.
            let top = x.iter().fold(0, |top, x| magnitude(*x).max(top));
            return (summary::<Self, 2>(x, x), top < INFINITE);
        }
        let mut seen = ([f32::INFINITY; WIDE], [f32::NEG_INFINITY; WIDE], [0; WIDE]);
        let (lines, rest) = x.as_chunks::<WIDE>();
        for line in lines {
            seen = extent(seen, *line);
        }
        if let Some(&first) = rest.first() {
            // An element that is there may be there twice.
            let mut last = [first; WIDE];
            last[..rest.len()].copy_from_slice(rest);
            seen = extent(seen, last);
        }
        let (mut lo, mut hi, top) = seen;
        let mut half = WIDE / 2;
        while half > 0 {
            let (lower, upper) = lo.split_at_mut(half);
            for (lo, upper) in lower.iter_mut().zip(upper) {
                *lo = smaller(*lo, *upper);
            }
            let (lower, upper) = hi.split_at_mut(half);
            for (hi, upper) in lower.iter_mut().zip(upper) {
                *hi = larger(*hi, *upper);
            }
            half /= 2;
        }
        let mut any = false;
        for top in top {
            any |= top >= INFINITE;
        }
        ([lo[0], hi[0]], !any)
    }
}

/// Lanes of the lowest and the highest element and the largest [`magnitude`].
type Extent = ([f32; WIDE], [f32; WIDE], [u32; WIDE]);

/// The extent with another line. A loop for each: all in one are taken apart and put together again by shuffles.
#[inline(always)]
fn extent((mut lo, mut hi, mut top): Extent, x: [f32; WIDE]) -> Extent {
    for (lo, x) in lo.iter_mut().zip(x) {
        *lo = smaller(*lo, x);
    }
    for (hi, x) in hi.iter_mut().zip(x) {
        *hi = larger(*hi, x);
    }
    for (top, x) in top.iter_mut().zip(x) {
        *top = magnitude(x).max(*top);
    }
    (lo, hi, top)
}

/// `[sum x, sum x²]`.
struct Moments;

impl Summary<2> for Moments {
    type Number = f64;
    const NOTHING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn of(k: usize, x: f32, _: f32) -> f64 {
        let x = f64::from(x);
        if k == 0 { x } else { x * x }
    }

    #[inline(always)]
    fn join(_: usize, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// `[sum x², sum y², sum xy]`.
struct Products;

impl Summary<3> for Products {
    type Number = f64;
    const NOTHING: [f64; 3] = [0.0; 3];

    #[inline(always)]
    fn of(k: usize, x: f32, y: f32) -> f64 {
        let (x, y) = (f64::from(x), f64::from(y));
        match k {
            0 => x * x,
            1 => y * y,
            _ => x * y,
        }
    }

    #[inline(always)]
    fn join(_: usize, a: f64, b: f64) -> f64 {
        a + b
    }
}

/// `[sum (x − y)², max |x − y|]`.
struct Differences;

impl Summary<2> for Differences {
    type Number = f64;
    const NOTHING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn of(k: usize, x: f32, y: f32) -> f64 {
        let difference = f64::from(x) - f64::from(y);
        if k == 0 { difference * difference } else { difference.abs() }
    }

    #[inline(always)]
    fn join(k: usize, a: f64, b: f64) -> f64 {
        if k == 0 { a + b } else { larger(a, b) }
    }
}

/// The summary of a run in the order of sums.
#[inline(always)]
fn summary<S: Summary<K>, const K: usize>(x: &[f32], y: &[f32]) -> [S::Number; K] {
    let mut lanes = S::NOTHING.map(|number| [number; LANES]);
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        lanes = from_fn(|k| from_fn(|i| S::join(k, lanes[k][i], S::of(k, x[i], y[i]))));
    }
    // The lanes go through memory once, or the compiler, looking back from the pairwise sums, makes the loop above
    // scalar: moments then take four times as long, with AVX2.
    let lanes = black_box(lanes);
    let halved: [[_; 4]; K] = from_fn(|k| from_fn(|i| S::join(k, lanes[k][i], lanes[k][i + 4])));
    let halved: [[_; 2]; K] = from_fn(|k| from_fn(|i| S::join(k, halved[k][i], halved[k][i + 2])));
    let mut all = from_fn(|k| S::join(k, halved[k][0], halved[k][1]));
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        all = from_fn(|k| S::join(k, all[k], S::of(k, x, y)));
    }
    all
}

/// The input of a reduction.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    y: &'a [f32],
    grid: &'a Grid,
    census: Option<&'a Census>,
}

/// One chunk: the summaries of its elements by cell, from cell number `first` on.
struct Chunk<'a, S: Summary<K>, const K: usize> {
    input: Input<'a>,
    range: Range<usize>,
    first: usize,
    /// `[number][cell]`: a run with a cell for each element wants neighbours of one kind.
    cells: &'a mut [S::Number],
}

/// Borrowed for one run on one instruction set.
struct Fold<'a, 'b, S: Summary<K>, const K: usize>(&'b mut Chunk<'a, S, K>);

impl<S: Summary<K>, const K: usize> Op for Fold<'_, '_, S, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Chunk { input: Input { x, y, grid, census }, range, first, cells } = self.0;
        const { assert!(K == 2 || K == 3) };
        let width = cells.len() / K;
        for (cells, nothing) in cells.chunks_mut(width.max(1)).zip(S::NOTHING) {
            cells.fill(nothing);
        }
        for (run, cell) in grid.runs(range.clone()) {
            match cell {
                Cell::One(cell) => {
                    let (numbers, all_finite) = S::run(&x[run.clone()], &y[run.clone()]);
                    if let (false, Some(census)) = (all_finite, *census) {
                        census.see(&x[run.clone()], run.start);
                    }
                    for (k, number) in numbers.into_iter().enumerate() {
                        let all = &mut cells[k * width + cell - *first];
                        *all = S::join(k, *all, number);
                    }
                }
                Cell::Each(cell) => {
                    for start in run.clone().step_by(TILE) {
                        let tile = start..run.end.min(start + TILE);
                        let (x, y) = (&x[tile.clone()], &y[tile]);
                        if let Some(census) = census {
                            census.see(x, start);
                        }
                        let cell = cell + start - run.start - *first;
                        let of = |k: usize| k * width + cell..k * width + cell + x.len();
                        join_each::<S, K, 0>(x, y, &mut cells[of(0)]);
                        join_each::<S, K, 1>(x, y, &mut cells[of(1)]);
                        if K > 2 {
                            join_each::<S, K, 2>(x, y, &mut cells[of(2)]);
                        }
                    }
                }
            }
        }
    }
}

/// Joins number `N` of each element to that of its cell. As a constant it leaves one operation in the loop.
#[inline(always)]
fn join_each<S: Summary<K>, const K: usize, const N: usize>(x: &[f32], y: &[f32], cells: &mut [S::Number]) {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let (lines, rest) = cells.as_chunks_mut::<LANES>();
    for ((all, x), y) in lines.iter_mut().zip(x).zip(y) {
        // A copy is written back whole; in place, an extreme would be written where it changes, by a branch.
        let mut joined = *all;
        for (i, joined) in joined.iter_mut().enumerate() {
            *joined = S::join(N, *joined, S::of(N, x[i], y[i]));
        }
        *all = joined;
    }
    for ((all, &x), &y) in rest.iter_mut().zip(x_rest).zip(y_rest) {
        *all = S::join(N, *all, S::of(N, x, y));
    }
}

/// The summaries of all cells, `[number][cell]`.
fn fold<S: Summary<K>, const K: usize>(isa: Isa, input: Input<'_>) -> Result<Vec<S::Number>, Error> {
    let (len, width) = (input.grid.len(), input.grid.cells());
    let mut out = Vec::new();
    for nothing in S::NOTHING {
        extend(&mut out, width, nothing)?;
    }
    if len <= CHUNK {
        isa.run(Fold(&mut Chunk::<S, K> { input, range: 0..len, first: 0, cells: &mut out }));
        return Ok(out);
    }
    let mut round = Vec::new();
    for start in (0..len).step_by(CHUNK * ROUND) {
        let end = len.min(start.saturating_add(CHUNK * ROUND));
        let ranges = (start..end).step_by(CHUNK).map(|start| start..end.min(start + CHUNK));
        let windows: Vec<Range<usize>> = ranges.clone().map(|range| input.grid.cells_of(range)).collect();
        let held = K * windows.iter().map(ExactSizeIterator::len).sum::<usize>();
        let more = held.saturating_sub(round.len());
        extend(&mut round, more, S::NOTHING[0])?;
        let mut chunks = Vec::with_capacity(windows.len());
        let mut rest = &mut round[..];
        for (range, window) in ranges.zip(&windows) {
            let (cells, after) = rest.split_at_mut(K * window.len());
            rest = after;
            chunks.push(Chunk::<S, K> { input, range, first: window.start, cells });
        }
        parallel::for_each_chunk(&mut chunks, 1, (end - start) / 4, |_, chunk| {
            for chunk in chunk {
                isa.run(Fold(chunk));
            }
        })?;
        for Chunk { first, cells, .. } in &chunks {
            for (k, cells) in cells.chunks(cells.len() / K).enumerate() {
                for (all, &number) in out[k * width + first..].iter_mut().zip(cells) {
                    *all = S::join(k, *all, number);
                }
            }
        }
    }
    Ok(out)
}

/// Both numbers of every cell.
fn halves<T: Copy>(mut numbers: Vec<T>) -> (Vec<T>, Vec<T>) {
    let second = numbers.split_off(numbers.len() / 2);
    (numbers, second)
}

/// Appends `len` times `value`.
fn extend<T: Copy>(out: &mut Vec<T>, len: usize, value: T) -> Result<(), Error> {
    out.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len.saturating_mul(size_of::<T>()) })?;
    out.resize(out.len() + len, value);
    Ok(())
}

/// Smallest and largest element of every cell. NaN is passed over; a cell without elements (or with nothing but
/// NaN) has `lo = hi = 0`. The answer never is −0.0.
///
/// ```
/// use qrs_core::{Grid, min_max};
/// let grid = Grid::new(&[2, 3], &[1, 3])?; // one cell a row
/// let (lo, hi) = min_max(&[1.0, -2.0, 3.0, 4.0, 5.0, 6.0], &grid, true)?;
/// assert_eq!((lo, hi), (vec![-2.0, 4.0], vec![3.0, 6.0]));
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `x` does not fit the grid, or (with `check_finite`) holds NaN or infinity.
pub fn min_max(x: &[f32], grid: &Grid, check_finite: bool) -> Result<(Vec<f32>, Vec<f32>), Error> {
    min_max_on(Isa::active()?, x, grid, check_finite)
}

fn min_max_on(isa: Isa, x: &[f32], grid: &Grid, check_finite: bool) -> Result<(Vec<f32>, Vec<f32>), Error> {
    grid.check_len("x", x.len())?;
    let census = Census::new();
    let input = Input { x, y: x, grid, census: check_finite.then_some(&census) };
    let (mut lo, mut hi) = halves(fold::<Extremes, 2>(isa, input)?);
    census.check("x")?;
    for (lo, hi) in lo.iter_mut().zip(&mut hi) {
        // Which of −0.0 and 0.0 is met first hangs on the lanes; adding 0.0 makes them one.
        (*lo, *hi) = if lo <= hi { (*lo + 0.0, *hi + 0.0) } else { (0.0, 0.0) };
    }
    Ok((lo, hi))
}

/// Largest |element| of every cell: `max(−lo, hi)` of [`min_max`].
///
/// # Errors
/// As those of [`min_max`].
pub fn abs_max(x: &[f32], grid: &Grid, check_finite: bool) -> Result<Vec<f32>, Error> {
    let (lo, hi) = min_max(x, grid, check_finite)?;
    Ok(lo.into_iter().zip(hi).map(|(lo, hi)| hi.max(-lo)).collect())
}

/// Sum and sum of squares of every cell, in float64.
///
/// ```
/// use qrs_core::{Grid, moments};
/// let (sum, squares) = moments(&[1.0, 2.0, 3.0, -4.0], &Grid::new(&[2, 2], &[1, 2])?)?;
/// assert_eq!((sum, squares), (vec![3.0, -1.0], vec![5.0, 25.0]));
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `x` does not fit the grid.
pub fn moments(x: &[f32], grid: &Grid) -> Result<(Vec<f64>, Vec<f64>), Error> {
    moments_on(Isa::active()?, x, grid)
}

fn moments_on(isa: Isa, x: &[f32], grid: &Grid) -> Result<(Vec<f64>, Vec<f64>), Error> {
    grid.check_len("x", x.len())?;
    fold::<Moments, 2>(isa, Input { x, y: x, grid, census: None }).map(halves)
}

/// How far two arrays are apart: what SQNR, mean squared error and cosine are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorSums {
    /// sum x²
    pub x_squared: f64,
    /// sum y²
    pub y_squared: f64,
    /// sum xy
    pub product: f64,
    /// sum (x − y)²
    pub difference_squared: f64,
    /// max |x − y|
    pub max_difference: f64,
}

/// The error sums of two arrays of one length, in float64. NaN in either makes all of its sums and the maximum
/// NaN.
///
/// ```
/// let sums = qrs_core::error_sums(&[1.0, 2.0], &[1.0, 4.0])?;
/// assert_eq!((sums.x_squared, sums.y_squared, sums.product), (5.0, 17.0, 9.0));
/// assert_eq!((sums.difference_squared, sums.max_difference), (4.0, 2.0));
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// The lengths differ.
pub fn error_sums(x: &[f32], y: &[f32]) -> Result<ErrorSums, Error> {
    error_sums_on(Isa::active()?, x, y)
}

fn error_sums_on(isa: Isa, x: &[f32], y: &[f32]) -> Result<ErrorSums, Error> {
    if x.len() != y.len() {
        let expected = format!("({},) as x has", x.len());
        return Err(Error::Shape { what: "y", got: vec![y.len()], expected });
    }
    let grid = Grid::new(&[x.len()], &[x.len()])?;
    let input = Input { x, y, grid: &grid, census: None };
    // Two passes: the lanes of five numbers do not fit the registers, and one pass takes five times as long.
    let (products, differences) = (fold::<Products, 3>(isa, input)?, fold::<Differences, 2>(isa, input)?);
    // There is one cell, also where there are no elements.
    let [x_squared, y_squared, product] = products.try_into().unwrap_or(Products::NOTHING);
    let [difference_squared, most] = differences.try_into().unwrap_or(Differences::NOTHING);
    // A maximum by comparison passes over NaN, a sum does not.
    let max_difference = if difference_squared.is_nan() { f64::NAN } else { most };
    Ok(ErrorSums { x_squared, y_squared, product, difference_squared, max_difference })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(len: usize, mut state: u32) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state as i32 >> 8) as f32 / 65536.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// One element at a time.
    fn naive(x: &[f32], grid: &Grid) -> Vec<(f32, f32, f64, f64)> {
        let mut cells = vec![(f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0); grid.cells()];
        for (i, &x) in x.iter().enumerate() {
            let (lo, hi, sum, squares) = &mut cells[grid.cell_of(i)];
            (*lo, *hi) = (lo.min(x), hi.max(x));
            *sum += f64::from(x);
            *squares += f64::from(x) * f64::from(x);
        }
        cells
    }

    fn check(shape: &[usize], block: &[usize], seed: u32) {
        let grid = Grid::new(shape, block).unwrap();
        let x = data(grid.len(), seed);
        let expected = naive(&x, &grid);
        let mut first = None;
        for isa in Isa::available() {
            let (lo, hi) = min_max_on(isa, &x, &grid, true).unwrap();
            let (sum, squares) = moments_on(isa, &x, &grid).unwrap();
            for (cell, &(naive_lo, naive_hi, naive_sum, naive_squares)) in expected.iter().enumerate() {
                assert_eq!((lo[cell], hi[cell]), (naive_lo, naive_hi), "{shape:?} {block:?} cell {cell}");
                let slack = 1e-10 * (1.0 + naive_squares);
                assert!((sum[cell] - naive_sum).abs() <= slack, "{shape:?} {block:?} cell {cell}");
                assert!((squares[cell] - naive_squares).abs() <= slack);
            }
            let bits: Vec<u64> = sum.iter().chain(&squares).map(|sum| sum.to_bits()).collect();
            assert_eq!(first.get_or_insert(bits.clone()), &bits, "{}", isa.name());
        }
    }

    #[test]
    fn every_granularity_is_the_definition_across_chunks_and_rounds() {
        let wide = [3, CHUNK / 2 + 77];
        for block in [wide, [1, wide[1]], [3, 1], [1, 128], [2, 1000], [1, 1]] {
            check(&wide, &block, 5);
        }
        check(&[ROUND * CHUNK + 1000], &[ROUND * CHUNK + 1000], 6);
    }

    proptest! {
        #[test]
        fn any_shape_is_the_definition(
            axes in prop::collection::vec((1usize..12, 1usize..14), 0..5), seed: u32,
        ) {
            let (shape, block): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            check(&shape, &block, seed);
        }
    }

    #[test]
    fn sums_are_those_of_the_written_order() {
        let x = data(3 * CHUNK + 5007, 11);
        let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
        let mut expected = 0.0;
        for chunk in x.chunks(CHUNK) {
            let mut lanes = [0.0; LANES];
            let (full, rest) = chunk.as_chunks::<LANES>();
            full.as_flattened().iter().enumerate().for_each(|(i, &x)| lanes[i % LANES] += f64::from(x));
            for half in [4, 2, 1] {
                (0..half).for_each(|i| lanes[i] += lanes[i + half]);
            }
            expected += rest.iter().fold(lanes[0], |sum, &x| sum + f64::from(x));
        }
        for isa in Isa::available() {
            assert_eq!(moments_on(isa, &x, &grid).unwrap().0, [expected]);
        }
    }

    #[test]
    fn errors_of_two_arrays() {
        let (x, y) = (data(2 * CHUNK + 333, 1), data(2 * CHUNK + 333, 2));
        let pairs = || x.iter().zip(&y).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let near =
            |got: f64, expected: f64| assert!((got - expected).abs() <= 1e-9 * expected.abs(), "{got}");
        let mut first = None;
        for isa in Isa::available() {
            let sums = error_sums_on(isa, &x, &y).unwrap();
            near(sums.x_squared, pairs().map(|(x, _)| x * x).sum());
            near(sums.y_squared, pairs().map(|(_, y)| y * y).sum());
            near(sums.product, pairs().map(|(x, y)| x * y).sum());
            near(sums.difference_squared, pairs().map(|(x, y)| (x - y) * (x - y)).sum());
            assert_eq!(sums.max_difference, pairs().map(|(x, y)| (x - y).abs()).fold(0.0, f64::max));
            assert_eq!(*first.get_or_insert(sums), sums);
        }
        assert!(error_sums(&[1.0, f32::NAN], &[1.0, 1.0]).unwrap().max_difference.is_nan());
        assert_eq!(error_sums(&[], &[]).unwrap().max_difference, 0.0);
        let text = error_sums(&[1.0], &[]).unwrap_err().to_string();
        assert_eq!(text, "y has shape (0,), expected (1,) as x has");
    }

    #[test]
    fn nothing_and_nan_have_an_answer() {
        let grid = Grid::new(&[4, 0], &[1, 0]).unwrap();
        assert_eq!(min_max(&[], &grid, true).unwrap(), (vec![0.0; 4], vec![0.0; 4]));
        assert_eq!(moments(&[], &grid).unwrap(), (vec![0.0; 4], vec![0.0; 4]));
        let grid = Grid::new(&[2, 20], &[1, 20]).unwrap();
        let mut x = vec![f32::NAN; 40];
        x[33] = -3.0;
        assert_eq!(min_max(&x, &grid, false).unwrap(), (vec![0.0, -3.0], vec![0.0, -3.0]));
        assert_eq!(abs_max(&x, &grid, false).unwrap(), [0.0, 3.0]);
        let error = Error::NotFinite { what: "x", count: 39, first: 0 };
        assert_eq!(min_max(&x, &grid, true), Err(error));
        let (lo, hi) = min_max(&[-0.0, 0.0, -0.0], &Grid::new(&[3], &[3]).unwrap(), true).unwrap();
        assert!(lo[0].is_sign_positive() && hi[0].is_sign_positive());
        assert!(min_max(&[1.0], &grid, true).unwrap_err().to_string().starts_with("x has shape (1,)"));
    }
}
