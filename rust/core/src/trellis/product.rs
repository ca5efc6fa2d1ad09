//! The product of one vector with encoded rows, decoded on the way: each byte is read once and no weight is stored.
//!
//! The vector is rounded to 16 bits, with a scale for each block: 2⁻¹⁶ of the largest value there, far less than what a
//! weight of four bits loses. So with integer levels the product of a block is exact in integers, in any order, and
//! every instruction set and number of threads gives the same bits. Codes without integer levels, and steps of two
//! values, decode a block to float32 first.
#![forbid(unsafe_code)]

use super::code::{Code, Quintic, Table};
use super::decode::{SEGMENT, joined, states, window, words};
use super::{BLOCK, COMPILED, Trellis, compiled};
use crate::error::Error;
use crate::finite::Census;
use crate::isa::{Isa, Op};
use crate::math;
use crate::mem::zeroed;
use crate::parallel;

/// Weights of a vector: one of each segment.
const LANES: usize = BLOCK / SEGMENT;

impl Trellis {
    /// `out[n] = Σ scale · x[k] · ŵ[n, k]`: the product of `x` with rows of encoded weights, decoded on the way.
    ///
    /// `bytes` holds the blocks of one row after the other; a row has `x.len() / 256`. `scales` holds as many scales
    /// for each row, one after the other, as there are, and each is that of equally many blocks. `x` is rounded to
    /// 16 bits a block, which is part of the definition where the code has integer levels: "1mad", "quintic" and
    /// "table" with one value a step.
    ///
    /// ```
    /// use qrs_core::trellis::{BLOCK, Code, Trellis};
    /// let trellis = Trellis::new(2, 8, 1, Code::find("quintic", 2, 8)?)?;
    /// let bytes = vec![0b0110_1001; 3 * trellis.bytes()];
    /// let mut weights = vec![0.0; 3 * BLOCK];
    /// trellis.decode(&bytes, &mut weights)?;
    /// let x = [0.5; BLOCK];
    /// let mut out = [0.0; 3];
    /// trellis.matvec(&bytes, &x, &[1.0, 2.0, 3.0], &mut out)?;
    /// let exact: f32 = weights[..BLOCK].iter().sum::<f32>() / 2.0;
    /// assert!((out[0] - exact).abs() < 1e-3 && (out[2] - 3.0 * exact).abs() < 3e-3);
    /// # Ok::<(), qrs_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `x` is no whole number of blocks, `bytes` has another length, or the scales of a row do not divide its blocks;
    /// NaN or infinity in `x`; no memory.
    pub fn matvec(&self, bytes: &[u8], x: &[f32], scales: &[f32], out: &mut [f32]) -> Result<(), Error> {
        self.matvec_on(Isa::active()?, bytes, x, scales, out)
    }

    pub(super) fn matvec_on(
        &self,
        isa: Isa,
        bytes: &[u8],
        x: &[f32],
        scales: &[f32],
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (rows, blocks) = (out.len(), x.len() / BLOCK);
        self.check_lens("x", x.len(), "bytes of a row", blocks * self.bytes())?;
        if bytes.len() != rows * blocks * self.bytes() {
            let expected =
                format!("({},): {} blocks for each of {rows} rows", rows * blocks * self.bytes(), blocks);
            return Err(Error::Shape { what: "bytes", got: vec![bytes.len()], expected });
        }
        if rows == 0 {
            return Ok(());
        }
        if blocks == 0 {
            out.fill(0.0);
            return Ok(());
        }
        let groups = scales.len() / rows;
        if groups * rows != scales.len() || groups == 0 || !blocks.is_multiple_of(groups) {
            let expected = format!("as many for each of {rows} rows, dividing its {blocks} blocks");
            return Err(Error::Shape { what: "scales", got: vec![scales.len()], expected });
        }
        let census = Census::new();
        census.see(x, 0);
        census.check("x")?;
        let codes = Codes::new(x)?;
        let job = Job { trellis: self, x, codes: &codes, blocks: blocks / groups };
        // A tenth of a nanosecond a weight.
        let nanoseconds = rows * x.len() / 10;
        // Enough rows for a task to be worth a call, and enough tasks to share out.
        let size = (1 << 15 >> blocks.ilog2()).clamp(1, 64);
        parallel::for_each_chunk(out, size, nanoseconds, |number, out| {
            let first = number * size;
            let scales = &scales[first * groups..][..out.len() * groups];
            Rows { job, bytes: &bytes[first * blocks * self.bytes()..], scales, groups, out }.run(isa);
        })
    }
}

/// A vector in 16 bits.
struct Codes {
    /// For each block and step of the segments, that of all segments.
    codes: Vec<i16>,
    /// What a code of 1 stands for in each block.
    scales: Vec<f32>,
}

impl Codes {
    fn new(x: &[f32]) -> Result<Codes, Error> {
        let mut codes: Vec<i16> = zeroed(x.len())?;
        let mut scales: Vec<f32> = zeroed(x.len() / BLOCK)?;
        for ((x, codes), scale) in x.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(&mut scales) {
            // What a symmetric int16 scheme gives: the smallest scale that holds both ends.
            let (lo, hi) = x.iter().fold((0f32, 0f32), |(lo, hi), v| (lo.min(*v), hi.max(*v)));
            let needed = (f64::from(hi) / 32767.0).max(f64::from(lo) / -32768.0) as f32;
            *scale = if needed > 0.0 { needed.max(f32::MIN_POSITIVE) } else { 1.0 };
            for (i, v) in x.iter().enumerate() {
                codes[i % SEGMENT * LANES + i / SEGMENT] =
                    (v / *scale).clamp(-32768.0, 32767.0).round_ties_even() as i16;
            }
        }
        Ok(Codes { codes, scales })
    }
}

/// What all rows of a product have in common.
#[derive(Clone, Copy)]
struct Job<'a> {
    trellis: &'a Trellis,
    x: &'a [f32],
    codes: &'a Codes,
    /// Blocks to a scale.
    blocks: usize,
}

/// Some rows of a product.
struct Rows<'a> {
    job: Job<'a>,
    bytes: &'a [u8],
    scales: &'a [f32],
    groups: usize,
    out: &'a mut [f32],
}

impl Rows<'_> {
    fn run(self, isa: Isa) {
        let Trellis { state_bits, bits, code, values, .. } = self.job.trellis;
        let down = 16 - *state_bits as u32;
        match code {
            Code::OneMad => self.compute(isa, OneMad { down }),
            Code::Quintic(code) => {
                let (mask, multiplier) = (u16::MAX << down, code.multiplier(*state_bits));
                self.compute(isa, Polynomial { mask, multiplier, coefficients: code.coefficients });
            }
            Code::Table(Table { levels, .. }) if *values == 1 => {
                self.by_blocks(Looking { bits: *bits, state_bits: *state_bits, levels });
            }
            _ => self.decoded(),
        }
    }

    fn compute<C: Levels>(self, isa: Isa, code: C) {
        let isa = compiled(isa);
        match self.job.trellis.bits {
            1 => isa.run(Computed::<1, C>(self, code)),
            2 => isa.run(Computed::<2, C>(self, code)),
            3 => isa.run(Computed::<3, C>(self, code)),
            _ => isa.run(Computed::<4, C>(self, code)),
        }
    }
}

/// Rows of a code that is computed, of `K` bits a step.
struct Computed<'a, const K: usize, C>(Rows<'a>, C);

impl<const K: usize, C: Levels> Op for Computed<'_, K, C> {
    type Output = ();
    const ISAS: u8 = COMPILED;

    #[inline(always)]
    fn run(self) {
        self.0.by_blocks(Computing::<K, C>(self.1));
    }
}

/// A code with integer levels.
trait Levels: Copy {
    /// The levels of the states that windows begin with.
    fn levels(self, windows: [u16; LANES]) -> [i16; LANES];
}

#[derive(Clone, Copy)]
struct OneMad {
    down: u32,
}

impl Levels for OneMad {
    #[inline(always)]
    fn levels(self, windows: [u16; LANES]) -> [i16; LANES] {
        let mut levels = [0; LANES];
        for lane in 0..LANES {
            let state = u32::from(windows[lane]) >> self.down;
            let x = state.wrapping_mul(34_038_481).wrapping_add(76_625_530);
            // Nothing here wraps; checked additions would be branches, two for each of thousands of lanes.
            let pairs = (x & 0x00FF_00FF).wrapping_add(x >> 8 & 0x00FF_00FF);
            let sum = pairs.wrapping_add(pairs >> 16) & 0xFFFF;
            levels[lane] = (sum as i16).wrapping_sub(510);
        }
        // Through memory, where they are 16 bits: the compiler would rather take the activations apart.
        std::hint::black_box(levels)
    }
}

#[derive(Clone, Copy)]
struct Polynomial {
    /// The bits of a state, which stands in the upper ones.
    mask: u16,
    multiplier: u16,
    coefficients: [i16; 3],
}

impl Levels for Polynomial {
    #[inline(always)]
    fn levels(self, windows: [u16; LANES]) -> [i16; LANES] {
        let mut levels = [0; LANES];
        for lane in 0..LANES {
            let product = (windows[lane] & self.mask).wrapping_mul(self.multiplier);
            levels[lane] = Quintic::level(product, self.coefficients);
        }
        levels
    }
}

/// The product of a block in integers. A closure would not be compiled for the instruction set of its caller.
trait Dot {
    fn dot(&self, bytes: &[u8], x: &[[i16; LANES]; SEGMENT]) -> i64;
}

/// Computes levels, of `K` bits a step.
struct Computing<const K: usize, C>(C);

impl<const K: usize, C: Levels> Dot for Computing<K, C> {
    #[inline(always)]
    fn dot(&self, bytes: &[u8], x: &[[i16; LANES]; SEGMENT]) -> i64 {
        dot::<K, C>(self.0, bytes, x)
    }
}

/// Looks levels up, which is scalar work.
struct Looking<'a> {
    bits: usize,
    state_bits: usize,
    levels: &'a [i8],
}

impl Dot for Looking<'_> {
    fn dot(&self, bytes: &[u8], x: &[[i16; LANES]; SEGMENT]) -> i64 {
        let mut total = 0;
        states(bytes, self.bits, self.state_bits, |lane, r, state| {
            total += i32::from(self.levels[state]) * i32::from(x[r][lane]);
        });
        i64::from(total)
    }
}

impl Rows<'_> {
    /// Writes each row's sum.
    #[inline(always)]
    fn by_blocks(self, code: impl Dot) {
        let Job { trellis, codes, blocks, .. } = self.job;
        let x = codes.codes.as_chunks::<LANES>().0.as_chunks::<SEGMENT>().0;
        let row_bytes = x.len() * trellis.bytes();
        for (row, out) in self.out.iter_mut().enumerate() {
            let bytes = &self.bytes[row * row_bytes..][..row_bytes];
            let mut sum = 0.0;
            for (group, bytes) in bytes.chunks(blocks * trellis.bytes()).enumerate() {
                let mut part = 0.0;
                for (i, bytes) in bytes.chunks_exact(trellis.bytes()).enumerate() {
                    let block = group * blocks + i;
                    part += code.dot(bytes, &x[block]) as f32 * codes.scales[block];
                }
                sum += part * (self.scales[row * self.groups + group] * trellis.unit);
            }
            *out = sum;
        }
    }

    /// The product with rows that are decoded to float32 block by block.
    fn decoded(self) {
        let Job { trellis, x, blocks, .. } = self.job;
        let row_bytes = x.len() / BLOCK * trellis.bytes();
        let mut weights = [0.0; BLOCK];
        for (row, out) in self.out.iter_mut().enumerate() {
            let bytes = &self.bytes[row * row_bytes..][..row_bytes];
            let mut sum = 0.0;
            for (block, (bytes, x)) in bytes.chunks(trellis.bytes()).zip(x.as_chunks::<BLOCK>().0).enumerate()
            {
                trellis.decode_block(bytes, &mut weights);
                let mut lanes = [0.0; math::LANES];
                for (x, w) in x.as_chunks::<{ math::LANES }>().0.iter().zip(weights.as_chunks().0) {
                    lanes = math::added(lanes, products(*x, *w));
                }
                sum += math::join(lanes, |a, b| a + b) * self.scales[row * self.groups + block / blocks];
            }
            *out = sum;
        }
    }
}

#[inline(always)]
fn products(mut x: [f32; math::LANES], w: [f32; math::LANES]) -> [f32; math::LANES] {
    for i in 0..math::LANES {
        x[i] *= w[i];
    }
    x
}

/// The product of a block.
#[inline(always)]
fn dot<const K: usize, C: Levels>(code: C, bytes: &[u8], x: &[[i16; LANES]; SEGMENT]) -> i64 {
    let words = words::<K, LANES>(bytes);
    let mut sums = [0i32; LANES / 2];
    // Four steps at a time: shifts inside them are constants. All sixteen at once are no faster, and take test builds
    // minutes.
    for (four, x) in x.as_chunks::<4>().0.iter().enumerate() {
        let at = 4 * K * four;
        let (first, second) = (window(&words, at), window(&words, at + 16));
        sums = less_pairs(sums, code.levels(first), x[0]);
        sums = less_pairs(sums, code.levels(joined(first, second, K)), x[1]);
        sums = less_pairs(sums, code.levels(joined(first, second, 2 * K)), x[2]);
        sums = less_pairs(sums, code.levels(joined(first, second, 3 * K)), x[3]);
    }
    // Through memory: seeing 64 bits at the end, the compiler would compute with 64 bits from the start.
    let mut total = 0;
    for sum in std::hint::black_box(sums) {
        total -= i64::from(sum);
    }
    total
}

/// Takes the products of neighbours away: `vpmaddwd` and a subtraction. A sum of three terms the compiler would put into
/// another order, and find no pairs in it. A product is at most 1020 · 2¹⁵, and a sum takes 32.
#[inline(always)]
fn less_pairs(mut sums: [i32; LANES / 2], levels: [i16; LANES], x: [i16; LANES]) -> [i32; LANES / 2] {
    for i in 0..LANES / 2 {
        let even = i32::from(levels[2 * i]).wrapping_mul(x[2 * i].into());
        let odd = i32::from(levels[2 * i + 1]).wrapping_mul(x[2 * i + 1].into());
        sums[i] = sums[i].wrapping_sub(even.wrapping_add(odd));
    }
    sums
}
