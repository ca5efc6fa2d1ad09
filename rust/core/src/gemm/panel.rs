//! Packed weights: the one layout that every kernel reads, and its widening for those that want wider numbers.
//!
//! A panel is sixteen columns of the product (rows of the weight). Its lines of 64 bytes hold, for each of the
//! sixteen columns, codes that are neighbours along k:
//!
//! ```text
//! LineI8   column 0: k k+1 k+2 k+3 | column 1: k … k+3 | … | column 15        4 k a line
//! LineU4   the same with k+4 … k+7 in the high nibbles                        8 k a line
//! ```
//!
//! That is an operand of `vpdpbusd` as it stands, and two shifts of 16-bit lanes widen it for `vpmaddwd`, so one
//! layout serves every instruction set. Groups start on a line of their own; gaps are filled with zeros, which
//! meet zeros of A. Widths up to 4 bits are stored as unsigned nibbles, wider codes as int8; zero points and sums
//! are in terms of what is stored.

use super::kernel::Lines;
use super::weight::Decoded;
use crate::error::Error;
use crate::mem::{Line, LineF32, LineI8, LineI16, LineI32, LineN4, LineU4, Nibble, Number, zeroed};
use crate::parallel;
use std::ops::Range;

/// Columns of a panel.
pub(crate) const WIDTH: usize = 16;

/// How the inner dimension falls into groups that share a scale. What takes a division is worked out once: at one
/// row, a group is over in a few dozen cycles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Groups {
    /// Elements along k.
    pub(crate) k: usize,
    /// Elements of a group; the last may be shorter.
    pub(crate) size: usize,
    /// Elements of a stored line: a group starts at a multiple of it.
    pub(crate) unit: usize,
    count: usize,
    /// Elements from the start of one padded group to the next.
    stride: usize,
    padded_k: usize,
}

impl Groups {
    /// Groups of `size` elements, each padded to a multiple of `unit`.
    fn new(k: usize, size: usize, unit: usize) -> Groups {
        let size = size.clamp(1, k.max(1));
        let (count, stride) = (k.div_ceil(size), size.next_multiple_of(unit));
        let last = k - count.saturating_sub(1) * size;
        let padded_k = count.saturating_sub(1) * stride + last.next_multiple_of(unit);
        Groups { k, size, unit, count, stride, padded_k }
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// The elements of group `group`.
    pub(crate) fn range(self, group: usize) -> Range<usize> {
        group * self.size..self.k.min((group + 1) * self.size)
    }

    /// Where group `group` lies in padded rows and panels, in elements.
    pub(crate) fn padded(self, group: usize) -> Range<usize> {
        group * self.stride..self.padded_k.min((group + 1) * self.stride)
    }

    /// The length of a padded row.
    pub(crate) fn padded_k(self) -> usize {
        self.padded_k
    }

    /// Whether padded and plain rows are the same.
    pub(crate) fn is_dense(self) -> bool {
        self.padded_k == self.k
    }
}

/// The codes of a packed weight.
#[derive(Debug, Clone)]
pub(crate) enum Codes {
    I8(Vec<LineI8>),
    U4(Vec<LineU4>),
    /// Codes that are no numbers to multiply with: decoded, scales and all, where a kernel reads float32.
    Decoded(Decoded),
}

/// The zero points of sixteen columns and the sums of their stored codes over a group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offset<'a> {
    /// Pairs of a zero point and a sum.
    Short(&'a LineI16),
    /// Zero points and sums.
    Long(&'a [LineI32; 2]),
}

/// The [`Offset`] of every panel and group.
#[derive(Debug, Clone)]
pub(crate) enum Offsets {
    /// Groups of at most [`SHORT`] elements: their sums, and those of the rows, fit 16 bits. That is half the
    /// memory, and `vpmaddwd` takes both products and their sum in one step; `vpmulld` is two, of twice the latency.
    Short(Vec<LineI16>),
    Long(Vec<[LineI32; 2]>),
}

/// The most elements of a group whose sum of differences of 8-bit codes fits 16 bits.
const SHORT: usize = i16::MAX as usize / 255;

impl Offsets {
    fn new(len: usize, group: usize) -> Result<Offsets, Error> {
        Ok(if group <= SHORT { Offsets::Short(zeroed_lines(len)?) } else { Offsets::Long(zeroed(len)?) })
    }

    fn set(&mut self, at: usize, column: usize, zero: i32, sum: i32) {
        match self {
            Offsets::Short(lines) => {
                [lines[at].0[2 * column], lines[at].0[2 * column + 1]] = [zero as i16, sum as i16];
            }
            Offsets::Long(lines) => [lines[at][0].0[column], lines[at][1].0[column]] = [zero, sum],
        }
    }

    #[inline(always)]
    pub(crate) fn at(&self, at: usize) -> Offset<'_> {
        match self {
            Offsets::Short(lines) => Offset::Short(&lines[at]),
            Offsets::Long(lines) => Offset::Long(&lines[at]),
        }
    }

    fn nbytes(&self) -> usize {
        match self {
            Offsets::Short(lines) => size_of_val(&lines[..]),
            Offsets::Long(lines) => size_of_val(&lines[..]),
        }
    }
}

/// A weight (n, k) packed for products, with what the epilogue needs to know of it.
#[derive(Debug, Clone)]
pub struct Panels {
    pub(crate) n: usize,
    pub(crate) groups: Groups,
    pub(crate) codes: Codes,
    /// One line for each panel and group: `[panel][group]`.
    pub(crate) scale: Vec<LineF32>,
    /// As `scale`.
    pub(crate) offsets: Offsets,
    /// Whether any zero point is not 0.
    pub(crate) has_zeros: bool,
    /// The largest magnitude of a code less its zero point.
    pub(crate) spread: usize,
}

/// Where the codes and parameters of a weight come from.
pub(crate) trait Weight: Sync {
    /// Writes the codes of at most sixteen columns and of the elements `k`, each shifted into the stored range,
    /// as `out[column · k.len() + i]`.
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]);
    /// What is added to a code to store it.
    fn shift(&self) -> i32;
    /// Whether stored codes are 0..=15, so that two share a byte.
    fn nibbles(&self) -> bool;
    /// Scale and zero point of a column in a group.
    fn parameters(&self, column: usize, group: usize) -> (f32, i32);
}

impl Panels {
    /// Packs a weight of `n` columns whose inner dimension `k` falls into groups of `group` elements.
    pub(crate) fn pack(weight: &impl Weight, n: usize, k: usize, group: usize) -> Result<Panels, Error> {
        let unit = if weight.nibbles() { LineU4::K } else { LineI8::K };
        let groups = Groups::new(k, group, unit);
        let count = n.div_ceil(WIDTH);
        let lines = groups.padded_k() / unit;
        let mut panels = Panels {
            n,
            groups,
            codes: Codes::I8(Vec::new()),
            scale: zeroed_lines(count * groups.count())?,
            offsets: Offsets::new(count * groups.count(), groups.size)?,
            has_zeros: false,
            spread: 0,
        };
        panels.codes = if weight.nibbles() {
            let mut codes = zeroed_lines::<u8, 64>(count * lines)?;
            let join = |bytes: &[i8], out: &mut LineU4| {
                // Two lines of bytes become one of nibbles.
                for (i, byte) in out.0.iter_mut().enumerate() {
                    let at = i / 4 * 8 + i % 4;
                    *byte = bytes[at] as u8 | (bytes[at + 4] as u8) << 4;
                }
            };
            fill(weight, n, groups, &mut codes, join)?;
            Codes::U4(codes)
        } else {
            let mut codes = zeroed_lines::<i8, 64>(count * lines)?;
            fill(weight, n, groups, &mut codes, |bytes, out| out.0.copy_from_slice(bytes))?;
            Codes::I8(codes)
        };
        panels.describe(weight);
        Ok(panels)
    }

    /// Panels that are decoded on the way: of one group, whose scale is 1.
    pub(super) fn decoded(weight: Decoded) -> Result<Panels, Error> {
        let [n, k] = weight.shape();
        let groups = Groups::new(k, k, LineF32::K);
        let count = n.div_ceil(WIDTH) * groups.count();
        let mut scale = zeroed_lines(count)?;
        scale.fill(Line([1.0; WIDTH]));
        Ok(Panels {
            n,
            groups,
            codes: Codes::Decoded(weight),
            scale,
            offsets: Offsets::new(count, groups.size)?,
            has_zeros: false,
            spread: 0,
        })
    }

    /// Fills in the scales, zero points and sums.
    fn describe(&mut self, weight: &impl Weight) {
        let groups = self.groups;
        let (min, max) = if weight.nibbles() { (0, 15) } else { (-128, 127) };
        for panel in 0..self.n.div_ceil(WIDTH) {
            for group in 0..groups.count() {
                let at = panel * groups.count() + group;
                let lines = groups.padded(group);
                let start = panel * self.lines();
                let lines = start + lines.start / groups.unit..start + lines.end / groups.unit;
                let sums = match &self.codes {
                    // Shifts of whole lanes take the bytes of a column apart.
                    Codes::I8(codes) => {
                        sum_lines(&codes[lines], |x| (0..4).map(|byte| x << (24 - 8 * byte) >> 24).sum())
                    }
                    Codes::U4(codes) => sum_lines(&codes[lines], |x| {
                        let bytes = (x & 0x0F0F_0F0F) + (x >> 4 & 0x0F0F_0F0F);
                        (0..4).map(|byte| bytes >> (8 * byte) & 0xFF).sum()
                    }),
                    Codes::Decoded(_) => LineI32::zero(),
                };
                for column in 0..WIDTH.min(self.n - panel * WIDTH) {
                    let (scale, zero) = weight.parameters(panel * WIDTH + column, group);
                    let zero = zero + weight.shift();
                    self.scale[at].0[column] = scale;
                    self.offsets.set(at, column, zero, sums.0[column]);
                    self.has_zeros |= zero != 0;
                    self.spread = self.spread.max(zero.abs_diff(min).max(zero.abs_diff(max)) as usize);
                }
            }
        }
    }

    /// Panels of sixteen columns.
    pub(crate) fn count(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    /// Stored lines of a panel.
    pub(crate) fn lines(&self) -> usize {
        self.groups.padded_k() / self.groups.unit
    }

    /// Bytes in memory.
    pub fn nbytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::I8(lines) => size_of_val(&lines[..]),
            Codes::U4(lines) => size_of_val(&lines[..]),
            Codes::Decoded(weight) => weight.nbytes(),
        };
        codes + size_of_val(&self.scale[..]) + self.offsets.nbytes()
    }

    /// The shape (n, k) of the weight.
    pub fn shape(&self) -> (usize, usize) {
        (self.n, self.groups.k)
    }
}

/// Adds `sum` of the 32 bits of each column over all lines.
fn sum_lines<T: Number, const N: usize>(lines: &[Line<T, N>], sum: impl Fn(i32) -> i32) -> LineI32 {
    let mut out = LineI32::zero();
    for line in lines {
        let columns: &LineI32 = line.cast();
        for (total, column) in out.0.iter_mut().zip(columns.0) {
            *total += sum(column);
        }
    }
    out
}

fn zeroed_lines<T: Copy + Default, const N: usize>(len: usize) -> Result<Vec<Line<T, N>>, Error> {
    zeroed(len)
}

/// Writes the lines of every panel: byte lines are gathered in a small buffer and handed to `join`, one or two at
/// a time, as many as `T` holds.
fn fill<T: Lines>(
    weight: &impl Weight,
    n: usize,
    groups: Groups,
    out: &mut [T],
    join: impl Fn(&[i8], &mut T) + Sync,
) -> Result<(), Error> {
    let lines = groups.padded_k() / groups.unit;
    // About a nanosecond for four bytes.
    let nanoseconds = n * groups.k / 4;
    parallel::for_each_chunk(out, lines.max(1), nanoseconds, |panel, out| {
        let columns = panel * WIDTH..n.min((panel + 1) * WIDTH);
        let mut codes = Vec::new();
        for group in 0..groups.count() {
            let (k, padded) = (groups.range(group), groups.padded(group));
            codes.clear();
            codes.resize(WIDTH * k.len(), 0);
            weight.codes(columns.clone(), k.clone(), &mut codes);
            let mut bytes = [0; 2 * 64];
            for (l, line) in out[padded.start / groups.unit..padded.end / groups.unit].iter_mut().enumerate()
            {
                bytes.fill(0);
                let here = l * T::K..k.len().min((l + 1) * T::K);
                for c in 0..columns.len() {
                    let source = &codes[c * k.len()..][here.clone()];
                    let out = &mut bytes[c * T::K..][..T::K];
                    if source.len() == T::K {
                        // A length known to the compiler: one move instead of a call.
                        out.copy_from_slice(&source[..T::K]);
                    } else {
                        out[..source.len()].copy_from_slice(source);
                    }
                }
                join(&bytes[..WIDTH * T::K], line);
            }
        }
    })
}

/// A line of B that stored codes can be widened to.
pub(crate) trait Staged: Lines {
    /// The stored lines themselves, where no widening is needed.
    fn borrow(codes: &Codes) -> Option<&[Self]>;
    /// Widens stored lines: each becomes `stored K / Self::K` lines of `out`.
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]);
}

/// The lines of a few panels at a time as a kernel reads them: as they are stored, or widened into a buffer.
pub(crate) struct Strips<'a, B> {
    panels: &'a Panels,
    stored: Option<&'a [B]>,
    widened: Vec<B>,
    /// Lines of a panel as the kernel reads them.
    lines: usize,
}

impl<'a, B: Staged + Default> Strips<'a, B> {
    /// For at most `count` panels at a time.
    pub(crate) fn new(panels: &'a Panels, count: usize) -> Result<Self, Error> {
        let lines = panels.lines() * panels.groups.unit / B::K;
        let stored = B::borrow(&panels.codes);
        let widened = zeroed(if stored.is_some() { 0 } else { count * lines })?;
        Ok(Strips { panels, stored, widened, lines })
    }

    /// The lines of the panels `strip`.
    #[inline(always)]
    pub(crate) fn lines_of(&mut self, strip: Range<usize>) -> &[B] {
        if let Some(stored) = self.stored {
            return &stored[strip.start * self.lines..strip.end * self.lines];
        }
        let out = &mut self.widened[..strip.len() * self.lines];
        let stored = self.panels.lines();
        B::widen(&self.panels.codes, strip.start * stored..strip.end * stored, out);
        out
    }
}

impl Staged for LineI8 {
    fn borrow(codes: &Codes) -> Option<&[Self]> {
        match codes {
            Codes::I8(lines) => Some(lines),
            Codes::U4(_) | Codes::Decoded(_) => None,
        }
    }

    #[inline(always)]
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]) {
        match codes {
            Codes::I8(codes) => out.copy_from_slice(&codes[lines]),
            Codes::U4(codes) => {
                for (line, [low, high]) in codes[lines].iter().zip(out.as_chunks_mut().0) {
                    for i in 0..64 {
                        low.0[i] = (line.0[i] & 15) as i8;
                        high.0[i] = (line.0[i] >> 4) as i8;
                    }
                }
            }
            Codes::Decoded(_) => unreachable!("decoded weights go to float32 kernels"),
        }
    }
}

impl Staged for LineU4 {
    fn borrow(codes: &Codes) -> Option<&[Self]> {
        match codes {
            Codes::U4(lines) => Some(lines),
            Codes::I8(_) | Codes::Decoded(_) => None,
        }
    }

    #[inline(always)]
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]) {
        if let Codes::U4(codes) = codes {
            out.copy_from_slice(&codes[lines]);
        }
    }
}

impl Staged for LineN4 {
    fn borrow(_: &Codes) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]) {
        if let Codes::U4(codes) = codes {
            for (line, [low, high]) in codes[lines].iter().zip(out.as_chunks_mut().0) {
                for i in 0..64 {
                    low.0[i] = Nibble(line.0[i] & 15);
                    high.0[i] = Nibble(line.0[i] >> 4);
                }
            }
        }
    }
}

impl Staged for LineI16 {
    fn borrow(_: &Codes) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]) {
        match codes {
            Codes::I8(codes) => {
                for (line, [even, odd]) in codes[lines].iter().zip(out.as_chunks_mut().0) {
                    let line: &LineI16 = line.cast();
                    for i in 0..32 {
                        even.0[i] = line.0[i] << 8 >> 8;
                        odd.0[i] = line.0[i] >> 8;
                    }
                }
            }
            Codes::U4(codes) => {
                for (line, [low_even, low_odd, high_even, high_odd]) in
                    codes[lines].iter().zip(out.as_chunks_mut().0)
                {
                    let line: &Line<u16, 32> = line.cast();
                    for i in 0..32 {
                        low_even.0[i] = (line.0[i] & 15) as i16;
                        low_odd.0[i] = (line.0[i] >> 8 & 15) as i16;
                        high_even.0[i] = (line.0[i] >> 4 & 15) as i16;
                        high_odd.0[i] = (line.0[i] >> 12) as i16;
                    }
                }
            }
            Codes::Decoded(_) => unreachable!("decoded weights go to float32 kernels"),
        }
    }
}

impl Staged for LineF32 {
    fn borrow(_: &Codes) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn widen(codes: &Codes, lines: Range<usize>, out: &mut [Self]) {
        match codes {
            Codes::I8(codes) => {
                for (line, out) in codes[lines].iter().zip(out.as_chunks_mut::<4>().0) {
                    let line: &LineI32 = line.cast();
                    for i in 0..16 {
                        for (k, out) in out.iter_mut().enumerate() {
                            out.0[i] = (line.0[i] << (24 - 8 * k) >> 24) as f32;
                        }
                    }
                }
            }
            Codes::U4(codes) => {
                for (line, out) in codes[lines].iter().zip(out.as_chunks_mut::<8>().0) {
                    let line: &LineI32 = line.cast();
                    for i in 0..16 {
                        for (k, out) in out.iter_mut().enumerate() {
                            out.0[i] = (line.0[i] >> (8 * (k % 4) + 4 * (k / 4)) & 15) as f32;
                        }
                    }
                }
            }
            Codes::Decoded(weight) => weight.fill(lines.start / weight.shape()[1].max(1) * WIDTH, out),
        }
    }
}
