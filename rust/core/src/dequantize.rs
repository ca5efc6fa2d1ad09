//! Packed codes become numbers again: `scale · (code − zero_point)`, or `scale · level`.
//!
//! A line of elements is unpacked, given its levels, scaled and written before the next one is read, so that the
//! arithmetic hides behind the memory; taken in turns, a tile at a time, they add up (NF4 on Zen 3: 1.6 G elements/s
//! rather than 2.6). That asks for cells that are stretches of half lines. Elsewhere, and behind the last line, codes
//! are unpacked a tile at a time, and the runs of the grid are taken from that.

#![forbid(unsafe_code)]

use crate::blocks::check_rows;
use crate::coded::levels_from;
use crate::error::{Error, Tuple};
use crate::format::{Format, Packing, Rounder, Spacing};
use crate::grid::{Cell, Grid};
use crate::isa::{Isa, Op};
use crate::mem::{FAR, prefetch};
use crate::pack::{CHUNK, TILE, check_len, nanoseconds, unpack_line};
use crate::parallel;
use crate::qparams::QParams;
use std::hint::black_box;

/// Elements of a line: four vectors of AVX2, one of their codes.
const LINE: usize = 32;
/// Elements that share a cell where lines are taken: the smallest block of a standard (NVFP4).
const HALF: usize = LINE / 2;
/// Packed codes with all that gives them meaning.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Bytes as [`pack`](crate::pack()) lays them out.
    pub codes: &'a [u8],
    /// The format of the codes.
    pub format: &'static dyn Format,
    /// Shape and cells.
    pub grid: &'a Grid,
    /// Parameters of the cells.
    pub params: QParams<'a>,
}

/// The levels of codes of at most 8 bits that are not levels themselves; of what is no code, any.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    /// Of each code.
    pub(crate) levels: [f32; 256],
    /// Of two neighbours, by the bits of both: of codes of at most 4 bits.
    pairs: [[f32; 2]; 256],
}

impl Packed<'_> {
    /// The levels that [`Dequantize`] looks up.
    pub(crate) fn lookup(&self) -> Lookup {
        let mut levels = [0.0; 256];
        let mut pairs = [[0.0; 2]; 256];
        match self.format.spacing() {
            Spacing::Learned => levels[..self.params.levels.len()].copy_from_slice(self.params.levels),
            Spacing::Float(_) | Spacing::Table(_) => {
                for (code, level) in (0..=self.format.codes().1).zip(&mut levels) {
                    *level = self.format.level(code);
                }
            }
            Spacing::Uniform | Spacing::Blocks(_) | Spacing::Trellis(_) => return Lookup { levels, pairs },
        }
        let bits = self.format.bits();
        if bits <= 4 {
            for (i, pair) in pairs.iter_mut().enumerate().take(1 << (2 * bits)) {
                *pair = [levels[i & ((1 << bits) - 1)], levels[i >> bits]];
            }
        }
        Lookup { levels, pairs }
    }

    /// Whether codes and parameters fit the grid and are legal.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_len("codes", self.codes.len(), self.grid.len(), self.format)?;
        if let Spacing::Blocks(blocks) = self.format.spacing() {
            check_rows(blocks, self.grid)?;
        }
        self.params.check(self.grid.cells(), self.format, self.format.codes())
    }
}

/// How the codes of a line are read: `BITS` each, and what they stand for.
trait Reading: Copy {
    const BITS: usize;
    /// Whether zero points are read, which need not come from memory otherwise.
    const SHIFTED: bool = false;
    /// The levels of a line, whose halves have these zero points.
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE];
}

/// The codes of a line, a byte each. Through memory: otherwise the compiler takes words apart one code at a time, in
/// twice the time.
#[inline(always)]
fn codes<const B: usize>(bytes: &[u8]) -> [u8; LINE] {
    let codes = unpack_line::<B, LINE>(bytes);
    if B == 8 { codes } else { black_box(codes) }
}

/// Integers of `B` bits, and the bit of their sign, or 0.
#[derive(Clone, Copy)]
struct Integers<const B: usize>(i32);

impl<const B: usize> Reading for Integers<B> {
    const BITS: usize = B;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE] {
        let codes = codes::<B>(bytes);
        let mut levels = [0.0; LINE];
        for (half, zero_point) in zero_points.into_iter().enumerate() {
            // x ^ s − s extends the sign bit s; with s = 0 it leaves the code as it is.
            let zero = zero_point.wrapping_add(self.0);
            for i in half * HALF..(half + 1) * HALF {
                levels[i] = (i32::from(codes[i]) ^ self.0).wrapping_sub(zero) as f32;
            }
        }
        levels
    }
}

/// [`Integers`] of 16 bits.
#[derive(Clone, Copy)]
struct Wide(i32);

impl Reading for Wide {
    const BITS: usize = 16;
    const SHIFTED: bool = true;

    #[inline(always)]
    fn read(self, bytes: &[u8], zero_points: [i32; 2]) -> [f32; LINE] {
        let codes = pairs(bytes);
        let mut levels = [0.0; LINE];
        for (half, zero_point) in zero_points.into_iter().enumerate() {
            let zero = zero_point.wrapping_add(self.0);
            for i in half * HALF..(half + 1) * HALF {
                levels[i] = (i32::from(codes[i]) ^ self.0).wrapping_sub(zero) as f32;
            }
        }
        levels
    }
}

/// A line of codes of two bytes.
#[inline(always)]
fn pairs(bytes: &[u8]) -> [u16; LINE] {
    let mut codes = [0; LINE];
    for (code, &pair) in codes.iter_mut().zip(bytes.as_chunks().0) {
        *code = u16::from_le_bytes(pair);
    }
    codes
}

/// Floating-point numbers of `B` bits.
#[derive(Clone, Copy)]
struct Numbers<const B: usize>(Rounder);

impl<const B: usize> Reading for Numbers<B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let mut levels = [0.0; LINE];
        if B == 16 {
            let codes = pairs(bytes);
            for i in 0..LINE {
                levels[i] = self.0.level(codes[i]);
            }
        } else {
            let codes = black_box(unpack_line::<B, LINE>(bytes));
            for i in 0..LINE {
                levels[i] = self.0.level(codes[i].into());
            }
        }
        levels
    }
}

/// Levels of codes of `B` bits, one by one.
#[derive(Clone, Copy)]
struct Single<'a, const B: usize>(&'a [f32; 256]);

impl<const B: usize> Reading for Single<'_, B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let mut levels = [0.0; LINE];
        if B == 8 {
            // As they lie: a copy would be a vector, whose bytes come out one after another.
            for (level, &code) in levels.iter_mut().zip(bytes) {
                *level = self.0[usize::from(code)];
            }
        } else {
            for (level, code) in levels.iter_mut().zip(unpack_line::<B, LINE>(bytes)) {
                *level = self.0[usize::from(code)];
            }
        }
        levels
    }
}

/// Levels of codes of `B` bits, two by two.
#[derive(Clone, Copy)]
struct Double<'a, const B: usize>(&'a [[f32; 2]; 256]);

impl<const B: usize> Reading for Double<'_, B> {
    const BITS: usize = B;

    #[inline(always)]
    fn read(self, bytes: &[u8], _: [i32; 2]) -> [f32; LINE] {
        let codes: [u8; HALF] = match B {
            1 => unpack_line::<2, HALF>(bytes),
            2 => unpack_line::<4, HALF>(bytes),
            3 => unpack_line::<6, HALF>(bytes),
            _ => unpack_line::<8, HALF>(bytes),
        };
        let mut levels = [0.0; LINE];
        for (pair, code) in levels.as_chunks_mut().0.iter_mut().zip(codes) {
            *pair = self.0[usize::from(code)];
        }
        levels
    }
}

/// The levels of the elements from `start` on, times their scales.
pub(crate) struct Dequantize<'a> {
    pub(crate) packed: Packed<'a>,
    /// What [`Packed::lookup`] gives.
    pub(crate) lookup: &'a Lookup,
    pub(crate) start: usize,
    pub(crate) out: &'a mut [f32],
}

/// Takes the lines in the reading of as many bits as there are.
macro_rules! by_bits {
    ($self:ident, $bits:expr, $reading:ident, $inner:expr, $($b:literal)*) => {
        match $bits {
            $($b => $self.lines($reading::<$b>($inner)),)*
            _ => $self,
        }
    };
}

impl Op for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let format = self.packed.format;
        let sign = if format.signed() { 1i32 << (format.bits() - 1) } else { 0 };
        let lookup = self.lookup;
        match (format.packing(), format.spacing()) {
            (_, Spacing::Blocks(blocks)) => {
                let first = self.start / blocks.len() * blocks.bytes();
                blocks.decode(&self.packed.codes[first..], self.out);
            }
            (packing, Spacing::Trellis(sequence)) => {
                let Packed { codes, grid, params, .. } = self.packed;
                let mut levels = [0.0; TILE];
                for (i, tile) in self.out.chunks_mut(TILE).enumerate() {
                    let (start, levels) = (self.start + i * TILE, &mut levels[..tile.len()]);
                    levels_from(sequence, packing, codes, start, levels);
                    params.decode(grid, start, levels, |level, _| level, tile);
                }
            }
            (Packing::Bits(16), Spacing::Float(rounder)) => {
                self.lines(Numbers::<16>(rounder)).pairs(|code, _| rounder.level(code));
            }
            (Packing::Bits(16), _) => {
                let level =
                    |code, zero: i32| (i32::from(code) ^ sign).wrapping_sub(zero.wrapping_add(sign)) as f32;
                self.lines(Wide(sign)).pairs(level);
            }
            (packing, Spacing::Uniform) => {
                let rest = match packing {
                    Packing::Bits(bits) => by_bits!(self, bits, Integers, sign, 1 2 3 4 5 6 7 8),
                    _ => self,
                };
                rest.tiles(|code, zero| {
                    (i32::from(code) ^ sign).wrapping_sub(zero.wrapping_add(sign)) as f32
                });
            }
            (packing, spacing) => {
                let rest = match (packing, spacing) {
                    (Packing::Bits(bits @ 1..=4), _) => by_bits!(self, bits, Double, &lookup.pairs, 1 2 3 4),
                    (Packing::Bits(bits), Spacing::Float(rounder)) => {
                        by_bits!(self, bits, Numbers, rounder, 5 6 7 8)
                    }
                    (Packing::Bits(bits), _) => by_bits!(self, bits, Single, &lookup.levels, 5 6 7 8),
                    _ => self,
                };
                rest.tiles(|code, _| lookup.levels[usize::from(code)]);
            }
        }
    }
}

impl Dequantize<'_> {
    /// Writes as many whole lines as start on whole bytes and in halves of one cell each. Gives back what is left.
    #[inline(always)]
    fn lines<R: Reading>(self, reading: R) -> Self {
        let Packed { codes, format, grid, params } = self.packed;
        let even =
            grid.even_block(HALF).filter(|_| self.start.is_multiple_of(HALF) && self.out.len() >= LINE);
        let Some(block) = even else { return self };
        let far = grid.len() >= FAR;
        let mut cells = Even { params, block, cell: self.start / block, left: block - self.start % block };
        let (lines, rest) = self.out.as_chunks_mut::<LINE>();
        let codes = &codes[format.packing().len(self.start)..];
        for (out, bytes) in lines.iter_mut().zip(codes.chunks_exact(R::BITS * LINE / 8)) {
            if far {
                prefetch(out);
            }
            let (low, high) = (cells.next(R::SHIFTED), cells.next(R::SHIFTED));
            let mut levels = reading.read(bytes, [low.1, high.1]);
            let halves = levels.as_chunks_mut::<HALF>().0.iter_mut();
            for (half, (scale, _)) in halves.zip([low, high]) {
                for level in half {
                    *level *= scale;
                }
            }
            *out = levels;
        }
        let start = self.start + LINE * lines.len();
        Dequantize { start, out: rest, ..self }
    }

    #[inline(always)]
    fn tiles(self, level: impl Fn(u8, i32) -> f32 + Copy) {
        let Packed { codes, format, .. } = self.packed;
        let packing = format.packing();
        let mut spread_codes = [0; TILE];
        let mut start = self.start;
        let mut out = self.out;
        while !out.is_empty() {
            // A row may start inside a byte: unpack from the byte boundary before it.
            let skip = start % packing.unit();
            let (tile, rest) = out.split_at_mut(out.len().min(TILE - skip));
            let first = packing.len(start - skip);
            let codes = if packing == Packing::Bits(8) {
                &codes[first..first + tile.len()]
            } else {
                let spread_codes = &mut spread_codes[..skip + tile.len()];
                packing.spread(&codes[first..], false, spread_codes);
                &spread_codes[skip..]
            };
            self.packed.params.decode(self.packed.grid, start, codes, level, tile);
            start += tile.len();
            out = rest;
        }
    }

    /// [`tiles`](Self::tiles) for codes of two bytes.
    #[inline(always)]
    fn pairs(self, level: impl Fn(u16, i32) -> f32 + Copy) {
        let mut codes = [0; TILE];
        let pairs = self.packed.codes.as_chunks().0;
        for (i, tile) in self.out.chunks_mut(TILE).enumerate() {
            let start = self.start + i * TILE;
            let codes = &mut codes[..tile.len()];
            for (code, &pair) in codes.iter_mut().zip(&pairs[start..]) {
                *code = u16::from_le_bytes(pair);
            }
            self.packed.params.decode(self.packed.grid, start, codes, level, tile);
        }
    }
}

/// Cells of whole half lines, from one on.
struct Even<'a> {
    params: QParams<'a>,
    block: usize,
    cell: usize,
    /// Elements that are left of the cell.
    left: usize,
}

impl Even<'_> {
    /// Scale and, where it is asked for, zero point of the next half line.
    #[inline(always)]
    fn next(&mut self, shifted: bool) -> (f32, i32) {
        if self.left == 0 {
            self.cell += 1;
            self.left = self.block;
        }
        self.left -= HALF;
        (self.params.scale[self.cell], if shifted { self.params.zero_point[self.cell] } else { 0 })
    }
}

impl QParams<'_> {
    /// `out = scale · level(code, zero_point)` for the elements from flat index `start` on.
    #[inline(always)]
    fn decode<C: Copy>(
        &self,
        grid: &Grid,
        start: usize,
        codes: &[C],
        level: impl Fn(C, i32) -> f32 + Copy,
        out: &mut [f32],
    ) {
        for (run, cell) in grid.runs(start..start + out.len()) {
            let place = run.start - start..run.end - start;
            let (codes, out) = (&codes[place.clone()], &mut out[place]);
            match cell {
                Cell::One(cell) => {
                    let (scale, zero_point) = (self.scale[cell], self.zero_point[cell]);
                    for (out, &code) in out.iter_mut().zip(codes) {
                        *out = scale * level(code, zero_point);
                    }
                }
                Cell::Each(first) => {
                    let cells = first..first + out.len();
                    let params = self.scale[cells.clone()].iter().zip(&self.zero_point[cells]);
                    for ((out, &code), (&scale, &zero_point)) in out.iter_mut().zip(codes).zip(params) {
                        *out = scale * level(code, zero_point);
                    }
                }
            }
        }
    }
}

/// Writes `scale · (code − zero_point)`, or `scale · level`, of every element.
///
/// ```
/// use qrs_core::{Grid, Packed, QParams, dequantize, format};
/// let packed = Packed {
///     codes: &[0xe1, 0x72],
///     format: format::find("int4")?,
///     grid: &Grid::new(&[4], &[2])?,
///     params: QParams { scale: &[0.5, 2.0], zero_point: &[0, 0], levels: &[] },
/// };
/// let mut out = [0.0; 4];
/// dequantize(packed, &mut out)?;
/// assert_eq!(out, [0.5, -1.0, 4.0, 14.0]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// The codes, the parameters or `out` do not fit the grid, or a parameter is illegal.
pub fn dequantize(packed: Packed<'_>, out: &mut [f32]) -> Result<(), Error> {
    dequantize_on(Isa::active()?, packed, out)
}

pub(crate) fn dequantize_on(isa: Isa, packed: Packed<'_>, out: &mut [f32]) -> Result<(), Error> {
    packed.check()?;
    packed.grid.check_len("out", out.len())?;
    let (cost, lookup) = (nanoseconds(out.len()), &packed.lookup());
    parallel::for_each_chunk(out, CHUNK, cost, |i, out| {
        isa.run(Dequantize { packed, lookup, start: i * CHUNK, out });
    })
}

/// Writes the dequantized rows number `rows[0]`, `rows[1]`, … of a (rows, columns) array: what an embedding
/// does. `out` is (`rows.len()`, columns).
///
/// # Errors
/// As those of [`dequantize`]; the array has not two axes; a row does not exist.
pub fn dequantize_rows(packed: Packed<'_>, rows: &[i64], out: &mut [f32]) -> Result<(), Error> {
    dequantize_rows_on(Isa::active()?, packed, rows, out)
}

pub(crate) fn dequantize_rows_on(
    isa: Isa,
    packed: Packed<'_>,
    rows: &[i64],
    out: &mut [f32],
) -> Result<(), Error> {
    packed.check()?;
    let shape = packed.grid.shape();
    let &[height, width] = shape else {
        return Err(Error::Shape { what: "codes", got: shape.to_vec(), expected: "two axes".into() });
    };
    if rows.len().checked_mul(width) != Some(out.len()) {
        let expected = format!("{} elements", Tuple(&[rows.len(), width]));
        return Err(Error::Shape { what: "out", got: vec![out.len()], expected });
    }
    let inside = |row: i64| usize::try_from(row).is_ok_and(|row| row < height);
    if let Some(index) = rows.iter().position(|&row| !inside(row)) {
        return Err(Error::Value {
            what: "rows",
            got: format!("{} at index {index}", rows[index]),
            expected: format!("row numbers from 0 to below {height}"),
        });
    }
    let batch = CHUNK.div_ceil(width.max(1));
    let (cost, lookup) = (nanoseconds(out.len()) + 50 * rows.len(), &packed.lookup());
    parallel::for_each_chunk(out, batch * width, cost, |i, out| {
        for (&row, out) in rows[i * batch..].iter().zip(out.chunks_mut(width)) {
            isa.run(Dequantize { packed, lookup, start: row as usize * width, out });
        }
    })
}
