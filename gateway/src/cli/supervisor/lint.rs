//! Flags of `collegium supervisor lint`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct LintArgs {
    /// The domain's file, wherever it is; its name without .toml is the domain's id, and it stands for
    /// a domain of that id
    #[arg(long, value_name = "FILE.toml")]
    pub domain: PathBuf,
    /// Other weights than those a server would use
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
}
