//! Asks a supervisor, and keeps of each answer what the curves need.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Asked;
use crate::file;
use crate::item::Item;
use crate::{Decision, Query, Supervisor, TrainError};

/// A text that belongs to no domain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Strange {
    #[serde(alias = "question", alias = "prompt")]
    pub text: String,
    /// What sort of text it is; figures are given for each.
    #[serde(default = "unnamed")]
    pub kind: String,
}

fn unnamed() -> String {
    "unnamed".to_owned()
}

/// Reads lines of `{"text", "kind"?}` (or `"question"`, or `"prompt"`), or of plain text.
///
/// # Errors
///
/// [`TrainError`] with the file, the line and what was expected.
pub fn strange(path: &Path) -> Result<Vec<Strange>, TrainError> {
    let fail = |source| TrainError::Read { path: path.to_owned(), source };
    // Bytes that are no text are what such a list is made of.
    let text = file::text(path).map_err(fail)?;
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // A line may be plain, too, and begin as it likes.
        let fields = serde_json::from_str::<Value>(line).unwrap_or_default();
        if !fields.is_object() {
            all.push(Strange { text: line.to_owned(), kind: unnamed() });
            continue;
        }
        all.push(serde_json::from_value(fields).map_err(|error| TrainError::Line {
            path: path.to_owned(),
            line: index + 1,
            why: format!("{error}; a line is {{\"text\": …, \"kind\": …}}, or plain text"),
        })?);
    }
    if all.is_empty() {
        return Err(TrainError::Empty { path: path.to_owned() });
    }
    Ok(all)
}

pub(super) fn items(
    sup: &Supervisor,
    items: &[&Item],
    without_options: bool,
    routed: &dyn Fn(&str) -> bool,
) -> Vec<Asked> {
    let one = |item: &&Item| {
        let text = if without_options { item.text.clone() } else { item.whole() };
        asked(&item.domain, sup.decide(&Query::text(text)), routed)
    };
    items.iter().map(one).collect()
}

pub(super) fn strangers(
    sup: &Supervisor,
    strange: &[Strange],
    routed: &dyn Fn(&str) -> bool,
) -> Vec<Asked> {
    let one = |s: &Strange| asked(&s.kind, sup.decide(&Query::text(s.text.clone())), routed);
    strange.iter().map(one).collect()
}

fn asked(truth: &str, decision: Decision, routed: &dyn Fn(&str) -> bool) -> Asked {
    let oddness = 1.0 - decision.belonging(routed);
    let best = decision.alternatives.into_iter().next();
    Asked {
        truth: truth.to_owned(),
        guess: best.map(|best| best.domain).unwrap_or_default(),
        confidence: decision.confidence,
        abstained: decision.abstained,
        oddness,
        micros: decision.micros,
    }
}
