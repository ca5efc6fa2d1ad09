//! The float32 operations beside the products.

use crate::array::{self, Argument, Arrays};
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::{Activation, Error, LayerNorm};

/// Write the activation of each element of `x` to `out`.
#[pyfunction]
pub(crate) fn activate(x: Argument<'_, '_>, activation: &str, out: Argument<'_, '_>) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let x = arrays.read("x", x)?;
    let out = arrays.write("out", out)?;
    call(py, || qrs_core::activate(x, Activation::from_name(activation)?, out))
}

/// Write the softmax of `x` along its last axis to `out`.
#[pyfunction]
pub(crate) fn softmax(x: Argument<'_, '_>, out: Argument<'_, '_>) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    // A single number is a row of its own.
    let (x, columns) = (arrays.read("x", x)?, array::shape("x", x)?.last().copied().unwrap_or(1));
    let out = arrays.write("out", out)?;
    call(py, || qrs_core::softmax(x, columns, out))
}

/// Write the layer normalisation of `x + residual` along the last axis to `out`.
#[pyfunction]
pub(crate) fn layer_norm(
    x: Argument<'_, '_>,
    residual: Option<Argument<'_, '_>>,
    weight: Argument<'_, '_>,
    bias: Option<Argument<'_, '_>>,
    eps: f32,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let (x, shape) = (arrays.read("x", x)?, array::shape("x", x)?);
    let residual = arrays.read_optional("residual", residual)?;
    let weight = arrays.read("weight", weight)?;
    let bias = arrays.read_optional("bias", bias)?;
    let out = arrays.write("out", out)?;
    call(py, || {
        // The core sees rows only, so it would take any length that divides the whole.
        if shape.last() != Some(&weight.len()) {
            let expected = format!("one element for each of the last axis of x, {shape:?}");
            return Err(Error::Shape { what: "weight", got: vec![weight.len()], expected });
        }
        qrs_core::layer_norm(x, residual, LayerNorm { weight, bias, eps }, out)
    })
}
