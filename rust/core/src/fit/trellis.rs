//! The scales of a trellis: its levels are made for values of unit variance.

#![forbid(unsafe_code)]

use super::{Fitted, held, room};
use crate::coded::{Stream, levels_from};
use crate::error::Error;
use crate::grid::{Cell, Grid};
use crate::mem::zeroed;
use crate::qparams::{Target, one};
use crate::trellis::Sequence;
use crate::values::Values;

/// First the root mean square of a cell, then, along the paths that it leads to, the scale of least squared error,
/// `Σ w·x·level / Σ w·level²`. A second turn gains less than 0.01 dB in cells of 256 elements.
pub(super) fn fit(
    sequence: Sequence,
    (values, grid): (Values<'_>, &Grid),
    target: &Target,
) -> Result<Fitted, Error> {
    let (cells, x) = (grid.cells(), values.x);
    let weight = |i: usize| values.importance.map_or(1.0, |importance| f64::from(importance[i]));
    let mut squares = Sums::new(cells)?;
    squares.add(grid, 0..x.len(), |i| {
        let x = if x[i].is_nan() { 0.0 } else { f64::from(held(x[i])) };
        (x * x, 1.0)
    });
    // What a cell of zeros gets.
    let (none, _) = one(0.0, 0.0, target);
    let (_, largest) = target.ends();
    let root = |mean: f64| {
        if mean > 0.0 { target.finite(target.stored(mean.sqrt() as f32), largest) } else { none }
    };
    let mut scale = squares.quotients(none, root)?;

    let mut products = Sums::new(cells)?;
    let mut levels: Vec<f32> = Vec::new();
    let packing = target.format().packing();
    Stream { sequence, packing, values, grid, scale: &scale }.encode(|elements, bytes| {
        levels.resize(elements.len(), 0.0);
        levels_from(sequence, packing, bytes, 0, &mut levels);
        let start = elements.start;
        products.add(grid, elements, |i| {
            let (x, level) = (f64::from(held(x[i])), f64::from(levels[i - start]));
            let x = if x.is_nan() { 0.0 } else { x };
            (weight(i) * x * level, weight(i) * level * level)
        });
        Ok(())
    })?;
    for ((scale, product), square) in scale.iter_mut().zip(products.first).zip(products.second) {
        if product > 0.0 {
            *scale = target.finite(target.stored((product / square) as f32), largest);
        }
    }
    let zero_point = zeroed(cells)?;
    Ok(Fitted { scale, zero_point, levels: Vec::new() })
}

/// Two sums for each cell, in the order of the elements.
struct Sums {
    first: Vec<f64>,
    second: Vec<f64>,
}

impl Sums {
    fn new(cells: usize) -> Result<Sums, Error> {
        Ok(Sums { first: zeroed(cells)?, second: zeroed(cells)? })
    }

    fn add(&mut self, grid: &Grid, elements: std::ops::Range<usize>, terms: impl Fn(usize) -> (f64, f64)) {
        for (run, cell) in grid.runs(elements) {
            for (i, element) in run.enumerate() {
                let cell = match cell {
                    Cell::One(cell) => cell,
                    Cell::Each(first) => first + i,
                };
                let (first, second) = terms(element);
                self.first[cell] += first;
                self.second[cell] += second;
            }
        }
    }

    /// `of` the quotients; `none` where a cell has no elements.
    fn quotients(&self, none: f32, of: impl Fn(f64) -> f32) -> Result<Vec<f32>, Error> {
        let mut out = room(self.first.len())?;
        let sums = self.first.iter().zip(&self.second);
        out.extend(sums.map(|(first, second)| if *second > 0.0 { of(first / second) } else { none }));
        Ok(out)
    }
}
