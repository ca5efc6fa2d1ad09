//! stub
#![deny(missing_docs)]
mod error;
pub mod isa;
mod mem;
pub mod parallel;
pub use error::Error;
