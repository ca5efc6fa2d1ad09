//! stub
#![deny(missing_docs)]
mod activation;
mod error;
pub mod isa;
mod math;
mod mem;
mod norm;
pub mod parallel;
mod softmax;
pub use activation::{Activation, activate};
pub use error::Error;
pub use norm::{LayerNorm, layer_norm};
pub use softmax::softmax;
