//! The layout of a block, and the way back from it.
//!
//! The bits that the steps of a block add, `k` each and the highest first, make a stream; the state of step `t` is its
//! bits `k·t` to `k·t + L`, and behind the last bit stands the first. So the decoder of any weight needs L
//! neighbouring bits and nothing before them.
//!
//! The stream is cut into segments of [`SEGMENT`] steps, `k` words of 16 bits each, and the words are stored by their
//! place in a segment: first word 0 of all segments, then word 1 of all. With 2 bits a step and one value:
//!
//! ```text
//!             lane 0        lane 1        …   lane 15
//! bytes  0…31 steps 0–7     steps 16–23   …   steps 240–247     word 0, little-endian, first step in the top bits
//! bytes 32…63 steps 8–15    steps 24–31   …   steps 248–255     word 1
//! ```
//!
//! A vector register loads word q of all segments at once, and the states of step r of all segments are
//! `(word[q] << s | word[q + 1] >> 16 − s) >> 16 − L` with constants `q = kr / 16` and `s = kr mod 16`: no lane does
//! anything of its own. Behind the last word of a segment comes the first of the next, which is word 0 turned by one
//! lane; that makes the last segment end in the first by itself. A block of 256 weights has 16 lanes with one value
//! a step, 8 with two.
#![forbid(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "arrays are indexed in step: counting loops become vector code"
)]

/// Steps of a segment.
pub(super) const SEGMENT: usize = 16;

/// Writes the symbols of a block of `bits` bits each.
pub(super) fn pack(symbols: &[u8], bits: usize, out: &mut [u8]) {
    let words = out.as_chunks_mut::<2>().0;
    let lanes = symbols.len() / SEGMENT;
    for (lane, symbols) in symbols.as_chunks::<SEGMENT>().0.iter().enumerate() {
        let stream = symbols.iter().fold(0u64, |stream, symbol| stream << bits | u64::from(*symbol));
        for q in 0..bits {
            words[q * lanes + lane] = ((stream >> (16 * (bits - 1 - q))) as u16).to_le_bytes();
        }
    }
}

/// Calls `each(lane, r, state)` for every step of a block: number `r` of segment `lane`.
#[inline(always)]
pub(super) fn states(bytes: &[u8], bits: usize, state_bits: usize, each: impl FnMut(usize, usize, usize)) {
    match bits {
        1 => steps::<1>(bytes, state_bits, each),
        2 => steps::<2>(bytes, state_bits, each),
        3 => steps::<3>(bytes, state_bits, each),
        _ => steps::<4>(bytes, state_bits, each),
    }
}

/// [`states`] of `K` bits a step: with shifts that are constants, four times as fast.
#[inline(always)]
fn steps<const K: usize>(bytes: &[u8], state_bits: usize, mut each: impl FnMut(usize, usize, usize)) {
    let words = bytes.as_chunks::<2>().0;
    let lanes = words.len() / K;
    let word = |q: usize, lane: usize| u32::from(u16::from_le_bytes(words[q * lanes + lane]));
    for lane in 0..lanes {
        // Each word of the segment with the next behind it.
        let mut pairs = [0; K];
        for q in 0..K {
            let next = if q + 1 < K { word(q + 1, lane) } else { word(0, (lane + 1) % lanes) };
            pairs[q] = word(q, lane) << 16 | next;
        }
        for r in 0..SEGMENT {
            each(lane, r, (pairs[K * r / 16] << (K * r % 16) >> (32 - state_bits)) as usize);
        }
    }
}

/// Writes the levels of a block.
pub(super) fn decode(bytes: &[u8], bits: usize, state_bits: usize, levels: &[f32], out: &mut [f32]) {
    if levels.len() >> state_bits == 1 {
        let out = out.as_chunks_mut::<SEGMENT>().0;
        states(bytes, bits, state_bits, |lane, r, state| out[lane][r] = levels[state]);
    } else {
        let (levels, out) = (levels.as_chunks::<2>().0, out.as_chunks_mut::<2>().0);
        states(bytes, bits, state_bits, |lane, r, state| out[lane * SEGMENT + r] = levels[state]);
    }
}

/// The words of a block by their place in a segment, and behind them those of the next segments.
#[inline(always)]
pub(super) fn words<const K: usize, const LANES: usize>(bytes: &[u8]) -> [[u16; LANES]; 6] {
    let mut words = [[0; LANES]; 6];
    for q in 0..K {
        let bytes = &bytes[2 * q * LANES..][..2 * LANES];
        for (word, bytes) in words[q].iter_mut().zip(bytes.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*bytes);
        }
    }
    for q in K..6 {
        let last = words[q - K];
        for lane in 0..LANES {
            words[q][lane] = last[(lane + 1) % LANES];
        }
    }
    words
}

/// The 16 bits of each segment's stream from bit `at` on.
#[inline(always)]
pub(super) fn window<const LANES: usize>(words: &[[u16; LANES]; 6], at: usize) -> [u16; LANES] {
    let (q, s) = (at / 16, at % 16);
    joined(words[q], words[q + 1], s)
}

/// 16 bits from bit `s < 16` of `first` on, whose bits `second` goes on with.
#[inline(always)]
pub(super) fn joined<const LANES: usize>(
    first: [u16; LANES],
    second: [u16; LANES],
    s: usize,
) -> [u16; LANES] {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = first[lane] << s | second[lane] >> 1 >> (15 - s);
    }
    out
}
