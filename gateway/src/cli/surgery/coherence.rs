//! Flags of `surgery coherence`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct CoherenceArgs {
    /// As `surgery profile` writes it from a corpus
    #[arg(long, value_name = "X.profile")]
    pub profile: PathBuf,
    /// Experts of each layer that a mask keeps, as 16 or 50%
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub keep: String,
    /// What was profiled, to show the first words of examples and to write a corpus for each part
    #[arg(long, value_name = "FILE")]
    pub corpus: Option<PathBuf>,
    /// Folder for coherence.md, coherence.json, items.csv and, with --corpus, the parts
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where groups are begun from is drawn with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}
