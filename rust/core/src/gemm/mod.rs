//! Products of quantized weights: validate, select a kernel, drive it.
//!
//! A weight is packed once into [`Panels`]; then [`linear`] multiplies it with float32 rows, quantized on the way
//! or as they are, and [`matmul_integer`] multiplies two matrices of 8-bit codes exactly.

mod driver;
mod epilogue;
mod kernel;
mod panel;
mod path;
mod rows;
#[cfg(test)]
mod tests;
mod weight;

pub(crate) use driver::{BLOCK_BYTES, FloatTiles, Folded, STRIP, Tiles, even_cuts, fold, tasks};
pub(crate) use epilogue::{Accumulator, Float, Output};
pub use kernel::kernels;
#[cfg(test)]
pub(crate) use kernel::{
    BytesI8, BytesN4, BytesU4, Floats, FloatsI8, FloatsU4, Pairs, PairsI8, SignedI8, SignedU4,
};
pub(crate) use kernel::{Family, Lines, Tile, Word};
pub use panel::Panels;
pub(crate) use panel::{Codes, Staged, Strips, WIDTH, Weight};
pub use rows::Input;
pub(crate) use rows::{Elements, Mapping, of_range};
pub(crate) use weight::Quantized;
pub use weight::{Bytes, is_integral};

use crate::activation::Activation;
use crate::error::Error;
use crate::format::Format;
use crate::isa::{Isa, Op};
use crate::qparams::Target;
use crate::quantize::Affine;
use driver::{Product, multiply};
use epilogue::{Exact, Requantized};
use rows::{Prepare, Source};
use weight::Matrix;

/// What happens to the sums of a product on their way out.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// Added to each row.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
}

/// `out = activation(x · weightᵀ + bias)` for x (m, k) in float32 and a weight (n, k), row by row.
///
/// With `input`, rows of x are quantized first and multiplied in integers; without, float32 rows are multiplied
/// with the decoded codes. A row of the result depends on that row of x alone (but for [`Input::per_tensor`]),
/// and its bits neither on the instruction set nor on the number of threads.
///
/// # Errors
/// Lengths that do not fit, an inner dimension whose int32 sums could overflow, NaN or infinity in x where it is
/// to be quantized (`out` is then partly written).
pub fn linear(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    finish: &Finish<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    check_bias(finish, weight)?;
    run_linear(x, weight, input, Float { bias: finish.bias, activation: finish.activation }, out)
}

/// Parameters of a quantized result, one scale and zero point for all of it.
#[derive(Debug, Clone, Copy)]
pub struct Requantize(Affine);

impl Requantize {
    /// Codes of `format`, which has at most 8 bits; `narrow` leaves the lowest out.
    ///
    /// # Errors
    /// As [`Input::fixed`].
    pub fn new(
        format: &'static dyn Format,
        scale: f32,
        zero_point: i32,
        narrow: bool,
    ) -> Result<Requantize, Error> {
        rows::affine(format, scale, zero_point, narrow).map(Requantize)
    }
}

/// As [`linear`], with the result quantized: `out = quantize(linear(…))`, codes by their bit pattern.
///
/// # Errors
/// As [`linear`].
pub fn linear_requantized(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    finish: &Finish<'_>,
    codes: &Requantize,
    out: &mut [u8],
) -> Result<(), Error> {
    check_bias(finish, weight)?;
    let float = Float { bias: finish.bias, activation: finish.activation };
    run_linear(x, weight, input, Requantized { float, affine: codes.0 }, out)
}

fn check_bias(finish: &Finish<'_>, weight: &Panels) -> Result<(), Error> {
    match finish.bias {
        Some(bias) if bias.len() != weight.n => {
            Err(Error::Shape { what: "bias", got: vec![bias.len()], expected: format!("({},)", weight.n) })
        }
        _ => Ok(()),
    }
}

fn run_linear<O, T: Send + Copy>(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    output: O,
    out: &mut [T],
) -> Result<(), Error>
where
    O: Output<i32, Element = T> + Output<f32, Element = T>,
{
    let (n, k) = weight.shape();
    let m = rows_of("x", x.len(), k, out.len(), n)?;
    let isa = Isa::active()?;
    let (source, spread) = match input.map(|input| input.0) {
        None => {
            let product = Product { source: Source::Floats(x), m, panels: weight, output, isa };
            return with_floats(&weight.codes, &mut Multiply { product, out });
        }
        Some(Mapping::PerToken(target)) => (Source::PerToken(x, target), target.spread()),
        Some(Mapping::Static(affine)) => (Source::Static(x, affine), spread_of(affine)),
        Some(Mapping::Blocks16) => return path::multiply(x, weight, &output, out),
        Some(Mapping::PerTensor(target)) => {
            (Source::Static(x, whole_range(x, isa, &target)?), target.spread())
        }
    };
    check_exact(weight.groups.size, spread, weight.spread)?;
    let product = Product { source, m, panels: weight, output, isa };
    with_codes(&weight.codes, &mut Multiply { product, out })
}

/// The parameters of a whole input from its own range.
fn whole_range(x: &[f32], isa: Isa, target: &Target) -> Result<Affine, Error> {
    struct Range<'a>(&'a [f32]);
    impl Op for Range<'_> {
        type Output = Result<(f32, f32), usize>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            rows::range(self.0)
        }
    }
    match isa.run(Range(x)) {
        Ok((lo, hi)) => Ok(rows::of_range(lo, hi, target)),
        Err(first) => {
            let count = x.iter().filter(|x| !x.is_finite()).count();
            Err(Error::NotFinite { what: "x", count, first })
        }
    }
}

/// `out[i][j] = Σ_l (a[i][l] − za) · (b[l][j] − zb)`, exactly, for a (m, k), b (k, n) and `zero_points` = [za, zb].
///
/// # Errors
/// Lengths that do not fit; a zero point that is no code; a k for which int32 could overflow with the worst codes.
///
/// ```
/// use qrs_core::gemm::{Bytes, matmul_integer};
/// let mut out = [0; 1];
/// matmul_integer(Bytes::U8(&[255, 255]), Bytes::I8(&[127, -128]), [0, 0], 2, &mut out)?;
/// assert_eq!(out, [-255]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
pub fn matmul_integer(
    a: Bytes<'_>,
    b: Bytes<'_>,
    zero_points: [i32; 2],
    k: usize,
    out: &mut [i32],
) -> Result<(), Error> {
    if k == 0 {
        out.fill(0);
        return Ok(());
    }
    let n = b.len() / k;
    if n * k != b.len() {
        return Err(Error::Shape {
            what: "b",
            got: vec![b.len()],
            expected: format!("a multiple of k = {k}"),
        });
    }
    let m = rows_of("a", a.len(), k, out.len(), n)?;
    let spreads = [a.spread("a's zero point", zero_points[0])?, b.spread("b's zero point", zero_points[1])?];
    check_exact(k, spreads[0], spreads[1])?;
    let panels = Panels::pack(&Matrix { bytes: b, n, zero_point: zero_points[1] }, n, k, k)?;
    let source = match a {
        Bytes::I8(a) => Source::I8(a, zero_points[0]),
        Bytes::U8(a) => Source::U8(a, zero_points[0]),
    };
    let product = Product { source, m, panels: &panels, output: Exact, isa: Isa::active()? };
    with_codes(&panels.codes, &mut Multiply { product, out })
}

/// A family that operations are written over: its rows can be prepared and its panels staged.
pub(crate) trait Ready<C: Accumulator>:
    Family<A: Elements + Prepare<Sum = C>, B: Staged + Default, C = C>
{
}

impl<C: Accumulator, F: Family<A: Elements + Prepare<Sum = C>, B: Staged + Default, C = C>> Ready<C> for F {}

/// Work that any family can do.
pub(crate) trait Work<C: Accumulator> {
    /// Does the work if the family has a kernel here, and says so.
    fn run<F: Ready<C>>(&mut self) -> Result<bool, Error>;
}

/// Products of integer codes: the first family that has a kernel here.
pub(crate) fn with_codes(codes: &Codes, work: &mut impl Work<i32>) -> Result<(), Error> {
    use kernel::{BytesI8, BytesN4, BytesU4, Pairs, PairsI8, SignedI8, SignedU4};
    let done = match codes {
        Codes::Decoded(weight) => return Err(weight.refuse()),
        Codes::I8(_) => work.run::<BytesI8>()? || work.run::<SignedI8>()? || work.run::<PairsI8>()?,
        Codes::U4(_) => {
            work.run::<BytesU4>()?
                || work.run::<SignedU4>()?
                || work.run::<BytesI8>()?
                || work.run::<SignedI8>()?
                || work.run::<BytesN4>()?
        }
    };
    if !done {
        work.run::<Pairs>()?;
    }
    Ok(())
}

/// Products of float32 rows with decoded codes.
pub(crate) fn with_floats(codes: &Codes, work: &mut impl Work<f32>) -> Result<(), Error> {
    use kernel::{Floats, FloatsI8, FloatsU4};
    let done = match codes {
        Codes::I8(_) => work.run::<FloatsI8>()?,
        Codes::U4(_) => work.run::<FloatsU4>()?,
        Codes::Decoded(_) => false,
    };
    if !done {
        work.run::<Floats>()?;
    }
    Ok(())
}

struct Multiply<'a, O, T> {
    product: Product<'a, O>,
    out: &'a mut [T],
}

impl<C: Accumulator, O: Output<C>> Work<C> for Multiply<'_, O, O::Element> {
    fn run<F: Ready<C>>(&mut self) -> Result<bool, Error> {
        multiply::<F, O>(&self.product, self.out)
    }
}

/// The number of rows m, if the operand holds (m, k) and the result (m, n).
fn rows_of(what: &'static str, len: usize, k: usize, out: usize, n: usize) -> Result<usize, Error> {
    // With k = 0 only the result tells how many rows there are.
    let m = len.checked_div(k).unwrap_or_else(|| out.checked_div(n).unwrap_or(0));
    if m * k != len || m.checked_mul(n) != Some(out) {
        return Err(Error::Shape {
            what,
            got: vec![len],
            expected: format!("m · {k} elements for m rows, and m · {n} in the result, which has {out}"),
        });
    }
    Ok(m)
}

/// The largest magnitude of a code less the zero point.
pub(crate) fn spread_of(Affine { zero_point, qmin, qmax, .. }: Affine) -> usize {
    zero_point.abs_diff(qmin).max(zero_point.abs_diff(qmax)) as usize
}

/// Refuses a sum of `k` products of such magnitudes that could leave int32.
pub(crate) fn check_exact(k: usize, a: usize, b: usize) -> Result<(), Error> {
    let limit = (i32::MAX as usize).checked_div(a * b).unwrap_or(usize::MAX);
    if k > limit { Err(Error::Overflow { k, limit }) } else { Ok(()) }
}
