//! Floating-point formats of 3 to 16 bits: a sign, an exponent, a mantissa.
//!
//! ```text
//! bit    b−1     b−2 … m        m−1 … 0
//!        sign    exponent       mantissa       (−1)^sign · 2^(exponent − bias) · 1.mantissa
//!                exponent = 0   mantissa       (−1)^sign · 2^(1 − bias) · 0.mantissa       subnormal
//! ```
//!
//! IEEE 754 gives the greatest exponent to infinities and NaN. The 8-bit formats of Micikevicius et al. 2022
//! (arXiv:2209.05433) and of the OCP specifications give it up in part (`fn`: NaN is all ones, no infinities) or
//! entirely (4 and 6 bits), those of Noune et al. 2022 (arXiv:2206.02915, `fnuz`) put one NaN where −0 would be.
//!
//! Encoding is arithmetic: the step of a value is a power of two that its exponent gives, so the quotient by it
//! and its rounding are those of integers, in every rounding mode.

#![forbid(unsafe_code)]

use super::{Defaults, Format, Spacing};
use crate::finite::INFINITE;
use crate::rounding::{Rounding, half_even, low_bits};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What the codes of greatest magnitude stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Special {
    /// The greatest exponent: infinities, and NaN of any mantissa but 0.
    Ieee,
    /// All ones: NaN.
    Fn,
    /// A sign alone: NaN. There is no −0.
    Fnuz,
    /// Nothing else than numbers.
    None,
}

/// A floating-point format.
#[derive(Debug)]
pub(super) struct Float {
    name: &'static str,
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    special: Special,
}

impl Float {
    const fn new(name: &'static str, [exponent_bits, mantissa_bits]: [u32; 2], special: Special) -> Float {
        Float { name, exponent_bits, mantissa_bits, bias: (1 << (exponent_bits - 1)) - 1, special }
    }

    const fn with_bias(mut self, bias: i32) -> Float {
        self.bias = bias;
        self
    }

    fn sign(&self) -> i32 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// The code of the largest number.
    fn top(&self) -> i32 {
        match self.special {
            Special::Ieee => (((1 << self.exponent_bits) - 1) << self.mantissa_bits) - 1,
            Special::Fn => self.sign() - 2,
            Special::Fnuz | Special::None => self.sign() - 1,
        }
    }

    /// The code that NaN becomes, where there is one.
    fn nan(&self) -> Option<i32> {
        match self.special {
            // The quiet NaN, whose first mantissa bit is set.
            Special::Ieee => Some(self.top() + 1 + (1 << self.mantissa_bits >> 1)),
            Special::Fn => Some(self.sign() - 1),
            Special::Fnuz => Some(self.sign()),
            Special::None => None,
        }
    }

    pub(super) fn rounder(&self) -> Rounder {
        let beyond = match self.special {
            Special::Ieee => Some((self.top() + 1, f32::INFINITY)),
            _ => self.nan().map(|code| (code, f32::NAN)),
        };
        Rounder {
            mantissa_bits: self.mantissa_bits,
            least: (128 - self.bias) as u32,
            top: self.magnitude(self.top()),
            top_code: self.top() as u32,
            sign: self.sign() as u32,
            negative_zero: self.special != Special::Fnuz,
            beyond,
            nan: self.nan(),
            mode: Steps::new(Rounding::HalfEven),
        }
    }

    /// The number of a code without its sign.
    fn magnitude(&self, code: i32) -> f32 {
        let (exponent, mantissa) = (code >> self.mantissa_bits, code & ((1 << self.mantissa_bits) - 1));
        let hidden = if exponent == 0 { 0 } else { 1 << self.mantissa_bits };
        let power = exponent.max(1) - self.bias - self.mantissa_bits as i32;
        // In two steps: neither leaves float32 on its way to a number that does not.
        (hidden + mantissa) as f32 * 2f32.powi(power / 2) * 2f32.powi(power - power / 2)
    }
}

impl Format for Float {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    fn level(&self, code: i32) -> f32 {
        let magnitude = code & (self.sign() - 1);
        let level = match self.special {
            Special::Fnuz if code == self.sign() => f32::NAN,
            Special::Ieee if magnitude == self.top() + 1 => f32::INFINITY,
            _ if magnitude > self.top() => f32::NAN,
            _ => self.magnitude(magnitude),
        };
        if code & self.sign() != 0 { -level } else { level }
    }

    fn spacing(&'static self) -> Spacing {
        Spacing::Float(self.rounder())
    }

    fn defaults(&self) -> Defaults {
        // Numbers of 16 bits have the range of most tensors.
        Defaults { cast: self.bits() == 16, ..Defaults::default() }
    }
}

/// How float32 numbers are rounded to those of a format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rounder {
    mantissa_bits: u32,
    /// The biased float32 exponent of the smallest normal number, which subnormal ones share.
    least: u32,
    /// The largest number.
    top: f32,
    /// Its code.
    top_code: u32,
    /// The bit of the sign in a code.
    sign: u32,
    negative_zero: bool,
    /// Code and level of numbers beyond the largest that are not held back.
    beyond: Option<(i32, f32)>,
    /// The code of NaN.
    nan: Option<i32>,
    mode: Steps,
}

/// How a number of steps becomes a whole one: the even of two that are as near, or away from zero from some fraction on.
/// Magnitudes are rounded, since their fractions are exact.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Steps {
    half_even: bool,
    /// The least fraction that goes away from zero, of positive and of negative numbers.
    away: [f32; 2],
}

impl Steps {
    fn new(rounding: Rounding) -> Steps {
        const ANY: f32 = f32::from_bits(1);
        const NONE: f32 = 1.0;
        let away = match rounding {
            Rounding::HalfEven | Rounding::Stochastic | Rounding::HalfAway => [0.5, 0.5],
            Rounding::HalfUp => [0.5, 0.5f32.next_up()],
            Rounding::Floor => [NONE, ANY],
            Rounding::Ceil => [ANY, NONE],
            Rounding::TowardZero => [NONE, NONE],
        };
        Steps { half_even: rounding == Rounding::HalfEven, away }
    }

    /// The magnitude of `v` in whole steps. With `RANDOM`, `v` goes up with the probability of its fraction above the
    /// step below it.
    #[inline(always)]
    fn round<const RANDOM: bool>(self, v: f32, u: f32) -> f32 {
        let size = v.abs();
        let near = half_even(size);
        let below = near - if near > size { 1.0 } else { 0.0 };
        let fraction = size - below;
        let away = if v < 0.0 { self.away[1] } else { self.away[0] };
        let drawn = if v < 0.0 { (fraction > 0.0) & (u >= 1.0 - fraction) } else { u < fraction };
        let goes = if RANDOM { drawn } else { fraction >= away };
        let other = below + if goes { 1.0 } else { 0.0 };
        if self.half_even && !RANDOM { near } else { other }
    }
}

/// 2ⁿ⁻¹²⁷ for 1 ≤ n ≤ 254.
#[inline(always)]
fn power(biased: i32) -> f32 {
    f32::from_bits((biased as u32) << 23)
}

impl Rounder {
    /// The largest number.
    pub(crate) fn top(&self) -> f32 {
        self.top
    }

    /// The code of NaN, if there is one.
    pub(crate) fn nan(&self) -> Option<i32> {
        self.nan
    }

    /// Whether there is infinity or NaN for numbers beyond the largest.
    pub fn overflows(&self) -> bool {
        self.beyond.is_some()
    }

    /// Code and level of numbers beyond the largest, where they do not saturate: infinity, or NaN in formats that have
    /// no infinity.
    pub(crate) fn overflowing(&self) -> Option<(i32, f32)> {
        self.beyond
    }

    /// The same in a rounding mode other than half to even.
    pub(crate) fn rounding(self, rounding: Rounding) -> Rounder {
        Rounder { mode: Steps::new(rounding), ..self }
    }

    /// Code and level of `v`; `beyond` as [`overflowing`](Self::overflowing) gives it, or none to saturate. What NaN
    /// gives is unspecified.
    #[inline(always)]
    pub(crate) fn nearest<const RANDOM: bool>(
        &self,
        v: f32,
        u: f32,
        beyond: Option<(i32, f32)>,
    ) -> (i32, f32) {
        let m = self.mantissa_bits as i32;
        // Not held back, it goes no farther than the next power of two, so that the steps stay small numbers.
        let limit = if beyond.is_some() { self.top * 2.0 } else { self.top };
        let v = if v > -limit { v } else { -limit };
        let v = if v < limit { v } else { limit };
        let exponent = ((v.to_bits() >> 23) & 0xff).max(self.least) as i32;
        // The step is 2^(exponent − 127 − m), below the normal numbers for the smallest bfloat16; two factors
        // reach it and its inverse.
        let inverse = 254 + m - exponent;
        let steps = v * power(inverse.min(254)) * power(127 + (inverse - 254).max(0));
        let steps = self.mode.round::<RANDOM>(steps, u);
        let step = exponent - m;
        let level = steps * power(step.max(1)) * power(127 + (step - 1).min(0));
        // The hidden bit of a normal number counts as one exponent.
        let code = low_bits(steps) & 0x3f_ffff;
        let code = code.wrapping_add((exponent - self.least as i32) << m);
        let (code, level) = match beyond {
            Some(beyond) if level > self.top => beyond,
            _ => (code, level),
        };
        let negative = v.is_sign_negative() & (self.negative_zero | (level != 0.0));
        let sign = if negative { self.sign as i32 } else { 0 };
        (code | sign, if negative { -level } else { level })
    }

    /// Whether the mode is half to even.
    pub(crate) fn is_half_even(&self) -> bool {
        self.mode.half_even
    }

    /// [`nearest`](Self::nearest) half to even.
    #[inline(always)]
    pub(crate) fn half_even(&self, beyond: Option<(i32, f32)>) -> HalfEven {
        let down = 23 - self.mantissa_bits;
        // Without a mantissa the hidden bit is the last one, and always set.
        let bare = u32::from(self.mantissa_bits == 0);
        HalfEven {
            down,
            half: (1 << (down - 1)) - 1 + bare,
            last: 1 - bare,
            normal: (self.least << 23) as i32,
            bias: ((self.least - 1) << self.mantissa_bits) as i32,
            magic: f32::from_bits((self.least + down) << 23),
            top_code: self.top_code as i32,
            beyond: (
                beyond.map_or(self.top_code as i32, |_| self.top_code as i32 + 1),
                beyond.map_or(self.top, |(_, level)| level),
            ),
            sign: self.sign.trailing_zeros(),
            zero: if self.negative_zero { 1 << 31 } else { 0 },
        }
    }

    /// The level of a code: [`Format::level`] in few operations on bits, and without subnormal operands, which CPUs
    /// are slow with.
    #[inline(always)]
    pub(crate) fn level(&self, code: u16) -> f32 {
        let places = self.sign.trailing_zeros();
        let code = u32::from(code) << (31 - places);
        let sign = code & 1 << 31;
        // The mantissa where that of a float32 stands, below an exponent that lacks its bias.
        let bits = (code ^ sign) >> (8 + self.mantissa_bits - places);
        let normal = bits.wrapping_add((self.least - 1) << 23);
        // A subnormal number is one that starts with 1 rather than 0, less that 1.
        let one = self.least << 23;
        let subnormal = (f32::from_bits(bits | one) - f32::from_bits(one)).to_bits();
        let level = if bits < 1 << 23 { subnormal } else { normal };
        // Above the largest number, as in a float32: infinity, or with any bit of the mantissa NaN.
        let above = if bits > self.top_code << (23 - self.mantissa_bits) { INFINITE } else { 0 };
        // A sign alone, where that is no zero; no code has the lowest bit of this.
        let alone = if self.negative_zero { 1 } else { 1 << 31 };
        let nan = if code == alone { f32::NAN.to_bits() } else { 0 };
        f32::from_bits(level | above | nan | sign)
    }
}

/// [`Rounder::nearest`] half to even, in half the operations: the bits below the mantissa are rounded away by an addition,
/// and subnormal numbers, whose step is one and the same, by that of 2²³ steps. What hangs on the format alone is worked
/// out here: vectors compute with numbers, not with conditions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HalfEven {
    /// Bits below the mantissa, and the most that they may be to be dropped after an even one.
    down: u32,
    half: u32,
    /// 1 where a number may be even, which the last bit of its mantissa says.
    last: u32,
    /// The bits of the smallest normal number, and what is in the exponent too much.
    normal: i32,
    bias: i32,
    magic: f32,
    top_code: i32,
    /// Code and level of what is beyond the largest: the largest or, in all formats that have infinity or NaN for it,
    /// the code after that one.
    beyond: (i32, f32),
    /// The place of the sign in a code.
    sign: u32,
    /// The sign that a negative number of code 0 keeps.
    zero: u32,
}

impl HalfEven {
    /// Code and level of `v`. What NaN gives is unspecified.
    #[inline(always)]
    pub(crate) fn nearest(&self, v: f32) -> (i32, f32) {
        let size = v.abs();
        let bits = size.to_bits();
        let even = bits.wrapping_add(self.half).wrapping_add(bits >> self.down & self.last) >> self.down;
        let sum = size + self.magic;
        let steps = sum.to_bits().wrapping_sub(self.magic.to_bits()) as i32;
        let subnormal = (bits as i32) < self.normal;
        let code = if subnormal { steps } else { (even as i32).wrapping_sub(self.bias) };
        let level = if subnormal { sum - self.magic } else { f32::from_bits(even << self.down) };
        let level = if code > self.top_code { self.beyond.1 } else { level };
        let code = if code < self.beyond.0 { code } else { self.beyond.0 };
        let sign = v.to_bits() & if code == 0 { self.zero } else { 1 << 31 };
        (code | (sign >> (31 - self.sign)) as i32, f32::from_bits(level.to_bits() | sign))
    }
}

/// The rows of the table.
pub(super) static FLOAT16: Float = Float::new("float16", [5, 10], Special::Ieee);
pub(super) static BFLOAT16: Float = Float::new("bfloat16", [8, 7], Special::Ieee);
pub(super) static FLOAT8_E4M3FN: Float = Float::new("float8_e4m3fn", [4, 3], Special::Fn);
pub(super) static FLOAT8_E5M2: Float = Float::new("float8_e5m2", [5, 2], Special::Ieee);
pub(super) static FLOAT8_E4M3: Float = Float::new("float8_e4m3", [4, 3], Special::Ieee);
pub(super) static FLOAT8_E3M4: Float = Float::new("float8_e3m4", [3, 4], Special::Ieee);
pub(super) static FLOAT8_E4M3FNUZ: Float = Float::new("float8_e4m3fnuz", [4, 3], Special::Fnuz).with_bias(8);
pub(super) static FLOAT8_E5M2FNUZ: Float = Float::new("float8_e5m2fnuz", [5, 2], Special::Fnuz).with_bias(16);
pub(super) static FLOAT8_E4M3B11FNUZ: Float =
    Float::new("float8_e4m3b11fnuz", [4, 3], Special::Fnuz).with_bias(11);
pub(super) static FLOAT6_E2M3FN: Float = Float::new("float6_e2m3fn", [2, 3], Special::None);
pub(super) static FLOAT6_E3M2FN: Float = Float::new("float6_e3m2fn", [3, 2], Special::None);
pub(super) static FLOAT4_E2M1FN: Float = Float::new("float4_e2m1fn", [2, 1], Special::None);

/// The grammar of the formats that [`parse`] makes, for messages.
pub(super) const GRAMMAR: &str = "float:eXmY";

/// The format `float:eXmY` of 3 to 8 bits or 16: X bits of exponent, with bias 2^(X−1) − 1, Y of mantissa, and
/// nothing but numbers. None for another name.
pub(super) fn parse(name: &str) -> Option<&'static dyn Format> {
    // Made once and kept for ever: there are fewer than forty.
    static MADE: Mutex<BTreeMap<[u32; 2], &'static Float>> = Mutex::new(BTreeMap::new());
    let (exponent, mantissa) = name.strip_prefix("float:e")?.split_once('m')?;
    // A digit or two, no sign: one name for each format.
    let digits = |text: &str| -> Option<u32> {
        let plain = text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if plain { text.parse().ok()? } else { return None };
        (number == 0 || !text.starts_with('0')).then_some(number)
    };
    let bits = [digits(exponent)?, digits(mantissa)?];
    let all = 1 + bits[0] + bits[1];
    if !(1..=7).contains(&bits[0]) || !(matches!(all, 3..=8) || all == 16) {
        return None;
    }
    // A panic elsewhere cannot have left the map half changed.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let format = made.entry(bits).or_insert_with(|| {
        let name = Box::leak(name.to_owned().into_boxed_str());
        Box::leak(Box::new(Float::new(name, bits, Special::None)))
    });
    Some(*format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    const ALL: [&Float; 12] = [
        &FLOAT16,
        &BFLOAT16,
        &FLOAT8_E4M3FN,
        &FLOAT8_E5M2,
        &FLOAT8_E4M3,
        &FLOAT8_E3M4,
        &FLOAT8_E4M3FNUZ,
        &FLOAT8_E5M2FNUZ,
        &FLOAT8_E4M3B11FNUZ,
        &FLOAT6_E2M3FN,
        &FLOAT6_E3M2FN,
        &FLOAT4_E2M1FN,
    ];

    #[test]
    fn the_largest_numbers_are_those_of_the_specifications() {
        let tops = ALL.map(|format| format.rounder().top);
        let bf16 = bf16::MAX.to_f32();
        assert_eq!(tops, [65504.0, bf16, 448.0, 57344.0, 240.0, 15.5, 240.0, 57344.0, 30.0, 7.5, 28.0, 6.0]);
    }

    #[test]
    fn every_code_has_its_level_and_every_level_its_code() {
        let generic = ["float:e1m1", "float:e3m0", "float:e2m4", "float:e7m0", "float:e7m8", "float:e1m14"];
        let generic = generic.map(|name| parse(name).unwrap());
        for format in ALL.map(|format| format as &dyn Format).into_iter().chain(generic) {
            let Spacing::Float(rounder) = format.spacing() else { panic!() };
            for code in 0..=format.codes().1 {
                let level = format.level(code);
                let same = rounder.level(code as u16);
                assert!(
                    same.to_bits() == level.to_bits() || same.is_nan() && level.is_nan(),
                    "{format:?} {code}"
                );
                if level.is_finite() {
                    let picked = rounder.nearest::<false>(level, 0.0, None);
                    assert_eq!((picked.0, picked.1.to_bits()), (code, level.to_bits()), "{format:?} {code}");
                    let up = rounder.rounding(Rounding::Ceil);
                    assert_eq!(up.nearest::<false>(level, 0.0, None).0, code, "{format:?} {code}");
                }
            }
        }
    }

    #[test]
    fn halves_are_those_of_the_half_crate() {
        let (f, b) = (FLOAT16.rounder(), BFLOAT16.rounder());
        let mut state = 1u32;
        for i in 0..2_000_000u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Among random numbers, ties and their neighbours.
            let bits = if i % 2 == 0 {
                state
            } else {
                (state & 0xffff_e000 | 0x1000).wrapping_add(i / 2 % 3).wrapping_sub(1)
            };
            let x = f32::from_bits(bits);
            if x.is_nan() {
                continue;
            }
            let (code, level) = f.nearest::<false>(x, 0.0, f.overflowing());
            assert_eq!(
                (code as u16, level),
                (f16::from_f32(x).to_bits(), f16::from_f32(x).to_f32()),
                "{x:e}"
            );
            let (code, level) = b.nearest::<false>(x, 0.0, b.overflowing());
            assert_eq!(
                (code as u16, level),
                (bf16::from_f32(x).to_bits(), bf16::from_f32(x).to_f32()),
                "{x:e}"
            );
        }
    }

    #[test]
    fn a_name_is_read_strictly() {
        assert_eq!(parse("float:e4m3").unwrap().bits(), 8);
        assert_eq!(parse("float:e5m10").unwrap().level(0x7fff), 131_008.0);
        for wrong in
            ["float:e0m3", "float:e8m7", "float:e4m4", "float:e04m3", "float:e+4m3", "float:e4m3 ", "e4m3"]
        {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }
}
