//! Measures a supervisor on labelled questions.
//!
//! An abstention counts by its best guess, so that a threshold cannot buy
//! accuracy; what it buys is in `abstained` and `accuracy_decided`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::calibrate::{self, Guess};
use crate::item::{Item, Kind};
use crate::typo::mistype;
use crate::{Query, Supervisor, TrainError};

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub seed: u64,
    /// Share of words with more than three letters that are mistyped: two
    /// neighbouring letters change places.
    pub typos: f64,
    /// Ask the question alone, as users do.
    pub without_options: bool,
}

/// How a supervisor fares.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    pub n: usize,
    pub accuracy: f64,
    /// Accuracy on the nine in ten it is surest of.
    pub accuracy_at_90: f64,
    /// Expected calibration error, 15 bins.
    pub ece: f64,
    /// Share of questions it abstained on, at its threshold.
    pub abstained: f64,
    /// Accuracy on those it did not abstain on.
    pub accuracy_decided: f64,
    pub per_category: BTreeMap<String, Category>,
    pub confusion: Confusion,
    pub latency_us: Latency,
    /// Area under the curve for telling questions of routed domains from texts of no
    /// domain by how far they belong to one; absent where none of one sort was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ood_auc: Option<f64>,
    /// Share of the texts of no domain that it abstained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ood_abstained: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Category {
    pub n: usize,
    pub accuracy: f64,
}

/// `rows[truth][guess]` counts, both in the order of `labels`.
#[derive(Clone, Debug, Serialize)]
pub struct Confusion {
    pub labels: Vec<String>,
    pub rows: Vec<Vec<usize>>,
}

/// Of one decision, on this machine, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
}

/// One question asked.
struct Asked<'a> {
    truth: &'a str,
    guess: String,
    confidence: f32,
    /// As [`Decision::belonging`](crate::Decision).
    belonging: f32,
    abstained: bool,
    micros: u64,
}

fn ask<'a>(sup: &Supervisor, items: &[&'a Item], options: &Options) -> Vec<Asked<'a>> {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let one = |item: &&'a Item| {
        let mut text = if options.without_options { item.text.clone() } else { item.whole() };
        if options.typos > 0.0 {
            text = mistype(&text, options.typos, &mut rng);
        }
        let decision = sup.decide(&Query::text(text));
        let belonging = decision.belonging(|label| sup.routes(label));
        let best = decision.alternatives.into_iter().next();
        Asked {
            truth: &item.domain,
            // Nothing was said, so there is no guess; it counts as wrong.
            guess: best.map(|best| best.domain).unwrap_or_default(),
            confidence: decision.confidence,
            belonging,
            abstained: decision.abstained,
            micros: decision.micros,
        }
    };
    items.iter().map(one).collect()
}

/// Confidence and correctness of each item.
pub(crate) fn guesses(sup: &Supervisor, items: &[&Item], options: &Options) -> Vec<Guess> {
    ask(sup, items, options).iter().map(guess).collect()
}

fn guess(asked: &Asked) -> Guess {
    Guess { confidence: asked.confidence, right: asked.guess == asked.truth }
}

/// Asks every item and compares; texts of no domain (`Kind::Aside`) are only
/// compared with the others by how sure it is of them.
///
/// # Errors
///
/// [`TrainError::NothingHeldOut`] if there are no items.
pub fn evaluate(
    sup: &Supervisor,
    items: &[&Item],
    options: &Options,
) -> Result<Evaluation, TrainError> {
    let (strange, items): (Vec<&Item>, Vec<&Item>) =
        items.iter().copied().partition(|item| item.kind == Kind::Aside);
    if items.is_empty() {
        return Err(TrainError::NothingHeldOut { what: "measurement" });
    }
    let asked = ask(sup, &items, options);
    let strange = ask(sup, &strange, options);
    let guesses: Vec<Guess> = asked.iter().map(guess).collect();
    let decided: Vec<Guess> = asked.iter().filter(|a| !a.abstained).map(guess).collect();
    let abstained = asked.iter().filter(|a| a.abstained).count();
    let mut micros: Vec<u64> = asked.iter().map(|a| a.micros).collect();
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    Ok(Evaluation {
        n: asked.len(),
        accuracy: calibrate::accuracy(&guesses),
        accuracy_at_90: calibrate::accuracy_at(&guesses, 0.9),
        ece: calibrate::ece(&guesses),
        abstained: abstained as f64 / asked.len() as f64,
        accuracy_decided: calibrate::accuracy(&decided),
        per_category: per_category(&asked),
        confusion: confusion(&asked),
        latency_us: Latency { p50: at(0.5), p99: at(0.99) },
        ood_auc: calibrate::auc(
            &belonging(asked.iter().filter(|one| sup.routes(one.truth))),
            &belonging(&strange),
        ),
        ood_abstained: (!strange.is_empty())
            .then(|| strange.iter().filter(|a| a.abstained).count() as f64 / strange.len() as f64),
    })
}

fn belonging<'a>(asked: impl IntoIterator<Item = &'a Asked<'a>>) -> Vec<f32> {
    asked.into_iter().map(|one| one.belonging).collect()
}

fn per_category(asked: &[Asked]) -> BTreeMap<String, Category> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for one in asked {
        let count = counts.entry(one.truth).or_default();
        count.0 += 1;
        count.1 += usize::from(one.guess == one.truth);
    }
    let category = |(n, right): (usize, usize)| Category { n, accuracy: right as f64 / n as f64 };
    counts.into_iter().map(|(name, count)| (name.to_owned(), category(count))).collect()
}

fn confusion(asked: &[Asked]) -> Confusion {
    let mut labels: Vec<&str> = asked.iter().flat_map(|a| [a.truth, a.guess.as_str()]).collect();
    labels.sort_unstable();
    labels.dedup();
    let mut rows = vec![vec![0; labels.len()]; labels.len()];
    for one in asked {
        if let (Ok(truth), Ok(guess)) =
            (labels.binary_search(&one.truth), labels.binary_search(&one.guess.as_str()))
        {
            rows[truth][guess] += 1;
        }
    }
    Confusion { labels: labels.into_iter().map(str::to_owned).collect(), rows }
}
