//! `surgery mask`: which experts stay.

use std::path::Path;
use std::str::FromStr;

use engine::{Profile, hash};
use serde_json::json;
use surgery::mask::{
    Beside, Made, MaskError, Order, Request, Score, Target, Warning, Whitelist, make,
};

use super::{Bench, asked, failed, failed_at, writable};
use crate::cli::surgery::mask::{MaskArgs, Runtime};
use crate::cli::{Cli, ParentPath};
use crate::commands::terminal::{Failure, result};

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
    let whitelist = args.whitelist.as_deref().map(Whitelist::from_str).transpose();
    let whitelist = whitelist.map_err(|e| Failure::usage(e).at("whitelist"))?;
    let inputs = args.guard.iter().map(|guard| guard.path.as_path());
    let inputs = inputs.chain(args.reasoning.as_deref()).chain([args.profile.as_path()]);
    writable(&args.out, &inputs.collect::<Vec<_>>())?;
    let read = |path: &Path, flag| Profile::read(path).map_err(failed("profile", flag));
    let profile = read(&args.profile, "profile")?;
    let sha256 = hash::file(&args.profile).map_err(failed("io", "profile"))?;
    let other = |path: &Path, flag| -> Result<(Profile, String), Failure> {
        Ok((read(path, flag)?, hash::file(path).map_err(failed("io", flag))?))
    };
    let reasoning = args.reasoning.as_deref().map(|path| other(path, "reasoning")).transpose()?;
    let reasoning = reasoning.as_ref().map(|(profile, sha256)| Beside { profile, sha256 });
    let guards = args.guard.iter().map(|guard| Ok((other(&guard.path, "guard")?, guard.share)));
    let guards = guards.collect::<Result<Vec<_>, Failure>>()?;
    let guards: Vec<(Beside, f64)> = guards
        .iter()
        .map(|((profile, sha256), share)| (Beside { profile, sha256 }, *share))
        .collect();
    let routed = args.parent.as_ref().map(|parent| routed(cli, parent, &profile)).transpose()?;
    let score = match asked(args.score.as_deref())? {
        Some(score) => score,
        None => {
            let guards = guards.iter().map(|(guard, _)| guard.profile);
            let others = guards.chain(reasoning.map(|beside| beside.profile));
            Score::best([&profile].into_iter().chain(others))
        }
    };
    let order = Order {
        fused: args.runtime == Runtime::LlamaCpp,
        whitelist,
        reasoning: reasoning.map(|profile| (profile, args.swaps)),
        guards: &guards,
        floor: Some(args.floor),
        routed: routed.as_deref(),
        masking: args.masking.into(),
        force: args.force,
        ..Order::plain(score, Request { target, uniform: !args.per_layer })
    };
    let field = |error| {
        let flag = flag(&error, args);
        failed("mask", flag)(error)
    };
    let made = make(&profile, &sha256, &order).map_err(field)?;
    let text = made.file.to_json().map_err(failed("mask", "out"))?;
    engine::file::replace(&args.out, text.as_bytes()).map_err(failed_at("io", "out", &args.out))?;
    for warning in &made.warnings {
        tracing::warn!("{warning}");
    }
    show(cli, &args.out, &made, &hash::hex(text.as_bytes()))
}

/// The flag that an error is about.
fn flag(error: &MaskError, args: &MaskArgs) -> &'static str {
    let target = if args.coverage.is_some() { "coverage" } else { "keep" };
    match error {
        MaskError::Keep { .. } | MaskError::TooMany { .. } | MaskError::BelowTopK { .. } => target,
        // A share of the target is asked for before one of the floor.
        MaskError::Share { share } if *share == args.floor && args.coverage.is_none() => "floor",
        MaskError::Share { .. } => target,
        MaskError::NoRanks { .. }
        | MaskError::NoGates { .. }
        | MaskError::NoNorms { .. }
        | MaskError::StandIn { .. }
        | MaskError::SomeNorms { .. } => "score",
        MaskError::Renormalises { .. } => "masking",
        MaskError::FewTokens { .. } => "force",
        MaskError::In { profile, .. } if profile == "reasoning" => "reasoning",
        MaskError::In { .. } => "guard",
        _ => "profile",
    }
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
        "sources": mask.sources, "masking": mask.masking,
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
