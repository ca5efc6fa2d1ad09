//! `iq4_nl` and `iq4_xs`: sixteen levels that stand closer around zero, fitted to weights.
//!
//! ```text
//! iq4_nl   byte   0   2              18                           x = d · level[q]
//!                | d | q₀ … q₁₅     |
//! iq4_xs         | d | h h | l l l l | 8 × (q₀ … q₁₅) |           x = d · (scale − 32) · level[q]
//!                0   2     4         8                136
//! ```
//!
//! Low nibbles are the elements 0 to 15 of a part of 32, high nibbles 16 to 31. The scale of part `p` has its low four
//! bits in nibble `p` of the bytes `l`, its high two in the bits 2p, 2p + 1 of the word `h`.

use super::lanes::{LANES, V};
use super::signed::{Block, Eight, Levels};
use super::{Codec, half, nibbles, pack_nibbles, part};

const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) struct Nl;
pub(super) struct Xs;

/// The levels as the searches see them.
struct Table;

impl Levels for Table {
    const LOWEST: f32 = -127.0;
    const ENDS: &'static [f32] = &[-114.0, -122.0, -130.0, -138.0, 96.0, 104.0, 112.0, 120.0];

    #[inline(always)]
    fn nearest(v: V) -> V {
        // The lowest level and the steps below `v`: comparisons with constants are vector code, a search is not.
        let mut level = V::all(Self::LOWEST);
        for pair in LEVELS.windows(2) {
            let [low, high] = [f32::from(pair[0]), f32::from(pair[1])];
            level = level + V::all((low + high) / 2.0).below(v, V::all(high - low), V::ZERO);
        }
        level
    }
}

/// The levels of 32 codes, in the same way.
#[inline(always)]
fn levels(codes: [u8; 32]) -> [i8; 32] {
    let mut levels = [0; 32];
    for i in 0..32 {
        let mut level = LEVELS[0];
        for k in 1..16 {
            let step = LEVELS[k].wrapping_sub(LEVELS[k - 1]);
            level = level.wrapping_add(if codes[i] >= k as u8 { step } else { 0 });
        }
        levels[i] = level;
    }
    levels
}

/// The codes of 32 levels.
#[inline(always)]
fn codes(levels: [i8; 32]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..32 {
        for level in &LEVELS[1..] {
            codes[i] += u8::from(levels[i] >= *level);
        }
    }
    codes
}

impl Codec<32, 18> for Nl {
    #[inline(always)]
    fn encode(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; 18]]) {
        for (i, out) in out.chunks_mut(LANES).enumerate() {
            let found = Eight::encode::<Table>(x, importance, LANES * i);
            for (lane, out) in out.iter_mut().enumerate() {
                out[..2].copy_from_slice(&half::store(found.d.0[lane]));
                out[2..].copy_from_slice(&pack_nibbles(codes(found.levels[lane])));
            }
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
        super::scaled(half::load(part(block, 0)), levels(nibbles(part(block, 2))), out);
    }
}

impl Xs {
    #[inline(always)]
    fn read(block: &[u8; 136]) -> Block<1> {
        let high = u16::from_le_bytes(part(block, 2));
        let mut scale = [0; 8];
        for p in 0..8 {
            let low = block[4 + p / 2] >> (4 * (p % 2)) & 15;
            scale[p] = (low | ((high >> (2 * p) & 3) as u8) << 4) as i8 - 32;
        }
        let mut out = Block { d: half::load(part(block, 0)), scale: [scale], levels: [0; 256] };
        let parts = block[8..].as_chunks::<16>().0;
        for (out, codes) in out.levels.as_chunks_mut::<32>().0.iter_mut().zip(parts) {
            *out = levels(nibbles(*codes));
        }
        out
    }

    #[inline(always)]
    fn write(found: &Block<1>, out: &mut [u8; 136]) {
        let (mut high, mut low) = (0, [0; 4]);
        for p in 0..8 {
            let scale = (found.scale[0][p] + 32) as u8;
            low[p / 2] |= (scale & 15) << (4 * (p % 2));
            high |= u16::from(scale >> 4) << (2 * p);
        }
        out[..2].copy_from_slice(&half::store(found.d));
        out[2..4].copy_from_slice(&high.to_le_bytes());
        out[4..8].copy_from_slice(&low);
        let parts = out[8..].as_chunks_mut::<16>().0;
        for (out, levels) in parts.iter_mut().zip(found.levels.as_chunks::<32>().0) {
            *out = pack_nibbles(codes(*levels));
        }
    }
}

impl Codec<256, 136> for Xs {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 136]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Block::encode::<Table, 32>(x, importance.map(|w| &w[i]), 32.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 136], out: &mut [f32; 256]) {
        Self::read(block).decode::<32>(out);
    }
}
