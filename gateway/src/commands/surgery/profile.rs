//! `surgery profile`: what the parent's router does on a corpus.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use surgery::corpus::Corpus;
use surgery::profile;

use super::{Bench, failed};
use crate::cli::ParentPath;
use crate::commands::terminal::{Bar, Failure, result};

#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Lines of text, messages or questions; .jsonl or .jsonl.xz
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// Only lines of this domain and those without a label
    #[arg(long, value_name = "NAME")]
    pub domain: String,
    /// Tokens at most
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    #[arg(long, value_name = "X.profile")]
    pub out: PathBuf,
}

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &ProfileArgs) -> Result<(), Failure> {
    let corpus = Corpus::at(&args.corpus);
    let reading = bench.reading(&corpus, Some(bench.domain(&args.domain)?), args.tokens);
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let taps = profile::profile(&bench.parent, reading, &mut |d, t, w| bar.show(d, t, w))
        .map_err(failed("profile", "corpus"))?;
    drop(bar);
    taps.write(&args.out).map_err(failed("io", "out"))?;
    let done = json!({
        "out": args.out, "domain": taps.domain, "tokens": taps.tokens,
        "prompt_tokens": taps.prompt_tokens, "parent": taps.parent,
    });
    result(bench.cli, &done, |_| {
        format!("{}: {} tokens of {}\n", args.out.display(), taps.tokens, taps.domain)
    })
}
