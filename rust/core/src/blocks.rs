//! Quantizing into blocks where codes and scales stand together: rows are whole blocks, and each is encoded by itself.

#![forbid(unsafe_code)]

use crate::error::Error;
use crate::finite::Census;
use crate::format::Blocks;
use crate::grid::Grid;
use crate::rounding::Rounding;
use crate::values::Values;

/// Validates, encodes chunks into blocks (from a flat index on, as many bytes as there is room for), and looks at the
/// census. Unchecked, NaN becomes 0 and an infinity the largest finite number.
pub(crate) fn encode_blocks(
    blocks: &'static dyn Blocks,
    (values, grid): (Values<'_>, &Grid),
    (rounding, check_finite): (Rounding, bool),
    chunks: impl FnOnce(&(dyn Fn(usize, &mut [u8]) + Sync)) -> Result<(), Error>,
) -> Result<(), Error> {
    grid.check_len("x", values.x.len())?;
    values.check()?;
    check_rows(blocks, grid)?;
    check_rounding(blocks.name(), rounding)?;
    let census = Census::new();
    chunks(&|start, out| {
        let Values { x, importance } = values.part(start..start + out.len() / blocks.bytes() * blocks.len());
        if x.iter().all(|x| x.is_finite()) {
            return blocks.encode(x, importance, out);
        }
        census.see(x, start);
        let held = |x: &f32| if x.is_nan() { 0.0 } else { x.clamp(-f32::MAX, f32::MAX) };
        blocks.encode(&x.iter().map(held).collect::<Vec<_>>(), importance, out);
    })?;
    if check_finite { census.check("x") } else { Ok(()) }
}

/// Refuses a choice that formats with a rule of their own do not leave.
pub(crate) fn check_rounding(format: &str, rounding: Rounding) -> Result<(), Error> {
    if rounding == Rounding::HalfEven {
        return Ok(());
    }
    Err(Error::Value {
        what: "rounding",
        got: format!("{} for {format}", rounding.name()),
        expected: "half_even: the format has a rule of its own".into(),
    })
}

/// Whether rows are whole blocks.
///
/// # Errors
/// They are not.
pub(crate) fn check_rows(blocks: &dyn Blocks, grid: &Grid) -> Result<(), Error> {
    let shape = grid.shape();
    if shape.last().is_some_and(|last| last % blocks.len() == 0) {
        return Ok(());
    }
    let expected = format!("a last axis of a multiple of {}, the block of {}", blocks.len(), blocks.name());
    Err(Error::Shape { what: "x", got: shape.to_vec(), expected })
}
