//! Convolutions: packed filters.

use super::codes::{Cells, params};
use super::products::Input;
use crate::array::{self, Argument, Arrays};
use crate::error::call;
use pyo3::prelude::*;
use qrs_core::gemm::Finish;
use qrs_core::{Activation, Conv2d, Error, Grid, Packed, Window, conv2d, format};

/// A quantized weight (filters, channels, height, width) packed for convolutions in groups.
#[pyclass(frozen, module = "qrs._core")]
pub(crate) struct Filters(qrs_core::Filters);

#[pymethods]
impl Filters {
    #[new]
    fn new(
        codes: Argument<'_, '_>,
        shape: Vec<usize>,
        block: Vec<usize>,
        cells: Cells<'_>,
        format: &str,
        groups: usize,
    ) -> PyResult<Filters> {
        let py = codes.py();
        let mut arrays = Arrays::new();
        let codes = arrays.read("codes", codes)?;
        let params = params(&mut arrays, &cells)?;
        call(py, || {
            let (format, grid) = (format::find(format)?, Grid::new(&shape, &block)?);
            qrs_core::Filters::new(Packed { codes, format, grid: &grid, params }, groups).map(Filters)
        })
    }

    /// The number of groups.
    #[getter]
    fn groups(&self) -> usize {
        self.0.groups()
    }

    /// Bytes in memory.
    #[getter]
    fn nbytes(&self) -> usize {
        self.0.nbytes()
    }

    /// Write `activation(x ⋆ filters + bias)` to `out`.
    fn conv2d(
        &self,
        x: Argument<'_, '_>,
        bias: Option<Argument<'_, '_>>,
        activation: &str,
        input: Option<&Input>,
        stride: [usize; 2],
        padding: [usize; 4],
        dilation: [usize; 2],
        out: Argument<'_, '_>,
    ) -> PyResult<()> {
        let py = x.py();
        let mut arrays = Arrays::new();
        let shape = array::shape("x", x)?;
        let x = arrays.read("x", x)?;
        let bias = arrays.read_optional("bias", bias)?;
        let out = arrays.write("out", out)?;
        call(py, || {
            let finish = Finish { bias, activation: Activation::from_name(activation)? };
            let Ok(shape) = shape.as_slice().try_into() else {
                let expected = "(batch, channels, height, width)".to_owned();
                return Err(Error::Shape { what: "x", got: shape, expected });
            };
            let window = Window { stride, padding, dilation };
            let input = input.map(|input| &input.0);
            conv2d(x, shape, &Conv2d { filters: &self.0, window, input, finish }, out)
        })
    }
}
