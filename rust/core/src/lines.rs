//! Lines of elements, side by side, and the parameters that each has.
//!
//! A line is a constant number of elements: the compiler makes straight vector code of that, while a loop over any number
//! costs a group of 32 elements twice as much. NaN and infinities are noticed on the way, by the largest magnitude; the
//! caller overwrites what came of NaN afterwards.

#![forbid(unsafe_code)]

use crate::emit::{Affine, Bounded, Cells, Emit, Integers, Law};
use crate::finite::{INFINITE, magnitude};
use crate::mem::prefetch;
use crate::pack::Code;
use crate::qparams::QParams;
use crate::rounding::{Mode, mode};
use std::hint::black_box;
use std::ops::Range;

/// Elements of a line: four vectors of AVX2, one of their codes.
pub(crate) const LINE: usize = 32;
/// Elements that share a cell in lines of several: the smallest block of a standard (NVFP4).
pub(crate) const HALF: usize = LINE / 2;
/// Elements of a line where codes are wide and cells are single elements: rare.
pub(crate) const SHORT: usize = 8;

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
