//! Flags of `surgery evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::at_least_one;
use crate::cli::ParentPath;

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// May be given several times; masks of several sizes make the plot of size against quality
    #[arg(long, value_name = "X.mask.json", required = true)]
    pub mask: Vec<PathBuf>,
    /// Held-out text, labelled by domain or one domain a file: perplexity, top-1 agreement and KL from the parent.  May
    /// be given several times
    #[arg(long, value_name = "FILE", required_unless_present = "questions")]
    pub corpus: Vec<PathBuf>,
    /// Multiple-choice questions, labelled by domain: accuracy in the manner of MMLU-Pro (arXiv 2406.01574), thinking
    /// off, one more try after a loop, McNemar's test against the parent
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// How a choice is read: from the answer that is written, or, for models too small to be asked, as the option whose
    /// text has the fewest nats a token
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Way::Answer)]
    pub by: Way,
    /// Temperature of answers; what else they are sampled with is their domain's
    #[arg(long, value_name = "T", default_value_t = 0.6)]
    pub temperature: f32,
    /// Tokens of an answer at most; one that has not ended by then is a loop
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = at_least_one())]
    pub max_tokens: usize,
    /// Questions per domain at most, spread over the file [default: all]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub items: Option<usize>,
    /// Profiles of the masks' domains: with one, its mask has a control by plain frequency, near and far has the cosine
    /// of gate masses, and the page shows use.  May be given several times
    #[arg(long, value_name = "X.profile")]
    pub profile: Vec<PathBuf>,
    /// Random masks to compare with, for each size of mask
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub random: u32,
    /// Tokens of text per domain at most, spread over the file [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens: Option<u64>,
    /// Of random masks, answers and intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for evaluation.json, evaluation.md, evaluation.html and table.json; what is measured is kept in its
    /// parts/, so that an interrupted run goes on
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// As `--by` says it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Way {
    Answer,
    Likelihood,
}
