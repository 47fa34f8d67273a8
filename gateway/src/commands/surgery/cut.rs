//! `surgery cut`: a specialist as a file of its own.

use std::path::PathBuf;

use clap::Args;
use surgery::cut;

use super::{Bench, failed, read_mask};
use crate::cli::ParentPath;
use crate::commands::terminal::{Bar, Failure, result, size};

#[derive(Debug, Args)]
pub struct CutArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    #[arg(long, value_name = "X.mask.json")]
    pub mask: PathBuf,
    #[arg(long, value_name = "S.gguf")]
    pub out: PathBuf,
    /// Say what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &CutArgs) -> Result<(), Failure> {
    let (mask, sha256) = read_mask(&args.mask)?;
    let gguf = bench.parent.model.gguf();
    let plan = cut::plan(gguf, &mask, &sha256).map_err(failed("cut", "mask"))?;
    if !args.dry_run {
        let mut bar = Bar::new(bench.cli);
        cut::write(gguf, &plan, &args.out, &mut |d, t, w| bar.show(d, t, w))
            .map_err(failed("cut", "out"))?;
    }
    result(bench.cli, &plan.summary, |s| {
        let verb = if args.dry_run { "would have" } else { "has" };
        format!(
            "{}: {verb} {} of {} experts a layer, {} (parent: {}); {} tensors sliced, {} copied\n",
            args.out.display(),
            s.experts_out,
            s.experts_in,
            size(s.bytes_out),
            size(s.bytes_in),
            s.tensors_sliced,
            s.tensors_copied
        )
    })
}
