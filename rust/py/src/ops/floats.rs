//! The float32 operations beside the products.

use crate::array::Arrays;
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::Activation;

type Array<'a, 'py> = &'a Bound<'py, PyAny>;

/// Write the activation of each element of `x` to `out`.
#[pyfunction]
pub(crate) fn activate(x: Array<'_, '_>, activation: &str, out: Array<'_, '_>) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let x = arrays.read("x", x)?;
    let out = arrays.write("out", out)?;
    call(py, || qrs_core::activate(x, Activation::from_name(activation)?, out))
}
