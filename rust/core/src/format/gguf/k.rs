//! `q2_k` to `q6_k`: 256 codes in parts of 16 or 32, whose scales are themselves integers times one float16.
//!
//! ```text
//! q2_k   byte   0             16            80  82     84      x = d · scale · q − dmin · min
//!              | 16 × scale   | 64 × q      | d | dmin |       scale: low nibble, min: high nibble
//! q3_k   byte   0        32           96           108  110    x = d · (scale − 32) · (q − 4)
//!              | 32 × h  | 64 × q     | 12 × scale | d  |
//! q4_k   byte   0   2      4            16            144      x = d · scale · q − dmin · min
//!              | d | dmin | 12 × scale | 128 × q      |
//! q5_k   byte   0   2      4            16       48            176
//!              | d | dmin | 12 × scale | 32 × h | 128 × q      |
//! q6_k   byte   0            128        192         208  210   x = d · scale · (q − 32)
//!              | 128 × q    | 64 × h   | 16 × scale | d  |     scale: int8
//! ```
//!
//! Parts of `q2_k`, `q3_k` and `q6_k` are 16 elements, those of `q4_k` and `q5_k` 32. Where the codes stand:
//!
//! | | low bits | high bits |
//! |---|---|---|
//! | `q2_k`, `q3_k` | element 128a + 32n + j: bits 2n, 2n + 1 of q[32a + j] | bit 4a + n of h[j] |
//! | `q4_k`, `q5_k` | element 64a + 32n + j: nibble n of q[32a + j] | bit 2a + n of h[j] |
//! | `q6_k` | element 128a + 64n + j: nibble n of q[64a + j] | 128a + 32n + j: bits 2n, 2n + 1 of h[32a + j] |
//!
//! The twelve bytes of scales hold 6-bit numbers. In `q3_k`, the low four bits of scale `p` are the low nibble of byte
//! `p`, from 8 on the high nibble of byte `p − 8`, and the high two are bits 2⌊p/4⌋ of byte `8 + p mod 4`. In
//! `q4_k` and `q5_k`:
//!
//! ```text
//!        bits 7 6        5 4 3 2 1 0
//! byte 0 … 3    | scale p + 4, high | scale p           |
//! byte 4 … 7    | min p + 4, high   | min p             |
//! byte 8 … 11   | min p + 4, low four | scale p + 4, low four |
//! ```

use super::affine::Block as Affine;
use super::signed::{Block as Signed, Integers};
use super::{Codec, half, part};

/// The two-bit codes of `q2_k` and `q3_k`.
#[inline(always)]
fn pairs(bytes: [u8; 64]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (codes, bytes) in codes.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        for n in 0..4 {
            for j in 0..32 {
                codes[32 * n + j] = bytes[j] >> (2 * n) & 3;
            }
        }
    }
    codes
}

#[inline(always)]
fn pack_pairs(codes: [u8; 256], out: &mut [u8]) {
    for (codes, out) in codes.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        for j in 0..32 {
            out[j] =
                codes[j] & 3 | (codes[32 + j] & 3) << 2 | (codes[64 + j] & 3) << 4 | (codes[96 + j] & 3) << 6;
        }
    }
}

/// The nibbles of `q4_k` and `q5_k` (32 bytes abreast) and `q6_k` (64).
#[inline(always)]
fn nibbles<const ABREAST: usize>(bytes: [u8; 128]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (a, bytes) in bytes.as_chunks::<ABREAST>().0.iter().enumerate() {
        for j in 0..ABREAST {
            codes[2 * ABREAST * a + j] = bytes[j] & 15;
            codes[2 * ABREAST * a + ABREAST + j] = bytes[j] >> 4;
        }
    }
    codes
}

#[inline(always)]
fn pack_nibbles<const ABREAST: usize>(codes: [u8; 256], out: &mut [u8]) {
    for (a, out) in out.as_chunks_mut::<ABREAST>().0.iter_mut().enumerate() {
        let (low, high) = codes[2 * ABREAST * a..][..2 * ABREAST].split_at(ABREAST);
        for j in 0..ABREAST {
            out[j] = low[j] & 15 | high[j] << 4;
        }
    }
}

/// Sets bit `TO` of element 32n + j from bit n of byte j.
#[inline(always)]
fn add_bits<const TO: u32>(bits: [u8; 32], codes: &mut [u8; 256]) {
    for n in 0..8 {
        for j in 0..32 {
            codes[32 * n + j] |= (bits[j] >> n & 1) << TO;
        }
    }
}

/// What [`add_bits`] reads.
#[inline(always)]
fn pack_bits<const FROM: u32>(codes: [u8; 256]) -> [u8; 32] {
    let mut bits = [0; 32];
    for n in 0..8 {
        for j in 0..32 {
            bits[j] |= (codes[32 * n + j] >> FROM & 1) << n;
        }
    }
    bits
}

/// Scales and minima of `q4_k` and `q5_k`.
#[inline(always)]
fn scales(bytes: [u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scale, mut min) = ([0; 8], [0; 8]);
    for p in 0..4 {
        (scale[p], min[p]) = (bytes[p] & 63, bytes[4 + p] & 63);
        scale[p + 4] = bytes[8 + p] & 15 | bytes[p] >> 6 << 4;
        min[p + 4] = bytes[8 + p] >> 4 | bytes[4 + p] >> 6 << 4;
    }
    (scale, min)
}

#[inline(always)]
fn pack_scales(scale: [u8; 8], min: [u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for p in 0..4 {
        bytes[p] = scale[p] | scale[p + 4] >> 4 << 6;
        bytes[4 + p] = min[p] | min[p + 4] >> 4 << 6;
        bytes[8 + p] = scale[p + 4] & 15 | min[p + 4] << 4;
    }
    bytes
}

/// The codes of `codes` less `zero`.
#[inline(always)]
fn less(codes: [u8; 256], zero: u8) -> [i8; 256] {
    let mut out = [0; 256];
    for i in 0..256 {
        out[i] = codes[i].wrapping_sub(zero) as i8;
    }
    out
}

#[inline(always)]
fn plus(codes: [i8; 256], zero: u8) -> [u8; 256] {
    let mut out = [0; 256];
    for i in 0..256 {
        out[i] = (codes[i] as u8).wrapping_add(zero);
    }
    out
}

pub(super) struct Q2;

impl Q2 {
    #[inline(always)]
    fn read(block: &[u8; 84]) -> Affine<2> {
        let (mut scale, mut min) = ([[0; 8]; 2], [[0; 8]; 2]);
        for p in 0..16 {
            (scale[p / 8][p % 8], min[p / 8][p % 8]) = (block[p] & 15, block[p] >> 4);
        }
        let (d, dmin) = (half::load(part(block, 80)), half::load(part(block, 82)));
        Affine { d, dmin, scale, min, codes: pairs(part(block, 16)) }
    }

    #[inline(always)]
    fn write(found: &Affine<2>, out: &mut [u8; 84]) {
        for p in 0..16 {
            out[p] = found.scale[p / 8][p % 8] | found.min[p / 8][p % 8] << 4;
        }
        pack_pairs(found.codes, &mut out[16..80]);
        out[80..82].copy_from_slice(&half::store(found.d));
        out[82..].copy_from_slice(&half::store(found.dmin));
    }
}

impl Codec<256, 84> for Q2 {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 84]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Affine::encode::<3, 16>(x, importance.map(|w| &w[i]), 15.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
        Self::read(block).decode::<16>(out);
    }
}

pub(super) struct Q3;

impl Q3 {
    #[inline(always)]
    fn read(block: &[u8; 110]) -> Signed<2> {
        let mut codes = pairs(part(block, 32));
        add_bits::<2>(part(block, 0), &mut codes);
        let bytes: [u8; 12] = part(block, 96);
        let mut scale = [[0; 8]; 2];
        for p in 0..16 {
            let low = bytes[p % 8] >> (4 * (p / 8)) & 15;
            scale[p / 8][p % 8] = (low | (bytes[8 + p % 4] >> (2 * (p / 4)) & 3) << 4) as i8 - 32;
        }
        Signed { d: half::load(part(block, 108)), scale, levels: less(codes, 4) }
    }

    #[inline(always)]
    fn write(found: &Signed<2>, out: &mut [u8; 110]) {
        let codes = plus(found.levels, 4);
        out[..32].copy_from_slice(&pack_bits::<2>(codes));
        pack_pairs(codes, &mut out[32..96]);
        let mut bytes = [0; 12];
        for p in 0..16 {
            let scale = (found.scale[p / 8][p % 8] + 32) as u8;
            bytes[p % 8] |= (scale & 15) << (4 * (p / 8));
            bytes[8 + p % 4] |= scale >> 4 << (2 * (p / 4));
        }
        out[96..108].copy_from_slice(&bytes);
        out[108..].copy_from_slice(&half::store(found.d));
    }
}

impl Codec<256, 110> for Q3 {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 110]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Signed::encode::<Integers<-4, 3>, 16>(x, importance.map(|w| &w[i]), 32.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
        Self::read(block).decode::<16>(out);
    }
}

pub(super) struct Q4;

impl Q4 {
    #[inline(always)]
    fn read(block: &[u8; 144]) -> Affine<1> {
        let (scale, min) = scales(part(block, 4));
        let (d, dmin) = (half::load(part(block, 0)), half::load(part(block, 2)));
        Affine { d, dmin, scale: [scale], min: [min], codes: nibbles::<32>(part(block, 16)) }
    }

    #[inline(always)]
    fn write(found: &Affine<1>, out: &mut [u8; 144]) {
        out[..2].copy_from_slice(&half::store(found.d));
        out[2..4].copy_from_slice(&half::store(found.dmin));
        out[4..16].copy_from_slice(&pack_scales(found.scale[0], found.min[0]));
        pack_nibbles::<32>(found.codes, &mut out[16..]);
    }
}

impl Codec<256, 144> for Q4 {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 144]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Affine::encode::<15, 32>(x, importance.map(|w| &w[i]), 63.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
        Self::read(block).decode::<32>(out);
    }
}

pub(super) struct Q5;

impl Q5 {
    #[inline(always)]
    fn read(block: &[u8; 176]) -> Affine<1> {
        let (scale, min) = scales(part(block, 4));
        let (d, dmin) = (half::load(part(block, 0)), half::load(part(block, 2)));
        let mut codes = nibbles::<32>(part(block, 48));
        add_bits::<4>(part(block, 16), &mut codes);
        Affine { d, dmin, scale: [scale], min: [min], codes }
    }

    #[inline(always)]
    fn write(found: &Affine<1>, out: &mut [u8; 176]) {
        out[..2].copy_from_slice(&half::store(found.d));
        out[2..4].copy_from_slice(&half::store(found.dmin));
        out[4..16].copy_from_slice(&pack_scales(found.scale[0], found.min[0]));
        out[16..48].copy_from_slice(&pack_bits::<4>(found.codes));
        pack_nibbles::<32>(found.codes, &mut out[48..]);
    }
}

impl Codec<256, 176> for Q5 {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 176]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Affine::encode::<31, 32>(x, importance.map(|w| &w[i]), 63.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
        Self::read(block).decode::<32>(out);
    }
}

pub(super) struct Q6;

impl Q6 {
    #[inline(always)]
    fn read(block: &[u8; 210]) -> Signed<2> {
        let mut codes = nibbles::<64>(part(block, 0));
        let high = pairs(part(block, 128));
        for i in 0..256 {
            codes[i] |= high[i] << 4;
        }
        let mut scale = [[0; 8]; 2];
        for p in 0..16 {
            scale[p / 8][p % 8] = block[192 + p] as i8;
        }
        Signed { d: half::load(part(block, 208)), scale, levels: less(codes, 32) }
    }

    #[inline(always)]
    fn write(found: &Signed<2>, out: &mut [u8; 210]) {
        let codes = plus(found.levels, 32);
        pack_nibbles::<64>(codes, &mut out[..128]);
        let mut high = codes;
        for high in &mut high {
            *high >>= 4;
        }
        pack_pairs(high, &mut out[128..192]);
        for p in 0..16 {
            out[192 + p] = found.scale[p / 8][p % 8] as u8;
        }
        out[208..].copy_from_slice(&half::store(found.d));
    }
}

impl Codec<256, 210> for Q6 {
    #[inline(always)]
    fn encode(x: &[[f32; 256]], importance: Option<&[[f32; 256]]>, out: &mut [[u8; 210]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            Self::write(&Signed::encode::<Integers<-32, 31>, 16>(x, importance.map(|w| &w[i]), 128.0), out);
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
        Self::read(block).decode::<16>(out);
    }
}
