//! Entropy-coded streams.

use crate::array::{Argument, Arrays};
use crate::error::call;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use qrs_core::Error;
use qrs_core::trellis::{Ectcq, Stream};

/// The stream of at most `bits` bits a value, or of this step.
#[pyfunction]
pub(crate) fn entropy_encode<'py>(
    x: Argument<'_, 'py>,
    importance: Option<Argument<'_, 'py>>,
    bits: Option<f64>,
    step: Option<f32>,
    states: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let (x, importance) = (arrays.read("x", x)?, arrays.read_optional("importance", importance)?);
    let bytes = call(py, || {
        let quantizer = Ectcq::new(states)?;
        match (bits, step) {
            (Some(bits), None) => quantizer.encode_at(x, bits, importance, None),
            (None, Some(step)) => quantizer.encode(x, step, importance, None),
            _ => {
                let (got, expected) = (format!("{bits:?} and step {step:?}"), "one of the two".into());
                Err(Error::Value { what: "bits", got, expected })
            }
        }
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// The number of values of a stream.
#[pyfunction]
pub(crate) fn entropy_len(stream: Argument<'_, '_>) -> PyResult<usize> {
    let py = stream.py();
    let bytes = Arrays::new().read("data", stream)?;
    call(py, || Ok(Stream::parse(bytes)?.len()))
}

/// Write the values of a stream to `out`.
#[pyfunction]
pub(crate) fn entropy_decode(stream: Argument<'_, '_>, out: Argument<'_, '_>) -> PyResult<()> {
    let py = out.py();
    let mut arrays = Arrays::new();
    let bytes = arrays.read("data", stream)?;
    let out = arrays.write("out", out)?;
    call(py, || Stream::parse(bytes)?.decode(out))
}
