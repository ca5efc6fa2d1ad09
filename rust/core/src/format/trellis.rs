//! Trellis-coded values: `trellis:b` of b bits, and the grammar `trellis:b:L=…:code=…` of other states and codes;
//! `tcq:b` and `tcq:b:states=…`.
//!
//! The bits of an element mean nothing without those before them. Along a bitshift trellis there are no codes to look at:
//! blocks of 256 elements have bytes, as [`trellis`](crate::trellis) draws them; they follow one another through the
//! whole array, whatever its shape and cells, and the last is filled up with zeros. The classic quantizer has a code for
//! each element, and any number of them will do. Scales stand apart as those of tables do.

#![forbid(unsafe_code)]

use super::{Defaults, Format, Packing, Spacing};
use crate::trellis::{BLOCK, Code, Sequence, Tcq, Trellis};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What other names than those of the rows look like.
pub(super) const GRAMMARS: [&str; 2] = ["trellis:B:L=N:code=C", "tcq:B:states=N"];

/// Bits of a state where a name does not say: 0.5 dB at 2 bits better than 8, a tenth of their speed.
const STATE_BITS: usize = 12;

/// A trellis, made when it is first used.
pub(super) struct Coded {
    name: &'static str,
    bits: usize,
    trellis: OnceLock<Trellis>,
}

/// 1 to 4 bits with the tables of 12 state bits.
pub(super) static ROWS: [Coded; 4] = [
    Coded { name: "trellis:1", bits: 1, trellis: OnceLock::new() },
    Coded { name: "trellis:2", bits: 2, trellis: OnceLock::new() },
    Coded { name: "trellis:3", bits: 3, trellis: OnceLock::new() },
    Coded { name: "trellis:4", bits: 4, trellis: OnceLock::new() },
];

impl Format for Coded {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.bits as u32
    }

    /// None by itself.
    fn level(&self, _: i32) -> f32 {
        f32::NAN
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Trellis(Sequence::Bitshift(self.trellis.get_or_init(|| Trellis::tabled(self.bits))))
    }

    fn packing(&self) -> Packing {
        Packing::Blocks(BLOCK, BLOCK / 8 * self.bits)
    }

    fn defaults(&self) -> Defaults {
        Defaults { fitted: true, ..Defaults::default() }
    }
}

/// The classic quantizer, made when it is first used.
pub(super) struct Scalar {
    name: &'static str,
    bits: usize,
    tcq: OnceLock<Tcq>,
}

/// 1 to 4 bits and 8 states.
pub(super) static SCALAR: [Scalar; 4] = [
    Scalar { name: "tcq:1", bits: 1, tcq: OnceLock::new() },
    Scalar { name: "tcq:2", bits: 2, tcq: OnceLock::new() },
    Scalar { name: "tcq:3", bits: 3, tcq: OnceLock::new() },
    Scalar { name: "tcq:4", bits: 4, tcq: OnceLock::new() },
];

/// States where a name does not say.
const STATES: usize = 8;

impl Format for Scalar {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.bits as u32
    }

    /// None by itself.
    fn level(&self, _: i32) -> f32 {
        f32::NAN
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Trellis(Sequence::Scalar(self.tcq.get_or_init(|| Tcq::usual(self.bits))))
    }

    fn defaults(&self) -> Defaults {
        Defaults { fitted: true, ..Defaults::default() }
    }
}

/// A name of either grammar; none for another name.
pub(super) fn parse(name: &str) -> Option<&'static dyn Format> {
    bitshift(name).or_else(|| scalar(name))
}

/// `tcq:B` with `:states=N` (a power of two from 4 to 256) behind it.
fn scalar(name: &str) -> Option<&'static dyn Format> {
    // Made once and kept for ever: there are at most 28.
    static MADE: Mutex<BTreeMap<(usize, usize), &'static Scalar>> = Mutex::new(BTreeMap::new());
    let (bits, states) = name.strip_prefix("tcq:")?.split_once(":states=")?;
    let (bits, states) = (number(bits)?, number(states)?);
    if !(1..=4).contains(&bits) {
        return None;
    }
    if states == STATES {
        return Some(&SCALAR[bits - 1]);
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(format) = made.get(&(bits, states)) {
        return Some(*format);
    }
    let tcq = Tcq::gaussian(bits, states).ok()?;
    let name = Box::leak(format!("tcq:{bits}:states={states}").into_boxed_str());
    let scalar: &Scalar = Box::leak(Box::new(Scalar { name, bits, tcq: OnceLock::from(tcq) }));
    made.insert((bits, states), scalar);
    Some(scalar)
}

/// The code where a name does not say: the table, where there is one.
fn usual(state_bits: usize) -> &'static str {
    if matches!(state_bits, 8 | 10 | 12) { "table" } else { "1mad" }
}

/// `trellis:B` with `:L=N` (8 to 16 state bits) and `:code=C` behind it, in this order and either left out where it
/// is the usual one. None for another name.
fn bitshift(name: &str) -> Option<&'static dyn Format> {
    // Made once and kept for ever: there are at most 144.
    static MADE: Mutex<BTreeMap<(usize, usize, &str), &'static Coded>> = Mutex::new(BTreeMap::new());
    let mut parts = name.strip_prefix("trellis:")?.split(':').peekable();
    let bits = number(parts.next()?)?;
    let state_bits = match parts.next_if(|part| part.starts_with("L=")) {
        Some(part) => number(&part[2..])?,
        None => STATE_BITS,
    };
    let code = match parts.next() {
        Some(part) => part.strip_prefix("code=")?,
        None => usual(state_bits),
    };
    if parts.next().is_some() {
        return None;
    }
    let code = Code::find(code, bits, state_bits).ok()?;
    let code_name = code.name();
    if code_name == "table" && state_bits == STATE_BITS {
        return Some(&ROWS[bits - 1]);
    }
    // A panic elsewhere cannot have left the map half changed.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(format) = made.get(&(bits, state_bits, code_name)) {
        return Some(*format);
    }
    let trellis = Trellis::new(bits, state_bits, 1, code).ok()?;
    let mut name = format!("trellis:{bits}");
    if state_bits != STATE_BITS {
        name += &format!(":L={state_bits}");
    }
    if code_name != usual(state_bits) {
        name += &format!(":code={code_name}");
    }
    let name = Box::leak(name.into_boxed_str());
    let coded: &Coded = Box::leak(Box::new(Coded { name, bits, trellis: OnceLock::from(trellis) }));
    made.insert((bits, state_bits, code_name), coded);
    Some(coded)
}

/// Up to three digits without a sign, so that a number has one name.
fn number(text: &str) -> Option<usize> {
    let plain = text.len() <= 3 && !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;

    #[test]
    fn a_trellis_has_one_name() {
        for (given, name) in [
            ("trellis:2", "trellis:2"),
            ("trellis:2:L=12", "trellis:2"),
            ("trellis:2:L=12:code=table", "trellis:2"),
            ("trellis:3:code=quintic", "trellis:3:code=quintic"),
            ("trellis:3:L=10:code=table", "trellis:3:L=10"),
            ("trellis:1:L=16", "trellis:1:L=16"),
            ("trellis:1:L=16:code=1mad", "trellis:1:L=16"),
            ("trellis:4:L=9:code=3inst", "trellis:4:L=9:code=3inst"),
        ] {
            let format = find(given).unwrap();
            assert_eq!(format.name(), name);
            assert!(std::ptr::addr_eq(format, find(name).unwrap()), "{name} is made once");
            let Spacing::Trellis(Sequence::Bitshift(trellis)) = format.spacing() else { panic!("{name}") };
            assert_eq!(format.packing(), Packing::Blocks(BLOCK, trellis.bytes()));
            assert_eq!(trellis.bits(), format.bits() as usize);
        }
        for (given, name) in [("tcq:2:states=8", "tcq:2"), ("tcq:1:states=64", "tcq:1:states=64")] {
            let format = find(given).unwrap();
            assert_eq!((format.name(), format.packing()), (name, Packing::Bits(format.bits())));
            assert!(std::ptr::addr_eq(format, find(name).unwrap()));
        }
        for none in [
            "trellis:",
            "trellis:0",
            "trellis:5",
            "trellis:2:",
            "trellis:2:L=",
            "trellis:2:L=7",
            "trellis:2:L=17",
            "trellis:2:L=012",
            "trellis:2:code=none",
            "trellis:2:L=14:code=table",
            "trellis:2:code=1mad:L=10",
            "trellis:2:L=10:L=10",
            "trellis:02",
            "tcq:0",
            "tcq:5",
            "tcq:2:states=12",
            "tcq:2:states=512",
            "tcq:2:states=",
            "tcq:2:states=08",
            "trellis:2:code=1mad:",
        ] {
            assert!(find(none).is_err(), "{none}");
        }
    }
}
