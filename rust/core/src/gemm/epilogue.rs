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
use crate::mem::{Line, LineF32, LineI32, elements};
use crate::quantize::{Affine, encode};
use std::ops::Range;

/// What the correction knows of a panel in a group.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    /// None where all zero points of the weight are 0.
    pub(crate) zero: Option<&'a LineI32>,
    pub(crate) sum: &'a LineI32,
}

/// An accumulator type: how its products are freed of zero points.
pub(crate) trait Accumulator: Copy + Default + Send + Sync + 'static {
    /// Whether taking 0 times anything away changes nothing; 0 · ∞ is NaN.
    const EXACT: bool;
    /// `acc − zero · row_sum − row_zero · column_sum`.
    fn correct(acc: &Line<Self, 16>, columns: &Columns<'_>, row_sum: Self, row_zero: i32) -> [Self; 16];
    /// The product as float32.
    fn to_f32(self) -> f32;
}

// Lines are copied before they are computed with: through references the compiler must assume that one line may
// lie over another, and goes element by element.

impl Accumulator for i32 {
    const EXACT: bool = true;

    #[inline(always)]
    fn correct(acc: &LineI32, columns: &Columns<'_>, row_sum: i32, row_zero: i32) -> [i32; 16] {
        let (mut t, sum) = (acc.0, columns.sum.0);
        if let Some(zero) = columns.zero {
            let zero = zero.0;
            for i in 0..16 {
                t[i] = t[i].wrapping_sub(zero[i].wrapping_mul(row_sum));
            }
        }
        if row_zero != 0 {
            for i in 0..16 {
                t[i] = t[i].wrapping_sub(row_zero.wrapping_mul(sum[i]));
            }
        }
        t
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
}

impl Accumulator for f32 {
    const EXACT: bool = false;

    #[inline(always)]
    fn correct(acc: &LineF32, columns: &Columns<'_>, row_sum: f32, _: i32) -> [f32; 16] {
        let mut t = acc.0;
        if let Some(zero) = columns.zero {
            let zero = zero.0;
            for i in 0..16 {
                t[i] -= zero[i] as f32 * row_sum;
            }
        }
        t
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
    fn fold(&self, products: [C; 16], scale: &LineF32, sums: &mut Line<Self::Sum, 16>);
    /// Brings the sums of a tile, `[row][panel]`, to their final values, with one of `row_scales` for each row.
    fn finish(&self, row_scales: &[f32], columns: Range<usize>, sums: &mut [Line<Self::Sum, 16>]);
    /// Writes one row of the finished tile.
    fn put(&self, sums: &[Line<Self::Sum, 16>], out: &mut [Self::Element]);
}

/// The integer sums themselves. There is one group.
pub(crate) struct Exact;

impl Output<i32> for Exact {
    type Sum = i32;
    type Element = i32;

    #[inline(always)]
    fn fold(&self, products: [i32; 16], _: &LineF32, sums: &mut LineI32) {
        sums.0 = products;
    }

    #[inline(always)]
    fn finish(&self, _: &[f32], _: Range<usize>, _: &mut [LineI32]) {}

    #[inline(always)]
    fn put(&self, sums: &[LineI32], out: &mut [i32]) {
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
    /// The bias of the sixteen columns from `column` on, padded with zeros.
    #[inline(always)]
    fn bias_line(bias: &[f32], column: usize) -> [f32; 16] {
        let bias = &bias[column..];
        match bias.first_chunk::<16>() {
            Some(line) => *line,
            None => {
                let mut line = [0.0; 16];
                line[..bias.len()].copy_from_slice(bias);
                line
            }
        }
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
    fn fold(&self, products: [C; 16], scale: &LineF32, sums: &mut LineF32) {
        let (mut y, scale) = (sums.0, scale.0);
        for i in 0..16 {
            y[i] += products[i].to_f32() * scale[i];
        }
        sums.0 = y;
    }

    #[inline(always)]
    fn finish(&self, row_scales: &[f32], columns: Range<usize>, sums: &mut [LineF32]) {
        let panels = columns.len().div_ceil(16);
        for panel in 0..panels {
            let rows = sums[panel..].iter_mut().step_by(panels).zip(row_scales);
            match self.bias {
                Some(bias) => {
                    let bias = Self::bias_line(bias, columns.start + panel * 16);
                    for (line, row_scale) in rows {
                        let mut y = line.0;
                        for i in 0..16 {
                            y[i] = y[i] * row_scale + bias[i];
                        }
                        line.0 = y;
                    }
                }
                None => {
                    for (line, row_scale) in rows {
                        let mut y = line.0;
                        for i in 0..16 {
                            y[i] *= row_scale;
                        }
                        line.0 = y;
                    }
                }
            }
        }
        // A whole tile at once: the longer the loop, the more of its latency is hidden.
        self.activation.apply_slice(elements(sums));
    }

    #[inline(always)]
    fn put(&self, sums: &[LineF32], out: &mut [f32]) {
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
    fn fold(&self, products: [C; 16], scale: &LineF32, sums: &mut LineF32) {
        self.float.fold(products, scale, sums);
    }

    #[inline(always)]
    fn finish(&self, row_scales: &[f32], columns: Range<usize>, sums: &mut [LineF32]) {
        <Float<'_> as Output<C>>::finish(&self.float, row_scales, columns, sums);
    }

    #[inline(always)]
    fn put(&self, sums: &[LineF32], out: &mut [u8]) {
        for (line, out) in sums.iter().zip(out.chunks_mut(16)) {
            let mut codes = [0i16; 16];
            encode(&line.0, self.affine, &mut codes);
            for (out, code) in out.iter_mut().zip(codes) {
                *out = code as u8;
            }
        }
    }
}
