//! Asymmetric numeral systems: symbols become bits at the price of their entropy.
//!
//! A coder has a number x from 2¹⁶ to 2³² − 1. Coding a symbol that has the slots `start … start + f` of 2¹⁴ makes it
//! `x' = 2¹⁴·(x / f) + x mod f + start`, about `2¹⁴ / f` times as large; first the low 16 bits go out as a word, if x'
//! would not fit. Decoding is the inverse and runs from the last symbol to the first, so encoding starts at the end. Four
//! coders take turns with the sixteen paths of a run and share one stream of words: while one waits for its
//! product, three others work. A coder begins with x = 2¹⁶, and a decoder that does not end there has read
//! what no encoder wrote.
//!
//! Each superset has an alphabet of its own. What stands in no alphabet is an escape and 24 bits.
//!
//! Source: J. Duda, Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate of
//! arithmetic coding, 2013, arXiv:1311.2540; interleaving: F. Giesen, Interleaved entropy coders, 2014, arXiv:1402.3392.
#![forbid(unsafe_code)]

use super::paths::{Lanes, PATHS};
use super::ungerboeck::Machine;
use crate::error::Error;
use crate::mem::zeroed;

/// Levels of a superset that may have slots: numbers −512 to 511.
pub(super) const REACH: i32 = 512;
/// The place of the escape behind them.
pub(super) const ESCAPE: usize = 2 * REACH as usize;
/// Places of an alphabet.
pub(super) const PLACES: usize = ESCAPE + 1;
/// Slots of an alphabet: 2¹⁴, with which coding at 4 bits costs 0.03 % more than the entropy, and with 2¹² 0.3 %.
pub(super) const SLOT_BITS: u32 = 14;
pub(super) const SLOTS: u32 = 1 << SLOT_BITS;
/// Bits of a level behind an escape, in two halves.
pub(super) const ESCAPED_BITS: u32 = 24;
const HALF_BITS: u32 = ESCAPED_BITS / 2;

/// Coders that take turns.
const CODERS: usize = 4;
/// Words before the first symbol: the last state of each coder.
pub(super) const HEAD_WORDS: usize = 2 * CODERS;
/// The least state.
const LEAST: u32 = 1 << 16;

/// How many slots each place of both alphabets has: all together, or none where a superset is never used.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alphabets(pub(super) [Vec<u32>; 2]);

/// The place of level `n` in the alphabet of its superset.
#[inline(always)]
pub(super) fn place(n: i32) -> usize {
    let place = (n >> 1) + REACH;
    if (0..2 * REACH).contains(&place) { place as usize } else { ESCAPE }
}

impl Alphabets {
    /// Slots in proportion to how often each place is used, at least one where it is.
    pub(super) fn new(counts: &[Vec<u32>; 2]) -> Alphabets {
        Alphabets([shares(&counts[0]), shares(&counts[1])])
    }
}

/// Rounds counts to slots. What is missing or too much goes where it costs the fewest bits.
fn shares(counts: &[u32]) -> Vec<u32> {
    let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
    if total == 0 {
        return vec![0; counts.len()];
    }
    let share = |count: &u32| {
        let share = (u64::from(*count) * u64::from(SLOTS) + total / 2) / total;
        if *count > 0 { share.max(1) as u32 } else { 0 }
    };
    let mut slots: Vec<u32> = counts.iter().map(share).collect();
    let ratio = |slots: u32, count: u32| f64::from(count) / f64::from(slots);
    loop {
        let given: u32 = slots.iter().sum();
        let used = (0..counts.len()).filter(|i| counts[*i] > 0);
        // A slot more gains count · log₂(1 + 1/f) bits, about count / f.
        let changed = match given.cmp(&SLOTS) {
            std::cmp::Ordering::Equal => return slots,
            std::cmp::Ordering::Less => {
                used.max_by(|a, b| ratio(slots[*a], counts[*a]).total_cmp(&ratio(slots[*b], counts[*b])))
            }
            std::cmp::Ordering::Greater => used
                .filter(|i| slots[*i] > 1)
                .min_by(|a, b| ratio(slots[*a] - 1, counts[*a]).total_cmp(&ratio(slots[*b] - 1, counts[*b]))),
        };
        match changed {
            Some(i) if given < SLOTS => slots[i] += 1,
            Some(i) => slots[i] -= 1,
            None => return slots,
        }
    }
}

/// A symbol of the encoder.
#[derive(Clone, Copy, Default)]
struct Slot {
    start: u32,
    len: u32,
}

/// Both alphabets as an encoder reads them.
pub(super) struct Encoder {
    slots: [Vec<Slot>; 2],
}

impl Encoder {
    pub(super) fn new(alphabets: &Alphabets) -> Encoder {
        let slots = |alphabet: &Vec<u32>| {
            let starts = alphabet.iter().scan(0, |next, len| {
                let start = *next;
                *next += len;
                Some(Slot { start, len: *len })
            });
            starts.collect()
        };
        Encoder { slots: [slots(&alphabets.0[0]), slots(&alphabets.0[1])] }
    }

    /// The words of a run of levels that have slots in their alphabets.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn encode(&self, levels: &[i32]) -> Result<Vec<u16>, Error> {
        let escapes = levels.iter().filter(|n| place(**n) == ESCAPE).count();
        let mut words = Words { words: zeroed(levels.len() + 2 * escapes + HEAD_WORDS)?, free: 0 };
        words.free = words.words.len();
        let mut states = [LEAST; CODERS];
        for (i, n) in levels.iter().enumerate().rev() {
            let state = &mut states[i % CODERS];
            let place = place(*n);
            if place == ESCAPE {
                let (k, mask) = (*n as u32, (1 << HALF_BITS) - 1);
                for half in [k >> HALF_BITS & mask, k & mask] {
                    words.make_room(state, 1 << (32 - HALF_BITS));
                    *state = *state << HALF_BITS | half;
                }
            }
            let Slot { start, len } = self.slots[(n & 1) as usize][place];
            words.make_room(state, u64::from(len) << (32 - SLOT_BITS));
            *state = (*state / len << SLOT_BITS) + *state % len + start;
        }
        for state in states.iter().rev() {
            words.push((state >> 16) as u16);
            words.push(*state as u16);
        }
        words.words.drain(..words.free);
        Ok(words.words)
    }
}

/// Words written from the last to the first.
struct Words {
    words: Vec<u16>,
    free: usize,
}

impl Words {
    #[inline(always)]
    fn push(&mut self, word: u16) {
        self.free -= 1;
        self.words[self.free] = word;
    }

    /// Writes a word of the state, if it is not below the limit.
    #[inline(always)]
    fn make_room(&mut self, state: &mut u32, limit: u64) {
        if u64::from(*state) >= limit {
            self.push(*state as u16);
            *state >>= 16;
        }
    }
}

/// A symbol of the decoder.
#[derive(Clone, Copy, Default)]
struct Symbol {
    start: u16,
    /// How many slots; none where there is no symbol.
    len: u16,
    /// The number of the level; [`Symbol::ESCAPE`] where it follows.
    n: i32,
}

impl Symbol {
    const ESCAPE: i32 = i32::MIN;
}

/// Both alphabets and the code as a decoder reads them.
pub(super) struct Decoder {
    symbols: Vec<Symbol>,
    /// The number of the symbol of each slot, of both supersets in turn.
    slots: Vec<u16>,
    /// For each state and each z1 the next state, and its superset in bit 8.
    next: Vec<[u16; 2]>,
}

impl Decoder {
    /// # Errors
    /// No memory.
    pub(super) fn new(alphabets: &Alphabets, machine: &Machine) -> Result<Decoder, Error> {
        let mut slots = zeroed(2 * SLOTS as usize)?;
        // The first symbol is none: that of a superset without slots.
        let mut symbols = vec![Symbol::default()];
        for (superset, alphabet) in alphabets.0.iter().enumerate() {
            let mut rest = &mut slots[superset * SLOTS as usize..][..SLOTS as usize];
            let mut start = 0;
            for (place, len) in alphabet.iter().enumerate().filter(|(_, len)| **len > 0) {
                let n = 2 * (place as i32 - REACH) + superset as i32;
                let n = if place == ESCAPE { Symbol::ESCAPE } else { n };
                let (own, after) = rest.split_at_mut(*len as usize);
                own.fill(symbols.len() as u16);
                symbols.push(Symbol { start, len: *len as u16, n });
                start += *len as u16;
                rest = after;
            }
        }
        let next = (0..machine.states()).map(|state| {
            [0, 2].map(|z1| {
                let next = machine.next(state, z1 + machine.superset(state));
                next as u16 | (machine.superset(next) as u16) << 8
            })
        });
        Ok(Decoder { symbols, slots, next: next.collect() })
    }

    /// Decodes a run to `step` times the numbers of its levels; whether the words are what an encoder writes.
    pub(super) fn decode(&self, bytes: &[u8], step: f32, out: &mut [f32]) -> bool {
        let mut words = Reader { words: bytes.as_chunks().0, at: 0 };
        let mut coders = [0; CODERS];
        for state in &mut coders {
            *state = u32::from(words.next()) | u32::from(words.next()) << 16;
        }
        let mut good = coders.iter().all(|state| *state >= LEAST);
        let mut states = [0; PATHS];
        let (steps, last) = out.as_chunks_mut::<PATHS>();
        for out in steps {
            good &= self.step(&mut words, &mut coders, &mut states, step, out);
        }
        good &= self.step(&mut words, &mut coders, &mut states, step, last);
        good && words.at == words.words.len() && coders == [LEAST; CODERS]
    }

    #[inline(always)]
    fn step(
        &self,
        words: &mut Reader<'_>,
        coders: &mut [u32; CODERS],
        states: &mut Lanes<u16>,
        step: f32,
        out: &mut [f32],
    ) -> bool {
        let mut good = true;
        for (lane, (out, state)) in out.iter_mut().zip(states).enumerate() {
            let x = &mut coders[lane % CODERS];
            let slot = *x & (SLOTS - 1);
            let symbol =
                self.symbols[usize::from(self.slots[(slot | u32::from(*state >> 8) << SLOT_BITS) as usize])];
            // A symbol without slots is no symbol, and its product is 0: nothing overflows before the end.
            *x = u32::from(symbol.len) * (*x >> SLOT_BITS) + slot - u32::from(symbol.start);
            words.refill(x);
            let mut n = symbol.n;
            if n == Symbol::ESCAPE {
                n = words.escaped(x);
                good &= place(n) == ESCAPE && n & 1 == i32::from(*state >> 8);
            }
            good &= symbol.len > 0;
            *out = step * n as f32;
            *state = self.next[usize::from(*state & 255)][(n >> 1 & 1) as usize];
        }
        good
    }
}

/// Words read from the first to the last; behind the last come zeros.
struct Reader<'a> {
    words: &'a [[u8; 2]],
    at: usize,
}

impl Reader<'_> {
    #[inline(always)]
    fn next(&mut self) -> u16 {
        let word = self.words.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        u16::from_le_bytes(word)
    }

    #[inline(always)]
    fn refill(&mut self, state: &mut u32) {
        if *state < LEAST {
            *state = *state << 16 | u32::from(self.next());
        }
    }

    /// The 24 bits behind an escape, sign-extended.
    #[cold]
    fn escaped(&mut self, state: &mut u32) -> i32 {
        let mut n = 0;
        for half in 0..2 {
            n |= (*state & ((1 << HALF_BITS) - 1)) << (HALF_BITS * half);
            *state >>= HALF_BITS;
            self.refill(state);
        }
        (n << (32 - ESCAPED_BITS)) as i32 >> (32 - ESCAPED_BITS)
    }
}
