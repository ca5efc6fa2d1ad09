//! Activations: what a layer applies to each output, by name; one table, one body each.
//!
//! `Activation::apply_slice` is for the epilogue of a product, inside somebody else's [`Op`]; [`activate`] is the
//! operation on whole arrays.
#![forbid(unsafe_code)]

use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::math::{TAIL_END, at_most, copy, exp2, sigmoid, tail_exponent, tanh};
use crate::parallel;

/// A function that is applied to each element. NaN stays NaN.
///
/// ```
/// use qrs_core::Activation;
/// assert_eq!(Activation::from_name("relu")?, Activation::Relu);
/// # Ok::<(), qrs_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `max(x, 0)`; −0 gives +0.
    Relu,
    /// `x · Φ(x) = x/2 · (1 + erf(x/√2))`, error at most 1.5e-7 · max(1, |x|) (Hendrycks and Gimpel,
    /// *Gaussian Error Linear Units*, 2016, arXiv:1606.08415, section 2).
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`]: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, error
    /// at most 1.5e-7 · max(1, |x|) (ibid.).
    GeluTanh,
    /// `x · sigmoid(x) = x / (1 + e⁻ˣ)`, also called swish, error at most 1.5e-7 · max(1, |x|) (ibid., section 2).
    Silu,
    /// `tanh x`, error at most 4 ulp.
    Tanh,
}

impl Activation {
    /// Every activation, in the order of the names' list.
    pub const ALL: [Activation; 6] =
        [Self::None, Self::Relu, Self::Gelu, Self::GeluTanh, Self::Silu, Self::Tanh];

    /// The name, as layers and files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// The activation of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the list of names.
    pub fn from_name(name: &str) -> Result<Activation, Error> {
        Self::ALL.into_iter().find(|activation| activation.name() == name).ok_or_else(|| Error::Unknown {
            what: "activation",
            got: name.to_owned(),
            known: Self::ALL.iter().map(|activation| activation.name()).collect(),
        })
    }

    /// Replaces each element by its activation. Inlined, so that it takes on the instruction set of its caller;
    /// the choice is made once, outside the loop.
    #[inline(always)]
    pub(crate) fn apply_slice(self, x: &mut [f32]) {
        match self {
            Self::None => (),
            Self::Relu => map(x, relu),
            Self::Gelu => gelu(x),
            Self::GeluTanh => map(x, gelu_tanh),
            Self::Silu => map(x, silu),
            Self::Tanh => map(x, tanh),
        }
    }
}

#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

/// Brings −∞ to where Φ and the logistic function are 0, so that it gives −0 and not NaN from −∞ · 0.
#[inline(always)]
fn finite_below(x: f32) -> f32 {
    const FLOOR: f32 = -104.0;
    if x < FLOOR { FLOOR } else { x }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    // NaN passes through. The zero makes −0 into +0 and keeps the compiler from storing the negative lanes only:
    // masked stores are 8 times as slow on Zen.
    if x < 0.0 { 0.0 } else { x + 0.0 }
}

/// `x · Φ(x) = max(x, 0) − |x| · Q(|x|)`, where `Q = 1 − Φ` is the tail of the normal distribution.
#[inline(always)]
fn gelu(x: &mut [f32]) {
    // Two short loops over a block in the first-level cache took three quarters of the time of one long loop.
    let mut exponents = [0.0; 128];
    for x in x.chunks_mut(exponents.len()) {
        for (exponent, x) in exponents.iter_mut().zip(x.iter()) {
            *exponent = tail_exponent(x.abs());
        }
        for (x, exponent) in x.iter_mut().zip(&exponents) {
            *x = relu(*x) - at_most(x.abs(), TAIL_END) * exp2(*exponent);
        }
    }
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// √(2/π)
    const SLOPE: f32 = 0.797_884_6;
    let x = finite_below(x);
    // (1 + tanh u) / 2 = sigmoid(2u), which does not cancel for negative u.
    x * sigmoid(x * (2.0 * SLOPE + 2.0 * SLOPE * 0.044_715 * (x * x)))
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    let x = finite_below(x);
    x * sigmoid(x)
}

/// `out[i] = activation(x[i])`.
///
/// ```
/// let mut out = [0.0; 3];
/// qrs_core::activate(&[-1.0, 0.0, 2.0], qrs_core::Activation::Relu, &mut out)?;
/// assert_eq!(out, [0.0, 0.0, 2.0]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// `out` has another length than `x`; or see [`Isa::active`] and [`parallel::threads`].
pub fn activate(x: &[f32], activation: Activation, out: &mut [f32]) -> Result<(), Error> {
    activate_on(Isa::active()?, x, activation, out)
}

fn activate_on(isa: Isa, x: &[f32], activation: Activation, out: &mut [f32]) -> Result<(), Error> {
    /// Elements of one task: about 15 µs of work.
    const TASK: usize = 16 * 1024;
    if out.len() != x.len() {
        let expected = format!("({},), the shape of x", x.len());
        return Err(Error::Shape { what: "out", got: vec![out.len()], expected });
    }
    // About one nanosecond an element.
    parallel::for_each_chunk(out, TASK, x.len(), |number, out| {
        let x = &x[number * TASK..][..out.len()];
        isa.run(Activate { x, activation, out });
    })
}

struct Activate<'a> {
    x: &'a [f32],
    activation: Activation,
    out: &'a mut [f32],
}

impl Op for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Blocks of 2 KiB: the copy stays in the first-level cache.
        for (x, out) in self.x.chunks(512).zip(self.out.chunks_mut(512)) {
            copy(x, out);
            self.activation.apply_slice(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::tests::{erf_f64, sweep};

    /// The definitions in float64, each in a form that does not cancel.
    fn exact(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Gelu => 0.5 * x * (1.0 + erf_f64(x * std::f64::consts::FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + u.tanh())
            }
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Tanh => x.tanh(),
        }
    }

    fn one(activation: Activation, x: f32) -> f32 {
        let mut out = [0.0];
        activate(&[x], activation, &mut out).unwrap();
        out[0]
    }

    #[test]
    fn errors_stay_within_the_stated_bounds() {
        for activation in Activation::ALL {
            let mut x = Vec::new();
            sweep(4099, |v| x.push(v));
            x.retain(|x| x.is_finite());
            let mut got = vec![0.0; x.len()];
            activate(&x, activation, &mut got).unwrap();
            let error = |(x, y): (&f32, &f32)| {
                (f64::from(*y) - exact(activation, f64::from(*x))).abs() / f64::from(x.abs()).max(1.0)
            };
            let worst = x.iter().zip(&got).map(error).fold(0.0, f64::max);
            println!("{}: {worst:.3e}", activation.name());
            assert!(worst <= 1.5e-7, "{}: {worst:e}", activation.name());
        }
    }

    #[test]
    fn limits_are_those_of_the_functions() {
        let inf = f32::INFINITY;
        for activation in Activation::ALL {
            let top = if activation == Activation::Tanh { 1.0 } else { inf };
            let bottom = match activation {
                Activation::None => -inf,
                Activation::Tanh => -1.0,
                _ => 0.0,
            };
            let name = activation.name();
            assert_eq!((one(activation, inf), one(activation, -inf)), (top, bottom), "{name}");
            assert_eq!((one(activation, 0.0), one(activation, -0.0)), (0.0, 0.0), "{name}");
            assert!(one(activation, f32::NAN).is_nan(), "{name}");
            assert!(one(activation, f32::MAX) > 0.99 && one(activation, f32::MIN) <= 0.0, "{name}");
        }
        assert_eq!(one(Activation::Relu, -0.0).to_bits(), 0);
    }

    #[test]
    fn every_instruction_set_and_length_gives_the_same_bits() {
        for activation in Activation::ALL {
            for len in [0, 1, 2, 7, 15, 16, 17, 33, 1023, 1025, 100_003] {
                let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
                let expected: Vec<u32> = x.iter().map(|x| one(activation, *x).to_bits()).collect();
                for isa in Isa::available() {
                    let mut out = vec![0.0; len];
                    activate_on(isa, &x, activation, &mut out).unwrap();
                    let bits: Vec<u32> = out.iter().map(|y| y.to_bits()).collect();
                    assert_eq!(bits, expected, "{} {} {len}", activation.name(), isa.name());
                }
            }
        }
    }

    #[test]
    fn names_lead_back_and_a_wrong_one_is_answered_with_the_list() {
        for activation in Activation::ALL {
            assert_eq!(Activation::from_name(activation.name()), Ok(activation));
        }
        let error = Activation::from_name("gelo").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown activation \"gelo\", expected one of: none, relu, gelu, gelu_tanh, silu, tanh \
             (did you mean \"gelu\"?)"
        );
    }

    #[test]
    fn a_length_that_differs_is_refused() {
        let error = activate(&[0.0; 3], Activation::Relu, &mut [0.0; 2]).unwrap_err().to_string();
        assert_eq!(error, "out has shape (2,), expected (3,), the shape of x");
    }
}
