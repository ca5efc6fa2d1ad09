//! Elementary functions over float32, written so that the compiler vectorises any loop that calls them.
//!
//! Every function is a chain of multiplications, additions, divisions and compare-selects: no fused
//! multiply-add (but in [`exp2_fused`]), no table, no branch, no conversion to integer. So each lane of every instruction set gives the
//! bits that scalar code gives. NaN goes in and NaN comes out (its sign and payload are not specified). The
//! error bounds were measured against float64 over every 31st float32; an ulp is the distance between neighbouring
//! float32 values at the exact result.
//!
//! Reductions keep [`LANES`] partial results, whatever the width of a vector, and combine them in one order.
#![forbid(unsafe_code)]

/// Below, `eˣ` is no normal number.
const LOWEST: f32 = -87.336_54;

/// 1.5 · 2²³: adding it rounds to an integer, half to even, and leaves that in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// `eˣ` within 1.0 ulp; 0 below −126 · ln 2 ≈ −87.34 (no subnormal results), +∞ above 128 · ln 2 ≈ 88.72.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Above, the result is no finite number.
    const HIGHEST: f32 = 88.722_83;
    let Reduced { shifted, expm1 } = reduce(x);
    // The shift drops the bits of `ROUND`. At n = 128 the fraction is below 1, so the exponent still fits.
    let scaled = f32::from_bits((1.0 + expm1).to_bits().wrapping_add(shifted.to_bits() << 23));
    let scaled = if x < LOWEST { 0.0 } else { scaled };
    if x <= HIGHEST { scaled } else { x + f32::INFINITY }
}

/// `eˣ` for x ≤ 0, the bits of [`exp`], which pays for the other half of the line with a fifth of its operations.
#[inline(always)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    let Reduced { shifted, expm1 } = reduce(x);
    // A product, unlike an addition to the bits, keeps NaN.
    let scale = f32::from_bits(1f32.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < LOWEST { 0.0 } else { (1.0 + expm1) * scale }
}

/// `2ˣ` for −127 ≤ x ≤ 127 within 2.5 ulp; powers of two are exact, and below −126.5 the result is 0.
///
/// Half the operations of [`exp`]: the fraction `r = x − n` is exact as it stands, and the polynomial, a minimax fit
/// of 2ʳ with 1 at 0, is of degree 5 (error 9.3e-8).
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let Binary { scale, r } = binary(x);
    polynomial(r, POWER) * scale
}

/// [`exp2`] with fused steps in its polynomial, also within 2.5 ulp: for work that stands or falls with fused steps anyway,
/// since a CPU without them takes a function call for each.
#[inline(always)]
pub(crate) fn exp2_fused(x: f32) -> f32 {
    let Binary { scale, r } = binary(x);
    let square = r * r;
    let [c0, c1, c2, c3, c4, c5] = POWER;
    let high = c5.mul_add(r, c4).mul_add(square, c3.mul_add(r, c2));
    high.mul_add(square, c1.mul_add(r, c0)) * scale
}

/// 2ʳ for |r| ≤ 1/2.
#[allow(clippy::approx_constant, reason = "the fit is not the series: its second coefficient is not ln 2")]
const POWER: [f32; 6] = [1.0, 0.693_147, 0.240_222_47, 0.055_507_11, 0.009_671_293, 0.001_326_955_5];

/// `x = n + r` with |r| ≤ 1/2.
struct Binary {
    /// 2ⁿ, and 0 of n = −127.
    scale: f32,
    r: f32,
}

#[inline(always)]
fn binary(x: f32) -> Binary {
    /// [`ROUND`] and the bias of the exponent: a shift alone makes 2ⁿ.
    const ROUND_BIASED: f32 = ROUND + 127.0;
    let shifted = x + ROUND_BIASED;
    Binary { scale: f32::from_bits(shifted.to_bits() << 23), r: x - (shifted - ROUND_BIASED) }
}

/// `1 / (1 + e⁻ˣ)`, the logistic function, within 2.5 ulp.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `log₂ Q(a)` of the upper tail of the normal distribution, `Q(a) = 1/√(2π) · ∫ₐ^∞ e^(−t²/2) dt`, for 0 ≤ a, where
/// everything above [`TAIL_END`] counts as that: there [`exp2`] of the result is 0.
///
/// A minimax fit (Lawson's weights) of `a · Q(a)`, whose error is 5.7e-8 · max(1, a); exact at 0.
#[inline(always)]
pub(crate) fn tail_exponent(a: f32) -> f32 {
    const P: [f32; 7] =
        [-1.0, -1.151_137_4, -0.458_970_5, -0.053_134_15, 0.007_891_361, -0.000_708_108_94, 2.567_397_3e-5];
    polynomial(at_most(a, TAIL_END), P)
}

/// Where [`tail_exponent`] is −127.04 and [`exp2`] of it 0.
pub(crate) const TAIL_END: f32 = 13.22;

/// `tanh x = (1 − e^(−2x)) / (1 + e^(−2x))` within 3 ulp, and never beyond ±1.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // From 9.02 on, tanh is 1 to float32.
    let e = expm1(-2.0 * at_most(x.abs(), 10.0));
    (e / (e + 2.0)).copysign(x)
}

/// `eˣ − 1` for −60 ≤ x ≤ 0, within 2 ulp.
#[inline(always)]
fn expm1(x: f32) -> f32 {
    let Reduced { shifted, expm1 } = reduce(x);
    let scale = f32::from_bits(1f32.to_bits().wrapping_add(shifted.to_bits() << 23));
    scale * expm1 + (scale - 1.0)
}

/// `x = n · ln 2 + r` with |r| ≤ ln 2 / 2.
struct Reduced {
    /// 1.5 · 2²³ + n.
    shifted: f32,
    /// eʳ − 1.
    expm1: f32,
}

/// Splits the argument of an exponential, after Cody and Waite, *Software Manual for the Elementary Functions*,
/// 1980, chapter 6: ln 2 stands in two parts, the first so short that `n` times it is exact. `eʳ − 1` is a
/// minimax polynomial of degree 6.
#[inline(always)]
fn reduce(x: f32) -> Reduced {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -0.000_212_194_44;
    /// (eʳ − 1 − r) / r², error 3.1e-9 relative to eʳ.
    const TAIL: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_756, 0.001_381_451_5];
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    Reduced { shifted, expm1: r + r * r * polynomial(r, TAIL) }
}

/// Copies `x` to `out`, which is as long, in pieces of 1 KiB: for pieces above 4 KiB the C library takes
/// `rep movsb`, which for some pairs of addresses took more than ten times as long on Zen 3.
#[inline(always)]
pub(crate) fn copy(x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(256).zip(out.chunks_mut(256)) {
        out.copy_from_slice(x);
    }
}

/// How many partial results a reduction keeps: one vector of 512 bits, two of 256, four of 128.
pub(crate) const LANES: usize = 16;

/// The sum of two lines. By value: on references the compiler cannot rule out that they overlap.
#[inline(always)]
pub(crate) fn added(mut a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
    for i in 0..LANES {
        a[i] += b[i];
    }
    a
}

/// Reduces `x`: lane `i` starts at `start` and takes in elements `i`, `i + 16`, … by `step`. Then lanes `i` and
/// `i + 8` are merged, then `i + 4`, `i + 2`, `i + 1`: one order for every instruction set.
#[inline(always)]
pub(crate) fn fold(
    x: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    merge: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (lines, tail) = x.as_chunks::<LANES>();
    for line in lines {
        for (lane, v) in lanes.iter_mut().zip(line) {
            *lane = step(*lane, *v);
        }
    }
    // The lanes go through memory here: seeing the tree, the compiler would cut the loop above into pairs of lanes.
    let mut lanes = std::hint::black_box(lanes);
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *lane = step(*lane, *v);
    }
    join(lanes, merge)
}

/// Merges sixteen partial results in the order of [`fold`].
#[inline(always)]
pub(crate) fn join(lanes: [f32; LANES], merge: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| merge(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| merge(eight[i], eight[i + 4]));
    merge(merge(four[0], four[2]), merge(four[1], four[3]))
}

/// The sum of `x`, in the order of [`fold`].
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold(x, 0.0, |sum, v| sum + v, |a, b| a + b)
}

/// Lane by lane the larger of the two, passing over NaN in `line`; by value, as [`added`].
#[inline(always)]
pub(crate) fn largest(mut top: [f32; LANES], line: [f32; LANES]) -> [f32; LANES] {
    for i in 0..LANES {
        top[i] = larger(top[i], line[i]);
    }
    top
}

/// The larger of the two; `a` where `b` is NaN.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `x`, but no less than `limit`; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_least(x: f32, limit: f32) -> f32 {
    if x < limit { limit } else { x }
}

/// `x`, but no more than `limit`; NaN stays NaN.
#[inline(always)]
pub(crate) fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// `coefficients[0] + coefficients[1] · x + …`: neighbours are joined first, then Horner's rule runs in `x²`. That
/// halves the chain of dependent operations, which bounds these loops (gelu was 1.5 times as slow by Horner's
/// rule in `x`).
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let square = x * x;
    // Counting loops unroll before the loop around them is vectorised; an iterator chain does not.
    let mut i = N - 2 + N % 2;
    let pair = |i: usize| if i + 1 < N { coefficients[i] + coefficients[i + 1] * x } else { coefficients[i] };
    let mut sum = pair(i);
    while i > 0 {
        i -= 2;
        sum = pair(i) + sum * square;
    }
    sum
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::isa::{Isa, Op};

    /// Calls `visit` for every `stride`-th float32, both signs, without NaN.
    pub(crate) fn sweep(stride: usize, mut visit: impl FnMut(f32)) {
        for bits in (0..=f32::INFINITY.to_bits()).step_by(stride) {
            visit(f32::from_bits(bits));
            visit(-f32::from_bits(bits));
        }
    }

    /// `erf` in float64: a series of positive terms, `2/√π · e^(−x²) · Σ 2ⁿ x^(2n+1) / (2n+1)!!`.
    pub(crate) fn erf_f64(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
            if term.abs() <= sum.abs() * 1e-17 {
                break;
            }
        }
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }

    /// |got − exact| in units of the last place of `exact`, which is no smaller than that of a normal number.
    fn ulps(got: f32, exact: f64) -> f64 {
        let exponent = exact.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
        (f64::from(got) - exact).abs() / (exponent - 23.0).exp2()
    }

    /// The largest errors in ulps over every `stride`-th float32: of exp, sigmoid, tanh, exp2 and exp2_fused.
    fn errors(stride: usize) -> [f64; 5] {
        let mut worst = [0f64; 5];
        sweep(stride, |x| {
            let exact = f64::from(x);
            let e = exact.exp();
            if e >= f64::from(f32::MIN_POSITIVE) && e <= f64::from(f32::MAX) {
                worst[0] = worst[0].max(ulps(exp(x), e));
            }
            let s = 1.0 / (1.0 + (-exact).exp());
            if s >= f64::from(f32::MIN_POSITIVE) {
                worst[1] = worst[1].max(ulps(sigmoid(x), s));
            }
            worst[2] = worst[2].max(ulps(tanh(x), exact.tanh()));
            if (-126.0..=127.0).contains(&x) {
                worst[3] = worst[3].max(ulps(exp2(x), exact.exp2()));
                worst[4] = worst[4].max(ulps(exp2_fused(x), exact.exp2()));
            }
        });
        worst
    }

    fn check(stride: usize) {
        let worst = errors(stride);
        println!(
            "exp {:.3}, sigmoid {:.3}, tanh {:.3}, exp2 {:.3}, exp2_fused {:.3} ulp",
            worst[0], worst[1], worst[2], worst[3], worst[4]
        );
        let bounds = [1.0, 2.5, 3.0, 2.5, 2.5];
        assert!(worst.iter().zip(bounds).all(|(worst, bound)| *worst <= bound), "{worst:?}");
    }

    #[test]
    fn errors_stay_within_the_stated_bounds() {
        check(1009);
    }

    #[test]
    #[ignore = "a minute or two"]
    fn exhaustive_errors_stay_within_the_stated_bounds() {
        check(31);
    }

    #[test]
    fn limits_are_exact() {
        let inf = f32::INFINITY;
        assert_eq!([exp(-inf), exp(-1e30), exp(-87.4), exp(-0.0), exp(0.0)], [0.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!([exp(88.8), exp(1e30), exp(inf)], [inf; 3]);
        assert!(exp(-87.336_54) >= f32::MIN_POSITIVE && exp(88.722_83) < inf);
        assert_eq!([sigmoid(-inf), sigmoid(-1e30), sigmoid(0.0), sigmoid(inf)], [0.0, 0.0, 0.5, 1.0]);
        assert_eq!([tanh(inf), tanh(1e30), tanh(9.1)], [1.0; 3]);
        assert_eq!([tanh(-inf), tanh(-1e30), tanh(-9.1)], [-1.0; 3]);
        assert_eq!([tanh(0.0).to_bits(), tanh(-0.0).to_bits()], [0.0f32.to_bits(), (-0.0f32).to_bits()]);
        assert_eq!(tanh(1e-40), 1e-40);
        for f in [exp2, exp2_fused] {
            assert!((-126..=127).all(|n| f(n as f32) == f32::from_bits(((n + 127) as u32) << 23)));
            assert_eq!([f(-127.0), f(-126.75)], [0.0; 2]);
        }
        assert_eq!(tail_exponent(0.0), -1.0);
        assert_eq!([TAIL_END, 1e30, inf].map(|a| exp2(tail_exponent(a))), [0.0; 3]);
        // Of whatever payload: a function that shifts bits into the exponent must not make a number of it.
        for nan in [0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, 0xFFC0_0100].map(f32::from_bits) {
            let functions = [exp, exp_nonpositive, exp2, exp2_fused, sigmoid, tanh, tail_exponent];
            assert!(functions.iter().all(|f| f(nan).is_nan()), "{:x}", nan.to_bits());
        }
    }

    #[test]
    fn the_exponential_of_half_the_line_has_the_bits_of_the_whole() {
        sweep(1009, |x| {
            assert!(x > 0.0 || exp_nonpositive(x).to_bits() == exp(x).to_bits(), "{x}");
        });
    }

    #[test]
    fn reductions_follow_the_written_order() {
        for len in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..len).map(|i| ((i * 37 % 101) as f32).sqrt()).collect();
            let mut lanes = [0f32; LANES];
            x.iter().enumerate().for_each(|(i, v)| lanes[i % LANES] += v);
            let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
            let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
            assert_eq!(sum(&x), (four[0] + four[2]) + (four[1] + four[3]));
        }
        let top = largest([-3.0; LANES], [f32::NAN; LANES]);
        assert_eq!((top, larger(-1.0, 2.0), larger(2.0, -1.0)), ([-3.0; LANES], 2.0, 2.0));
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        #[inline(always)]
        fn all(x: f32) -> [u32; 7] {
            let (half, held) = (-x.abs(), at_most(at_least(x, -127.0), 127.0));
            let (e, half) = (exp(x), exp_nonpositive(half));
            [e, half, exp2(held), exp2_fused(held), sigmoid(x), tanh(x), tail_exponent(x.abs())]
                .map(f32::to_bits)
        }
        struct Each<'a>(&'a [f32]);
        impl Op for Each<'_> {
            type Output = Vec<[u32; 7]>;
            #[inline(always)]
            fn run(self) -> Self::Output {
                self.0.iter().map(|x| all(*x)).collect()
            }
        }
        let mut x = Vec::new();
        sweep(65_537, |v| x.push(v));
        let expected: Vec<_> = x.iter().map(|x| all(*x)).collect();
        for isa in Isa::available() {
            assert_eq!(isa.run(Each(&x)), expected, "{}", isa.name());
        }
    }
}
