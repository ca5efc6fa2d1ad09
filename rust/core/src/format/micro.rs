//! Formats whose standard says how many elements share a scale, and what that is.
//!
//! - Microscaling (OCP MX v1.0, 2023): 32 elements share a power of two, 2^(⌊log₂ max |x|⌋ − ⌊log₂ top⌋), with `top` the
//!   largest level. So a scale is never too large by a factor of two, but the largest elements may saturate. MXINT8
//!   counts its levels in units of 2⁻⁶; here it is the scale that holds this factor.
//! - NVFP4 (NVIDIA 2025, arXiv:2509.25149): 16 elements share a float8_e4m3fn, and all of the tensor a float32.

#![forbid(unsafe_code)]

use super::{Defaults, Format, ScaleType, Spacing, float};
use crate::format::int::Int;

/// The levels of another format in blocks of a fixed size.
pub(super) struct Micro {
    name: &'static str,
    element: &'static dyn Format,
    block: (usize, Option<ScaleType>),
}

const fn mx(name: &'static str, element: &'static dyn Format) -> Micro {
    Micro { name, element, block: (32, Some(ScaleType::E8M0)) }
}

pub(super) static MXFP4: Micro = mx("mxfp4", &float::FLOAT4_E2M1FN);
pub(super) static MXFP6_E2M3: Micro = mx("mxfp6_e2m3", &float::FLOAT6_E2M3FN);
pub(super) static MXFP6_E3M2: Micro = mx("mxfp6_e3m2", &float::FLOAT6_E3M2FN);
pub(super) static MXFP8_E4M3: Micro = mx("mxfp8_e4m3", &float::FLOAT8_E4M3FN);
pub(super) static MXFP8_E5M2: Micro = mx("mxfp8_e5m2", &float::FLOAT8_E5M2);
pub(super) static MXINT8: Micro = mx("mxint8", &Int::signed("int8", 8));
pub(super) static NVFP4: Micro =
    Micro { name: "nvfp4", element: &float::FLOAT4_E2M1FN, block: (16, Some(ScaleType::E4M3)) };

impl Format for Micro {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bits(&self) -> u32 {
        self.element.bits()
    }

    fn codes(&self) -> (i32, i32) {
        self.element.codes()
    }

    fn level(&self, code: i32) -> f32 {
        self.element.level(code)
    }

    fn spacing(&'static self) -> Spacing {
        self.element.spacing()
    }

    fn defaults(&self) -> Defaults {
        Defaults { block: Some(self.block), ..Defaults::default() }
    }
}
