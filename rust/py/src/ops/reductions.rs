//! Reductions: one entry for each cell.

use crate::array::{self, Argument, Arrays};
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::Grid;

/// Lowest and highest element of every cell.
#[pyfunction]
pub(crate) fn min_max<'py>(
    py: Python<'py>,
    x: Argument<'_, 'py>,
    block: Vec<usize>,
    check_finite: bool,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (x, shape) = (Arrays::new().read("x", x)?, array::shape("x", x)?);
    let (lo, hi) = call(py, || qrs_core::min_max(x, &Grid::new(&shape, &block)?, check_finite))?;
    Ok((array::of_values(py, &lo)?, array::of_values(py, &hi)?))
}

/// Sum and sum of squares of every cell.
#[pyfunction]
pub(crate) fn moments<'py>(
    py: Python<'py>,
    x: Argument<'_, 'py>,
    block: Vec<usize>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (x, shape) = (Arrays::new().read("x", x)?, array::shape("x", x)?);
    let (sum, squares) = call(py, || qrs_core::moments(x, &Grid::new(&shape, &block)?))?;
    Ok((array::of_values(py, &sum)?, array::of_values(py, &squares)?))
}

/// Sums of x², y², xy and (x − y)², and the largest |x − y|.
#[pyfunction]
pub(crate) fn error_sums(x: Argument<'_, '_>, y: Argument<'_, '_>) -> PyResult<(f64, f64, f64, f64, f64)> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let (x, y) = (arrays.read("x", x)?, arrays.read("y", y)?);
    let sums = call(py, || qrs_core::error_sums(x, y))?;
    let qrs_core::ErrorSums { x_squared, y_squared, product, difference_squared, max_difference } = sums;
    Ok((x_squared, y_squared, product, difference_squared, max_difference))
}
