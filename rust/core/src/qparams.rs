//! From the range of a cell to its scale and zero point: the only home of the formula.
//!
//! With `lo = min(lo, 0)` and `hi = max(hi, 0)`, so that 0.0 is exactly a level:
//!
//! - symmetric: `zero_point` is fixed, `scale = max(hi / (qmax − zero_point), lo / (qmin − zero_point))`, the
//!   smallest scale that holds both ends (a term with a zero divisor is left out);
//! - asymmetric: `scale = (hi − lo) / (qmax − qmin)`, then
//!   `zero_point = clamp(round_half_even(qmin − lo / scale), qmin, qmax)` with the scale as it is stored.
//!
//! The arithmetic is float64, rounded once to float32 and then to the scale type, where it is clamped to the
//! smallest normal and the largest finite number. A cell of zeros has scale 1. Ranges near the end of float32 get
//! the largest scale with which the value of every code is finite.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::format::{Format, ScaleType, Spacing};
use crate::mem;

/// What a range is to be mapped to.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    qmin: i32,
    qmax: i32,
    /// The zero point where it is fixed, that is where the target is symmetric.
    fixed: Option<i32>,
    /// The lowest and the highest level, less the zero point where that is fixed.
    ends: (f32, f32),
    /// Whether 0 is a level.
    has_zero: bool,
    /// Whether the levels turned round are others.
    lopsided: bool,
    format: &'static dyn Format,
    rule: Rule,
    scale_type: ScaleType,
    /// What scales are multiples of: 1 but for types that share a factor.
    unit: f32,
}

/// The scale of a fixed zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The smallest that holds both ends.
    Hold,
    /// 1 where that holds both ends.
    Cast,
    /// The power of two of the largest magnitude over that of the highest level.
    Floor,
}

impl Target {
    /// The codes of `format`, without the lowest one if `narrow`; the zero point fixed in the middle
    /// (`symmetric`: 0, or 2^(bits−1) for unsigned integers) or free.
    ///
    /// # Errors
    /// See [`code_range`](crate::format::Format); a free zero point for a format other than integers, or for one of
    /// blocks; a scale type that a format of blocks does not have.
    pub fn new(
        format: &'static dyn Format,
        symmetric: bool,
        narrow: bool,
        scale_type: ScaleType,
    ) -> Result<Target, Error> {
        let (qmin, qmax) = format.code_range(narrow)?;
        let defaults = format.defaults();
        let uniform = format.spacing().is_uniform();
        if !symmetric && (!uniform || defaults.block.is_some()) {
            return Err(Error::Value {
                what: "symmetric",
                got: format!("false for {}", format.name()),
                expected: "true: only integers have a zero point".into(),
            });
        }
        if let Some((_, Some(kind))) = defaults.block.filter(|block| block.1 != Some(scale_type)) {
            return Err(Error::Value {
                what: "scale_dtype",
                got: format!("{} for {}", scale_type.name(), format.name()),
                expected: kind.name().into(),
            });
        }
        let middle = if format.signed() || !uniform { 0 } else { 1 << (format.bits() - 1) };
        let ends = match format.spacing() {
            Spacing::Uniform => ((qmin - middle) as f32, (qmax - middle) as f32),
            Spacing::Float(rounder) => (-rounder.top(), rounder.top()),
            Spacing::Table(levels) => levels.ends(),
            Spacing::Trellis(sequence) => sequence.ends(),
            // Levels are learned in units of the largest magnitude.
            Spacing::Learned => (-1.0, 1.0),
            Spacing::Blocks(_) => return Err(format.no_range()),
        };
        let rule = match defaults.block {
            Some((_, Some(ScaleType::E8M0))) => Rule::Floor,
            _ if defaults.cast => Rule::Cast,
            _ => Rule::Hold,
        };
        let has_zero = uniform || (qmin..=qmax).any(|code| format.level(code) == 0.0);
        let fixed = symmetric.then_some(middle);
        // A power of two has no sign.
        let lopsided = symmetric
            && scale_type != ScaleType::E8M0
            && match format.spacing() {
                Spacing::Uniform => ends.0 != -ends.1,
                Spacing::Float(_) => false,
                Spacing::Table(levels) => levels.lopsided(),
                Spacing::Learned => true,
                Spacing::Blocks(_) | Spacing::Trellis(_) => false,
            };
        Ok(Target { qmin, qmax, fixed, ends, has_zero, lopsided, format, rule, scale_type, unit: 1.0 })
    }

    /// The same for scales that are fitted to data: of any of their type, whatever the rule for a range.
    pub(crate) fn fitted(self) -> Target {
        Target { rule: Rule::Hold, ..self }
    }

    /// The same with the factor that the scales of these ranges share, if scales of their type do: the largest scale
    /// becomes the largest of the type.
    pub(crate) fn shared(self, ranges: impl Iterator<Item = (f32, f32)>) -> Target {
        if self.scale_type != ScaleType::E4M3 {
            return self;
        }
        let needed = |(lo, hi): (f32, f32)| {
            let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
            let free = (hi - lo) / f64::from(self.qmax - self.qmin);
            if self.symmetric() { self.needed(lo, hi) } else { free }
        };
        let largest = ranges.map(needed).fold(0.0, f64::max);
        let (least, most) = self.scale_type.range();
        let unit = if largest > 0.0 { (largest / f64::from(most)) as f32 } else { 1.0 };
        // The least scale is to be a normal number.
        Target { unit: unit.max(f32::MIN_POSITIVE / least), ..self }
    }

    /// The lowest and the highest code.
    pub fn code_range(&self) -> (i32, i32) {
        (self.qmin, self.qmax)
    }

    /// The lowest and the highest level, less a zero point that is fixed.
    pub(crate) fn ends(&self) -> (f32, f32) {
        self.ends
    }

    /// The same around a zero point.
    pub(crate) fn levels_around(&self, zero_point: i32) -> (f32, f32) {
        match self.fixed {
            Some(_) => self.ends,
            None => ((self.qmin - zero_point) as f32, (self.qmax - zero_point) as f32),
        }
    }

    /// Whether a negative scale gives other levels, and may be fitted: the levels reach farther on one side of 0, and
    /// the scale type has a sign.
    pub fn lopsided(&self) -> bool {
        self.lopsided
    }

    /// The format of the codes.
    pub(crate) fn format(&self) -> &'static dyn Format {
        self.format
    }

    /// The type of the scales.
    pub(crate) fn scale_type(&self) -> ScaleType {
        self.scale_type
    }

    /// The largest magnitude that a code less its zero point can have.
    pub(crate) fn spread(&self) -> usize {
        let widest = match self.fixed {
            Some(zero) => zero.abs_diff(self.qmin).max(zero.abs_diff(self.qmax)),
            None => self.qmax.abs_diff(self.qmin),
        };
        widest as usize
    }

    /// A positive scale as it is stored.
    #[inline]
    pub(crate) fn stored(&self, scale: f32) -> f32 {
        self.scale_type.round(scale / self.unit) * self.unit
    }

    /// The next smaller scale, where types have few: those of a byte.
    #[inline]
    pub(crate) fn below(&self, scale: f32) -> f32 {
        self.scale_type.below(scale / self.unit) * self.unit
    }

    /// `scale`, or the largest below it with which every level, at most `widest`, is finite.
    #[inline]
    pub(crate) fn finite(&self, scale: f32, widest: f32) -> f32 {
        if (scale * widest).is_finite() {
            return scale;
        }
        let limit = f64::from(f32::MAX) / f64::from(widest) / f64::from(self.unit);
        let scale = self.scale_type.floor(limit) * self.unit;
        // The product with the unit is rounded, and may have been rounded up.
        if (scale * widest).is_finite() { scale } else { self.below(scale) }
    }

    /// Whether the zero point is fixed.
    pub(crate) fn symmetric(&self) -> bool {
        self.fixed.is_some()
    }

    /// The exact scale with which a fixed zero point holds both ends, 1 if that is enough for a cast.
    #[inline]
    fn needed(&self, lo: f64, hi: f64) -> f64 {
        let needed = |end: f64, level: f32| if level == 0.0 { 0.0 } else { end / f64::from(level) };
        let least = if self.rule == Rule::Cast { 1.0 } else { 0.0 };
        needed(hi, self.ends.1).max(needed(lo, self.ends.0)).max(least)
    }

    /// The scale of a fixed zero point.
    #[inline]
    fn even(&self, lo: f64, hi: f64) -> f32 {
        let needed = self.needed(lo, hi);
        match self.rule {
            Rule::Hold | Rule::Cast => self.stored(needed as f32),
            Rule::Floor => {
                // Exponents of float64, where neither a float32 nor a level is subnormal.
                let exponent = |x: f64| (x.to_bits() >> 52) as i32 - 1023;
                let power = exponent(hi.max(-lo)) - exponent(f64::from(self.ends.1));
                self.stored(2f32.powi(power.clamp(-126, 127)))
            }
        }
    }
}

/// Scale and zero point of one cell with the finite range `lo`, `hi`.
#[inline]
pub(crate) fn one(lo: f32, hi: f32, target: &Target) -> (f32, i32) {
    let &Target { qmin, qmax, fixed, .. } = target;
    let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
    if lo == 0.0 && hi == 0.0 {
        // Zero is a code of every integer; only an unsigned narrow range starts above it. Where it is no level, the
        // smallest scale comes nearest.
        let scale = if target.has_zero { target.stored(1.0) } else { target.stored(0.0) };
        return (scale, fixed.unwrap_or(0).clamp(qmin, qmax));
    }
    if let Some(zero_point) = fixed {
        let (lowest, highest) = target.ends;
        return (target.finite(target.even(lo, hi), highest.max(-lowest)), zero_point);
    }
    let scale = target.stored(((hi - lo) / f64::from(qmax - qmin)) as f32);
    let zero_point = (f64::from(qmin) - lo / f64::from(scale)).round_ties_even();
    let zero_point = zero_point.clamp(f64::from(qmin), f64::from(qmax)) as i32;
    let widest = (qmax - zero_point).max(zero_point - qmin) as f32;
    (target.finite(scale, widest), zero_point)
}

/// Scales and zero points of cells with ranges `lo`, `hi`.
///
/// ```
/// use qrs_core::{ScaleType, Target, format, qparams};
/// let target = Target::new(format::find("uint8")?, false, false, ScaleType::Float32)?;
/// let (scale, zero_point) = qparams(&[-1.0, 0.0], &[1.55, 0.0], &target)?;
/// assert_eq!((scale[0], zero_point[0]), (0.01, 100));
/// assert_eq!((scale[1], zero_point[1]), (1.0, 0));
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `lo` and `hi` differ in length, hold a number that is not finite, or are the wrong way round.
pub fn qparams(lo: &[f32], hi: &[f32], target: &Target) -> Result<(Vec<f32>, Vec<i32>), Error> {
    if lo.len() != hi.len() {
        let expected = format!("({},) as lo has", lo.len());
        return Err(Error::Shape { what: "hi", got: vec![hi.len()], expected });
    }
    let ranges = || lo.iter().copied().zip(hi.iter().copied());
    let wrong = |(lo, hi): &(f32, f32)| !(lo <= hi && lo.is_finite() && hi.is_finite());
    if let Some((cell, (lo, hi))) = ranges().enumerate().find(|(_, range)| wrong(range)) {
        return Err(Error::Value {
            what: "range",
            got: format!("[{lo:?}, {hi:?}] at index {cell}"),
            expected: "finite lo and hi with lo <= hi".into(),
        });
    }
    let target = target.shared(ranges());
    let (mut scale, mut zero_point) = (mem::zeroed(lo.len())?, mem::zeroed(lo.len())?);
    for (cell, (lo, hi)) in ranges().enumerate() {
        (scale[cell], zero_point[cell]) = one(lo, hi, &target);
    }
    Ok((scale, zero_point))
}

/// Scale and zero point of every cell of a grid.
#[derive(Debug, Clone, Copy)]
pub struct QParams<'a> {
    /// Normal numbers. Those of a range are positive.
    pub scale: &'a [f32],
    /// The codes of 0.0; 0 for formats other than integers.
    pub zero_point: &'a [i32],
    /// The level of each code, ascending, where the format is learned; otherwise none.
    pub levels: &'a [f32],
}

impl QParams<'_> {
    /// Whether there is one of each for every one of `cells` cells, each legal.
    ///
    /// # Errors
    /// The first that is not, by its index.
    pub(crate) fn check(
        &self,
        cells: usize,
        format: &'static dyn Format,
        (qmin, qmax): (i32, i32),
    ) -> Result<(), Error> {
        let spacing = format.spacing();
        let levels = if matches!(spacing, Spacing::Learned) { 1 << format.bits() } else { 0 };
        if self.levels.len() != levels {
            return Err(Error::Shape {
                what: "levels",
                got: vec![self.levels.len()],
                expected: format!("({levels},) for {}", format.name()),
            });
        }
        if let Some(at) = self.levels.iter().position(|level| !level.is_finite()) {
            return Err(Error::Value {
                what: "levels",
                got: format!("{:?} at index {at}", self.levels[at]),
                expected: "finite numbers".into(),
            });
        }
        let (qmin, qmax) = if spacing.is_uniform() { (qmin, qmax) } else { (0, 0) };
        let cells = if matches!(spacing, Spacing::Blocks(_)) { 0 } else { cells };
        for (what, len) in [("scale", self.scale.len()), ("zero_point", self.zero_point.len())] {
            if len != cells {
                return Err(Error::Shape {
                    what,
                    got: vec![len],
                    expected: format!("({cells},), one for each cell"),
                });
            }
        }
        if let Some(cell) = self.scale.iter().position(|scale| !scale.is_normal()) {
            return Err(Error::Value {
                what: "scale",
                got: format!("{:?} at index {cell}", self.scale[cell]),
                expected: "finite numbers of at least 1.1754944e-38 in magnitude".into(),
            });
        }
        if let Some(cell) = self.zero_point.iter().position(|z| !(qmin..=qmax).contains(z)) {
            return Err(Error::Value {
                what: "zero_point",
                got: format!("{} at index {cell}", self.zero_point[cell]),
                expected: format!("codes from {qmin} to {qmax}"),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;
    use proptest::prelude::*;

    fn target(name: &str, symmetric: bool, narrow: bool) -> Target {
        Target::new(format::find(name).unwrap(), symmetric, narrow, ScaleType::Float32).unwrap()
    }

    #[test]
    fn symmetric_scales_hold_both_ends() {
        assert_eq!(one(-0.5, 1.0, &target("int8", true, true)), (1.0 / 127.0, 0));
        assert_eq!(one(-0.5, 1.0, &target("int8", true, false)), (1.0 / 127.0, 0));
        assert_eq!(one(-8.0, 6.0, &target("int4", true, false)), (1.0, 0));
        assert_eq!(one(-8.0, 7.7, &target("int4", true, false)), ((7.7f32 as f64 / 7.0) as f32, 0));
        assert_eq!(one(-4.0, 1.0, &target("uint4", true, false)), (0.5, 8));
        assert_eq!(one(-3.0, 5.0, &target("int1", true, false)), (3.0, 0));
    }

    #[test]
    fn asymmetric_ranges_include_zero() {
        assert_eq!(one(0.0, 255.0, &target("uint8", false, false)), (1.0, 0));
        assert_eq!(one(3.0, 255.0, &target("uint8", false, false)), (1.0, 0));
        assert_eq!(one(-255.0, -3.0, &target("uint8", false, false)), (1.0, 255));
        assert_eq!(one(-1.0, 14.0, &target("int4", false, false)), (1.0, -7));
        assert_eq!(one(-0.5, 14.5, &target("uint4", false, false)), (1.0, 0));
    }

    #[test]
    fn ranges_without_width_and_of_any_size_have_an_answer() {
        for (name, symmetric, zero_point) in [("int8", true, 0), ("int8", false, 0), ("uint8", true, 128)] {
            assert_eq!(one(0.0, 0.0, &target(name, symmetric, false)), (1.0, zero_point));
            assert_eq!(one(-0.0, 0.0, &target(name, symmetric, false)), (1.0, zero_point));
            assert_eq!(one(0.0, 1e-44, &target(name, symmetric, false)).0, f32::MIN_POSITIVE);
        }
        assert_eq!(one(0.0, 0.0, &target("uint8", false, true)), (1.0, 1));
        // Rounded to nearest, the quotients by 127 and 127.5 would give values beyond float32.
        assert_eq!(one(f32::MIN, f32::MAX, &target("int8", true, true)), (2.679_388_4e36, 0));
        assert_eq!(one(f32::MIN, f32::MAX, &target("uint8", false, false)), (f32::MAX / 128.0, 128));
        assert_eq!(one(f32::MIN, f32::MAX, &target("uint1", false, false)).0, f32::MAX);
    }

    #[test]
    fn every_code_has_a_finite_value() {
        let ends = [0.0, 0.1, 0.25, 1.0 / 3.0, 0.5, 0.9, 1.0].map(|part: f32| part * f32::MAX);
        for (format, &kind) in format::TABLE.iter().flat_map(|f| ScaleType::ALL.iter().map(move |k| (*f, k)))
        {
            for symmetric in [false, true] {
                let Ok(target) = Target::new(format, symmetric, false, kind) else { continue };
                for (lo, hi) in ends.iter().flat_map(|lo| ends.iter().map(move |hi| (-lo, *hi))) {
                    let (scale, zero_point) = one(lo, hi, &target);
                    let (low, high) = target.levels_around(zero_point);
                    for level in [low, high] {
                        assert!((scale * level).is_finite(), "{} {kind:?} {lo} {hi}", format.name());
                    }
                    assert_eq!(kind.round(scale), scale);
                }
            }
        }
    }

    #[test]
    fn scales_are_numbers_of_their_type() {
        let int8 = format::find("int8").unwrap();
        let of = |hi: f32, kind| one(0.0, hi, &Target::new(int8, true, true, kind).unwrap()).0;
        let half = |x: f32| half::f16::from_f32(x).to_f32();
        assert_eq!(of(0.1, ScaleType::Float16), half((0.1f32 as f64 / 127.0) as f32));
        assert_eq!(of(1e-6, ScaleType::Float16), 2f32.powi(-14));
        assert_eq!(of(3e38, ScaleType::Float16), 65504.0);
        assert_eq!(of(127.0 * (1.0 + 1.0 / 256.0), ScaleType::BFloat16), 1.0);
        assert_eq!(of(f32::MAX, ScaleType::BFloat16), half::bf16::from_f32(f32::MAX / 127.0).to_f32());
        for &kind in ScaleType::ALL {
            assert_eq!(ScaleType::from_name(kind.name()), Ok(kind));
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        let target = target("int8", true, true);
        let text = |lo: &[f32], hi: &[f32]| qparams(lo, hi, &target).unwrap_err().to_string();
        assert_eq!(text(&[0.0; 2], &[0.0]), "hi has shape (1,), expected (2,) as lo has");
        assert!(text(&[0.0, 3.0], &[1.0, 2.0]).starts_with("range is [3.0, 2.0] at index 1"));
        assert!(text(&[f32::NAN], &[1.0]).starts_with("range is [NaN, 1.0] at index 0"));
        assert!(text(&[0.0], &[f32::INFINITY]).starts_with("range is [0.0, inf] at index 0"));
        let check = |scale: f32, zero_point| {
            let params = QParams { scale: &[1.0, scale], zero_point: &[0, zero_point], levels: &[] };
            params.check(2, format::find("uint8").unwrap(), (0, 255)).unwrap_err().to_string()
        };
        for (scale, text) in [(0.0, "0.0"), (f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e-39, "1e-39")] {
            assert!(check(scale, 0).starts_with(&format!("scale is {text} at index 1")));
        }
        assert_eq!(check(1.0, 300), "zero_point is 300 at index 1, expected codes from 0 to 255");
        let params = QParams { scale: &[1.0], zero_point: &[0, 0], levels: &[] };
        assert_eq!(
            params.check(2, format::find("uint1").unwrap(), (0, 1)).unwrap_err().to_string(),
            "scale has shape (1,), expected (2,), one for each cell"
        );
    }

    proptest! {
        #[test]
        fn both_ends_are_reached_within_half_a_step(
            lo in -1e30f32..1e30, width in 0f32..1e30, index in 0..format::TABLE.len(), symmetric: bool,
        ) {
            let format = format::TABLE[index];
            prop_assume!(format.bits() > 1);
            prop_assume!(format.defaults().block.is_none());
            let symmetric = symmetric || !format.spacing().is_uniform();
            let target = Target::new(format, symmetric, false, ScaleType::Float32).unwrap();
            let (scale, zero_point) = one(lo, lo + width, &target);
            let (qmin, qmax) = target.code_range();
            prop_assert!(scale.is_normal() && (qmin..=qmax).contains(&zero_point));
            let slack = |level: f32| (f64::from(level) * 1e-6).abs() + if symmetric { 1e-4 } else { 0.5 };
            let (low, high) = target.levels_around(zero_point);
            prop_assert!(f64::from(lo.min(0.0)) / f64::from(scale) >= f64::from(low) - slack(low));
            prop_assert!(f64::from((lo + width).max(0.0)) / f64::from(scale) <= f64::from(high) + slack(high));
        }
    }
}
