//! What is made of what was measured: cells of the document, and what they are named by.  Pure.

use engine::hash;

use super::document::{self, Evaluation, Heading, Measure, TextCell};
use super::statistics::Ratio;
use super::text::Sums;
use super::transfer;
use crate::tokens::Window;

/// Near and far by every measure that tells something.
pub(super) fn transfers(all: &Evaluation) -> Vec<document::Transfer> {
    let mut found = Vec::new();
    let mut add = |measure, columns: &[Heading], worth: transfer::Worth| {
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        found.extend(transfer::transfer(measure, &all.subjects, &names, &worth, &all.usage));
    };
    if let Some(questions) = all.questions.as_ref().filter(|_| all.by_accuracy()) {
        add(Measure::Accuracy, &questions.columns, questions.worth());
    }
    if let Some(text) = &all.text {
        let of = |cell: &Option<TextCell>| Some(cell.as_ref()?.ratio);
        let worth = text.cells.iter().map(|row| row.iter().map(of).collect()).collect();
        add(Measure::Likelihood, &text.columns, worth);
    }
    found
}

/// One subject beside the parent, on the same stretches.
pub(super) fn cell(parent: &Sums, own: &Sums, seed: u64) -> Option<TextCell> {
    let tokens: Vec<f64> = own.tokens.iter().map(|n| *n as f64).collect();
    let over = |of: &[f64]| Ratio::new(of, &tokens, seed);
    let cost: Vec<f64> = own.nats.iter().zip(&parent.nats).map(|(a, b)| a - b).collect();
    let agree: Vec<f64> = own.agree.iter().map(|n| *n as f64).collect();
    let cost = over(&cost)?;
    Some(TextCell {
        nats: over(&own.nats)?.estimate(),
        ratio: cost.map(|nats| (-nats).exp()),
        cost: cost.estimate(),
        agreement: over(&agree)?.estimate(),
        kl: over(&own.kl)?.estimate(),
    })
}

/// Of the token ids, and where prompts end.
pub(super) fn digest(windows: &[Window]) -> String {
    let mut bytes = Vec::new();
    for window in windows {
        bytes.extend((window.tokens.len() as u64).to_le_bytes());
        bytes.extend((window.prompt as u64).to_le_bytes());
        bytes.extend(window.tokens.iter().flat_map(|id| id.to_le_bytes()));
    }
    hash::hex(&bytes)
}
