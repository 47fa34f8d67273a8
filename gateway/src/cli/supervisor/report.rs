//! Flags of `collegium supervisor evaluate` that make its report.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder for the report: report.json, report.md, and pictures of confusion, reliability, coverage, mistyping
    /// (0 to 0.4), texts of no domain, and time
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
