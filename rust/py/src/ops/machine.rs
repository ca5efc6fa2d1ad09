//! The machine: instruction sets and threads.

use crate::error::call;
use pyo3::prelude::*;
use qrs_core::isa::Isa;
use qrs_core::{Error, parallel};

/// The instruction set in use.
#[pyfunction]
pub(crate) fn isa(py: Python<'_>) -> PyResult<&'static str> {
    call(py, || Isa::active().map(Isa::name))
}

/// Use the instruction set of this name from now on, in every thread.
#[pyfunction]
pub(crate) fn set_isa(py: Python<'_>, name: &str) -> PyResult<()> {
    call(py, || Isa::force(name).map(drop))
}

/// The instruction sets this machine runs, in ascending order.
#[pyfunction]
pub(crate) fn available_isas(py: Python<'_>) -> PyResult<Vec<&'static str>> {
    call(py, || Ok(Isa::available().into_iter().map(Isa::name).collect()))
}

/// The number of threads that large calls use.
#[pyfunction]
pub(crate) fn get_num_threads(py: Python<'_>) -> PyResult<usize> {
    call(py, parallel::threads)
}

/// Set the number of threads that large calls use from now on.
#[pyfunction]
pub(crate) fn set_num_threads(py: Python<'_>, threads: i64) -> PyResult<()> {
    call(py, || {
        let threads = usize::try_from(threads).map_err(|_| Error::Value {
            what: "threads",
            got: threads.to_string(),
            expected: "at least 1".into(),
        })?;
        parallel::set_threads(threads)
    })
}
