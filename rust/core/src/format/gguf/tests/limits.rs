//! The ends: what no search may be worse than, numbers that leave float16, zeros, and encoding twice.

use super::*;

/// Parts, their length, the level of the extreme and its largest magnitude, the integer of the extreme's scale.
const SIGNED: [(&str, usize, f32, f32); 4] = [
    ("q3_k", 16, -4.0, -32.0),
    ("q6_k", 16, -32.0, -128.0),
    ("iq4_xs", 32, -127.0, -32.0),
    ("iq4_nl", 32, -127.0, 1.0),
];
/// Parts, the highest code, the largest scale.
const AFFINE: [(&str, usize, f32, f32); 3] =
    [("q2_k", 16, 3.0, 15.0), ("q4_k", 32, 15.0, 63.0), ("q5_k", 32, 31.0, 63.0)];

fn float16(v: f32) -> f32 {
    half::round(v)
}

/// `v / d` as an integer, 0 where `d` is 0.
fn whole(v: f32, d: f32, lowest: f32, highest: f32) -> f32 {
    if d == 0.0 { 0.0 } else { (v / d).round_ties_even().clamp(lowest, highest) }
}

/// The nearest of the levels of a type without minima.
fn nearest(name: &str, lowest: f32, v: f32) -> f32 {
    if !name.starts_with("iq4") {
        return v.round_ties_even().clamp(lowest, -1.0 - lowest);
    }
    let levels = (0..16).map(|q| element("iq4_nl", &[&[0, 0x3c], &[q; 16][..]].concat(), 0));
    levels.min_by(|a, b| (a - v).abs().total_cmp(&(b - v).abs())).unwrap()
}

/// What a block decodes to whose scales put the extreme of each part on the lowest level, and the largest scale on
/// the largest integer.
fn by_extremes(name: &str, x: &[f32]) -> Vec<f32> {
    let extreme =
        |part: &[f32]| part.iter().copied().fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if let Some(&(_, len, lowest, most)) = SIGNED.iter().find(|row| row.0 == name) {
        let scales: Vec<f32> = x.chunks(len).map(|part| extreme(part) / lowest).collect();
        let d = float16(extreme(&scales) / most);
        let decode = |(part, s): (&[f32], &f32)| {
            let s = d * if most == 1.0 { 1.0 } else { whole(*s, d, most, -1.0 - most) };
            let level = |x: &f32| if s == 0.0 { 0.0 } else { s * nearest(name, lowest, x / s) };
            part.iter().map(level).collect::<Vec<f32>>()
        };
        return x.chunks(len).zip(&scales).flat_map(decode).collect();
    }
    let &(_, len, top, most) = AFFINE.iter().find(|row| row.0 == name).unwrap();
    let ends = |part: &[f32]| {
        let lo = part.iter().copied().fold(0f32, f32::min);
        ((part.iter().copied().fold(f32::MIN, f32::max) - lo) / top, -lo)
    };
    let parts: Vec<_> = x.chunks(len).map(ends).collect();
    let d = float16(parts.iter().fold(0f32, |a, b| a.max(b.0)) / most);
    let dmin = float16(parts.iter().fold(0f32, |a, b| a.max(b.1)) / most);
    let decode = |(part, ends): (&[f32], &(f32, f32))| {
        let (s, b) = (d * whole(ends.0, d, 0.0, most), dmin * whole(ends.1, dmin, 0.0, most));
        part.iter().map(|x| s * whole(x + b, s, 0.0, top) - b).collect::<Vec<f32>>()
    };
    x.chunks(len).zip(&parts).flat_map(decode).collect()
}

/// Blocks of 256 of many kinds.
fn kinds() -> Vec<(&'static str, Vec<f32>)> {
    let x = gaussian(6, 256 * 64);
    let map = |f: &dyn Fn(usize, f32) -> f32| x.iter().enumerate().map(|(i, x)| f(i, *x)).collect::<Vec<_>>();
    vec![
        ("gaussian", x.clone()),
        ("heavy tails", map(&|_, x| x * x * x)),
        ("outlier", map(&|i, x| if i % 256 == 77 { 300.0 } else { x })),
        ("sparse", map(&|i, x| if i % 11 == 0 { x } else { 0.0 })),
        ("positive", map(&|_, x| x.abs() + 3.0)),
        ("negative", map(&|_, x| -x.abs() - 3.0)),
        ("two values", map(&|_, x| if x > 0.5 { 1.0 } else { -0.25 })),
        ("growing parts", map(&|i, x| x * 0.01 * (i % 256 / 16) as f32)),
        ("subnormal scales", map(&|_, x| x * 1e-5)),
        ("below float16", map(&|_, x| x * 1e-8)),
        ("beyond float16", map(&|_, x| x * 1e7)),
    ]
}

#[test]
fn no_block_is_worse_than_by_its_extremes() {
    for (kind, x) in kinds() {
        let w = weights(7, x.len());
        for name in SIGNED.map(|row| row.0).into_iter().chain(AFFINE.map(|row| row.0)) {
            let blocks = find(name);
            for importance in [None, Some(&w[..])] {
                let y = round_trip(blocks, &x, importance);
                for (i, (x, y)) in x.chunks(blocks.len()).zip(y.chunks(blocks.len())).enumerate() {
                    let w = importance.map(|w| &w[i * blocks.len()..]);
                    let (found, plain) = (error(x, y, w), error(x, &by_extremes(name, x), w));
                    assert!(found <= plain * 1.0001, "{name}, {kind}, block {i}: {found} > {plain}");
                }
            }
        }
    }
}

#[test]
fn an_importance_never_makes_the_weighted_error_larger() {
    for (kind, x) in kinds() {
        let w = weights(8, x.len());
        for blocks in TABLE {
            let plain = error(&x, &round_trip(*blocks, &x, None), Some(&w));
            let found = error(&x, &round_trip(*blocks, &x, Some(&w)), Some(&w));
            assert!(found <= plain * 1.0001, "{blocks:?}, {kind}: {found} > {plain}");
        }
    }
}

#[test]
fn whatever_is_finite_stays_so() {
    let x = gaussian(9, 256 * 4);
    for blocks in TABLE {
        for scale in [0.0, f32::from_bits(1), 1e-40, 1e-30, 1e-7, 1.0, 65504.0, 1e9, 1e37, f32::MAX] {
            let y: Vec<f32> = x.iter().map(|x| (x * scale).clamp(f32::MIN, f32::MAX)).collect();
            for w in [1e-45, 1.0, f32::MAX, 0.0] {
                let importance = vec![w; x.len()];
                for importance in [None, Some(&importance[..])] {
                    let back = round_trip(*blocks, &y, importance);
                    assert!(back.iter().all(|x| x.is_finite()), "{blocks:?} at {scale}, {w}");
                    let worst =
                        y.iter().zip(&back).all(|(x, y)| y.abs() <= 2.0 * x.abs().max(scale) * 4.0 + 1e-6);
                    assert!(worst, "{blocks:?} at {scale}, {w}");
                }
            }
        }
    }
}

#[test]
fn zeros_stay_zeros_and_constants_constant() {
    for blocks in TABLE {
        for importance in [None, Some(&[1.0; 512][..])] {
            let back = round_trip(*blocks, &[0.0; 512], importance);
            assert!(back.iter().all(|x| *x == 0.0), "{blocks:?}");
            for constant in [3.3, -3.3, 0.7] {
                let back = round_trip(*blocks, &[constant; 512], importance);
                // To float16; mxfp4 has no better than its levels.
                let near = if blocks.name() == "mxfp4_gguf" { 0.1 } else { 0.0011 };
                let close = back.iter().all(|x| (x / constant - 1.0).abs() < near);
                assert!(close && back.iter().all(|x| *x == back[0]), "{blocks:?}: {} of {constant}", back[0]);
            }
        }
    }
}

#[test]
fn a_second_encoding_changes_nothing_or_little() {
    let x = gaussian(10, 256 * 64);
    for blocks in TABLE {
        let once = round_trip(*blocks, &x, None);
        let twice = round_trip(*blocks, &once, None);
        let searched = blocks.name().ends_with("_k") || blocks.name().starts_with("iq4");
        if searched {
            // The search sees other neighbours of other scales; what it finds is close.
            let ratio = error(&once, &twice, None) / error(&x, &once, None);
            println!("{blocks:?}: {ratio:.4}");
            assert!(ratio < 1.0, "{blocks:?}: {ratio}");
        } else {
            assert_eq!(bits(&once), bits(&twice), "{blocks:?}");
        }
    }
}
