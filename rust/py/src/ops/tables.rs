//! The tables of the core, for Python to build its own names and checks from.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use qrs_core::{Activation, Fit, Rounding, ScaleType, format};

/// Every format: name, bits, signed, min, max.
#[pyfunction]
pub(crate) fn formats(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let row = |format: &&dyn qrs_core::Format| {
        let (min, max) = format.codes();
        let row = PyDict::new(py);
        row.set_item("name", format.name())?;
        row.set_item("bits", format.bits())?;
        row.set_item("signed", format.signed())?;
        row.set_item("min", min)?;
        row.set_item("max", max)?;
        Ok(row)
    };
    format::TABLE.iter().map(row).collect()
}

/// The names of the rounding modes.
#[pyfunction]
pub(crate) fn roundings() -> Vec<&'static str> {
    Rounding::ALL.iter().map(|rounding| rounding.name()).collect()
}

/// The names of the ways to choose a range.
#[pyfunction]
pub(crate) fn fits() -> Vec<&'static str> {
    Fit::ALL.iter().map(|fit| fit.name()).collect()
}

/// The names of the activations.
#[pyfunction]
pub(crate) fn activations() -> Vec<&'static str> {
    Activation::ALL.iter().map(|activation| activation.name()).collect()
}

/// The names of the types that scales are stored in.
#[pyfunction]
pub(crate) fn scale_dtypes() -> Vec<&'static str> {
    ScaleType::ALL.iter().map(|kind| kind.name()).collect()
}
