//! Asymmetric numeral systems: symbols become bits at the price of their entropy.
//!
//! A coder has a number x from 2¹⁶ to 2³² − 1. Coding a symbol that has the slots `start … start + f` of 2¹⁴ makes
//! it `x' = 2¹⁴·(x / f) + x mod f + start`, about `2¹⁴ / f` times as large; first the low 16 bits go out as a word,
//! if x' would not fit. Decoding is the inverse and runs from the last symbol to the first, so encoding starts at
//! the end. Four coders take turns with the sixteen paths of a run and share one stream of words: while one waits
//! for its product, three others work. A coder begins with x = 2¹⁶, and a decoder that does not end there has read
//! what no encoder wrote.
//!
//! Each superset has an alphabet of its own. What stands in no alphabet is an escape and 24 bits.
//!
//! Source: J. Duda, Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression
//! rate of arithmetic coding, 2013, arXiv:1311.2540; interleaving: F. Giesen, Interleaved entropy coders, 2014,
//! arXiv:1402.3392.
#![forbid(unsafe_code)]

use super::paths::PATHS;
use super::ungerboeck::Machine;
use crate::error::Error;
use crate::mem::zeroed;

/// Levels of a superset that may have slots: numbers −512 to 511.
pub(super) const REACH: i32 = 512;
/// The place of the escape behind them.
pub(super) const ESCAPE: usize = 2 * REACH as usize;
/// Places of an alphabet.
pub(super) const PLACES: usize = ESCAPE + 1;
/// Slots of an alphabet: 2¹⁴, with which coding a Gaussian at 4 bits costs 0.01 % more than the entropy; with 2¹²,
/// 0.06 %.
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
            *state = ((*state / len) << SLOT_BITS) + *state % len + start;
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
    /// The number of the level, or [`Symbol::NO_LEVEL`].
    n: i32,
}

impl Symbol {
    /// The level follows, or there is none.
    const NO_LEVEL: i32 = i32::MIN;
    /// Room for both alphabets, as a power of two: a masked number is in it.
    const ROOM: usize = (2 * PLACES).next_power_of_two();
}

/// Both alphabets and the code as a decoder reads them.
pub(super) struct Decoder {
    symbols: Vec<Symbol>,
    /// The number of the symbol of each slot, of both supersets in turn.
    slots: Vec<u16>,
    /// For each state and each z1 the next state, and its superset in bit 8.
    next: [[u16; 2]; 256],
}

impl Decoder {
    /// # Errors
    /// No memory.
    pub(super) fn new(alphabets: &Alphabets, machine: &Machine) -> Result<Decoder, Error> {
        let mut slots = zeroed(2 * SLOTS as usize)?;
        // The first symbol is none: that of a superset without slots.
        let mut symbols = zeroed(Symbol::ROOM)?;
        symbols[0] = Symbol { start: 0, len: 0, n: Symbol::NO_LEVEL };
        let mut number = 0;
        for (superset, alphabet) in alphabets.0.iter().enumerate() {
            let mut rest = &mut slots[superset * SLOTS as usize..][..SLOTS as usize];
            let mut start = 0;
            for (place, len) in alphabet.iter().enumerate().filter(|(_, len)| **len > 0) {
                let n = 2 * (place as i32 - REACH) + superset as i32;
                let n = if place == ESCAPE { Symbol::NO_LEVEL } else { n };
                number += 1;
                symbols[number] = Symbol { start, len: *len as u16, n };
                let (own, after) = rest.split_at_mut(*len as usize);
                own.fill(number as u16);
                start += *len as u16;
                rest = after;
            }
        }
        let mut next = [[0; 2]; 256];
        for (state, next) in next.iter_mut().enumerate().take(machine.states()) {
            *next = [0, 2].map(|z1| {
                let next = machine.next(state, z1 + machine.superset(state));
                next as u16 | (machine.superset(next) as u16) << 8
            });
        }
        Ok(Decoder { symbols, slots, next })
    }

    /// Decodes a run to `step` times the numbers of its levels; whether the words are what an encoder writes.
    pub(super) fn decode(&self, bytes: &[u8], step: f32, out: &mut [f32]) -> bool {
        let (Some(symbols), Some(slots)) = (self.symbols.first_chunk(), self.slots.first_chunk()) else {
            return false;
        };
        let mut words = Reader { words: bytes.as_chunks().0, at: 0, good: true };
        let mut x = [0; CODERS];
        for x in &mut x {
            *x = u32::from(words.next()) | u32::from(words.next()) << 16;
            words.good &= *x >= LEAST;
        }
        let tables = Tables { symbols, slots, next: &self.next };
        let mut states = [0; PATHS];
        let (steps, last) = out.as_chunks_mut::<PATHS>();
        for out in steps {
            let (out, states) = (out.as_chunks_mut::<CODERS>().0, states.as_chunks_mut::<CODERS>().0);
            for ([a, b, c, d], [s, t, u, v]) in out.iter_mut().zip(states) {
                *a = tables.level(&mut words, &mut x[0], s) as f32 * step;
                *b = tables.level(&mut words, &mut x[1], t) as f32 * step;
                *c = tables.level(&mut words, &mut x[2], u) as f32 * step;
                *d = tables.level(&mut words, &mut x[3], v) as f32 * step;
            }
        }
        for (lane, (out, state)) in last.iter_mut().zip(&mut states).enumerate() {
            *out = tables.level(&mut words, &mut x[lane % CODERS], state) as f32 * step;
        }
        words.good && words.at == words.words.len() && x == [LEAST; CODERS]
    }
}

/// The tables of a decoder, of lengths that spare checks.
#[derive(Clone, Copy)]
struct Tables<'a> {
    symbols: &'a [Symbol; Symbol::ROOM],
    slots: &'a [u16; 2 * SLOTS as usize],
    next: &'a [[u16; 2]; 256],
}

impl Tables<'_> {
    /// The next level of a path in this state.
    #[inline(always)]
    fn level(self, words: &mut Reader<'_>, x: &mut u32, state: &mut u16) -> i32 {
        let slot = *x & (SLOTS - 1);
        let number = self.slots[(u32::from(*state >> 8 & 1) << SLOT_BITS | slot) as usize];
        let symbol = self.symbols[usize::from(number) % Symbol::ROOM];
        // Of a symbol without slots the product is 0: nothing overflows.
        *x = u32::from(symbol.len) * (*x >> SLOT_BITS) + slot - u32::from(symbol.start);
        words.refill(x);
        let mut n = symbol.n;
        if n == Symbol::NO_LEVEL {
            n = words.escaped(x);
            words.good &= symbol.len > 0 && place(n) == ESCAPE && n & 1 == i32::from(*state >> 8);
        }
        *state = self.next[usize::from(*state & 255)][(n >> 1 & 1) as usize];
        n
    }
}

/// Words read from the first to the last; behind the last come zeros.
struct Reader<'a> {
    words: &'a [[u8; 2]],
    at: usize,
    /// Whether nothing was read that no encoder writes.
    good: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Levels that a path may take, geometric with a rare far one.
    fn walk(machine: &Machine, random: &[u32]) -> Vec<i32> {
        let mut states = [0; PATHS];
        let level = |(i, random): (usize, &u32)| {
            let state = &mut states[i % PATHS];
            let far = if random % 97 == 0 { random >> 11 } else { random.trailing_zeros() };
            let k = if random >> 8 & 1 == 0 { far as i32 } else { -(far as i32) };
            let n = 2 * k + machine.superset(*state) as i32;
            *state = machine.next(*state, (n & 3) as usize);
            n
        };
        random.iter().enumerate().map(level).collect()
    }

    fn counts(levels: &[i32]) -> [Vec<u32>; 2] {
        let mut counts = [vec![0; PLACES], vec![0; PLACES]];
        levels.iter().for_each(|n| counts[(n & 1) as usize][place(*n)] += 1);
        counts
    }

    proptest! {
        #[test]
        fn levels_come_back(random in prop::collection::vec(any::<u32>(), 0..600), memory in 2u32..=8) {
            let machine = Machine::new(1 << memory).unwrap();
            let levels = walk(&machine, &random);
            let alphabets = Alphabets::new(&counts(&levels));
            let words = Encoder::new(&alphabets).encode(&levels).unwrap();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut out = vec![0.0; levels.len()];
            let decoder = Decoder::new(&alphabets, &machine).unwrap();
            prop_assert!(decoder.decode(&bytes, 1.0, &mut out));
            prop_assert_eq!(out, levels.iter().map(|n| *n as f32).collect::<Vec<f32>>());
        }

        #[test]
        fn slots_are_all_given(counts in prop::collection::vec(0u32..5000, 1..PLACES)) {
            let slots = shares(&counts);
            let total: u32 = counts.iter().sum();
            prop_assert_eq!(slots.iter().sum::<u32>(), if total > 0 { SLOTS } else { 0 });
            for (slots, count) in slots.iter().zip(&counts) {
                prop_assert_eq!(*slots > 0, *count > 0);
            }
        }

        #[test]
        fn words_of_any_kind_are_read_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            len in 0usize..300,
            slots in prop::collection::vec(0u32..90, PLACES),
        ) {
            let machine = Machine::new(16).unwrap();
            let mut none = vec![0; PLACES];
            let decoder = Decoder::new(&Alphabets([shares(&slots), none.clone()]), &machine).unwrap();
            decoder.decode(&bytes, 1.0, &mut vec![0.0; len]);
            none[ESCAPE] = 1;
            let decoder = Decoder::new(&Alphabets([shares(&none), shares(&none)]), &machine).unwrap();
            decoder.decode(&bytes, 1.0, &mut vec![0.0; len]);
        }
    }

    #[test]
    fn words_cost_the_entropy() {
        let machine = Machine::new(8).unwrap();
        let mut random = vec![0.0; 1 << 16];
        crate::rounding::uniform(1, 0, &mut random);
        let random: Vec<u32> = random.iter().map(|u| (u * 16_777_216.0) as u32 | 1 << 20).collect();
        let levels = walk(&machine, &random);
        let counts = counts(&levels);
        let mut bits = 0.0;
        for counts in &counts {
            let total: u32 = counts.iter().sum();
            let cost = |count: &u32| f64::from(*count) * (f64::from(total) / f64::from(*count)).log2();
            bits += counts.iter().filter(|count| **count > 0).map(cost).sum::<f64>();
        }
        bits += f64::from(counts[0][ESCAPE] + counts[1][ESCAPE]) * f64::from(ESCAPED_BITS);
        let words = Encoder::new(&Alphabets::new(&counts)).encode(&levels).unwrap().len() as f64;
        assert!(16.0 * words < 1.001 * bits + 128.0, "{words} words for {bits} bits");
        assert!(16.0 * words > bits);
    }
}
