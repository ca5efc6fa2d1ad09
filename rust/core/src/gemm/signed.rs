//! Rows of signed bytes: Arm's dot products multiply int8 with int8, so there it is uint8 codes that are shifted.

use super::kernel::WordI8;
use super::rows::Arrange;

impl Arrange for WordI8 {
    const SHIFT: [i32; 2] = [0, -128];

    #[inline(always)]
    fn arrange(codes: &[i16], out: &mut [Self]) {
        for (codes, out) in codes.as_chunks::<4>().0.iter().zip(out) {
            for (code, out) in codes.iter().zip(out) {
                *out = *code as i8;
            }
        }
    }
}
