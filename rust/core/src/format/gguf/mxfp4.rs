//! `mxfp4`: 32 values of fp4 e2m1 with one power of two, as the OCP Microscaling specification 1.0 has them.
//!
//! ```text
//! byte      0    1              16
//!         | e  | q₀  q₁  …  q₁₅ |      low nibbles elements 0 … 15, high nibbles 16 … 31
//!
//! nibble  | s e e m |     x = (−1)ˢ · 2^(e − 127) · {0, ½, 1, 1½, 2, 3, 4, 6}
//! ```
//!
//! The exponent is that of the largest magnitude less 2, so that 6 stands above it or a little below: the
//! specification's rule. With an importance the neighbouring exponents are tried too. A magnitude midway between two
//! levels takes the lower one.

use super::{Codec, nibbles, pack_nibbles, part};

/// The magnitudes that part the doubled levels: what lies above takes the next.
const BOUNDS: [f32; 7] = [0.5, 1.5, 2.5, 3.5, 5.0, 7.0, 10.0];

pub(super) struct Mxfp4;

/// 2^(e − 128), the unit of the doubled levels; subnormal at 0 and 1.
#[inline(always)]
fn unit(e: u8) -> f32 {
    let normal = u32::from(e).saturating_sub(1) << 23;
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { normal })
}

/// The exponent for a block of this largest magnitude.
#[inline(always)]
fn exponent(largest: f32) -> u8 {
    // The exponent field is ⌊log₂⌋ + 127 for what is normal; all that is less takes the lowest.
    (largest.to_bits() >> 23).saturating_sub(2) as u8
}

#[inline(always)]
fn encode(x: [f32; 32], e: u8) -> [u8; 32] {
    let unit = unit(e);
    let mut codes = [0; 32];
    for i in 0..32 {
        let mut code = 0;
        for bound in BOUNDS {
            code += i32::from(x[i].abs() > bound * unit);
        }
        let sign = if x[i] < 0.0 && code > 0 { 8 } else { 0 };
        codes[i] = (code | sign) as u8;
    }
    codes
}

/// Decodes by twice the levels, which are integers: 0, 1, 2, 3, 4, 6, 8, 12.
#[inline(always)]
fn decode(codes: [u8; 32], e: u8, out: &mut [f32; 32]) {
    let mut levels = [0; 32];
    for i in 0..32 {
        // Steps of 1 up to 4, then of 2, the last of 4: arithmetic is vector code, a table is not.
        let code = codes[i] & 7;
        let level = code + code.saturating_sub(4) + if code == 7 { 2 } else { 0 };
        levels[i] = if codes[i] & 8 == 0 { level as i8 } else { -(level as i8) };
    }
    super::scaled(unit(e), levels, out);
}

impl Codec<32, 17> for Mxfp4 {
    #[inline(always)]
    fn encode(x: &[[f32; 32]], importance: Option<&[[f32; 32]]>, out: &mut [[u8; 17]]) {
        for (i, (x, out)) in x.iter().zip(out).enumerate() {
            let mut largest = [0f32; 8];
            for line in x.as_chunks::<8>().0 {
                for j in 0..8 {
                    largest[j] = if line[j].abs() > largest[j] { line[j].abs() } else { largest[j] };
                }
            }
            let e = exponent(largest.into_iter().fold(0.0, |a, b| if b > a { b } else { a }));
            let e = importance.map_or(e, |importance| best(x, &importance[i], e));
            out[0] = e;
            out[1..].copy_from_slice(&pack_nibbles(encode(*x, e)));
        }
    }

    #[inline(always)]
    fn decode(block: &[u8; 17], out: &mut [f32; 32]) {
        decode(nibbles(part(block, 1)), block[0], out);
    }
}

/// That of `rule` and its neighbours whose weighted squared error is least; of equal ones that of the rule.
#[inline(always)]
fn best(x: &[f32; 32], importance: &[f32; 32], rule: u8) -> u8 {
    let (mut best, mut least) = (rule, f64::INFINITY);
    for e in [rule, rule.saturating_sub(1), rule.saturating_add(1).min(252)] {
        let mut decoded = [0.0; 32];
        decode(encode(*x, e), e, &mut decoded);
        let mut error = 0.0;
        for i in 0..32 {
            let residual = f64::from(x[i] - decoded[i]);
            error += f64::from(importance[i]) * residual * residual;
        }
        if error < least {
            (best, least) = (e, error);
        }
    }
    best
}
