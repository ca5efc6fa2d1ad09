//! Rounding modes, one scalar function each, and the random numbers of stochastic rounding.
//!
//! Every function is exact for |v| ≤ 2²² and is made of additions, comparisons and selections only, so the
//! compiler vectorises it on every instruction set (a call of `floor` would become a library call on SSE2).
//! Callers clamp first; no format of at most 16 bits has a code beyond that bound.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::isa::{Isa, Op};
use std::array::from_fn;
use std::marker::PhantomData;

/// 1.5 · 2²³: floats of this size are the integers, so adding it rounds half to even and leaves the integer in
/// the low bits.
const MAGIC: f32 = 12_582_912.0;

/// A number whose low 22 bits are those of the integer that `v`, |v| < 2²¹, rounds to, ties to even; without the
/// saturating conversion that does not vectorise.
#[inline(always)]
pub(crate) fn low_bits(v: f32) -> i32 {
    (v + MAGIC).to_bits() as i32
}

/// An integral `v`, |v| ≤ 2²², stays as it is, but for the sign of −0.0: the result never has one.
#[inline(always)]
pub(crate) fn half_even(v: f32) -> f32 {
    (v + MAGIC) - MAGIC
}

#[inline(always)]
fn floor(v: f32) -> f32 {
    let near = half_even(v);
    near - if near > v { 1.0 } else { 0.0 }
}

#[inline(always)]
fn half_up(v: f32) -> f32 {
    let below = floor(v);
    below + if v - below >= 0.5 { 1.0 } else { 0.0 }
}

/// A rounding mode as a type, so that loops are compiled for each.
pub(crate) trait Mode {
    /// Whether the mode reads its random number.
    const RANDOM: bool;
    /// A number that rounds half to even to the integral neighbour of `v` that the mode picks: what follows may
    /// round and convert in one step. `u` is uniform in [0, 1).
    fn near(v: f32, u: f32) -> f32;

    /// The integral neighbour of `v` that the mode picks; never −0.0.
    #[inline(always)]
    fn round(v: f32, u: f32) -> f32 {
        half_even(Self::near(v, u))
    }
}

/// Work whose one body is compiled for every rounding mode and instruction set. As with [`Op`], `run` must be
/// `#[inline(always)]`.
pub(crate) trait ModeOp {
    type Output;
    fn run<M: Mode>(self) -> Self::Output;
}

struct InMode<O, M>(O, PhantomData<M>);

impl<O: ModeOp, M: Mode> Op for InMode<O, M> {
    type Output = O::Output;
    #[inline(always)]
    fn run(self) -> O::Output {
        self.0.run::<M>()
    }
}

macro_rules! roundings {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal random $random:literal |$v:ident, $u:ident| $near:expr;)*) => {
        /// How a value between two codes becomes one of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rounding { $($(#[doc = $doc])* $variant,)* }

        impl Rounding {
            /// Every mode.
            pub const ALL: &'static [Rounding] = &[$(Self::$variant,)*];

            /// The name in Python and in files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Runs `op` compiled for this mode and `isa`.
            pub(crate) fn run<O: ModeOp>(self, isa: Isa, op: O) -> O::Output {
                match self { $(Self::$variant => isa.run(InMode::<O, mode::$variant>(op, PhantomData)),)* }
            }
        }

        /// The modes as types.
        pub(crate) mod mode {
            $($(#[doc = $doc])* pub(crate) struct $variant;
            impl super::Mode for $variant {
                const RANDOM: bool = $random;
                #[inline(always)]
                fn near($v: f32, $u: f32) -> f32 { $near }
            })*
        }
    };
}

roundings! {
    /// To the nearest integer, ties to the even one.
    HalfEven "half_even" random false |v, _u| v;
    /// To the nearest integer, ties away from zero.
    HalfAway "half_away" random false |v, _u| super::half_up(v.abs()).copysign(v);
    /// To the nearest integer, ties upwards.
    HalfUp "half_up" random false |v, _u| super::half_up(v);
    /// To the integer below.
    Floor "floor" random false |v, _u| super::floor(v);
    /// To the integer above.
    Ceil "ceil" random false |v, _u| -super::floor(-v);
    /// To the neighbour nearer to zero.
    TowardZero "toward_zero" random false |v, _u| super::floor(v.abs()).copysign(v);
    /// Up with the probability of the fraction, so that the mean is kept.
    Stochastic "stochastic" random true |v, u| {
        let below = super::floor(v);
        below + if u < v - below { 1.0 } else { 0.0 }
    };
}

impl Rounding {
    /// [`run`](Self::run) for work that asks its mode only whether to draw: compiled for two of them.
    pub(crate) fn run_drawn<O: ModeOp>(self, isa: Isa, op: O) -> O::Output {
        if self == Rounding::Stochastic {
            isa.run(InMode::<O, mode::Stochastic>(op, PhantomData))
        } else {
            isa.run(InMode::<O, mode::HalfEven>(op, PhantomData))
        }
    }

    /// The mode of this name.
    ///
    /// # Errors
    /// There is none; the message lists them.
    pub fn from_name(name: &str) -> Result<Rounding, Error> {
        Self::ALL.iter().copied().find(|mode| mode.name() == name).ok_or_else(|| Error::Unknown {
            what: "rounding",
            got: name.to_owned(),
            known: Self::ALL.iter().map(|mode| mode.name()).collect(),
        })
    }
}

/// Blocks that [`philox`] makes at a time; with more, they no longer fit the registers (1.1 G numbers/s with 8,
/// 0.4 with 16, AVX2).
const BLOCKS: usize = 8;
/// Random numbers that [`philox`] makes at a time.
const WORDS: usize = 4 * BLOCKS;

/// Philox4x32-10 (Salmon et al. 2011): the four words of the blocks with counters `[a, b, c, d]`.
///
/// Counter-based: a word is a function of seed and position, so results hang neither on the number of threads
/// nor on how an array is split. Words are the lower halves of 64-bit lanes, whose upper halves hold anything:
/// that is how vectors multiply 32 by 32 bits, and it is 2.5 times as fast as packed words.
#[inline(always)]
fn philox<const N: usize>([mut a, mut b, mut c, mut d]: [[u64; N]; 4], seed: u64) -> [[u64; N]; 4] {
    let low = 0xffff_ffff;
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let p = a.map(|word| (word & low) * 0xD251_1F53);
        let q = c.map(|word| (word & low) * 0xCD9E_8D57);
        a = from_fn(|i| (q[i] >> 32) ^ b[i] ^ u64::from(key[0]));
        c = from_fn(|i| (p[i] >> 32) ^ d[i] ^ u64::from(key[1]));
        (b, d) = (q, p);
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    [a, b, c, d]
}

/// Fills `out` with the uniform numbers of the elements at flat index `index`, `index + 1`, …: the upper 24 bits
/// of word `index % 4` of block `index / 4`, times 2⁻²⁴.
#[inline(always)]
pub(crate) fn uniform(seed: u64, index: usize, out: &mut [f32]) {
    let mut done = 0;
    while done < out.len() {
        let skip = (index + done) % WORDS;
        let block = ((index + done - skip) / 4) as u64;
        let low = from_fn(|i| block + i as u64);
        let words = philox::<BLOCKS>([low, low.map(|counter| counter >> 32), [0; BLOCKS], [0; BLOCKS]], seed);
        let mut numbers = [0.0; WORDS];
        for (i, four) in numbers.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = from_fn(|k| (words[k][i] as u32 >> 8) as i32 as f32 * (1.0 / 16_777_216.0));
        }
        let count = (WORDS - skip).min(out.len() - done);
        out[done..done + count].copy_from_slice(&numbers[skip..skip + count]);
        done += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Each<'a>(&'a [f32], f32);
    impl ModeOp for Each<'_> {
        type Output = Vec<f32>;
        #[inline(always)]
        fn run<M: Mode>(self) -> Vec<f32> {
            self.0.iter().map(|&v| M::round(v, self.1)).collect()
        }
    }

    fn values() -> Vec<f32> {
        let mut values: Vec<f32> = (-2048..=2048).map(|i| i as f32 / 8.0).collect();
        for edge in [0.5f32, 1.0, 1.5, 2.5, 127.5, 32767.5, 4_194_303.5, 4_194_304.0, 1e-45, 1e-10] {
            values.extend([
                edge,
                -edge,
                edge.next_up(),
                -edge.next_up(),
                edge.next_down(),
                -edge.next_down(),
            ]);
        }
        values.retain(|v| v.abs() <= 4_194_304.0);
        values
    }

    #[test]
    fn every_mode_matches_its_definition_on_every_isa() {
        let values = values();
        let half_up = |v: f32| v.floor() + if v - v.floor() >= 0.5 { 1.0 } else { 0.0 };
        for isa in Isa::available() {
            for &mode in Rounding::ALL {
                for (v, got) in values.iter().zip(mode.run(isa, Each(&values, 0.25))) {
                    let expected = match mode {
                        Rounding::HalfEven => v.round_ties_even(),
                        Rounding::HalfAway => v.round(),
                        Rounding::HalfUp => half_up(*v),
                        Rounding::Floor => v.floor(),
                        Rounding::Ceil => v.ceil(),
                        Rounding::TowardZero => v.trunc(),
                        Rounding::Stochastic => v.floor() + if 0.25 < v - v.floor() { 1.0 } else { 0.0 },
                    };
                    assert_eq!(got, expected, "{} of {v:e} on {}", mode.name(), isa.name());
                    assert_eq!(low_bits(got) - low_bits(0.0), expected as i32);
                }
            }
        }
    }

    #[test]
    fn names_lead_back_to_their_modes() {
        for &mode in Rounding::ALL {
            assert_eq!(Rounding::from_name(mode.name()), Ok(mode));
        }
        assert!(
            Rounding::from_name("half-even").unwrap_err().to_string().contains("did you mean \"half_even\"")
        );
    }

    #[test]
    fn philox_gives_the_published_vectors() {
        // Random123 1.14, tests/kat_vectors, philox4x32 10.
        let block =
            |c: [u32; 4], seed: u64| philox(c.map(|word| [word.into()]), seed).map(|word| word[0] as u32);
        assert_eq!(block([0; 4], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(block([!0; 4], !0), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            block([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_numbers_hang_on_seed_and_position_only() {
        let mut whole = vec![0.0; 1000];
        uniform(7, 0, &mut whole);
        for (start, len) in [(0, 1), (1, 3), (63, 2), (64, 64), (65, 200), (999, 1)] {
            let mut part = vec![0.0; len];
            uniform(7, start, &mut part);
            assert_eq!(part, whole[start..start + len]);
        }
        let word = philox([[5], [0], [0], [0]], 7)[2][0] as u32;
        assert_eq!(whole[22], (word >> 8) as f32 / 16_777_216.0);
        assert!(whole.iter().all(|u| (0.0..1.0).contains(u)));
        let mut high = [0.0];
        uniform(7, (1 << 34) + 1, &mut high);
        assert_eq!(high[0], (philox([[0], [1], [0], [0]], 7)[1][0] as u32 >> 8) as f32 / 16_777_216.0);
    }
}
