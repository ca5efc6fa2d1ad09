//! Layer normalisation along the rows of a matrix, with the residual sum that precedes it in a transformer.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::math::{copy, fold, sum};
use crate::parallel;

/// What [`layer_norm`] knows besides its data; the length of `weight` is the length of a row.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    /// One factor for each column.
    pub weight: &'a [f32],
    /// One addend for each column.
    pub bias: Option<&'a [f32]>,
    /// Added to the variance, so that a constant row does not divide by zero; finite, not negative.
    pub eps: f32,
}

/// `out = (v − mean) · (1 / √(variance + eps)) · weight + bias` along each row, where `v = x + residual`, `mean`
/// is that of the row and `variance = Σ (v − mean)² / columns` (Ba, Kiros and Hinton, *Layer Normalization*,
/// 2016, arXiv:1607.06450, section 3).
///
/// Mean and variance take two passes over the row, so the variance does not cancel. A row of variance 0 with
/// `eps = 0` gives `bias`; a row with NaN or infinity gives NaN throughout.
///
/// ```
/// use qrs_core::{LayerNorm, layer_norm};
/// let norm = LayerNorm { weight: &[1.0, 2.0], bias: Some(&[0.5, 0.5]), eps: 0.0 };
/// let mut out = [0.0; 2];
/// layer_norm(&[3.0, 4.0], Some(&[1.0, 2.0]), norm, &mut out)?;
/// assert_eq!(out, [-0.5, 2.5]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `x` is not a whole number of rows, another array has another length, or `eps` is negative or not finite; or
/// see [`Isa::active`] and [`parallel::threads`].
pub fn layer_norm(
    x: &[f32],
    residual: Option<&[f32]>,
    norm: LayerNorm<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    layer_norm_on(Isa::active()?, x, residual, norm, out)
}

fn layer_norm_on(
    isa: Isa,
    x: &[f32],
    residual: Option<&[f32]>,
    norm: LayerNorm<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    /// Elements of one task, at least: about 10 µs of work.
    const TASK: usize = 32 * 1024;
    norm.check(x, residual, out)?;
    let columns = norm.weight.len();
    let size = columns * TASK.div_ceil(columns.max(1));
    // About a third of a nanosecond an element.
    parallel::for_each_chunk(out, size, x.len() / 3, |number, out| {
        let range = number * size..number * size + out.len();
        isa.run(Rows { x: &x[range.clone()], residual: residual.map(|r| &r[range]), norm, out });
    })
}

impl LayerNorm<'_> {
    fn check(&self, x: &[f32], residual: Option<&[f32]>, out: &[f32]) -> Result<(), Error> {
        let columns = self.weight.len();
        if x.len().checked_rem(columns).unwrap_or(x.len()) != 0 {
            let expected = format!("whole rows of {columns} elements, the length of weight");
            return Err(Error::Shape { what: "x", got: vec![x.len()], expected });
        }
        let lengths = [
            ("residual", residual.map(<[f32]>::len), x.len(), "x"),
            ("bias", self.bias.map(<[f32]>::len), columns, "weight"),
            ("out", Some(out.len()), x.len(), "x"),
        ];
        for (what, got, expected, like) in lengths {
            if let Some(got) = got.filter(|got| *got != expected) {
                let expected = format!("({expected},), the shape of {like}");
                return Err(Error::Shape { what, got: vec![got], expected });
            }
        }
        if !(0.0..f32::INFINITY).contains(&self.eps) {
            let expected = "a finite number, at least 0".into();
            return Err(Error::Value { what: "eps", got: self.eps.to_string(), expected });
        }
        Ok(())
    }

    /// Normalises one row in place.
    #[inline(always)]
    fn row(&self, row: &mut [f32]) {
        let columns = row.len() as f32;
        let mean = sum(row) / columns;
        let square = |sum, v| {
            let deviation: f32 = v - mean;
            sum + deviation * deviation
        };
        let variance = fold(row, 0.0, square, |a, b| a + b) / columns + self.eps;
        let inverse = if variance == 0.0 { 0.0 } else { 1.0 / variance.sqrt() };
        match self.bias {
            Some(bias) => {
                for ((v, weight), bias) in row.iter_mut().zip(self.weight).zip(bias) {
                    *v = (*v - mean) * inverse * weight + bias;
                }
            }
            None => {
                for (v, weight) in row.iter_mut().zip(self.weight) {
                    *v = (*v - mean) * inverse * weight;
                }
            }
        }
    }
}

struct Rows<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    norm: LayerNorm<'a>,
    out: &'a mut [f32],
}

impl Op for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let columns = self.norm.weight.len();
        for (number, out) in self.out.chunks_exact_mut(columns).enumerate() {
            let range = number * columns..(number + 1) * columns;
            let x = &self.x[range.clone()];
            match self.residual {
                Some(residual) => {
                    for ((out, x), residual) in out.iter_mut().zip(x).zip(&residual[range]) {
                        *out = x + residual;
                    }
                }
                None => copy(x, out),
            }
            self.norm.row(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin() * 3.0 + 1.0).collect()
    }

    /// The definition in float64.
    fn exact(x: &[f32], residual: Option<&[f32]>, norm: LayerNorm<'_>) -> Vec<f64> {
        let columns = norm.weight.len();
        let v: Vec<f64> = x
            .iter()
            .enumerate()
            .map(|(i, x)| f64::from(*x) + residual.map_or(0.0, |r| f64::from(r[i])))
            .collect();
        let row = |row: &[f64]| -> Vec<f64> {
            let mean = row.iter().sum::<f64>() / columns as f64;
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / columns as f64;
            let y = |(c, v): (usize, &f64)| {
                (v - mean) / (variance + f64::from(norm.eps)).sqrt() * f64::from(norm.weight[c])
                    + norm.bias.map_or(0.0, |b| f64::from(b[c]))
            };
            row.iter().enumerate().map(y).collect()
        };
        v.chunks(columns.max(1)).flat_map(row).collect()
    }

    #[test]
    fn every_form_agrees_with_the_definition_on_every_instruction_set() {
        for (rows, columns) in [(0, 5), (1, 1), (3, 2), (2, 15), (4, 16), (5, 33), (200, 384)] {
            let (x, r) = (wave(rows * columns, 1.37), wave(rows * columns, 0.71));
            let (w, b) = (wave(columns, 0.5), wave(columns, 0.9));
            for form in 0..4 {
                let residual = (form & 1 != 0).then_some(&r[..]);
                let norm = LayerNorm { weight: &w, bias: (form & 2 != 0).then_some(&b[..]), eps: 1e-5 };
                let mut first: Option<Vec<u32>> = None;
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; x.len()];
                    layer_norm_on(isa, &x, residual, norm, &mut out).unwrap();
                    for (got, exact) in out.iter().zip(exact(&x, residual, norm)) {
                        assert!((f64::from(*got) - exact).abs() <= 4e-6, "{rows} x {columns}: {got} {exact}");
                    }
                    let bits: Vec<u32> = out.iter().map(|y| y.to_bits()).collect();
                    assert_eq!(&bits, first.get_or_insert_with(|| bits.clone()), "{}", isa.name());
                }
            }
        }
    }

    #[test]
    fn special_rows_have_one_answer() {
        let row = |x: [f32; 3], eps: f32| {
            let mut out = [9.0; 3];
            let norm = LayerNorm { weight: &[1.0, 2.0, 3.0], bias: Some(&[4.0, 5.0, 6.0]), eps };
            layer_norm(&x, None, norm, &mut out).unwrap();
            out
        };
        assert_eq!(row([0.0, -0.0, 0.0], 0.0), [4.0, 5.0, 6.0]);
        assert_eq!(row([7.0; 3], 0.0), [4.0, 5.0, 6.0]);
        assert_eq!(row([7.0; 3], 1e-5), [4.0, 5.0, 6.0]);
        for x in [[f32::NAN, 0.0, 1.0], [f32::INFINITY, 0.0, 1.0], [0.0, f32::NEG_INFINITY, 1.0]] {
            assert!(row(x, 1e-5).iter().all(|y| y.is_nan()), "{x:?}");
        }
        let none = LayerNorm { weight: &[], bias: None, eps: 1e-5 };
        layer_norm(&[], None, none, &mut []).unwrap();
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let refused = |x: usize, residual: usize, bias: usize, eps: f32, out: usize| {
            let zeros = [0.0; 9];
            let norm = LayerNorm { weight: &zeros[..3], bias: Some(&zeros[..bias]), eps };
            layer_norm(&zeros[..x], Some(&zeros[..residual]), norm, &mut [0.0; 9][..out])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(7, 7, 3, 0.0, 7),
            "x has shape (7,), expected whole rows of 3 elements, the length of weight"
        );
        assert_eq!(refused(6, 3, 3, 0.0, 6), "residual has shape (3,), expected (6,), the shape of x");
        assert_eq!(refused(6, 6, 2, 0.0, 6), "bias has shape (2,), expected (3,), the shape of weight");
        assert_eq!(refused(6, 6, 3, 0.0, 9), "out has shape (9,), expected (6,), the shape of x");
        for eps in [-1.0, f32::NAN, f32::INFINITY] {
            let error = refused(6, 6, 3, eps, 6);
            assert_eq!(error, format!("eps is {eps}, expected a finite number, at least 0"));
        }
    }
}
