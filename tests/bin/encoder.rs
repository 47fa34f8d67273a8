//! Milliseconds of the supervisor's second stage on one core, by tokens, for files and folders of encoders:
//! `RAYON_NUM_THREADS=1 cargo run --release -p tests --bin encoder -- INT8.gguf FLOATS.gguf DIR`; without the variable
//! candle's threads, which compute folders, wait for each other on that core.
//!
//! It is asked on the way to a request's first token, where the first stage is unsure.  At 128 tokens more than 12 ms in
//! int8, or 40 ms in F32, would be bad.  Beside builds the medians mean little; `tests/speed/quiet.py` waits for quiet.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use router_model::{Encoder, MiniLm};

#[derive(Parser)]
struct Args {
    /// Files as router-model/encoder/export.py writes them, folders as router-model/encoder/train.py does
    #[arg(required = true, value_name = "ENCODER")]
    encoders: Vec<PathBuf>,
    /// Each row is the median of so many
    #[arg(long, default_value_t = 41)]
    runs: usize,
}

/// A question of a line, one of a paragraph, and the most that is read.
const TOKENS: &[usize] = &[16, 64, 128];

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // Before the first product: the engine's threads start with as many cores as there are then.
    let mut one = rustix::thread::CpuSet::new();
    let all = rustix::thread::sched_getaffinity(None)?;
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|core| all.is_set(*core));
    one.set(first.ok_or("no core to run on")?);
    rustix::thread::sched_setaffinity(None, &one)?;
    println!("encoder,tokens,least_ms,median_ms");
    for path in args.encoders {
        let encoder = MiniLm::open(&path)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).display();
        for &tokens in TOKENS {
            // Two are BERT's own marks.
            let text = "law ".repeat(tokens - 2);
            assert_eq!(encoder.tokens(&text), tokens);
            let mut times: Vec<f64> = (0..args.runs.max(1))
                .map(|_| {
                    let start = Instant::now();
                    std::hint::black_box(encoder.embed(std::hint::black_box(&text)));
                    start.elapsed().as_secs_f64() * 1e3
                })
                .collect();
            times.sort_by(f64::total_cmp);
            println!("{name},{tokens},{:.2},{:.2}", times[0], times[times.len() / 2]);
        }
    }
    Ok(())
}
