//! Packed filters.

use crate::dequantize::Packed;
use crate::error::Error;
use crate::gemm::{Lines, Panels, Quantized, Weight};
use crate::mem::{LineI8, LineU4};
use std::ops::Range;

/// A quantized weight (filters, channels, height, width) packed for convolutions with some number of groups.
#[derive(Debug, Clone)]
pub struct Filters {
    pub(super) groups: usize,
    /// Filters of a group.
    pub(super) outputs: usize,
    /// Input channels of a group.
    pub(super) inputs: usize,
    /// Height and width.
    pub(super) kernel: [usize; 2],
    /// Elements of a pixel in panels: its channels, padded where windows are not unfolded.
    pub(super) pixel: usize,
    /// Whether windows are unfolded, as padded channels would leave too much of them empty.
    pub(super) unfolded: bool,
    pub(super) packing: Packing,
}

#[derive(Debug, Clone)]
pub(super) enum Packing {
    /// A weight (filters, window) for each group, k running over rows, columns and channels of the window.
    Panels(Vec<Panels>),
    /// Where a group has one channel.
    Planes(Planes),
}

/// Filters of one channel each.
#[derive(Debug, Clone)]
pub(super) struct Planes {
    /// Codes as they are stored for products, `[filter][row][column]`.
    pub(super) codes: Vec<i16>,
    /// Scale and zero point of each filter, in terms of what is stored.
    pub(super) parameters: Vec<(f32, i32)>,
    /// The largest magnitude of a code less its zero point.
    spread: usize,
}

impl Filters {
    /// Packs a weight for a convolution in `groups` groups.
    ///
    /// # Errors
    /// The weight has not four axes or one of length 0, groups do not divide the filters, a filter has several cells,
    /// codes or parameters do not fit, or there is no memory.
    pub fn new(weight: Packed<'_>, groups: usize) -> Result<Filters, Error> {
        weight.check()?;
        let shape = weight.grid.shape();
        let &[count, inputs, height, width] = shape else {
            let expected = "(filters, channels, height, width)".to_owned();
            return Err(Error::Shape { what: "weight", got: shape.to_vec(), expected });
        };
        if shape.contains(&0) {
            let expected = "no axis of length 0".to_owned();
            return Err(Error::Shape { what: "weight", got: shape.to_vec(), expected });
        }
        if groups == 0 || count % groups != 0 {
            let expected = format!("a divisor of the {count} filters");
            return Err(Error::Value { what: "groups", got: groups.to_string(), expected });
        }
        let window = inputs * height * width;
        if (0..count).any(|filter| weight.grid.cells_of(filter * window..(filter + 1) * window).len() != 1) {
            let expected = "one for each filter, or one for all".to_owned();
            return Err(Error::Value {
                what: "weight",
                got: "cut into several cells a filter".into(),
                expected,
            });
        }
        let Some(rows) = Quantized::new(weight, window, window) else {
            return Err(Error::Value {
                what: "weight",
                got: weight.format.name().into(),
                expected: "an integer format, or one whose levels are multiples of a step within 8 bits"
                    .into(),
            });
        };
        let (outputs, kernel) = (count / groups, [height, width]);
        let unit = if rows.nibbles() { LineU4::K } else { LineI8::K };
        // Up to this width padding takes more time than unfolding.
        let unfolded = inputs < 2 * unit && inputs % unit != 0 && height * width > 1;
        let pixel = if unfolded { inputs } else { inputs.next_multiple_of(unit) };
        let packing = if inputs == 1 {
            Packing::Planes(Planes::new(&rows, count))
        } else {
            let panels = (0..groups).map(|group| {
                let windows = Windows { rows: &rows, first: group * outputs, inputs, padded: pixel };
                let k = height * width * pixel;
                Panels::pack(&windows, outputs, k, k)
            });
            Packing::Panels(panels.collect::<Result<_, _>>()?)
        };
        Ok(Filters { groups, outputs, inputs, kernel, pixel, unfolded, packing })
    }

    /// How many filters there are.
    pub fn count(&self) -> usize {
        self.groups * self.outputs
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Bytes in memory.
    pub fn nbytes(&self) -> usize {
        match &self.packing {
            Packing::Panels(panels) => panels.iter().map(Panels::nbytes).sum(),
            Packing::Planes(planes) => size_of_val(&planes.codes[..]) + size_of_val(&planes.parameters[..]),
        }
    }

    /// Products that an output is the sum of.
    pub(super) fn window_len(&self) -> usize {
        self.inputs * self.kernel[0] * self.kernel[1]
    }

    /// The largest magnitude of a code less its zero point.
    pub(super) fn spread(&self) -> usize {
        match &self.packing {
            Packing::Panels(panels) => panels.iter().map(|panels| panels.spread).max().unwrap_or(0),
            Packing::Planes(planes) => planes.spread,
        }
    }
}

impl Planes {
    fn new(rows: &Quantized<'_>, count: usize) -> Planes {
        let mut stored = vec![0; count * rows.k];
        rows.codes(0..count, 0..rows.k, &mut stored);
        // Nibbles are stored unsigned, and 4 bits are no negative int8.
        let codes = stored.into_iter().map(i16::from).collect();
        let shifted = |filter| {
            let (scale, zero_point) = rows.parameters(filter, 0);
            (scale, zero_point + rows.shift())
        };
        let parameters: Vec<(f32, i32)> = (0..count).map(shifted).collect();
        let (min, max) = if rows.nibbles() { (0, 15) } else { (-128, 127) };
        let spread = |(_, zero): &(f32, i32)| zero.abs_diff(min).max(zero.abs_diff(max)) as usize;
        Planes { codes, spread: parameters.iter().map(spread).max().unwrap_or(0), parameters }
    }
}

/// The filters of a group with the channels innermost and padded with zeros.
struct Windows<'a> {
    rows: &'a Quantized<'a>,
    /// The first filter.
    first: usize,
    inputs: usize,
    padded: usize,
}

impl Weight for Windows<'_> {
    fn codes(&self, columns: Range<usize>, k: Range<usize>, out: &mut [i8]) {
        let pixels = self.rows.k / self.inputs;
        let mut filter = vec![0; self.rows.k];
        for (column, out) in columns.zip(out.chunks_exact_mut(k.len().max(1))) {
            let row = self.first + column;
            self.rows.codes(row..row + 1, 0..self.rows.k, &mut filter);
            for (at, out) in k.clone().zip(out) {
                let (pixel, channel) = (at / self.padded, at % self.padded);
                *out = if channel < self.inputs { filter[channel * pixels + pixel] } else { 0 };
            }
        }
    }

    fn shift(&self) -> i32 {
        self.rows.shift()
    }

    fn nibbles(&self) -> bool {
        self.rows.nibbles()
    }

    fn parameters(&self, column: usize, _: usize) -> (f32, i32) {
        self.rows.parameters(self.first + column, 0)
    }
}
