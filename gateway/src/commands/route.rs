//! `collegium route`: the supervisor's decision and why; the model is opened, not run.

use std::fmt::Write;

use router_model::{Query, Supervisor};
use specialists::Registry;

use super::terminal::{Failure, result, text_of};
use crate::cli::{self, Cli};
use crate::decide::{Decided, Named, decide, serving};
use crate::start::{self, StartError, settings};

/// Alternatives worth a line.
const SHOWN: usize = 5;

/// Shows a decision.
pub fn run(cli: &Cli, args: &cli::Route) -> Result<(), Failure> {
    let text = text_of(&args.text)?;
    let (loaded, home) = settings(cli)?;
    let config = &loaded.config;
    let supervisor =
        Supervisor::configured(&loaded.domains, &config.supervisor).map_err(StartError::from)?;
    let model = start::model(config.parent.path.as_deref(), &home)?;
    let disabled = &config.specialists.disabled;
    let registry = Registry::open(&home, model.shape(), model.parent(), disabled);
    let (entries, _) = registry.read();
    let serving = serving(entries.values().map(|entry| &entry.manifest));
    let fallback = config.supervisor.fallback.as_deref();
    let word = || supervisor.decide(&Query::text(text));
    let decided = decide(Named::Auto, &loaded.domains, &serving, fallback, word);
    result(cli, &decided, show)
}

fn show(decided: &Decided) -> String {
    let word = &decided.word;
    let mut text = format!(
        "{} -> {}, {:.3}, by {}, {} µs\n",
        decided.domain(),
        decided.specialist,
        word.confidence,
        decided.rule(),
        word.micros
    );
    // Writing to a string cannot fail.
    for other in word.alternatives.iter().take(SHOWN) {
        let _ = writeln!(text, "  {:6.3}  {}", other.probability, other.domain);
    }
    for evidence in &word.evidence {
        let _ = writeln!(text, "  {:+6.2}  {:?}", evidence.weight, evidence.text);
    }
    text
}
