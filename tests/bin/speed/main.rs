//! How quickly the engine reads and writes, measured as llama-bench measures llama.cpp; see `tests/speed/README.md`.
//!
//!     cargo build --release -p tests --bin speed && target/release/speed FILE [--help]
//!
//! In comes a GGUF file, out come tokens a second of each repetition, as lines or as one JSON object.  Tokens are drawn
//! at random, the same ones in every process, so that a model of random weights does not go in circles over a few
//! experts.  Each measurement begins with empty contexts, after one like it that is not counted, with all experts it may
//! use in memory.
//!
//! Absent: requests, sampling, text; `reports` has what each kind of run prints, `measure` runs steps, `warming` moves
//! experts, `profiling` reads a corpus, `machine` asks the system.  Who runs this and llama.cpp in turn is
//! `tests/speed/run.py`; who counts its instructions is `tests/speed/instructions.py`.

mod machine;
mod measure;
mod profiling;
mod reports;
mod warming;

use std::path::PathBuf;

use clap::Parser;
use config::Device;
use serde_json::{Value, json};

use measure::Bench;

#[derive(Parser)]
#[command(
    about = "Tokens a second of the engine alone: a prompt read at once, and tokens one by one."
)]
struct Args {
    /// The model.
    #[arg(required_unless_present = "bandwidth")]
    file: Option<PathBuf>,
    /// What computes: cpu, cuda:N or metal, as this program was built.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Device,
    /// Threads that compute, each with a processor of its own; all processors if not given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Tokens of the prompt, read in one step with logits for the last.
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt: usize,
    /// Tokens to generate, one a step with its logits, from an empty context.
    #[arg(long, value_name = "N", default_value_t = 64)]
    generate: usize,
    /// Measurements of each kind.
    #[arg(long, value_name = "R", default_value_t = 1)]
    repeat: usize,
    /// Count what the router does, as serving does.
    #[arg(long)]
    taps: bool,
    /// Instead: so many contexts that generate at once, a row each in every step.
    #[arg(long, value_name = "N")]
    streams: Option<usize>,
    /// Masks that the streams are spread over, each a random quarter of every layer's experts; 0 for the generalist.
    #[arg(long, value_name = "S", default_value_t = 0, requires = "streams")]
    specialists: usize,
    /// Of each layer's experts, the share that all masks are drawn from: real ones have much in common.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "streams")]
    pool: f64,
    /// The same streams, one after another.
    #[arg(long, requires = "streams")]
    serial: bool,
    /// Instead: the same prompt and the same tokens with taps and without, step by step in turn.
    #[arg(long, conflicts_with_all = ["streams", "taps"])]
    taps_cost: bool,
    /// Instead: how quickly the experts of a quarter of every layer come into memory, and memory is copied.
    #[arg(long, conflicts_with_all = ["streams", "taps", "taps_cost"])]
    warming: bool,
    /// Instead: how quickly a corpus is profiled, beside a prefill of the same tokens.
    #[arg(long, conflicts_with_all = ["streams", "taps", "taps_cost", "warming"])]
    profiling: bool,
    /// Instead: bytes a second that the threads read from memory.
    #[arg(long, conflicts_with_all = ["file", "streams"])]
    bandwidth: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    if let Some(most) = args.threads {
        machine::keep_processors(most).map_err(said)?;
    }
    // As many threads compute as the process has processors.
    let threads = machine::processors();
    let found = match (&args.file, args.streams) {
        (None, _) => json!({ "bandwidth": machine::bandwidth(threads) }),
        (Some(file), _) if args.profiling => profiling::report(file, args.device, args.repeat)?,
        (Some(file), _) if args.warming => warming::report(file, args.device, args.repeat)?,
        (Some(file), _) if args.taps_cost => {
            reports::taps_cost(&args, Bench::open(file, args.device, false)?)?
        }
        (Some(file), None) => reports::alone(&args, Bench::open(file, args.device, args.taps)?)?,
        (Some(file), Some(n)) => {
            reports::together(&args, n, Bench::open(file, args.device, args.taps)?)?
        }
    };
    let mut all = json!({ "threads": threads, "taps": args.taps });
    if let (Some(all), Value::Object(found)) = (all.as_object_mut(), found) {
        all.extend(found);
    }
    match args.json {
        true => println!("{all}"),
        false => all.as_object().into_iter().flatten().for_each(|(k, v)| println!("{k:18} {v}")),
    }
    Ok(())
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
