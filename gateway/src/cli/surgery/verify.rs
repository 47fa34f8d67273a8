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
    /// A mask: that it restricts this parent as it says, and that all it computes are numbers
    #[arg(long, value_name = "X.mask.json", group = "subject")]
    pub mask: Option<PathBuf>,
    /// A file that `surgery cut` wrote: that its bytes are the parent's, and its logits those of the masked parent, bit
    /// for bit
    #[arg(long, value_name = "S.gguf", group = "subject")]
    pub specialist: Option<PathBuf>,
    /// Texts to compare on, about 4096 tokens of them [default: four fixed windows of 64 tokens]
    #[arg(long, value_name = "FILE")]
    pub corpus: Option<PathBuf>,
}
