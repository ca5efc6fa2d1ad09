use super::code::Quintic;
use super::*;

const CODES: [&str; 4] = ["1mad", "3inst", "quintic", "table"];

fn trellis(name: &str, bits: usize, state_bits: usize) -> Trellis {
    Trellis::new(bits, state_bits, 1, Code::find(name, bits, state_bits).unwrap()).unwrap()
}

/// Two values a step: neither code nor table comes with the library.
fn pairs(bits: usize) -> Trellis {
    let mut levels = vec![0.0; 512];
    gaussian(9, &mut levels);
    Trellis::new(bits, 8, 2, Code::Table(Table::new(&levels))).unwrap()
}

fn all() -> Vec<Trellis> {
    let named = CODES.iter().flat_map(|name| (1..=4).map(|bits| trellis(name, bits, 8)));
    named.chain((1..=4).map(pairs)).collect()
}

fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    gaussian(seed, &mut out);
    out
}

fn encoded(trellis: &Trellis, isa: Isa, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0; x.len() / BLOCK * trellis.bytes()];
    trellis.encode_on(isa, x, importance, &mut bytes, None).unwrap();
    bytes
}

fn decoded(trellis: &Trellis, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / trellis.bytes() * BLOCK];
    trellis.decode(bytes, &mut out).unwrap();
    out
}

fn error(x: &[f32], y: &[f32], importance: &[f32]) -> f64 {
    let square = |((x, y), w): ((&f32, &f32), &f32)| f64::from(*w) * f64::from(x - y).powi(2);
    x.iter().zip(y).zip(importance).map(square).sum::<f64>() / x.len() as f64
}

fn mse(trellis: &Trellis, x: &[f32]) -> f64 {
    let y = decoded(trellis, &encoded(trellis, Isa::detected(), x, None));
    error(x, &y, &vec![1.0; x.len()])
}

/// The best tail-biting path in float64, tried from every node.
fn best(trellis: &Trellis, x: &[f32]) -> f64 {
    let (bits, values) = (trellis.bits, trellis.values);
    let nodes = 1 << (trellis.state_bits - bits);
    (0..nodes)
        .map(|seam| {
            let mut costs = vec![f64::INFINITY; nodes];
            costs[seam] = 0.0;
            for x in x.chunks(values) {
                let enter = |node: usize| {
                    (0..1 << bits).map(move |j| node + j * nodes).map(|state| {
                        let levels = &trellis.levels[state * values..][..values];
                        let square = x.iter().zip(levels).map(|(x, l)| f64::from(x - l).powi(2)).sum::<f64>();
                        costs[state >> bits] + square
                    })
                };
                let after = (0..nodes).map(|node| enter(node).fold(f64::INFINITY, f64::min)).collect();
                costs = after;
            }
            costs[seam]
        })
        .fold(f64::INFINITY, f64::min)
        / x.len() as f64
}

#[test]
fn paths_are_near_the_best_of_all() {
    let x = values(3, 4 * BLOCK);
    for (trellis, margin) in [
        (trellis("quintic", 4, 8), 1.01),
        (trellis("table", 2, 8), 1.01),
        (trellis("1mad", 3, 8), 1.01),
        (pairs(4), 1.01),
        (pairs(2), 1.02),
    ] {
        let exact: f64 = x.chunks(BLOCK).map(|x| best(&trellis, x)).sum::<f64>() / 4.0;
        let found = mse(&trellis, &x);
        println!("{} {} bits: {:.4} of the best", trellis.code.name(), trellis.bits, found / exact);
        assert!(found < margin * exact && found > 0.9999 * exact, "{found} {exact}");
    }
}

#[test]
fn a_path_through_the_trellis_is_found_again() {
    // Bytes of any kind are a path, so the values they stand for are encoded without error.
    for trellis in all().into_iter().filter(|t| t.bits >= 2 * t.values) {
        let bytes: Vec<u8> =
            (0..8 * trellis.bytes() as u32).map(|i| (i.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
        let y = decoded(&trellis, &bytes);
        let again = mse(&trellis, &y);
        assert!(again < 1e-4, "{} {} bits: {again}", trellis.code.name(), trellis.bits);
    }
}

#[test]
fn states_are_windows_of_the_stream() {
    for trellis in all() {
        let (bits, steps) = (trellis.bits, trellis.steps());
        let symbols: Vec<u8> = (0..steps).map(|t| ((t * t + t / 3) % (1 << bits)) as u8).collect();
        let mut bytes = vec![0; trellis.bytes()];
        decode::pack(&symbols, bits, &mut bytes);
        let y = decoded(&trellis, &bytes);
        let stream: Vec<u8> =
            symbols.iter().flat_map(|s| (0..bits).rev().map(move |bit| s >> bit & 1)).collect();
        for t in 0..steps {
            let window = (0..trellis.state_bits).map(|i| usize::from(stream[(bits * t + i) % stream.len()]));
            let state = window.fold(0, |state, bit| 2 * state + bit);
            let values = trellis.values;
            assert_eq!(y[t * values..][..values], trellis.levels[state * values..][..values]);
        }
    }
}

#[test]
fn the_layout_is_frozen() {
    // One step of each segment, of symbol 1 in step 0 of segment 0, 2 in step 9 of segment 3, 3 in step 255.
    let mut symbols = [0; BLOCK];
    (symbols[0], symbols[3 * 16 + 9], symbols[255]) = (1, 2, 3);
    let mut bytes = [0; 64];
    decode::pack(&symbols, 2, &mut bytes);
    let mut expected = [0; 64];
    (expected[1], expected[32 + 6 + 1], expected[62]) = (0b0100_0000, 0b0010_0000, 0b0000_0011);
    assert_eq!(bytes, expected);
}

#[test]
fn published_codes_have_their_published_levels() {
    // State 0: bytes of 76625530 are 122, 54, 145, 4; halves of 64248484 ^ … are 0x38B4 and 0x3FB4.
    assert_eq!(trellis("1mad", 2, 8).levels[0], (122 + 54 + 145 + 4 - 510) as f32 / 147.800_54);
    let x = 64_248_484u32 & 0x8FFF_8FFF ^ 0x3B60_3B60;
    let half = |bits: u32| half::f16::from_bits(bits as u16).to_f32();
    let sum = half::f16::from_f32(half(x >> 16) + half(x & 0xFFFF)).to_f32();
    assert!((trellis("3inst", 2, 8).levels[0] - sum / 1.243_710_9).abs() < 1e-6);
    for name in ["1mad", "3inst", "quintic"] {
        let levels = trellis(name, 2, 16).levels;
        let variance = levels.iter().map(|l| f64::from(*l).powi(2)).sum::<f64>() / 65536.0;
        assert!((variance - 1.0).abs() < 0.01, "{name} {variance}");
    }
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    let x = values(5, 13 * BLOCK);
    let importance: Vec<f32> = values(6, x.len()).iter().map(|v| v * v).collect();
    let activations = values(7, BLOCK);
    for trellis in all() {
        for importance in [None, Some(&importance[..])] {
            let first = encoded(&trellis, Isa::Portable, &x, importance);
            let mut product = vec![0.0; 13];
            trellis.matvec_on(Isa::Portable, &first, &activations, &[0.5; 13], &mut product).unwrap();
            for isa in Isa::available() {
                for threads in [1, 2] {
                    parallel::set_threads(threads).unwrap();
                    assert_eq!(encoded(&trellis, isa, &x, importance), first, "{isa:?} {threads}");
                    let mut out = vec![0.0; 13];
                    trellis.matvec_on(isa, &first, &activations, &[0.5; 13], &mut out).unwrap();
                    assert_eq!(out, product, "{isa:?} {threads}");
                }
            }
        }
    }
}

#[test]
fn importance_lowers_the_error_it_weighs() {
    let x = values(8, 16 * BLOCK);
    let importance: Vec<f32> = values(6, x.len()).iter().map(|v| v * v).collect();
    for trellis in all() {
        let plain = decoded(&trellis, &encoded(&trellis, Isa::detected(), &x, None));
        let weighted = decoded(&trellis, &encoded(&trellis, Isa::detected(), &x, Some(&importance)));
        let (plain, weighted) = (error(&x, &plain, &importance), error(&x, &weighted, &importance));
        assert!(weighted < 0.95 * plain, "{} {weighted} {plain}", trellis.code.name());
    }
}

#[test]
fn errors_on_a_gaussian_stay_small() {
    let x = values(1, 1 << 16);
    for (name, bits, state_bits, decibel) in [
        ("table", 1, 8, 5.42),
        ("table", 2, 8, 11.08),
        ("table", 3, 8, 16.75),
        ("table", 4, 8, 22.4),
        ("table", 2, 10, 11.24),
        ("quintic", 1, 10, 5.5),
        ("quintic", 2, 8, 11.0),
        ("quintic", 2, 10, 11.25),
    ] {
        let found = -10.0 * mse(&trellis(name, bits, state_bits), &x).log10();
        println!("{name} {bits} bits, L = {state_bits}: {found:.3} dB");
        assert!(found > decibel, "{name} {bits} {state_bits}: {found}");
    }
}

#[test]
fn products_are_those_of_decoded_rows() {
    let (rows, k) = (5, 4 * BLOCK);
    let x = values(11, k);
    let scales: Vec<f32> = (1..=2 * rows).map(|i| i as f32 / 4.0).collect();
    for trellis in all() {
        let bytes: Vec<u8> = (0..rows * 4 * trellis.bytes()).map(|i| (i * i / 3 + 7 * i) as u8).collect();
        let weights = decoded(&trellis, &bytes);
        let mut out = vec![0.0; rows];
        trellis.matvec(&bytes, &x, &scales, &mut out).unwrap();
        for row in 0..rows {
            let product =
                |i: usize| f64::from(weights[row * k + i] * x[i]) * f64::from(scales[2 * row + i / 512]);
            let exact: f64 = (0..k).map(product).sum();
            assert!((f64::from(out[row]) - exact).abs() < 0.02, "{} {exact}", trellis.code.name());
        }
    }
}

#[test]
fn training_lowers_the_error() {
    let samples = values(21, 1 << 15);
    let training = |rounds| Training { bits: 2, state_bits: 8, values: 2, rounds, seed: 1 };
    let of = |rounds| {
        let table = training(rounds).run(&samples, None).unwrap();
        mse(&Trellis::new(2, 8, 2, Code::Table(table)).unwrap(), &samples)
    };
    assert!(of(8) < 0.97 * of(0));
    assert_eq!(training(2).run(&samples, None).unwrap(), training(2).run(&samples, None).unwrap());
}

#[test]
fn bad_parameters_are_refused() {
    let text = |result: Result<Trellis, Error>| result.unwrap_err().to_string();
    let table = |len| Code::Table(Table { levels: vec![1; len], scale: 1.0 });
    assert!(text(Trellis::new(5, 8, 1, Code::OneMad)).contains("bits is 5, expected 1 to 4"));
    assert!(text(Trellis::new(2, 17, 1, Code::OneMad)).contains("state_bits is 17"));
    assert!(text(Trellis::new(2, 8, 2, Code::OneMad)).contains("1mad"));
    assert!(text(Trellis::new(2, 13, 1, table(1 << 13))).contains("at most 12"));
    assert!(text(Trellis::new(2, 8, 2, table(256))).contains("512"));
    assert!(Code::find("tabel", 2, 8).unwrap_err().to_string().contains("did you mean \"table\""));
    assert!(Code::find("table", 2, 9).unwrap_err().to_string().contains("8, 10 or 12"));
    let trellis = trellis("1mad", 2, 8);
    let mut bytes = vec![0; 64];
    assert!(trellis.encode(&[0.0; 255], None, &mut bytes, None).is_err());
    assert!(trellis.encode(&[0.0; 512], None, &mut bytes, None).is_err());
    assert!(trellis.encode(&[f32::NAN; 256], None, &mut bytes, None).is_err());
    assert!(trellis.encode(&[0.0; 256], Some(&[-1.0; 256]), &mut bytes, None).is_err());
    assert!(trellis.encode(&[0.0; 256], Some(&[1.0; 2]), &mut bytes, None).is_err());
    assert!(trellis.matvec(&bytes, &[1.0; 256], &[1.0; 2], &mut [0.0; 1]).is_err());
    assert!(fit_scale(&[1.0], &[], None).is_err());
    // Far values, equal ones and none at all are encoded all the same.
    for x in [vec![1e30; 256], vec![0.0; 256], Vec::new()] {
        encoded(&trellis, Isa::detected(), &x, None);
    }
}

#[test]
#[ignore = "the search that found the quintic codes: minutes"]
fn search_quintic() {
    let x = values(5, 1 << 15);
    let mut numbers = vec![0.0; 3 * 500];
    crate::rounding::uniform(99, 0, &mut numbers);
    for (bits, gain) in [(1, 0.88), (2, 1.0), (3, 1.0), (4, 1.0)] {
        let error = |[m, a, b]: [f32; 3]| {
            let code = || Code::Quintic(Quintic::new((m * 65536.0) as u16, a, b, gain));
            let logs = [8, 10, 12].map(|l| mse(&Trellis::new(bits, l, 1, code()).unwrap(), &x).ln());
            (logs.iter().sum::<f64>() / 3.0).exp()
        };
        let mut found = [0.95 * 0.5f32.powi(bits as i32), -0.5, 1.5];
        let mut least = error(found);
        for (i, u) in numbers.as_chunks::<3>().0.iter().enumerate() {
            let width = if i % 3 == 0 { 2.0 } else { 0.5 };
            let [m, a, b] = u.map(|u| width * (u - 0.5));
            let next = [found[0] * (1.0 + 0.12 * m), found[1] + 0.3 * a, found[2] + 0.8 * b];
            let error = error(next);
            if error < least {
                (least, found) = (error, next);
                println!("{bits} bits: {} {found:?} {least:.5}", (found[0] * 65536.0) as u16);
            }
        }
    }
}
