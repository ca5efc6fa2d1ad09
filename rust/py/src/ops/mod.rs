//! One function for each function of the core: borrow the arrays, call, hand back.

pub(crate) mod machine;
