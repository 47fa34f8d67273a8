//! Trains weights from labelled text.
//!
//! In come files ([`Source`]) and the domains in use; out comes a [`Report`] with
//! the weights and how they fare on questions that were held out.  Same files,
//! same seed, same bytes.
//!
//! [`data`] reads files into items, each of one domain.  Questions that carry
//! their own label are split by what they are about (`groups.rs`): eight in ten
//! train, one finds the temperature and what the encoder counts (`second.rs`), one
//! measures.  Everything else trains; the encoder does not, but for a classifier on it.
//! Each item is shown in several forms (`views.rs`), since users neither list options
//! nor write like textbooks.  `fit.rs` is the regression, on the rows of `design.rs`
//! by the steps of `lbfgs.rs`.
//!
//! To read another kind of line, add it to `data.rs`; how much a text counts is in
//! `Item::weight`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use config::Domains;
use serde::Serialize;
use serde_json::json;

use crate::calibrate::{self, Guess, Heat, HeldOut, Said, at_threshold};
use crate::evaluate::{self, Evaluation};
use crate::features::Features;
use crate::{Mix, Supervisor, SupervisorError, TrainError, Weights, encoder};

mod books;
mod contradictions;
pub mod data;
mod design;
mod fit;
pub(crate) mod groups;
mod lbfgs;
mod mix;
mod noise;
mod second;
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
    /// Steps of the regression at most; it ends sooner where they bring nothing.
    pub steps: usize,
    /// Half of it times the sum of all squared weights is added to the mean loss of a
    /// text, so that what is learnt from few texts stays small.
    pub penalty: f32,
    /// Size of the table of weights at most; it says how many n-grams have some.
    pub bytes: usize,
    /// Passages taken of each book, spread over it; more only repeats a style.
    pub per_book: usize,
    /// Whether the tenth that calibrates trains too, once it has.
    pub refit: bool,
    /// Domains that nothing is learnt of, to see how they are told from the others.
    pub leave_out: Vec<String>,
    /// The second stage that will stand beside the weights.
    pub encoder: config::Encoder,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            data: Vec::new(),
            seed: 1,
            steps: 100,
            penalty: 1.5e-6,
            // The most that a binary should carry.
            bytes: 3_960_000,
            per_book: 3_000,
            refit: true,
            leave_out: Vec::new(),
            encoder: config::Encoder::Shipped,
        }
    }
}

/// How often the conformal set is to hold the truth.  At nine in ten, half of all
/// short questions had a second label in the set, and were abstentions.
const COVERAGE: f32 = 0.8;

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
    pub steps: usize,
    pub seconds: f64,
    /// Training items by kind.
    pub items: Vec<(Kind, usize)>,
    pub heat: Heat,
    /// Questions alone, on the tenth that found the temperature and before it
    /// trained: choose settings by this one.
    pub tune: Evaluation,
    pub tune_typos: Evaluation,
    /// What the encoder counts, and how both fare; none without an encoder.
    pub mix: Option<Mix>,
    pub tune_both: Option<Evaluation>,
    /// Questions alone, on the held-out tenth, and texts of no domain.
    pub test: Evaluation,
    pub test_with_options: Evaluation,
    /// A fifth of the longer words mistyped.
    pub test_typos: Evaluation,
    /// On held-out requests as people write them, where the data has some.
    pub test_said: Option<Evaluation>,
    /// As `ood_auc`: the same questions against those of the domains left out.
    pub left_out_auc: Option<f64>,
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
    let (steps, penalty) = (options.steps, options.penalty);
    if steps == 0 {
        return Err(TrainError::Steps { steps });
    }
    if !penalty.is_finite() || penalty < 0.0 {
        return Err(TrainError::Penalty { penalty });
    }
    let read = data::read_placed(&options.data, domains, options.per_book, progress)?;
    let (mut items, contradictions) = contradictions::remove(read);
    let away = names_left_out(options, domains)?;
    let left_out = left_out(&mut items, &away);
    one_class(&items)?;
    items.extend(data::examples(domains).filter(|item| !away.contains(&item.domain.as_str())));
    let parts = groups::split(&items);
    let of = |part: Part, kinds: &[Kind]| -> Vec<&Item> {
        let all = items.iter().zip(&parts);
        all.filter(|(i, p)| **p == part && kinds.contains(&i.kind)).map(|(i, _)| i).collect()
    };
    let learn = of(Part::Train, Kind::ALL);
    let tune = of(Part::Tune, &[Kind::Question, Kind::Said]);
    let said = of(Part::Test, &[Kind::Said]);
    // Texts of no domain are few and train nothing but their own column, so that
    // both held-out tenths of them are asked.
    let strange = [of(Part::Tune, &[Kind::Aside]), of(Part::Test, &[Kind::Aside])].concat();
    // Data of short requests alone is measured on short requests.
    let questions = |part: Part| match of(part, &[Kind::Question]) {
        none if none.is_empty() => of(part, &[Kind::Said]),
        some => some,
    };
    let test = questions(Part::Test);
    if tune.is_empty() || test.is_empty() {
        return Err(TrainError::NothingHeldOut { what: "calibration and measurement" });
    }
    let labelled = learn.iter().chain(&tune).filter(|item| item.kind != Kind::Aside);
    let mut labels: Vec<String> = labelled.map(|item| item.domain.clone()).collect();
    labels.sort_unstable();
    labels.dedup();
    let fitted = fit::fit(&learn, &labels, options, progress);
    let mut weights = Weights::quantise(fitted)?;
    calibrate(&mut weights, &tune, options.seed);
    let heat = weights.header().heat;
    // Thresholds are judged without one: every question gets its best guess.
    let judge = |weights: &Weights| Supervisor::new(weights.clone(), &Domains::default(), 0.0);
    let alone = evaluate::Options {
        seed: options.seed,
        without_options: true,
        ..evaluate::Options::default()
    };
    let whole = evaluate::Options { without_options: false, ..alone };
    let mistyped = evaluate::Options { typos: 0.2, ..alone };
    let before = judge(&weights)?;
    let tuning = [questions(Part::Tune), strange.clone()].concat();
    let tuned = evaluate::evaluate(&before, &tuning, &alone)?;
    let tuned_typos = evaluate::evaluate(&before, &tuning, &mistyped)?;
    let mut tuned_both = None;
    if let Some(encoder) = encoder::open(&options.encoder).map_err(SupervisorError::from)? {
        let asked = questions(Part::Tune);
        let found = second::find(&weights, encoder.as_ref(), &learn, &asked, progress);
        weights.header_mut().second = Some(found);
        let both = judge(&weights)?.with_configured(&options.encoder)?;
        tuned_both = Some(evaluate::evaluate(&both, &tuning, &alone)?);
    }
    if options.refit {
        // The scale found on the tenth serves weights that learnt from it too.
        let more: Vec<&Item> = learn.iter().chain(&tune).copied().collect();
        let scale = weights.header().clone();
        weights = Weights::quantise(fit::fit(&more, &labels, options, progress))?;
        weights.rescale(&scale);
    }
    let judge = judge(&weights)?;
    let testing = [test.clone(), strange].concat();
    let measured = evaluate::evaluate(&judge, &testing, &alone)?;
    let with_options = evaluate::evaluate(&judge, &test, &whole)?;
    let typos = evaluate::evaluate(&judge, &test, &mistyped)?;
    let left_out: Vec<&Item> = test.iter().copied().chain(&left_out).collect();
    let left_out = evaluate::evaluate(&judge, &left_out, &alone)?;
    let said = (!said.is_empty()).then(|| evaluate::evaluate(&judge, &said, &alone)).transpose()?;
    let guesses: Vec<Guess> = evaluate::guesses(&judge, &test, &alone);
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
        "steps": options.steps,
        "items": counts,
        "test": { "n": measured.n, "accuracy": measured.accuracy, "ece": measured.ece },
    });
    Ok(Report {
        contradictions,
        seed: options.seed,
        steps: options.steps,
        seconds: start.elapsed().as_secs_f64(),
        items: counts,
        heat,
        tune: tuned,
        tune_typos: tuned_typos,
        mix: weights.header().second.as_ref().map(|second| second.mix),
        tune_both: tuned_both,
        test: measured,
        test_with_options: with_options,
        test_typos: typos,
        test_said: said,
        // Without domains left out there is nothing to tell from questions.
        left_out_auc: left_out.ood_auc,
        thresholds,
        weights,
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
    items.iter().zip(parts).filter(|(_, part)| *part == Part::Test).map(|(item, _)| item).collect()
}

fn names_left_out<'a>(options: &Options, domains: &'a Domains) -> Result<Vec<&'a str>, TrainError> {
    let canonical = |name: &String| {
        domains.canonical(name).ok_or_else(|| TrainError::NoSuchDomain {
            name: name.clone(),
            nearest: domains.nearest(name).map(str::to_owned),
        })
    };
    options.leave_out.iter().map(canonical).collect()
}

/// Takes everything of some domains from the items, and gives their questions as texts
/// of no domain.
fn left_out(items: &mut Vec<Item>, away: &[&str]) -> Vec<Item> {
    let gone = items.extract_if(.., |item| away.contains(&item.domain.as_str()));
    let asked = gone.filter(|item| item.own_label && item.kind == Kind::Question);
    asked.map(|item| Item { kind: Kind::Aside, ..item }).collect()
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
