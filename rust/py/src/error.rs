//! The way out of the core: errors and panics become Python exceptions.

use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyOverflowError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use qrs_core::Error;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pyo3::create_exception!(
    qrs._core,
    InternalError,
    PyRuntimeError,
    "A fault of qrs itself, caught on its way out; please report it with the call that led here."
);

/// Runs `work` without the interpreter lock; its error, or its panic, becomes an exception.
///
/// Every call into the core goes through here.
pub(crate) fn call<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    // What a panic leaves half done is an output array, whose elements are plain numbers whatever they hold.
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(exception(py, &error)),
        Err(panic) => Err(InternalError::new_err(panic_text(panic.as_ref()))),
    }
}

thread_local! {
    /// What a signal handler raised in the call under way.
    static SIGNALLED: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Whether a signal, as that of Ctrl-C, has raised an exception.
pub(crate) fn signalled() -> bool {
    Python::attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(raised) => {
            SIGNALLED.set(Some(raised));
            true
        }
    })
}

/// The exception for an error of the core.
fn exception(py: Python<'_>, error: &Error) -> PyErr {
    match error {
        Error::Shape { .. } | Error::Value { .. } | Error::NotFinite { .. } | Error::Unknown { .. } => {
            value_error(py, error.to_string())
        }
        Error::Overflow { .. } => PyOverflowError::new_err(error.to_string()),
        Error::Memory { .. } => PyMemoryError::new_err(error.to_string()),
        Error::Interrupted => {
            SIGNALLED.take().unwrap_or_else(|| PyKeyboardInterrupt::new_err(error.to_string()))
        }
    }
}

/// A `qrs.errors.QrsValueError`.
pub(crate) fn value_error(py: Python<'_>, message: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    of_class(py, &CLASS, "QrsValueError", message)
}

/// A `qrs.errors.QrsTypeError`.
pub(crate) fn type_error(py: Python<'_>, message: String) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    of_class(py, &CLASS, "QrsTypeError", message)
}

/// The classes live in Python, where people derive from them; they are looked up when the first error is raised.
fn of_class(py: Python<'_>, class: &PyOnceLock<Py<PyType>>, name: &str, message: String) -> PyErr {
    match class.import(py, "qrs.errors", name) {
        Ok(class) => PyErr::from_type(class.clone(), message),
        Err(error) => error,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    format!("internal error: {}", text.unwrap_or("no message"))
}
