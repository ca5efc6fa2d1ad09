//! Lines of elements that become codes, or the levels of those codes: the arithmetic of quantize.
//!
//! How levels hang on codes is a [`Law`]: integers, floating-point numbers, a table.
//!
//! A line is a constant number of elements, worked on side by side: the compiler makes straight vector code of that,
//! while a loop over any number costs a group of 32 elements twice as much. NaN and infinities are noticed on
//! the way, by the largest magnitude; the caller overwrites what came of NaN afterwards.

#![forbid(unsafe_code)]

use crate::finite::{INFINITE, magnitude};
use crate::format::{HalfEven, Picker, Rounder};
use crate::mem::prefetch;
use crate::pack::Code;
use crate::qparams::QParams;
use crate::rounding::{Mode, half_even, low_bits, mode};
use std::hint::black_box;
use std::ops::Range;

/// Elements of a line: four vectors of AVX2, one of their codes.
pub(crate) const LINE: usize = 32;
/// Elements that share a cell in lines of several: the smallest block of a standard (NVFP4).
pub(crate) const HALF: usize = LINE / 2;
/// Elements of a line where codes are wide and cells are single elements: rare.
pub(crate) const SHORT: usize = 8;

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

/// The largest magnitudes seen.
#[derive(Clone, Copy)]
struct Top<const N: usize>([u32; N]);

impl<const N: usize> Top<N> {
    fn new() -> Self {
        Top([0; N])
    }

    /// With another line: a copy, which stays in registers.
    #[inline(always)]
    fn with(self, x: [f32; N]) -> Self {
        let mut top = self.0;
        for i in 0..N {
            top[i] = magnitude(x[i]).max(top[i]);
        }
        Top(top)
    }

    #[inline(always)]
    fn all_finite(&self) -> bool {
        let mut any = false;
        for top in self.0 {
            any |= top >= INFINITE;
        }
        !any
    }
}

/// Elements to emit: numbers, as many random numbers (anything in modes that read none), and whether they come from
/// memory beyond the caches.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) u: &'a [f32],
    pub(crate) far: bool,
}

impl Elements<'_> {
    #[inline(always)]
    pub(crate) fn part(self, range: Range<usize>) -> Self {
        Elements { x: &self.x[range.clone()], u: &self.u[range], far: self.far }
    }
}

/// Emits elements whose lines have the parameters that `cells` gives. Returns whether all are finite.
#[inline(always)]
pub(crate) fn emit_lines<M: Mode, E: Emit>(
    law: impl Law,
    Elements { x, u, far }: Elements<'_>,
    mut cells: impl Lines,
    out: &mut [E],
) -> bool {
    let mut top = Top::<LINE>::new();
    let ((lines, rest), (u_lines, u_rest)) = (x.as_chunks(), u.as_chunks());
    let (out_lines, out_rest) = out.as_chunks_mut();
    for ((x, u), out) in lines.iter().zip(u_lines).zip(out_lines) {
        line_by_line();
        if far {
            prefetch(x);
        }
        *out = law.line::<M, E, LINE>(*x, *u, cells.line());
        top = top.with(*x);
    }
    if !rest.is_empty() {
        let halves = rest.chunks(HALF).zip(u_rest.chunks(HALF)).zip(out_rest.chunks_mut(HALF));
        for (((x, u), out), cell) in halves.zip(cells.rest()) {
            emit_run::<M, E>(law, Elements { x, u, far }, cell, out);
        }
    }
    top.all_finite() && all_finite(rest)
}

/// Emits elements of one cell as lines of one: the compiler takes as many at a time as a vector holds, in a loop that
/// suits short runs. Whether they are finite is not looked at.
#[inline(always)]
pub(crate) fn emit_run<M: Mode, E: Emit>(
    law: impl Law,
    Elements { x, u, .. }: Elements<'_>,
    cell: Bounded,
    out: &mut [E],
) {
    for ((&x, &u), out) in x.iter().zip(u).zip(out) {
        if !is_simple(law) {
            line_by_line();
        }
        [*out] = law.line::<M, E, 1>([x], [u], cell);
    }
}

#[inline(always)]
fn is_simple<L: Law>(_: L) -> bool {
    L::SIMPLE
}

/// Whether all of `x` is finite.
#[inline(always)]
pub(crate) fn all_finite(x: &[f32]) -> bool {
    x.iter().fold(0, |top, &x| magnitude(x).max(top)) < INFINITE
}

/// Keeps the compiler, which sees two loops, to the inner one: lines taken side by side would have to be gathered and
/// scattered, in five times as long.
#[inline(always)]
fn line_by_line() {
    black_box(());
}

/// The parameters of lines, which are asked for in turn.
pub(crate) trait Lines {
    type Line: Cells<LINE>;
    /// Those of the next line.
    fn line(&mut self) -> Self::Line;
    /// Those of the halves of a line that is not whole.
    fn rest(&mut self) -> [Bounded; 2];
}

/// One cell for all lines.
impl Lines for Bounded {
    type Line = Bounded;

    #[inline(always)]
    fn line(&mut self) -> Bounded {
        *self
    }

    #[inline(always)]
    fn rest(&mut self) -> [Bounded; 2] {
        [*self; 2]
    }
}

/// Cells of whole steps: lines or halves of lines.
pub(crate) struct Even<'a, const STEP: usize> {
    params: QParams<'a>,
    range: (i32, i32),
    /// Elements of a cell, and how many of them are left.
    block: usize,
    left: usize,
    cell: usize,
    bounded: Bounded,
}

impl<'a, const STEP: usize> Even<'a, STEP> {
    /// From flat index `start` on; cell `c` starts at `c · block`.
    #[inline(always)]
    pub(crate) fn new(params: QParams<'a>, range: (i32, i32), block: usize, start: usize) -> Self {
        let cell = start / block;
        let bounded = params.affine(cell, range).bounded();
        Even { params, range, block, left: block - start % block, cell, bounded }
    }
}

impl<const STEP: usize> Even<'_, STEP> {
    /// The parameters of the next step.
    #[inline(always)]
    fn step(&mut self) -> Bounded {
        if self.left == 0 {
            self.cell += 1;
            self.left = self.block;
            self.bounded = self.params.affine(self.cell, self.range).bounded();
        }
        self.left = self.left.saturating_sub(STEP);
        self.bounded
    }
}

impl Lines for Even<'_, LINE> {
    type Line = Bounded;

    #[inline(always)]
    fn line(&mut self) -> Bounded {
        self.step()
    }

    #[inline(always)]
    fn rest(&mut self) -> [Bounded; 2] {
        [self.step(); 2]
    }
}

impl Lines for Even<'_, HALF> {
    type Line = [Bounded; 2];

    #[inline(always)]
    fn line(&mut self) -> [Bounded; 2] {
        [self.step(), self.step()]
    }

    #[inline(always)]
    fn rest(&mut self) -> [Bounded; 2] {
        let first = self.step();
        // There may be no second cell.
        let second = self.left > 0 || self.cell + 1 < self.params.scale.len();
        [first, if second { self.step() } else { first }]
    }
}

/// [`emit_lines`] for elements with parameters of their own. The lines of these are taken in step with the others: a
/// line picked by a condition would not be loaded as a vector.
#[inline(always)]
pub(crate) fn emit_each<M: Mode, E: Emit, const N: usize>(
    law: impl Law,
    Elements { x, u, far }: Elements<'_>,
    params: QParams<'_>,
    range: (i32, i32),
    out: &mut [E],
) -> bool {
    let (mut top, mut rest_top) = (Top::<N>::new(), Top::new());
    let ((lines, rest), (u_lines, u_rest)) = (x.as_chunks(), u.as_chunks());
    let (scales, scale_rest) = params.scale.as_chunks();
    let (zeros, zero_rest) = params.zero_point.as_chunks();
    let (out_lines, out_rest) = out.as_chunks_mut();
    for (((x, u), (scale, zero)), out) in
        lines.iter().zip(u_lines).zip(scales.iter().zip(zeros)).zip(out_lines)
    {
        line_by_line();
        if far {
            prefetch(x);
        }
        *out = law.line::<M, E, N>(*x, *u, (*scale, *zero, range));
        top = top.with(*x);
    }
    let rest = rest.iter().zip(u_rest).zip(scale_rest.iter().zip(zero_rest)).zip(out_rest);
    for (((&x, &u), (&scale, &zero)), out) in rest {
        [*out] = law.line::<M, E, 1>([x], [u], ([scale], [zero], range));
        rest_top = rest_top.with([x]);
    }
    top.all_finite() && rest_top.all_finite()
}

/// Writes the codes of `x`, rounded half to even. NaN becomes the zero point.
#[inline(always)]
pub(crate) fn encode<C: Code>(x: &[f32], p: Affine, out: &mut [C]) {
    emit_run::<mode::HalfEven, C>(Integers, Elements { x, u: x, far: false }, p.bounded(), out);
    if !all_finite(x) {
        for (&x, out) in x.iter().zip(out) {
            *out = if x.is_nan() { C::of_nan(x, p.zero_point) } else { *out };
        }
    }
}
