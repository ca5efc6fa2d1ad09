//! The search for the best path through the trellis of an Ungerboeck code: Viterbi's algorithm on sixteen paths at
//! once.
//!
//! A run of [`RUN`] values is sixteen paths: value i belongs to path `i mod 16`, and each starts in state 0 and ends
//! where it likes. So a step takes sixteen neighbouring values, and every number of the search is a vector of one
//! lane a path: no lane ever looks at another, and no cost moves from its place. State `s` of a step is reached from
//! `s / 2` and `s / 2 + S / 2`, which are left towards `s` and its neighbour: a butterfly of four additions, two
//! comparisons and two minima. Which predecessor won is a bit, and the bits of 32 states a word.
//!
//! Starting in state 0 instead of any costs some four values of a path what coding them by a scalar quantizer would: with
//! 512 values a path the error is 0.4 % (8 states) to 0.8 % (256 states) larger than with 4096.
//!
//! Costs are float32, added in one order: every instruction set finds the same path.
#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "lanes of several arrays are indexed in step")]

use super::ungerboeck::Machine;
use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::mem::zeroed;
use crate::trellis::{COMPILED, compiled};
use std::sync::{Mutex, PoisonError};

/// Paths that are searched at once.
pub(super) const PATHS: usize = 16;
/// Values of a run: 4096 steps of sixteen paths.
pub(super) const RUN: usize = 1 << 16;
/// Steps between two subtractions of a state's cost from all, which keep costs small and the rounding of sums with them.
const NORMALISE: usize = 32;

/// The cost of a state that no path has reached; unlike infinity it can be subtracted from itself.
const FAR: f32 = 1e30;

/// One number of each path.
pub(super) type Lanes<T> = [T; PATHS];

/// What the levels of a subset cost.
pub(super) trait Metric {
    /// For each subset and path the cost of the best level, where the squared error counts `weights` times.
    fn costs(&self, x: Lanes<f32>, weights: Lanes<f32>) -> [Lanes<f32>; 4];
}

/// Memory of one search.
pub(super) struct Scratch {
    /// The costs of all states before and after a step, in turn.
    costs: Vec<Lanes<f32>>,
    /// For each step and 32 states, which predecessor won.
    winners: Vec<Lanes<u32>>,
    /// The branch of each step: `z + 4u`.
    branches: Vec<Lanes<u8>>,
}

/// Memory of all searches that run at once, and what went wrong in them.
pub(super) struct Scratches<'a> {
    machine: &'a Machine,
    len: usize,
    free: Mutex<Vec<Scratch>>,
    failure: Mutex<Option<Error>>,
}

impl<'a> Scratches<'a> {
    /// For `len` values, of which a run is searched at a time.
    pub(super) fn new(machine: &'a Machine, len: usize) -> Scratches<'a> {
        let (free, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
        Scratches { machine, len: len.min(RUN), free, failure }
    }

    /// Calls `work` with memory of its own.
    pub(super) fn with(&self, work: impl FnOnce(&mut Scratch)) {
        let free = self.free.lock().ok().and_then(|mut free| free.pop());
        match free.map_or_else(|| self.scratch(), Ok) {
            Ok(mut scratch) => {
                work(&mut scratch);
                if let Ok(mut free) = self.free.lock() {
                    free.push(scratch);
                }
            }
            Err(error) => {
                if let Ok(mut failure) = self.failure.lock() {
                    *failure = Some(error);
                }
            }
        }
    }

    fn scratch(&self) -> Result<Scratch, Error> {
        let (states, steps) = (self.machine.states(), self.len.div_ceil(PATHS));
        let (costs, branches) = (zeroed(2 * states)?, zeroed(steps)?);
        Ok(Scratch { costs, winners: zeroed(steps * states.div_ceil(32))?, branches })
    }

    /// Whether all had memory.
    pub(super) fn check(self) -> Result<(), Error> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// The search for the best paths of at most [`RUN`] values.
pub(super) struct Search<'a, M> {
    pub(super) machine: &'a Machine,
    pub(super) metric: &'a M,
    pub(super) x: &'a [f32],
    pub(super) weights: Option<&'a [f32]>,
    pub(super) scratch: &'a mut Scratch,
}

impl<'a, M: Metric> Search<'a, M> {
    /// The branch of each value: `z + 4u`.
    pub(super) fn run(self, isa: Isa) -> &'a [u8] {
        compiled(isa).run(self)
    }
}

impl<'a, M: Metric> Op for Search<'a, M> {
    type Output = &'a [u8];
    const ISAS: u8 = COMPILED;

    #[inline(always)]
    fn run(self) -> &'a [u8] {
        let Search { machine, metric, x, weights, scratch } = self;
        let (states, steps) = (machine.states(), x.len().div_ceil(PATHS));
        let words = states.div_ceil(32);
        let Scratch { costs, winners, branches } = scratch;
        let (mut before, mut after) = costs.split_at_mut(states);
        before.fill([FAR; PATHS]);
        before[0] = [0.0; PATHS];
        for (t, winners) in winners.chunks_exact_mut(words).take(steps).enumerate() {
            let (x, live) = lanes(x, t, 0.0);
            let weights = weights.map_or([1.0; PATHS], |weights| lanes(weights, t, 0.0).0);
            let mut costs = metric.costs(x, weights);
            if live < PATHS {
                // A path that has ended pays nothing more.
                costs.iter_mut().for_each(|costs| costs[live..].fill(0.0));
            }
            step(&machine.subsets, before, after, winners, costs);
            if t % NORMALISE == NORMALISE - 1 {
                let first = after[0];
                for costs in after.iter_mut() {
                    for lane in 0..PATHS {
                        costs[lane] -= first[lane];
                    }
                }
            }
            (before, after) = (after, before);
        }
        back(machine, least(before), winners, &mut branches[..steps]);
        &branches.as_flattened()[..x.len()]
    }
}

/// The values of step `t`, and how many of them there are.
#[inline(always)]
pub(super) fn lanes<T: Copy>(x: &[T], t: usize, rest: T) -> (Lanes<T>, usize) {
    let x = &x[t * PATHS..];
    match x.first_chunk() {
        Some(x) => (*x, PATHS),
        None => {
            let mut lanes = [rest; PATHS];
            lanes[..x.len()].copy_from_slice(x);
            (lanes, x.len())
        }
    }
}

/// One step of all states.
#[inline(always)]
fn step(
    subsets: &[u8],
    before: &[Lanes<f32>],
    after: &mut [Lanes<f32>],
    winners: &mut [Lanes<u32>],
    costs: [Lanes<f32>; 4],
) {
    let half = before.len() / 2;
    let (low, high) = before.split_at(half);
    let wings = low.iter().zip(high).zip(after.as_chunks_mut::<2>().0).zip(subsets.as_chunks::<2>().0);
    let mut winner = [0; PATHS];
    for (wing, (((low, high), [even, odd]), [z, _])) in wings.enumerate() {
        let (same, other) = (costs[usize::from(z & 3)], costs[usize::from(z & 3 ^ 2)]);
        let (from_low, from_high) = (sum(*low, same), sum(*high, other));
        winner = marked(winner, from_low, from_high);
        *even = lower(from_low, from_high);
        let (from_low, from_high) = (sum(*low, other), sum(*high, same));
        winner = marked(winner, from_low, from_high);
        *odd = lower(from_low, from_high);
        if wing % 16 == 15 || wing == half - 1 {
            winners[wing / 16] = winner;
        }
    }
}

#[inline(always)]
fn sum(a: Lanes<f32>, b: Lanes<f32>) -> Lanes<f32> {
    let mut out = [0.0; PATHS];
    for lane in 0..PATHS {
        out[lane] = a[lane] + b[lane];
    }
    out
}

#[inline(always)]
pub(super) fn lower(a: Lanes<f32>, b: Lanes<f32>) -> Lanes<f32> {
    let mut out = [0.0; PATHS];
    for lane in 0..PATHS {
        out[lane] = if b[lane] < a[lane] { b[lane] } else { a[lane] };
    }
    out
}

/// The words one bit on, with a 1 at the top where the second cost is lower: the sign of the difference. A
/// comparison that serves the minimum too would be kept in narrow masks.
#[inline(always)]
fn marked(words: Lanes<u32>, a: Lanes<f32>, b: Lanes<f32>) -> Lanes<u32> {
    let mut out = [0; PATHS];
    for lane in 0..PATHS {
        out[lane] = words[lane] >> 1 | (b[lane] - a[lane]).to_bits() & 1 << 31;
    }
    out
}

/// The first state of least cost of each path.
fn least(costs: &[Lanes<f32>]) -> Lanes<usize> {
    std::array::from_fn(|lane| {
        let better = |best: usize, s: usize| if costs[s][lane] < costs[best][lane] { s } else { best };
        (0..costs.len()).fold(0, better)
    })
}

/// Follows each path back from its last state.
fn back(machine: &Machine, mut at: Lanes<usize>, winners: &[Lanes<u32>], branches: &mut [Lanes<u8>]) {
    let words = machine.states().div_ceil(32);
    // Fewer than 32 states have their bits at the top of a word.
    let unused = 32usize.saturating_sub(machine.states());
    for (winners, branches) in winners.chunks_exact(words).zip(branches).rev() {
        for lane in 0..PATHS {
            let (state, u) = (at[lane], at[lane] & 1);
            let won = winners[state / 32][lane] >> (state % 32 + unused) & 1;
            let previous = state >> 1 | (won as usize) << (machine.memory - 1);
            branches[lane] = machine.subsets[2 * previous + u] | (u as u8) << 2;
            at[lane] = previous;
        }
    }
}
