//! `surgery evaluate`: what masks cost on held-out text.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use engine::MaskFile;
use surgery::corpus::Corpus;
use surgery::evaluate::{Controls, columns, evaluate};

use super::{Bench, failed, read_mask};
use crate::cli::ParentPath;
use crate::commands::terminal::{Bar, Failure, result};

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// May be given several times
    #[arg(long, value_name = "X.mask.json", required = true)]
    pub mask: Vec<PathBuf>,
    /// Held-out text, labelled by domain
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// Random masks of the same size to compare with
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub random: u32,
    /// Tokens per domain at most
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for the table
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &EvaluateArgs) -> Result<(), Failure> {
    let masks: Vec<MaskFile> =
        args.mask.iter().map(|path| Ok(read_mask(path)?.0)).collect::<Result<_, Failure>>()?;
    let corpus = Corpus::at(&args.corpus);
    let texts = columns(&bench.parent.model, bench.reading(&corpus, None, args.tokens))
        .map_err(failed("corpus", "corpus"))?;
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let controls = Controls { draws: args.random, seed: args.seed };
    let table = evaluate(&bench.parent, &masks, &texts, controls, &mut |d, t, w| bar.show(d, t, w))
        .map_err(failed("evaluate", "corpus"))?;
    drop(bar);
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).map_err(failed("io", "out"))?;
        let json = serde_json::to_string_pretty(&table).map_err(failed("internal", "out"))?;
        for (name, text) in [("evaluation.json", json), ("evaluation.md", table.to_markdown())] {
            engine::file::replace(&folder.join(name), text.as_bytes())
                .map_err(failed("io", "out"))?;
        }
    }
    result(bench.cli, &table, |table| table.to_markdown())
}
