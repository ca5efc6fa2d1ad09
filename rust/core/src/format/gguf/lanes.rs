//! Eight parts of blocks side by side, a lane each: what the searches calculate with.
//!
//! Every lane does the operations of scalar code in the order written, so that a part gets the same scale on every
//! instruction set and whatever stands in the other lanes. Plain counting loops over arrays held by value become
//! vector code of the row's features.

use super::half;
use std::ops::{Add, Div, Mul, Neg, Sub};

pub(super) const LANES: usize = 8;

/// A number for each lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct V(pub(super) [f32; LANES]);

macro_rules! lanewise {
    ($($trait:ident $name:ident $operator:tt;)*) => {$(
        impl $trait for V {
            type Output = V;

            #[inline(always)]
            fn $name(mut self, other: V) -> V {
                for i in 0..LANES {
                    self.0[i] $operator other.0[i];
                }
                self
            }
        }
    )*};
}
lanewise! { Add add +=; Sub sub -=; Mul mul *=; Div div /=; }

impl Neg for V {
    type Output = V;

    #[inline(always)]
    fn neg(mut self) -> V {
        for i in 0..LANES {
            self.0[i] = -self.0[i];
        }
        self
    }
}

impl V {
    pub(super) const ZERO: V = V([0.0; LANES]);

    #[inline(always)]
    pub(super) fn all(v: f32) -> V {
        V([v; LANES])
    }

    /// Where `self < limit`, `yes`, elsewhere `no`.
    #[inline(always)]
    pub(super) fn below(self, limit: V, yes: V, mut no: V) -> V {
        for i in 0..LANES {
            no.0[i] = if self.0[i] < limit.0[i] { yes.0[i] } else { no.0[i] };
        }
        no
    }

    #[inline(always)]
    pub(super) fn min(mut self, other: V) -> V {
        for i in 0..LANES {
            self.0[i] = if self.0[i] < other.0[i] { self.0[i] } else { other.0[i] };
        }
        self
    }

    #[inline(always)]
    pub(super) fn max(mut self, other: V) -> V {
        for i in 0..LANES {
            self.0[i] = if self.0[i] > other.0[i] { self.0[i] } else { other.0[i] };
        }
        self
    }

    #[inline(always)]
    pub(super) fn abs(mut self) -> V {
        for i in 0..LANES {
            self.0[i] = self.0[i].abs();
        }
        self
    }

    /// To the nearest integer, half to even, of numbers up to 2²².
    #[inline(always)]
    pub(super) fn round(self) -> V {
        const ROUND: f32 = 12_582_912.0;
        (self + V::all(ROUND)) - V::all(ROUND)
    }

    /// 1 / self, and 0 where that is no finite number.
    #[inline(always)]
    pub(super) fn inverse(self) -> V {
        let inverse = V::all(1.0) / self;
        inverse.abs().below(V::all(f32::INFINITY), inverse, V::ZERO)
    }

    /// The sum over the lanes, in one order.
    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        let v = self.0;
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
}

/// Eight parts of `N` elements, the scale of whose blocks is a float16.
pub(super) struct Tile<const N: usize> {
    pub(super) x: [V; N],
    pub(super) w: [V; N],
    /// Σw
    pub(super) weight: V,
    /// What the elements of each lane were multiplied with: powers of two, perhaps negative ones.
    pub(super) unit: V,
}

/// An element of no weight still counts this little, so that a part of no weight gets a scale that suits it.
const LEAST: f32 = 1.0 / 16_777_216.0;

impl<const N: usize> Tile<N> {
    /// The parts and their weights, each multiplied with the unit of its lane.
    #[inline(always)]
    pub(super) fn new(x: [&[f32; N]; LANES], unit: V, w: Option<([&[f32; N]; LANES], V)>) -> Self {
        let mut tile = Tile { x: [V::ZERO; N], w: [V::all(1.0); N], weight: V::ZERO, unit };
        for lane in 0..LANES {
            for i in 0..N {
                tile.x[i].0[lane] = x[lane][i] * unit.0[lane];
            }
        }
        if let Some((w, unit)) = w {
            for lane in 0..LANES {
                for i in 0..N {
                    tile.w[i].0[lane] = w[lane][i] * unit.0[lane] + LEAST;
                }
            }
        }
        for w in &tile.w {
            tile.weight = tile.weight + *w;
        }
        tile
    }

    /// The smallest and the largest element of each lane.
    #[inline(always)]
    pub(super) fn ends(&self) -> (V, V) {
        let (mut lo, mut hi) = (self.x[0], self.x[0]);
        for x in &self.x {
            lo = x.min(lo);
            hi = x.max(hi);
        }
        (lo, hi)
    }
}

/// The eight parts of a tile of a block of 256.
#[inline(always)]
fn parts<const N: usize>(x: &[f32; 256], tile: usize) -> [&[f32; N]; LANES] {
    let parts = &x.as_chunks::<N>().0[LANES * tile..];
    let mut out = [&parts[0]; LANES];
    for (out, part) in out.iter_mut().zip(parts) {
        *out = part;
    }
    out
}

/// A block of 256 as `H` tiles of parts of `N` elements; `sign` turns it over.
#[inline(always)]
pub(super) fn block<const H: usize, const N: usize>(
    x: &[f32; 256],
    importance: Option<&[f32; 256]>,
    sign: f32,
) -> [Tile<N>; H] {
    let unit = V::all(unit(largest(x)) * sign);
    let weights = importance.map(|w| (w, V::all(weight_unit(w))));
    std::array::from_fn(
        #[inline(always)]
        |h| Tile::new(parts(x, h), unit, weights.map(|(w, unit)| (parts(w, h), unit))),
    )
}

/// The blocks from number `first` on as one tile; past the last one that again.
#[inline(always)]
pub(super) fn eight<const N: usize>(
    x: &[[f32; N]],
    importance: Option<&[[f32; N]]>,
    first: usize,
) -> Tile<N> {
    let last = x.len() - 1;
    let (mut blocks, mut units) = ([&x[last]; LANES], V::ZERO);
    for lane in 0..LANES {
        blocks[lane] = &x[last.min(first + lane)];
        units.0[lane] = unit(largest(blocks[lane]));
    }
    let Some(importance) = importance else {
        return Tile::new(blocks, units, None);
    };
    let (mut weights, mut weight_units) = ([&importance[last]; LANES], V::ZERO);
    for lane in 0..LANES {
        weights[lane] = &importance[last.min(first + lane)];
        weight_units.0[lane] = weight_unit(weights[lane]);
    }
    Tile::new(blocks, units, Some((weights, weight_units)))
}

/// The power of two that brings `largest` to 1 … 2, as far as powers of two go.
#[inline(always)]
fn unit(largest: f32) -> f32 {
    let exponent = largest.to_bits() >> 23;
    f32::from_bits(254u32.saturating_sub(exponent).clamp(1, 254) << 23)
}

/// The power of two that brings the largest weight to 1/2 … 1.
#[inline(always)]
fn weight_unit(weights: &[f32]) -> f32 {
    unit(largest(weights)) * 0.5
}

/// The largest magnitude.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for line in x.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            lanes[i] = if line[i].abs() > lanes[i] { line[i].abs() } else { lanes[i] };
        }
    }
    lanes.into_iter().fold(0.0, |a, b| if b > a { b } else { a })
}

/// The scale `d`, in the unit of its block, as a float16 of the block; what is not 0 stays so.
#[inline(always)]
pub(super) fn float16(d: f32, unit: f32) -> f32 {
    let d = d / unit;
    let rounded = half::round(d);
    let rounded = if rounded == 0.0 && d != 0.0 { half::SMALLEST.copysign(d) } else { rounded };
    rounded * unit
}

/// [`float16`] lane by lane.
#[inline(always)]
pub(super) fn float16s(mut d: V, unit: V) -> V {
    for i in 0..LANES {
        d.0[i] = float16(d.0[i], unit.0[i]);
    }
    d
}

/// The few best of many candidates, the best first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shortlist<T> {
    pub(super) best: [(f32, T); 4],
}

impl<T: Copy> Shortlist<T> {
    #[inline(always)]
    pub(super) fn new(none: T) -> Self {
        Shortlist { best: [(f32::INFINITY, none); 4] }
    }

    #[inline(always)]
    pub(super) fn consider(&mut self, error: f32, candidate: T) {
        if error < self.best[3].0 {
            let mut at = 3;
            while at > 0 && error < self.best[at - 1].0 {
                self.best[at] = self.best[at - 1];
                at -= 1;
            }
            self.best[at] = (error, candidate);
        }
    }
}
