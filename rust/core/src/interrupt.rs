//! Stopping long work from outside, as Ctrl-C does.

#![forbid(unsafe_code)]

use crate::error::Error;
use std::sync::OnceLock;

static ASK: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what long work asks every second or oftener, on the thread that called for it, whether it is to end; the first
/// one set stays.
pub fn on_pause(ask: fn() -> bool) {
    ASK.get_or_init(|| ask);
}

/// # Errors
/// The work is to end.
pub(crate) fn pause() -> Result<(), Error> {
    if ASK.get().is_some_and(|ask| ask()) { Err(Error::Interrupted) } else { Ok(()) }
}
