//! The Python face of qrs-core: borrow arrays, release the interpreter lock, call the core, wrap the result.
//!
//! Nothing is decided here: defaults, conversions and messages for people stand in `python/qrs`, numbers in
//! `qrs_core`. `python/qrs/_core.pyi` declares what this module exports.

mod array;
mod error;
mod ops;

/// The native surface, in one list.
///
/// The module works without the interpreter lock: its own state is atomic or locked in the core. Arrays that
/// another thread changes during a call are the caller's affair, as they are in NumPy: results are then
/// arbitrary numbers.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::error::InternalError;

    #[pymodule_export]
    use crate::ops::codes::{
        dequantize, dequantize_rows, fake_quantize, fit, pack, qparams, quantize, turns, unpack,
    };

    #[pymodule_export]
    use crate::ops::convolutions::Filters;

    #[pymodule_export]
    use crate::ops::floats::{activate, attention, layer_norm, softmax};

    #[pymodule_export]
    use crate::ops::machine::{available_isas, get_num_threads, isa, set_isa, set_num_threads};

    #[pymodule_export]
    use crate::ops::products::{Input, Panels, kernels, matmul_integer};

    #[pymodule_export]
    use crate::ops::reductions::{error_sums, min_max, moments};

    #[pymodule_export]
    use crate::ops::streams::{entropy_decode, entropy_encode, entropy_len};

    #[pymodule_export]
    use crate::ops::tables::{activations, fits, format_named, formats, levels, roundings, scale_dtypes};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // Makes a missing NumPy an `ImportError` here, and not a failure of the first call.
        module.py().import("numpy")?;
        qrs_core::on_pause(crate::error::signalled);
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
