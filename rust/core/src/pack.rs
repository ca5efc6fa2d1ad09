//! Codes and packed bytes. The bit layout is drawn here and nowhere else.
//!
//! Codes of `b` bits (two's complement cut to `b` bits, or unsigned) stand densely in little-endian bit order
//! over the whole flat array; the last byte is padded with zeros. Eight codes fill exactly `b` bytes, so any
//! multiple of eight elements starts on a byte:
//!
//! ```text
//! b = 3   byte 0           byte 1           byte 2
//! bit     0 1 2 3 4 5 6 7  0 1 2 3 4 5 6 7  0 1 2 3 4 5 6 7
//! code    0 0 0 1 1 1 2 2  2 3 3 3 4 4 4 5  5 5 6 6 6 7 7 7
//! ```
//!
//! Codes of 16 bits are two bytes each, the lower first. Codes of three values stand five to a byte, the first with
//! weight 1, the next with 3, 9, 27, 81: 1.6 bits each (Ma et al. 2024, arXiv:2402.17764, count log₂ 3 = 1.58).
//!
//! Eight codes are one 64-bit word. Packing squeezes it in three steps (pairs, fours, eight) with the same
//! masks for every width, unpacking runs the steps backwards. Where whole codes fill a byte, shorter words hold
//! them and vectors hold more of those.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::format::{Format, Packing};
use crate::isa::{Isa, Op};

/// The bytes that `count` codes of `format` take: ⌈count · bits / 8⌉, or ⌈count / 5⌉ of ternary ones.
pub fn packed_len(count: usize, format: &dyn Format) -> usize {
    format.packing().len(count)
}

impl Packing {
    /// The bytes that `count` codes take.
    #[inline]
    pub(crate) fn len(self, count: usize) -> usize {
        match self {
            Packing::Bits(bits) => {
                let bits = bits as usize;
                (count / 8).saturating_mul(bits).saturating_add((count % 8 * bits).div_ceil(8))
            }
            Packing::Trits => count.div_ceil(5),
            Packing::Blocks(len, bytes) => count.div_ceil(len).saturating_mul(bytes),
        }
    }

    /// Codes after which a code starts on a byte again.
    #[inline]
    pub(crate) fn unit(self) -> usize {
        match self {
            Packing::Bits(8 | 16) => 1,
            Packing::Bits(_) => 8,
            Packing::Trits => 5,
            Packing::Blocks(len, _) => len,
        }
    }

    /// Packs codes of at most 8 bits, one in the low bits of each byte, into as many bytes as they take.
    #[inline(always)]
    pub(crate) fn squeeze(self, codes: &[u8], out: &mut [u8]) {
        match self {
            Packing::Bits(bits) => squeeze(codes, bits, out),
            Packing::Trits => squeeze_trits(codes, out),
            Packing::Blocks(..) => unreachable!("blocks have no codes to pack"),
        }
    }

    /// Unpacks codes of at most 8 bits from the start of `bytes`; signed ones are sign-extended to 8 bits.
    #[inline(always)]
    pub(crate) fn spread(self, bytes: &[u8], signed: bool, out: &mut [u8]) {
        match self {
            Packing::Bits(bits) => spread(bytes, bits, signed, out),
            Packing::Trits => spread_trits(bytes, out),
            Packing::Blocks(..) => unreachable!("blocks have no codes to unpack"),
        }
    }
}

/// A place for one code.
pub trait Code: Copy + Default + Send + Sync {
    /// The low bits of `code`.
    fn from_i32(code: i32) -> Self;
    /// The low bits of the sum.
    fn wrapping_add(self, other: Self) -> Self;
}

macro_rules! codes {
    ($($type:ty)*) => {$(
        impl Code for $type {
            #[inline(always)]
            fn from_i32(code: i32) -> Self {
                code as $type
            }

            #[inline(always)]
            fn wrapping_add(self, other: Self) -> Self {
                <$type>::wrapping_add(self, other)
            }
        }
    )*};
}
codes! { u8 i8 u16 i16 }

/// Packs `values`, one code each, into `out`, which is [`packed_len`] bytes long.
///
/// ```
/// let int4 = qrs_core::format::find("int4")?;
/// let mut bytes = [0; 2];
/// qrs_core::pack(&[1, -1, 7], int4, &mut bytes)?;
/// assert_eq!(bytes, [0xf1, 0x07]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// A value is no code of `format` (the message names the first), or `out` has another length.
pub fn pack(values: &[i32], format: &'static dyn Format, out: &mut [u8]) -> Result<(), Error> {
    let (lowest, highest) = format.codes();
    format.check_codes()?;
    check_len("out", out.len(), values.len(), format)?;
    if let Some(index) = values.iter().position(|v| !(lowest..=highest).contains(v)) {
        return Err(Error::Value {
            what: "values",
            got: format!("{} at flat index {index}", values[index]),
            expected: format!("codes of {}, {lowest} to {highest}", format.name()),
        });
    }
    let packing = format.packing();
    if packing == Packing::Bits(16) {
        join(values, out);
        return Ok(());
    }
    let mut low = [0; TILE];
    for (values, out) in values.chunks(TILE).zip(out.chunks_mut(packing.len(TILE))) {
        for (low, value) in low.iter_mut().zip(values) {
            *low = *value as u8;
        }
        packing.squeeze(&low[..values.len()], out);
    }
    Ok(())
}

/// Unpacks `out.len()` codes from `bytes`; signed formats are sign-extended.
///
/// ```
/// let int4 = qrs_core::format::find("int4")?;
/// let mut codes = [0i8; 3];
/// qrs_core::unpack(&[0xf1, 0x07], int4, &mut codes)?;
/// assert_eq!(codes, [1, -1, 7]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `bytes` is not [`packed_len`] bytes long.
pub fn unpack<C: Code>(bytes: &[u8], format: &'static dyn Format, out: &mut [C]) -> Result<(), Error> {
    format.check_codes()?;
    check_len("codes", bytes.len(), out.len(), format)?;
    Isa::active()?.run(Unpack { bytes, packing: format.packing(), signed: format.signed(), out });
    Ok(())
}

/// Whether an argument is as long as `count` packed codes of `format` are.
///
/// # Errors
/// It is not.
pub(crate) fn check_len(
    what: &'static str,
    got: usize,
    count: usize,
    format: &dyn Format,
) -> Result<(), Error> {
    let expected = packed_len(count, format);
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape {
        what,
        got: vec![got],
        expected: format!("({expected},): the bytes of {count} {} codes", format.name()),
    })
}

/// Elements whose codes, and random numbers, stay in the first cache. A multiple of 8, so that tiles start on a packed
/// byte, and of 5, where ternary ones do.
pub(crate) const TILE: usize = 2560;
/// Elements a task of a parallel call.
pub(crate) const CHUNK: usize = 32 * TILE;

/// An estimate of the work of quantizing `len` elements, or of the way back.
pub(crate) fn nanoseconds(len: usize) -> usize {
    len / 4
}

/// The low 16 bits of each code, the lower byte first.
#[inline(always)]
pub(crate) fn join<C: Copy + Into<i32>>(codes: &[C], out: &mut [u8]) {
    for (&code, out) in codes.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = (code.into() as u16).to_le_bytes();
    }
}

struct Unpack<'a, C> {
    bytes: &'a [u8],
    packing: Packing,
    signed: bool,
    out: &'a mut [C],
}

impl<C: Code> Op for Unpack<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.packing == Packing::Bits(16) {
            for (out, &pair) in self.out.iter_mut().zip(self.bytes.as_chunks().0) {
                let code = u16::from_le_bytes(pair);
                *out = C::from_i32(if self.signed { i32::from(code as i16) } else { i32::from(code) });
            }
            return;
        }
        let mut codes = [0; TILE];
        let step = self.packing.len(TILE);
        for (out, bytes) in self.out.chunks_mut(TILE).zip(self.bytes.chunks(step)) {
            let codes = &mut codes[..out.len()];
            self.packing.spread(bytes, self.signed, codes);
            for (out, &code) in out.iter_mut().zip(&*codes) {
                // A byte above 127 is a negative code where the format is signed.
                let code = if self.signed { i32::from(code as i8) } else { i32::from(code) };
                *out = C::from_i32(code);
            }
        }
    }
}

/// Packs the low `bits` bits of `codes` into `out`, whose length must be [`packed_len`].
#[inline(always)]
fn squeeze(codes: &[u8], bits: u32, out: &mut [u8]) {
    match bits {
        1 => squeeze_by::<1>(codes, out),
        2 => squeeze_by::<2>(codes, out),
        3 => squeeze_by::<3>(codes, out),
        4 => squeeze_nibbles(codes, out),
        5 => squeeze_by::<5>(codes, out),
        6 => squeeze_by::<6>(codes, out),
        7 => squeeze_by::<7>(codes, out),
        _ => out.copy_from_slice(codes),
    }
}

/// Unpacks `out.len()` codes of `bits` bits from the start of `bytes`; signed codes are sign-extended to 8 bits.
#[inline(always)]
fn spread(bytes: &[u8], bits: u32, signed: bool, out: &mut [u8]) {
    match bits {
        1 => spread_bytes::<8>(bytes, signed, out),
        2 => spread_bytes::<4>(bytes, signed, out),
        3 => spread_by::<3>(bytes, signed, out),
        4 => spread_nibbles(bytes, signed, out),
        5 => spread_by::<5>(bytes, signed, out),
        6 => spread_by::<6>(bytes, signed, out),
        7 => spread_by::<7>(bytes, signed, out),
        _ => out.copy_from_slice(&bytes[..out.len()]),
    }
}

#[inline(always)]
fn squeeze_trits(codes: &[u8], out: &mut [u8]) {
    for (codes, out) in codes.chunks(5).zip(out) {
        *out = codes.iter().rev().fold(0, |byte, code| byte * 3 + code);
    }
}

/// The five codes of each byte. What no five codes make, 243 to 255, gives codes all the same.
static TRITS: [[u8; 5]; 256] = {
    let mut table = [[0; 5]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut rest, mut place) = (byte, 0);
        while place < 5 {
            table[byte][place] = (rest % 3) as u8;
            rest /= 3;
            place += 1;
        }
        byte += 1;
    }
    table
};

#[inline(always)]
fn spread_trits(bytes: &[u8], out: &mut [u8]) {
    let (fives, rest) = out.as_chunks_mut();
    for (five, &byte) in fives.iter_mut().zip(bytes) {
        *five = TRITS[byte as usize];
    }
    if let Some(&byte) = bytes.get(fives.len()) {
        rest.copy_from_slice(&TRITS[byte as usize][..rest.len()]);
    }
}

/// Masks of the steps: the lower field of each pair of 8-, 16- and 32-bit fields.
const PAIRS: [(u32, u64); 3] =
    [(8, 0x00ff_00ff_00ff_00ff), (16, 0x0000_ffff_0000_ffff), (32, 0x0000_0000_ffff_ffff)];

/// The eight low `B`-bit fields of the bytes of `word`, side by side.
#[inline(always)]
fn squeeze_word<const B: usize>(word: u64) -> u64 {
    let mut word = word & (0x0101_0101_0101_0101 * ((1 << B) - 1));
    for (i, (width, mask)) in PAIRS.into_iter().enumerate() {
        // The upper field of a pair comes down next to the lower one, which holds B · 2^i bits.
        word = (word & mask) | ((word & !mask) >> (width - ((B as u32) << i)));
    }
    word
}

/// The inverse of [`squeeze_word`].
#[inline(always)]
fn spread_word<const B: usize>(word: u64) -> u64 {
    let [word] = spread_words::<B, 1>([word]);
    word
}

/// [`spread_word`] side by side.
#[inline(always)]
fn spread_words<const B: usize, const N: usize>(mut words: [u64; N]) -> [u64; N] {
    for (i, (width, mask)) in PAIRS.into_iter().enumerate().rev() {
        let held = (B as u32) << i;
        let low = ((1 << held) - 1) * (mask & (u64::MAX / ((1 << width) - 1)));
        for word in &mut words {
            *word = (*word & low) | ((*word << (width - held)) & (low << width));
        }
    }
    words
}

#[inline(always)]
fn squeeze_by<const B: usize>(codes: &[u8], out: &mut [u8]) {
    let (eights, rest) = codes.as_chunks::<8>();
    let (groups, last) = out.as_chunks_mut::<B>();
    for (group, eight) in groups.iter_mut().zip(eights) {
        group.copy_from_slice(&squeeze_word::<B>(u64::from_le_bytes(*eight)).to_le_bytes()[..B]);
    }
    if !rest.is_empty() {
        let mut eight = [0; 8];
        eight[..rest.len()].copy_from_slice(rest);
        let word = squeeze_word::<B>(u64::from_le_bytes(eight)).to_le_bytes();
        // All B bytes of the last word are used where seven codes reach into the last one.
        let tail = if last.is_empty() { groups.last_mut().map_or(&mut [][..], |g| &mut g[..]) } else { last };
        tail.copy_from_slice(&word[..tail.len()]);
    }
}

/// [`squeeze_by`] of 4 bits: two codes are a 16-bit word.
#[inline(always)]
fn squeeze_nibbles(codes: &[u8], out: &mut [u8]) {
    let (pairs, rest) = codes.as_chunks::<2>();
    for (out, &pair) in out.iter_mut().zip(pairs) {
        let word = u16::from_le_bytes(pair);
        *out = (word & 0x0f | (word >> 4) & 0xf0) as u8;
    }
    if let ([code], Some(out)) = (rest, out.last_mut()) {
        *out = code & 0x0f;
    }
}

/// [`spread_by`] of 4 bits, in 16-bit words.
#[inline(always)]
fn spread_nibbles(bytes: &[u8], signed: bool, out: &mut [u8]) {
    let sign = if signed { 0x0808 } else { 0 };
    let codes = |byte: u8| {
        let word = u16::from(byte);
        let word = (word | word << 4) & 0x0f0f;
        // 8 · 0x1e is 0xf0: the upper bits of a negative code, and no carry from one byte to the other.
        (word | (word & sign).wrapping_mul(0x1e)).to_le_bytes()
    };
    let (pairs, rest) = out.as_chunks_mut::<2>();
    for (pair, &byte) in pairs.iter_mut().zip(bytes) {
        *pair = codes(byte);
    }
    if let ([code], Some(&byte)) = (rest, bytes.get(pairs.len())) {
        *code = codes(byte)[0];
    }
}

/// The first `N` codes of `B` bits in `bytes`, where they fill it; not sign-extended.
#[inline(always)]
pub(crate) fn unpack_line<const B: usize, const N: usize>(bytes: &[u8]) -> [u8; N] {
    let bytes = &bytes[..N * B / 8];
    let mut codes = [0; N];
    if B == 8 {
        codes.copy_from_slice(bytes);
        return codes;
    }
    // All words at once: vectors take a step on each.
    let words = spread_words::<B, LINE_WORDS>(words::<B>(bytes, N / 8));
    for (eight, word) in codes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *eight = word.to_le_bytes();
    }
    codes
}

/// Words of a line of 32 codes.
const LINE_WORDS: usize = 4;

/// The first `count` groups of `B` bytes, with what follows them in the upper bytes.
#[inline(always)]
fn words<const B: usize>(bytes: &[u8], count: usize) -> [u64; LINE_WORDS] {
    let mut words = [0; LINE_WORDS];
    for (i, out) in words.iter_mut().enumerate().take(count) {
        // Eight bytes from the start of the group, or the last eight, shifted.
        let start = (i * B).min(bytes.len().saturating_sub(8));
        let mut word = [0; 8];
        let held = bytes.len().min(8);
        word[..held].copy_from_slice(&bytes[start..start + held]);
        *out = u64::from_le_bytes(word) >> (8 * (i * B - start));
    }
    words
}

#[inline(always)]
fn spread_by<const B: usize>(bytes: &[u8], signed: bool, out: &mut [u8]) {
    // x ^ s − s extends the sign bit s; with s = 0 it leaves the code as it is.
    let sign = if signed { 1u8 << (B - 1) } else { 0 };
    let extend = |eight: [u8; 8]| eight.map(|code| (code ^ sign).wrapping_sub(sign));
    let (lines, out) = out.as_chunks_mut::<{ 8 * LINE_WORDS }>();
    let (line_bytes, bytes) = bytes.split_at(lines.len() * LINE_WORDS * B);
    for (line, bytes) in lines.iter_mut().zip(line_bytes.chunks_exact(LINE_WORDS * B)) {
        *line = unpack_line::<B, { 8 * LINE_WORDS }>(bytes).map(|code| (code ^ sign).wrapping_sub(sign));
    }
    let (eights, rest) = out.as_chunks_mut::<8>();
    let (groups, _) = bytes.as_chunks::<B>();
    for (eight, group) in eights.iter_mut().zip(groups) {
        let mut word = [0; 8];
        word[..B].copy_from_slice(group);
        *eight = extend(spread_word::<B>(u64::from_le_bytes(word)).to_le_bytes());
    }
    if !rest.is_empty() {
        let tail = &bytes[eights.len() * B..];
        let mut word = [0; 8];
        let held = tail.len().min(B);
        word[..held].copy_from_slice(&tail[..held]);
        let codes = extend(spread_word::<B>(u64::from_le_bytes(word)).to_le_bytes());
        rest.copy_from_slice(&codes[..rest.len()]);
    }
}

/// [`spread_by`] where `PER` whole codes stand in a byte: shifts of bytes fill vectors better than those of words.
#[inline(always)]
fn spread_bytes<const PER: usize>(bytes: &[u8], signed: bool, out: &mut [u8]) {
    let bits = 8 / PER;
    let sign = if signed { 1u8 << (bits - 1) } else { 0 };
    let codes = |byte: u8| -> [u8; PER] {
        std::array::from_fn(|i| (((byte >> (i * bits)) & ((1 << bits) - 1)) ^ sign).wrapping_sub(sign))
    };
    let (groups, rest) = out.as_chunks_mut::<PER>();
    let (whole, tail) = bytes.split_at(groups.len());
    for (group, &byte) in groups.iter_mut().zip(whole) {
        *group = codes(byte);
    }
    if let (false, Some(&byte)) = (rest.is_empty(), tail.first()) {
        rest.copy_from_slice(&codes(byte)[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    /// Bit by bit.
    fn naive(codes: &[i32], bits: usize) -> Vec<u8> {
        let mut out = vec![0u8; (codes.len() * bits).div_ceil(8)];
        for (i, code) in codes.iter().enumerate() {
            for bit in 0..bits {
                let place = i * bits + bit;
                out[place / 8] |= ((*code >> bit) as u8 & 1) << (place % 8);
            }
        }
        out
    }

    #[test]
    fn every_format_and_length_is_packed_bit_by_bit_and_comes_back() {
        for format in format::TABLE.iter().filter(|format| format.check_codes().is_ok()) {
            let (lowest, highest) = format.codes();
            for len in 0..=257usize {
                let span = highest - lowest + 1;
                let codes: Vec<i32> =
                    (0..len).map(|i| lowest + (i as i32 * 3701 + len as i32) % span).collect();
                let mut bytes = vec![0xaa; packed_len(len, *format)];
                pack(&codes, *format, &mut bytes).unwrap();
                if format.packing() == Packing::Trits {
                    let value = |five: &[i32]| five.iter().rev().fold(0, |byte, code| byte * 3 + *code as u8);
                    assert_eq!(bytes, codes.chunks(5).map(value).collect::<Vec<_>>());
                } else {
                    assert_eq!(bytes, naive(&codes, format.bits() as usize), "{} {len}", format.name());
                }
                for isa in Isa::available() {
                    let mut back = vec![99u16; len];
                    let (packing, signed) = (format.packing(), format.signed());
                    isa.run(Unpack { bytes: &bytes, packing, signed, out: &mut back });
                    let same = back.iter().zip(&codes).all(|(back, code)| *back == *code as u16);
                    assert!(same, "{} {len}", format.name());
                }
                let mut bits = vec![0u8; len];
                unpack(&bytes, *format, &mut bits).unwrap();
                assert!(bits.iter().zip(&codes).all(|(bits, code)| *bits == *code as u8));
            }
        }
    }

    #[test]
    fn padding_is_not_read() {
        let int3 = format::find("int3").unwrap();
        for padding in [0, 0b1100_0000] {
            let mut codes = [0i8; 2];
            unpack(&[0b00_111_011 | padding], int3, &mut codes).unwrap();
            assert_eq!(codes, [3, -1]);
        }
    }

    #[test]
    fn what_is_no_code_is_named() {
        let int4 = format::find("int4").unwrap();
        let text = pack(&[1, 8], int4, &mut [0]).unwrap_err().to_string();
        assert_eq!(text, "values is 8 at flat index 1, expected codes of int4, -8 to 7");
        let text = pack(&[1, 2, 3], int4, &mut [0]).unwrap_err().to_string();
        assert_eq!(text, "out has shape (1,), expected (2,): the bytes of 3 int4 codes");
        assert!(unpack(&[0; 3], int4, &mut [0i8; 4]).is_err());
    }

    #[test]
    fn lengths_do_not_overflow() {
        let len = |name| packed_len(usize::MAX, format::find(name).unwrap());
        assert_eq!(len("int8"), usize::MAX);
        assert_eq!(len("int1"), usize::MAX / 8 + 1);
        assert_eq!(len("float16"), usize::MAX);
        assert_eq!(len("ternary"), usize::MAX / 5);
    }
}
