//! The tables of the core, for Python to build its own names and checks from.

use crate::array;
use crate::error::call;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use qrs_core::format::Packing;
use qrs_core::{Activation, Fit, Format, Rounding, ScaleType, Spacing, format};

/// Every listed format: what [`format`] says of it.
#[pyfunction]
pub(crate) fn formats(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    format::TABLE.iter().map(|format| row(py, *format)).collect()
}

/// The format of a name: name, bits, kind, signed, min, max, and what a scheme of it says by default.
#[pyfunction]
#[pyo3(name = "format")]
pub(crate) fn format_named<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyDict>> {
    row(py, call(py, || format::find(name))?)
}

fn row<'py>(py: Python<'py>, format: &'static dyn Format) -> PyResult<Bound<'py, PyDict>> {
    let ((min, max), defaults) = (format.codes(), format.defaults());
    let (kind, overflows) = match format.spacing() {
        Spacing::Uniform => ("integer", false),
        Spacing::Float(rounder) => ("float", rounder.overflows()),
        Spacing::Learned => ("learned", false),
        Spacing::Blocks(_) => ("block", false),
        Spacing::Trellis(_) => ("trellis", false),
        _ => ("table", false),
    };
    let row = PyDict::new(py);
    row.set_item("name", format.name())?;
    row.set_item("bits", format.bits())?;
    row.set_item("kind", kind)?;
    row.set_item("signed", format.signed())?;
    row.set_item("min", min)?;
    row.set_item("max", max)?;
    row.set_item("block", defaults.block.map(|(size, _)| size))?;
    row.set_item(
        "packing",
        match format.packing() {
            Packing::Bits(_) => None,
            Packing::Trits => Some((5, 1)),
            Packing::Blocks(len, bytes) => Some((len, bytes)),
        },
    )?;
    row.set_item("scale_dtype", defaults.block.and_then(|(_, kind)| kind).map(ScaleType::name))?;
    row.set_item("fit", if defaults.fitted { Fit::Mse } else { Fit::MinMax }.name())?;
    row.set_item("overflows", overflows)?;
    row.set_item("integral", qrs_core::gemm::is_integral(format))?;
    Ok(row)
}

/// The level of each code of a format, from the lowest code on; of each state of a trellis.
#[pyfunction]
pub(crate) fn levels<'py>(py: Python<'py>, format: &str) -> PyResult<Bound<'py, PyAny>> {
    let format = call(py, || format::find(format))?;
    if let Spacing::Trellis(sequence) = format.spacing() {
        return array::of_values(py, sequence.levels());
    }
    let (min, max) = format.codes();
    let levels: Vec<f32> = (min..=max).map(|code| format.level(code)).collect();
    array::of_values(py, &levels)
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
