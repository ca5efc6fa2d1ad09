//! Products of rows in 16 bits with a weight along a trellis, whose blocks are decoded on the way.

use super::epilogue::Output;
use super::panel::{Codes, Panels};
use crate::error::Error;
use crate::isa::{Isa, Op};
use crate::mem::{Line, zeroed};

/// As [`linear`](super::linear) for [`Input::blocks16`](super::Input::blocks16): `Σ_groups (Σ_blocks dot · scale_x) · scale`,
/// then bias and activation, for one row after the other.
pub(super) fn multiply<O: Output<f32>>(
    x: &[f32],
    weight: &Panels,
    output: &O,
    out: &mut [O::Element],
) -> Result<(), Error> {
    let Codes::Decoded(decoded) = &weight.codes else {
        let (got, expected) = ("16 bits for a weight of integers".into(), "at most 8 bits".into());
        return Err(Error::Value { what: "input", got, expected });
    };
    let (n, k) = weight.shape();
    let (trellis, bytes, scales) = decoded.path()?;
    let (mut products, mut sums) = (zeroed(n)?, Vec::new());
    for (x, out) in x.chunks(k.max(1)).zip(out.chunks_mut(n.max(1))) {
        trellis.matvec(bytes, x, &scales, &mut products)?;
        sums.clear();
        sums.resize(n.div_ceil(16), Line([O::Sum::default(); 16]));
        Isa::active()?.run(Finish { output, products: &products, sums: &mut sums, out });
    }
    Ok(())
}

/// What becomes of one row of products.
struct Finish<'a, O: Output<f32>> {
    output: &'a O,
    products: &'a [f32],
    sums: &'a mut [Line<O::Sum, 16>],
    out: &'a mut [O::Element],
}

impl<O: Output<f32>> Op for Finish<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Finish { output, products, sums, out } = self;
        for (products, sums) in products.chunks(16).zip(sums.iter_mut()) {
            let mut line = [0.0; 16];
            line[..products.len()].copy_from_slice(products);
            output.fold(line, &[1.0; 16], sums);
        }
        output.finish(&[1.0], 0..products.len(), sums);
        output.put(sums, out);
    }
}
