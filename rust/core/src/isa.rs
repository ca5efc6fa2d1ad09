//! The instruction sets: one table makes the names, the detection, the compiled variants and the attributes.
//!
//! This is the only file that names a CPU feature. A row is a cluster of features that CPUs carry together;
//! rows are in ascending order, and a higher row implies the lower ones.
//!
//! Two ways lead from here to vector code. Elementwise work is an [`Op`]: one body, compiled once per row by
//! [`Isa::run`] and vectorised by the compiler. GEMM tiles are written per row with intrinsics, inside the
//! attribute macro of the row's name (`avx2! { fn tile() { … } }`), where intrinsics are safe calls.

use crate::error::Error;
use std::sync::atomic::{AtomicU8, Ordering};

/// Work whose one body is compiled for every instruction set.
///
/// `run` must be `#[inline(always)]`, and so must whatever it calls in its loops: only inlined code takes on
/// the features of the row.
pub(crate) trait Op {
    type Output;
    /// The instruction sets to compile for, one bit each; the others are never asked to run it.
    const ISAS: u8 = u8::MAX;
    fn run(self) -> Self::Output;
}

macro_rules! isas {
    ($d:tt $($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $variant:ident $attribute:ident [$($feature:tt),*];)*) => {
        /// An instruction set that kernels are compiled for, in ascending order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Isa { $($(#[doc = $doc])* $(#[cfg($cfg)])? $variant,)* }

        impl Isa {
            /// Every instruction set this build has code for.
            pub const ALL: &'static [Isa] = &[$($(#[cfg($cfg)])? Isa::$variant,)*];

            /// The name, as `QRS_ISA` and `qrs.set_isa` take it.
            pub fn name(self) -> &'static str {
                match self { $($(#[cfg($cfg)])? Isa::$variant => stringify!($attribute),)* }
            }

            /// Whether this CPU and operating system run it.
            pub fn supported(self) -> bool {
                match self {
                    $($(#[cfg($cfg)])? Isa::$variant => true $(&& std::is_x86_feature_detected!($feature))*,)*
                }
            }

            /// Runs `op` compiled for this instruction set.
            ///
            /// # Panics
            /// This CPU lacks it, or `op` is not compiled for it. [`Isa::active`] gives none that the CPU lacks.
            #[inline]
            pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
                assert!(self.supported() && O::ISAS & self.bit() != 0, "{self:?} cannot run this");
                match self {
                    // The condition is constant: what it rules out is not compiled.
                    $($(#[cfg($cfg)])? Isa::$variant if O::ISAS & Isa::$variant.bit() != 0 => {
                        $(#[target_feature(enable = $feature)])*
                        fn compiled<O: Op>(op: O) -> O::Output {
                            op.run()
                        }
                        // SAFETY: the features of this row were found present by `supported` just above.
                        #[allow(unused_unsafe, reason = "the baseline row needs no feature")]
                        unsafe { compiled(op) }
                    })*
                    _ => unreachable!("ruled out above"),
                }
            }
        }

        $($(#[cfg($cfg)])?
        /// Gives each function inside the features of this row.
        #[allow(unused_macros, reason = "not every row has hand-written kernels")]
        macro_rules! $attribute {
            ($d($d item:item)*) => { $d($(#[target_feature(enable = $feature)])* $d item)* };
        }
        $(#[cfg($cfg)])?
        #[allow(unused_imports, reason = "not every row has hand-written kernels")]
        pub(crate) use $attribute;)*
    };
}

isas! { $
    /// What the compiler's target guarantees: SSE2 on x86-64, NEON on aarch64.
    Portable portable [];
    /// AVX2 with fused multiply-add and half-precision conversion: Haswell, Zen and later.
    #[cfg(target_arch = "x86_64")]
    Avx2 avx2 ["avx2", "fma", "f16c"];
    /// 512-bit vectors with byte, double-word and 256-bit forms: Skylake-X and later.
    #[cfg(target_arch = "x86_64")]
    Avx512 avx512 ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"];
    /// AVX-512 with 8-bit dot products: Cascade Lake, Ice Lake, Zen 4 and later.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni avx512vnni ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"];
}

/// The forced or detected instruction set plus one; 0 until the first call.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

impl Isa {
    /// The bit of this instruction set in [`Op::ISAS`].
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The instruction sets this machine runs, in ascending order.
    pub fn available() -> Vec<Isa> {
        Self::ALL.iter().copied().filter(|isa| isa.supported()).collect()
    }

    /// The highest instruction set this machine runs.
    pub fn detected() -> Isa {
        Self::available().last().copied().unwrap_or(Isa::Portable)
    }

    /// The instruction set in use: the last [`Isa::force`], else `QRS_ISA`, else [`Isa::detected`].
    ///
    /// # Errors
    /// `QRS_ISA` names an instruction set that does not exist or that this machine does not run.
    pub fn active() -> Result<Isa, Error> {
        match ACTIVE.load(Ordering::Relaxed) {
            0 => {
                let isa = match std::env::var("QRS_ISA") {
                    Ok(name) if !name.is_empty() => Self::available_named("QRS_ISA", &name)?,
                    _ => Self::detected(),
                };
                ACTIVE.store(isa as u8 + 1, Ordering::Relaxed);
                Ok(isa)
            }
            stored => Ok(Self::ALL[usize::from(stored) - 1]),
        }
    }

    /// Uses the instruction set of this name from now on, in every thread.
    ///
    /// # Errors
    /// The name does not exist, or this machine does not run it; the message lists those that it does.
    pub fn force(name: &str) -> Result<Isa, Error> {
        let isa = Self::available_named("isa", name)?;
        ACTIVE.store(isa as u8 + 1, Ordering::Relaxed);
        Ok(isa)
    }

    fn available_named(what: &'static str, name: &str) -> Result<Isa, Error> {
        let available = Self::available();
        available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| Error::Unknown {
            what,
            got: name.to_owned(),
            known: available.iter().map(|isa| isa.name()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_ascend_and_the_baseline_is_always_there() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Portable);
        assert!(available.is_sorted());
        assert!(Isa::ALL.iter().enumerate().all(|(i, isa)| *isa as usize == i));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list() {
        let error = Isa::force("avx1024").unwrap_err().to_string();
        assert!(error.contains("avx1024") && error.contains("portable"), "{error}");
    }

    #[test]
    fn every_row_runs_the_same_body() {
        struct Sum<'a>(&'a [f32]);
        impl Op for Sum<'_> {
            type Output = f32;
            #[inline(always)]
            fn run(self) -> f32 {
                self.0.iter().sum()
            }
        }
        let x: Vec<f32> = (0..100).map(|i| i as f32).collect();
        for isa in Isa::available() {
            assert_eq!(isa.run(Sum(&x)), 4950.0);
        }
    }
}
