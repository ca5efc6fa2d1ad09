//! Trellis-coded quantization on Ungerboeck's codes: [`ungerboeck`] has the codes, [`paths`] the search, [`tcq`] the
//! quantizer of a fixed rate with its [`levels`], [`ectcq`] the one with entropy coding: [`prices`] say what a level
//! costs, [`rans`] makes it bits, [`stream`] is the container.
#![forbid(unsafe_code)]

mod ectcq;
mod levels;
mod paths;
mod prices;
mod rans;
mod stream;
mod tcq;
#[cfg(test)]
mod tests;
mod ungerboeck;

pub use ectcq::Ectcq;
pub use levels::Lloyd;
pub use stream::Stream;
pub(crate) use tcq::MEMORY;
pub use tcq::Tcq;
