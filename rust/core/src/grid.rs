//! Which elements share their parameters: the map from an array's elements to its cells.
//!
//! A granularity is one block length per axis. The whole array is one block (per tensor), or an axis is cut
//! into single elements (per channel) or into blocks of some length (per group), and so on. A cell is one such
//! block; cells are numbered in C order. The rest of the crate only sees [`Grid::runs`]: contiguous stretches
//! of the flat array with one cell, or with one cell an element. Nobody else knows granularity.

#![forbid(unsafe_code)]

use crate::error::{Error, Tuple};
use std::ops::Range;

/// The cells of an array.
///
/// ```
/// use qrs_core::{Cell, Grid};
/// // Groups of 4 along the last axis of a (2, 6) array; the last group of each row is ragged.
/// let grid = Grid::new(&[2, 6], &[1, 4])?;
/// assert_eq!(grid.cells(), 4);
/// let runs: Vec<_> = grid.runs(0..12).collect();
/// assert_eq!(runs[1], (4..6, Cell::One(1)));
/// assert_eq!(runs[2], (6..10, Cell::One(2)));
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    shape: Vec<usize>,
    /// The axes that are left after neighbours were merged, outermost first; at least one.
    axes: Vec<Axis>,
    cells: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    size: usize,
    block: usize,
    /// How far apart the numbers of two cells are that are neighbours along this axis.
    stride: usize,
}

/// The parameters of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// All elements belong to this cell.
    One(usize),
    /// The first element belongs to this cell, each further one to the next cell.
    Each(usize),
}

impl Grid {
    /// The grid of an array of `shape` with `block[i]` elements a cell along axis `i`.
    ///
    /// A last block may be ragged, and a block longer than its axis is one cell. Along an axis of length 0 a
    /// block of length 0 is one empty cell, any other block is no cell.
    ///
    /// # Errors
    /// `block` has another length than `shape`, or holds a 0 on an axis that is not empty; the array has more
    /// elements than can be counted.
    pub fn new(shape: &[usize], block: &[usize]) -> Result<Grid, Error> {
        if shape.len() != block.len() {
            return Err(Error::Shape {
                what: "block",
                got: block.to_vec(),
                expected: format!("one length for each axis of shape {}", Tuple(shape)),
            });
        }
        if let Some(axis) = (0..shape.len()).find(|&i| block[i] == 0 && shape[i] > 0) {
            return Err(Error::Value {
                what: "block",
                got: format!("{} with 0 on axis {axis}", Tuple(block)),
                expected: "lengths of at least 1".into(),
            });
        }
        let len = product(shape.iter().copied(), shape)?;
        let cells = product(shape.iter().zip(block).map(|(&size, &block)| blocks(size, block)), shape)?;
        let mut axes = if len == 0 { Vec::new() } else { merged(shape, block) };
        if axes.is_empty() {
            axes.push(Axis { size: len, block: len, stride: 1 });
        }
        let mut stride = 1;
        for axis in axes.iter_mut().rev() {
            axis.stride = stride;
            stride *= blocks(axis.size, axis.block);
        }
        Ok(Grid { shape: shape.to_vec(), axes, cells, len })
    }

    /// The array's shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of cells.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements. There may be (empty) cells all the same.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether an argument has one element for each of the grid.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn check_len(&self, what: &'static str, got: usize) -> Result<(), Error> {
        if got == self.len {
            return Ok(());
        }
        let expected = format!("the {} elements of shape {}", self.len, Tuple(&self.shape));
        Err(Error::Shape { what, got: vec![got], expected })
    }

    /// The cell of the element at flat index `index`.
    pub fn cell_of(&self, index: usize) -> usize {
        self.row(index).cell
    }

    /// A stretch of cells that holds those of the elements `range`: as short as the outermost axis on which the
    /// range moves allows.
    pub(crate) fn cells_of(&self, range: Range<usize>) -> Range<usize> {
        let (Some(mut last), mut first) = (range.end.checked_sub(1), range.start) else { return 0..0 };
        let (mut step, mut cell) = (self.len, 0);
        for axis in &self.axes {
            step /= axis.size;
            let (start, end) = (first / step / axis.block, last / step / axis.block);
            if first / step != last / step {
                return cell + start * axis.stride..cell + (end + 1) * axis.stride;
            }
            cell += start * axis.stride;
            (first, last) = (first % step, last % step);
        }
        cell..cell + 1
    }

    /// The elements of a cell, where cell `c` is just the `c`-th such stretch of the flat array (the last may be
    /// short) and that is a multiple of `unit`.
    #[inline]
    pub(crate) fn even_block(&self, unit: usize) -> Option<usize> {
        match self.axes[..] {
            [Axis { block, .. }] if block > 0 && block % unit == 0 => Some(block),
            _ => None,
        }
    }

    /// The runs of the flat elements `range`, in order and without gaps.
    #[inline]
    pub fn runs(&self, range: Range<usize>) -> Runs<'_> {
        let last = self.axes[self.axes.len() - 1];
        Runs {
            grid: self,
            block: last.block,
            each: last.block == 1 && last.size > 1,
            next: range.start,
            end: range.end.min(self.len),
            row: Row { cell: 0, block_end: range.start, end: range.start },
        }
    }

    /// Where `index` stands on the innermost axis.
    #[inline]
    fn row(&self, index: usize) -> Row {
        let last = self.axes[self.axes.len() - 1];
        let mut outer = index / last.size;
        let start = outer * last.size;
        let block = (index - start) / last.block;
        let mut cell = block;
        for axis in self.axes[..self.axes.len() - 1].iter().rev() {
            cell += outer % axis.size / axis.block * axis.stride;
            outer /= axis.size;
        }
        let end = start + last.size;
        Row { cell, block_end: (start + block * last.block).saturating_add(last.block).min(end), end }
    }
}

/// A product of counts. Zeros are left out of the overflow check on purpose: whether a shape is legal does not
/// hang on where its 0 stands.
fn product(factors: impl Iterator<Item = usize> + Clone, shape: &[usize]) -> Result<usize, Error> {
    let any_zero = factors.clone().any(|n| n == 0);
    match factors.filter(|&n| n > 0).try_fold(1usize, usize::checked_mul) {
        Some(product) => Ok(if any_zero { 0 } else { product }),
        None => Err(Error::Value {
            what: "shape",
            got: Tuple(shape).to_string(),
            expected: format!("at most {} elements", usize::MAX),
        }),
    }
}

/// How many blocks an axis has.
fn blocks(size: usize, block: usize) -> usize {
    if block == size { 1 } else { size.div_ceil(block) }
}

/// The axes of a non-empty array with neighbours merged where two axes number their cells like one.
fn merged(shape: &[usize], block: &[usize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for (&size, &block) in shape.iter().zip(block).filter(|(size, _)| **size > 1) {
        let block = block.min(size);
        match axes.last_mut() {
            // All of this axis lies in one cell: an outer step is `size` elements of the same cell.
            Some(outer) if block == size => {
                outer.size *= size;
                outer.block *= size;
            }
            // Each outer step starts a new cell just where this axis starts its next block.
            Some(outer) if outer.block == 1 && size % block == 0 => {
                outer.size *= size;
                outer.block = block;
            }
            _ => axes.push(Axis { size, block, stride: 1 }),
        }
    }
    axes
}

/// The iterator of [`Grid::runs`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    grid: &'a Grid,
    block: usize,
    each: bool,
    next: usize,
    end: usize,
    row: Row,
}

/// A place on the innermost axis: the cell there, and the flat indices where its block and the axis end.
#[derive(Debug, Clone, Copy)]
struct Row {
    cell: usize,
    block_end: usize,
    end: usize,
}

impl Iterator for Runs<'_> {
    type Item = (Range<usize>, Cell);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        if self.next == self.row.end {
            self.row = self.grid.row(self.next);
        }
        let (start, cell) = (self.next, self.row.cell);
        if self.each {
            self.next = self.row.end.min(self.end);
            return Some((start..self.next, Cell::Each(cell)));
        }
        self.next = self.row.block_end.min(self.end);
        self.row.cell += 1;
        self.row.block_end = self.row.block_end.saturating_add(self.block).min(self.row.end);
        Some((start..self.next, Cell::One(cell)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: coordinates, block of each coordinate, C order.
    fn naive(shape: &[usize], block: &[usize], index: usize) -> usize {
        let (mut rest, mut cell, mut stride) = (index, 0, 1);
        for (&size, &block) in shape.iter().zip(block).rev() {
            cell += rest % size / block * stride;
            stride *= size.div_ceil(block);
            rest /= size;
        }
        cell
    }

    fn runs(shape: &[usize], block: &[usize]) -> Vec<(Range<usize>, Cell)> {
        let grid = Grid::new(shape, block).unwrap();
        grid.runs(0..grid.len()).collect()
    }

    #[test]
    fn granularities_have_the_longest_runs() {
        assert_eq!(runs(&[2, 3, 4], &[2, 3, 4]), [(0..24, Cell::One(0))]);
        assert_eq!(runs(&[2, 3, 4], &[1, 3, 4]), [(0..12, Cell::One(0)), (12..24, Cell::One(1))]);
        assert_eq!(runs(&[2, 3, 4], &[2, 3, 1]).len(), 6);
        assert_eq!(runs(&[2, 3, 4], &[2, 3, 1])[1], (4..8, Cell::Each(0)));
        assert_eq!(runs(&[2, 3, 4], &[1, 1, 1]), [(0..24, Cell::Each(0))]);
        assert_eq!(runs(&[2, 3, 4], &[1, 1, 2]).len(), 12);
        assert_eq!(runs(&[4, 1, 1], &[1, 1, 1]), [(0..4, Cell::Each(0))]);
        assert_eq!(runs(&[], &[]), [(0..1, Cell::One(0))]);
        assert_eq!(runs(&[1, 1], &[1, 1]), [(0..1, Cell::One(0))]);
    }

    #[test]
    fn blocks_that_divide_leave_one_axis() {
        for (shape, block) in [([4, 6, 8], [1, 1, 4]), ([4, 6, 8], [1, 6, 8]), ([4, 6, 8], [1, 3, 8])] {
            assert_eq!(Grid::new(&shape, &block).unwrap().axes.len(), 1);
        }
    }

    #[test]
    fn empty_arrays_have_empty_cells() {
        let cells = |shape: &[usize], block: &[usize]| {
            let grid = Grid::new(shape, block).unwrap();
            assert!(grid.is_empty() && grid.runs(0..0).next().is_none());
            grid.cells()
        };
        assert_eq!(cells(&[0, 4], &[0, 4]), 1);
        assert_eq!(cells(&[4, 0], &[1, 0]), 4);
        assert_eq!(cells(&[0, 4], &[1, 4]), 0);
        assert_eq!(cells(&[4, 0], &[1, 32]), 0);
    }

    #[test]
    fn what_is_refused_is_named() {
        let text = |shape: &[usize], block: &[usize]| Grid::new(shape, block).unwrap_err().to_string();
        assert_eq!(
            text(&[4, 5], &[4]),
            "block has shape (4,), expected one length for each axis of shape (4, 5)"
        );
        assert_eq!(
            text(&[4, 5], &[1, 0]),
            "block is (1, 0) with 0 on axis 1, expected lengths of at least 1"
        );
        for shape in [[1 << 40, 1 << 40, 0], [0, 1 << 40, 1 << 40], [1 << 40, 1 << 40, 1]] {
            assert!(text(&shape, &shape).starts_with("shape is (1099511627776") || shape[0] == 0);
        }
    }

    proptest! {
        #[test]
        fn every_range_has_the_cells_of_the_definition(
            axes in prop::collection::vec((1usize..8, 1usize..10), 0..5), cut in 0.0..1.0, span in 0.0..1.0,
        ) {
            let (shape, block): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let grid = Grid::new(&shape, &block).unwrap();
            let start = (cut * grid.len() as f64) as usize;
            let end = start + (span * (grid.len() - start + 1) as f64) as usize;
            let mut next = start;
            for (range, cell) in grid.runs(start..end) {
                prop_assert_eq!(range.start, next);
                prop_assert!(range.end > range.start);
                for index in range.clone() {
                    let expected = naive(&shape, &block, index);
                    let got = match cell { Cell::One(cell) => cell, Cell::Each(first) => first + index - range.start };
                    prop_assert_eq!(got, expected);
                    prop_assert_eq!(grid.cell_of(index), expected);
                    prop_assert!(grid.cells_of(start..end).contains(&expected));
                }
                next = range.end;
            }
            prop_assert_eq!(next, end);
            prop_assert!(end == start || grid.cells_of(start..end).end <= grid.cells());
        }
    }
}
