//! `collegium route`: the decision and why; the model is opened, not run.
//!
//! Nothing is remembered here: a conversation is decided on from its own turns.

use std::fmt::Write;
use std::time::Instant;

use router_model::Decision;
use specialists::Registry;

use super::terminal::{Failure, result, text_of};
use crate::ask::{Ask, Input};
use crate::cli::{self, Cli};
use crate::conversation::{CODE, Facts, Kind, Reading, follow};
use crate::decide::{Decided, decide, named, serving};
use crate::start::{self, settings};
use crate::wire;

/// Alternatives worth a line.
const SHOWN: usize = 5;

/// Shows a decision.
pub fn run(cli: &Cli, args: &cli::Route) -> Result<(), Failure> {
    let text = text_of(&args.text)?;
    let ask = match args.body {
        true => wire::route(text.as_bytes())?,
        false => Ask::text(crate::ask::AUTO, &text),
    };
    let (loaded, home) = settings(cli)?;
    let config = &loaded.config;
    let supervisor = start::supervisor(&home, &loaded.domains, &config.supervisor)?;
    let model = start::model(config.parent.path.as_deref(), &home)?;
    let disabled = &config.specialists.disabled;
    let registry = Registry::open(&home, model.shape(), model.parent(), disabled);
    let (entries, _) = registry.read();
    let serving = serving(entries.values().map(|entry| &entry.manifest));
    let fallback = config.supervisor.fallback.as_deref();
    let reading = match &ask.input {
        Input::Chat(turns) => Reading::chat(turns, &ask.context),
        Input::Text(text) => Reading::raw(text, &ask.context),
        Input::Tokens(ids) => Reading::raw(&model.tokenizer().decode(ids), &ask.context),
    };
    let domains = &loaded.domains;
    let enabled = |id: &str| domains.get(id).is_some_and(|domain| domain.enabled);
    let facts = Facts {
        judge: &|query| supervisor.decide(query),
        threshold: supervisor.threshold(),
        enabled: &enabled,
        code: domains.canonical(CODE).filter(|id| enabled(id)),
        rules: &config.conversations,
        // Nothing is in memory, and nothing is loaded.
        load: &|_, _| Some(0),
    };
    let mut weighed = None;
    let word = || {
        let begun = Instant::now();
        let all = follow(&reading, None, &facts);
        weighed = all.weighed;
        let micros = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        Decision { micros, ..all.word }
    };
    let named = named(&ask.model, domains, &serving)?;
    let mut decided = decide(named, domains, &serving, fallback, word);
    decided.conversation = weighed;
    if let Kind::Chore(chore) = reading.kind {
        decided.background = Some(chore.name());
    }
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
    if let Some(kind) = decided.background {
        let _ = writeln!(text, "  a client's own call: {kind}");
    }
    if let Some(weighed) = &decided.conversation {
        let at = weighed.at.as_deref().unwrap_or("the generalist");
        let (gain, needed) = (weighed.gain, weighed.needed);
        let _ = writeln!(text, "  it was with {at}; a move gains {gain:.3} and needs {needed:.3}");
    }
    for other in word.alternatives.iter().take(SHOWN) {
        let _ = writeln!(text, "  {:6.3}  {}", other.probability, other.domain);
    }
    for evidence in &word.evidence {
        let _ = writeln!(text, "  {:+6.2}  {:?}", evidence.weight, evidence.text);
    }
    text
}
