//! One function for each function of the core: borrow the arrays, call, hand back.

#![allow(clippy::too_many_arguments, reason = "the signatures are those of `_core.pyi`")]

pub(crate) mod codes;
pub(crate) mod convolutions;
pub(crate) mod floats;
pub(crate) mod machine;
pub(crate) mod products;
pub(crate) mod reductions;
pub(crate) mod streams;
pub(crate) mod tables;
