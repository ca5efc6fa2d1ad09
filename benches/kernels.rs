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
use qrs_core::gemm::{Bytes, Finish, Input, Panels, linear, matmul_integer};
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
    /// (m, n, k) of products, (rows, columns) or (elements,) of other operations, (batch, tokens, width, heads).
    shape: Vec<usize>,
    /// Format of the weight.
    weight: Option<String>,
    /// Elements along k that share a scale; 0 for a scale per column.
    #[serde(default)]
    group: usize,
    /// Format that the input is quantized to, row by row; float32 where there is none.
    input: Option<String>,
    /// Bytes of different weights to go through in turn, so that none is in a cache.
    #[serde(default)]
    rotate: usize,
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
        "matmul_integer" => products(&row.shape),
        "linear" => layer(row)?,
        "quantize" | "dequantize" | "fake_quantize" | "min_max" => codes(&row.op, row.shape[0])?,
        "gelu" | "softmax" | "layer_norm" => rows(&row.op, row.shape[0], row.shape[1])?,
        "attention" => heads(&row.shape),
        _ => return Err(Error::Unknown { what: "op", got: row.op.clone(), known: Vec::new() }),
    })
}

fn products(shape: &[usize]) -> Run {
    let &[m, n, k] = shape else { unreachable!("(m, n, k)") };
    let signed = |len| bytes(len).into_iter().map(|byte| byte as i8).collect::<Vec<_>>();
    let (a, b, mut out) = (signed(m * k), signed(k * n), vec![0; m * n]);
    Box::new(move || matmul_integer(Bytes::I8(&a), Bytes::I8(&b), [0, 0], k, &mut out))
}

fn layer(row: &Row) -> Result<Run, Error> {
    let &[m, n, k] = &row.shape[..] else { unreachable!("(m, n, k)") };
    let format = format::find(row.weight.as_deref().unwrap_or_default())?;
    let block = [1, if row.group == 0 { k } else { row.group }];
    let grid = Grid::new(&[n, k], &block)?;
    let (scale, zero_point) = (vec![0.01; grid.cells()], vec![0; grid.cells()]);
    let codes = bytes(packed_len(n * k, format.bits()));
    let params = QParams { scale: &scale, zero_point: &zero_point };
    let panels = Panels::new(Packed { codes: &codes, format, grid: &grid, params }, block)?;
    let weights = vec![panels; (row.rotate / codes.len()).max(1)];
    let input = match &row.input {
        Some(name) => {
            let target = Target::new(format::find(name)?, false, false, ScaleType::Float32)?;
            Some(Input::per_token(target))
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

fn codes(op: &str, len: usize) -> Result<Run, Error> {
    let (x, grid, format) = (floats(len), Grid::new(&[len], &[len])?, format::find("int8")?);
    let encoding =
        Encoding { format, narrow_range: true, rounding: Rounding::HalfEven, seed: 0, check_finite: true };
    let params = QParams { scale: &[1.0 / 127.0], zero_point: &[0] };
    let (mut packed, mut out) = (vec![0; len], vec![0.0; len]);
    Ok(match op {
        "quantize" => Box::new(move || quantize(&x, &grid, params, &encoding, &mut packed)),
        "fake_quantize" => Box::new(move || fake_quantize(&x, &grid, params, &encoding, &mut out)),
        "dequantize" => {
            quantize(&x, &grid, params, &encoding, &mut packed)?;
            Box::new(move || dequantize(Packed { codes: &packed, format, grid: &grid, params }, &mut out))
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
