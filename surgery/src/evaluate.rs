//! What a mask costs: held-out text through the parent, its specialists, and
//! random masks of the same size.
//!
//! In: a parent, masks, and corpora that nothing was made from.  Out: a
//! [`Table`] of nats per token, subjects down, domains across.  Of a
//! conversation only the last answer is scored, since that is what a specialist
//! is for; of a text, every token but the first.
//!
//! The random masks are the control: a score that does not beat them has found
//! nothing.

use std::fmt::Write;
use std::io;

use engine::{ExpertMask, MaskError, MaskFile, MaskFileError, Model};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::mask::random;
use crate::tokens::{self, Reading, TokensError, Window};
use crate::{Parent, Progress};

/// Texts of one domain, ready to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    pub windows: Vec<Window>,
}

/// How the controls are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Controls {
    /// Random masks for each size of mask.
    pub draws: u32,
    pub seed: u64,
}

/// Nats per token by subject and domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// SHA-256 of the parent's file.
    pub parent: String,
    pub columns: Vec<Heading>,
    /// The parent, then the masks as given, then the controls.
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    pub name: String,
    /// Tokens scored.
    pub tokens: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    /// Mean negative log-likelihood of a token, by column; of the controls, the
    /// mean over the draws.
    pub nats: Vec<f64>,
    /// Of each random mask, by draw and column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draws: Vec<Vec<f64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Parent,
    Mask,
    Random,
}

#[derive(Debug, Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    Mask(#[from] MaskFileError),
    #[error(transparent)]
    Kept(#[from] MaskError),
    #[error("no memory for the keys and values of one window: {0}; free some")]
    Memory(#[from] io::Error),
    #[error("{name}: no token to score; the items are too short, or have no answer")]
    NoTokens { name: String },
}

/// The texts of a corpus: a column for each label in it, or one named after the
/// file.
///
/// # Errors
///
/// [`TokensError`] with the bad line.
pub fn columns(model: &Model, reading: Reading) -> Result<Vec<Column>, TokensError> {
    let labels = reading.labels()?;
    if labels.is_empty() {
        let windows = tokens::collect(model, reading)?;
        return Ok(vec![Column { name: reading.corpus.name(), windows }]);
    }
    let column = |name: String| {
        let windows = tokens::collect(model, Reading { domain: Some(&name), ..reading })?;
        Ok(Column { name, windows })
    };
    labels.into_iter().map(column).collect()
}

/// Measures parent, masks and controls on every column.
///
/// # Errors
///
/// [`EvaluateError`] when a mask is not of this parent, or a column has nothing
/// to score.
pub fn evaluate(
    parent: &Parent,
    masks: &[MaskFile],
    columns: &[Column],
    controls: Controls,
    progress: Progress,
) -> Result<Table, EvaluateError> {
    let (shape, own) = (parent.model.shape(), parent.model.parent());
    let specialists: Vec<ExpertMask> =
        masks.iter().map(|file| file.mask(shape, &own)).collect::<Result<_, _>>()?;
    let sizes = distinct_sizes(masks);
    let runs = 1 + masks.len() + sizes.len() * controls.draws as usize;
    let total: u64 = columns.iter().map(scored).sum::<u64>() * runs as u64;
    let mut done = 0;
    let mut run = |name: &str, mask: Option<&ExpertMask>| -> Result<Vec<f64>, EvaluateError> {
        let mut each = |column: &Column| {
            let mut step = |tokens| {
                done += tokens;
                progress(done, total, name);
            };
            nats(parent, mask, column, &mut step)
        };
        columns.iter().map(&mut each).collect()
    };
    let row = |name: &str, kind, nats| Row { name: name.to_owned(), kind, nats, draws: Vec::new() };
    let mut rows = vec![row("parent", Kind::Parent, run("parent", None)?)];
    for (file, mask) in masks.iter().zip(&specialists) {
        rows.push(row(&file.domain, Kind::Mask, run(&file.domain, Some(mask))?));
    }
    for (name, kept) in &sizes {
        let draw = |n: u32| {
            let kept = random(kept, shape.experts as u32, controls.seed.wrapping_add(n.into()));
            run(name, Some(&ExpertMask::from_kept(shape, &kept)?))
        };
        let draws: Vec<Vec<f64>> = (0..controls.draws).map(draw).collect::<Result<_, _>>()?;
        if !draws.is_empty() {
            let mean = |at: usize| draws.iter().map(|d| d[at]).sum::<f64>() / draws.len() as f64;
            let nats = (0..columns.len()).map(mean).collect();
            rows.push(Row { name: name.clone(), kind: Kind::Random, nats, draws });
        }
    }
    let heading = |column: &Column| Heading { name: column.name.clone(), tokens: scored(column) };
    Ok(Table { parent: own, columns: columns.iter().map(heading).collect(), rows })
}

/// Masks that keep the same numbers share their controls.
fn distinct_sizes(masks: &[MaskFile]) -> Vec<(String, &[Vec<u32>])> {
    let sizes = |kept: &[Vec<u32>]| kept.iter().map(Vec::len).collect::<Vec<_>>();
    let mut distinct: Vec<(String, &[Vec<u32>])> = Vec::new();
    for file in masks {
        let own = sizes(&file.kept);
        if !distinct.iter().any(|(_, kept)| sizes(kept) == own) {
            let uniform = own.iter().all(|n| Some(n) == own.first());
            let size = if uniform { own[0].to_string() } else { format!("as {}", file.domain) };
            distinct.push((format!("random {size}"), &file.kept));
        }
    }
    distinct
}

/// Index of the first token that is scored; there is nothing to predict the
/// very first from.
fn first_scored(window: &Window) -> usize {
    window.prompt.max(1)
}

fn scored(column: &Column) -> u64 {
    let count = |w: &Window| w.tokens.len().saturating_sub(first_scored(w)) as u64;
    column.windows.iter().map(count).sum()
}

/// Mean nats per scored token of a column.
fn nats(
    parent: &Parent,
    mask: Option<&ExpertMask>,
    column: &Column,
    step: &mut dyn FnMut(u64),
) -> Result<f64, EvaluateError> {
    let (mut sum, mut count) = (0.0, 0u64);
    for window in &column.windows {
        let (tokens, first) = (&window.tokens, first_scored(window));
        if tokens.len() <= first {
            continue;
        }
        parent.read(window, mask, None, |at, logits| {
            if let Some(next) = tokens.get(at + 1).filter(|_| at + 1 >= first) {
                sum += surprise(logits, *next);
                count += 1;
            }
        })?;
        step((tokens.len() - first) as u64);
    }
    match count {
        0 => Err(EvaluateError::NoTokens { name: column.name.clone() }),
        _ => Ok(sum / count as f64),
    }
}

/// Negative log of the probability that the logits give to `id`, nats.
fn surprise(logits: &[f32], id: u32) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|v| f64::from((v - most).exp())).sum();
    let own = logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    f64::from(most) + sum.ln() - f64::from(own)
}

impl Table {
    /// Perplexities, as a Markdown table.
    pub fn to_markdown(&self) -> String {
        let mut text = "| perplexity |".to_owned();
        for column in &self.columns {
            let _ = write!(text, " {} |", column.name);
        }
        text += "\n| --- |";
        text += &" ---: |".repeat(self.columns.len());
        for row in &self.rows {
            let draws = match row.draws.len() {
                0 | 1 => String::new(),
                n => format!(" (mean of {n})"),
            };
            let _ = write!(text, "\n| {}{draws} |", row.name);
            for nats in &row.nats {
                let _ = write!(text, " {:.2} |", nats.exp());
            }
        }
        text + "\n"
    }

    /// The rows of one kind.
    pub fn rows(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_is_in_nats() {
        #[track_caller]
        fn check(logits: &[f32], id: u32, want: f64) {
            let got = surprise(logits, id);
            assert!((got - want).abs() < 1e-6, "{got}");
        }
        check(&[0.0, 0.0], 0, 2f64.ln());
        check(&[1.0, 0.0], 0, (1.0 + (-1f64).exp()).ln());
        check(&[1.0, 0.0], 1, 1.0 + (1.0 + (-1f64).exp()).ln());
        // Large logits do not overflow.
        check(&[1e4, 1e4 - 1.0], 1, 1.0 + (1.0 + (-1f64).exp()).ln());
    }

    #[test]
    fn what_is_scored() {
        #[track_caller]
        fn check(tokens: usize, prompt: usize, want: u64) {
            let windows = vec![Window { tokens: vec![0; tokens], prompt }];
            assert_eq!(scored(&Column { name: String::new(), windows }), want);
        }
        // Of a text all but the first; of a conversation the answer.
        check(5, 0, 4);
        check(5, 3, 2);
        check(5, 5, 0);
        check(1, 0, 0);
        check(0, 0, 0);
    }

    #[test]
    fn a_table_reads_as_perplexities() {
        let row = |name: &str, kind, nats: &[f64], draws: usize| Row {
            name: name.to_owned(),
            kind,
            nats: nats.to_vec(),
            draws: vec![nats.to_vec(); draws],
        };
        let heading = |name: &str| Heading { name: name.to_owned(), tokens: 10 };
        let table = Table {
            parent: "p".to_owned(),
            columns: vec![heading("law"), heading("math")],
            rows: vec![
                row("parent", Kind::Parent, &[0.0, 1.0], 0),
                row("random 16", Kind::Random, &[1.0, 2.0], 3),
            ],
        };
        let want = "| perplexity | law | math |\n| --- | ---: | ---: |\n| parent | 1.00 | 2.72 |\n\
                    | random 16 (mean of 3) | 2.72 | 7.39 |\n";
        assert_eq!(table.to_markdown(), want);
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
    }
}
