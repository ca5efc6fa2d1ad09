//! Softmax along the rows of a matrix.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::math::{LANES, added, exp_nonpositive, join, larger, largest};
use crate::parallel;

/// `out[r, c] = e^(x[r, c] − m) / Σⱼ e^(x[r, j] − m)` with `m = maxⱼ x[r, j]`: rows of `columns` elements become
/// weights that add up to 1.
///
/// Taking the largest element away first keeps every power within [0, 1] (Goodfellow, Bengio and Courville,
/// *Deep Learning*, 2016, section 4.1). The error is that of `x − m` in
/// float32 and at most 4 ulp more for rows of up to a thousand elements; weights below 2⁻¹²⁶ of the largest are 0. A row of −∞ alone (all of it masked) gives zeros; a row
/// with NaN or +∞ gives NaN throughout.
///
/// ```
/// let mut out = [0.0; 4];
/// qrs_core::softmax(&[0.0, 0.0, 7.0, f32::NEG_INFINITY], 2, &mut out)?;
/// assert_eq!(out, [0.5, 0.5, 1.0, 0.0]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `x` is not a whole number of rows, or `out` has another length; or see [`Isa::active`] and
/// [`parallel::threads`].
pub fn softmax(x: &[f32], columns: usize, out: &mut [f32]) -> Result<(), Error> {
    softmax_on(Isa::active()?, x, columns, out)
}

fn softmax_on(isa: Isa, x: &[f32], columns: usize, out: &mut [f32]) -> Result<(), Error> {
    /// Elements of one task, at least: about 20 µs of work.
    const TASK: usize = 16 * 1024;
    if x.len().checked_rem(columns).unwrap_or(x.len()) != 0 {
        let expected = format!("whole rows of {columns} elements");
        return Err(Error::Shape { what: "x", got: vec![x.len()], expected });
    }
    if out.len() != x.len() {
        let expected = format!("({},), the shape of x", x.len());
        return Err(Error::Shape { what: "out", got: vec![out.len()], expected });
    }
    let size = columns * TASK.div_ceil(columns.max(1));
    // About one nanosecond an element.
    parallel::for_each_chunk(out, size, x.len(), |number, out| {
        let x = &x[number * size..][..out.len()];
        isa.run(Softmax { x, columns, out });
    })
}

struct Softmax<'a> {
    x: &'a [f32],
    columns: usize,
    out: &'a mut [f32],
}

impl Op for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (x, out) in self.x.chunks_exact(self.columns).zip(self.out.chunks_exact_mut(self.columns)) {
            let (lines, rest) = x.as_chunks::<LANES>();
            let (out_lines, out_rest) = out.as_chunks_mut::<LANES>();
            // Filled up to a line: sixteen lanes take no longer than one.
            let mut tail = [f32::NEG_INFINITY; LANES];
            tail[..rest.len()].copy_from_slice(rest);
            let top = top(lines, tail);
            let mut sums = powers(lines, top, out_lines);
            if !rest.is_empty() {
                let tail = powers_of_line(tail, top);
                sums = added(sums, tail);
                out_rest.copy_from_slice(&tail[..rest.len()]);
            }
            let total = join(std::hint::black_box(sums), |a, b| a + b);
            // At least 1, since the largest element gave 1, unless there was none.
            let inverse = if total == 0.0 { 1.0 } else { 1.0 / total };
            for v in out {
                *v *= inverse;
            }
        }
    }
}

/// The largest element, or 0 where it is −∞, since −∞ − −∞ would be NaN.
#[inline(always)]
fn top(lines: &[[f32; LANES]], tail: [f32; LANES]) -> f32 {
    let mut tops = tail.map(|v| larger(f32::NEG_INFINITY, v));
    for line in lines {
        tops = largest(tops, *line);
    }
    let top = join(std::hint::black_box(tops), larger);
    if top == f32::NEG_INFINITY { 0.0 } else { top }
}

/// `out = e^(lines − top)`; returns the sum of each lane.
#[inline(always)]
fn powers(lines: &[[f32; LANES]], top: f32, out: &mut [[f32; LANES]]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for (line, out) in lines.iter().zip(out) {
        *out = powers_of_line(*line, top);
        sums = added(sums, *out);
    }
    sums
}

#[inline(always)]
fn powers_of_line(mut line: [f32; LANES], top: f32) -> [f32; LANES] {
    for v in &mut line {
        *v = exp_nonpositive(*v - top);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition in float64, but for the difference.
    fn exact(row: &[f32]) -> Vec<f64> {
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = row.iter().map(|v| f64::from(*v - top).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().map(|p| p / total).collect()
    }

    /// Logits of `rows` rows, the spread growing from row to row.
    fn logits(rows: usize, columns: usize) -> Vec<f32> {
        let value = |r: usize, c: usize| ((r * 31 + c * 17) % 97) as f32 * 0.01 * (r % 50) as f32 - 3.0;
        (0..rows * columns).map(|i| value(i / columns, i % columns)).collect()
    }

    #[test]
    fn errors_stay_within_the_stated_bound() {
        for columns in [1, 2, 15, 16, 17, 128, 1000] {
            let x = logits(60, columns);
            let mut out = vec![0.0; x.len()];
            softmax(&x, columns, &mut out).unwrap();
            for (row, got) in x.chunks(columns).zip(out.chunks(columns)) {
                for (got, exact) in got.iter().zip(exact(row)) {
                    let ulp = (exact.log2().floor() - 23.0).exp2();
                    let error = (f64::from(*got) - exact).abs() / ulp;
                    assert!(error <= 4.0, "{columns} columns: {got} {exact} {error} ulp");
                }
            }
        }
    }

    #[test]
    fn special_rows_have_one_answer() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let row = |x: [f32; 3]| {
            let mut out = [9.0; 3];
            softmax(&x, 3, &mut out).unwrap();
            out
        };
        assert_eq!(row([-inf; 3]), [0.0; 3]);
        assert_eq!(row([-inf, 5.0, -inf]), [0.0, 1.0, 0.0]);
        assert_eq!(row([-0.0, 0.0, -200.0]), [0.5, 0.5, 0.0]);
        assert_eq!(row([f32::MAX, f32::MIN, f32::MAX]), [0.5, 0.0, 0.5]);
        for x in [[nan, 0.0, 1.0], [0.0, inf, 1.0], [nan, -inf, -inf], [nan; 3]] {
            assert!(row(x).iter().all(|y| y.is_nan()), "{x:?}");
        }
        softmax(&[], 3, &mut []).unwrap();
        softmax(&[], 0, &mut []).unwrap();
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for (rows, columns) in [(1, 1), (3, 7), (2, 16), (5, 33), (400, 129)] {
            let x = logits(rows, columns);
            let mut expected = vec![0.0; x.len()];
            Softmax { x: &x, columns, out: &mut expected }.run();
            for isa in Isa::available() {
                let mut out = vec![0.0; x.len()];
                softmax_on(isa, &x, columns, &mut out).unwrap();
                let same = out.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{} {rows} x {columns}", isa.name());
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let error = softmax(&[0.0; 7], 3, &mut [0.0; 7]).unwrap_err().to_string();
        assert_eq!(error, "x has shape (7,), expected whole rows of 3 elements");
        let error = softmax(&[0.0; 6], 3, &mut [0.0; 3]).unwrap_err().to_string();
        assert_eq!(error, "out has shape (3,), expected (6,), the shape of x");
        assert!(softmax(&[0.0; 6], 0, &mut [0.0; 6]).is_err());
    }
}
