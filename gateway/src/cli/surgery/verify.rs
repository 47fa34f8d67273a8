//! Flags of `surgery verify`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::cli::ParentPath;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("subject").required(true))]
pub struct VerifyArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    #[arg(long, value_name = "X.mask.json", group = "subject")]
    pub mask: Option<PathBuf>,
    #[arg(long, value_name = "S.gguf", group = "subject")]
    pub specialist: Option<PathBuf>,
    /// Texts to compare on [default: a few fixed ones]
    #[arg(long, value_name = "FILE")]
    pub corpus: Option<PathBuf>,
}
