//! Trellis-coded quantization with scalar levels.
mod ectcq;
mod levels;
mod paths;
mod prices;
mod rans;
mod stream;
mod tcq;
mod ungerboeck;
pub use ectcq::Ectcq;
pub use levels::Lloyd;
pub use stream::Stream;
pub(crate) use tcq::MEMORY;
pub use tcq::Tcq;
