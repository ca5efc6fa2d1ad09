//! The float32 operations beside the products.

use crate::array::{self, Argument, Arrays};
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::{Activation, Attention, Error, LayerNorm};

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

/// Write the attention of queries over keys and values to `out`, shaped as `q`.
#[pyfunction]
pub(crate) fn attention(
    q: Argument<'_, '_>,
    k: Argument<'_, '_>,
    v: Argument<'_, '_>,
    mask: Option<Argument<'_, '_>>,
    heads: usize,
    scale: f32,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = q.py();
    let mut arrays = Arrays::new();
    let shapes = [array::shape("q", q)?, array::shape("k", k)?, array::shape("v", v)?];
    let (q, k, v) = (arrays.read("q", q)?, arrays.read("k", k)?, arrays.read("v", v)?);
    let mask = arrays.read_optional("mask", mask)?;
    let out = arrays.write("out", out)?;
    call(py, || {
        let [q_shape, k_shape, v_shape] = shapes;
        let &[batch, queries, width] = &q_shape[..] else {
            return Err(Error::Shape { what: "q", got: q_shape, expected: "(batch, queries, width)".into() });
        };
        let keys = k_shape.get(1).copied().unwrap_or(0);
        for (what, shape) in [("k", k_shape), ("v", v_shape)] {
            if shape != [batch, keys, width] {
                return Err(Error::Shape {
                    what,
                    got: shape,
                    expected: format!("({batch}, {keys}, {width})"),
                });
            }
        }
        qrs_core::attention(q, k, v, Attention { batch, queries, keys, width, heads, scale, mask }, out)
    })
}
