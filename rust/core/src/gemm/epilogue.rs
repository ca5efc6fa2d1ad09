//! From accumulators to outputs: zero points, scales, bias, activation, requantization.
//!
//! With stored codes a, b and their zero points, and the row sum r = Σ (a − z_a) over the group,
//!
//! ```text
//! Σ (a − z_a)(b − z_b) = Σ a·b − z_b · r − z_a · Σ b
//! ```
//!
//! in int32 modulo 2³², exact because the left side is in range. Float outputs are then
//! `y = activation((Σ_groups f32(t_g) · scale_g) · scale_row + bias)`, groups ascending and every operation
//! rounded by itself, so that any instruction set and any number of threads give the same bits.

use crate::activation::Activation;
use crate::mem::{Line, LineF32, LineI32};
use crate::quantize::{Affine, encode};

/// What is known of a panel in a group.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) scale: &'a LineF32,
    /// None where all zero points of the weight are 0.
    pub(crate) zero: Option<&'a LineI32>,
    pub(crate) sum: &'a LineI32,
}

/// An accumulator type: how its products are freed of zero points.
pub(crate) trait Accumulator: Copy + Default + Send + Sync + 'static {
    /// Whether taking 0 times anything away changes nothing; 0 · ∞ is NaN.
    const EXACT: bool;
    /// `acc − zero · row_sum − row_zero · column_sum`.
    fn correct(acc: &Line<Self, 16>, columns: Columns<'_>, row_sum: Self, row_zero: i32) -> Line<Self, 16>;
    /// The product as float32.
    fn to_f32(self) -> f32;
}

impl Accumulator for i32 {
    const EXACT: bool = true;

    #[inline(always)]
    fn correct(acc: &LineI32, columns: Columns<'_>, row_sum: i32, row_zero: i32) -> LineI32 {
        let mut out = *acc;
        if let Some(zero) = columns.zero {
            for (t, zero) in out.0.iter_mut().zip(&zero.0) {
                *t = t.wrapping_sub(zero.wrapping_mul(row_sum));
            }
        }
        if row_zero != 0 {
            for (t, sum) in out.0.iter_mut().zip(&columns.sum.0) {
                *t = t.wrapping_sub(row_zero.wrapping_mul(*sum));
            }
        }
        out
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

impl Accumulator for f32 {
    const EXACT: bool = false;

    #[inline(always)]
    fn correct(acc: &LineF32, columns: Columns<'_>, row_sum: f32, _: i32) -> LineF32 {
        let mut out = *acc;
        if let Some(zero) = columns.zero {
            for (t, zero) in out.0.iter_mut().zip(&zero.0) {
                *t -= *zero as f32 * row_sum;
            }
        }
        out
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

/// What becomes of the products.
pub(crate) trait Output<C>: Sync {
    /// What the groups of a product add up to.
    type Sum: Copy + Default + Send;
    /// An element of the result.
    type Element: Copy + Send;
    /// Adds the products of one group.
    fn fold(&self, products: &Line<C, 16>, columns: Columns<'_>, sums: &mut Line<Self::Sum, 16>);
    /// Turns the sums of a row into `out`, which begins at column `column`. Sums may be used as scratch.
    fn finish(
        &self,
        row_scale: f32,
        column: usize,
        sums: &mut [Line<Self::Sum, 16>],
        out: &mut [Self::Element],
    );
}

/// The integer sums themselves. There is one group.
pub(crate) struct Exact;

impl Output<i32> for Exact {
    type Sum = i32;
    type Element = i32;

    #[inline(always)]
    fn fold(&self, products: &LineI32, _: Columns<'_>, sums: &mut LineI32) {
        for (sum, product) in sums.0.iter_mut().zip(&products.0) {
            *sum = sum.wrapping_add(*product);
        }
    }

    #[inline(always)]
    fn finish(&self, _: f32, _: usize, sums: &mut [LineI32], out: &mut [i32]) {
        copy_lines(sums, out);
    }
}

/// float32: scaled, biased, activated.
#[derive(Clone, Copy)]
pub(crate) struct Float<'a> {
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) activation: Activation,
}

impl Float<'_> {
    #[inline(always)]
    fn finish_lines(&self, row_scale: f32, column: usize, sums: &mut [LineF32], n: usize) {
        for (p, line) in sums.iter_mut().enumerate() {
            // Loops, not closures: what an iterator method calls may be compiled without the features of the row.
            for y in &mut line.0 {
                *y *= row_scale;
            }
            if let Some(bias) = self.bias {
                let bias = &bias[column + p * 16..column + n.min(p * 16 + 16)];
                match bias.first_chunk::<16>() {
                    Some(bias) => add(bias, &mut line.0),
                    None => add(bias, &mut line.0),
                }
            }
            self.activation.apply_slice(&mut line.0);
        }
    }
}

#[inline(always)]
fn add(bias: &[f32], y: &mut [f32; 16]) {
    for (y, bias) in y.iter_mut().zip(bias) {
        *y += bias;
    }
}

/// Writes lines to a row of the result. Whole lines are copied with their length known, the last as it fits.
#[inline(always)]
fn copy_lines<T: Copy>(lines: &[Line<T, 16>], out: &mut [T]) {
    let (whole, tail) = out.as_chunks_mut::<16>();
    for (line, out) in lines.iter().zip(whole.iter_mut()) {
        *out = line.0;
    }
    if let Some(line) = lines.get(whole.len()) {
        tail.copy_from_slice(&line.0[..tail.len()]);
    }
}

impl<C: Accumulator> Output<C> for Float<'_> {
    type Sum = f32;
    type Element = f32;

    #[inline(always)]
    fn fold(&self, products: &Line<C, 16>, columns: Columns<'_>, sums: &mut LineF32) {
        for i in 0..16 {
            sums.0[i] += products.0[i].to_f32() * columns.scale.0[i];
        }
    }

    #[inline(always)]
    fn finish(&self, row_scale: f32, column: usize, sums: &mut [LineF32], out: &mut [f32]) {
        self.finish_lines(row_scale, column, sums, out.len());
        copy_lines(sums, out);
    }
}

/// Codes of the next layer: what [`Float`] gives, quantized. Signed codes are stored as their bit pattern.
pub(crate) struct Requantized<'a> {
    pub(crate) float: Float<'a>,
    pub(crate) affine: Affine,
}

impl<C: Accumulator> Output<C> for Requantized<'_> {
    type Sum = f32;
    type Element = u8;

    #[inline(always)]
    fn fold(&self, products: &Line<C, 16>, columns: Columns<'_>, sums: &mut LineF32) {
        self.float.fold(products, columns, sums);
    }

    #[inline(always)]
    fn finish(&self, row_scale: f32, column: usize, sums: &mut [LineF32], out: &mut [u8]) {
        self.float.finish_lines(row_scale, column, sums, out.len());
        for (line, out) in sums.iter().zip(out.chunks_mut(16)) {
            let mut codes = [0i16; 16];
            encode(&line.0, self.affine, &mut codes);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = code as u8;
            }
        }
    }
}
