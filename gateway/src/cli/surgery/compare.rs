//! Flags of `surgery compare`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use surgery::mask::Score;

use crate::cli::ParentPath;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct CompareArgs {
    /// Masks, profiles, or both.  A profile that one of the masks was made from adds what cosines need; another stands
    /// for the mask that --keep and --score would make of it
    #[arg(value_name = "MASK|PROFILE", group = "what")]
    pub files: Vec<PathBuf>,
    /// A CSV of measured transfer, to correlate: visitor,target,Y and columns of predictors such as F and cosine
    #[arg(long, value_name = "ROWS.csv", group = "what")]
    pub table: Option<PathBuf>,
    /// Correlate again without the rows of this visitor
    #[arg(long, value_name = "VISITOR", requires = "table")]
    pub without: Option<String>,
    /// What a profile without a mask keeps of each layer, as 16 or 50%
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub keep: String,
    #[arg(long, value_name = "NAME", help = score_help())]
    pub score: Option<String>,
    /// Count bytes as well, of this parent's experts
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// The same as Markdown, in a file
    #[arg(long, value_name = "FILE.md")]
    pub out: Option<PathBuf>,
}

fn score_help() -> String {
    let usual = Score::usual();
    format!(
        "What makes an expert matter, for such a profile and for cosines; see `surgery mask --help` {usual}"
    )
}
