//! Trains weights from labelled text.
//!
//! In come files ([`Source`]) and the domains in use; out comes a [`Report`] with
//! the weights and how they fare on questions that were held out.  Same files,
//! same seed, same bytes.
//!
//! [`data`] reads files into items, each of one domain.  Questions that carry
//! their own label are split by what they are about (`groups.rs`): eight in ten
//! train, one finds the temperature, one measures.  Everything else trains.
//! Each epoch shows each item in another form (`views.rs`), since users neither
//! list options nor write like textbooks.  `fit.rs` is the regression.
//!
//! To read another kind of line, add it to `data.rs`; how much a kind of text
//! counts is in [`Kind::weight`](data::Kind::weight).

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use config::Domains;
use serde::Serialize;
use serde_json::json;

use crate::calibrate::{self, Guess, at_threshold};
use crate::evaluate::{self, Evaluation};
use crate::features::Features;
use crate::{Supervisor, TrainError, Weights};

mod books;
pub mod data;
mod fit;
mod groups;
mod views;

use data::{Item, Kind};
pub use groups::Part;

/// A file or folder to learn from, and its domain where the lines do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub domain: Option<String>,
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Source {
        Source { path, domain: None }
    }
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    /// `FILE` or `DOMAIN=FILE`.
    fn from_str(text: &str) -> Result<Source, Self::Err> {
        Ok(match text.split_once('=') {
            // A path may hold "=" too, but a domain never holds a "/".
            Some((domain, path)) if !domain.is_empty() && !domain.contains(['/', '\\', '.']) => {
                Source { path: path.into(), domain: Some(domain.into()) }
            }
            _ => PathBuf::from(text).into(),
        })
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub data: Vec<Source>,
    pub seed: u64,
    pub epochs: usize,
    /// Size of the table; each step doubles the file.
    pub buckets_log2: u32,
    /// Passages taken of each book, spread over it; more only repeats a style.
    pub per_book: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data: Vec::new(),
            seed: 1,
            epochs: 8,
            // 2^18 buckets of 14 labels are 3.9 MB, the most a binary should carry.
            buckets_log2: 18,
            per_book: 3_000,
        }
    }
}

/// What training made, and how it fares.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(skip)]
    pub weights: Weights,
    pub seed: u64,
    pub epochs: usize,
    pub seconds: f64,
    /// Training items by kind.
    pub items: Vec<(Kind, usize)>,
    pub temperature: f32,
    /// On the tenth that found the temperature; choose settings by this one.
    pub tune: Evaluation,
    /// On the held-out tenth, as it stands in the file and without its options.
    pub test: Evaluation,
    pub test_without_options: Evaluation,
    /// On held-out requests as people write them, where the data has some.
    pub test_said: Option<Evaluation>,
    /// (threshold, share of test questions decided, accuracy on those).
    pub thresholds: Vec<(f32, f64, f64)>,
}

/// Trains on all of `options.data` and on the domains' own examples.
///
/// `progress` is told (done, total, what) about once a second of work.
///
/// # Errors
///
/// [`TrainError`] with file and line for data that cannot be used; a label that
/// maps to no domain is such an error.
pub fn train(
    options: &Options,
    domains: &Domains,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Result<Report, TrainError> {
    let start = Instant::now();
    let mut items = data::read(&options.data, domains, options.per_book, progress)?;
    items.extend(data::examples(domains));
    let parts = groups::split(&items);
    let of = |part: Part, kinds: &[Kind]| -> Vec<&Item> {
        let all = items.iter().zip(&parts);
        all.filter(|(i, p)| **p == part && kinds.contains(&i.kind)).map(|(i, _)| i).collect()
    };
    let learn = of(Part::Train, Kind::ALL);
    let tune = of(Part::Tune, &[Kind::Question, Kind::Said]);
    let (test, said) = (of(Part::Test, &[Kind::Question]), of(Part::Test, &[Kind::Said]));
    // Data of short requests alone is measured on short requests.
    let test = if test.is_empty() { said.clone() } else { test };
    if tune.is_empty() || test.is_empty() {
        return Err(TrainError::NothingHeldOut { what: "calibration and measurement" });
    }
    let mut labels: Vec<String> = learn.iter().map(|item| item.domain.clone()).collect();
    labels.sort_unstable();
    labels.dedup();
    if labels.len() < 2 {
        return Err(TrainError::OneLabel { labels: labels.len() });
    }

    let fitted = fit::fit(&learn, &labels, options, progress);
    let mut weights = Weights::quantise(labels, &fitted.weights, fitted.rarity, fitted.bias)?;
    let temperature = calibrate::temperature(&held_out(&weights, &tune));
    weights.describe(temperature, serde_json::Value::Null);

    // Thresholds are judged without one: every question gets its best guess.
    let judge = Supervisor::new(weights.clone(), &Domains::default(), 0.0)?;
    let plain = evaluate::Options { seed: options.seed, ..evaluate::Options::default() };
    let tuned = evaluate::evaluate(&judge, &tune, &plain)?;
    let measured = evaluate::evaluate(&judge, &test, &plain)?;
    let bare = evaluate::Options { without_options: true, ..plain };
    let without = evaluate::evaluate(&judge, &test, &bare)?;
    let said = (!said.is_empty()).then(|| evaluate::evaluate(&judge, &said, &plain)).transpose()?;
    let guesses: Vec<Guess> = evaluate::guesses(&judge, &test, &plain);
    let steps = (0..20).map(|step| step as f32 / 20.0);
    let thresholds = steps.map(|t| {
        let (share, accuracy) = at_threshold(&guesses, t);
        (t, share, accuracy)
    });
    let thresholds = thresholds.collect();

    let count = |kind: Kind| (kind, learn.iter().filter(|item| item.kind == kind).count());
    let counts: Vec<(Kind, usize)> = Kind::ALL.iter().map(|kind| count(*kind)).collect();
    weights.describe(
        temperature,
        json!({
            "seed": options.seed,
            "epochs": options.epochs,
            "items": counts,
            "test": { "n": measured.n, "accuracy": measured.accuracy, "ece": measured.ece },
        }),
    );
    Ok(Report {
        weights,
        seed: options.seed,
        epochs: options.epochs,
        seconds: start.elapsed().as_secs_f64(),
        items: counts,
        temperature,
        tune: tuned,
        test: measured,
        test_without_options: without,
        test_said: said,
        thresholds,
    })
}

/// The part of each item, in order, as [`train`] splits them; the encoder's recipe
/// asks, so that both stages are held back the same questions.
pub fn parts(items: &[Item]) -> Vec<Part> {
    groups::split(items)
}

/// The items that [`train`] would measure on; the same files give the same ones.
pub fn held_out_items(items: &[Item]) -> Vec<&Item> {
    let parts = groups::split(items);
    items.iter().zip(parts).filter(|(_, p)| *p == Part::Test).map(|(item, _)| item).collect()
}

/// Logits and truth of items, with and without options: one temperature has to
/// serve both forms.
fn held_out(weights: &Weights, items: &[&Item]) -> Vec<(Vec<f32>, usize)> {
    let header = weights.header();
    let mut pairs = Vec::new();
    for item in items {
        let Some(truth) = header.labels.iter().position(|label| *label == item.domain) else {
            continue;
        };
        for text in [item.whole(), item.text.clone()] {
            pairs.push((weights.logits(&Features::new(&text, header.buckets)), truth));
        }
    }
    pairs
}

#[cfg(test)]
mod tests;
