//! Ungerboeck's rate-1/2 codes of 4 to 256 states.
//!
//! The levels of a scalar quantizer are dealt out in ascending order to four *subsets* D0 D1 D2 D3 D0 …, so that
//! levels of one subset lie four steps apart. A path bit `u` a value moves the code on, and its two output bits `z =
//! 2·z1 + z0` name the subset. In the feedforward form, with `D` the delay by one value,
//!
//! ```text
//! z0 = h1(D)·u    z1 = h0(D)·u    (mod 2)
//! ```
//!
//! for the parity polynomials h0 and h1 of the systematic code, since `h1·z1 = h0·z0` holds then. The state is the
//! last path bits, the newest lowest. All h1 lack their first and last term and all h0 have both, so z0 hangs on the
//! state alone, and of the two branches that leave a state, or enter one, one has z1 = 0 and the other z1 = 1: from
//! a state only the *superset* A0 = D0 ∪ D2 or A1 = D1 ∪ D3 can be reached.
//!
//! Source: G. Ungerboeck, Channel coding with multilevel/phase signals, IEEE Trans. Inf. Theory 28, 1982, table I
//! (the codes for amplitude modulation).
#![forbid(unsafe_code)]

use crate::error::Error;

/// h1 and h0 for 4, 8, 16 … 256 states, in octal; bit i is the coefficient of Dⁱ.
const POLYNOMIALS: [(u32, u32); 7] =
    [(0o2, 0o5), (0o4, 0o13), (0o4, 0o23), (0o10, 0o45), (0o24, 0o103), (0o126, 0o235), (0o362, 0o515)];

/// A code.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// Binary logarithm of the number of states.
    pub(super) memory: usize,
    /// The subset of the branch of bit u that leaves state s, at `2s + u`.
    pub(super) subsets: Vec<u8>,
}

impl Machine {
    /// The code of this many states.
    ///
    /// # Errors
    /// `states` is no power of two from 4 to 256.
    pub(super) fn new(states: usize) -> Result<Machine, Error> {
        let memory = states.trailing_zeros() as usize;
        if !states.is_power_of_two() || !(2..=8).contains(&memory) {
            let expected = "4, 8, 16, 32, 64, 128 or 256".to_owned();
            return Err(Error::Value { what: "states", got: states.to_string(), expected });
        }
        Ok(Machine::with_memory(memory))
    }

    /// The code of `2^memory` states, 2 to 8.
    pub(super) fn with_memory(memory: usize) -> Machine {
        let states = 1usize << memory;
        let (h1, h0) = POLYNOMIALS[memory - 2];
        let parity = |v: u32| (v.count_ones() & 1) as u8;
        let subsets = (0..2 * states as u32).map(|bits| 2 * parity(bits & h0) + parity(bits & h1)).collect();
        Machine { memory, subsets }
    }

    /// The number of states.
    pub(super) fn states(&self) -> usize {
        1 << self.memory
    }

    /// The superset from which a state takes levels.
    #[inline(always)]
    pub(super) fn superset(&self, state: usize) -> usize {
        usize::from(self.subsets[2 * state] & 1)
    }

    /// The state that follows by a branch of subset `z`, which lies in the superset of the state.
    pub(super) fn next(&self, state: usize, z: usize) -> usize {
        let u = usize::from(usize::from(self.subsets[2 * state]) != z);
        (2 * state + u) & (self.states() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_take_opposite_subsets_of_one_superset() {
        for memory in 2..=8 {
            let machine = Machine::new(1 << memory).unwrap();
            let (states, z) = (machine.states(), |s: usize, u: usize| machine.subsets[2 * s + u]);
            for s in 0..states {
                assert_eq!(z(s, 0) ^ z(s, 1), 2, "leaving state {s}");
                assert_eq!(z(s, 0) ^ z(s ^ (states / 2), 0), 2, "entering with the other oldest bit");
                for u in 0..2 {
                    assert_eq!(machine.next(s, usize::from(z(s, u))), (2 * s + u) % states);
                }
            }
            let odd = (0..states).filter(|s| machine.superset(*s) == 1).count();
            assert_eq!(odd, states / 2);
        }
    }

    /// The least squared distance between two paths that part and meet again, in squared steps: subsets z and z' lie
    /// |z − z'| apart, or 4 less that. A search for codes makes it as large as can be; a wrong digit shows here.
    #[test]
    fn free_distances_are_large() {
        for (memory, distance) in (2..=8).zip([9, 10, 11, 13, 14, 16, 17]) {
            let machine = Machine::new(1 << memory).unwrap();
            let states = machine.states();
            // The code is linear, but distances are not those of bits: pairs of states are walked.
            let mut costs = vec![u32::MAX; states * states];
            for s in 0..states {
                let (a, b) = (2 * s % states, (2 * s + 1) % states);
                costs[a * states + b] = 4;
            }
            for _ in 0..8 * memory {
                let mut after = costs.clone();
                for (pair, cost) in
                    costs.iter().enumerate().filter(|(pair, c)| **c < 40 && pair / states != pair % states)
                {
                    for bits in 0..4 {
                        let (s, r, u, w) = (pair / states, pair % states, bits & 1, bits >> 1);
                        let apart = machine.subsets[2 * s + u].abs_diff(machine.subsets[2 * r + w]);
                        let apart = u32::from(apart.min(4 - apart)).pow(2);
                        let to = (2 * s + u) % states * states + (2 * r + w) % states;
                        after[to] = after[to].min(cost + apart);
                    }
                }
                costs = after;
            }
            let found = (0..states).map(|s| costs[s * states + s]).min();
            assert_eq!(found, Some(distance), "{states} states");
        }
    }
}
