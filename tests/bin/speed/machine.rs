//! What the system and the machine say: processors, memory of this process, and how quickly memory can be read.

use std::hint::black_box;
use std::time::Instant;

/// Bytes that [`bandwidth`] reads: far beyond any cache.
const BUFFER: usize = 1 << 30;
const PASSES: usize = 8;

/// That this process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Keeps the first `most` processors of this process, for threads that start from now on.
///
/// # Errors
///
/// What the system says.
#[cfg(target_os = "linux")]
pub fn keep_processors(most: usize) -> rustix::io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let now = sched_getaffinity(None)?;
    let mut kept = CpuSet::new();
    let mine = (0..CpuSet::MAX_CPU).filter(|&cpu| now.is_set(cpu));
    mine.take(most.max(1)).for_each(|cpu| kept.set(cpu));
    sched_setaffinity(None, &kept)
}

/// Elsewhere than on Linux nobody is told which processors to use.
#[cfg(not(target_os = "linux"))]
pub fn keep_processors(_: usize) -> rustix::io::Result<()> {
    Err(rustix::io::Errno::NOSYS)
}

/// Bytes of this process in memory; zero where the system does not tell.
pub struct Memory {
    pub anonymous: u64,
    /// Of mapped files, the model first of all.
    pub file: u64,
}

pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Memory { anonymous: bytes("RssAnon"), file: bytes("RssFile") }
}

/// Pages that this process had to wait for a disk for, so far; zero where the system does not tell.
pub fn read_from_disk() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, it is the tenth.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(9).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Bytes a second that `threads` threads read together, the best of several passes: what decoding can reach at most.
pub fn bandwidth(threads: usize) -> f64 {
    // Not zeros, which the system would keep as one page.
    let buffer = vec![1u64; BUFFER / size_of::<u64>()];
    let pass = || {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for part in buffer.chunks(buffer.len().div_ceil(threads)) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
        BUFFER as f64 / begun.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(0.0, f64::max)
}

/// Sixteen sums side by side, so that no addition waits for the one before.
fn sum(part: &[u64]) -> u64 {
    let mut sums = [0u64; 16];
    for numbers in part.as_chunks::<16>().0 {
        for (sum, n) in sums.iter_mut().zip(numbers) {
            *sum = sum.wrapping_add(*n);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}
