//! Levels learned for a tensor: exact k-means in one dimension, and scales in turn.
//!
//! In one dimension the clusters of the best codebook are stretches of the sorted values, so dynamic programming finds
//! it: with `D(i, k)` the least error of the first `i` values in `k` clusters, `D(i, k) = min_j D(j, k − 1) + c(j, i)`, and
//! the best `j` grows with `i`, so that a divide and conquer takes O(n log n) for each `k` (Wu 1991; Grønlund et al. 2017,
//! arXiv:1701.07204). A value is `x / scale` and weighs `scale²`
//! times its importance, as its error does.
//!
//! With several cells, their scales and the levels are fitted in turn (Lloyd's alternation): neither step adds error. The
//! scales of few levels are searched for; those of many, where a search compares each value with every level some two
//! hundred times, are moved to their least-squares ones.

#![forbid(unsafe_code)]

use super::search::held;
use super::{Cells, Fit, Fitted};
use crate::error::Error;
use crate::format::{Levels, Picker};
use crate::isa::Isa;
use crate::mem::zeroed;
use crate::parallel;
use crate::qparams::{self, Target};
use crate::rounding::Rounding;

/// Values beyond this many are merged with their neighbours first: the error of that, a variance within one of 2¹⁶
/// stretches, is far below that of 256 levels.
const VALUES: usize = 1 << 16;
/// The same for more than [`FEW`] levels, where the programme takes as many times longer.
const FEWER_VALUES: usize = 1 << 13;
/// Levels up to which scales are searched for.
const FEW: usize = 16;
/// Turns of levels and scales at most.
const TURNS: usize = 12;
/// The gain below which another turn is not worth its time: 0.004 dB.
const GAIN: f64 = 1e-3;

/// Levels and scales of all cells.
pub(super) fn learn(isa: Isa, cells: &Cells<'_>, fit: Fit, target: &Target) -> Result<Fitted, Error> {
    let mut found = cells.extremes(target)?;
    let count = 1 << target.format().bits();
    let most = if count > FEW { FEWER_VALUES } else { VALUES };
    let mut points = Points::of(cells, &found.scale, most)?;
    let (mut levels, mut error) = points.means(count)?;
    if fit == Fit::Mse && cells.starts.len() > 2 {
        for _ in 0..TURNS {
            let picker = Levels::new(&levels).picker(Rounding::HalfEven);
            let moved = if count > FEW {
                cells.refit(&picker, &found, target)?
            } else {
                cells.fit(isa, &picker, target)?
            };
            points = Points::of(cells, &moved.scale, most)?;
            let (moved_levels, moved_error) = points.means(count)?;
            if moved_error >= error {
                break;
            }
            let gain = error - moved_error;
            (found, levels, error) = (moved, moved_levels, moved_error);
            if gain < GAIN * error {
                break;
            }
        }
    }
    let widest = levels.iter().fold(0.0f32, |widest, level| widest.max(level.abs()));
    for scale in &mut found.scale {
        *scale = target.finite(scale.abs(), widest).copysign(*scale);
    }
    Ok(Fitted { levels, ..found })
}

impl Cells<'_> {
    /// How much the squared error of an element counts.
    fn weight(&self, i: usize) -> f64 {
        self.importance.map_or(1.0, |importance| f64::from(importance[i]))
    }

    /// The scales that suit the levels best which the values take with the scales before.
    fn refit(&self, picker: &Picker, before: &Fitted, target: &Target) -> Result<Fitted, Error> {
        let mut after = Fitted { scale: zeroed(before.scale.len())?, ..before.clone() };
        let cells = before.scale.iter().zip(self.starts.windows(2)).collect::<Vec<_>>();
        parallel::for_each_chunk(&mut after.scale, 1, self.x.len().saturating_mul(10), |cell, out| {
            let (&scale, ends) = cells[cell];
            // In units of the scale, which no square leaves.
            let (mut slope, mut squares) = (0.0f64, 0.0f64);
            for i in (ends[0]..ends[1]).filter(|&i| !self.x[i].is_nan()) {
                let (v, weight) = (held(self.x[i]) / scale, self.weight(i));
                let level = f64::from(picker.pick::<false, 1>([v], [0.0], true).1[0]);
                slope += weight * f64::from(v) * level;
                squares += weight * level * level;
            }
            let factor = if squares > 0.0 && slope > 0.0 { slope / squares } else { 1.0 };
            let magnitude = target.stored((f64::from(scale.abs()) * factor) as f32);
            out[0] = magnitude.copysign(scale);
        })?;
        Ok(after)
    }

    /// Scales that bring the element of largest magnitude to 1: negative ones where it is negative, so that of the ends
    /// one is the same for all cells.
    fn extremes(&self, target: &Target) -> Result<Fitted, Error> {
        let count = self.starts.len() - 1;
        let (mut scale, zero_point) = (zeroed(count)?, zeroed(count)?);
        for (scale, ends) in scale.iter_mut().zip(self.starts.windows(2)) {
            let mut extreme = 0.0f32;
            for &x in &self.x[ends[0]..ends[1]] {
                extreme = if x.abs() > extreme.abs() { x } else { extreme };
            }
            let extreme = held(extreme);
            let (magnitude, _) = qparams::one(0.0, extreme.abs(), target);
            *scale = if extreme < 0.0 && target.lopsided() { -magnitude } else { magnitude };
        }
        Ok(Fitted { scale, zero_point, levels: Vec::new() })
    }
}

/// Sums over the first values in ascending order: of weights, of weighted values, of their squares.
struct Points {
    sums: Vec<[f64; 3]>,
}

impl Points {
    fn of(cells: &Cells<'_>, scales: &[f32], most: usize) -> Result<Points, Error> {
        let mut values: Vec<(f32, f64)> = super::room(cells.x.len())?;
        for (&scale, ends) in scales.iter().zip(cells.starts.windows(2)) {
            let square = f64::from(scale) * f64::from(scale);
            let finite = (ends[0]..ends[1]).filter(|&i| !cells.x[i].is_nan() && cells.weight(i) > 0.0);
            values.extend(finite.map(|i| (held(cells.x[i]) / scale, cells.weight(i) * square)));
        }
        values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let per_point = values.len().div_ceil(most).max(1);
        let mut sums = super::room(values.len().div_ceil(per_point) + 1)?;
        let mut total = [0.0; 3];
        sums.push(total);
        for part in values.chunks(per_point) {
            for &(value, weight) in part {
                let value = f64::from(value);
                total[0] += weight;
                total[1] += weight * value;
                total[2] += weight * value * value;
            }
            sums.push(total);
        }
        Ok(Points { sums })
    }

    /// The error of the points `from..to` around their mean, and the mean.
    fn cluster(&self, from: usize, to: usize) -> (f64, f64) {
        let [weight, first, second] = [0, 1, 2].map(|i| self.sums[to][i] - self.sums[from][i]);
        let mean = if weight > 0.0 { first / weight } else { 0.0 };
        ((second - first * mean).max(0.0), mean)
    }

    /// The means of the best `count` clusters, ascending, and their error. Where there are fewer points, the last
    /// mean is repeated.
    fn means(&self, count: usize) -> Result<(Vec<f32>, f64), Error> {
        let points = self.sums.len() - 1;
        let clusters = count.min(points.max(1));
        let mut error: Vec<f64> = (0..=points).map(|to| self.cluster(0, to).0).collect();
        let mut starts: Vec<Vec<u32>> = Vec::new();
        for _ in 1..clusters {
            let (mut next, mut start) = (zeroed(points + 1)?, zeroed(points + 1)?);
            self.row(&error, (0, points), (0, points), (&mut next, &mut start));
            error = next;
            starts.push(start);
        }
        let mut levels = vec![0.0; count];
        let mut to = points;
        for cluster in (0..clusters).rev() {
            let from = if cluster == 0 { 0 } else { starts[cluster - 1][to] as usize };
            levels[cluster] = self.cluster(from, to).1 as f32;
            to = from;
        }
        let last = levels[clusters - 1];
        levels[clusters..].fill(last);
        levels.sort_unstable_by(f32::total_cmp);
        Ok((levels, error[points]))
    }

    /// Fills `next[i] = min_j before[j] + c(j, i)` and the best `j` for the points `lo..=hi`, whose best `j` lie in
    /// `from..=to`.
    fn row(
        &self,
        before: &[f64],
        (lo, hi): (usize, usize),
        (from, to): (usize, usize),
        (next, start): (&mut [f64], &mut [u32]),
    ) {
        let middle = lo.midpoint(hi);
        let (mut best, mut at) = (f64::INFINITY, from);
        for (j, before) in before.iter().enumerate().take(to.min(middle) + 1).skip(from) {
            let error = before + self.cluster(j, middle).0;
            if error < best {
                (best, at) = (error, j);
            }
        }
        (next[middle], start[middle]) = (best, at as u32);
        if lo < middle {
            self.row(before, (lo, middle - 1), (from, at), (&mut *next, &mut *start));
        }
        if middle < hi {
            self.row(before, (middle + 1, hi), (at, to), (next, start));
        }
    }
}
