//! The search for the integers, `d` and `dmin` of a block of 256.

use super::super::lanes::{LANES, Shortlist, Tile, V, float16};
use super::{Fit, Moments};
use std::hint::black_box;

/// Scales and minima in two levels, in the unit of the block: `s = d · scale`, `b = −dmin · min`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scales<const H: usize> {
    pub(super) d: f32,
    pub(super) dmin: f32,
    pub(super) scale: [V; H],
    pub(super) min: [V; H],
    moments: [Moments; H],
    error: f32,
}

impl<const H: usize> Scales<H> {
    #[inline(always)]
    pub(super) fn values(&self, h: usize) -> (V, V) {
        (self.scale[h] * V::all(self.d), self.min[h] * V::all(-self.dmin))
    }
}

/// The search for one block.
pub(super) struct Search<'a, const H: usize, const N: usize, const TOP: u8> {
    pub(super) tiles: &'a [Tile<N>; H],
    /// The largest scale and the largest minimum.
    pub(super) most: f32,
}

impl<const H: usize, const N: usize, const TOP: u8> Search<'_, H, N, TOP> {
    #[inline(always)]
    pub(super) fn run(&self) -> Scales<H> {
        const ROUNDS: usize = 2;
        let mut fits = [Fit::NONE; H];
        let (mut steps, mut lows) = ([V::ZERO; H], [V::ZERO; H]);
        for h in 0..H {
            (fits[h], (steps[h], lows[h])) = Fit::new::<TOP, N>(&self.tiles[h], 0.0);
        }
        let plain = self.plain(steps, lows);
        let mut best = Scales { error: f32::INFINITY, ..plain };
        for (_, pair) in self.start(&fits).best {
            let next = self.nearest(&fits, pair);
            best = if next.error < best.error { next } else { best };
        }
        best = self.around(&fits, best);
        for _ in 0..ROUNDS {
            best = self.moved(best);
            best = self.around(&self.refit(&best), best);
        }
        if plain.error < best.error { plain } else { best }
    }

    #[inline(always)]
    fn float16(&self, d: f32) -> f32 {
        float16(d, self.tiles[0].unit.0[0])
    }

    #[inline(always)]
    fn integers(&self, v: V) -> V {
        v.max(V::ZERO).min(V::all(self.most)).round()
    }

    /// The integers nearest to these scales and offsets, the largest of which take the largest integers.
    #[inline(always)]
    fn plain(&self, mut s: [V; H], mut b: [V; H]) -> Scales<H> {
        let (top, deep) = (top(&s), top(&b.map(neg)));
        let (d, dmin) = (self.float16(top / self.most), self.float16(deep / self.most));
        for h in 0..H {
            s[h] = self.integers(s[h] * V::all(d).inverse());
            b[h] = self.integers(-b[h] * V::all(dmin).inverse());
        }
        self.with((d, dmin), s, b)
    }

    /// The `d` and `dmin` that lose least by the quadratic forms, of some that give the largest scale and minimum
    /// about the largest integers. Eight `dmin` side by side.
    #[inline(always)]
    fn start(&self, fits: &[Fit; H]) -> Shortlist<(f32, f32)> {
        const STARTS: usize = 12;
        let top_s = top(&fits.map(s));
        let top_b = top(&fits.map(minus_b));
        let mut dmins = V::ZERO;
        for j in 0..LANES {
            dmins.0[j] = self.float16(top_b / (self.most * (1.03 - 0.03 * j as f32)));
        }
        let (dmins, inverses) = black_box((dmins, dmins.inverse()));
        let mut shortlist = Shortlist::new((0.0, 0.0));
        for i in 0..STARTS {
            let d = self.float16(top_s / (self.most * (1.04 - 0.02 * i as f32)));
            let mut error = V::ZERO;
            for h in 0..H {
                let (m, weight) = (&fits[h].moments, self.tiles[h].weight);
                let scale = self.integers(fits[h].s * V::all(d).inverse());
                let off = scale * V::all(d) - fits[h].s;
                // With the best offset for this scale the form is off² times its Schur complement.
                let fixed = off * off * (m.qq - m.q * m.q * weight.inverse());
                let (b, fixed, weight) = black_box((self.offset(h, &fits[h], off), fixed, weight));
                for p in 0..LANES {
                    let b = V::all(b.0[p]);
                    let off = self.integers(-b * inverses) * dmins + b;
                    error = error + (V::all(fixed.0[p]) + V::all(weight.0[p]) * off * off);
                }
            }
            let error = black_box(error);
            for j in 0..LANES {
                shortlist.consider(error.0[j], (d, dmins.0[j]));
            }
        }
        shortlist
    }

    /// The best offset for a scale that is off that of the fit.
    #[inline(always)]
    fn offset(&self, h: usize, fit: &Fit, off: V) -> V {
        fit.b - off * fit.moments.q * self.tiles[h].weight.inverse()
    }

    /// Measures `d` and `dmin` with these integers.
    #[inline(always)]
    fn with(&self, (d, dmin): (f32, f32), scale: [V; H], min: [V; H]) -> Scales<H> {
        let mut out = Scales { d, dmin, scale, min, moments: [Moments::NONE; H], error: 0.0 };
        for h in 0..H {
            let (s, b) = out.values(h);
            out.moments[h] = Moments::of::<TOP, N>(&self.tiles[h], s, b);
            out.error += out.moments[h].error.sum();
        }
        out
    }

    /// Measures the integers nearest to the fits, each minimum that which suits the rounded scale.
    #[inline(always)]
    fn nearest(&self, fits: &[Fit; H], (d, dmin): (f32, f32)) -> Scales<H> {
        let (mut scale, mut min) = ([V::ZERO; H], [V::ZERO; H]);
        for h in 0..H {
            scale[h] = self.integers(fits[h].s * V::all(d).inverse());
            let b = self.offset(h, &fits[h], scale[h] * V::all(d) - fits[h].s);
            min[h] = self.integers(-b * V::all(dmin).inverse());
        }
        self.with((d, dmin), scale, min)
    }

    /// The best of `from` and the scales next to those of the fits, each with the minimum that suits it and the two
    /// beside that.
    #[inline(always)]
    fn around(&self, fits: &[Fit; H], from: Scales<H>) -> Scales<H> {
        let mut best = from;
        best.error = 0.0;
        for h in 0..H {
            let center = self.integers(fits[h].s * V::all(from.d).inverse());
            for step in [-1.0, 0.0, 1.0] {
                let scale = self.integers(center + V::all(step));
                let s = scale * V::all(from.d);
                let suits = -self.offset(h, &fits[h], s - fits[h].s) * V::all(from.dmin).inverse();
                for step in [-1.0, 0.0, 1.0] {
                    let min = self.integers(suits + V::all(step));
                    let m = Moments::of::<TOP, N>(&self.tiles[h], s, min * V::all(-from.dmin));
                    let old = (best.scale[h], best.min[h]);
                    (best.scale[h], best.min[h]) = best.moments[h].improve(m, (scale, min), old);
                }
            }
            best.error += best.moments[h].error.sum();
        }
        best
    }

    /// The least-squares scales and offsets of the codes of `from`.
    #[inline(always)]
    fn refit(&self, from: &Scales<H>) -> [Fit; H] {
        let mut fits = [Fit::NONE; H];
        for h in 0..H {
            let (s, b) = from.values(h);
            fits[h].consider::<TOP, N>(&self.tiles[h], s, b, 0.0);
        }
        fits
    }

    /// `d` and `dmin` moved to their least-squares values for the codes and integers as they are, where that is better.
    #[inline(always)]
    fn moved(&self, from: Scales<H>) -> Scales<H> {
        let mut sums = [V::ZERO; 5];
        for h in 0..H {
            let (m, scale, min) = (&from.moments[h], from.scale[h], -from.min[h]);
            let terms = [
                scale * m.rq,
                min * m.r,
                scale * scale * m.qq,
                scale * min * m.q,
                min * min * self.tiles[h].weight,
            ];
            for i in 0..5 {
                sums[i] = sums[i] + terms[i];
            }
        }
        let [mut rd, mut rm, mut dd, mut dm, mut mm] = [0.0; 5];
        for (sum, total) in [&mut rd, &mut rm, &mut dd, &mut dm, &mut mm].into_iter().zip(sums) {
            *sum = f64::from(total.sum());
        }
        let determinant = dd * mm - dm * dm;
        let (d, dmin) = if determinant > 1e-6 * dd * mm {
            ((mm * rd - dm * rm) / determinant, (dd * rm - dm * rd) / determinant)
        } else if dd > 0.0 {
            (rd / dd, 0.0)
        } else if mm > 0.0 {
            (0.0, rm / mm)
        } else {
            return from;
        };
        let (d, dmin) = (self.float16(from.d + d as f32), self.float16(from.dmin + dmin as f32));
        let next = self.with((d, dmin), from.scale, from.min);
        if next.error < from.error { next } else { from }
    }
}

#[inline(always)]
fn s(fit: Fit) -> V {
    fit.s
}

#[inline(always)]
fn minus_b(fit: Fit) -> V {
    -fit.b
}

#[inline(always)]
fn neg(v: V) -> V {
    -v
}

/// The largest number in any lane, and 0 where none is larger.
#[inline(always)]
fn top<const H: usize>(values: &[V; H]) -> f32 {
    let mut top = 0f32;
    for v in values {
        for v in v.0 {
            top = if v > top { v } else { top };
        }
    }
    top
}
