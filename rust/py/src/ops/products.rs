//! Products: packed weights, their input, and exact integer matrices.

use super::codes::{Cells, params};
use crate::array::{self, Argument, Arrays};
use crate::error::{call, type_error};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use qrs_core::gemm::{self, Bytes, Finish, Requantize};
use qrs_core::isa::Isa;
use qrs_core::{Activation, Error, Grid, Packed, ScaleType, Target, format};

/// Every kernel of this build with its instruction set and whether this machine runs it.
#[pyfunction]
pub(crate) fn kernels(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let row = |(name, isa, supported): (&str, Isa, bool)| {
        let row = PyDict::new(py);
        row.set_item("name", name)?;
        row.set_item("isa", isa.name())?;
        row.set_item("supported", supported)?;
        Ok(row)
    };
    gemm::kernels().into_iter().map(row).collect()
}

/// Write the exact product of two matrices of int8 or uint8 codes to `out`.
#[pyfunction]
pub(crate) fn matmul_integer(
    a: Argument<'_, '_>,
    b: Argument<'_, '_>,
    a_zero_point: i32,
    b_zero_point: i32,
    out: Argument<'_, '_>,
) -> PyResult<()> {
    let py = out.py();
    let mut arrays = Arrays::new();
    let (shape_a, shape_b) = (array::shape("a", a)?, array::shape("b", b)?);
    let (a, b) = (bytes(&mut arrays, "a", a)?, bytes(&mut arrays, "b", b)?);
    let out = arrays.write("out", out)?;
    call(py, || {
        let &[_, k] = &shape_a[..] else {
            return Err(Error::Shape { what: "a", got: shape_a, expected: "(m, k)".into() });
        };
        if shape_b.len() != 2 || shape_b[0] != k {
            return Err(Error::Shape {
                what: "b",
                got: shape_b,
                expected: format!("({k}, n), as a has k = {k}"),
            });
        }
        gemm::matmul_integer(a, b, [a_zero_point, b_zero_point], k, out)
    })
}

fn bytes<'a>(arrays: &mut Arrays, name: &'static str, array: Argument<'a, '_>) -> PyResult<Bytes<'a>> {
    if array::holds::<i8>(array) {
        return Ok(Bytes::I8(arrays.read(name, array)?));
    }
    if array::holds::<u8>(array) {
        return Ok(Bytes::U8(arrays.read(name, array)?));
    }
    let got = array.getattr("dtype").map(|dtype| dtype.to_string()).unwrap_or_default();
    Err(type_error(array.py(), format!("{name} has dtype {got}, expected int8 or uint8")))
}

/// How the float32 input of a product becomes integer codes.
#[pyclass(frozen, module = "qrs._core")]
pub(crate) struct Input(pub(super) gemm::Input);

#[pymethods]
impl Input {
    /// Parameters from the range of each row, or of the whole input.
    #[staticmethod]
    fn dynamic(
        py: Python<'_>,
        format: &str,
        symmetric: bool,
        narrow_range: bool,
        per_token: bool,
    ) -> PyResult<Input> {
        call(py, || {
            let target = Target::new(format::find(format)?, symmetric, narrow_range, ScaleType::Float32)?;
            Ok(Input(if per_token {
                gemm::Input::per_token(target)?
            } else {
                gemm::Input::per_tensor(target)?
            }))
        })
    }

    /// 16 bits, with parameters for every 256 elements of a row.
    #[staticmethod]
    fn blocks16() -> Input {
        Input(gemm::Input::blocks16())
    }

    /// Parameters known beforehand.
    #[staticmethod]
    fn static_(
        py: Python<'_>,
        format: &str,
        scale: f32,
        zero_point: i32,
        narrow_range: bool,
    ) -> PyResult<Input> {
        call(py, || gemm::Input::fixed(format::find(format)?, scale, zero_point, narrow_range).map(Input))
    }
}

/// A quantized weight (n, k) packed for products.
#[pyclass(frozen, module = "qrs._core")]
pub(crate) struct Panels(gemm::Panels);

#[pymethods]
impl Panels {
    #[new]
    fn new(
        codes: Argument<'_, '_>,
        shape: Vec<usize>,
        block: Vec<usize>,
        cells: Cells<'_>,
        format: &str,
    ) -> PyResult<Panels> {
        let py = codes.py();
        let mut arrays = Arrays::new();
        let codes = arrays.read("codes", codes)?;
        let params = params(&mut arrays, &cells)?;
        call(py, || {
            let (format, grid) = (format::find(format)?, Grid::new(&shape, &block)?);
            let &[rows, along] = &block[..] else {
                return Err(Error::Shape { what: "weight", got: shape, expected: "(n, k)".into() });
            };
            gemm::Panels::new(Packed { codes, format, grid: &grid, params }, [rows, along]).map(Panels)
        })
    }

    /// Bytes in memory.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }

    /// Write `activation(x · weightᵀ + bias)` to `out`.
    fn linear(
        &self,
        x: Argument<'_, '_>,
        bias: Option<Argument<'_, '_>>,
        activation: &str,
        input: Option<&Input>,
        out: Argument<'_, '_>,
    ) -> PyResult<()> {
        let py = x.py();
        let mut arrays = Arrays::new();
        let x = arrays.read("x", x)?;
        let bias = arrays.read_optional("bias", bias)?;
        let out = arrays.write("out", out)?;
        call(py, || {
            let finish = Finish { bias, activation: Activation::from_name(activation)? };
            gemm::linear(x, &self.0, input.map(|input| &input.0), &finish, out)
        })
    }

    /// Write the codes of `activation(x · weightᵀ + bias)` to `out`.
    fn linear_requantized(
        &self,
        x: Argument<'_, '_>,
        bias: Option<Argument<'_, '_>>,
        activation: &str,
        input: Option<&Input>,
        format: &str,
        scale: f32,
        zero_point: i32,
        narrow_range: bool,
        out: Argument<'_, '_>,
    ) -> PyResult<()> {
        let py = x.py();
        let mut arrays = Arrays::new();
        let x = arrays.read("x", x)?;
        let bias = arrays.read_optional("bias", bias)?;
        let out = arrays.write_bytes("out", out)?;
        call(py, || {
            let finish = Finish { bias, activation: Activation::from_name(activation)? };
            let codes = Requantize::new(format::find(format)?, scale, zero_point, narrow_range)?;
            gemm::linear_requantized(x, &self.0, input.map(|input| &input.0), &finish, &codes, out)
        })
    }
}
