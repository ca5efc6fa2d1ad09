//! Products of quantized weights: validate, select a kernel, drive it.
//!
//! A weight is packed once into [`Panels`]; then [`linear`] multiplies it with float32 rows, quantized on the way
//! or as they are, and [`matmul_integer`] multiplies two matrices of 8-bit codes exactly.

mod driver;
mod epilogue;
pub(crate) mod kernel;
mod panel;
mod rows;

pub use kernel::kernels;
pub use panel::Panels;
pub use rows::Input;

use crate::activation::Activation;
use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::mem::zeroed;
use crate::quantize::Affine;
use driver::{Product, multiply};
use epilogue::{Exact, Float, Output, Requantized};
use panel::{Codes, WIDTH, Weight};
use rows::Source;
use std::ops::Range;

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
/// with the decoded codes. A row of the result depends on that row of x alone (but for [`Input::PerTensor`]),
/// and its bits neither on the instruction set nor on the number of threads.
///
/// # Errors
/// Lengths that do not fit, an inner dimension whose int32 sums could overflow, NaN or infinity in x where it is
/// to be quantized.
pub fn linear(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    finish: &Finish<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    let float = Float { bias: finish.bias, activation: finish.activation };
    run_linear(x, weight, input, finish, float, out)
}

/// As [`linear`], with the result quantized: `out = quantize(linear(…))`, 8-bit codes by their bit pattern.
///
/// # Errors
/// As [`linear`].
pub fn linear_requantized(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    finish: &Finish<'_>,
    affine: Affine,
    out: &mut [u8],
) -> Result<(), Error> {
    let float = Float { bias: finish.bias, activation: finish.activation };
    run_linear(x, weight, input, finish, Requantized { float, affine }, out)
}

fn run_linear<O, T: Send + Copy>(
    x: &[f32],
    weight: &Panels,
    input: Option<&Input>,
    finish: &Finish<'_>,
    output: O,
    out: &mut [T],
) -> Result<(), Error>
where
    O: Output<i32, Element = T> + Output<f32, Element = T>,
{
    let (n, k) = weight.shape();
    let m = check_length("x", x.len(), k, out.len(), n)?;
    if let Some(bias) = finish.bias
        && bias.len() != n
    {
        return Err(Error::Shape { what: "bias", got: vec![bias.len()], expected: format!("({n},)") });
    }
    let isa = Isa::active()?;
    let Some(input) = input else {
        let product = Product { source: Source::Floats(x), m, panels: weight, output, isa };
        return multiply_floats(&product, out);
    };
    let (source, spread) = match *input {
        Input::PerToken(target) => (Source::PerToken(x, target), target.qmax - target.qmin),
        Input::Static(affine) => (Source::Static(x, affine), affine.qmax - affine.qmin),
        Input::PerTensor(target) => {
            let affine = driver_range(x, isa, &target)?;
            (Source::Static(x, affine), target.qmax - target.qmin)
        }
    };
    check_exact(weight.groups.size.min(k), spread as usize, weight.spread())?;
    multiply_codes(&Product { source, m, panels: weight, output, isa }, out)
}

/// The parameters of a whole input from its own range.
fn driver_range(x: &[f32], isa: Isa, target: &crate::qparams::Target) -> Result<Affine, Error> {
    struct Ranges<'a>(&'a [f32]);
    impl Op for Ranges<'_> {
        type Output = Result<(f32, f32), usize>;
        #[inline(always)]
        fn run(self) -> Self::Output {
            rows::range(self.0)
        }
    }
    let (lo, hi) = isa.run(Ranges(x)).map_err(|first| Error::NotFinite {
        what: "x",
        count: x.iter().filter(|x| !x.is_finite()).count(),
        first,
    })?;
    let (scale, zero_point) = crate::qparams::one(lo, hi, target);
    Ok(Affine { scale, zero_point, qmin: target.qmin, qmax: target.qmax })
}

/// One of the operands of [`matmul_integer`].
#[derive(Debug, Clone, Copy)]
pub enum Bytes<'a> {
    /// Signed codes.
    I8(&'a [i8]),
    /// Unsigned codes.
    U8(&'a [u8]),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Bytes::I8(x) => x.len(),
            Bytes::U8(x) => x.len(),
        }
    }

    /// The largest magnitude of a code less the zero point.
    fn spread(&self, zero_point: i32) -> usize {
        let (min, max) = match self {
            Bytes::I8(_) => (-128, 127),
            Bytes::U8(_) => (0, 255),
        };
        (max - zero_point).unsigned_abs().max((min - zero_point).unsigned_abs()) as usize
    }
}

/// `out[i][j] = Σ_l (a[i][l] − a_zero_point) · (b[l][j] − b_zero_point)`, exactly, for a (m, k) and b (k, n).
///
/// # Errors
/// Lengths that do not fit; a k for which int32 could overflow with the worst codes.
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
    let n = if k == 0 { 0 } else { b.len() / k };
    if k == 0 {
        out.fill(0);
        return Ok(());
    }
    if n * k != b.len() {
        return Err(Error::Shape { what: "b", got: vec![b.len()], expected: format!("a multiple of k = {k}") });
    }
    let m = check_length("a", a.len(), k, out.len(), n)?;
    check_exact(k, a.spread(zero_points[0]), b.spread(zero_points[1]))?;
    let weight = Matrix { bytes: b, n, zero: zero_points[1] };
    let panels = Panels::pack(&weight, n, k, k)?;
    let source = match a {
        Bytes::I8(a) => Source::I8(a, zero_points[0]),
        Bytes::U8(a) => Source::U8(a, zero_points[0]),
    };
    let isa = Isa::active()?;
    multiply_codes(&Product { source, m, panels: &panels, output: Exact, isa }, out)
}

/// A (k, n) matrix of codes as a weight.
struct Matrix<'a> {
    bytes: Bytes<'a>,
    n: usize,
    zero: i32,
}

impl Weight for Matrix<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        for (i, row) in k.clone().enumerate() {
            let at = row * self.n + columns.start..row * self.n + columns.end;
            match self.bytes {
                Bytes::I8(b) => b[at].iter().enumerate().for_each(|(c, x)| out[c * k.len() + i] = *x),
                Bytes::U8(b) => {
                    b[at].iter().enumerate().for_each(|(c, x)| out[c * k.len() + i] = (*x ^ 0x80) as i8);
                }
            }
        }
    }

    fn shift(&self) -> i32 {
        match self.bytes {
            Bytes::I8(_) => 0,
            Bytes::U8(_) => -128,
        }
    }

    fn nibbles(&self) -> bool {
        false
    }

    fn parameters(&self, _: usize, _: usize) -> (f32, i32) {
        (1.0, self.zero)
    }
}

impl Panels {
    /// The largest magnitude of a code less its zero point.
    fn spread(&self) -> usize {
        let widest = |range: [i32; 2]| {
            let zeros = self.zero.iter().flat_map(|line| line.0);
            zeros.map(|z| (range[1] - z).unsigned_abs().max((range[0] - z).unsigned_abs())).max().unwrap_or(0)
        };
        match self.codes {
            Codes::I8(_) => widest([-128, 127]) as usize,
            Codes::U4(_) => widest([0, 15]) as usize,
        }
    }
}

/// Products of integer codes: the first family that has a kernel here.
fn multiply_codes<O: Output<i32>>(product: &Product<'_, O>, out: &mut [O::Element]) -> Result<(), Error> {
    use kernel::{BytesI8, BytesU4, Pairs, PairsI8, PairsU4};
    let done = match product.panels.codes {
        Codes::I8(_) => multiply::<BytesI8, O>(product, out)? || multiply::<PairsI8, O>(product, out)?,
        Codes::U4(_) => {
            multiply::<BytesU4, O>(product, out)?
                || multiply::<BytesI8, O>(product, out)?
                || multiply::<PairsU4, O>(product, out)?
        }
    };
    if !done {
        multiply::<Pairs, O>(product, out)?;
    }
    Ok(())
}

/// Products of float32 rows with decoded codes.
fn multiply_floats<O: Output<f32>>(product: &Product<'_, O>, out: &mut [O::Element]) -> Result<(), Error> {
    use kernel::{Floats, FloatsI8, FloatsU4};
    let done = match product.panels.codes {
        Codes::I8(_) => multiply::<FloatsI8, O>(product, out)?,
        Codes::U4(_) => multiply::<FloatsU4, O>(product, out)?,
    };
    if !done {
        multiply::<Floats, O>(product, out)?;
    }
    Ok(())
}

/// The number of rows m, if x holds (m, k) and the result (m, n).
fn check_length(what: &'static str, len: usize, k: usize, out: usize, n: usize) -> Result<usize, Error> {
    let m = if k == 0 { out.checked_div(n).unwrap_or(0) } else { len / k };
    if m * k != len || m * n != out {
        return Err(Error::Shape {
            what,
            got: vec![len],
            expected: format!("m · {k} elements for m rows, and m · {n} in the result, which has {out}"),
        });
    }
    Ok(m)
}

/// Refuses a sum of `k` products that could leave int32.
fn check_exact(k: usize, a: usize, b: usize) -> Result<(), Error> {
    let limit = (i32::MAX as usize).checked_div(a * b).unwrap_or(usize::MAX);
    if k > limit { Err(Error::Overflow { k, limit }) } else { Ok(()) }
}

/// A weight (n, k) whose codes and parameters are plain arrays, one of each for every element and cell.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// Codes, (n, k), from −128 to 255.
    pub codes: &'a [i16],
    /// The smallest code and the bits of the format.
    pub format: (i32, u32),
    /// Rows and elements of a cell.
    pub block: (usize, usize),
    /// Scale of each cell.
    pub scale: &'a [f32],
    /// Zero point of each cell.
    pub zero_point: &'a [i32],
}

#[cfg(test)]
mod tests;
impl Panels { /// TEMPBENCH
 pub fn for_bench(w:&[i8],n:usize,k:usize,g:usize,nib:bool)->Panels { struct W<'a>(&'a [i8],usize,bool);
 impl Weight for W<'_> { fn codes(&self,c:Range<usize>,k:Range<usize>,out:&mut [i8]) { for (i,c) in c.enumerate() { out[i*k.len()..(i+1)*k.len()].copy_from_slice(&self.0[c*self.1..][k.clone()]); } }
 fn shift(&self)->i32{0} fn nibbles(&self)->bool{self.2} fn parameters(&self,_:usize,_:usize)->(f32,i32){(0.01,8)} }
 Panels::pack(&W(w,k,nib),n,k,g).unwrap() } }
