//! The instruction sets: one table makes the names, the detection, the compiled variants and the attributes.
//!
//! This is the only file that names a CPU feature. A row is a cluster of features that CPUs carry together. One
//! instruction set includes another if it has all of its features: AVX2 is part of both AVX-VNNI and AVX-512,
//! which are no part of each other. Code compiled for a row runs on every row that includes it, so a forced
//! instruction set uses its own features and nothing beyond them.
//!
//! Two ways lead from here to vector code. Elementwise work is an [`Op`]: one body, compiled once per row by
//! [`Isa::run`] and vectorised by the compiler. GEMM tiles are written per row with intrinsics, inside the
//! attribute macro of the row's name (`avx2! { fn tile() { … } }`), where intrinsics are safe calls.

use crate::error::Error;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether this CPU and operating system have a feature.
#[cfg(target_arch = "x86_64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}

macro_rules! isas {
    ($d:tt $($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $variant:ident $attribute:ident [$($feature:tt),*];)*) => {
        /// An instruction set that kernels are compiled for; where a CPU has several, the last is the fastest.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
                    $($(#[cfg($cfg)])? Isa::$variant => true $(&& detected!($feature))*,)*
                }
            }

            /// The instruction sets that this one includes, itself among them, one bit each.
            const fn included(self) -> u8 {
                const ROWS: &[&[&str]] = &[$($(#[cfg($cfg)])? &[$($feature),*],)*];
                const INCLUDED: [u8; ROWS.len()] = included(ROWS);
                INCLUDED[self as usize]
            }

            /// Runs `op` compiled for this instruction set, or for the fastest of those in it that `op` is compiled for.
            ///
            /// # Panics
            /// This CPU lacks it, or `op` is compiled for none in it. [`Isa::active`] gives none that the CPU lacks.
            #[inline]
            pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
                let rows = self.included() & O::ISAS;
                assert!(self.supported() && rows != 0, "{self:?} cannot run this");
                match Isa::ALL[rows.ilog2() as usize] {
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

/// For each row of features, the rows whose features it has.
const fn included<const N: usize>(rows: &[&[&str]]) -> [u8; N] {
    let mut out = [0; N];
    let mut row = 0;
    while row < N {
        let mut other = 0;
        while other < N {
            let mut held = 0;
            while held < rows[other].len() && contains(rows[row], rows[other][held]) {
                held += 1;
            }
            if held == rows[other].len() {
                out[row] |= 1 << other;
            }
            other += 1;
        }
        row += 1;
    }
    out
}

/// Whether a feature is in the list; constants can neither iterate nor compare strings.
const fn contains(list: &[&str], feature: &str) -> bool {
    let mut at = 0;
    while at < list.len() {
        let (a, b) = (list[at].as_bytes(), feature.as_bytes());
        let mut same = 0;
        while same < a.len() && same < b.len() && a[same] == b[same] {
            same += 1;
        }
        if same == a.len() && same == b.len() {
            return true;
        }
        at += 1;
    }
    false
}

isas! { $
    /// What the compiler's target guarantees, with no kernels written for it: SSE2 on x86-64, NEON on aarch64.
    Portable portable [];
    /// AVX2 with fused multiply-add and half-precision conversion: Haswell, Zen and later.
    #[cfg(target_arch = "x86_64")]
    Avx2 avx2 ["avx2", "fma", "f16c"];
    /// AVX2 with 8-bit dot products: Alder Lake and later Core, Zen 5. Where there is AVX-512 too, that is faster.
    #[cfg(target_arch = "x86_64")]
    AvxVnni avxvnni ["avx2", "fma", "f16c", "avxvnni"];
    /// 512-bit vectors with byte, double-word and 256-bit forms: Skylake-X and later.
    #[cfg(target_arch = "x86_64")]
    Avx512 avx512 ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"];
    /// AVX-512 with 8-bit dot products: Cascade Lake, Ice Lake, Zen 4 and later.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni avx512vnni ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"];
    /// NEON, which every 64-bit Arm CPU has: Cortex-A53, A72.
    #[cfg(target_arch = "aarch64")]
    Neon neon ["neon"];
    /// NEON with 8-bit dot products: Cortex-A55, A76, Neoverse N1, Apple M1 and later.
    #[cfg(target_arch = "aarch64")]
    NeonDot neondot ["neon", "dotprod"];
    /// NEON with 8-bit matrix products: Cortex-A510, A710, Neoverse V1, N2, Apple M2 and later.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm neoni8mm ["neon", "dotprod", "i8mm"];
}

/// Work whose one body is compiled for every instruction set.
///
/// `run` must be `#[inline(always)]`, and so must whatever it calls in its loops: only inlined code takes on
/// the features of the row.
pub(crate) trait Op {
    type Output;
    /// The instruction sets to compile for, one bit each. Loops that the compiler vectorises gain by wider vectors,
    /// not by dot products.
    const ISAS: u8 = Isa::WIDTHS;
    fn run(self) -> Self::Output;
}

/// The forced or detected instruction set plus one; 0 until the first call.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

impl Isa {
    /// Those whose vectors are wider than those of the rows before.
    #[cfg(target_arch = "x86_64")]
    const WIDTHS: u8 = Isa::Portable.bit() | Isa::Avx2.bit() | Isa::Avx512.bit();
    #[cfg(not(target_arch = "x86_64"))]
    const WIDTHS: u8 = Isa::Portable.bit();

    /// The bit of this instruction set in [`Op::ISAS`].
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether code compiled for `other` runs wherever this instruction set does.
    pub fn includes(self, other: Isa) -> bool {
        self.included() & other.bit() != 0
    }

    /// The instruction sets this machine runs, the fastest last.
    pub fn available() -> Vec<Isa> {
        Self::ALL.iter().copied().filter(|isa| isa.supported()).collect()
    }

    /// The fastest instruction set this machine runs.
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
        let known: Vec<_> = Self::available().into_iter().map(Isa::name).collect();
        match Self::ALL.iter().find(|isa| isa.name() == name) {
            Some(isa) if isa.supported() => Ok(*isa),
            Some(_) => Err(Error::Value {
                what,
                got: format!("{name:?}, which this CPU lacks"),
                expected: format!("one of: {}", known.join(", ")),
            }),
            None => Err(Error::Unknown { what, got: name.to_owned(), known }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_is_always_there_and_part_of_all() {
        assert_eq!(Isa::available()[0], Isa::Portable);
        for (i, isa) in Isa::ALL.iter().enumerate() {
            assert_eq!(*isa as usize, i);
            assert!(isa.includes(*isa) && isa.includes(Isa::Portable));
            // What a row includes stands above it in the table, so it is never taken for the faster one.
            assert!(Isa::ALL[i + 1..].iter().all(|later| !isa.includes(*later)));
            if isa.supported() {
                assert!(Isa::ALL.iter().all(|other| other.supported() || !isa.includes(*other)));
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn branches_do_not_include_each_other() {
        assert!(Isa::AvxVnni.includes(Isa::Avx2) && Isa::Avx512Vnni.includes(Isa::Avx2));
        assert!(Isa::Avx512Vnni.includes(Isa::Avx512));
        assert!(!Isa::Avx512Vnni.includes(Isa::AvxVnni) && !Isa::AvxVnni.includes(Isa::Avx512));
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
