//! Which items train, which find the temperature, which measure.
//!
//! Questions about one passage, and questions that are one question with other
//! numbers, must land on one side: else the test asks what was taught.  Two
//! questions belong together if they share a run of words that few others have.
//! A group's side is drawn by a hash of its own text, so it stays where it is
//! when other data comes or goes.

use std::collections::HashMap;

use serde::Serialize;

use crate::features::hash;
use crate::item::{Item, Kind};
use crate::text::Normal;

/// What an item is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    Train,
    /// Finds the temperature.
    Tune,
    /// Measures, and is looked at last.
    Test,
}

/// Words in a row that two near copies share.
const RUN: usize = 8;

/// Seed of their hashes: the split depends on it.
const RUNS: u64 = 0x5851_F42D_4C95_7F2D;

/// A run that more questions have is a phrase of examiners, not a copy.
const COMMON: usize = 12;

/// The part of each item, in order.
pub(crate) fn split(items: &[Item]) -> Vec<Part> {
    let held = |item: &Item| {
        item.own_label && matches!(item.kind, Kind::Question | Kind::Said | Kind::Aside)
    };
    let asked: Vec<usize> = (0..items.len()).filter(|at| held(&items[*at])).collect();
    let runs: Vec<Vec<u64>> = asked.iter().map(|at| runs(&items[*at].text)).collect();
    let mut parents: Vec<usize> = (0..asked.len()).collect();
    for owners in owners(&runs).into_values().filter(|o| (2..=COMMON).contains(&o.len())) {
        for pair in owners.windows(2) {
            let (a, b) = (root(&mut parents, pair[0]), root(&mut parents, pair[1]));
            parents[a.max(b)] = a.min(b);
        }
    }
    // The smallest hash of a text names its group, whatever the order of files.
    let mut names: HashMap<usize, u64> = HashMap::new();
    for (at, item) in asked.iter().enumerate() {
        let own = hash(RUNS, items[*item].text.as_bytes());
        let name = names.entry(root(&mut parents, at)).or_insert(own);
        *name = own.min(*name);
    }
    let mut parts = vec![Part::Train; items.len()];
    let mut by_question: HashMap<i64, Part> = HashMap::new();
    for (at, item) in asked.iter().enumerate() {
        let part = part(names[&root(&mut parents, at)]);
        parts[*item] = part;
        if let Some(question) = items[*item].question {
            by_question.insert(question, part);
        }
    }
    // An answer tells of its question.
    for (item, part) in items.iter().zip(&mut parts) {
        if let (Kind::Answer, Some(question)) = (item.kind, item.question) {
            *part = by_question.get(&question).copied().unwrap_or(Part::Train);
        }
    }
    parts
}

fn part(name: u64) -> Part {
    match name % 10 {
        0 => Part::Tune,
        1 => Part::Test,
        _ => Part::Train,
    }
}

/// Hashes of all runs of words; the whole text where it is shorter than one.
fn runs(text: &str) -> Vec<u64> {
    let normal = Normal::new(text);
    let words: Vec<&str> =
        normal.tokens.iter().filter(|t| t.word).map(|token| normal.get(token)).collect();
    let name = |run: &[&str]| hash(RUNS, run.join(" ").as_bytes());
    let mut all: Vec<u64> = words.windows(RUN.min(words.len()).max(1)).map(name).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn owners(runs: &[Vec<u64>]) -> HashMap<u64, Vec<usize>> {
    let mut owners: HashMap<u64, Vec<usize>> = HashMap::new();
    for (at, runs) in runs.iter().enumerate() {
        for run in runs {
            owners.entry(*run).or_default().push(at);
        }
    }
    owners
}

fn root(parents: &mut [usize], at: usize) -> usize {
    let mut root = at;
    while parents[root] != root {
        parents[root] = parents[parents[root]];
        root = parents[root];
    }
    root
}
