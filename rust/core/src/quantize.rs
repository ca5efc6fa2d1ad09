//! Quantize and fake-quantize: one body each, over the runs of a grid.
//!
//! Of integers, `code = clamp(round(x / scale)) + zero_point`. The division is a true float32 division; the clamp happens
//! in float, to `[qmin − zero_point, qmax − zero_point]`, before rounding, so that no conversion to an integer can
//! overflow; the zero point is added in integers, so that ties do not hang on it. Unchecked, NaN becomes `zero_point`
//! and infinities saturate. Of other formats, `code` is that of the level next to `x / scale`.
//!
//! An element's result is a function of its value, its cell and (stochastic rounding) its flat index: where
//! tiles, chunks and vectors end changes no bit.

#![forbid(unsafe_code)]

use crate::blocks::{check_rounding, encode_blocks};
use crate::coded::Stream;
pub(crate) use crate::emit::Affine;
use crate::emit::{Emit, Integers, Law, Numbers, Table};
use crate::error::Error;
use crate::finite::Census;
use crate::format::{Format, Levels, Packing, Rounder, Spacing};
use crate::grid::{Cell, Grid};
use crate::isa::Isa;
pub(crate) use crate::lines::encode;
use crate::lines::{self, Elements, Even, HALF, LINE, SHORT, emit_each, emit_lines, emit_run};
use crate::mem::FAR;
use crate::pack::{CHUNK, TILE, check_len, join, nanoseconds};
use crate::parallel;
use crate::qparams::QParams;
use crate::rounding::{Mode, ModeOp, Rounding, uniform};
use crate::trellis::Sequence;
use crate::values::Values;
use std::ops::Range;

/// How values become codes.
#[derive(Debug, Clone, Copy)]
pub struct Encoding {
    /// The format of the codes.
    pub format: &'static dyn Format,
    /// Leave the lowest code out.
    pub narrow_range: bool,
    /// What happens between two codes.
    pub rounding: Rounding,
    /// The key of stochastic rounding.
    pub seed: u64,
    /// Refuse NaN and infinities.
    pub check_finite: bool,
    /// What exceeds the largest number of a floating-point format becomes that, rather than infinity (or NaN where
    /// there is none).
    pub saturate: bool,
}

/// One chunk of `quantize` or `fake_quantize`, and what is the same for all chunks.
#[derive(Clone, Copy)]
struct Job<'a, L> {
    law: L,
    x: &'a [f32],
    grid: &'a Grid,
    params: QParams<'a>,
    range: (i32, i32),
    seed: u64,
    census: Option<&'a Census>,
}

impl<L: Law> Job<'_, L> {
    /// Emits the elements `tile`, of which there are at most [`TILE`].
    #[inline(always)]
    fn emit<M: Mode, E: Emit>(&self, tile: Range<usize>, out: &mut [E]) {
        let x = &self.x[tile.clone()];
        let mut noise = [0.0; TILE];
        // Without a random mode nothing reads the array, and the compiler leaves it out.
        let u = if M::RANDOM {
            uniform(self.seed, tile.start, &mut noise[..x.len()]);
            &noise[..x.len()]
        } else {
            x
        };
        let elements = Elements { x, u, far: self.x.len() >= FAR };
        let mut all_finite = true;
        // Wide codes of a simple law are not worth long lines.
        let long = !(L::SIMPLE && E::WIDE);
        // Half lines are worth their while where elements take some work.
        let step = if L::SIMPLE { LINE } else { HALF };
        let even = self.grid.even_block(step).filter(|block| long && *block < TILE);
        if let Some(block) = even {
            let (params, range, start) = (self.params, self.range, tile.start);
            all_finite = if L::SIMPLE {
                emit_lines::<M, E>(self.law, elements, Even::<LINE>::new(params, range, block, start), out)
            } else {
                emit_lines::<M, E>(self.law, elements, Even::<HALF>::new(params, range, block, start), out)
            };
        } else {
            let mut any_short = false;
            for (run, cell) in self.grid.runs(tile.clone()) {
                let place = run.start - tile.start..run.end - tile.start;
                let (elements, out) = (elements.part(place.clone()), &mut out[place]);
                all_finite &= match cell {
                    Cell::One(cell) => {
                        let cell = self.params.affine(cell, self.range).bounded();
                        if !long || run.len() < LINE {
                            emit_run::<M, E>(self.law, elements, cell, out);
                            any_short = true;
                            continue;
                        }
                        emit_lines::<M, E>(self.law, elements, cell, out)
                    }
                    Cell::Each(first) => {
                        let cells = first..first + run.len();
                        let QParams { scale, zero_point, levels } = self.params;
                        let params =
                            QParams { scale: &scale[cells.clone()], zero_point: &zero_point[cells], levels };
                        if long {
                            emit_each::<M, E, LINE>(self.law, elements, params, self.range, out)
                        } else {
                            emit_each::<M, E, SHORT>(self.law, elements, params, self.range, out)
                        }
                    }
                };
            }
            // Once for all short runs.
            all_finite &= !any_short || lines::all_finite(x);
        }
        if !all_finite {
            self.mend(tile, out);
        }
    }

    /// Counts what is not finite in a tile, and writes what NaN becomes.
    #[cold]
    #[inline(never)]
    fn mend<E: Emit>(&self, tile: Range<usize>, out: &mut [E]) {
        let x = &self.x[tile.clone()];
        if let Some(census) = self.census {
            census.see(x, tile.start);
        }
        for (i, &x) in x.iter().enumerate().filter(|(_, x)| x.is_nan()) {
            let cell = self.params.affine(self.grid.cell_of(tile.start + i), self.range);
            out[i] = E::of_nan(x, self.law.nan(cell));
        }
    }
}

/// The packed codes of the elements from `start` on.
struct Quantize<'a, L> {
    job: Job<'a, L>,
    start: usize,
    packing: Packing,
    out: &'a mut [u8],
}

impl<L: Law> ModeOp for Quantize<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<M: Mode>(self) {
        let (mut codes, mut wide) = ([0u8; TILE], [0u16; TILE]);
        let step = self.packing.len(TILE);
        for (i, out) in self.out.chunks_mut(step).enumerate() {
            let start = self.start + i * TILE;
            let tile = start..(start + TILE).min(self.job.x.len());
            match self.packing {
                Packing::Bits(8) => self.job.emit::<M, u8>(tile, out),
                Packing::Bits(16) => {
                    let wide = &mut wide[..tile.len()];
                    self.job.emit::<M, u16>(tile, wide);
                    join(wide, out);
                }
                packing => {
                    let codes = &mut codes[..tile.len()];
                    self.job.emit::<M, u8>(tile, codes);
                    packing.squeeze(codes, out);
                }
            }
        }
    }
}

/// The fake-quantized elements from `start` on.
struct FakeQuantize<'a, L> {
    job: Job<'a, L>,
    start: usize,
    out: &'a mut [f32],
}

impl<L: Law> ModeOp for FakeQuantize<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<M: Mode>(self) {
        for (i, out) in self.out.chunks_mut(TILE).enumerate() {
            let start = self.start + i * TILE;
            self.job.emit::<M, f32>(start..start + out.len(), out);
        }
    }
}

/// Writes the packed codes of `x`: `code = clamp(round(x / scale)) + zero_point`.
///
/// ```
/// use qrs_core::{Encoding, Grid, QParams, Rounding, format, quantize};
/// let encoding = Encoding {
///     format: format::find("int4")?,
///     narrow_range: false,
///     rounding: Rounding::HalfEven,
///     seed: 0,
///     check_finite: true,
///     saturate: true,
/// };
/// let grid = Grid::new(&[4], &[2])?; // two groups of two
/// let params = QParams { scale: &[0.5, 2.0], zero_point: &[0, 0], levels: &[] };
/// let mut out = [0; 2];
/// quantize(&[0.5, -0.75, 5.0, 100.0], &grid, params, &encoding, &mut out)?;
/// assert_eq!(out, [0xe1, 0x72]); // 1, -2, 2, 7
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// An importance decides between the paths of a trellis and among the scales in blocks; other formats have no use
/// for it here.
///
/// # Errors
/// `x`, the parameters or `out` do not fit the grid, a parameter or an importance is illegal, or (with `check_finite`) `x` holds
/// NaN or infinity; `out` may then have been written in part.
pub fn quantize<'a>(
    values: impl Into<Values<'a>>,
    grid: &Grid,
    params: QParams<'_>,
    encoding: &Encoding,
    out: &mut [u8],
) -> Result<(), Error> {
    quantize_on(Isa::active()?, (values.into(), grid, params), encoding, out)
}

fn quantize_on(
    isa: Isa,
    (values, grid, params): (Values<'_>, &Grid, QParams<'_>),
    encoding: &Encoding,
    out: &mut [u8],
) -> Result<(), Error> {
    /// Quantizing, for each law.
    struct Each<'a> {
        isa: Isa,
        out: &'a mut [u8],
    }
    impl Work for Each<'_> {
        fn run<L: Law>(self, job: Job<'_, L>, encoding: &Encoding) -> Result<(), Error> {
            let rounding = encoding.rounding;
            let packing = encoding.format.packing();
            parallel::for_each_chunk(self.out, packing.len(CHUNK), nanoseconds(job.x.len()), |i, out| {
                job.run(self.isa, rounding, Quantize { job, start: i * CHUNK, packing, out });
            })
        }
    }
    check_len("out", out.len(), grid.len(), encoding.format)?;
    if let Spacing::Blocks(blocks) = encoding.format.spacing() {
        let bytes = CHUNK / blocks.len() * blocks.bytes();
        let how = (encoding.rounding, encoding.check_finite);
        let cost = 4 * values.x.len();
        return encode_blocks(blocks, (values, grid), how, |encode| {
            parallel::for_each_chunk(out, bytes, cost, |i, out| encode(i * CHUNK, out))
        });
    }
    if let Spacing::Trellis(sequence) = encoding.format.spacing() {
        let packing = encoding.format.packing();
        return stream(sequence, (values, grid, params), encoding)?.encode(|elements, coded| {
            out[packing.len(elements.start)..][..coded.len()].copy_from_slice(coded);
            Ok(())
        });
    }
    run((values.x, grid, params), encoding, Each { isa, out })
}

/// Writes `dequantize(quantize(x))`, bit for bit, without the codes between. NaN stays NaN unless `check_finite`
/// refuses it.
///
/// # Errors
/// As those of [`quantize`].
pub fn fake_quantize(
    x: &[f32],
    grid: &Grid,
    params: QParams<'_>,
    encoding: &Encoding,
    out: &mut [f32],
) -> Result<(), Error> {
    fake_quantize_on(Isa::active()?, (x, grid, params), encoding, out)
}

fn fake_quantize_on(
    isa: Isa,
    (x, grid, params): (&[f32], &Grid, QParams<'_>),
    encoding: &Encoding,
    out: &mut [f32],
) -> Result<(), Error> {
    /// Fake-quantizing, for each law.
    struct Each<'a> {
        isa: Isa,
        out: &'a mut [f32],
    }
    impl Work for Each<'_> {
        fn run<L: Law>(self, job: Job<'_, L>, encoding: &Encoding) -> Result<(), Error> {
            let rounding = encoding.rounding;
            parallel::for_each_chunk(self.out, CHUNK, nanoseconds(job.x.len()), |i, out| {
                job.run(self.isa, rounding, FakeQuantize { job, start: i * CHUNK, out });
            })
        }
    }
    grid.check_len("out", out.len())?;
    if let Spacing::Blocks(blocks) = encoding.format.spacing() {
        let how = (encoding.rounding, encoding.check_finite);
        return encode_blocks(blocks, (x.into(), grid), how, |encode| {
            parallel::for_each_chunk(out, CHUNK, 4 * x.len(), |i, out| {
                let mut bytes = vec![0; encoding.format.packing().len(out.len())];
                encode(i * CHUNK, &mut bytes);
                blocks.decode(&bytes, out);
                for (out, x) in out.iter_mut().zip(&x[i * CHUNK..]).filter(|(_, x)| x.is_nan()) {
                    *out = *x;
                }
            })
        });
    }
    if let Spacing::Trellis(sequence) = encoding.format.spacing() {
        let stream = stream(sequence, (x.into(), grid, params), encoding)?;
        return stream.encode(|elements, coded| {
            let (x, out) = (&x[elements.clone()], &mut out[elements.clone()]);
            stream.decode(coded, elements, out);
            out.iter_mut().zip(x).filter(|(_, x)| x.is_nan()).for_each(|(out, x)| *out = *x);
            Ok(())
        });
    }
    run((x, grid, params), encoding, Each { isa, out })
}

/// Validates, and gives the stream that is to be encoded.
fn stream<'a>(
    sequence: Sequence,
    (values, grid, params): (Values<'a>, &'a Grid, QParams<'a>),
    encoding: &Encoding,
) -> Result<Stream<'a>, Error> {
    grid.check_len("x", values.x.len())?;
    values.check()?;
    params.check(grid.cells(), encoding.format, encoding.format.code_range(encoding.narrow_range)?)?;
    check_rounding(encoding.format.name(), encoding.rounding)?;
    if encoding.check_finite {
        let census = Census::new();
        census.see(values.x, 0);
        census.check("x")?;
    }
    Ok(Stream { sequence, packing: encoding.format.packing(), values, grid, scale: params.scale })
}

/// Work on all chunks, whatever the law.
trait Work {
    fn run<L: Law>(self, job: Job<'_, L>, encoding: &Encoding) -> Result<(), Error>;
}

/// Validates, does the work by the law of the format, and looks at the census.
fn run(
    (x, grid, params): (&[f32], &Grid, QParams<'_>),
    encoding: &Encoding,
    work: impl Work,
) -> Result<(), Error> {
    grid.check_len("x", x.len())?;
    let format = encoding.format;
    let range = format.code_range(encoding.narrow_range)?;
    params.check(grid.cells(), format, range)?;
    let census = Census::new();
    let job = Job {
        law: Integers,
        x,
        grid,
        params,
        range,
        seed: encoding.seed,
        census: encoding.check_finite.then_some(&census),
    };
    match format.spacing() {
        Spacing::Uniform => work.run(job, encoding)?,
        Spacing::Float(rounder) => {
            let beyond = beyond(rounder, encoding)?;
            let rounder = rounder.rounding(encoding.rounding);
            work.run(job.under(Numbers::new(rounder, beyond)), encoding)?;
        }
        Spacing::Table(levels) => run_table(levels, job, encoding, work)?,
        Spacing::Learned => run_table(&Levels::new(params.levels), job, encoding, work)?,
        Spacing::Blocks(_) | Spacing::Trellis(_) => return Err(format.no_range()),
    }
    census.check("x")
}

impl<L: Law> Job<'_, L> {
    /// Runs work on a chunk, compiled for no more modes than the law tells apart.
    fn run<O: ModeOp>(&self, isa: Isa, rounding: Rounding, op: O) -> O::Output {
        if L::MODES { rounding.run(isa, op) } else { rounding.run_drawn(isa, op) }
    }
}

impl<'a> Job<'a, Integers> {
    fn under<L: Law>(self, law: L) -> Job<'a, L> {
        let Job { law: Integers, x, grid, params, range, seed, census } = self;
        Job { law, x, grid, params, range, seed, census }
    }
}

fn run_table(
    levels: &Levels,
    job: Job<'_, Integers>,
    encoding: &Encoding,
    work: impl Work,
) -> Result<(), Error> {
    work.run(job.under(Table(&levels.picker(encoding.rounding))), encoding)
}

/// What numbers beyond the largest become, where they are not to saturate.
fn beyond(rounder: Rounder, encoding: &Encoding) -> Result<Option<(i32, f32)>, Error> {
    match rounder.overflowing() {
        _ if encoding.saturate => Ok(None),
        None => Err(Error::Value {
            what: "saturate",
            got: format!("false for {}", encoding.format.name()),
            expected: "true: the format has neither infinity nor NaN".into(),
        }),
        beyond => Ok(beyond),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize::{Packed, dequantize, dequantize_on, dequantize_rows, dequantize_rows_on};
    use crate::{ScaleType, Target, format, pack, packed_len, unpack};
    use proptest::prelude::*;

    /// The definition, an element at a time, with the standard library's rounding.
    fn naive(job: &Job<'_, Integers>, rounding: Rounding, index: usize) -> i32 {
        let cell = job.grid.cell_of(index);
        let (scale, zero_point) = (job.params.scale[cell], job.params.zero_point[cell]);
        let (qmin, qmax) = job.range;
        let v = job.x[index] / scale;
        if v.is_nan() {
            return zero_point;
        }
        let v = v.clamp((qmin - zero_point) as f32, (qmax - zero_point) as f32);
        let mut u = [0.0];
        uniform(job.seed, index, &mut u);
        let up = |carry: bool| v.floor() + if carry { 1.0 } else { 0.0 };
        let rounded = match rounding {
            Rounding::HalfEven => v.round_ties_even(),
            Rounding::HalfAway => v.round(),
            Rounding::HalfUp => up(v - v.floor() >= 0.5),
            Rounding::Floor => v.floor(),
            Rounding::Ceil => v.ceil(),
            Rounding::TowardZero => v.trunc(),
            Rounding::Stochastic => up(u[0] < v - v.floor()),
        };
        rounded as i32 + zero_point
    }

    /// Numbers that look random, ties and edges among them.
    fn data(len: usize, mut state: u32) -> Vec<f32> {
        let edges =
            [0.0, -0.0, 0.5, -0.5, 2.5, -1.5, 1e-45, 3e38, -3e38, 0.499_999_97, f32::NAN, f32::INFINITY];
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 28 == 0 {
                edges[(state >> 8) as usize % edges.len()]
            } else {
                (state as i32 >> 16) as f32 / 256.0
            }
        };
        (0..len).map(next).collect()
    }

    fn encoding(name: &str, rounding: Rounding) -> Encoding {
        let format = format::find(name).unwrap();
        let seed = 0x1234_5678_9abc_def0;
        Encoding { format, narrow_range: false, rounding, seed, check_finite: false, saturate: true }
    }

    /// The formats with a code for each element that depends on it alone; blocks and trellises have tests of their own.
    fn coded() -> impl Iterator<Item = &'static &'static dyn Format> {
        let alone = |format: &&&'static dyn Format| !matches!(format.spacing(), Spacing::Trellis(_));
        format::TABLE.iter().filter(|format| format.check_codes().is_ok()).filter(alone)
    }

    /// Every path on every instruction set against the definition.
    fn check(shape: &[usize], block: &[usize], encoding: &Encoding, seed: u32) {
        let grid = Grid::new(shape, block).unwrap();
        let x = data(grid.len(), seed);
        let range = encoding.format.codes();
        let integers = encoding.format.spacing().is_uniform();
        let (qmin, qmax) = if integers { range } else { (0, 0) };
        let levels: Vec<f32> = match encoding.format.spacing() {
            Spacing::Learned => (0..=range.1).map(|code| (code * code) as f32 - 9.0).collect(),
            _ => Vec::new(),
        };
        let scale: Vec<f32> = (0..grid.cells()).map(|cell| 0.25 + (cell * 7 % 31) as f32 / 8.0).collect();
        let zero_point: Vec<i32> = (0..grid.cells() as i32)
            .map(|cell| qmin + (cell * 11 + (seed % 100) as i32) % (qmax - qmin + 1))
            .collect();
        let params = QParams { scale: &scale, zero_point: &zero_point, levels: &levels };
        let job = Job { law: Integers, x: &x, grid: &grid, params, range, seed: encoding.seed, census: None };
        let codes: Vec<i32> = if integers {
            (0..x.len()).map(|i| naive(&job, encoding.rounding, i)).collect()
        } else {
            // tests/test_laws.py holds these to the definition; here, instruction sets to one another.
            let mut packed = vec![0; packed_len(x.len(), encoding.format)];
            quantize_on(Isa::Portable, ((&x).into(), &grid, params), encoding, &mut packed).unwrap();
            let mut codes = vec![0u16; x.len()];
            unpack(&packed, encoding.format, &mut codes).unwrap();
            codes.into_iter().map(i32::from).collect()
        };
        let level = |i: usize| {
            let cell = grid.cell_of(i);
            scale[cell]
                * match levels.get(codes[i] as usize) {
                    Some(level) => *level,
                    None => encoding.format.level(codes[i] - zero_point[cell]),
                }
        };
        for isa in Isa::available() {
            let mut packed = vec![0x55; packed_len(x.len(), encoding.format)];
            quantize_on(isa, ((&x).into(), &grid, params), encoding, &mut packed).unwrap();
            let mut back = vec![0u16; x.len()];
            unpack(&packed, encoding.format, &mut back).unwrap();
            let place = |i| {
                format!(
                    "{} {} {} {shape:?} {block:?} at {i}",
                    isa.name(),
                    encoding.format.name(),
                    encoding.rounding.name()
                )
            };
            for i in 0..x.len() {
                assert_eq!(back[i], codes[i] as u16, "{} {}", place(i), x[i]);
            }
            let packed = Packed { codes: &packed, format: encoding.format, grid: &grid, params };
            let (mut levels, mut fake) = (vec![9.0f32; x.len()], vec![9.0f32; x.len()]);
            dequantize_on(isa, packed, &mut levels).unwrap();
            fake_quantize_on(isa, (&x, &grid, params), encoding, &mut fake).unwrap();
            for i in 0..x.len() {
                let same = levels[i].to_bits() == level(i).to_bits();
                assert!(same || levels[i].is_nan() && level(i).is_nan(), "{}", place(i));
                if x[i].is_nan() {
                    assert!(fake[i].is_nan());
                } else {
                    assert_eq!(fake[i].to_bits(), levels[i].to_bits(), "{}", place(i));
                }
            }
            if let &[height, width] = shape {
                let rows: Vec<i64> = (0..height as i64 * 2).map(|i| i * 5 % height as i64).collect();
                let mut out = vec![9.0; rows.len() * width];
                dequantize_rows_on(isa, packed, &rows, &mut out).unwrap();
                for (i, &row) in rows.iter().enumerate() {
                    assert_eq!(
                        out[i * width..][..width].iter().map(|y| y.to_bits()).collect::<Vec<_>>(),
                        levels[row as usize * width..][..width]
                            .iter()
                            .map(|y| y.to_bits())
                            .collect::<Vec<_>>(),
                        "{}",
                        place(i)
                    );
                }
            }
        }
    }

    #[test]
    fn every_format_and_rounding_is_the_definition() {
        for format in coded() {
            for &rounding in Rounding::ALL {
                check(&[11, 53], &[1, 32], &encoding(format.name(), rounding), 3);
            }
        }
    }

    #[test]
    fn every_granularity_is_the_definition_across_tiles_and_chunks() {
        let wide = [3, CHUNK / 2 + 77];
        for block in [wide, [1, wide[1]], [3, 1], [1, 128], [2, 1000], [1, 1]] {
            for (name, rounding) in [("int8", Rounding::HalfEven), ("uint3", Rounding::Stochastic)] {
                check(&wide, &block, &encoding(name, rounding), 5);
            }
        }
    }

    proptest! {
        #[test]
        fn any_shape_is_the_definition(
            axes in prop::collection::vec((1usize..12, 1usize..14), 0..4), index in 0..coded().count(), seed: u32,
        ) {
            let (shape, block): (Vec<_>, Vec<_>) = axes.into_iter().unzip();
            let rounding = Rounding::ALL[seed as usize % Rounding::ALL.len()];
            check(&shape, &block, &encoding(coded().nth(index).unwrap().name(), rounding), seed);
        }
    }

    #[test]
    fn edges_have_the_answers_of_the_definition() {
        let x = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.499_999_97, -0.499_999_97, -0.0, 1e-45, f32::NAN];
        let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
        let mut codes = [0; 11];
        let params = QParams { scale: &[1.0], zero_point: &[3], levels: &[] };
        quantize(&x, &grid, params, &encoding("uint8", Rounding::HalfEven), &mut codes).unwrap();
        assert_eq!(codes, [1, 1, 3, 3, 5, 5, 3, 3, 3, 3, 3]);
        let x = [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 3e10, -3e10];
        let grid = Grid::new(&[6], &[6]).unwrap();
        let mut codes = [0; 6];
        let params = QParams { scale: &[1e-3], zero_point: &[0], levels: &[] };
        let narrow = Encoding { narrow_range: true, ..encoding("int8", Rounding::HalfEven) };
        quantize(&x, &grid, params, &narrow, &mut codes).unwrap();
        assert_eq!(codes.map(|code| code as i8), [127, -127, 127, -127, 127, -127]);
    }

    #[test]
    fn every_code_of_every_format_comes_back() {
        for format in coded() {
            let (lowest, highest) = format.codes();
            let codes: Vec<i32> = (lowest..=highest).collect();
            let mut bytes = vec![0; packed_len(codes.len(), *format)];
            pack(&codes, *format, &mut bytes).unwrap();
            let grid = Grid::new(&[codes.len()], &[codes.len()]).unwrap();
            let integers = format.spacing().is_uniform();
            let own: Vec<f32> = match format.spacing() {
                Spacing::Learned => codes.iter().map(|&code| format.level(code)).collect(),
                _ => Vec::new(),
            };
            let zero_points = if integers && format.bits() <= 8 { lowest..=highest } else { 0..=0 };
            for zero_point in zero_points {
                let params = QParams { scale: &[0.3], zero_point: &[zero_point], levels: &own };
                let mut levels = vec![0.0; codes.len()];
                let packed = Packed { codes: &bytes, format: *format, grid: &grid, params };
                dequantize(packed, &mut levels).unwrap();
                for (level, &code) in levels.iter().zip(&codes) {
                    let expected =
                        0.3 * if integers { (code - zero_point) as f32 } else { format.level(code) };
                    let same = level.to_bits() == expected.to_bits();
                    assert!(same || level.is_nan() && expected.is_nan(), "{} {code}", format.name());
                }
                let mut again = vec![0; bytes.len()];
                quantize(&levels, &grid, params, &encoding(format.name(), Rounding::HalfEven), &mut again)
                    .unwrap();
                let mut back = vec![0u16; codes.len()];
                unpack(&again, *format, &mut back).unwrap();
                for ((&level, &code), &back) in levels.iter().zip(&codes).zip(&back) {
                    // Zero has one code in tables; infinities and NaN have none of their own.
                    if level.is_finite() && (level != 0.0 || !format.name().contains([':', '_'])) {
                        assert_eq!(back, code as u16, "{}", format.name());
                    }
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_counted_in_every_chunk() {
        let mut x = vec![1.0; 3 * CHUNK];
        (x[CHUNK + 5], x[CHUNK + 6], x[3 * CHUNK - 1]) = (f32::NAN, f32::INFINITY, f32::NAN);
        let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
        let checked = Encoding { check_finite: true, ..encoding("int4", Rounding::HalfEven) };
        let params = QParams { scale: &[1.0], zero_point: &[0], levels: &[] };
        let error = Error::NotFinite { what: "x", count: 3, first: CHUNK + 5 };
        for isa in Isa::available() {
            let mut out = vec![0; x.len() / 2];
            assert_eq!(
                quantize_on(isa, ((&x).into(), &grid, params), &checked, &mut out),
                Err(error.clone())
            );
            let mut out = vec![0.0; x.len()];
            assert_eq!(fake_quantize_on(isa, (&x, &grid, params), &checked, &mut out), Err(error.clone()));
        }
    }

    #[test]
    fn empty_arrays_are_legal() {
        for (shape, block, cells) in [([0, 4], [0, 4], 1), ([0, 4], [1, 4], 0), ([4, 0], [1, 0], 4)] {
            let grid = Grid::new(&shape, &block).unwrap();
            let params = QParams { scale: &vec![1.0; cells], zero_point: &vec![0; cells], levels: &[] };
            quantize(&[], &grid, params, &encoding("int4", Rounding::HalfEven), &mut []).unwrap();
            let packed = Packed { codes: &[], format: format::find("int4").unwrap(), grid: &grid, params };
            dequantize(packed, &mut []).unwrap();
            if shape == [4, 0] {
                dequantize_rows(packed, &[0, 3], &mut []).unwrap();
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let grid = Grid::new(&[2, 3], &[1, 3]).unwrap();
        let params = QParams { scale: &[1.0; 2], zero_point: &[0; 2], levels: &[] };
        let how = encoding("int8", Rounding::HalfEven);
        let text = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert_eq!(
            text(quantize(&[0.0; 5], &grid, params, &how, &mut [0; 6])),
            "x has shape (5,), expected the 6 elements of shape (2, 3)"
        );
        assert!(
            text(quantize(&[0.0; 6], &grid, params, &how, &mut [0; 5])).starts_with("out has shape (5,)")
        );
        let one = QParams { scale: &[1.0], ..params };
        assert!(text(quantize(&[0.0; 6], &grid, one, &how, &mut [0; 6])).starts_with("scale has shape (1,)"));
        let packed = Packed { codes: &[0; 6], format: how.format, grid: &grid, params };
        assert_eq!(
            text(dequantize_rows(packed, &[1, 2], &mut [0.0; 6])),
            "rows is 2 at index 1, expected row numbers from 0 to below 2"
        );
        assert!(text(dequantize_rows(packed, &[-1], &mut [0.0; 3])).starts_with("rows is -1 at index 0"));
        assert!(text(dequantize_rows(packed, &[0], &mut [0.0; 6])).starts_with("out has shape (6,)"));
    }

    #[test]
    fn stochastic_rounding_keeps_the_mean() {
        let x = vec![0.3; 1 << 16];
        let grid = Grid::new(&[x.len()], &[x.len()]).unwrap();
        let mut out = vec![0; x.len()];
        let params = QParams { scale: &[1.0], zero_point: &[0], levels: &[] };
        quantize(&x, &grid, params, &encoding("uint8", Rounding::Stochastic), &mut out).unwrap();
        let mean = out.iter().map(|&code| f64::from(code)).sum::<f64>() / x.len() as f64;
        assert!((mean - 0.3).abs() < 0.01, "{mean}");
    }

    #[test]
    fn dynamic_encoding_is_quantize() {
        let x = data(301, 9);
        let target = Target::new(format::find("uint8").unwrap(), false, false, ScaleType::Float32).unwrap();
        let (qmin, qmax) = target.code_range();
        let (scale, zero_point) = crate::qparams::one(-100.0, 100.0, &target);
        let p = Affine { scale, zero_point, qmin, qmax };
        let (mut codes, mut wide, mut out) = ([0u8; 301], [0i16; 301], [0u8; 301]);
        encode(&x, p, &mut codes);
        encode(&x, p, &mut wide);
        let grid = Grid::new(&[301], &[301]).unwrap();
        let params = QParams { scale: &[scale], zero_point: &[zero_point], levels: &[] };
        quantize(&x, &grid, params, &encoding("uint8", Rounding::HalfEven), &mut out).unwrap();
        assert_eq!(codes, out);
        assert!(codes.iter().zip(wide).all(|(narrow, wide)| i16::from(*narrow) == wide));
    }
}
