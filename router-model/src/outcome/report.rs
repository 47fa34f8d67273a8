//! Accuracy against cost on questions that nothing was learnt from.

use serde::Serialize;

use super::model::{Judged, Outcomes, pick};
use super::seen::{Seen, loss, sigmoid};
use crate::calibrate::{Guess, ece};

/// Lambdas between these, evenly by their logarithms; and 0.
const LAMBDAS: (f64, f64, usize) = (1e-5, 1e-1, 40);

/// Everything that is known of a trained model of outcomes.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeReport {
    /// Questions learnt from, chosen and calibrated by, and reported on.
    pub train: usize,
    pub tune: usize,
    pub test: usize,
    /// How far words are listened to, and after how many passes it was best.
    pub gram: f32,
    pub epochs: usize,
    /// Mean negative log likelihood on the test part, over questions and models;
    /// and of giving every model its accuracy on the first two parts.
    pub loss: f64,
    pub loss_constant: f64,
    /// Expected calibration error over questions and models, 15 bins.
    pub ece: f64,
    /// All models, dearest first.
    pub models: Vec<Single>,
    /// The single model that was right most often on the first two parts.
    pub best_single: Single,
    /// Any model, drawn evenly.
    pub random: Place,
    /// The cheapest that is right; where none is, the cheapest.
    pub oracle: Place,
    /// At each lambda, from 0.
    pub curve: Vec<Step>,
    /// Of the curve's first step over the best single model.
    pub gain: Gain,
    /// The cheapest step that on the second part was as good as the best single.
    pub as_good: Option<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Single {
    pub model: String,
    pub cost: f64,
    pub accuracy: f64,
    /// How often the first step of the curve asks it, as a share.
    pub asked: f64,
}

/// A point of accuracy against mean cost of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Place {
    pub accuracy: f64,
    pub cost: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    pub lambda: f64,
    pub accuracy: f64,
    pub cost: f64,
}

/// A difference of accuracies on the same questions, with its 95 % interval (by
/// the normal approximation of the paired differences).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// Questions with every model's chances.
struct Part<'a> {
    judged: Vec<Vec<Judged>>,
    right: Vec<&'a [bool]>,
}

impl<'a> Part<'a> {
    fn of(outcomes: &Outcomes, seen: &[Seen<'a>]) -> Part<'a> {
        let judge = |one: &Seen| {
            let odds = outcomes.calibrated(&one.sight);
            let models = outcomes.models().zip(odds);
            let judged = |((model, cost), z): ((&str, f64), f32)| Judged {
                model: model.to_owned(),
                probability: f64::from(sigmoid(z)),
                cost,
            };
            models.map(judged).collect()
        };
        Part {
            judged: seen.iter().map(judge).collect(),
            right: seen.iter().map(|one| one.row.right.as_slice()).collect(),
        }
    }

    fn picks(&self, lambda: f64) -> Vec<usize> {
        self.judged.iter().map(|judged| pick(judged, lambda)).collect()
    }

    fn place(&self, picks: impl Iterator<Item = usize>) -> Place {
        let (mut right, mut cost, mut n) = (0usize, 0f64, 0usize);
        for ((at, judged), truth) in picks.zip(&self.judged).zip(&self.right) {
            right += usize::from(truth[at]);
            cost += judged[at].cost;
            n += 1;
        }
        let n = n.max(1) as f64;
        Place { accuracy: right as f64 / n, cost: cost / n }
    }

    fn step(&self, lambda: f64) -> Step {
        let Place { accuracy, cost } = self.place(self.picks(lambda).into_iter());
        Step { lambda, accuracy, cost }
    }

    fn single(&self, model: usize) -> Place {
        self.place(std::iter::repeat_n(model, self.judged.len()))
    }
}

pub(super) fn report(
    outcomes: &Outcomes,
    [learn, tune, test]: [&[Seen<'_>]; 3],
    epochs: usize,
) -> OutcomeReport {
    let models: Vec<(&str, f64)> = outcomes.models().collect();
    let (tuned, part) = (Part::of(outcomes, tune), Part::of(outcomes, test));
    // Chosen where the router was, too.
    let before = |model: usize| -> f64 {
        let rows = learn.iter().chain(tune).map(|seen| seen.row.right[model]);
        rows.filter(|right| *right).count() as f64 / (learn.len() + tune.len()) as f64
    };
    let priors: Vec<f64> = (0..models.len()).map(before).collect();
    let best = (0..models.len()).max_by(|a, b| priors[*a].total_cmp(&priors[*b])).unwrap_or(0);
    let first = part.picks(0.0);
    let single = |at: usize| {
        let (model, cost) = (models[at].0.to_owned(), models[at].1);
        let asked = first.iter().filter(|pick| **pick == at).count();
        let asked = asked as f64 / first.len().max(1) as f64;
        Single { model, cost, accuracy: part.single(at).accuracy, asked }
    };
    let mut singles: Vec<Single> = (0..models.len()).map(single).collect();
    singles.sort_by(|a, b| b.cost.total_cmp(&a.cost).then_with(|| a.model.cmp(&b.model)));
    let lambdas = lambdas();
    let curve: Vec<Step> = lambdas.iter().map(|lambda| part.step(*lambda)).collect();
    let wanted = tuned.single(best).accuracy;
    let enough = lambdas.iter().rev().find(|lambda| tuned.step(**lambda).accuracy >= wanted);
    let random = mean((0..models.len()).map(|at| part.single(at)));
    OutcomeReport {
        train: learn.len(),
        tune: tune.len(),
        test: test.len(),
        gram: outcomes.header.gram,
        epochs,
        loss: loss(outcomes, test),
        loss_constant: constant(&priors, test),
        ece: ece(&guesses(&part)),
        models: singles,
        best_single: single(best),
        random,
        oracle: oracle(&part),
        gain: gain(&part, &first, best),
        as_good: enough.map(|lambda| part.step(*lambda)),
        curve,
    }
}

fn lambdas() -> Vec<f64> {
    let (low, high, steps) = LAMBDAS;
    let at = |step: usize| low * (high / low).powf(step as f64 / (steps - 1) as f64);
    std::iter::once(0.0).chain((0..steps).map(at)).collect()
}

fn mean(places: impl Iterator<Item = Place>) -> Place {
    let (mut sum, mut n) = (Place { accuracy: 0.0, cost: 0.0 }, 0usize);
    for place in places {
        sum = Place { accuracy: sum.accuracy + place.accuracy, cost: sum.cost + place.cost };
        n += 1;
    }
    let n = n.max(1) as f64;
    Place { accuracy: sum.accuracy / n, cost: sum.cost / n }
}

fn oracle(part: &Part<'_>) -> Place {
    let cheapest = |judged: &[Judged], truth: Option<&[bool]>| {
        let fits = |at: &usize| truth.is_none_or(|truth| truth[*at]);
        let places = (0..judged.len()).filter(fits);
        places.min_by(|a, b| judged[*a].cost.total_cmp(&judged[*b].cost))
    };
    let all = part.judged.iter().zip(&part.right);
    let picks: Vec<usize> = all
        .map(|(judged, truth)| {
            cheapest(judged, Some(truth)).or_else(|| cheapest(judged, None)).unwrap_or(0)
        })
        .collect();
    part.place(picks.into_iter())
}

fn gain(part: &Part<'_>, picks: &[usize], best: usize) -> Gain {
    let one = |(truth, pick): (&&[bool], &usize)| {
        f64::from(u8::from(truth[*pick])) - f64::from(u8::from(truth[best]))
    };
    let differences: Vec<f64> = part.right.iter().zip(picks).map(one).collect();
    let n = differences.len().max(1) as f64;
    let value = differences.iter().sum::<f64>() / n;
    let square = differences.iter().map(|d| (d - value).powi(2)).sum::<f64>() / n;
    let half = 1.96 * (square / n).sqrt();
    Gain { value, low: value - half, high: value + half }
}

fn guesses(part: &Part<'_>) -> Vec<Guess> {
    let mut all = Vec::new();
    for (judged, truth) in part.judged.iter().zip(&part.right) {
        let pairs = judged.iter().zip(*truth);
        all.extend(
            pairs.map(|(j, right)| Guess { confidence: j.probability as f32, right: *right }),
        );
    }
    all
}

/// The loss of a probability a model, whatever the question.
fn constant(priors: &[f64], test: &[Seen<'_>]) -> f64 {
    let mut sum = 0f64;
    for seen in test {
        for (p, right) in priors.iter().zip(&seen.row.right) {
            let p = p.clamp(1e-6, 1.0 - 1e-6);
            sum -= if *right { p.ln() } else { (1.0 - p).ln() };
        }
    }
    sum / (test.len() * priors.len()).max(1) as f64
}
