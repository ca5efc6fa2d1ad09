//! Instructions that `std::arch` keeps unstable, as inline assembly under the names and with the signatures it has
//! for them: once they are stable, a function here becomes an import there. An unsafe room.

#[cfg(target_arch = "aarch64")]
pub(crate) use arm::{vdotq_lane_s32, vmmlaq_s32};

#[cfg(target_arch = "aarch64")]
mod arm {
    use crate::isa::{neondot, neoni8mm};
    use std::arch::aarch64::{int8x8_t, int8x16_t, int32x4_t};
    use std::arch::asm;

    neondot! {
        /// `sdot`: adds to each int32 of `sums` the products of its four int8 of `b` with word `LANE` of `a`.
        #[inline]
        pub(crate) fn vdotq_lane_s32<const LANE: i32>(sums: int32x4_t, b: int8x16_t, a: int8x8_t) -> int32x4_t {
            const { assert!(0 <= LANE && LANE < 2) };
            let mut out = sums;
            // SAFETY: it reads and writes the named registers alone, and whoever may call this has the instruction.
            unsafe {
                asm!(
                    "sdot {out:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
                    out = inout(vreg) out,
                    b = in(vreg) b,
                    a = in(vreg) a,
                    lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            out
        }
    }

    neoni8mm! {
        /// `smmla`: adds the product of two rows of eight int8 with two columns of eight, 2 × 2 sums row by row.
        #[inline]
        pub(crate) fn vmmlaq_s32(sums: int32x4_t, rows: int8x16_t, columns: int8x16_t) -> int32x4_t {
            let mut out = sums;
            // SAFETY: it reads and writes the named registers alone, and whoever may call this has the instruction.
            unsafe {
                asm!(
                    "smmla {out:v}.4s, {rows:v}.16b, {columns:v}.16b",
                    out = inout(vreg) out,
                    rows = in(vreg) rows,
                    columns = in(vreg) columns,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            out
        }
    }
}
