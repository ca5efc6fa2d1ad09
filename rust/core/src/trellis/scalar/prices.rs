//! What a level costs: squared error and bits in one sum.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "lanes of several arrays are indexed in step")]

use super::paths::{Lanes, Metric, PATHS};
use super::rans::{ESCAPE, ESCAPED_BITS, PLACES, place};
use crate::rounding::{half_even, low_bits};
use crate::trellis::ln;

/// How often each place of both alphabets is used.
#[derive(Debug, Clone)]
pub(super) struct Counts(pub(super) [Vec<u32>; 2]);

impl Counts {
    fn none() -> Counts {
        Counts([vec![0; PLACES], vec![0; PLACES]])
    }

    /// Those of the levels that a search chose.
    pub(super) fn of(levels: &[i32]) -> Counts {
        let mut counts = Counts::none();
        for n in levels {
            counts.0[(n & 1) as usize][place(*n)] += 1;
        }
        counts
    }

    /// Those of the level of each superset that is nearest to each value, in steps.
    pub(super) fn nearest(y: &[f32]) -> Counts {
        let mut counts = Counts::none();
        for y in y {
            for superset in [0, 1] {
                let k = half_even((y - superset as f32) * 0.5) as i32;
                counts.0[superset as usize][place(2 * k + superset)] += 1;
            }
        }
        counts
    }

    /// Bits a value: the entropy of the places given their superset, and what stands behind escapes.
    pub(super) fn rate(&self) -> f64 {
        let (mut bits, mut values) = (0.0, 0.0);
        for counts in &self.0 {
            let total = total(counts);
            for count in counts.iter().filter(|count| **count > 0) {
                let count = f64::from(*count);
                bits += count * log2(total / count);
            }
            bits += f64::from(counts[ESCAPE]) * f64::from(ESCAPED_BITS);
            values += total;
        }
        if values > 0.0 { bits / values } else { 0.0 }
    }
}

fn total(counts: &[u32]) -> f64 {
    counts.iter().map(|count| f64::from(*count)).sum()
}

fn log2(v: f64) -> f64 {
    ln(v) * std::f64::consts::LOG2_E
}

/// The price of a bit in squared steps.
///
/// At high rates the error is D = 0.27 squared steps and falls by `2·ln 2·D` a bit. At low rates, where bits and errors
/// go to zero together, a bit is worth more steps; the curve was fitted to the least error at 0.5, 1, 2 and 4 bits with 8
/// states, whose minimum is flat: a tenth more or less costs 0.01 dB.
pub(super) fn lambda(rate: f64) -> f64 {
    let lambda = 0.374 * (1.0 + 0.2 / (rate * rate).max(1e-6));
    if lambda < 0.7 { lambda } else { 0.7 }
}

/// Levels around zero that have prices of their own: −1027 to 1028.
const PRICED: usize = 2 * INNER as usize + 8;
const INNER: i32 = 1024;
/// Levels below the value that are candidates, and those above, but for one.
const BELOW: i32 = 3;

/// The prices of levels in squared steps.
pub(super) struct Prices {
    levels: [f32; PRICED],
}

impl Prices {
    /// Those that go with these counts. What was not counted is priced as a tenth of a value.
    pub(super) fn new(counts: &Counts, lambda: f64) -> Prices {
        const UNSEEN: f64 = 0.1;
        let totals = [0, 1].map(|superset| total(&counts.0[superset]));
        let levels = std::array::from_fn(|i| {
            let n = i as i32 - INNER - BELOW;
            let (superset, place) = ((n & 1) as usize, place(n));
            let bits = log2((totals[superset] + 1.0) / (f64::from(counts.0[superset][place]) + UNSEEN));
            let bits = if place == ESCAPE { bits + f64::from(ESCAPED_BITS) } else { bits };
            (lambda * bits) as f32
        });
        Prices { levels }
    }

    /// Of the two levels of subset `z` around a value, |y| ≤ 2²¹ steps, the cheaper.
    ///
    /// A third would lie four steps further off, which costs 16 squared steps: 22 bits at the highest price of a bit.
    pub(super) fn choose(&self, z: i32, y: f32, weight: f32) -> i32 {
        let (below, costs) = self.around(y, weight);
        let first = z.wrapping_sub(below as i32 - BELOW) & 3;
        let j = first as usize;
        let chosen = if costs[j + 4] < costs[j] { first + 4 } else { first };
        below as i32 - BELOW + chosen
    }

    /// The level below a value, and the costs of the eight from three below that one on.
    #[inline(always)]
    fn around(&self, y: f32, weight: f32) -> (f32, [f32; 8]) {
        let near = half_even(y);
        let below = if near > y { near - 1.0 } else { near };
        // Far out, all levels are escapes of one price.
        let inner = below.clamp(-INNER as f32, (INNER - 1) as f32);
        let at = low_bits(inner + INNER as f32) as usize & (2 * INNER as usize - 1);
        let fraction = y - below;
        let mut costs = [0.0; 8];
        for (j, (cost, price)) in costs.iter_mut().zip(&self.levels[at..at + 8]).enumerate() {
            let distance = fraction + (BELOW - j as i32) as f32;
            *cost = weight * (distance * distance) + price;
        }
        (below, costs)
    }
}

impl Metric for Prices {
    #[inline(always)]
    fn costs(&self, y: Lanes<f32>, weights: Lanes<f32>) -> [Lanes<f32>; 4] {
        let mut out = [[0.0; PATHS]; 4];
        for lane in 0..PATHS {
            let (below, costs) = self.around(y[lane], weights[lane]);
            for j in 0..4 {
                let cost = if costs[j + 4] < costs[j] { costs[j + 4] } else { costs[j] };
                out[(low_bits(below) as usize).wrapping_add(j + 1) & 3][lane] = cost;
            }
        }
        out
    }
}
