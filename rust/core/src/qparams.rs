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
use crate::format::Format;
use crate::mem;
use half::{bf16, f16};

macro_rules! scale_types {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal |$v:ident| $round:expr, $range:expr;)*) => {
        /// The float type that scales are rounded to. They are stored as float32 all the same.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ScaleType { $($(#[doc = $doc])* $variant,)* }

        impl ScaleType {
            /// Every scale type.
            pub const ALL: &'static [ScaleType] = &[$(Self::$variant,)*];

            /// The name in Python and in files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// `scale` rounded half to even, within the smallest normal and the largest finite number.
            #[inline]
            fn round(self, scale: f32) -> f32 {
                let (rounded, (least, most)): (f32, (f32, f32)) = match self {
                    $(Self::$variant => { let $v = scale; ($round, $range) })*
                };
                rounded.clamp(least, most)
            }
        }
    };
}

scale_types! {
    /// 24 significant bits.
    Float32 "float32" |v| v, (f32::MIN_POSITIVE, f32::MAX);
    /// IEEE half precision: 11 significant bits, 6.1e-5 to 65504.
    Float16 "float16" |v| f16::from_f32(v).to_f32(), (f16::MIN_POSITIVE.to_f32(), f16::MAX.to_f32());
    /// The upper half of a float32: 8 significant bits.
    BFloat16 "bfloat16" |v| bf16::from_f32(v).to_f32(), (bf16::MIN_POSITIVE.to_f32(), bf16::MAX.to_f32());
}

impl ScaleType {
    /// The scale type of this name.
    ///
    /// # Errors
    /// There is none; the message lists them.
    pub fn from_name(name: &str) -> Result<ScaleType, Error> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| Error::Unknown {
            what: "scale_dtype",
            got: name.to_owned(),
            known: Self::ALL.iter().map(|kind| kind.name()).collect(),
        })
    }

    /// The largest number of this type up to `limit`, which lies within its range or above.
    fn floor(self, limit: f64) -> f32 {
        let nearest = self.round(limit as f32);
        if f64::from(nearest) <= limit {
            return nearest;
        }
        // It was rounded up, so its neighbour is below; a float16 is never rounded up here.
        let unit = if self == ScaleType::BFloat16 { 1 << 16 } else { 1 };
        f32::from_bits(nearest.to_bits() - unit)
    }
}

/// What a range is to be mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    qmin: i32,
    qmax: i32,
    /// The zero point where it is fixed, that is where the target is symmetric.
    fixed: Option<i32>,
    scale_type: ScaleType,
}

impl Target {
    /// The codes of `format`, without the lowest one if `narrow`; the zero point fixed in the middle
    /// (`symmetric`: 0, or 2^(bits−1) for unsigned formats) or free.
    ///
    /// # Errors
    /// See [`code_range`](crate::format::Format).
    pub fn new(
        format: &dyn Format,
        symmetric: bool,
        narrow: bool,
        scale_type: ScaleType,
    ) -> Result<Target, Error> {
        let (qmin, qmax) = format.code_range(narrow)?;
        let middle = if format.signed() { 0 } else { 1 << (format.bits() - 1) };
        Ok(Target { qmin, qmax, fixed: symmetric.then_some(middle), scale_type })
    }

    /// The lowest and the highest code.
    pub fn code_range(&self) -> (i32, i32) {
        (self.qmin, self.qmax)
    }

    /// The largest magnitude that a code less its zero point can have.
    pub(crate) fn spread(&self) -> usize {
        let widest = match self.fixed {
            Some(zero) => zero.abs_diff(self.qmin).max(zero.abs_diff(self.qmax)),
            None => self.qmax.abs_diff(self.qmin),
        };
        widest as usize
    }

    /// `scale`, or the largest below it with which every code has a finite value.
    #[inline]
    fn finite(&self, scale: f32, zero_point: i32) -> f32 {
        let steps = (self.qmax - zero_point).max(zero_point - self.qmin);
        if (scale * steps as f32).is_finite() {
            return scale;
        }
        self.scale_type.floor(f64::from(f32::MAX) / f64::from(steps))
    }

    /// Whether the zero point is fixed.
    pub(crate) fn symmetric(&self) -> bool {
        self.fixed.is_some()
    }
}

/// Scale and zero point of one cell with the finite range `lo`, `hi`.
#[inline]
pub(crate) fn one(lo: f32, hi: f32, target: &Target) -> (f32, i32) {
    let &Target { qmin, qmax, fixed, scale_type } = target;
    let (lo, hi) = (f64::from(lo.min(0.0)), f64::from(hi.max(0.0)));
    if lo == 0.0 && hi == 0.0 {
        // Zero is a code of every format; only an unsigned narrow range starts above it.
        return (1.0, fixed.unwrap_or(0).clamp(qmin, qmax));
    }
    if let Some(zero_point) = fixed {
        let needed = |end: f64, steps: i32| if steps == 0 { 0.0 } else { end / f64::from(steps) };
        let scale = needed(hi, qmax - zero_point).max(needed(lo, qmin - zero_point));
        return (target.finite(scale_type.round(scale as f32), zero_point), zero_point);
    }
    let scale = scale_type.round(((hi - lo) / f64::from(qmax - qmin)) as f32);
    let zero_point = (f64::from(qmin) - lo / f64::from(scale)).round_ties_even();
    let zero_point = zero_point.clamp(f64::from(qmin), f64::from(qmax)) as i32;
    (target.finite(scale, zero_point), zero_point)
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
    let (mut scale, mut zero_point) = (mem::zeroed(lo.len())?, mem::zeroed(lo.len())?);
    for (cell, (&lo, &hi)) in lo.iter().zip(hi).enumerate() {
        if !(lo <= hi && lo.is_finite() && hi.is_finite()) {
            return Err(Error::Value {
                what: "range",
                got: format!("[{lo:?}, {hi:?}] at index {cell}"),
                expected: "finite lo and hi with lo <= hi".into(),
            });
        }
        (scale[cell], zero_point[cell]) = one(lo, hi, target);
    }
    Ok((scale, zero_point))
}

/// Scale and zero point of every cell of a grid.
#[derive(Debug, Clone, Copy)]
pub struct QParams<'a> {
    /// Positive normal numbers.
    pub scale: &'a [f32],
    /// The codes of 0.0.
    pub zero_point: &'a [i32],
}

impl QParams<'_> {
    /// Whether there is one of each for every one of `cells` cells, each legal.
    ///
    /// # Errors
    /// The first that is not, by its index.
    pub(crate) fn check(&self, cells: usize, (qmin, qmax): (i32, i32)) -> Result<(), Error> {
        for (what, len) in [("scale", self.scale.len()), ("zero_point", self.zero_point.len())] {
            if len != cells {
                return Err(Error::Shape {
                    what,
                    got: vec![len],
                    expected: format!("({cells},), one for each cell"),
                });
            }
        }
        if let Some(cell) = self.scale.iter().position(|s| !(*s >= f32::MIN_POSITIVE && *s <= f32::MAX)) {
            return Err(Error::Value {
                what: "scale",
                got: format!("{:?} at index {cell}", self.scale[cell]),
                expected: "finite numbers of at least 1.1754944e-38".into(),
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
                let target = Target::new(format, symmetric, false, kind).unwrap();
                for (lo, hi) in ends.iter().flat_map(|lo| ends.iter().map(move |hi| (-lo, *hi))) {
                    let (scale, zero_point) = one(lo, hi, &target);
                    for code in [target.qmin, target.qmax] {
                        assert!(
                            (scale * (code - zero_point) as f32).is_finite(),
                            "{} {kind:?} {lo} {hi}",
                            format.name()
                        );
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
        assert_eq!(of(0.1, ScaleType::Float16), f16::from_f32((0.1f32 as f64 / 127.0) as f32).to_f32());
        assert_eq!(of(1e-6, ScaleType::Float16), 2f32.powi(-14));
        assert_eq!(of(3e38, ScaleType::Float16), 65504.0);
        assert_eq!(of(127.0 * (1.0 + 1.0 / 256.0), ScaleType::BFloat16), 1.0);
        assert_eq!(of(f32::MAX, ScaleType::BFloat16), bf16::from_f32(f32::MAX / 127.0).to_f32());
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
            let params = QParams { scale: &[1.0, scale], zero_point: &[0, zero_point] };
            params.check(2, (0, 255)).unwrap_err().to_string()
        };
        for (scale, text) in
            [(0.0, "0.0"), (-1.0, "-1.0"), (f32::NAN, "NaN"), (f32::INFINITY, "inf"), (1e-39, "1e-39")]
        {
            assert!(check(scale, 0).starts_with(&format!("scale is {text} at index 1")));
        }
        assert_eq!(check(1.0, 300), "zero_point is 300 at index 1, expected codes from 0 to 255");
        let params = QParams { scale: &[1.0], zero_point: &[0, 0] };
        assert_eq!(
            params.check(2, (0, 1)).unwrap_err().to_string(),
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
            let target = Target::new(format, symmetric, false, ScaleType::Float32).unwrap();
            let (scale, zero_point) = one(lo, lo + width, &target);
            let (qmin, qmax) = target.code_range();
            prop_assert!(scale.is_normal() && (qmin..=qmax).contains(&zero_point));
            let slack = 0.5 + 1e-4;
            prop_assert!(f64::from(lo.min(0.0)) / f64::from(scale) >= f64::from(qmin - zero_point) - slack);
            prop_assert!(f64::from((lo + width).max(0.0)) / f64::from(scale) <= f64::from(qmax - zero_point) + slack);
        }
    }
}
