//! Flags of `surgery profile`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::at_least_one;
use crate::cli::ParentPath;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("from").required(true))]
pub struct ProfileArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Lines of text, messages or questions; .jsonl or .jsonl.xz
    #[arg(long, value_name = "FILE", group = "from")]
    pub corpus: Option<PathBuf>,
    /// Instead: counts that llama.cpp's llama-imatrix made, as GGUF.  They know how often each expert was chosen, which
    /// is the score `frequency`, and how strong its input was, which `norm-sum` and `norm-mean` take for its output with
    /// a warning; neither ranks nor gates, so that `rank`, `gate`, `reap` and `gate-norm` are refused
    #[arg(long, value_name = "FILE", group = "from")]
    pub imatrix: Option<PathBuf>,
    /// Instead: what the gateway counted of the domain's traffic, of this home.  It is the file
    /// traffic/DOMAIN.profile there, checked
    #[arg(long, group = "from")]
    pub traffic: bool,
    /// Instead: the sum of profiles of one parent, token by token: the longer one weighs more
    #[arg(long, value_name = "X.profile", num_args = 2.., group = "from")]
    pub merge: Vec<PathBuf>,
    /// Only lines of this domain and those without a label
    #[arg(long, value_name = "NAME", required_unless_present = "merge")]
    pub domain: Option<String>,
    /// Tokens at most, spread over the corpus [default: until the mask has settled]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens: Option<u64>,
    /// Stop when masks of the two halves of what was read agree so well, and the last doubling of it changed less than
    /// 1 % of the mask; 0 to 1, a Jaccard index
    #[arg(long, value_name = "A", default_value_t = 0.95)]
    pub until: f64,
    /// Read on after the mask has settled
    #[arg(long, conflicts_with = "until")]
    pub all: bool,
    /// Count which experts are chosen together, too
    #[arg(long, requires = "corpus")]
    pub pairs: bool,
    /// Who answers the questions: the corpus, or the parent, whose answers are kept beside the profile
    #[arg(long, value_enum, default_value_t = Answers::Corpus, requires = "corpus")]
    pub answers: Answers,
    /// Tokens of each of the parent's answers at most
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one())]
    pub answer_tokens: usize,
    /// The parent's answers are drawn with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Go on with fewer than four tokens for each expert of a layer
    #[arg(long)]
    pub force: bool,
    /// Where the profile goes; it names parent, domain and the hash of what was read
    #[arg(long, value_name = "X.profile")]
    pub out: PathBuf,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Answers {
    Corpus,
    Parent,
}
