//! The tables that come with the library, for one value a step, made by [`super::Training`], which says how.
#![forbid(unsafe_code)]

use super::code::Table;
use crate::error::Error;

/// For 8, 10 and 12 state bits in turn and 1 to 4 bits a step: `2^state_bits` levels, an int8 each.
static LEVELS: &[u8] = include_bytes!("tables.bin");

/// The scales of the tables, in the same order.
const SCALES: [[f32; 4]; 3] = [
    [0.017952789, 0.02294993, 0.02566302, 0.028606808],
    [0.020412613, 0.026527377, 0.028578825, 0.02988047],
    [0.024817875, 0.028574005, 0.031171529, 0.032449443],
];

/// The table for `bits` bits a step and `state_bits` bits of a state.
///
/// # Errors
/// There is none.
pub(super) fn find(bits: usize, state_bits: usize) -> Result<Table, Error> {
    super::check("bits", bits, 1, 4)?;
    match state_bits {
        8 => Ok(table(bits, 8, 0)),
        10 => Ok(table(bits, 10, 1)),
        12 => Ok(largest(bits)),
        _ => {
            let expected = "8, 10 or 12: for these there are trained tables".to_owned();
            Err(Error::Value { what: "state_bits", got: state_bits.to_string(), expected })
        }
    }
}

/// The table for 1 to 4 bits and 12 state bits.
pub(super) fn largest(bits: usize) -> Table {
    table(bits, 12, 2)
}

fn table(bits: usize, state_bits: usize, row: usize) -> Table {
    let start = [0, 4 << 8, (4 << 8) + (4 << 10)][row];
    let len = 1 << state_bits;
    let levels = &LEVELS[start + (bits - 1) * len..][..len];
    Table { levels: levels.iter().map(|level| *level as i8).collect(), scale: SCALES[row][bits - 1] }
}
