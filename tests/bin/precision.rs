//! What it costs to keep keys and values less exactly, on one file and one text, teacher forced:
//! `cargo run --release -p tests --bin precision -- FILE.gguf --text FILE.txt`; `nano` is the embedded parent.
//!
//! With `--plain` it is a copy with weights in F32: kernels for blocks round what they multiply with to eight bits, where
//! the smallest difference becomes a step, so that only a plain copy shows the effect of keys and values alone.
//!
//! Every row reads the same tokens; what the text costs, how often the best next token is that of F32, and how far
//! the two are apart as distributions.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use config::Precision;
use engine::gguf::Gguf;
use engine::{Bank, Model, Session};
use tests::split;

/// Tokens read at once; the logits of so many are in memory.
const PIECE: usize = 128;

#[derive(Parser)]
struct Args {
    /// A GGUF file, or `nano`
    file: PathBuf,
    /// A text in UTF-8
    #[arg(long)]
    text: PathBuf,
    /// Tokens of it at most
    #[arg(long, default_value_t = 2000)]
    tokens: usize,
    /// Read a copy with weights in F32
    #[arg(long)]
    plain: bool,
}

/// What was seen of one precision.
#[derive(Default)]
struct Seen {
    nats: f64,
    same: usize,
    divergence: f64,
    took: Duration,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let mut gguf = match args.file == Path::new("nano") {
        true => Gguf::nano()?,
        false => Gguf::open(&args.file)?,
    };
    let folder = tempfile::tempdir()?;
    if args.plain {
        let copy = folder.path().join("plain.gguf");
        split::unpack(&gguf, &copy)?;
        gguf = Gguf::open(&copy)?;
    }
    let model = Model::load(gguf)?;
    let (shape, bank) = (model.shape(), Bank::new(model.clone()));
    let mut ids = model.tokenizer().encode(&std::fs::read_to_string(&args.text)?, true);
    ids.truncate(args.tokens.min(shape.context));
    let open = |precision| Session::keeping(precision, &model, &bank, ids.len());
    let mut sessions = Precision::ALL.map(open).into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut seen = Precision::ALL.map(|_| Seen::default());
    for (piece, chunk) in ids.chunks(PIECE).enumerate() {
        let mut exact = Vec::new();
        for (session, seen) in sessions.iter_mut().zip(&mut seen) {
            let begun = Instant::now();
            let logits = session.logits(chunk, None);
            seen.took += begun.elapsed();
            // The first of all precisions.
            if exact.is_empty() {
                exact.clone_from(&logits);
            }
            let rows = exact.chunks_exact(shape.vocab).zip(logits.chunks_exact(shape.vocab));
            for (i, (exact, row)) in rows.enumerate() {
                let (p, q) = (log_softmax(exact), log_softmax(row));
                seen.same += usize::from(best(exact) == best(row));
                seen.divergence += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
                if let Some(&next) = ids.get(piece * PIECE + i + 1) {
                    seen.nats -= q[next as usize];
                }
            }
        }
    }
    let tokens = ids.len() as f64;
    let form = if args.plain { ", weights in F32" } else { "" };
    println!("{}{form}, {tokens} tokens of {}", args.file.display(), args.text.display());
    println!(
        "| kept in | bytes a token | nats a token | best token as f32 | divergence | tokens a second |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (precision, seen) in Precision::ALL.into_iter().zip(&seen) {
        let bytes = model.layout(precision).bytes_at_once(1024) / 1024;
        let nats = seen.nats / (tokens - 1.0).max(1.0);
        let same = 100.0 * seen.same as f64 / tokens;
        let (apart, speed) = (seen.divergence / tokens, tokens / seen.took.as_secs_f64());
        println!("| {precision} | {bytes} | {nats:.5} | {same:.2} % | {apart:.1e} | {speed:.0} |");
    }
    Ok(())
}

/// Logarithms of probabilities.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, v| most.max(*v));
    let sum: f64 = logits.iter().map(|v| f64::from(v - most).exp()).sum();
    logits.iter().map(|v| f64::from(v - most) - sum.ln()).collect()
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
