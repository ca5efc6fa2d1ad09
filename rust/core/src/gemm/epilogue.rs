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

#![allow(clippy::needless_range_loop, reason = "arrays are indexed in step: see the note on lines")]

use super::panel::Offset;
use crate::activation::Activation;
use crate::mem::{Line, LineF32, LineI16, LineI32, elements};
use crate::quantize::{Affine, encode};
use std::ops::{Add, Range};

/// An accumulator type: how its products are freed of zero points.
pub(crate) trait Accumulator: Copy + Default + Add<Output = Self> + Send + Sync + 'static {
    /// What the correction knows of a row in a group.
    type Row: Copy + Default;
    /// The row whose codes, less their zero points, add up to `sum`.
    fn row(sum: Self, zero: i32) -> Self::Row;
    /// `acc − column_zero · row_sum − row_zero · column_sum`.
    fn correct(acc: &Line<Self, 16>, columns: Offset<'_>, row: &Self::Row) -> [Self; 16];
    /// The product as float32.
    fn to_f32(self) -> f32;
}

// Lines are copied before they are computed with: through references the compiler must assume that one line may
// lie over another, and goes element by element.

/// A row of codes.
#[derive(Clone, Copy, Default)]
pub(crate) struct RowI32 {
    sum: i32,
    zero: i32,
    /// `sum` and `zero` as 16-bit pairs, where they fit, for the pairs of [`Offset::Short`]. All sixteen lie in
    /// memory so that the compiler sees two loads and a `vpmaddwd`; of a broadcast pair it makes shuffles.
    pairs: LineI32,
}

impl Accumulator for i32 {
    type Row = RowI32;

    #[inline(always)]
    fn row(sum: i32, zero: i32) -> RowI32 {
        let ([s0, s1], [z0, z1]) = ((sum as i16).to_ne_bytes(), (zero as i16).to_ne_bytes());
        RowI32 { sum, zero, pairs: Line([i32::from_ne_bytes([s0, s1, z0, z1]); 16]) }
    }

    #[inline(always)]
    fn correct(acc: &LineI32, columns: Offset<'_>, row: &RowI32) -> [i32; 16] {
        let mut t = acc.0;
        match columns {
            Offset::Short(columns) => {
                let row: &LineI16 = row.pairs.cast();
                let (columns, row) = (columns.0, row.0);
                for i in 0..16 {
                    let zero = i32::from(columns[2 * i]) * i32::from(row[2 * i]);
                    let sum = i32::from(columns[2 * i + 1]) * i32::from(row[2 * i + 1]);
                    t[i] = t[i].wrapping_sub(zero.wrapping_add(sum));
                }
            }
            Offset::Long([zero, sum]) => {
                let (zero, sum) = (zero.0, sum.0);
                if row.sum != 0 {
                    for i in 0..16 {
                        t[i] = t[i].wrapping_sub(zero[i].wrapping_mul(row.sum));
                    }
                }
                if row.zero != 0 {
                    for i in 0..16 {
                        t[i] = t[i].wrapping_sub(sum[i].wrapping_mul(row.zero));
                    }
                }
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
    type Row = f32;

    #[inline(always)]
    fn row(sum: f32, _: i32) -> f32 {
        sum
    }

    #[inline(always)]
    fn correct(acc: &LineF32, columns: Offset<'_>, row_sum: &f32) -> [f32; 16] {
        let mut t = acc.0;
        match columns {
            Offset::Short(columns) => {
                let columns = columns.0;
                for i in 0..16 {
                    t[i] -= f32::from(columns[2 * i]) * row_sum;
                }
            }
            Offset::Long([zero, _]) => {
                let zero = zero.0;
                for i in 0..16 {
                    t[i] -= zero[i] as f32 * row_sum;
                }
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
    fn fold(&self, products: [C; 16], scale: &[f32; 16], sums: &mut Line<Self::Sum, 16>);
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
    fn fold(&self, products: [i32; 16], _: &[f32; 16], sums: &mut LineI32) {
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
    fn fold(&self, products: [C; 16], scale: &[f32; 16], sums: &mut LineF32) {
        let (mut y, scale) = (sums.0, *scale);
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
    fn fold(&self, products: [C; 16], scale: &[f32; 16], sums: &mut LineF32) {
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
