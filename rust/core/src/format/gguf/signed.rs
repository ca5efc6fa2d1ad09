//! The search for scales without minima: `x ≈ s · t`, with `t` the level nearest to `x / s`.
//!
//! The error as a function of `s` has many local minima. With the levels held fixed it is a parabola,
//! `Σw(x − st)² = E* + (s − s*)² Σwt²`, least at `s* = s + Σw(x − st)t / Σwt²`: so every scale that is measured stands
//! for a stretch of scales. First, each part gets the best of some scales that put its extreme on or near the ends
//! of the levels, moved to their least-squares values. Where the scales of parts are integers times one float16 `d`,
//! `d` is then the one that loses least by those parabolas; the integers and their neighbours are measured with the
//! levels they give; `d` moves to its least-squares value for all parts together, and the neighbours are measured
//! again. What is kept is always what was measured, and never worse than the scales of the extremes.

use super::lanes::{self, LANES, Shortlist, Tile, V, float16, float16s};
use std::hint::black_box;

/// The levels that a scale multiplies.
pub(super) trait Levels {
    /// The lowest level, whose magnitude is the largest.
    const LOWEST: f32;

    /// Where the searches put the element of largest magnitude.
    const ENDS: &'static [f32];

    /// The level nearest to `v`.
    fn nearest(v: V) -> V;
}

/// What scales lose, and what would be better for the same levels.
#[derive(Debug, Clone, Copy)]
struct Moments {
    /// Σw(x − st)²
    error: V,
    /// Σw(x − st)t
    slope: V,
    /// Σwt²
    squares: V,
}

impl Moments {
    const NONE: Moments = Moments { error: V([f32::INFINITY; LANES]), slope: V::ZERO, squares: V::ZERO };

    #[inline(always)]
    fn of<L: Levels, const N: usize>(tile: &Tile<N>, scale: V) -> Moments {
        // What comes and goes passes through memory: seeing more than this loop, the compiler cuts its vectors up.
        let (scale, inverse) = black_box((scale, scale.inverse()));
        let mut m = Moments { error: V::ZERO, ..Moments::NONE };
        for (&x, &w) in tile.x.iter().zip(&tile.w) {
            let t = L::nearest(x * inverse);
            let r = x - scale * t;
            let (wr, wt) = (w * r, w * t);
            m.error = m.error + wr * r;
            m.slope = m.slope + wr * t;
            m.squares = m.squares + wt * t;
        }
        black_box(m)
    }

    /// Takes on `other` in the lanes where its error is smaller; gives `new` there, elsewhere `old`.
    #[inline(always)]
    fn improve(&mut self, other: Moments, new: V, old: V) -> V {
        let (error, limit) = (other.error, self.error);
        self.slope = error.below(limit, other.slope, self.slope);
        self.squares = error.below(limit, other.squares, self.squares);
        self.error = error.below(limit, error, limit);
        error.below(limit, new, old)
    }
}

/// The best scales so far, by the error to be hoped for at the bottom of their parabola.
#[derive(Debug, Clone, Copy)]
struct Fit {
    scale: V,
    /// Its error is E*.
    moments: Moments,
}

impl Fit {
    /// The best scales for the parts of a tile, and those that put the extremes on the lowest level.
    #[inline(always)]
    fn new<L: Levels, const N: usize>(tile: &Tile<N>) -> (Fit, V) {
        const MOVES: usize = 2;
        let (lo, hi) = tile.ends();
        let extreme = (-lo).below(hi, hi, lo);
        let mut fit = Fit { scale: V::ZERO, moments: Moments::NONE };
        for end in L::ENDS {
            fit.consider::<L, N>(tile, extreme * V::all(1.0 / end));
        }
        for _ in 0..MOVES {
            fit.consider::<L, N>(tile, fit.scale);
        }
        (fit, extreme * V::all(1.0 / L::LOWEST))
    }

    #[inline(always)]
    fn consider<L: Levels, const N: usize>(&mut self, tile: &Tile<N>, scale: V) {
        let mut m = Moments::of::<L, N>(tile, scale);
        let step = m.slope * m.squares.inverse();
        let better = scale + step;
        // Where nothing else decides, as beside an outlier, the smallest scale: it leaves the other parts finer ones.
        let tie = V::all(1e-4) * tile.weight * better * better;
        m.error = m.error - step * m.slope + tie;
        self.scale = self.moments.improve(m, better, self.scale);
    }
}

/// What a block of 256 without minima holds: `H · 8` parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<const H: usize> {
    /// A float16.
    pub(super) d: f32,
    pub(super) scale: [[i8; LANES]; H],
    pub(super) levels: [i8; 256],
}

impl<const H: usize> Block<H> {
    /// `d · scale · level`, in parts of `N`.
    #[inline(always)]
    pub(super) fn decode<const N: usize>(&self, out: &mut [f32; 256]) {
        let (levels, out) = (self.levels.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
        for (p, scale) in self.scale.as_flattened().iter().enumerate() {
            super::scaled(self.d * f32::from(*scale), levels[p], &mut out[p]);
        }
    }

    /// Searches the block for `x`: parts of `N`, whose scales go from −`lowest` to `lowest` − 1.
    #[inline(always)]
    pub(super) fn encode<L: Levels, const N: usize>(
        x: &[f32; 256],
        importance: Option<&[f32; 256]>,
        lowest: f32,
    ) -> Self {
        let tiles = lanes::block::<H, N>(x, importance, 1.0);
        let found = Search { tiles: &tiles, lowest: -lowest }.run::<L>();
        let d = found.d / tiles[0].unit.0[0];
        let mut block = Block { d, scale: [[0; LANES]; H], levels: [0; 256] };
        for h in 0..H {
            for lane in 0..LANES {
                block.scale[h][lane] = found.scale[h].0[lane] as i32 as i8;
            }
            let levels = &mut block.levels.as_chunks_mut::<N>().0[LANES * h..];
            encode::<L, N>(&tiles[h], found.scale[h] * V::all(found.d), levels);
        }
        block
    }
}

/// The levels of each part under the scales of a tile.
#[inline(always)]
fn encode<L: Levels, const N: usize>(tile: &Tile<N>, scale: V, out: &mut [[i8; N]]) {
    let inverse = black_box(scale.inverse());
    for i in 0..N {
        let t = black_box(L::nearest(tile.x[i] * inverse));
        for (out, t) in out.iter_mut().zip(t.0) {
            out[i] = t as i32 as i8;
        }
    }
}

/// Scales in two levels, `d · scale`, in the unit of the block.
#[derive(Debug, Clone, Copy)]
struct Scales<const H: usize> {
    d: f32,
    scale: [V; H],
    moments: [Moments; H],
    error: f32,
}

/// The search for one block.
struct Search<'a, const H: usize, const N: usize> {
    tiles: &'a [Tile<N>; H],
    lowest: f32,
}

impl<const H: usize, const N: usize> Search<'_, H, N> {
    #[inline(always)]
    fn run<L: Levels>(&self) -> Scales<H> {
        const ROUNDS: usize = 2;
        let mut fits = [Fit { scale: V::ZERO, moments: Moments::NONE }; H];
        let mut extremes = [V::ZERO; H];
        for h in 0..H {
            (fits[h], extremes[h]) = Fit::new::<L, N>(&self.tiles[h]);
        }
        let scale = fits.map(
            #[inline(always)]
            |fit| fit.scale,
        );
        let d = self.float16(self.top(&extremes) / self.lowest);
        let plain = self.measured::<L>(d, extremes);
        let mut best = Scales { error: f32::INFINITY, ..plain };
        for (_, d) in self.start(&fits).best {
            let next = self.measured::<L>(d, scale);
            best = if next.error < best.error { next } else { best };
        }
        best = self.neighbours::<L>(best, 2);
        for _ in 0..ROUNDS {
            best = self.neighbours::<L>(self.moved::<L>(best), 1);
        }
        if plain.error < best.error { plain } else { best }
    }

    #[inline(always)]
    fn float16(&self, d: f32) -> f32 {
        float16(d, self.tiles[0].unit.0[0])
    }

    #[inline(always)]
    fn integers(&self, v: V) -> V {
        v.max(V::all(self.lowest)).min(V::all(-1.0 - self.lowest)).round()
    }

    /// The scale of largest magnitude.
    #[inline(always)]
    fn top(&self, scales: &[V; H]) -> f32 {
        let mut top = 0f32;
        for scales in scales {
            for scale in scales.0 {
                top = if scale.abs() > top.abs() { scale } else { top };
            }
        }
        top
    }

    /// The `d` that lose least by the parabolas, of some that give the largest scale about the largest integer.
    #[inline(always)]
    fn start(&self, fits: &[Fit; H]) -> Shortlist<f32> {
        const STARTS: usize = 16;
        let top = self.top(&fits.map(
            #[inline(always)]
            |fit| fit.scale,
        ));
        let mut shortlist = Shortlist::new(0.0);
        for i in 0..STARTS {
            let d = self.float16(top / (self.lowest * (1.04 - 0.02 * i as f32)));
            let inverse = V::all(d).inverse();
            let mut error = V::ZERO;
            for fit in fits {
                let off = fit.scale - self.integers(fit.scale * inverse) * V::all(d);
                error = error + off * off * fit.moments.squares;
            }
            shortlist.consider(black_box(error).sum(), d);
        }
        shortlist
    }

    /// Measures the integers nearest to `scale / d`.
    #[inline(always)]
    fn measured<L: Levels>(&self, d: f32, mut scale: [V; H]) -> Scales<H> {
        let inverse = V::all(d).inverse();
        for scale in &mut scale {
            *scale = self.integers(*scale * inverse);
        }
        self.with::<L>(d, scale)
    }

    /// Measures `d` with these integers.
    #[inline(always)]
    fn with<L: Levels>(&self, d: f32, scale: [V; H]) -> Scales<H> {
        let mut out = Scales { d, scale, moments: [Moments::NONE; H], error: 0.0 };
        for h in 0..H {
            out.moments[h] = Moments::of::<L, N>(&self.tiles[h], scale[h] * V::all(d));
            out.error += out.moments[h].error.sum();
        }
        out
    }

    /// Tries the neighbours of each scale, `reach` to each side.
    #[inline(always)]
    fn neighbours<L: Levels>(&self, from: Scales<H>, reach: i32) -> Scales<H> {
        let mut best = from;
        best.error = 0.0;
        for h in 0..H {
            for step in -reach..=reach {
                let scale = self.integers(from.scale[h] + V::all(step as f32));
                let m = Moments::of::<L, N>(&self.tiles[h], scale * V::all(from.d));
                best.scale[h] = best.moments[h].improve(m, scale, best.scale[h]);
            }
            best.error += best.moments[h].error.sum();
        }
        best
    }

    /// `d` moved to its least-squares value for the levels and scales as they are, where that is better.
    #[inline(always)]
    fn moved<L: Levels>(&self, from: Scales<H>) -> Scales<H> {
        let (mut slope, mut squares) = (V::ZERO, V::ZERO);
        for h in 0..H {
            slope = slope + from.scale[h] * from.moments[h].slope;
            squares = squares + from.scale[h] * from.scale[h] * from.moments[h].squares;
        }
        let (slope, squares) = (slope.sum(), squares.sum());
        if squares > 0.0 {
            let next = self.with::<L>(self.float16(from.d + slope / squares), from.scale);
            if next.error < from.error {
                return next;
            }
        }
        from
    }
}

/// Eight blocks with a float16 scale each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Eight<const N: usize> {
    pub(super) d: V,
    pub(super) levels: [[i8; N]; LANES],
}

impl<const N: usize> Eight<N> {
    /// Searches the scales for the blocks from number `first` on.
    #[inline(always)]
    pub(super) fn encode<L: Levels>(x: &[[f32; N]], importance: Option<&[[f32; N]]>, first: usize) -> Self {
        let tile = lanes::eight(x, importance, first);
        let (fit, plain) = Fit::new::<L, N>(&tile);
        let mut moments = Moments::NONE;
        let mut d = V::ZERO;
        for scale in [fit.scale, plain, V::ZERO] {
            let scale = float16s(scale, tile.unit);
            d = moments.improve(Moments::of::<L, N>(&tile, scale), scale, d);
        }
        let mut out = Eight { d: d / tile.unit, levels: [[0; N]; LANES] };
        encode::<L, N>(&tile, d, &mut out.levels);
        out
    }
}

/// All integers from `LOWEST` to `HIGHEST`.
pub(super) struct Integers<const LOWEST: i32, const HIGHEST: i32>;

impl<const LOWEST: i32, const HIGHEST: i32> Levels for Integers<LOWEST, HIGHEST> {
    const LOWEST: f32 = LOWEST as f32;

    const ENDS: &'static [f32] = match LOWEST {
        -1 => &[-1.0, -1.15, -1.35, -1.6, -1.9, -2.2, -2.6, -3.0],
        -4 => &[-3.1, -3.3, -3.5, -3.7, -3.9, -4.1, -4.3, -4.5, -4.8, 2.2, 2.5, 2.7, 2.9, 3.1, 3.3, 3.6],
        -8 => &[-6.2, -6.6, -7.0, -7.4, -7.8, -8.2, -8.6, -9.0, 5.2, 5.6, 6.0, 6.4, 6.8, 7.2, 7.6, 8.0],
        -16 => &[-14.2, -14.6, -15.0, -15.4, -15.8, -16.2, -16.6, 13.2, 13.6, 14.0, 14.4, 14.8, 15.2, 15.6],
        -32 => &[
            -29.6, -29.8, -30.0, -30.2, -30.4, -30.6, -30.8, -31.0, -31.2, -31.4, -31.6, -31.8, -32.0, -32.2,
            -32.4, -32.6, -32.8, -33.0, 29.4, 29.7, 30.0, 30.3, 30.6, 30.9, 31.2, 31.5,
        ],
        _ => &[-128.4, -128.0, -127.6, -127.2, -126.8, -126.4, -126.0, 127.4, 127.0, 126.6, 126.2, 125.8],
    };

    #[inline(always)]
    fn nearest(v: V) -> V {
        v.max(V::all(Self::LOWEST)).min(V::all(HIGHEST as f32)).round()
    }
}
