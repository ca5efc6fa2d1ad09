//! The workloads of `workloads.json` through the Rust API, by Criterion.
//!
//! One thread, measured by its CPU time: what other programs on the machine take is not counted. The limits run
//! as rows of their own, in the same units, so that Criterion's throughputs can be divided.
//! A name selects rows: `cargo bench --bench kernels -- gemm`.
#![allow(clippy::expect_used, reason = "a row that cannot run stops the program")]

#[path = "limits.rs"]
mod limits;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, SamplingMode, Throughput};
use limits::{LIMITS, thread_time};
use qrs_core::gemm::{Bytes, Finish, Input, Panels, Requantize, linear, linear_requantized, matmul_integer};
use qrs_core::isa::Isa;
use qrs_core::*;
use serde::Deserialize;
use std::error::Error as StdError;
use std::time::Duration;

/// A row of the table.
#[derive(Deserialize)]
struct Row {
    name: String,
    op: String,
    /// (m, n, k) of products, (rows, columns) or (elements,) of other operations, (batch, tokens, width, heads),
    /// (batch, channels, filters, height and width, window) of convolutions.
    shape: Vec<usize>,
    /// Type of the left matrix of integers; `int8` where there is none.
    a: Option<String>,
    /// Format of codes; `int8` where there is none.
    format: Option<String>,
    /// Format of the weight.
    weight: Option<String>,
    /// Elements along the last axis that share a scale; 0 for a scale per row, or for the whole of one axis.
    #[serde(default)]
    group: usize,
    /// Format that the input is quantized to, row by row; float32 where there is none.
    input: Option<String>,
    /// Bytes of different weights to go through in turn, so that none is in a cache.
    #[serde(default)]
    rotate: usize,
    /// Step of the window of a convolution; 1 where there is none.
    stride: Option<usize>,
    /// Groups of a convolution; 1 where there is none.
    groups: Option<usize>,
    /// Which of the machine's limits bounds it.
    limit: String,
    /// Multiply-adds where the limit is one of arithmetic, else bytes.
    work: u64,
}

fn throughput(limit: &str, work: u64) -> Throughput {
    if matches!(limit, "dot" | "fma") { Throughput::Elements(work) } else { Throughput::Bytes(work) }
}

/// CPU time of the measuring thread, shown as Criterion shows the wall clock.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_time()
    }

    fn end(&self, start: Duration) -> Duration {
        thread_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

type Run = Box<dyn FnMut() -> Result<(), Error>>;

/// Sixteen random bits for each element, the same in every run.
fn noise(len: usize) -> impl Iterator<Item = u16> {
    let mut state = 1_u64;
    std::iter::repeat_with(move || {
        // A linear congruential generator, of which the high bits are random enough.
        state = state.wrapping_mul(2862933555777941757).wrapping_add(1);
        (state >> 48) as u16
    })
    .take(len)
}

/// Numbers in [−1, 1).
fn floats(len: usize) -> Vec<f32> {
    noise(len).map(|bits| f32::from(bits as i16) / 32768.0).collect()
}

fn bytes(len: usize) -> Vec<u8> {
    noise(len).map(|bits| (bits >> 8) as u8).collect()
}

/// Makes the data of a row and the call to measure.
fn prepare(row: &Row) -> Result<Run, Error> {
    Ok(match row.op.as_str() {
        "matmul_integer" => products(row),
        "linear" => layer(row)?,
        "linear_static" => static_layer(row)?,
        "quantize" | "dequantize" | "fake_quantize" | "min_max" => codes(row)?,
        "gelu" | "softmax" | "layer_norm" => rows(&row.op, row.shape[0], row.shape[1])?,
        "attention" => heads(&row.shape),
        "conv2d" => convolution(row)?,
        _ => return Err(Error::Unknown { what: "op", got: row.op.clone(), known: Vec::new() }),
    })
}

fn products(row: &Row) -> Run {
    let &[m, n, k] = &row.shape[..] else { unreachable!("(m, n, k)") };
    let signed = |len| bytes(len).into_iter().map(|byte| byte as i8).collect::<Vec<_>>();
    let (b, mut out) = (signed(k * n), vec![0; m * n]);
    if row.a.as_deref() == Some("uint8") {
        let a = bytes(m * k);
        return Box::new(move || matmul_integer(Bytes::U8(&a), Bytes::I8(&b), [0, 0], k, &mut out));
    }
    let a = signed(m * k);
    Box::new(move || matmul_integer(Bytes::I8(&a), Bytes::I8(&b), [0, 0], k, &mut out))
}

/// One scale and zero point for each cell, all alike.
struct Cells {
    scale: Vec<f32>,
    zero_point: Vec<i32>,
}

impl Cells {
    fn new(count: usize, scale: f32) -> Cells {
        Cells { scale: vec![scale; count], zero_point: vec![0; count] }
    }

    fn params(&self) -> QParams<'_> {
        QParams { scale: &self.scale, zero_point: &self.zero_point, levels: &[] }
    }
}

/// A weight (n, k) of random codes; with the bytes of the codes.
fn weight(format: &str, n: usize, k: usize, group: usize) -> Result<(Panels, usize), Error> {
    let (format, block) = (format::find(format)?, [1, if group == 0 { k } else { group }]);
    let grid = Grid::new(&[n, k], &block)?;
    let (cells, codes) = (Cells::new(grid.cells(), 0.01), bytes(packed_len(n * k, format)));
    let packed = Packed { codes: &codes, format, grid: &grid, params: cells.params() };
    Ok((Panels::new(packed, block)?, codes.len()))
}

fn static_layer(row: &Row) -> Result<Run, Error> {
    let &[m, n, k] = &row.shape[..] else { unreachable!("(m, n, k)") };
    let (panels, _) = weight("int8", n, k, 0)?;
    let (x, mut out, codes) = (floats(m * k), vec![0; m * n], format::find("uint8")?);
    let input = Input::fixed(codes, 1.0 / 128.0, 128, false)?;
    let output = Requantize::new(codes, 0.5, 128, false)?;
    Ok(Box::new(move || {
        let finish = Finish { bias: None, activation: Activation::from_name("none")? };
        linear_requantized(&x, &panels, Some(&input), &finish, &output, &mut out)
    }))
}

fn layer(row: &Row) -> Result<Run, Error> {
    let &[m, n, k] = &row.shape[..] else { unreachable!("(m, n, k)") };
    let (panels, bytes) = weight(row.weight.as_deref().unwrap_or_default(), n, k, row.group)?;
    let weights = vec![panels; (row.rotate / bytes).max(1)];
    let input = match &row.input {
        Some(name) => {
            let target = Target::new(format::find(name)?, false, false, ScaleType::Float32)?;
            Some(Input::per_token(target)?)
        }
        None => None,
    };
    let (x, mut out, mut turn) = (floats(m * k), vec![0.0; m * n], 0);
    Ok(Box::new(move || {
        turn = (turn + 1) % weights.len();
        let finish = Finish { bias: None, activation: Activation::from_name("none")? };
        linear(&x, &weights[turn], input.as_ref(), &finish, &mut out)
    }))
}

fn codes(row: &Row) -> Result<Run, Error> {
    let (len, format) = (row.shape.iter().product(), format::find(row.format.as_deref().unwrap_or("int8"))?);
    let last = row.shape.last().copied().unwrap_or_default();
    let block = [1, if row.group == 0 { last } else { row.group }];
    let grid = Grid::new(&row.shape, &block[2 - row.shape.len()..])?;
    let (x, narrow_range) = (floats(len), format.bits() == 8);
    let encoding = Encoding {
        format,
        narrow_range,
        rounding: Rounding::HalfEven,
        seed: 0,
        check_finite: true,
        saturate: true,
    };
    let cells = Cells::new(grid.cells(), 1.0 / 127.0);
    let (mut packed, mut out) = (vec![0; packed_len(len, format)], vec![0.0; len]);
    Ok(match row.op.as_str() {
        "quantize" => Box::new(move || quantize(&x, &grid, cells.params(), &encoding, &mut packed)),
        "fake_quantize" => Box::new(move || fake_quantize(&x, &grid, cells.params(), &encoding, &mut out)),
        "dequantize" => {
            quantize(&x, &grid, cells.params(), &encoding, &mut packed)?;
            Box::new(move || {
                dequantize(Packed { codes: &packed, format, grid: &grid, params: cells.params() }, &mut out)
            })
        }
        _ => Box::new(move || min_max(&x, &grid, true).map(drop)),
    })
}

fn rows(op: &str, count: usize, columns: usize) -> Result<Run, Error> {
    let (x, mut out) = (floats(count * columns), vec![0.0; count * columns]);
    let gelu = Activation::from_name("gelu")?;
    Ok(match op {
        "gelu" => Box::new(move || activate(&x, gelu, &mut out)),
        "softmax" => Box::new(move || softmax(&x, columns, &mut out)),
        _ => {
            let (residual, weight, bias) = (x.clone(), floats(columns), floats(columns));
            Box::new(move || {
                let norm = LayerNorm { weight: &weight, bias: Some(&bias), eps: 1e-12 };
                layer_norm(&x, Some(&residual), norm, &mut out)
            })
        }
    })
}

fn heads(shape: &[usize]) -> Run {
    let &[batch, tokens, width, heads] = shape else { unreachable!("(batch, tokens, width, heads)") };
    let x = floats(batch * tokens * width);
    let (mask, mut out) = (vec![0.0; batch * tokens], vec![0.0; x.len()]);
    Box::new(move || {
        let scale = ((width / heads) as f32).sqrt().recip();
        let (queries, keys, mask) = (tokens, tokens, Some(&mask[..]));
        attention(&x, &x, &x, Attention { batch, queries, keys, width, heads, scale, mask }, &mut out)
    })
}

fn convolution(row: &Row) -> Result<Run, Error> {
    let &[batch, channels, filters, size, side] = &row.shape[..] else {
        unreachable!("(batch, channels, filters, height and width, window)")
    };
    let (stride, groups) = (row.stride.unwrap_or(1), row.groups.unwrap_or(1));
    let shape = [filters, channels / groups, side, side];
    let (format, grid) = (format::find("int8")?, Grid::new(&shape, &[1, shape[1], side, side])?);
    let (cells, codes) = (Cells::new(filters, 0.01), bytes(shape.iter().product()));
    let weight = Packed { codes: &codes, format, grid: &grid, params: cells.params() };
    let packed = Filters::new(weight, groups)?;
    let window = Window { stride: [stride; 2], padding: [side / 2; 4], dilation: [1; 2] };
    let input = Input::fixed(format::find("uint8")?, 1.0 / 128.0, 128, false)?;
    let length = (size + 2 * (side / 2) - side) / stride + 1;
    let (x, mut out) = (floats(batch * channels * size * size), vec![0.0; batch * filters * length * length]);
    Ok(Box::new(move || {
        let finish = Finish { bias: None, activation: Activation::from_name("none")? };
        let conv = Conv2d { filters: &packed, window, input: Some(&input), finish };
        conv2d(&x, [batch, channels, size, size], &conv, &mut out)
    }))
}

fn main() -> Result<(), Box<dyn StdError>> {
    parallel::set_threads(1)?;
    let isa = Isa::active()?;
    let table: Vec<Row> = serde_json::from_str(include_str!("workloads.json"))?;
    println!("instruction set {}, one thread, CPU time", isa.name());
    let mut criterion = Criterion::default()
        .with_measurement(ThreadTime)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(250))
        .sample_size(10)
        .nresamples(2000)
        .without_plots()
        .configure_from_args();
    let mut group = criterion.benchmark_group("limits");
    group.sampling_mode(SamplingMode::Flat);
    for (name, load) in LIMITS {
        let Some(work) = load.work(isa, 1) else { continue };
        group.throughput(throughput(name, work));
        let mut ready = None;
        group.bench_function(name, |bencher| {
            let ready = ready.get_or_insert_with(|| load.ready(isa, 1).expect(name));
            bencher.iter(|| ready(1));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("workloads");
    group.sampling_mode(SamplingMode::Flat);
    for row in table.iter().filter(|row| row.op != "encoder") {
        group.throughput(throughput(&row.limit, row.work));
        // Criterion asks for what it was told to measure, and more than once.
        let mut run = None;
        group.bench_function(&row.name, |bencher| {
            let run = run.get_or_insert_with(|| prepare(row).expect(&row.name));
            bencher.iter(|| run().expect(&row.name));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
