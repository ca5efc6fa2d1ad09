//! Work splitting and the thread budget. Nobody else names rayon.
//!
//! The pool is our own, is built by the first large call and belongs to one process: after a fork the child
//! finds another process number on it, leaves it be and builds its own. (A plain rayon global pool hung in 3 of
//! 3 forked children.) The calling thread takes part in the work, so a budget of `n` threads starts `n − 1`.

use crate::error::Error;
use crate::mem::{Cut, Rectangle};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A budget above this is clamped: more threads only cost memory.
const MAX_THREADS: usize = 256;

/// Work below this many nanoseconds stays on the calling thread: waking a sleeping worker takes 15 to 30 µs.
const SERIAL_NANOSECONDS: usize = 60_000;

/// The budget set by [`set_threads`]; 0 means: ask the environment.
static BUDGET: AtomicUsize = AtomicUsize::new(0);

/// The number of threads a large call uses: the last [`set_threads`], else `QRS_NUM_THREADS`, else
/// `OMP_NUM_THREADS`, else what affinity and container limits leave.
///
/// # Errors
/// One of the variables is set to something that is not a positive whole number.
pub fn threads() -> Result<usize, Error> {
    match BUDGET.load(Ordering::Relaxed) {
        0 => {
            let threads = match from_environment("QRS_NUM_THREADS")? {
                Some(n) => n,
                None => match from_environment("OMP_NUM_THREADS")? {
                    Some(n) => n,
                    None => std::thread::available_parallelism().map_or(1, usize::from),
                },
            };
            let threads = threads.min(MAX_THREADS);
            BUDGET.store(threads, Ordering::Relaxed);
            Ok(threads)
        }
        threads => Ok(threads),
    }
}

/// Sets the number of threads that large calls use from now on.
///
/// # Errors
/// `threads` is 0.
pub fn set_threads(threads: usize) -> Result<(), Error> {
    if threads == 0 {
        return Err(Error::Value { what: "threads", got: "0".into(), expected: "at least 1".into() });
    }
    BUDGET.store(threads.min(MAX_THREADS), Ordering::Relaxed);
    Ok(())
}

fn from_environment(name: &'static str) -> Result<Option<usize>, Error> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    // Set to nothing is not set.
    if text.is_empty() {
        return Ok(None);
    }
    // OMP_NUM_THREADS may be a list, one number per nesting level; the first is ours.
    let first = text.split(',').next().unwrap_or_default().trim();
    match first.parse() {
        Ok(n) if n > 0 => Ok(Some(n)),
        _ => Err(Error::Value {
            what: name,
            got: format!("{text:?}"),
            expected: "a whole number from 1".into(),
        }),
    }
}

/// Calls `task(0)` … `task(tasks − 1)`, each once, on as many threads as the budget allows and `nanoseconds`
/// (an estimate of the whole work on one core) is worth.
///
/// # Errors
/// See [`threads`].
pub(crate) fn for_each(tasks: usize, nanoseconds: usize, task: impl Fn(usize) + Sync) -> Result<(), Error> {
    let threads = workforce(tasks, nanoseconds)?;
    let pool = if threads > 1 { POOL.get(threads - 1) } else { None };
    let Some(pool) = pool else {
        (0..tasks).for_each(task);
        return Ok(());
    };
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            task(index);
        }
    };
    pool.in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| work());
        }
        work();
    });
    Ok(())
}

/// The number of threads for `tasks` tasks that take one core `nanoseconds`.
fn workforce(tasks: usize, nanoseconds: usize) -> Result<usize, Error> {
    if tasks < 2 || nanoseconds < SERIAL_NANOSECONDS { Ok(1) } else { Ok(threads()?.min(tasks)) }
}

/// Cuts `data` into chunks of `size` elements (the last may be shorter) and calls `task(number, chunk)` for each.
///
/// # Errors
/// See [`threads`].
pub(crate) fn for_each_chunk<T: Send>(
    data: &mut [T],
    size: usize,
    nanoseconds: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) -> Result<(), Error> {
    let (len, size) = (data.len(), size.max(1));
    if workforce(len.div_ceil(size), nanoseconds)? == 1 {
        // Nothing is allocated: small calls cost microseconds altogether.
        data.chunks_mut(size).enumerate().for_each(|(number, chunk)| task(number, chunk));
        return Ok(());
    }
    let cuts: Vec<usize> = (0..len).step_by(size).chain([len]).collect();
    for_each_rectangle(data, len, vec![0, usize::from(len > 0)], cuts, nanoseconds, |mut chunk| {
        let columns = chunk.columns.clone();
        task(columns.start / size, chunk.row(0, columns));
    })
}

/// Cuts the matrix `data` of `stride` elements a row at the given rows and columns, and calls `task` once for
/// each rectangle.
///
/// # Errors
/// See [`threads`].
pub(crate) fn for_each_rectangle<T: Send>(
    data: &mut [T],
    stride: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
    nanoseconds: usize,
    task: impl Fn(Rectangle<'_, T>) + Sync,
) -> Result<(), Error> {
    let cut = Cut::new(data, stride, rows, columns);
    // SAFETY: `for_each` calls each index once.
    for_each(cut.len(), nanoseconds, |index| task(unsafe { cut.rectangle(index) }))
}

static POOL: Pool = Pool { holder: AtomicU32::new(0), entry: UnsafeCell::new(None) };

/// The pool of this process, behind a lock that a fork cannot leave locked: the lock word is the number of the
/// process that holds it, and a number that is not ours belongs to a thread that does not exist here.
struct Pool {
    holder: AtomicU32,
    entry: UnsafeCell<Option<Entry>>,
}

/// How the lock was found when it was taken.
#[derive(PartialEq)]
enum Lock {
    Free,
    /// Locked by a thread of the parent process, which does not exist in this one.
    Inherited,
}

struct Entry {
    process: u32,
    workers: usize,
    /// `None` where the system refused to start threads: the caller then works alone.
    pool: Option<Arc<ThreadPool>>,
}

// SAFETY: `entry` is touched only between `lock` and the release of `holder` in `get`.
unsafe impl Sync for Pool {}

impl Pool {
    fn get(&self, workers: usize) -> Option<Arc<ThreadPool>> {
        let process = std::process::id();
        if self.lock(process) == Lock::Inherited {
            // SAFETY: the lock is ours. A thread of the parent was at work on the entry when it forked, so the
            // old value may be half written: it is overwritten without being read or dropped.
            unsafe { self.entry.get().write(None) };
        }
        // SAFETY: the lock is ours, so no other thread of this process reads or writes the entry.
        let entry = unsafe { &mut *self.entry.get() };
        let fits = entry.as_ref().is_some_and(|e| e.process == process && e.workers == workers);
        if !fits {
            let pool = ThreadPoolBuilder::new()
                .num_threads(workers)
                .thread_name(|i| format!("qrs-{i}"))
                .build()
                .ok()
                .map(Arc::new);
            if let Some(old) = entry.replace(Entry { process, workers, pool })
                && old.process != process
            {
                // The threads of a parent process do not exist here: dropping its pool would wait for them.
                std::mem::forget(old);
            }
        }
        let pool = entry.as_ref().and_then(|e| e.pool.clone());
        self.holder.store(0, Ordering::Release);
        pool
    }

    fn lock(&self, process: u32) -> Lock {
        loop {
            match self.holder.compare_exchange_weak(0, process, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Lock::Free,
                Err(holder) if holder != 0 && holder != process => {
                    // Held by a thread of the parent when it forked: that thread is not in this process.
                    let taken =
                        self.holder.compare_exchange(holder, process, Ordering::Acquire, Ordering::Relaxed);
                    if taken.is_ok() {
                        return Lock::Inherited;
                    }
                }
                Err(_) => std::thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_size() {
        for tasks in [0, 1, 2, 3, 7, 64, 1000] {
            for nanoseconds in [0, usize::MAX] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                for_each(tasks, nanoseconds, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn chunks_are_numbered_and_cover_everything() {
        for (len, size) in [(0, 3), (1, 3), (9, 3), (10, 3), (5, 100)] {
            let mut data = vec![usize::MAX; len];
            for_each_chunk(&mut data, size, usize::MAX, |number, chunk| chunk.fill(number)).unwrap();
            assert!(data.iter().enumerate().all(|(i, number)| *number == i / size), "{len} {size}");
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_poisons_nothing() {
        let caught = std::panic::catch_unwind(|| {
            for_each(64, usize::MAX, |i| assert!(i != 40, "task 40")).unwrap();
        });
        assert!(caught.is_err());
        for_each(64, usize::MAX, |_| ()).unwrap();
    }
}
