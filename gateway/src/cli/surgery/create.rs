//! Flags of `surgery create`.

use std::path::PathBuf;

use clap::Args;
use surgery::mask::Score;

use super::mask::Acts;
use crate::cli::ParentPath;

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// What it is to be a specialist of: a domain's id, name or alias, or a new name
    #[arg(long, value_name = "NAME")]
    pub domain: String,
    /// Lines of text, messages or questions; .jsonl or .jsonl.xz.  Those of other domains are passed over
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// Text to test with [default: every twentieth line of the corpus]
    #[arg(long, value_name = "FILE")]
    pub held_out: Option<PathBuf>,
    /// Tokens of it at most, spread over the whole [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub held_out_tokens: Option<u64>,
    /// Experts to keep in each layer, as 16 or 50%
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub keep: String,
    #[arg(long, value_name = "NAME", help = score_help())]
    pub score: Option<String>,
    /// Let layers keep different numbers, which in the mean are what --keep says; llama.cpp reads no such file
    #[arg(long)]
    pub per_layer: bool,
    /// Where the mask acts in a router that does not renormalise, as OLMoE's; see `surgery mask --help`
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Acts::BeforeSoftmax)]
    pub masking: Acts,
    /// Tokens to profile at most, spread over the corpus [default: until the mask has settled]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens: Option<u64>,
    /// Profile the whole corpus, also when the mask has settled before
    #[arg(long)]
    pub all: bool,
    /// Go on with fewer than four tokens for each expert
    #[arg(long)]
    pub force: bool,
    /// The specialist's id [default: the domain's]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Folder for profile, mask and report [default: below the home folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

fn score_help() -> String {
    let usual = Score::usual();
    format!("What makes an expert matter; `surgery mask --help` lists the scores {usual}")
}
