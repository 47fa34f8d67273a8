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

use crate::calibrate::{self, Guess, Heat, HeldOut, Said, at_threshold};
use crate::evaluate::{self, Evaluation};
use crate::features::Features;
use crate::{Supervisor, TrainError, Weights};

mod books;
mod contradictions;
pub mod data;
mod fit;
mod groups;
mod noise;
mod views;

use crate::features::knob;
use data::{Item, Kind};
use groups::Part;

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
    /// N-grams that get weights; each is a byte for every label and three more.
    pub buckets: usize,
    /// Passages taken of each book, spread over it; more only repeats a style.
    pub per_book: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data: Vec::new(),
            seed: 1,
            epochs: 8,
            // Of 14 labels 3.99 MB, the most a binary should carry.
            buckets: 234_900,
            per_book: 3_000,
        }
    }
}

/// How often the conformal set is to hold the truth.
const COVERAGE: f32 = 0.9;

/// Share of held-out questions that may be taken for something never seen.
const STRANGE: f32 = 0.01;

/// What training made, and how it fares.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(skip)]
    pub weights: Weights,
    /// Texts with two labels, each with its places; none of them trained.
    pub contradictions: Vec<String>,
    pub seed: u64,
    pub epochs: usize,
    pub seconds: f64,
    /// Training items by kind.
    pub items: Vec<(Kind, usize)>,
    pub heat: Heat,
    /// On the tenth that found the temperature; choose settings by this one.
    pub tune: Evaluation,
    /// On the held-out tenth, as it stands in the file and without its options.
    pub test: Evaluation,
    pub test_without_options: Evaluation,
    /// On held-out requests as people write them, where the data has some.
    pub test_said: Option<Evaluation>,
    /// Of telling the test's questions from held-out texts of no domain.
    pub ood_auc: Option<f64>,
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
    let read = data::read_placed(&options.data, domains, options.per_book, progress)?;
    let (mut items, contradictions) = contradictions::remove(read);
    one_class(&items)?;
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
    let strange = of(Part::Test, &[Kind::Aside]);
    let test = if test.is_empty() { said.clone() } else { test };
    if tune.is_empty() || test.is_empty() {
        return Err(TrainError::NothingHeldOut { what: "calibration and measurement" });
    }
    let labelled = learn.iter().filter(|item| item.kind != Kind::Aside);
    let mut labels: Vec<String> = labelled.map(|item| item.domain.clone()).collect();
    labels.sort_unstable();
    labels.dedup();
    let fitted = fit::fit(&learn, &labels, options, progress);
    let mut weights = Weights::quantise(labels, &fitted.weights, fitted.vocabulary, fitted.bias)?;
    calibrate(&mut weights, &tune, options.seed);
    let heat = weights.header().heat;

    // Thresholds are judged without one: every question gets its best guess.
    let judge = Supervisor::new(weights.clone(), &Domains::default(), 0.0)?;
    let plain = evaluate::Options { seed: options.seed, ..evaluate::Options::default() };
    let tuned = evaluate::evaluate(&judge, &tune, &plain)?;
    let bare0 = evaluate::Options { without_options: true, ..plain };
    let ty = evaluate::Options { typos: 0.2, ..bare0 };
    let qs = of(Part::Tune, &[Kind::Question]);
    let sd = of(Part::Tune, &[Kind::Said]);
    let f = |e: Evaluation| format!("{:.4}/{:.4}/{:.3}", e.accuracy, e.accuracy_at_90, e.ece);
    eprintln!(
        "\nDEV rot {} n {} T {heat:?} alone {} typos {} whole {} said {}",
        knob("ROT", 0.0),
        qs.len(),
        f(evaluate::evaluate(&judge, &qs, &bare0)?),
        f(evaluate::evaluate(&judge, &qs, &ty)?),
        f(evaluate::evaluate(&judge, &qs, &plain)?),
        f(evaluate::evaluate(&judge, &sd, &plain)?)
    );
    let od: Vec<&Item> = qs
        .iter()
        .chain(&of(Part::Tune, &[Kind::Aside]))
        .chain(&of(Part::Test, &[Kind::Aside]))
        .copied()
        .collect();
    let e = evaluate::evaluate(&judge, &od, &bare0)?;
    let header = weights.header();
    let j5 = Supervisor::new(weights.clone(), domains, 0.5)?;
    let e5 = evaluate::evaluate(&j5, &od, &bare0)?;
    let es = evaluate::evaluate(&j5, &sd, &bare0)?;
    eprintln!(
        "ood auc {:?} set_from {} familiar_from {} abst {:.3} dec {:.3} oodabst {:?} said abst {:.3}",
        e.ood_auc,
        header.set_from,
        header.familiar_from,
        e5.abstained,
        e5.accuracy_decided,
        e5.ood_abstained,
        es.abstained
    );
    if knob("FAST", 0.0) > 0.0 {
        std::process::exit(0);
    }
    let measured = evaluate::evaluate(&judge, &test, &plain)?;
    let bare = evaluate::Options { without_options: true, ..plain };
    let without = evaluate::evaluate(&judge, &test, &bare)?;
    let said = (!said.is_empty()).then(|| evaluate::evaluate(&judge, &said, &plain)).transpose()?;
    let odd: Vec<&Item> = test.iter().chain(&strange).copied().collect();
    let ood_auc = evaluate::evaluate(&judge, &odd, &bare)?.ood_auc;
    let guesses: Vec<Guess> = evaluate::guesses(&judge, &test, &plain);
    let steps = (0..20).map(|step| step as f32 / 20.0);
    let thresholds = steps.map(|t| {
        let (share, accuracy) = at_threshold(&guesses, t);
        (t, share, accuracy)
    });
    let thresholds = thresholds.collect();

    let count = |kind: Kind| (kind, learn.iter().filter(|item| item.kind == kind).count());
    let counts: Vec<(Kind, usize)> = Kind::ALL.iter().map(|kind| count(*kind)).collect();
    weights.header_mut().trained = json!({
        "seed": options.seed,
        "epochs": options.epochs,
        "items": counts,
        "test": { "n": measured.n, "accuracy": measured.accuracy, "ece": measured.ece },
    });
    Ok(Report {
        weights,
        contradictions,
        seed: options.seed,
        epochs: options.epochs,
        seconds: start.elapsed().as_secs_f64(),
        items: counts,
        heat,
        tune: tuned,
        test: measured,
        test_without_options: without,
        test_said: said,
        ood_auc,
        thresholds,
    })
}

/// The items that [`train`] would measure on; the same files give the same ones.
pub fn held_out_items(items: &[Item]) -> Vec<&Item> {
    let parts = groups::split(items);
    items.iter().zip(parts).filter(|(_, part)| *part == Part::Test).map(|(item, _)| item).collect()
}

/// One class in the data is no choice, whatever the domains' examples add.
fn one_class(items: &[Item]) -> Result<(), TrainError> {
    let mut labels: Vec<&str> = items
        .iter()
        .filter(|item| item.kind != Kind::Aside)
        .map(|item| item.domain.as_str())
        .collect();
    labels.sort_unstable();
    labels.dedup();
    match labels.len() {
        0 | 1 => Err(TrainError::OneLabel { labels: labels.len() }),
        _ => Ok(()),
    }
}

/// Sets what makes probabilities mean what they say, and what is unlike anything
/// seen, from items that did not train.
fn calibrate(weights: &mut Weights, items: &[&Item], seed: u64) {
    let held_out = held_out(weights, items, seed);
    let heat = calibrate::heat(&held_out);
    let of_truth = held_out.iter().map(|one| one.probabilities(heat)[one.truth]).collect();
    let mut familiar: Vec<f32> = held_out.iter().map(|one| one.familiarity).collect();
    familiar.sort_by(f32::total_cmp);
    let header = weights.header_mut();
    header.heat = heat;
    header.coverage = COVERAGE;
    header.set_from = calibrate::set_from(of_truth, f64::from(COVERAGE));
    let at = (familiar.len() as f32 * STRANGE) as usize;
    // Never above one half, where it is likelier to be like what was seen.
    header.familiar_from = familiar.get(at).copied().unwrap_or(0.0).min(0.5);
}

/// What the weights make of held-out items: with options, without, and cut short
/// as users cut.  One scale has to serve all of these.
fn held_out(weights: &Weights, items: &[&Item], seed: u64) -> Vec<HeldOut> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut list = Vec::new();
    for item in items {
        let labels = &weights.header().labels;
        let Some(truth) = labels.iter().position(|label| *label == item.domain) else {
            continue;
        };
        let mut texts = vec![item.text.clone()];
        if item.kind == Kind::Question {
            texts.extend([item.whole(), views::part(&item.text, &mut rng)]);
        }
        for text in texts {
            let features = Features::new(&text, weights.vocabulary());
            let said = Said { words: features.words, known: features.known };
            let (logits, familiarity) = weights.judge(&features);
            list.push(HeldOut { logits, said, familiarity, truth });
        }
    }
    list
}

#[cfg(test)]
mod tests;
