//! What holds for every type: the layout element by element, the same bits everywhere, and what encoding may lose.

mod limits;

use super::*;

/// A row that runs on a given instruction set.
pub(super) trait Pinned: Blocks {
    fn encode_pinned(&self, isa: Isa, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]);
    fn decode_pinned(&self, isa: Isa, bytes: &[u8], out: &mut [f32]);
}

impl<C: Codec<LEN, BYTES>, const LEN: usize, const BYTES: usize> Pinned for Row<C, LEN, BYTES> {
    fn encode_pinned(&self, isa: Isa, x: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
        self.encode_on(isa, x, importance, out);
    }

    fn decode_pinned(&self, isa: Isa, bytes: &[u8], out: &mut [f32]) {
        self.decode_on(isa, bytes, out);
    }
}

/// The generator of Marsaglia, *Xorshift RNGs*, 2003, with a multiplication at the end.
struct Random(u64);

impl Random {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f32 {
        ((-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()) as f32
    }
}

fn gaussian(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..len).map(|_| random.normal()).collect()
}

fn weights(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random(seed);
    (0..len).map(|_| (-random.unit().ln()) as f32).collect()
}

fn encoded(blocks: &dyn Blocks, x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut bytes = vec![0; x.len() / blocks.len() * blocks.bytes()];
    blocks.encode(x, importance, &mut bytes);
    bytes
}

fn decoded(blocks: &dyn Blocks, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / blocks.bytes() * blocks.len()];
    blocks.decode(bytes, &mut out);
    out
}

fn round_trip(blocks: &dyn Blocks, x: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    decoded(blocks, &encoded(blocks, x, importance))
}

fn error(x: &[f32], y: &[f32], importance: Option<&[f32]>) -> f64 {
    let weight = |i: usize| importance.map_or(1.0, |w| f64::from(w[i]));
    (0..x.len()).map(|i| weight(i) * (f64::from(x[i]) - f64::from(y[i])).powi(2)).sum()
}

fn bits(x: &[f32]) -> Vec<u32> {
    // Which NaN it is, nobody says.
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

fn find(name: &str) -> &'static dyn Blocks {
    *TABLE.iter().find(|blocks| blocks.name() == name).unwrap()
}

/// Element `i` of a block, straight from the drawings.
fn element(name: &str, b: &[u8], i: usize) -> f32 {
    let half = |at: usize| ::half::f16::from_le_bytes([b[at], b[at + 1]]).to_f32();
    let nibble = |at: usize, j: usize, n: usize| b[at + j] >> (4 * n) & 15;
    let pair = |at: usize, j: usize, n: usize| b[at + j] >> (2 * n) & 3;
    let bit = |at: usize, i: usize| b[at + i / 8] >> (i % 8) & 1;
    let (j, n) = (i % 16, i / 16);
    let (a, part, within) = (i / 128, i / 32 % 4, i % 32);
    let k4 = |p: usize| match p {
        0..4 => (b[4 + p] & 63, b[8 + p] & 63),
        _ => (b[8 + p] & 15 | b[p] >> 6 << 4, b[8 + p] >> 4 | b[4 + p] >> 6 << 4),
    };
    let four = |q: u8| (half(0) * f32::from(k4(i / 32).0)) * f32::from(q) - half(2) * f32::from(k4(i / 32).1);
    const NL: [f32; 16] = [
        -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0,
        113.0,
    ];
    const FP4: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];
    match name {
        "q4_0" => half(0) * (f32::from(nibble(2, j, n)) - 8.0),
        "q4_1" => half(0) * f32::from(nibble(4, j, n)) + half(2),
        "q5_0" => half(0) * (f32::from(nibble(6, j, n) | bit(2, i) << 4) - 16.0),
        "q5_1" => half(0) * f32::from(nibble(8, j, n) | bit(4, i) << 4) + half(2),
        "q8_0" => half(0) * f32::from(b[2 + i] as i8),
        "q2_k" => {
            let (scale, min) = (b[i / 16] & 15, b[i / 16] >> 4);
            half(80) * f32::from(scale) * f32::from(pair(16 + 32 * a, within, part))
                - half(82) * f32::from(min)
        }
        "q3_k" => {
            let p = i / 16;
            let scale = nibble(96, p % 8, p / 8) | pair(104, p % 4, p / 4) << 4;
            let code = pair(32 + 32 * a, within, part) | (b[within] >> (i / 32) & 1) << 2;
            half(108) * (f32::from(scale) - 32.0) * (f32::from(code) - 4.0)
        }
        "q4_k" => four(nibble(16 + 32 * (i / 64), within, i / 32 % 2)),
        "q5_k" => {
            four(nibble(48 + 32 * (i / 64), within, i / 32 % 2) | (b[16 + within] >> (i / 32) & 1) << 4)
        }
        "q6_k" => {
            let low = nibble(64 * a, i % 64, i / 64 % 2);
            let code = low | pair(128 + 32 * a, within, part) << 4;
            half(208) * f32::from(b[192 + i / 16] as i8) * (f32::from(code) - 32.0)
        }
        "iq4_nl" => half(0) * NL[usize::from(nibble(2, j, n))],
        "iq4_xs" => {
            let p = i / 32;
            let scale = nibble(4, p / 2, p % 2) | pair(2, p / 4, p % 4) << 4;
            half(0) * (f32::from(scale) - 32.0) * NL[usize::from(nibble(8 + 16 * p, j, i / 16 % 2))]
        }
        "tq2_0" => half(64) * (f32::from(pair(32 * a, within, part)) - 1.0),
        "tq1_0" => {
            let (byte, digit) = match i {
                0..160 => (i % 32, i / 32),
                160..240 => (32 + i % 16, (i - 160) / 16),
                _ => (48 + i % 4, (i - 240) / 4),
            };
            let shifted = u32::from(b[byte]) * 3u32.pow(digit as u32) % 256;
            half(52) * ((shifted * 3 / 256) as f32 - 1.0)
        }
        "mxfp4_gguf" => {
            let code = nibble(1, j, n);
            let level = FP4[usize::from(code & 7)];
            let unit = (f64::from(b[0]) - 128.0).exp2() as f32;
            unit * if code > 8 { -level } else { level }
        }
        _ => unreachable!("{name}"),
    }
}

#[test]
fn names_are_unique_and_sizes_as_published() {
    let sizes: Vec<_> = TABLE.iter().map(|blocks| (blocks.name(), blocks.len(), blocks.bytes())).collect();
    for (i, row) in sizes.iter().enumerate() {
        assert!(sizes[..i].iter().all(|other| other.0 != row.0));
        assert!(row.1 == 32 || row.1 == 256);
    }
    assert_eq!(sizes[0], ("q4_0", 32, 18));
    assert_eq!(format!("{:?}", TABLE[6]), "q3_k");
}

#[test]
fn any_bytes_decode_as_drawn_on_every_instruction_set() {
    let mut random = Random(1);
    for blocks in PINNED {
        let bytes: Vec<u8> = (0..blocks.bytes() * 300).map(|_| random.word() as u8).collect();
        let expected: Vec<f32> = bytes
            .chunks(blocks.bytes())
            .flat_map(|block| (0..blocks.len()).map(|i| element(blocks.name(), block, i)))
            .collect();
        for isa in Isa::available() {
            let mut out = vec![0.0; expected.len()];
            blocks.decode_pinned(isa, &bytes, &mut out);
            let wrong = bits(&out).iter().zip(bits(&expected)).position(|(a, b)| *a != b);
            assert_eq!(wrong, None, "{} on {}", blocks.name(), isa.name());
        }
        for byte in [0, 0x7f, 0x80, 0xff] {
            decoded(*blocks, &vec![byte; blocks.bytes() * 3]);
        }
    }
}

#[test]
fn the_plain_types_take_their_published_codes() {
    let x: Vec<f32> = (0..32).map(|i| (i - 16) as f32 / 16.0).collect();
    let bytes = |name| encoded(find(name), &x, None);
    // d = −1 / −8; element i takes ⌊(i − 16) / 2 + 8.5⌋ = ⌊(i + 1) / 2⌋, of which the last would be 16.
    let codes: Vec<u8> = (0..16).map(|i: u8| i.div_ceil(2) | (i + 16).div_ceil(2).min(15) << 4).collect();
    assert_eq!(bytes("q4_0"), [&[0x00, 0x30], &codes[..]].concat());
    // d = 31/16/15, m = −1: code ⌊i · 15 / 31 + ½⌋.
    let code = |i: u32| ((30 * i + 31) / 62) as u8;
    let codes: Vec<u8> = (0..16).map(|i| code(i) | code(i + 16) << 4).collect();
    assert_eq!(bytes("q4_1"), [&[0x22, 0x30, 0x00, 0xbc], &codes[..]].concat());
    // d = −1 / −16: the codes are i, whose fifth bit is that of the second half.
    let codes: Vec<u8> = (0..16).map(|i| i | i << 4).collect();
    assert_eq!(bytes("q5_0"), [&[0x00, 0x2c, 0, 0, 0xff, 0xff], &codes[..]].concat());
    assert_eq!(bytes("q5_1"), [&[0x00, 0x2c, 0x00, 0xbc, 0, 0, 0xff, 0xff], &codes[..]].concat());
    // d = 1 / 127: code round((i − 16) · 127 / 16), half away from zero.
    let codes: Vec<u8> = (0..32).map(|i| (f64::from(i - 16) * 127.0 / 16.0).round() as i8 as u8).collect();
    assert_eq!(bytes("q8_0"), [&[0x08, 0x20], &codes[..]].concat());
    // The largest magnitude is 2⁰: e = 127 − 2. In quarters −4, −3¾, −3½, −3¼ and 0, ¼, ½, ¾: midway the lower.
    assert_eq!(bytes("mxfp4_gguf")[..5], [125, 0x0e, 0x0e, 0x1d, 0x1d]);

    let x: Vec<f32> = (0..256).map(|i| [-2.0, 0.9, 1.0, 0.0][i % 4]).collect();
    let bytes = encoded(find("tq2_0"), &x, None);
    assert_eq!(bytes[..4], [0, 0x55, 0xaa, 0x55]);
    assert_eq!(bytes[64..], [0x00, 0x40]);
    let bytes = encoded(find("tq1_0"), &x, None);
    // Five digits of 0, 1, 2 are 0, 121 and 242; four are 0, 120 and 240, times 256 / 243.
    assert_eq!((&bytes[..4], &bytes[48..]), (&[0, 128, 255, 128][..], &[0, 127, 253, 127, 0x00, 0x40][..]));
}

#[test]
fn bytes_depend_neither_on_the_instruction_set_nor_on_the_blocks_beside() {
    for blocks in PINNED {
        let len = blocks.len() * 21;
        let (mut x, w) = (gaussian(2, len), weights(3, len));
        x[5] = 100.0;
        x[blocks.len()..2 * blocks.len()].fill(0.0);
        for importance in [None, Some(&w[..])] {
            let expected = encoded(*blocks, &x, importance);
            for isa in Isa::available() {
                let mut bytes = vec![0; expected.len()];
                blocks.encode_pinned(isa, &x, importance, &mut bytes);
                assert_eq!(bytes, expected, "{} on {}", blocks.name(), isa.name());
            }
            for (i, expected) in expected.chunks(blocks.bytes()).enumerate() {
                let range = i * blocks.len()..(i + 1) * blocks.len();
                let bytes = encoded(*blocks, &x[range.clone()], importance.map(|w| &w[range]));
                assert_eq!(bytes, expected, "{} block {i}", blocks.name());
            }
        }
    }
}

#[test]
fn a_gaussian_keeps_at_least_so_many_decibels() {
    let x = gaussian(4, 1 << 20);
    let w = weights(5, 1 << 20);
    let power = error(&x, &vec![0.0; x.len()], None);
    let weighted_power = error(&x, &vec![0.0; x.len()], Some(&w));
    let decibels = |power: f64, error: f64| 10.0 * (power / error).log10();
    // Without importance, and by how much the weighted error gains from it.
    for (name, least, gain) in [
        ("q4_0", 21.28, 0.9),
        ("q4_1", 22.10, 1.7),
        ("q5_0", 27.35, 0.9),
        ("q5_1", 28.40, 1.6),
        ("q8_0", 45.38, 1.2),
        ("q2_k", 11.72, 0.9),
        ("q3_k", 16.83, 0.5),
        ("q4_k", 23.11, 0.65),
        ("q5_k", 29.25, 0.55),
        ("q6_k", 35.47, 0.5),
        ("iq4_nl", 22.66, 0.5),
        ("iq4_xs", 22.61, 0.5),
        ("tq1_0", 1.83, 5.3),
        ("tq2_0", 1.83, 5.3),
        ("mxfp4_gguf", 18.75, 0.2),
    ] {
        let blocks = find(name);
        let y = round_trip(blocks, &x, None);
        let reached = decibels(power, error(&x, &y, None));
        let without = decibels(weighted_power, error(&x, &y, Some(&w)));
        let with = decibels(weighted_power, error(&x, &round_trip(blocks, &x, Some(&w)), Some(&w)));
        println!("{name}: {reached:.3} dB; weighted {without:.3}, with importance {with:.3} dB");
        assert!(reached >= least, "{name}: {reached}");
        assert!(with >= without + gain, "{name}: {with} after {without}");
    }
}
