//! `surgery mask`: which experts stay.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};
use engine::{Profile, hash};
use serde_json::json;
use surgery::mask::{
    DEFAULT, FLOOR, Made, Order, Request, SWAPS, Score, Target, USUAL_WHITELIST, Warning,
    Whitelist, make,
};

use super::{Bench, failed};
use crate::cli::{Cli, ParentPath};
use crate::commands::terminal::{Failure, result};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true))]
pub struct MaskArgs {
    /// What the parent's router did on the domain
    #[arg(long, value_name = "X.profile")]
    pub profile: PathBuf,
    /// Experts to keep in each layer, as 16 or 50%
    #[arg(long, value_name = "N|P%", group = "target")]
    pub keep: Option<String>,
    /// The fewest experts that carry this share of the gate mass, above 0 and at most 1
    #[arg(long, value_name = "C", group = "target")]
    pub coverage: Option<f64>,
    /// What makes an expert matter; --help lists the scores
    #[arg(long, value_name = "NAME", default_value = DEFAULT.name(), long_help = score_help())]
    pub score: String,
    /// Let layers keep different numbers: with --keep their mean is N, and they go where the score is spread widest;
    /// with --coverage each layer keeps what it needs
    #[arg(long)]
    pub per_layer: bool,
    /// What will run the specialist; llama.cpp needs one count for all layers, on CUDA best a power of two
    #[arg(long = "for", value_name = "RUNTIME", value_enum, default_value_t = Runtime::Collegium)]
    pub runtime: Runtime,
    /// Keep experts whose mean rank is below RANK (0 is the best) and whose count is above COUNT, in place of the least;
    /// off unless asked for, 2.0,10 without a value (College of Experts)
    #[arg(long, value_name = "RANK,COUNT", num_args = 0..=1, default_missing_value = USUAL_WHITELIST)]
    pub whitelist: Option<String>,
    /// A profile of reasoning, whose experts come in for the weakest of the mask (College of Experts)
    #[arg(long, value_name = "Y.profile")]
    pub reasoning: Option<PathBuf>,
    /// How many of a layer it may swap
    #[arg(long, value_name = "N", default_value_t = SWAPS, requires = "reasoning")]
    pub swaps: usize,
    /// A profile of what must stay, and the share of its gate mass; may be given several times.  The least of coverage
    /// over share, of domain and guards, is made as large as it can be
    #[arg(long, value_name = "G.profile:SHARE")]
    pub guard: Vec<GuardPath>,
    /// The domain's own share beside guards; with --coverage it is that
    #[arg(long, value_name = "C", default_value_t = FLOOR, conflicts_with = "coverage")]
    pub floor: f64,
    /// Check that the profile is of this parent and reached all its layers [default: not checked]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Go on with fewer than four tokens for each expert
    #[arg(long)]
    pub force: bool,
    #[arg(long, value_name = "X.mask.json")]
    pub out: PathBuf,
}

fn score_help() -> String {
    let help = Score::help();
    format!(
        "What makes an expert matter, and the pruning it is for (task-specific or general):{help}\n"
    )
}

/// Who runs a specialist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    Collegium,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// A guard as it is given: its profile, and the share that is to stay.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardPath {
    pub path: PathBuf,
    pub share: f64,
}

impl FromStr for GuardPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no guard; give a profile and a share, as tools.profile:0.9");
        let (path, share) = text.rsplit_once(':').ok_or_else(wrong)?;
        let share: f64 = share.parse().map_err(|_| wrong())?;
        if path.is_empty() || !(share > 0.0 && share <= 1.0) {
            return Err(format!("{}; the share is above 0 and at most 1", wrong()));
        }
        Ok(Self { path: path.into(), share })
    }
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
    let whitelist = args.whitelist.as_deref().map(Whitelist::from_str).transpose();
    let whitelist = whitelist.map_err(|e| Failure::usage(e).at("whitelist"))?;
    let read = |path: &Path, flag| Profile::read(path).map_err(failed("profile", flag));
    let profile = read(&args.profile, "profile")?;
    let sha256 = hash::file(&args.profile).map_err(failed("io", "profile"))?;
    let reasoning = args.reasoning.as_deref().map(|path| read(path, "reasoning")).transpose()?;
    let guards = args.guard.iter().map(|guard| Ok((read(&guard.path, "guard")?, guard.share)));
    let guards = guards.collect::<Result<Vec<_>, Failure>>()?;
    let routed = args.parent.as_ref().map(|parent| routed(cli, parent, &profile)).transpose()?;
    let order = Order {
        fused: args.runtime == Runtime::LlamaCpp,
        whitelist,
        reasoning: reasoning.as_ref().map(|profile| (profile, args.swaps)),
        guards: &guards,
        floor: Some(args.floor),
        routed: routed.as_deref(),
        force: args.force,
        ..Order::plain(score, Request { target, uniform: !args.per_layer })
    };
    let made = make(&profile, &sha256, &order).map_err(failed("mask", "profile"))?;
    let text = made.file.to_json().map_err(failed("mask", "out"))?;
    engine::file::replace(&args.out, text.as_bytes()).map_err(failed("io", "out"))?;
    for warning in &made.warnings {
        tracing::warn!("{warning}");
    }
    show(cli, &args.out, &made, &hash::hex(text.as_bytes()))
}

/// Which layers of the parent have experts, if the profile is of it.
fn routed(cli: &Cli, parent: &ParentPath, profile: &Profile) -> Result<Vec<bool>, Failure> {
    let model = Bench::new(cli, Some(parent))?.parent.model;
    let (own, shape) = (model.parent(), model.shape());
    let sizes = |layers, experts, top_k| format!("{layers}x{experts} top-{top_k}");
    let theirs = sizes(shape.layers, shape.experts, shape.top_k);
    if own != profile.parent || theirs != sizes(profile.layers, profile.experts, profile.top_k) {
        let message = format!(
            "the profile is of parent {:.12}…, this parent is {own:.12}…; profile this parent",
            profile.parent
        );
        return Err(Failure::new("mask", message).at("profile"));
    }
    Ok(shape.routed.clone())
}

/// What a pass did, over all layers.
struct Summary<'a> {
    pass: &'a str,
    layers: usize,
    added: usize,
    removed: usize,
}

fn summaries(made: &Made) -> Vec<Summary<'_>> {
    let mut all: Vec<Summary> = Vec::new();
    for step in &made.file.passes {
        if all.last().is_none_or(|last| last.pass != step.name) {
            all.push(Summary { pass: &step.name, layers: 0, added: 0, removed: 0 });
        }
        if let Some(last) = all.last_mut() {
            last.layers += 1;
            last.added += step.added.len();
            last.removed += step.removed.len();
        }
    }
    all
}

fn show(cli: &Cli, out: &Path, made: &Made, sha256: &str) -> Result<(), Failure> {
    let Made { file: mask, guards, warnings } = made;
    let passes = summaries(made);
    let coverage = mask.coverage.iter().sum::<f64>() / mask.coverage.len().max(1) as f64;
    let pass = |p: &Summary| json!({ "name": p.pass, "layers": p.layers, "added": p.added, "removed": p.removed });
    let guarded: Vec<_> = guards
        .iter()
        .map(|g| json!({ "name": g.name, "target": g.target, "coverage": g.coverage, "least": g.least }))
        .collect();
    let done = json!({
        "out": out, "domain": mask.domain, "score": mask.score, "experts": mask.experts,
        "coverage": mask.coverage, "mean_coverage": coverage, "mask_sha256": sha256,
        "passes": passes.iter().map(pass).collect::<Vec<_>>(), "guards": guarded,
        "warnings": warnings.iter().map(Warning::to_string).collect::<Vec<_>>(),
    });
    result(cli, &done, |_| {
        let kept: Vec<String> = mask.experts.iter().map(usize::to_string).collect();
        let kept = kept.join(" ");
        let mut text = format!(
            "{}: experts by layer {kept}; they carry {coverage:.3} of the gate mass\n",
            out.display()
        );
        for Summary { pass, layers, added, removed } in &passes {
            text += &format!("  {pass}: {added} in, {removed} out, in {layers} layers\n");
        }
        for guard in guards {
            let mean = guard.coverage.iter().sum::<f64>() / guard.coverage.len().max(1) as f64;
            let (name, least, target) = (&guard.name, guard.least, guard.target);
            text += &format!(
                "  guard {name}: {mean:.3} of its gate mass, {least:.3} at the least; {target} is wanted\n"
            );
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_a_path_and_a_share() {
        #[track_caller]
        fn check(text: &str, want: Option<(&str, f64)>) {
            let want = want.map(|(path, share)| GuardPath { path: path.into(), share });
            assert_eq!(text.parse().ok(), want);
        }
        check("tools.profile:0.9", Some(("tools.profile", 0.9)));
        check("C:/tools.profile:1", Some(("C:/tools.profile", 1.0)));
        for bad in ["tools.profile", ":0.9", "tools.profile:", "t:0", "t:1.1", "t:NaN", "t:-1"] {
            check(bad, None);
        }
    }
}
