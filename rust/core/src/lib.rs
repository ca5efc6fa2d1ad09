//! Number formats, quantization kernels and exact integer products for CPUs.
//!
//! A value becomes a code, `code = clamp(round(x / scale)) + zero_point`, and a code becomes a value,
//! `scale · (level(code) − zero_point)`. A [`Format`] says which levels there are, a [`Grid`] which elements
//! share a scale, [`qparams()`] how a range of values becomes one.
//!
//! ```
//! use qrs_core::*;
//! let x = [0.1, -0.9, 0.35, 1.27];
//! let (format, grid) = (format::find("int8")?, Grid::new(&[4], &[4])?);
//! let target = Target::new(format, true, true, ScaleType::Float32)?;
//! let (scale, zero_point) = qparams(&[-0.9], &[1.27], &target)?;
//! let params = QParams { scale: &scale, zero_point: &zero_point, levels: &[] };
//! let rounding = Rounding::HalfEven;
//! let encoding = Encoding { format, narrow_range: true, rounding, seed: 0, check_finite: true, saturate: true };
//! let mut codes = [0; 4];
//! quantize(&x, &grid, params, &encoding, &mut codes)?;
//! assert_eq!(codes.map(|code| code as i8), [10, -90, 35, 127]);
//! # Ok::<(), Error>(())
//! ```
#![deny(missing_docs)]

mod activation;
mod attention;
mod blocks;
mod coded;
mod conv;
mod dequantize;
mod emit;
mod error;
mod finite;
mod fit;
pub mod format;
pub mod gemm;
mod grid;
mod interrupt;
mod intrinsics;
pub mod isa;
mod math;
mod mem;
mod norm;
mod pack;
pub mod parallel;
mod qparams;
mod quantize;
mod reduce;
mod rounding;
mod softmax;
pub mod trellis;
mod values;

pub use activation::{Activation, activate};
pub use attention::{Attention, attention};
pub use conv::{Conv2d, Filters, Window, conv2d};
pub use dequantize::{Packed, dequantize, dequantize_rows};
pub use error::Error;
pub use fit::{Fit, Fitted};
pub use format::{Format, ScaleType, Spacing};
pub use grid::{Cell, Grid, Runs};
pub use interrupt::on_pause;
pub use norm::{LayerNorm, layer_norm};
pub use pack::{Code, pack, packed_len, unpack};
pub use qparams::{QParams, Target, qparams};
pub use quantize::{Encoding, fake_quantize, quantize};
pub use reduce::{ErrorSums, abs_max, error_sums, min_max, moments};
pub use rounding::Rounding;
pub use softmax::softmax;
pub use values::Values;
