//! Two-dimensional convolution of float32 images with quantized filters, quantized on the way or as they are.
//!
//! Filters are packed once into [`Filters`]. With several input channels to a group they are panels, as those of a
//! product, and a row of neighbouring outputs is a tile of a product whose k is a row of the window: nothing is
//! copied into columns ([`tiles`]), but where channels are so few that words would stay half empty ([`image`]). With
//! one channel to a group, as in a depthwise convolution, there is nothing to share between outputs, and each plane is
//! filtered by itself ([`planes`]).

mod filters;
mod image;
mod planes;
#[cfg(test)]
mod tests;
mod tiles;
mod window;

pub use filters::Filters;
pub use window::Window;

use crate::error::Error;
use crate::gemm::{Finish, Float, Input, Mapping, check_exact, of_range, spread_of, with_codes, with_floats};
use crate::grid::Grid;
use crate::isa::Isa;
use crate::quantize::Affine;
use crate::reduce::min_max;
use filters::Packing;
use window::Axis;

/// A convolution with everything but its images.
#[derive(Debug, Clone, Copy)]
pub struct Conv2d<'a> {
    /// The weight.
    pub filters: &'a Filters,
    /// Strides, padding and dilation.
    pub window: Window,
    /// How the images become codes; without, they are multiplied as they are, with decoded filters.
    pub input: Option<&'a Input>,
    /// Bias, of one element for each output channel, and activation.
    pub finish: Finish<'a>,
}

/// The sizes of one call and what all of its tasks read.
#[derive(Clone, Copy)]
struct Job<'a> {
    isa: Isa,
    /// Images, channel by channel.
    x: &'a [f32],
    filters: &'a Filters,
    batch: usize,
    rows: Axis,
    columns: Axis,
    /// Parameters of the images, where they are quantized.
    affine: Option<Affine>,
    output: Float<'a>,
}

/// `out = activation(x ⋆ filters + bias)` for images x (batch, channels, height, width) of the given `shape`, and out
/// (batch, filters, height, width) as [`Window`] says.
///
/// Padding stands for 0.0. With an input, images are quantized first, all of them with one scale and zero point, and
/// multiplied in integers. The bits of the result depend neither on the instruction set nor on the number of threads.
///
/// ```
/// use qrs_core::gemm::Finish;
/// use qrs_core::*;
/// let (format, grid) = (format::find("int8")?, Grid::new(&[1, 1, 1, 2], &[1, 1, 1, 2])?);
/// let params = QParams { scale: &[0.5], zero_point: &[0], levels: &[] };
/// let weight = Packed { codes: &[2, 4], format, grid: &grid, params };
/// let window = Window { stride: [1, 1], padding: [0, 0, 0, 1], dilation: [1, 1] };
/// let finish = Finish { bias: None, activation: Activation::None };
/// let conv = Conv2d { filters: &Filters::new(weight, 1)?, window, input: None, finish };
/// let mut out = [0.0; 3];
/// conv2d(&[1.0, 10.0, 100.0], [1, 1, 1, 3], &conv, &mut out)?;
/// assert_eq!(out, [21.0, 210.0, 100.0]);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Sizes that do not fit; an input with parameters for each token; NaN or infinity in x where it is to be quantized;
/// a window so large that an int32 sum could overflow.
pub fn conv2d(x: &[f32], shape: [usize; 4], conv: &Conv2d<'_>, out: &mut [f32]) -> Result<(), Error> {
    conv2d_on(Isa::active()?, x, shape, conv, out)
}

fn conv2d_on(
    isa: Isa,
    x: &[f32],
    shape: [usize; 4],
    conv: &Conv2d<'_>,
    out: &mut [f32],
) -> Result<(), Error> {
    let filters = conv.filters;
    let [batch, channels, height, width] = shape;
    let [rows, columns] = conv.window.axes([height, width], filters.kernel)?;
    if channels != filters.groups * filters.inputs || len_of(shape) != Some(x.len()) {
        let expected = format!("(batch, {}, height, width)", filters.groups * filters.inputs);
        return Err(Error::Shape { what: "x", got: shape.to_vec(), expected });
    }
    let results = [batch, filters.count(), rows.out, columns.out];
    if len_of(results) != Some(out.len()) {
        let expected = format!("the elements of {results:?}");
        return Err(Error::Shape { what: "out", got: vec![out.len()], expected });
    }
    if let Some(bias) = conv.finish.bias
        && bias.len() != filters.count()
    {
        let expected = format!("({},)", filters.count());
        return Err(Error::Shape { what: "bias", got: vec![bias.len()], expected });
    }
    let affine = conv.input.map(|input| parameters(x, input, filters)).transpose()?;
    if out.is_empty() {
        return Ok(());
    }
    let output = Float { bias: conv.finish.bias, activation: conv.finish.activation };
    let job = Job { isa, x, filters, batch, rows, columns, affine, output };
    match &filters.packing {
        Packing::Planes(planes) => planes::run(&job, planes, out),
        Packing::Panels(panels) => {
            let mut work = tiles::Convolve { job, panels, out };
            // All groups are packed alike.
            let codes = &panels[0].codes;
            if affine.is_some() { with_codes(codes, &mut work) } else { with_floats(codes, &mut work) }
        }
    }
}

fn len_of(shape: [usize; 4]) -> Option<usize> {
    shape.into_iter().try_fold(1, usize::checked_mul)
}

/// Scale and zero point of all images.
fn parameters(x: &[f32], input: &Input, filters: &Filters) -> Result<Affine, Error> {
    // Looks for NaN and infinity too.
    let range = || min_max(x, &Grid::new(&[x.len()], &[x.len().max(1)])?, true);
    let (affine, spread) = match input.0 {
        Mapping::PerToken(_) | Mapping::Blocks16 => {
            let expected = "one scale for all images".to_owned();
            return Err(Error::Value {
                what: "input",
                got: "scales for parts of a row".to_owned(),
                expected,
            });
        }
        Mapping::PerTensor(target) => {
            let (lo, hi) = range()?;
            let ends = lo.first().zip(hi.first()).map_or((0.0, 0.0), |(lo, hi)| (*lo, *hi));
            (of_range(ends.0, ends.1, &target), target.spread())
        }
        Mapping::Static(affine) => {
            range()?;
            (affine, spread_of(affine))
        }
    };
    check_exact(filters.window_len(), spread, filters.spread())?;
    Ok(affine)
}
