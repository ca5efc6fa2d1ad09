//! The codes: what level a state stands for.
#![forbid(unsafe_code)]

use super::tables;
use crate::error::Error;
use half::f16;

/// The most bits that the states of a table may have: beyond, it no longer stays in the first cache.
pub(super) const TABLE_BITS: usize = 12;

/// A map from states to levels.
#[derive(Debug, Clone, PartialEq)]
pub enum Code {
    /// "1mad" (QTIP, Tseng et al. 2024, algorithm 1): the sum of the four bytes of `s · 34038481 + 76625530 mod 2³²`,
    /// less 510, over 147.8005.
    OneMad,
    /// "3inst" (QTIP, algorithm 2): `s · 89226354 + 64248484 mod 2³²` with the sign and the nine low bits of each half
    /// kept and exponents of 0.92 put in, both halves read as float16 and added; over 1.2437, which makes their variance 1.
    ThreeInst,
    /// "table": a level for each state, trained.
    Table(Table),
}

/// Levels of a table code: int8 numbers with one scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The level of each state over the scale; with two values a step, two neighbours.
    pub levels: Vec<i8>,
    /// What a level of 1 stands for.
    pub scale: f32,
}

impl Table {
    /// The nearest table to these levels: the largest magnitude becomes 127.
    pub fn new(levels: &[f32]) -> Table {
        let largest = levels.iter().fold(0f32, |top, level| top.max(level.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let code = |level: &f32| (level / scale).round_ties_even() as i8;
        Table { levels: levels.iter().map(code).collect(), scale }
    }
}

impl Code {
    /// The name.
    pub fn name(&self) -> &'static str {
        match self {
            Code::OneMad => "1mad",
            Code::ThreeInst => "3inst",
            Code::Table(_) => "table",
        }
    }

    /// The code of this name: a computed one, or the table that comes with this library for `bits` bits a step and one
    /// value, trained on a unit Gaussian.
    ///
    /// # Errors
    /// There is no such code, or no such table.
    pub fn find(name: &str, bits: usize, state_bits: usize) -> Result<Code, Error> {
        match name {
            "1mad" => Ok(Code::OneMad),
            "3inst" => Ok(Code::ThreeInst),
            "table" => tables::find(bits, state_bits).map(Code::Table),
            _ => {
                let known = vec!["1mad", "3inst", "table"];
                Err(Error::Unknown { what: "trellis code", got: name.to_owned(), known })
            }
        }
    }

    /// Whether states of `state_bits` bits with `values` values have levels.
    pub(super) fn check(&self, state_bits: usize, values: usize) -> Result<(), Error> {
        let Code::Table(Table { levels, scale }) = self else {
            return match values {
                1 => Ok(()),
                _ => {
                    let expected = format!("1 with the computed code {:?}", self.name());
                    Err(Error::Value { what: "values", got: values.to_string(), expected })
                }
            };
        };
        if state_bits > TABLE_BITS {
            let expected = format!("at most {TABLE_BITS} with a table");
            return Err(Error::Value { what: "state_bits", got: state_bits.to_string(), expected });
        }
        if levels.len() != values << state_bits {
            let expected = format!("({},): {values} to each state", values << state_bits);
            return Err(Error::Shape { what: "levels", got: vec![levels.len()], expected });
        }
        if !(*scale > 0.0 && scale.is_finite()) {
            let expected = "a positive finite number".to_owned();
            return Err(Error::Value { what: "scale of the levels", got: scale.to_string(), expected });
        }
        Ok(())
    }

    /// The levels of all states of `state_bits` bits.
    pub(super) fn levels(&self, state_bits: usize) -> Vec<f32> {
        let states = 0..1u32 << state_bits;
        match self {
            Code::OneMad => states.map(one_mad).collect(),
            Code::ThreeInst => states.map(three_inst).collect(),
            Code::Table(table) => table.levels.iter().map(|level| f32::from(*level) * table.scale).collect(),
        }
    }
}

fn one_mad(state: u32) -> f32 {
    let bytes = state.wrapping_mul(34_038_481).wrapping_add(76_625_530).to_le_bytes();
    let sum: i32 = bytes.iter().map(|b| i32::from(*b)).sum();
    (sum - 510) as f32 / 147.800_54
}

fn three_inst(state: u32) -> f32 {
    let x = state.wrapping_mul(89_226_354).wrapping_add(64_248_484) & 0x8FFF_8FFF ^ 0x3B60_3B60;
    let (high, low) = (f16::from_bits((x >> 16) as u16), f16::from_bits(x as u16));
    f16::from_f32(high.to_f32() + low.to_f32()).to_f32() * (1.0 / 1.243_710_9)
}
