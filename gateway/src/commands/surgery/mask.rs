//! `surgery mask`: which experts stay.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use engine::{Profile, hash};
use serde_json::json;
use surgery::mask::{Request, Score, Target, from_profile};

use super::failed;
use crate::cli::Cli;
use crate::commands::terminal::{Failure, result};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true))]
pub struct MaskArgs {
    #[arg(long, value_name = "X.profile")]
    pub profile: PathBuf,
    /// Experts to keep in each layer, as 16 or 50%
    #[arg(long, value_name = "N|P%", group = "target")]
    pub keep: Option<String>,
    /// The fewest experts that carry this share of the gate mass, above 0 and at most 1
    #[arg(long, value_name = "C", group = "target")]
    pub coverage: Option<f64>,
    /// What makes an expert matter: gate, frequency or rank
    #[arg(long, value_name = "NAME", default_value = "gate")]
    pub score: String,
    /// Let layers keep different numbers of experts
    #[arg(long)]
    pub per_layer: bool,
    /// What will run the specialist; llama.cpp needs one count for all layers
    #[arg(long = "for", value_name = "RUNTIME", value_enum, default_value_t = Runtime::Collegium)]
    pub runtime: Runtime,
    #[arg(long, value_name = "X.mask.json")]
    pub out: PathBuf,
}

/// Who runs a specialist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    Collegium,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// Runs the step.
pub fn run(cli: &Cli, args: &MaskArgs) -> Result<(), Failure> {
    if args.per_layer && args.runtime == Runtime::LlamaCpp {
        let message = "llama.cpp reads one expert count for all layers; leave out --per-layer";
        return Err(Failure::usage(message).at("per-layer"));
    }
    let target = match (&args.keep, args.coverage) {
        (Some(keep), _) => {
            let target = Target::keep(keep);
            target.map_err(|e| Failure::usage(e).at("keep"))?
        }
        (None, Some(coverage)) => Target::Coverage(coverage),
        (None, None) => return Err(Failure::usage("--keep or --coverage is needed")),
    };
    let score: Score = args.score.parse().map_err(|e| Failure::usage(e).at("score"))?;
    let taps = Profile::read(&args.profile).map_err(failed("profile", "profile"))?;
    let sha256 = hash::file(&args.profile).map_err(failed("io", "profile"))?;
    let request = Request { target, uniform: !args.per_layer };
    let mask = from_profile(&taps, &sha256, score, request).map_err(failed("mask", "profile"))?;
    let text = mask.to_json().map_err(failed("mask", "out"))?;
    engine::file::replace(&args.out, text.as_bytes()).map_err(failed("io", "out"))?;
    let coverage = mask.coverage.iter().sum::<f64>() / mask.coverage.len().max(1) as f64;
    let done = json!({
        "out": args.out, "domain": mask.domain, "score": mask.score, "experts": mask.experts,
        "coverage": mask.coverage, "mean_coverage": coverage,
        "mask_sha256": hash::hex(text.as_bytes()),
    });
    result(cli, &done, |_| {
        let kept: Vec<String> = mask.experts.iter().map(usize::to_string).collect();
        let kept = kept.join(" ");
        format!(
            "{}: experts by layer {kept}; they carry {coverage:.3} of the gate mass\n",
            args.out.display()
        )
    })
}
