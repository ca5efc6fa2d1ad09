//! The encoder: Viterbi's algorithm over nodes, in 16-bit fixed point, with tail-biting.
//!
//! A state of L bits is a branch between two nodes of `L − k` bits: state `s` leads from node `s >> k` to node
//! `s mod 2^(L−k)`, so node `p` is entered by the states `p + j · 2^(L−k)`, `j < 2^k`. With `m` the costs of the
//! nodes before a step and `d` the squared distance of the step's values from the levels of a state,
//!
//! ```text
//! m'[p] = min over j of m[(p + j · 2^(L−k)) >> k] + d(p + j · 2^(L−k))
//! ```
//!
//! Neighbouring nodes `p` read neighbouring levels and each cost `2^k` times: a vector of costs is a short load and
//! one byte shuffle, and per state there are a subtraction, a multiplication, an addition and a minimum, nothing else.
//! No back-pointers are kept but the costs of the nodes, `2^(L−k)` numbers a step: tracing back evaluates the `2^k`
//! sums of one node again.
//!
//! Costs are 16-bit integers that saturate, so every instruction set finds the same path. Differences keep 13 to 15
//! bits, their squares are rounded to 15 bits; every fourth step the least cost is subtracted from all.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "values, predecessors and lanes are indexed in step")]

use super::{BLOCK, COMPILED, compiled};
use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::mem::zeroed;
use std::ops::Range;

/// Blocks that are traced back at once.
pub(super) const TOGETHER: usize = 4;
/// Nodes whose costs are computed at once.
const WIDTH: usize = 16;
/// Steps between two subtractions of the least cost.
const NORMALISE: usize = 4;
/// Fixed-point weights of differences are multiples of 2⁻¹³, so at most 4.
const WEIGHT_ONE: f32 = 8192.0;

/// The branches of a trellis with their levels in fixed point.
#[derive(Debug, Clone)]
pub(super) struct Branches {
    /// Bits a step.
    pub(super) bits: usize,
    /// Values a step.
    pub(super) values: usize,
    /// Nodes, `2^(L−k)`.
    nodes: usize,
    /// Fixed-point units to 1.0.
    unit: f32,
    /// The level of each value of each state: all first values, then all second.
    levels: Vec<i16>,
    /// Steps on either side of a block's ends that decide on the node there.
    reach: usize,
}

/// Memory of one search.
pub(super) struct Scratch {
    /// Fixed-point values of the blocks.
    x: Vec<i16>,
    /// Fixed-point weights of the differences.
    weights: Vec<i16>,
    /// The costs of all nodes before each step and after the last.
    costs: Vec<u16>,
}

impl Branches {
    /// The branches of states whose levels are `levels`, `values` to each state.
    pub(super) fn new(bits: usize, values: usize, levels: &[f32]) -> Branches {
        let states = levels.len() / values;
        let largest = levels.iter().fold(0f32, |top, level| top.max(level.abs()));
        // Values up to 4.3, and somewhat beyond the outermost level, keep their place; the rest come to lie there. With
        // less, far values would count for too little: 1 % of the error at 1 bit, whose levels end at 1.6.
        let unit = (0.9 * f32::from(i16::MAX)) / largest.max(f32::MIN_POSITIVE);
        let unit = unit.min(7_500.0);
        let fixed = |level: &f32| (level * unit).round_ties_even() as i16;
        let levels =
            (0..values).flat_map(|v| levels.iter().skip(v).step_by(values).map(fixed)).collect::<Vec<i16>>();
        // Survivors merge slowly: with six memories of the trellis on either side the error is 0.7 % larger than with half a
        // block, with ten 0.2 %.
        let reach = 10 * states.ilog2().div_ceil(bits as u32) as usize;
        Branches { bits, values, nodes: states >> bits, unit, levels, reach }
    }

    /// How many blocks to search at once, so that the costs of all stay in the second cache.
    pub(super) fn together(&self) -> usize {
        if self.nodes <= 64 { TOGETHER } else { 1 }
    }

    /// Memory for [`Branches::together`] blocks of `steps` steps.
    ///
    /// # Errors
    /// There is not enough.
    pub(super) fn scratch(&self, steps: usize) -> Result<Scratch, Error> {
        let blocks = self.together();
        Ok(Scratch {
            x: zeroed(blocks * steps * self.values)?,
            weights: zeroed(blocks * steps * self.values)?,
            costs: zeroed(blocks * (steps + 1) * self.nodes)?,
        })
    }
}

/// The search for the best path of one block or [`TOGETHER`], whose symbols it writes: the `k` bits of each step.
pub(super) struct Search<'a> {
    pub(super) branches: &'a Branches,
    /// The values of the blocks, of about unit variance.
    pub(super) x: &'a [f32],
    pub(super) importance: Option<&'a [f32]>,
    pub(super) scratch: &'a mut Scratch,
    /// One for each step: the oldest bits of its state.
    pub(super) symbols: &'a mut [u8],
}

impl Search<'_> {
    pub(super) fn run(self, isa: Isa) {
        let isa = compiled(isa);
        match (self.branches.bits, self.branches.values) {
            (1, 1) => isa.run(Shape::<1, 2, 8, 1>(self)),
            (2, 1) => isa.run(Shape::<2, 4, 4, 1>(self)),
            (3, 1) => isa.run(Shape::<3, 4, 2, 1>(self)),
            (_, 1) => isa.run(Shape::<4, 4, 1, 1>(self)),
            (1, _) => isa.run(Shape::<1, 2, 8, 2>(self)),
            (2, _) => isa.run(Shape::<2, 4, 4, 2>(self)),
            (3, _) => isa.run(Shape::<3, 4, 2, 2>(self)),
            (_, _) => isa.run(Shape::<4, 4, 1, 2>(self)),
        }
    }
}

/// A search of a given shape, which is that of [`Walk`]: a function of its own for each, or compilers take minutes.
struct Shape<'a, const K: usize, const J: usize, const G: usize, const V: usize>(Search<'a>);

impl<const K: usize, const J: usize, const G: usize, const V: usize> Op for Shape<'_, K, J, G, V> {
    type Output = ();
    const ISAS: u8 = COMPILED;

    #[inline(always)]
    fn run(self) {
        self.0.search::<K, J, G, V>();
    }
}

/// What the steps of a search have in common. `K` bits a step, `V` values; `J` predecessors are compared at a time,
/// and `G` of the costs before a step make a vector of those after: `WIDTH >> K`.
struct Walk<'a, const K: usize, const J: usize, const G: usize, const V: usize> {
    branches: &'a Branches,
    /// Steps of a block.
    steps: usize,
    x: &'a [[i16; V]],
    weights: Option<&'a [[i16; V]]>,
}

impl Search<'_> {
    #[inline(always)]
    fn search<const K: usize, const J: usize, const G: usize, const V: usize>(self) {
        let branches = self.branches;
        let (nodes, steps, blocks) = (branches.nodes, BLOCK / V, self.x.len() / BLOCK);
        let Scratch { x, weights, costs } = self.scratch;
        let limit = f32::from(i16::MAX);
        for (fixed, x) in x.iter_mut().zip(self.x) {
            *fixed = fix(x * branches.unit, limit);
        }
        if let Some(importance) = self.importance {
            for (importance, weights) in importance.chunks(BLOCK).zip(weights.chunks_mut(BLOCK)) {
                fix_weights(importance, weights);
            }
        }
        let (x, weights) = (x.as_chunks().0, weights.as_chunks().0);
        let weights = self.importance.map(|_| weights);
        let walk = Walk::<K, J, G, V> { branches, steps, x, weights };
        let stride = (steps + 1) * nodes;
        let reach = branches.reach.min(steps / 2);

        // First a path around the seam with free ends: it says which node lies there. Then the whole block, from that
        // node to itself. In one loop, so that the compiler makes one copy of each step.
        let mut seams = [0; TOGETHER];
        for whole in [false, true] {
            let (first, count, back_to) =
                if whole { (0, steps, 0) } else { (steps - reach, 2 * reach, reach) };
            for block in 0..blocks {
                let costs = &mut costs[block * stride..][..stride];
                if whole {
                    costs[..nodes].fill(u16::MAX);
                    costs[seams[block]] = 0;
                } else {
                    costs[..nodes].fill(0);
                }
                walk.forward(block, first, count, costs);
                if !whole {
                    seams[block] = least(&costs[count * nodes..][..nodes]);
                }
            }
            walk.back(first, back_to..count, costs, &mut seams[..blocks], self.symbols);
        }
    }
}

impl<const K: usize, const J: usize, const G: usize, const V: usize> Walk<'_, K, J, G, V> {
    /// Where levels are dense, differences are doubled, so that their squares count to two more bits; doubled twice,
    /// they saturate too early (0.1 dB at 4 bits).
    const DOUBLINGS: usize = (K > 2 * V) as usize;

    /// The costs of a block after each of `count` steps from `first` on, around its end, from those before.
    #[inline(always)]
    fn forward(&self, block: usize, first: usize, count: usize, costs: &mut [u16]) {
        let nodes = self.branches.nodes;
        for t in 0..count {
            let at = block * self.steps + self.around(first + t);
            let (before, after) = costs[t * nodes..][..2 * nodes].split_at_mut(nodes);
            let x = self.x[at];
            match self.weights {
                None => {
                    self.step(before, after, |v, level| square(Self::doubled(x[v].saturating_sub(level))))
                }
                Some(weights) => {
                    let w = weights[at];
                    self.step(before, after, |v, level| {
                        let product = high(x[v].saturating_sub(level), w[v]);
                        square(Self::doubled(double(double(double(product)))))
                    });
                }
            }
            if t % NORMALISE == NORMALISE - 1 {
                normalise(after);
            }
        }
    }

    /// The step at this place of the circle.
    #[inline(always)]
    fn around(&self, at: usize) -> usize {
        if at < self.steps { at } else { at - self.steps }
    }

    #[inline(always)]
    fn doubled(mut v: i16) -> i16 {
        for _ in 0..Self::DOUBLINGS {
            v = double(v);
        }
        v
    }

    /// One step of all nodes.
    #[inline(always)]
    fn step(&self, before: &[u16], after: &mut [u16], distance: impl Fn(usize, i16) -> u16) {
        let nodes = self.branches.nodes;
        let states = nodes << K;
        for group in (0..1 << K).step_by(J) {
            let after = after.as_chunks_mut::<WIDTH>().0;
            let len = after.len();
            let mut levels: [[&[[i16; WIDTH]]; J]; V] = [[&[]; J]; V];
            let mut costs: [&[[u16; G]]; J] = [&[]; J];
            for j in 0..J {
                let state = (group + j) * nodes;
                for v in 0..V {
                    levels[v][j] = &self.branches.levels[v * states + state..][..nodes].as_chunks().0[..len];
                }
                costs[j] = &before[state >> K..].as_chunks().0[..len];
            }
            for i in 0..len {
                let mut best = if group == 0 { [u16::MAX; WIDTH] } else { after[i] };
                for j in 0..J {
                    let few = &costs[j][i];
                    let mut sums = [0; WIDTH];
                    for lane in 0..WIDTH {
                        sums[lane] = few[lane >> K];
                    }
                    for v in 0..V {
                        let levels = levels[v][j][i];
                        for lane in 0..WIDTH {
                            sums[lane] = sums[lane].saturating_add(distance(v, levels[lane]));
                        }
                    }
                    for lane in 0..WIDTH {
                        best[lane] = best[lane].min(sums[lane]);
                    }
                }
                after[i] = best;
            }
        }
    }

    /// Follows the best path of each block from a node after the last of `steps`, counted from step `first` on, back to
    /// the node before them, which takes its place.
    #[inline(always)]
    fn back(&self, first: usize, steps: Range<usize>, costs: &[u16], at: &mut [usize], symbols: &mut [u8]) {
        let nodes = self.branches.nodes;
        for t in steps.rev() {
            // Blocks take turns: each waits for its last step.
            for (block, at) in at.iter_mut().enumerate() {
                let before = &costs[(block * (self.steps + 1) + t) * nodes..][..nodes];
                let step = block * self.steps + self.around(first + t);
                let x = self.x[step];
                let w = match self.weights {
                    Some(weights) => weights[step],
                    None => [0; V],
                };
                let mut best = u64::MAX;
                for j in 0..1 << K {
                    let state = *at + j * nodes;
                    let mut sum = u64::from(before[state >> K]);
                    for v in 0..V {
                        let level = self.branches.levels[v * (nodes << K) + state];
                        let difference = i64::from(x[v]) - i64::from(level);
                        let difference = match self.weights {
                            Some(_) => (difference * i64::from(w[v])) >> 13,
                            None => difference,
                        };
                        sum += ((difference * difference) as u64) << (2 * Self::DOUBLINGS) >> 16;
                    }
                    // The least cost, and of equal ones the first predecessor.
                    best = best.min(sum << K | j as u64);
                }
                let symbol = best as usize % (1 << K);
                symbols[step] = symbol as u8;
                *at = (*at + symbol * nodes) >> K;
            }
        }
    }
}

#[inline(always)]
fn square(v: i16) -> u16 {
    high(v, v) as u16
}

#[inline(always)]
fn double(v: i16) -> i16 {
    v.saturating_add(v)
}

/// `a · b / 2¹⁶`: `vpmulhw`.
#[inline(always)]
fn high(a: i16, b: i16) -> i16 {
    (i32::from(a).wrapping_mul(i32::from(b)) >> 16) as i16
}

#[inline(always)]
fn fix(v: f32, limit: f32) -> i16 {
    // Half to even, by the addition that leaves an integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let v = if v > limit { limit } else { v };
    let v = if v < -limit { -limit } else { v };
    (v + ROUND).to_bits() as i16
}

/// Roots of the weights relative to their mean, or to a sixteenth of the largest, if that is more.
fn fix_weights(importance: &[f32], weights: &mut [i16]) {
    let (mut sum, mut top) = (0f64, 0f32);
    for w in importance {
        sum += f64::from(*w);
        top = top.max(*w);
    }
    let mean = (sum / importance.len() as f64) as f32;
    let one = mean.max(top / 16.0);
    for (fixed, w) in weights.iter_mut().zip(importance) {
        // Where nothing counts, all counts alike.
        let weight = if one > 0.0 { w / one } else { 1.0 };
        *fixed = fix(weight.sqrt() * WEIGHT_ONE, f32::from(i16::MAX));
    }
}

#[inline(always)]
fn normalise(costs: &mut [u16]) {
    let mut least = [u16::MAX; WIDTH];
    for line in costs.as_chunks::<WIDTH>().0 {
        for lane in 0..WIDTH {
            least[lane] = least[lane].min(line[lane]);
        }
    }
    let mut low = u16::MAX;
    for lane in least {
        low = low.min(lane);
    }
    for cost in costs {
        *cost -= low;
    }
}

/// The first node of least cost.
fn least(costs: &[u16]) -> usize {
    let mut best = 0;
    for (node, cost) in costs.iter().enumerate() {
        if *cost < costs[best] {
            best = node;
        }
    }
    best
}
