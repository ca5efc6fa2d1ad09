//! stub
#![deny(missing_docs)]
mod activation;
mod error;
pub mod isa;
mod math;
mod mem;
pub mod parallel;
pub use activation::{Activation, activate};
pub use error::Error;
