//! `collegium supervisor lint`: what a domain's file would do, before it is enabled.

use std::fmt::Write;

use config::Domains;
use router_model::Weights;
use router_model::lint::{HeldOut, Level, Lint, lint};

use crate::cli::Cli;
use crate::cli::supervisor::lint::LintArgs;
use crate::commands::supervisor::weights_in_use;
use crate::commands::terminal::{Failure, result};
use crate::start::{StartError, settings};

/// Confusions that are shown on a terminal; `--json` has all.
const SHOWN: usize = 8;

/// Width of the longest bar.
const BAR: usize = 24;

/// Looks at one file.
pub fn run(cli: &Cli, args: &LintArgs) -> Result<(), Failure> {
    // The file first: it may be the one that keeps the settings from loading.
    let own = config::domain_at(&args.domain).map_err(StartError::from)?;
    let id = own.id.clone();
    let (loaded, _) = settings(cli)?;
    let others = loaded.domains.iter().filter(|domain| domain.id != id).cloned();
    let domains = Domains::new(others.chain([own]).collect()).map_err(StartError::from)?;
    let weights: Weights = weights_in_use(cli, args.weights.as_deref())?;
    let threshold = loaded.config.supervisor.threshold;
    let lint = lint(&id, &domains, &weights, threshold).map_err(StartError::from)?;
    result(cli, &lint, show)?;
    match lint.findings.iter().find(|finding| finding.level == Level::Error) {
        Some(finding) => {
            let why = format!("{}: {}", args.domain.display(), finding.message);
            Err(Failure::new("refused", why).at("domain"))
        }
        None => Ok(()),
    }
}

fn show(lint: &Lint) -> String {
    let Lint { domain, examples, .. } = lint;
    let verdict = match (lint.refused, lint.findings.is_empty()) {
        (true, _) => "refused",
        (false, true) => "fine",
        (false, false) => "usable",
    };
    let mut text = format!("{domain}: {examples} examples, {verdict}\n");
    // Writing to a string cannot fail.
    if lint.trained {
        text += "The weights know this domain: its examples teach nothing, and figures below flatter.\n";
    } else if !lint.refused {
        let _ = writeln!(text, "fitted in {:.0} ms", lint.fit_ms);
    }
    if let Some(held) = &lint.held_out {
        show_held(&mut text, domain, held);
    }
    if !lint.findings.is_empty() {
        text += "\nfindings\n";
    }
    for finding in &lint.findings {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let _ = writeln!(text, "  {level}: {}", finding.message);
    }
    if !lint.suggestions.is_empty() {
        text += "\nwhat to do\n";
    }
    for suggestion in &lint.suggestions {
        let _ = writeln!(text, "  - {suggestion}");
    }
    text
}

fn show_held(text: &mut String, domain: &str, held: &HeldOut) {
    let HeldOut { folds, n, right, abstained, .. } = held;
    let _ = writeln!(
        text,
        "\nheld out in {folds} folds: {right} of {n} come back, {abstained} are left in doubt\n"
    );
    let wide = held.guesses.iter().map(|g| g.domain.len()).max().unwrap_or(0);
    for guess in &held.guesses {
        let bar = "#".repeat((guess.n * BAR).div_ceil((*n).max(1)));
        let mark = if guess.domain == domain { "" } else { "  <- confused" };
        let _ = writeln!(text, "  {:wide$}  {:>4}  {bar}{mark}", guess.domain, guess.n);
    }
    for taken in &held.takes {
        let (domain, n, of) = (&taken.domain, taken.n, taken.of);
        let _ = writeln!(text, "  takes {n} of {of} examples from {domain}");
    }
    for confused in held.confused.iter().take(SHOWN) {
        let (guess, p, own) = (&confused.guess, confused.probability, confused.own);
        let _ =
            writeln!(text, "\n  {:?}\n    -> {guess} {p:.2} (itself {own:.2})", confused.example);
        if let Some(near) = &confused.nearest {
            let _ = writeln!(text, "    nearest there: {:?} ({:.2})", near.example, near.likeness);
        }
        if !confused.words.is_empty() {
            let _ = writeln!(text, "    by: {}", confused.words.join(", "));
        }
    }
    let more = held.confused.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ = writeln!(text, "\n  and {more} more; --json has all");
    }
}
