//! The search for scales with minima: `x ≈ s · q + b`, with codes `q` from 0 to `TOP`.
//!
//! As in `signed.rs`, but a part has two parameters: with the codes held fixed the error is a quadratic form in `s`
//! and `b`, whose minimum solves two equations. In the blocks of 256 `s` is an integer times `d` and `b` one times
//! `−dmin`, none of them negative, so that `b` is held at or below 0; `d` and `dmin` may both be negative, and are
//! where more is lost by that for the elements as they are than for their negatives.

mod search;

use super::lanes::{self, LANES, Tile, V, float16s};
use search::Search;
use std::hint::black_box;

/// What scales and offsets lose, and what would be better for the same codes.
#[derive(Debug, Clone, Copy)]
struct Moments {
    /// Σwr², where r = x − sq − b
    error: V,
    /// Σwr
    r: V,
    /// Σwrq
    rq: V,
    /// Σwq
    q: V,
    /// Σwq²
    qq: V,
}

impl Moments {
    const NONE: Moments =
        Moments { error: V([f32::INFINITY; LANES]), r: V::ZERO, rq: V::ZERO, q: V::ZERO, qq: V::ZERO };

    #[inline(always)]
    fn of<const TOP: u8, const N: usize>(tile: &Tile<N>, s: V, b: V) -> Moments {
        // What comes and goes passes through memory: seeing more than this loop, the compiler cuts its vectors up.
        let (s, b, inverse) = black_box((s, b, s.inverse()));
        let mut m = Moments { error: V::ZERO, ..Moments::NONE };
        for (&x, &w) in tile.x.iter().zip(&tile.w) {
            let x = x - b;
            let q = nearest::<TOP>(x * inverse);
            let r = x - s * q;
            let (wr, wq) = (w * r, w * q);
            m.error = m.error + wr * r;
            m.r = m.r + wr;
            m.rq = m.rq + wr * q;
            m.q = m.q + wq;
            m.qq = m.qq + wq * q;
        }
        black_box(m)
    }

    /// Takes on `other` in the lanes where its error is smaller; gives `new` there, elsewhere `old`.
    #[inline(always)]
    fn improve(&mut self, other: Moments, new: (V, V), old: (V, V)) -> (V, V) {
        let (error, limit) = (other.error, self.error);
        self.r = error.below(limit, other.r, self.r);
        self.rq = error.below(limit, other.rq, self.rq);
        self.q = error.below(limit, other.q, self.q);
        self.qq = error.below(limit, other.qq, self.qq);
        self.error = error.below(limit, error, limit);
        (error.below(limit, new.0, old.0), error.below(limit, new.1, old.1))
    }
}

#[inline(always)]
fn nearest<const TOP: u8>(v: V) -> V {
    v.max(V::ZERO).min(V::all(f32::from(TOP))).round()
}

/// The best scales and offsets so far, by the error to be hoped for with the codes they came from.
#[derive(Debug, Clone, Copy)]
struct Fit {
    s: V,
    b: V,
    moments: Moments,
}

/// Where the searches put the smallest and the largest element: so many steps below the lowest code and above the
/// highest.
const ENDS: [f32; 4] = [0.2, -0.2, -0.6, -1.0];
/// The same for two bits.
const ENDS_2: [f32; 3] = [0.2, -0.1, -0.4];

impl Fit {
    const NONE: Fit = Fit { s: V::ZERO, b: V::ZERO, moments: Moments::NONE };

    /// The best for the parts of a tile with offsets up to `limit`, and those from the smallest element to the largest.
    #[inline(always)]
    fn new<const TOP: u8, const N: usize>(tile: &Tile<N>, limit: f32) -> (Fit, (V, V)) {
        const MOVES: usize = 3;
        let ends: &[f32] = if TOP == 3 { &ENDS_2 } else { &ENDS };
        let top = f32::from(TOP);
        let (lo, hi) = tile.ends();
        let lo = lo.min(V::all(limit));
        let step = (hi - lo) * V::all(1.0 / top);
        let mut fit = Fit::NONE;
        for below in ends {
            let b = (lo - step * V::all(*below)).min(V::all(limit));
            for above in ends {
                fit.consider::<TOP, N>(tile, step * V::all((top + below + above) / top), b, limit);
            }
        }
        for _ in 0..MOVES {
            fit.consider::<TOP, N>(tile, fit.s, fit.b, limit);
        }
        (fit, (step, lo))
    }

    #[inline(always)]
    fn consider<const TOP: u8, const N: usize>(&mut self, tile: &Tile<N>, s: V, b: V, limit: f32) {
        let (weight, zero, two) = (tile.weight, V::ZERO, V::all(2.0));
        let mut m = Moments::of::<TOP, N>(tile, s, b);
        // Where all codes are equal, the offset alone can move.
        let determinant = weight * m.qq - m.q * m.q;
        let free = V::all(1e-5) * weight * m.qq;
        let inverse = free.below(determinant, determinant.inverse(), zero);
        let ds = (weight * m.rq - m.q * m.r) * inverse;
        let db = free.below(determinant, (m.qq * m.r - m.q * m.rq) * inverse, m.r * weight.inverse());
        // An offset beyond the limit stays there, with the scale that suits it.
        let (over, room) = (b + db, V::all(limit) - b);
        let beside = (m.rq - m.q * room) * m.qq.inverse();
        let ds = V::all(limit).below(over, beside, ds);
        let db = V::all(limit).below(over, room, db);
        let change = ds * (ds * m.qq - two * m.rq) + db * (db * weight - two * m.r) + two * ds * db * m.q;
        // Where nothing else decides, as beside an outlier, the smallest scale: it leaves the other parts finer ones.
        let tie = V::all(1e-4) * weight * (s + ds) * (s + ds);
        m.error = m.error + change + tie;
        (self.s, self.b) = self.moments.improve(m, (s + ds, b + db), (self.s, self.b));
    }
}

/// What a block of 256 with minima holds: `H · 8` parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<const H: usize> {
    /// Both are float16.
    pub(super) d: f32,
    pub(super) dmin: f32,
    pub(super) scale: [[u8; LANES]; H],
    pub(super) min: [[u8; LANES]; H],
    pub(super) codes: [u8; 256],
}

impl<const H: usize> Block<H> {
    /// `d · scale · code − dmin · min`, in parts of `N`.
    #[inline(always)]
    pub(super) fn decode<const N: usize>(&self, out: &mut [f32; 256]) {
        let (codes, out) = (self.codes.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
        let (scale, min) = (self.scale.as_flattened(), self.min.as_flattened());
        for p in 0..LANES * H {
            let (scale, min) = (self.d * f32::from(scale[p]), self.dmin * f32::from(min[p]));
            super::shifted(scale, -min, codes[p], &mut out[p]);
        }
    }

    /// Searches the block for `x`: parts of `N`, codes up to `TOP`, scales and minima up to `most`.
    #[inline(always)]
    pub(super) fn encode<const TOP: u8, const N: usize>(
        x: &[f32; 256],
        importance: Option<&[f32; 256]>,
        most: f32,
    ) -> Self {
        let tiles = lanes::block::<H, N>(x, importance, sign::<N>(x));
        let found = Search::<H, N, TOP> { tiles: &tiles, most }.run();
        let unit = tiles[0].unit.0[0];
        let mut block = Block {
            d: found.d / unit,
            dmin: found.dmin / unit,
            scale: [[0; LANES]; H],
            min: [[0; LANES]; H],
            codes: [0; 256],
        };
        for (h, tile) in tiles.iter().enumerate() {
            for lane in 0..LANES {
                block.scale[h][lane] = found.scale[h].0[lane] as i32 as u8;
                block.min[h][lane] = found.min[h].0[lane] as i32 as u8;
            }
            let (s, b) = found.values(h);
            encode::<TOP, N>(tile, s, b, &mut block.codes.as_chunks_mut::<N>().0[LANES * h..]);
        }
        block
    }
}

/// −1 where parts of `x` lie above 0 by more, in all, than others lie below, else 1.
#[inline(always)]
fn sign<const N: usize>(x: &[f32; 256]) -> f32 {
    let mut above = 0.0;
    for part in x.as_chunks::<N>().0 {
        let (mut lo, mut hi) = (part[0], part[0]);
        for &x in part {
            lo = if x < lo { x } else { lo };
            hi = if x > hi { x } else { hi };
        }
        above += f64::from(if lo > 0.0 { lo } else { 0.0 }) + f64::from(if hi < 0.0 { hi } else { 0.0 });
    }
    if above > 0.0 { -1.0 } else { 1.0 }
}

/// The codes of each part under the scales and offsets of a tile.
#[inline(always)]
fn encode<const TOP: u8, const N: usize>(tile: &Tile<N>, s: V, b: V, out: &mut [[u8; N]]) {
    let (b, inverse) = black_box((b, s.inverse()));
    for i in 0..N {
        let q = black_box(nearest::<TOP>((tile.x[i] - b) * inverse));
        for (out, q) in out.iter_mut().zip(q.0) {
            out[i] = q as i32 as u8;
        }
    }
}

/// Eight blocks with a float16 scale and offset each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Eight<const N: usize> {
    pub(super) d: V,
    pub(super) m: V,
    pub(super) codes: [[u8; N]; LANES],
}

impl<const N: usize> Eight<N> {
    /// Searches scales and offsets for the blocks from number `first` on.
    #[inline(always)]
    pub(super) fn encode<const TOP: u8>(
        x: &[[f32; N]],
        importance: Option<&[[f32; N]]>,
        first: usize,
    ) -> Self {
        let tile = lanes::eight(x, importance, first);
        let (fit, plain) = Fit::new::<TOP, N>(&tile, f32::MAX);
        let mut moments = Moments::NONE;
        let (mut s, mut b) = (V::ZERO, V::ZERO);
        for (new_s, new_b) in [(fit.s, fit.b), plain] {
            let new = (float16s(new_s, tile.unit), float16s(new_b, tile.unit));
            (s, b) = moments.improve(Moments::of::<TOP, N>(&tile, new.0, new.1), new, (s, b));
        }
        let mut out = Eight { d: s / tile.unit, m: b / tile.unit, codes: [[0; N]; LANES] };
        encode::<TOP, N>(&tile, s, b, &mut out.codes);
        out
    }
}
