//! The codes: what level a state stands for.
#![forbid(unsafe_code)]

use super::{check, tables};
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
    /// "quintic": a polynomial of a product, all in 16 bits; made for CPUs.
    Quintic(Quintic),
    /// "table": a level for each state, trained.
    Table(Table),
}

/// A code of three 16-bit multiplications a weight and none of 32 bits, no table, and levels that are integers: every
/// vector instruction set computes it as it stands, and decoded weights meet activations in `vpmaddwd`.
///
/// The product `h = s · m mod 2^L` runs through all numbers of L bits, so with u = h over 2^(L−1), read as signed,
/// the levels `u + a·u³ + b·u⁵` are spread like quantiles. Consecutive states give `u' = 2^k·u + c·m / 2^(L−1)`: with
/// a multiplier of about `2^(L−k)` the `2^k` states that may follow lie a part of the range apart from each other.
/// That structure, which a random code lacks, is worth 0.3 dB at 2 bits and L = 10, and less with longer states: at
/// L = 16, and from 3 bits and L = 12 on, "1mad" has the smaller error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quintic {
    /// The multiplier of 16-bit states; shorter states take its leading bits and a last bit of 1.
    multiplier: u16,
    /// 1, 4a and 16b, times what makes the largest level 950.
    pub(super) coefficients: [i16; 3],
    /// Standard deviation of the levels.
    gain: f32,
}

/// The quintic codes for 1, 2, 3 and 4 bits a weight.
///
/// Found by a random search (multiplier, a and b at once, each step kept if it lowered the error of 2¹⁵ Gaussian values
/// at L = 8, 10 and 12 in the geometric mean), which the ignored test `search_quintic` repeats.
const QUINTIC: [Quintic; 4] = [
    Quintic::new(29_650, -0.2395, 0.6731, 0.88),
    Quintic::new(15_746, -0.5322, 1.1678, 1.0),
    Quintic::new(7_841, -0.8529, 1.666, 1.0),
    Quintic::new(4_828, -1.1037, 2.1667, 1.0),
];

impl Quintic {
    pub(super) const fn new(multiplier: u16, a: f32, b: f32, gain: f32) -> Quintic {
        // The largest level, at u = 1, is 950: the coefficients fit 16 bits, and sums of 32 products with 16-bit
        // activations fit 32.
        let one = 1900.0 / (1.0 + a + b);
        Quintic {
            multiplier,
            coefficients: [one as i16, (4.0 * a * one) as i16, (16.0 * b * one) as i16],
            gain,
        }
    }

    /// The multiplier of states of `state_bits` bits that stand in the upper bits of 16.
    pub(super) fn multiplier(&self, state_bits: usize) -> u16 {
        self.multiplier >> (16 - state_bits) | 1
    }

    /// The level of a product over [`Quintic::scale`].
    #[inline(always)]
    pub(super) fn level(product: u16, [one, three, five]: [i16; 3]) -> i16 {
        let u = product as i16;
        let square = high(u, u);
        high(u, one.wrapping_add(high(square, three.wrapping_add(high(square, five)))))
    }

    /// What a level of 1 stands for: the gain over the standard deviation of all states.
    pub(super) fn scale(&self, state_bits: usize) -> f32 {
        let squares: u64 =
            self.integers(state_bits).map(|level| u64::from(level.unsigned_abs()).pow(2)).sum();
        (f64::from(self.gain) / (squares as f64 / (1u64 << state_bits) as f64).sqrt()) as f32
    }

    fn integers(&self, state_bits: usize) -> impl Iterator<Item = i16> {
        let (multiplier, coefficients) = (self.multiplier(state_bits), self.coefficients);
        let up = 16 - state_bits;
        (0..1u32 << state_bits)
            .map(move |s| Self::level(((s << up) as u16).wrapping_mul(multiplier), coefficients))
    }
}

/// `a · b / 2¹⁶`: `vpmulhw`.
#[inline(always)]
fn high(a: i16, b: i16) -> i16 {
    (i32::from(a).wrapping_mul(i32::from(b)) >> 16) as i16
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
            Code::Quintic(_) => "quintic",
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
            "quintic" => {
                check("bits", bits, 1, 4)?;
                Ok(Code::Quintic(QUINTIC[bits - 1]))
            }
            "table" => tables::find(bits, state_bits).map(Code::Table),
            _ => {
                let known = vec!["1mad", "3inst", "quintic", "table"];
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

    /// What an integer level of 1 stands for, where levels are integers.
    pub(super) fn unit(&self, state_bits: usize) -> f32 {
        match self {
            Code::OneMad => 1.0 / ONE_MAD,
            Code::ThreeInst => 1.0,
            Code::Quintic(code) => code.scale(state_bits),
            Code::Table(table) => table.scale,
        }
    }

    /// The levels of all states of `state_bits` bits.
    pub(super) fn levels(&self, state_bits: usize) -> Vec<f32> {
        let states = 0..1u32 << state_bits;
        match self {
            Code::OneMad => states.map(one_mad).collect(),
            Code::ThreeInst => states.map(three_inst).collect(),
            Code::Quintic(code) => {
                let scale = code.scale(state_bits);
                code.integers(state_bits).map(|level| f32::from(level) * scale).collect()
            }
            Code::Table(table) => table.levels.iter().map(|level| f32::from(*level) * table.scale).collect(),
        }
    }
}

/// The standard deviation of the sum of four random bytes, as published.
const ONE_MAD: f32 = 147.800_54;

fn one_mad(state: u32) -> f32 {
    let bytes = state.wrapping_mul(34_038_481).wrapping_add(76_625_530).to_le_bytes();
    let sum: i32 = bytes.iter().map(|b| i32::from(*b)).sum();
    (sum - 510) as f32 / ONE_MAD
}

fn three_inst(state: u32) -> f32 {
    let x = state.wrapping_mul(89_226_354).wrapping_add(64_248_484) & 0x8FFF_8FFF ^ 0x3B60_3B60;
    let (high, low) = (f16::from_bits((x >> 16) as u16), f16::from_bits(x as u16));
    f16::from_f32(high.to_f32() + low.to_f32()).to_f32() * (1.0 / 1.243_710_9)
}
