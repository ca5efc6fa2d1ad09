//! Scaled dot-product attention in float32, one task for each head of each batch entry.
//!
//! A task turns its keys and values into panels once and then runs tiles of query rows through scores, softmax
//! and the product with the values; scores never leave the first cache.

use crate::error::Error;
use crate::gemm::FloatTiles;
use crate::isa::{Isa, Op};
use crate::mem::{LineF32, Rectangle, zeroed};
use crate::parallel;
use crate::softmax::softmax_row;
use std::sync::Mutex;

/// Columns of a panel.
const WIDTH: usize = 16;

/// The sizes of an [`attention`] and what its scores are subject to.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// Entries of the batch.
    pub batch: usize,
    /// Rows of q in each entry.
    pub queries: usize,
    /// Rows of k and v in each entry.
    pub keys: usize,
    /// Elements of a row, all heads side by side.
    pub width: usize,
    /// Heads that share the width evenly.
    pub heads: usize,
    /// What the dot products are multiplied with, commonly 1/√(width/heads).
    pub scale: f32,
    /// Added to the scores of a key, (batch, keys): 0 to attend, −∞ not to.
    pub mask: Option<&'a [f32]>,
}

/// `out = softmax(q · kᵀ · scale + mask) · v` for each head and batch entry, q and out (batch, queries, width),
/// k and v (batch, keys, width).
///
/// A query that may attend to no key gives zeros. Sums run in one chain of fused steps over ascending head
/// columns and keys, so the bits depend neither on the instruction set nor on the number of threads.
///
/// ```
/// use qrs_core::{Attention, attention};
/// let size = Attention { batch: 1, queries: 1, keys: 2, width: 1, heads: 1, scale: 1.0, mask: None };
/// let mut out = [0.0];
/// attention(&[0.0], &[5.0, -5.0], &[1.0, 3.0], size, &mut out)?;
/// assert_eq!(out, [2.0]);
/// # Ok::<(), qrs_core::Error>(())
/// ```
///
/// # Errors
/// Lengths that do not fit the sizes; heads that do not divide the width.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], size: Attention<'_>, out: &mut [f32]) -> Result<(), Error> {
    attention_on(Isa::active()?, [q, k, v], size, out)
}

fn attention_on(isa: Isa, qkv: [&[f32]; 3], size: Attention<'_>, out: &mut [f32]) -> Result<(), Error> {
    let Attention { batch, queries, keys, width, heads, .. } = size;
    if heads == 0 || width % heads != 0 {
        let expected = format!("a divisor of the width {width}");
        return Err(Error::Value { what: "heads", got: heads.to_string(), expected });
    }
    let lengths = [
        ("q", qkv[0].len(), [batch, queries, width]),
        ("k", qkv[1].len(), [batch, keys, width]),
        ("v", qkv[2].len(), [batch, keys, width]),
        ("out", out.len(), [batch, queries, width]),
        ("mask", size.mask.map_or(batch * keys, <[f32]>::len), [batch, keys, 1]),
    ];
    for (what, got, shape) in lengths {
        if shape.iter().product::<usize>() != got {
            return Err(Error::Shape { what, got: vec![got], expected: format!("{shape:?} elements") });
        }
    }
    if out.is_empty() || keys == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let tiles = FloatTiles::new(isa, queries)?;
    let rows = (0..=batch).map(|entry| entry * queries).collect();
    let columns = (0..=heads).map(|head| head * (width / heads)).collect();
    // Two products of about 30 multiplications a nanosecond, and the exponentials.
    let nanoseconds = batch * queries * keys * (width / 16 + heads);
    let failure = Mutex::new(None);
    parallel::for_each_rectangle(out, width, rows, columns, nanoseconds, |out| {
        if let Err(error) = tiles.isa().run(Head { qkv, size, tiles, out })
            && let Ok(mut failure) = failure.lock()
        {
            *failure = Some(error);
        }
    })?;
    failure.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}

/// One head of one batch entry.
struct Head<'a> {
    qkv: [&'a [f32]; 3],
    size: Attention<'a>,
    tiles: FloatTiles,
    out: Rectangle<'a, f32>,
}

impl Op for Head<'_> {
    type Output = Result<(), Error>;
    const ISAS: u8 = FloatTiles::ISAS;

    #[inline(always)]
    fn run(mut self) -> Result<(), Error> {
        let Attention { queries, keys, width, .. } = self.size;
        let [q, k, v] = self.qkv;
        let entry = self.out.rows.start / queries;
        let columns = self.out.columns.clone();
        let mask = self.size.mask.map(|mask| &mask[entry * keys..][..keys]);
        let k_panels = key_panels(&k[entry * keys * width..][..keys * width], width, columns.clone())?;
        let v_panels = value_panels(&v[entry * keys * width..][..keys * width], width, columns.clone())?;
        let padded = keys.next_multiple_of(WIDTH);
        let mut scores = zeroed::<f32>(self.tiles.rows() * padded)?;
        for start in (0..queries).step_by(self.tiles.rows()) {
            let rows = self.tiles.rows().min(queries - start);
            let first = (entry * queries + start) * width + columns.start;
            self.tiles.multiply((&q[first..], width, rows), (&k_panels, columns.len()), |row, panel, s| {
                scores[row * padded + panel * WIDTH..][..WIDTH].copy_from_slice(&s.0);
            });
            for row in scores.chunks_exact_mut(padded.max(1)).take(rows) {
                let row = &mut row[..keys];
                match mask {
                    Some(mask) => row.iter_mut().zip(mask).for_each(|(s, m)| *s = *s * self.size.scale + m),
                    None => row.iter_mut().for_each(|s| *s *= self.size.scale),
                }
                softmax_row(row);
            }
            let out = &mut self.out;
            self.tiles.multiply((&scores, padded, rows), (&v_panels, keys), |row, panel, y| {
                let from = columns.start + panel * WIDTH;
                let to = columns.end.min(from + WIDTH);
                out.row(entry * queries + start + row, from..to).copy_from_slice(&y.0[..to - from]);
            });
        }
        Ok(())
    }
}

/// Panels of sixteen keys, one line for each column of the head.
#[inline(always)]
fn key_panels(k: &[f32], width: usize, columns: std::ops::Range<usize>) -> Result<Vec<LineF32>, Error> {
    let keys = k.len() / width;
    let mut panels = zeroed::<LineF32>(keys.div_ceil(WIDTH) * columns.len())?;
    for (key, row) in k.chunks_exact(width).enumerate() {
        let lines = &mut panels[key / WIDTH * columns.len()..][..columns.len()];
        for (line, x) in lines.iter_mut().zip(&row[columns.clone()]) {
            line.0[key % WIDTH] = *x;
        }
    }
    Ok(panels)
}

/// Panels of sixteen columns of the head, one line for each key.
#[inline(always)]
fn value_panels(v: &[f32], width: usize, columns: std::ops::Range<usize>) -> Result<Vec<LineF32>, Error> {
    let keys = v.len() / width;
    let mut panels = zeroed::<LineF32>(columns.len().div_ceil(WIDTH) * keys)?;
    for (key, row) in v.chunks_exact(width).enumerate() {
        for (panel, part) in row[columns.clone()].chunks(WIDTH).enumerate() {
            panels[panel * keys + key].0[..part.len()].copy_from_slice(part);
        }
    }
    Ok(panels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    /// The definition in float64.
    fn exact([q, k, v]: [&[f32]; 3], s: Attention<'_>) -> Vec<f64> {
        let d = s.width / s.heads;
        let mut out = vec![0.0; q.len()];
        for (b, i, h) in
            (0..s.batch).flat_map(|b| (0..s.queries).flat_map(move |i| (0..s.heads).map(move |h| (b, i, h))))
        {
            let at = |x: &[f32], rows: usize, row: usize, c: usize| {
                f64::from(x[(b * rows + row) * s.width + h * d + c])
            };
            let scores: Vec<f64> = (0..s.keys)
                .map(|j| {
                    let dot: f64 = (0..d).map(|c| at(q, s.queries, i, c) * at(k, s.keys, j, c)).sum();
                    dot * f64::from(s.scale) + s.mask.map_or(0.0, |mask| f64::from(mask[b * s.keys + j]))
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> =
                scores.iter().map(|x| if *x == f64::NEG_INFINITY { 0.0 } else { (x - top).exp() }).collect();
            let total: f64 = powers.iter().sum();
            for c in 0..d {
                let sum: f64 = (0..s.keys).map(|j| powers[j] * at(v, s.keys, j, c)).sum();
                out[(b * s.queries + i) * s.width + h * d + c] = if total > 0.0 { sum / total } else { 0.0 };
            }
        }
        out
    }

    #[test]
    fn attention_is_the_definition_with_the_same_bits_on_every_instruction_set() {
        for (queries, keys, width, heads) in
            [(1, 1, 1, 1), (5, 17, 24, 3), (13, 40, 64, 2), (7, 16, 20, 1), (3, 0, 4, 2)]
        {
            let batch = 2;
            let q = numbers(batch * queries * width, 1);
            let (k, v) = (numbers(batch * keys * width, 2), numbers(batch * keys * width, 3));
            let mut mask = vec![0.0; batch * keys];
            // The second entry sees nothing, the first not its last key.
            mask.iter_mut().skip(keys.saturating_sub(1)).for_each(|m| *m = f32::NEG_INFINITY);
            for mask in [None, Some(&mask[..])] {
                let size = Attention { batch, queries, keys, width, heads, scale: 0.7, mask };
                let expected = exact([&q, &k, &v], size);
                let mut first: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; q.len()];
                    attention_on(isa, [&q, &k, &v], size, &mut out).unwrap();
                    for (got, expected) in out.iter().zip(&expected) {
                        assert!((f64::from(*got) - expected).abs() < 3e-6, "{size:?}: {got} {expected}");
                    }
                    assert_eq!(*first.get_or_insert(out.clone()), out, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let size = Attention { batch: 1, queries: 1, keys: 1, width: 4, heads: 3, scale: 1.0, mask: None };
        let x = [0.0; 4];
        let error = attention(&x, &x, &x, size, &mut [0.0; 4]).unwrap_err().to_string();
        assert_eq!(error, "heads is 3, expected a divisor of the width 4");
        let error = attention(&x, &x[..3], &x, Attention { heads: 2, ..size }, &mut [0.0; 4]).unwrap_err();
        assert!(error.to_string().starts_with("k has shape (3,)"), "{error}");
    }
}
