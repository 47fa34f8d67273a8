//! How quickly the engine reads and writes, measured as llama-bench measures llama.cpp; see `tests/speed/README.md`.
//!
//!     cargo build --release -p tests --bin speed && target/release/speed FILE [--help]
//!
//! In comes a GGUF file, out come tokens a second of each repetition, as lines or as one JSON object.  Tokens are drawn
//! at random, the same ones in every process, so that a model of random weights does not go in circles over a few
//! experts.  Each measurement begins with empty contexts, after one like it that is not counted, with all experts it may
//! use in memory.
//!
//! Absent: requests, sampling, text; `measure` runs steps, `machine` asks the system.  Who runs this and llama.cpp in
//! turn is `tests/speed/run.py`.

mod machine;
mod measure;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use engine::ExpertMask;
use serde_json::{Value, json};
use tests::random::masks;

use measure::{Bench, Masks};

#[derive(Parser)]
#[command(
    about = "Tokens a second of the engine alone: a prompt read at once, and tokens one by one."
)]
struct Args {
    /// The model.
    #[arg(required_unless_present = "bandwidth")]
    file: Option<PathBuf>,
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
    /// The same streams, one after another.
    #[arg(long, requires = "streams")]
    serial: bool,
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
        (Some(file), None) => alone(&args, Bench::open(file, args.taps)?)?,
        (Some(file), Some(n)) => together(&args, n, Bench::open(file, args.taps)?)?,
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

/// One context: prompt and generation.
fn alone(args: &Args, mut bench: Bench) -> Result<Value, String> {
    bench.warm(&[None]);
    // It warms up, and is what someone waits for who starts the program with a question.
    bench.prompt(args.prompt)?;
    let first_token = bench.seconds_since_start();
    let mut prompt = Vec::new();
    for _ in 0..args.repeat {
        prompt.push(args.prompt as f64 / bench.prompt(args.prompt)?);
    }
    bench.generate(&[None], args.generate.min(8))?;
    let mut generate = Vec::new();
    for _ in 0..args.repeat {
        generate.push(args.generate as f64 / bench.generate(&[None], args.generate)?.seconds);
    }
    let memory = machine::memory();
    Ok(json!({
        "load_s": bench.load_seconds,
        "first_token_s": first_token,
        "prompt_tokens": args.prompt,
        "prompt_per_s": prompt,
        "generate_tokens": args.generate,
        "generate_per_s": generate,
        "bytes_per_token": bench.bytes_per_token(),
        "rss_anon": memory.anonymous,
        "rss_file": memory.file,
    }))
}

/// Many contexts.
fn together(args: &Args, streams: usize, mut bench: Bench) -> Result<Value, String> {
    let shape = bench.shape();
    if args.specialists > 0 && shape.experts / 4 < shape.top_k.max(1) {
        let (experts, k) = (shape.experts, shape.top_k);
        return Err(format!(
            "a quarter of {experts} experts is less than the {k} the router picks"
        ));
    }
    let all: Vec<Arc<ExpertMask>> =
        masks(shape, args.specialists, 0.25, 1.0, 1).into_iter().map(Arc::new).collect();
    let of = |stream: usize| (!all.is_empty()).then(|| all[stream % all.len()].clone());
    let masks: Masks = (0..streams).map(of).collect();
    bench.warm(&masks);
    let groups: Vec<&[_]> = masks.chunks(if args.serial { 1 } else { streams.max(1) }).collect();
    bench.generate(groups[0], args.generate.min(8))?;
    let (mut per_s, mut steps, mut uses) = (Vec::new(), 0, 0);
    for _ in 0..args.repeat {
        let mut seconds = 0.0;
        for group in &groups {
            let run = bench.generate(group, args.generate)?;
            seconds += run.seconds;
            steps += args.generate;
            uses += run.uses;
        }
        per_s.push((streams * args.generate) as f64 / seconds);
    }
    let uses_per_step = uses as f64 / steps.max(1) as f64;
    let memory = machine::memory();
    Ok(json!({
        "load_s": bench.load_seconds,
        "streams": streams,
        "specialists": args.specialists,
        "serial": args.serial,
        "generate_tokens": args.generate,
        "per_s": per_s,
        "experts_per_layer": uses_per_step / bench.routed_layers().max(1) as f64,
        "bytes_per_step": bench.bytes_per_step(uses_per_step),
        "rss_anon": memory.anonymous,
        "rss_file": memory.file,
    }))
}
