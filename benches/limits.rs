//! What this machine can do at most, in the units that the workloads are rated in.
//!
//! `dot` and `fma` repeat one step on registers alone: the best exact 8-bit dot product of the instruction set in
//! use, and its float32 multiply-add. `read` and `copy` go over one buffer again and again. Each is measured on
//! one thread, by the wall clock and by the thread's own CPU time (which a busy machine disturbs less), and on
//! all threads.
//!
//! As a program it prints them as one line of JSON. With `--serve` it answers each line on its input with one of
//! output: `limits` with all of them, anything else with a probe of a few milliseconds, the rate of `dot` on one
//! thread just then, which tells a disturbed moment from a quiet one.

use qrs_core::isa::Isa;
use qrs_core::parallel;
use serde_json::{Value, json};
use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// About what one sample takes, and how many there are.
const SAMPLE: Duration = Duration::from_millis(12);
const SAMPLES: usize = 9;
/// Steps of each chain in a round of `dot` and `fma`.
const STEPS: u64 = 1000;

/// What is kept busy.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// 8-bit dot products into int32, exact.
    Dot,
    /// float32 multiply-adds.
    Fma,
    /// Reading this many bytes.
    Read(usize),
    /// Copying this many bytes, each counted twice: read and written.
    Copy(usize),
}

/// Every limit by the name that the table of workloads uses: within the second cache, within the third, in
/// memory.
pub const LIMITS: [(&str, Load); 8] = [
    ("dot", Load::Dot),
    ("fma", Load::Fma),
    ("read 256 KiB", Load::Read(256 << 10)),
    ("read 4 MiB", Load::Read(4 << 20)),
    ("read 192 MiB", Load::Read(192 << 20)),
    ("copy 256 KiB", Load::Copy(256 << 10)),
    ("copy 4 MiB", Load::Copy(4 << 20)),
    ("copy 192 MiB", Load::Copy(192 << 20)),
];

/// Runs a number of rounds.
pub type Run = Box<dyn FnMut(u64)>;

impl Load {
    /// Multiply-adds or bytes in a round of each of `threads` threads; `None` where there is no loop for `isa`.
    pub fn work(self, isa: Isa, threads: usize) -> Option<u64> {
        match self {
            Load::Dot => registers(isa, true).map(|(_, work)| work),
            Load::Fma => registers(isa, false).map(|(_, work)| work),
            Load::Read(bytes) => Some((bytes / threads) as u64),
            Load::Copy(bytes) => Some((2 * bytes / threads) as u64),
        }
    }

    /// Makes the part of one of `threads` threads; `None` where there is no loop for `isa`.
    pub fn ready(self, isa: Isa, threads: usize) -> Option<Run> {
        let words = |bytes: usize| vec![1_u64; bytes / threads / size_of::<u64>()];
        Some(match self {
            Load::Dot => Box::new(registers(isa, true)?.0),
            Load::Fma => Box::new(registers(isa, false)?.0),
            Load::Read(bytes) => {
                let data = words(bytes);
                Box::new(move |rounds| {
                    for _ in 0..rounds {
                        black_box(read(black_box(&data)));
                    }
                })
            }
            Load::Copy(bytes) => {
                let (from, mut to) = (words(bytes), words(bytes));
                Box::new(move |rounds| {
                    for _ in 0..rounds {
                        copy(black_box(&from), black_box(&mut to));
                    }
                })
            }
        })
    }
}

/// Runs `$body` compiled for AVX2 where the CPU has it.
macro_rules! widest {
    ($name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block) => {
        fn $name($($argument: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $type),*) -> $result $body
                // SAFETY: the feature was found just above.
                return unsafe { wide($($argument),*) };
            }
            $body
        }
    };
}

// The sum of all words, read as four streams.
widest!(read(data: &[u64]) -> u64 {
    let mut streams = data.chunks_exact((data.len() / 4).max(1));
    let mut next = || streams.next().unwrap_or_default();
    let (a, b, c, d) = (next(), next(), next(), next());
    let four = a.iter().zip(b).zip(c).zip(d);
    four.fold(0, |sum: u64, (((a, b), c), d)| sum.wrapping_add(a | b).wrapping_add(c | d))
});

// Within the caches, a loop; `memcpy` may choose a string instruction there that some CPUs run at a tenth of
// their speed. The sum keeps the compiler from making a `memcpy` of it.
widest!(copy_words(from: &[u64], to: &mut [u64]) -> () {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.wrapping_add(1);
    }
});

/// Copies, as fast as the system or the compiler knows how.
fn copy(from: &[u64], to: &mut [u64]) {
    if size_of_val(from) > 16 << 20 { to.copy_from_slice(from) } else { copy_words(from, to) }
}

/// Defines loops over chains of dependent steps, one chain for each listed register and enough of them to hide
/// the latency. The number of the register goes between the pieces of the step.
#[cfg(target_arch = "x86_64")]
macro_rules! chains {
    ($($name:ident: $before:literal, [$($piece:literal)+], $after:literal, $registers:tt;)+) => { $(
        #[inline(never)]
        fn $name(rounds: u64) {
            // SAFETY: only vector registers change, and the ABI in the clobbers gives all of them up; whoever
            // takes this function has checked that the CPU has its instructions.
            unsafe {
                std::arch::asm!(
                    $before,
                    "2:",
                    chains!(@all [$($piece)+] $registers),
                    "dec rcx",
                    "jnz 2b",
                    $after,
                    inout("rcx") (rounds * STEPS).max(1) => _,
                    clobber_abi("sysv64"),
                    options(nomem, nostack)
                );
            }
        }
    )+ };
    (@all $pieces:tt [$($register:literal)+]) => { concat!($(chains!(@one $pieces $register)),+) };
    (@one [$first:literal $($piece:literal)+] $register:literal) => {
        concat!($first, $($register, $piece),+, "\n")
    };
}

#[cfg(target_arch = "x86_64")]
chains! {
    dot_vnni: "", ["vpdpbusd zmm" ", zmm30, zmm31"], "vzeroupper",
        [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23];
    dot_avx512: "", ["vpmaddwd zmm29, zmm30, zmm31\nvpaddd zmm" ", zmm" ", zmm29"], "vzeroupper",
        [0 1 2 3 4 5 6 7 8 9 10 11];
    dot_avxvnni: "vzeroall", ["{{vex}} vpdpbusd ymm" ", ymm14, ymm15"], "vzeroupper",
        [0 1 2 3 4 5 6 7 8 9 10 11];
    dot_avx2: "vzeroall", ["vpmaddwd ymm13, ymm14, ymm15\nvpaddd ymm" ", ymm" ", ymm13"], "vzeroupper",
        [0 1 2 3 4 5 6 7 8 9 10 11];
    dot_sse2: "", ["movdqa xmm13, xmm14\npmaddwd xmm13, xmm15\npaddd xmm" ", xmm13"], "",
        [0 1 2 3 4 5 6 7 8 9 10 11];
    fma_avx512: "vzeroall", ["vfmadd231ps zmm" ", zmm14, zmm15"], "vzeroupper", [0 1 2 3 4 5 6 7 8 9 10 11];
    fma_avx2: "vzeroall", ["vfmadd231ps ymm" ", ymm14, ymm15"], "vzeroupper", [0 1 2 3 4 5 6 7 8 9 10 11];
}

/// The loop of the best instruction that `isa` has, and the multiply-adds of its rounds.
#[cfg(target_arch = "x86_64")]
fn registers(isa: Isa, dot: bool) -> Option<(fn(u64), u64)> {
    assert!(isa.supported(), "{isa:?} is not an instruction set of this CPU");
    let (run, chains, lanes): (fn(u64), u64, u64) = match (isa, dot) {
        (Isa::Avx512Vnni, true) => (dot_vnni, 24, 64),
        (Isa::Avx512, true) => (dot_avx512, 12, 32),
        (Isa::AvxVnni, true) => (dot_avxvnni, 12, 32),
        (Isa::Avx2, true) => (dot_avx2, 12, 16),
        (Isa::Portable, true) => (dot_sse2, 12, 8),
        (Isa::Avx512 | Isa::Avx512Vnni, false) => (fma_avx512, 12, 16),
        (Isa::Avx2 | Isa::AvxVnni, false) => (fma_avx2, 12, 8),
        (Isa::Portable, false) => return None,
    };
    Some((run, STEPS * chains * lanes))
}

/// Loops on registers are written for x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
fn registers(_: Isa, _: bool) -> Option<(fn(u64), u64)> {
    None
}

/// CPU time of the calling thread.
#[cfg(unix)]
pub fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local value of the type that the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "this system keeps no CPU time of threads");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The wall clock, where a thread's CPU time is not to be had.
#[cfg(not(unix))]
pub fn thread_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// Rates in thousand millions a second, the best of the samples, as disturbances only lower them: by the wall
/// clock and by CPU time.
struct Rates {
    wall: f64,
    cpu: f64,
}

/// What one thread did in a sample.
struct Span {
    start: Instant,
    end: Instant,
    cpu: Duration,
}

/// Runs the load on all `threads` at once; `None` where there is no such loop.
fn measure(load: Load, isa: Isa, threads: usize, samples: usize) -> Option<Rates> {
    let work = load.work(isa, threads)?;
    let (barrier, rounds) = (Barrier::new(threads), AtomicU64::new(0));
    let spans = Mutex::new((0..samples).map(|_| Vec::new()).collect::<Vec<_>>());
    let sample = |first: bool| {
        let Some(mut run) = load.ready(isa, threads) else { return };
        if first {
            rounds.store(rounds_of_a_sample(&mut run), Ordering::Relaxed);
        }
        for number in 0..samples {
            barrier.wait();
            let (start, cpu) = (Instant::now(), thread_time());
            run(rounds.load(Ordering::Relaxed));
            let span = Span { start, end: Instant::now(), cpu: thread_time() - cpu };
            spans.lock().unwrap_or_else(PoisonError::into_inner)[number].push(span);
        }
    };
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(|| sample(false))));
        sample(true);
    });
    let work = (work * rounds.into_inner()) as f64 / 1e9;
    let mut best = Rates { wall: 0.0, cpu: 0.0 };
    for spans in spans.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let start = spans.iter().map(|span: &Span| span.start).min()?;
        let end = spans.iter().map(|span| span.end).max()?;
        let cpu: Duration = spans.iter().map(|span| span.cpu).sum();
        let work = work * threads as f64;
        best.wall = best.wall.max(work / (end - start).as_secs_f64());
        best.cpu = best.cpu.max(work / cpu.as_secs_f64());
    }
    Some(best)
}

/// How many rounds fill a sample.
fn rounds_of_a_sample(run: &mut Run) -> u64 {
    let mut rounds = 1;
    loop {
        let start = Instant::now();
        run(rounds);
        let elapsed = start.elapsed();
        if elapsed * 4 >= SAMPLE {
            let fraction = SAMPLE.as_secs_f64() / elapsed.as_secs_f64();
            return ((rounds as f64 * fraction) as u64).max(1);
        }
        rounds *= 2;
    }
}

/// Every limit as JSON: `{"isa", "threads", "limits": {name: {"one", "one_cpu", "all"}}}`, in GMAC/s or GB/s;
/// null where this machine has no loop for it.
fn report(isa: Isa, threads: usize) -> Value {
    let mut limits = serde_json::Map::new();
    for (name, load) in LIMITS {
        let rates = measure(load, isa, 1, SAMPLES).zip(measure(load, isa, threads, SAMPLES));
        let entry = rates.map(|(one, all)| json!({"one": one.wall, "one_cpu": one.cpu, "all": all.wall}));
        limits.insert(name.to_owned(), entry.unwrap_or_default());
    }
    json!({"isa": isa.name(), "threads": threads, "limits": limits})
}

#[allow(dead_code, reason = "a module of kernels.rs, too")]
fn main() -> Result<(), Box<dyn Error>> {
    let (isa, threads) = (Isa::active()?, parallel::threads()?);
    if !std::env::args().any(|argument| argument == "--serve") {
        println!("{}", report(isa, threads));
        return Ok(());
    }
    for line in std::io::stdin().lock().lines() {
        let answer = match line?.as_str() {
            "limits" => report(isa, threads),
            _ => json!({"dot": measure(Load::Dot, isa, 1, 1).map(|rates| rates.wall)}),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
