//! Elements that become codes, or the levels of those codes: the arithmetic of quantize.
//!
//! How levels hang on codes is a [`Law`]: integers, floating-point numbers, a table. It is given a constant number of
//! elements, a line (`lines.rs`).

#![forbid(unsafe_code)]

use crate::format::{HalfEven, Picker, Rounder};
use crate::pack::Code;
use crate::qparams::QParams;
use crate::rounding::{Mode, half_even, low_bits};

/// Scale, zero point and code range of one cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) scale: f32,
    pub(crate) zero_point: i32,
    pub(crate) qmin: i32,
    pub(crate) qmax: i32,
}

impl Affine {
    #[inline(always)]
    pub(crate) fn bounded(self) -> Bounded {
        let Affine { scale, zero_point, qmin, qmax } = self;
        let (low, high) = (qmin.wrapping_sub(zero_point) as f32, qmax.wrapping_sub(zero_point) as f32);
        Bounded { scale, zero_point, low, high }
    }
}

impl QParams<'_> {
    /// Those of one cell.
    #[inline(always)]
    pub(crate) fn affine(&self, cell: usize, (qmin, qmax): (i32, i32)) -> Affine {
        Affine { scale: self.scale[cell], zero_point: self.zero_point[cell], qmin, qmax }
    }
}

/// Scale and zero point with the ends of `code − zero_point`.
#[derive(Clone, Copy)]
pub(crate) struct Bounded {
    scale: f32,
    zero_point: i32,
    low: f32,
    high: f32,
}

/// The parameters of the elements of a line.
pub(crate) trait Cells<const N: usize>: Copy {
    /// Those of element `i`.
    fn of(&self, i: usize) -> Bounded;

    /// The low bits of `bits` plus the zero points.
    fn add_zero_points<C: Code>(&self, bits: [i32; N]) -> [C; N];
}

/// The same for all.
impl<const N: usize> Cells<N> for Bounded {
    #[inline(always)]
    fn of(&self, _: usize) -> Bounded {
        *self
    }

    #[inline(always)]
    fn add_zero_points<C: Code>(&self, bits: [i32; N]) -> [C; N] {
        // Cut off first: one addition then does for as many codes as a vector holds.
        let mut out = [C::default(); N];
        for i in 0..N {
            out[i] = C::from_i32(bits[i]).wrapping_add(C::from_i32(self.zero_point));
        }
        out
    }
}

/// One for each half.
impl<const N: usize> Cells<N> for [Bounded; 2] {
    #[inline(always)]
    fn of(&self, i: usize) -> Bounded {
        if i < N / 2 { self[0] } else { self[1] }
    }

    #[inline(always)]
    fn add_zero_points<C: Code>(&self, bits: [i32; N]) -> [C; N] {
        let mut out = [C::default(); N];
        for i in 0..N {
            let zero_point = if i < N / 2 { self[0].zero_point } else { self[1].zero_point };
            out[i] = C::from_i32(bits[i]).wrapping_add(C::from_i32(zero_point));
        }
        out
    }
}

/// Scales, zero points, and the range of the codes.
type Each<const N: usize> = ([f32; N], [i32; N], (i32, i32));

impl<const N: usize> Cells<N> for Each<N> {
    #[inline(always)]
    fn of(&self, i: usize) -> Bounded {
        let (qmin, qmax) = self.2;
        Affine { scale: self.0[i], zero_point: self.1[i], qmin, qmax }.bounded()
    }

    #[inline(always)]
    fn add_zero_points<C: Code>(&self, mut bits: [i32; N]) -> [C; N] {
        let mut out = [C::default(); N];
        for (bits, zero_point) in bits.iter_mut().zip(self.1) {
            *bits = bits.wrapping_add(zero_point);
        }
        for i in 0..N {
            out[i] = C::from_i32(bits[i]);
        }
        out
    }
}

/// What an element becomes: a code, or the level of that code.
pub(crate) trait Emit: Copy + Default {
    /// Whether this is a code of more than 8 bits: rare, and not worth a loop for each case.
    const WIDE: bool = false;
    /// Whether this is a level.
    const LEVEL: bool = false;
    /// From numbers that round half to even to `clamp(round(x / scale))`.
    fn emit<const N: usize>(near: [f32; N], cells: impl Cells<N>) -> [Self; N];
    /// From codes and their levels.
    fn picked<const N: usize>(picked: Picked<N>, cells: impl Cells<N>) -> [Self; N];
    /// What NaN becomes, whose code this is.
    fn of_nan(x: f32, code: i32) -> Self;
}

/// Codes and their levels.
type Picked<const N: usize> = ([i32; N], [f32; N]);

impl<C: Code> Emit for C {
    const WIDE: bool = size_of::<C>() > 1;

    #[inline(always)]
    fn emit<const N: usize>(near: [f32; N], cells: impl Cells<N>) -> [C; N] {
        let mut bits = [0; N];
        for i in 0..N {
            bits[i] = low_bits(near[i]);
        }
        cells.add_zero_points(bits)
    }

    #[inline(always)]
    fn picked<const N: usize>((codes, _): Picked<N>, _: impl Cells<N>) -> [C; N] {
        let mut out = [C::default(); N];
        for i in 0..N {
            out[i] = C::from_i32(codes[i]);
        }
        out
    }

    #[inline(always)]
    fn of_nan(_: f32, code: i32) -> C {
        C::from_i32(code)
    }
}

impl Emit for f32 {
    const LEVEL: bool = true;

    #[inline(always)]
    fn emit<const N: usize>(mut near: [f32; N], cells: impl Cells<N>) -> [f32; N] {
        for (i, near) in near.iter_mut().enumerate() {
            *near = cells.of(i).scale * half_even(*near);
        }
        near
    }

    #[inline(always)]
    fn picked<const N: usize>((_, mut levels): Picked<N>, cells: impl Cells<N>) -> [f32; N] {
        for (i, level) in levels.iter_mut().enumerate() {
            *level *= cells.of(i).scale;
        }
        levels
    }

    #[inline(always)]
    fn of_nan(x: f32, _: i32) -> f32 {
        x
    }
}

/// How levels hang on codes.
pub(crate) trait Law: Copy + Sync {
    /// Whether an element takes so little work that a loop over single ones becomes vector code, and that lines of
    /// codes of 16 bits do not pay.
    const SIMPLE: bool = false;
    /// Whether the mode says more than whether to draw.
    const MODES: bool = true;
    /// What a line becomes; NaN anything.
    fn line<M: Mode, E: Emit, const N: usize>(self, x: [f32; N], u: [f32; N], cells: impl Cells<N>)
    -> [E; N];
    /// The code of NaN in a cell.
    fn nan(self, p: Affine) -> i32;
}

/// Integers: `clamp(round(x / scale)) + zero_point`. The zero point stands for NaN.
#[derive(Clone, Copy)]
pub(crate) struct Integers;

impl Law for Integers {
    const SIMPLE: bool = true;

    #[inline(always)]
    fn line<M: Mode, E: Emit, const N: usize>(
        self,
        x: [f32; N],
        u: [f32; N],
        cells: impl Cells<N>,
    ) -> [E; N] {
        let mut near = [0.0; N];
        for i in 0..N {
            let Bounded { scale, low, high, .. } = cells.of(i);
            let v = x[i] / scale;
            let v = if v > low { v } else { low };
            let v = if v < high { v } else { high };
            near[i] = M::near(v, u[i]);
        }
        E::emit(near, cells)
    }

    #[inline(always)]
    fn nan(self, p: Affine) -> i32 {
        p.zero_point
    }
}

/// `x / scale`.
#[inline(always)]
fn quotients<const N: usize>(mut x: [f32; N], cells: impl Cells<N>) -> [f32; N] {
    for (i, x) in x.iter_mut().enumerate() {
        *x /= cells.of(i).scale;
    }
    x
}

/// Floating-point numbers, and what those beyond the largest become if they are not held back. NaN stays one, or
/// becomes 0 where there is none.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    rounder: Rounder,
    beyond: Option<(i32, f32)>,
    even: HalfEven,
}

impl Numbers {
    pub(crate) fn new(rounder: Rounder, beyond: Option<(i32, f32)>) -> Numbers {
        Numbers { rounder, beyond, even: rounder.half_even(beyond) }
    }
}

impl Law for Numbers {
    const MODES: bool = false;

    #[inline(always)]
    fn line<M: Mode, E: Emit, const N: usize>(
        self,
        x: [f32; N],
        u: [f32; N],
        cells: impl Cells<N>,
    ) -> [E; N] {
        let v = quotients(x, cells);
        let (mut codes, mut levels) = ([0; N], [0.0; N]);
        // The rounder says how to round, the mode only whether to draw.
        if M::RANDOM {
            for i in 0..N {
                (codes[i], levels[i]) = self.rounder.nearest::<true>(v[i], u[i], self.beyond);
            }
        } else if self.rounder.is_half_even() {
            for i in 0..N {
                (codes[i], levels[i]) = self.even.nearest(v[i]);
            }
        } else {
            for i in 0..N {
                (codes[i], levels[i]) = self.rounder.nearest::<false>(v[i], u[i], self.beyond);
            }
        }
        E::picked((codes, levels), cells)
    }

    #[inline(always)]
    fn nan(self, _: Affine) -> i32 {
        self.rounder.nan().unwrap_or(0)
    }
}

/// A table of levels. The level next to 0 stands for NaN.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a>(pub(crate) &'a Picker);

impl Law for Table<'_> {
    const MODES: bool = false;

    #[inline(always)]
    fn line<M: Mode, E: Emit, const N: usize>(
        self,
        x: [f32; N],
        u: [f32; N],
        cells: impl Cells<N>,
    ) -> [E; N] {
        let v = quotients(x, cells);
        // Thresholds say how to round; the mode only whether to draw.
        let picked = if M::RANDOM {
            self.0.pick::<true, N>(v, u, E::LEVEL)
        } else {
            self.0.pick::<false, N>(v, u, E::LEVEL)
        };
        E::picked(picked, cells)
    }

    #[inline(always)]
    fn nan(self, _: Affine) -> i32 {
        self.0.pick::<false, 1>([0.0], [0.0], false).0[0]
    }
}
