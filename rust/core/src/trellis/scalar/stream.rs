//! The container of an entropy-coded trellis quantizer, and the way back from it.
//!
//! ```text
//! bytes      "ectq", version 1, binary logarithm of the number of states, step (float32)
//! varint     number of values
//! varints    for A0, then A1: first place, number of places, slots of the escape, slots of each of these places
//! varints    for each run of 65536 values the number of its words
//! 4 bytes    CRC-32 of all of this
//! words      of all runs: 16 bits each
//! ```
//!
//! All numbers are little-endian; a varint has seven bits a byte, the lowest first, and its last byte is below 128. Level
//! number n of superset `n mod 2` has place `n / 2 + 512`, rounded down.
#![forbid(unsafe_code)]

use super::paths::RUN;
use super::rans::{Alphabets, Decoder, ESCAPE, HEAD_WORDS, PLACES, SLOTS};
use super::ungerboeck::Machine;
use crate::error::Error;
use crate::mem::zeroed;
use crate::parallel;
use std::sync::atomic::{AtomicUsize, Ordering};

const MAGIC: [u8; 5] = *b"ectq\x01";

/// The largest step: times any level it is a finite number.
pub(super) const LARGEST_STEP: f32 = 1e30;

/// What an entropy-coded trellis quantizer wrote: a view of its bytes, whose head has been checked.
///
/// ```
/// use qrs_core::trellis::{Ectcq, Stream};
/// let bytes = Ectcq::new(8)?.encode(&[0.5, -1.25, 3.0], 0.1, None, None)?;
/// let stream = Stream::parse(&bytes)?;
/// let mut x = vec![0.0; stream.len()];
/// stream.decode(&mut x)?;
/// assert!((x[1] + 1.25).abs() < 0.2);
/// assert!(Stream::parse(&bytes[1..]).is_err());
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stream<'a> {
    machine: Machine,
    step: f32,
    len: usize,
    alphabets: Alphabets,
    /// The words of each run.
    runs: Vec<&'a [u8]>,
}

impl<'a> Stream<'a> {
    /// Reads the head. Its checksum is compared, and nothing is allocated that the number of bytes does not account for:
    /// a run of 65536 values takes 17 bytes at least.
    ///
    /// # Errors
    /// The bytes are no such stream, of another version, cut off, longer than they should be, or damaged in the head.
    pub fn parse(bytes: &'a [u8]) -> Result<Stream<'a>, Error> {
        let mut head = Head { bytes, at: 0 };
        if head.take(MAGIC.len())? != MAGIC {
            return Err(damaged("something else", "an entropy-coded trellis stream of version 1"));
        }
        let memory = head.take(1)?[0];
        let machine = Machine::new(1usize.checked_shl(u32::from(memory)).unwrap_or(0))?;
        let step = head.take(4)?.first_chunk().map_or(0.0, |step| f32::from_le_bytes(*step));
        if !(f32::MIN_POSITIVE..=LARGEST_STEP).contains(&step) {
            return Err(damaged(&format!("of step {step}"), "a positive step of at most 1e30"));
        }
        let len = head.varint()?;
        let alphabets = Alphabets([head.alphabet()?, head.alphabet()?]);
        let count = len.div_ceil(RUN);
        if count > head.left() / (1 + 2 * HEAD_WORDS) {
            return Err(damaged(&format!("of {} bytes", bytes.len()), "bytes for all its runs"));
        }
        let words: Vec<usize> = (0..count).map(|_| head.varint()).collect::<Result<_, _>>()?;
        let checksum = crc32(&bytes[..head.at]).to_le_bytes();
        if head.take(4)? != checksum {
            return Err(damaged("damaged in the head", "the checksum that was written"));
        }
        let bytes_of = |words: usize| words.checked_mul(2).unwrap_or(usize::MAX);
        let runs = words.into_iter().map(|words| head.take(bytes_of(words))).collect::<Result<_, _>>()?;
        if head.left() > 0 {
            return Err(damaged(&format!("followed by {} bytes", head.left()), "nothing behind it"));
        }
        Ok(Stream { machine, step, len, alphabets, runs })
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// States of the code.
    pub fn states(&self) -> usize {
        self.machine.states()
    }

    /// The distance between neighbouring levels of both supersets together.
    pub fn step(&self) -> f32 {
        self.step
    }

    /// Writes the values: `step` times the numbers of their levels.
    ///
    /// # Errors
    /// `out` is not as long as there are values; the words are not what an encoder writes, which shows in the last states
    /// of the coders (of random changes one in 2⁶⁴ stays hidden); no memory.
    pub fn decode(&self, out: &mut [f32]) -> Result<(), Error> {
        if out.len() != self.len {
            let expected = format!("({},), as many as were encoded", self.len);
            return Err(Error::Shape { what: "out", got: vec![out.len()], expected });
        }
        let decoder = Decoder::new(&self.alphabets, &self.machine)?;
        let bad = AtomicUsize::new(usize::MAX);
        parallel::for_each_chunk(out, RUN, 4 * self.len, |number, out| {
            if !decoder.decode(self.runs[number], self.step, out) {
                bad.fetch_min(number, Ordering::Relaxed);
            }
        })?;
        match bad.into_inner() {
            usize::MAX => Ok(()),
            run => Err(damaged(&format!("damaged in run {run}"), "words that an encoder wrote")),
        }
    }
}

fn damaged(got: &str, expected: &str) -> Error {
    Error::Value { what: "stream", got: got.to_owned(), expected: expected.to_owned() }
}

/// What is read of a head.
struct Head<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Head<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        if len > self.left() {
            return Err(damaged(&format!("cut off after {} bytes", self.bytes.len()), "all of its bytes"));
        }
        let start = self.at;
        self.at += len;
        Ok(&self.bytes[start..self.at])
    }

    fn varint(&mut self) -> Result<usize, Error> {
        let mut value = 0u64;
        for place in 0..8 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 127) << (7 * place);
            if byte < 128 {
                return usize::try_from(value).map_err(|_| damaged("too long", "a length of this machine"));
            }
        }
        Err(damaged("damaged in the head", "numbers of at most 56 bits"))
    }

    fn alphabet(&mut self) -> Result<Vec<u32>, Error> {
        let (first, count, escape) = (self.varint()?, self.varint()?, self.varint()?);
        if first > ESCAPE || count > ESCAPE - first {
            return Err(damaged("damaged in the head", "alphabets of at most 1024 levels"));
        }
        let mut slots = vec![0; PLACES];
        slots[ESCAPE] = escape.min(u32::MAX as usize) as u32;
        for slots in &mut slots[first..first + count] {
            *slots = self.varint()?.min(u32::MAX as usize) as u32;
        }
        let sum: u64 = slots.iter().map(|slots| u64::from(*slots)).sum();
        if sum != 0 && sum != u64::from(SLOTS) {
            return Err(damaged(&format!("of {sum} slots"), "16384 slots, or none"));
        }
        Ok(slots)
    }
}

/// The head and the words of all runs as one stream.
///
/// # Errors
/// No memory.
pub(super) fn write(
    machine: &Machine,
    step: f32,
    len: usize,
    alphabets: &Alphabets,
    runs: &[Vec<u16>],
) -> Result<Vec<u8>, Error> {
    let mut head = MAGIC.to_vec();
    head.push(machine.memory as u8);
    head.extend(step.to_le_bytes());
    push_varint(&mut head, len);
    for slots in &alphabets.0 {
        let levels = &slots[..ESCAPE];
        let first = levels.iter().position(|slots| *slots > 0).unwrap_or(0);
        let end = levels.iter().rposition(|slots| *slots > 0).map_or(0, |last| last + 1);
        for number in [first, end - first, slots[ESCAPE] as usize] {
            push_varint(&mut head, number);
        }
        levels[first..end].iter().for_each(|slots| push_varint(&mut head, *slots as usize));
    }
    runs.iter().for_each(|words| push_varint(&mut head, words.len()));
    head.extend(crc32(&head).to_le_bytes());
    let words: usize = runs.iter().map(Vec::len).sum();
    let mut bytes = zeroed(head.len() + 2 * words)?;
    let (start, rest) = bytes.split_at_mut(head.len());
    start.copy_from_slice(&head);
    for (bytes, word) in rest.as_chunks_mut().0.iter_mut().zip(runs.iter().flatten()) {
        *bytes = word.to_le_bytes();
    }
    Ok(bytes)
}

fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// The checksum of Ethernet and zip (polynomial 0x04C11DB7, reflected), a bit at a time: heads are short.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _: u32| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
