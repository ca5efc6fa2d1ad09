//! Parameters, quantize, dequantize, and packed codes.

use crate::array::{self, Argument, Arrays, Element};
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::{
    Code, Encoding, Fit, Fitted, Format, Grid, Packed, QParams, Rounding, ScaleType, Target, Values, format,
};

/// Scale, zero point and learned levels, as Python hands them over.
pub(crate) type Cells<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// Scales and zero points of cells with ranges `lo`, `hi`.
#[pyfunction]
pub(crate) fn qparams<'py>(
    py: Python<'py>,
    lo: Argument<'_, 'py>,
    hi: Argument<'_, 'py>,
    format: &str,
    symmetric: bool,
    narrow_range: bool,
    scale_dtype: &str,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let mut arrays = Arrays::new();
    let (lo, hi) = (arrays.read("lo", lo)?, arrays.read("hi", hi)?);
    let (scale, zero_point) = call(py, || {
        let scale_type = ScaleType::from_name(scale_dtype)?;
        let target = Target::new(format::find(format)?, symmetric, narrow_range, scale_type)?;
        qrs_core::qparams(lo, hi, &target)
    })?;
    Ok((array::of_values(py, &scale)?, array::of_values(py, &zero_point)?))
}

/// Whether a fitted scale may be negative.
#[pyfunction]
pub(crate) fn turns(
    py: Python<'_>,
    format: &str,
    symmetric: bool,
    narrow_range: bool,
    scale_dtype: &str,
) -> PyResult<bool> {
    call(py, || {
        let scale_type = ScaleType::from_name(scale_dtype)?;
        Ok(Target::new(format::find(format)?, symmetric, narrow_range, scale_type)?.lopsided())
    })
}

/// Scales and zero points of the cells of `x`, and the levels of a learned format.
#[pyfunction]
pub(crate) fn fit<'py>(
    x: Argument<'_, 'py>,
    importance: Option<Argument<'_, 'py>>,
    block: Vec<usize>,
    fit: &str,
    format: &str,
    symmetric: bool,
    narrow_range: bool,
    scale_dtype: &str,
    check_finite: bool,
) -> PyResult<Cells<'py>> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let values =
        Values { x: arrays.read("x", x)?, importance: arrays.read_optional("importance", importance)? };
    let shape = array::shape("x", x)?;
    let Fitted { scale, zero_point, levels } = call(py, || {
        let (fit, scale_type) = (Fit::from_name(fit)?, ScaleType::from_name(scale_dtype)?);
        let target = Target::new(format::find(format)?, symmetric, narrow_range, scale_type)?;
        fit.params(values, &Grid::new(&shape, &block)?, &target, check_finite)
    })?;
    let levels = if levels.is_empty() { None } else { Some(array::of_values(py, &levels)?) };
    Ok((array::of_values(py, &scale)?, array::of_values(py, &zero_point)?, levels))
}

/// Write the packed codes of `x` to `out`.
#[pyfunction]
pub(crate) fn quantize(
    x: Argument<'_, '_>,
    importance: Option<Argument<'_, '_>>,
    block: Vec<usize>,
    cells: Cells<'_>,
    format: &str,
    narrow_range: bool,
    rounding: &str,
    seed: u64,
    check_finite: bool,
    saturate: bool,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let values =
        Values { x: arrays.read("x", x)?, importance: arrays.read_optional("importance", importance)? };
    let shape = array::shape("x", x)?;
    let params = params(&mut arrays, &cells)?;
    let out = arrays.write("out", out)?;
    call(py, || {
        let (format, rounding) = (format::find(format)?, Rounding::from_name(rounding)?);
        let encoding = Encoding { format, narrow_range, rounding, seed, check_finite, saturate };
        qrs_core::quantize(values, &Grid::new(&shape, &block)?, params, &encoding, out)
    })
}

/// Write `dequantize(quantize(x))` to `out`; NaN stays NaN.
#[pyfunction]
pub(crate) fn fake_quantize(
    x: Argument<'_, '_>,
    block: Vec<usize>,
    cells: Cells<'_>,
    format: &str,
    narrow_range: bool,
    rounding: &str,
    seed: u64,
    saturate: bool,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = x.py();
    let mut arrays = Arrays::new();
    let (x, shape) = (arrays.read("x", x)?, array::shape("x", x)?);
    let params = params(&mut arrays, &cells)?;
    let out = arrays.write("out", out)?;
    call(py, || {
        let (format, rounding) = (format::find(format)?, Rounding::from_name(rounding)?);
        let encoding = Encoding { format, narrow_range, rounding, seed, check_finite: false, saturate };
        qrs_core::fake_quantize(x, &Grid::new(&shape, &block)?, params, &encoding, out)
    })
}

/// Write what the packed `codes` stand for to `out`, which carries the shape.
#[pyfunction]
pub(crate) fn dequantize(
    codes: Argument<'_, '_>,
    block: Vec<usize>,
    cells: Cells<'_>,
    format: &str,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = out.py();
    let mut arrays = Arrays::new();
    let codes = arrays.read("codes", codes)?;
    let params = params(&mut arrays, &cells)?;
    let (out, shape) = (arrays.write("out", out)?, array::shape("out", out)?);
    call(py, || {
        let (format, grid) = (format::find(format)?, Grid::new(&shape, &block)?);
        qrs_core::dequantize(Packed { codes, format, grid: &grid, params }, out)
    })
}

/// Write the dequantized rows number `rows[0]`, `rows[1]`, … of a (rows, columns) array to `out`.
#[pyfunction]
pub(crate) fn dequantize_rows(
    codes: Argument<'_, '_>,
    shape: Vec<usize>,
    block: Vec<usize>,
    cells: Cells<'_>,
    format: &str,
    rows: Argument<'_, '_>,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = out.py();
    let mut arrays = Arrays::new();
    let codes = arrays.read("codes", codes)?;
    let params = params(&mut arrays, &cells)?;
    let rows = arrays.read("rows", rows)?;
    let out = arrays.write("out", out)?;
    call(py, || {
        let (format, grid) = (format::find(format)?, Grid::new(&shape, &block)?);
        qrs_core::dequantize_rows(Packed { codes, format, grid: &grid, params }, rows, out)
    })
}

/// Pack one code for each value.
#[pyfunction]
pub(crate) fn pack<'py>(
    py: Python<'py>,
    values: Argument<'_, 'py>,
    format: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let mut arrays = Arrays::new();
    let values = arrays.read("values", values)?;
    let format = call(py, || format::find(format))?;
    let codes = array::zeros::<u8>(py, qrs_core::packed_len(values.len(), format))?;
    let out = arrays.write("codes", &codes)?;
    call(py, || qrs_core::pack(values, format, out))?;
    Ok(codes)
}

/// Unpack `count` codes, to int8 or uint8 as the format is signed or not, or to integers of 16 bits.
#[pyfunction]
pub(crate) fn unpack<'py>(
    py: Python<'py>,
    codes: Argument<'_, 'py>,
    format: &str,
    count: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let format = call(py, || format::find(format))?;
    match (format.bits(), format.signed()) {
        (16, true) => unpack_as::<i16>(codes, format, count),
        (16, false) => unpack_as::<u16>(codes, format, count),
        (_, true) => unpack_as::<i8>(codes, format, count),
        (_, false) => unpack_as::<u8>(codes, format, count),
    }
}

fn unpack_as<'py, C: Code + Element>(
    codes: Argument<'_, 'py>,
    format: &'static dyn Format,
    count: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let py = codes.py();
    let mut arrays = Arrays::new();
    let codes = arrays.read("codes", codes)?;
    let values = array::zeros::<C>(py, count)?;
    let out = arrays.write::<C>("values", &values)?;
    call(py, || qrs_core::unpack(codes, format, out))?;
    Ok(values)
}

/// The parameters of cells, borrowed.
pub(crate) fn params<'a>(arrays: &mut Arrays, cells: &'a Cells<'_>) -> PyResult<QParams<'a>> {
    let (scale, zero_point, levels) = cells;
    Ok(QParams {
        scale: arrays.read("scale", scale)?,
        zero_point: arrays.read("zero_point", zero_point)?,
        levels: arrays.read_optional("levels", levels.as_ref())?.unwrap_or(&[]),
    })
}
