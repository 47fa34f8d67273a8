//! A logistic regression a model, all models at once; chosen and calibrated on a
//! second part of the questions.

use serde_json::json;

use super::model::Outcomes;
use super::report::{self, OutcomeReport};
use super::seen::{Seen, loss, sigmoid};
use super::sight::Sight;
use super::table::Table;
use super::{OutcomeError, cost};
use crate::item::Item;
use crate::train::groups::{self, Part};
use crate::{Supervisor, Weights};

/// Passes over the questions; the best one is kept.
const EPOCHS: usize = 8;

/// How far words are listened to: not at all, or so much.  Chosen by loss.
const GRAMS: &[f32] = &[0.0, 0.3, 1.0];

/// Step of AdaGrad, and what keeps its first steps small.
const STEP: f32 = 0.05;
const START: f32 = 1.0;

/// A part with fewer questions says nothing.
const LEAST: usize = 20;

/// Rounds of Newton's method for two numbers; it has settled long before.
const ROUNDS: usize = 30;

/// Costs by name, and the seed of the order in which questions are shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Wins over the shipped table.
    pub costs: Vec<(String, f64)>,
    pub seed: u64,
}

/// What training made.
pub struct Trained {
    pub outcomes: Outcomes,
    pub report: OutcomeReport,
}

/// Learns from two parts of `table`, and reports on the third.
///
/// # Errors
///
/// [`OutcomeError`] for costs that are not known, or too few questions.
pub fn train(
    table: &Table,
    weights: &Weights,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Result<Trained, OutcomeError> {
    let costs = cost::costs(&table.models, &options.costs)?;
    let supervisor = Supervisor::new(weights.clone(), &config::Domains::default(), 0.0)?;
    let items: Vec<Item> = table.rows.iter().map(|row| row.item.clone()).collect();
    let parts = groups::split(&items);
    let (mut learn, mut tune, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for (at, (row, part)) in table.rows.iter().zip(parts).enumerate() {
        if at % 100 == 0 {
            progress(at as u64, table.rows.len() as u64, "reading questions");
        }
        let seen = Seen { sight: Sight::new(&row.item.whole(), &supervisor), row };
        match part {
            Part::Train => learn.push(seen),
            Part::Tune => tune.push(seen),
            Part::Test => test.push(seen),
        }
    }
    if [&learn, &tune, &test].iter().any(|part| part.len() < LEAST) {
        let (train, tune, test) = (learn.len(), tune.len(), test.len());
        return Err(OutcomeError::TooFew { train, tune, test, want: LEAST });
    }
    let scales = scales(&learn);
    let total = (GRAMS.len() * EPOCHS) as u64;
    let mut best: Option<(f64, usize, Outcomes)> = None;
    for (choice, gram) in GRAMS.iter().enumerate() {
        let (models, costs) = (table.models.clone(), costs.clone());
        let blank = Outcomes::blank(models, costs, weights, scales.clone(), *gram);
        let mut fit = Fit::new(blank);
        let mut rng = fastrand::Rng::with_seed(options.seed);
        let mut order: Vec<usize> = (0..learn.len()).collect();
        for epoch in 1..=EPOCHS {
            progress((choice * EPOCHS + epoch) as u64, total, "learning who is right");
            rng.shuffle(&mut order);
            order.iter().for_each(|at| fit.show(&learn[*at]));
            let loss = loss(&fit.outcomes, &tune);
            if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
                best = Some((loss, epoch, fit.outcomes.clone()));
            }
        }
    }
    // There is at least one choice and one pass.
    let too_few = OutcomeError::TooFew { train: 0, tune: 0, test: 0, want: LEAST };
    let (loss, epochs, mut outcomes) = best.ok_or(too_few)?;
    calibrate(&mut outcomes, &tune);
    let counts = [learn.len(), tune.len(), test.len()];
    outcomes.header.trained = json!({
        "questions": counts, "seed": options.seed, "epochs": epochs, "loss": loss,
    });
    let report = report::report(&outcomes, [&learn, &tune, &test], epochs);
    Ok(Trained { outcomes, report })
}

/// Mean and spread of each dense number; the constant stays one.
fn scales(learn: &[Seen<'_>]) -> (Vec<f32>, Vec<f32>) {
    let width = learn.first().map_or(0, |seen| seen.sight.dense.len());
    let (mut mean, mut spread) = (vec![0f32; width], vec![1f32; width]);
    for at in 1..width {
        let values = || learn.iter().map(move |seen| f64::from(seen.sight.dense[at]));
        let n = learn.len() as f64;
        let middle = values().sum::<f64>() / n;
        let square = values().map(|x| (x - middle).powi(2)).sum::<f64>() / n;
        mean[at] = middle as f32;
        spread[at] = square.sqrt().max(1e-3) as f32;
    }
    (mean, spread)
}

/// A fit under way.
struct Fit {
    outcomes: Outcomes,
    /// As the numbers: sums of squared gradients.
    squares: Vec<f32>,
}

impl Fit {
    fn new(outcomes: Outcomes) -> Fit {
        let squares = vec![START; outcomes.numbers.len()];
        Fit { outcomes, squares }
    }

    fn show(&mut self, seen: &Seen<'_>) {
        let z = self.outcomes.raw(&seen.sight);
        let right = seen.row.right.iter().map(|right| f32::from(u8::from(*right)));
        let off: Vec<f32> = z.iter().zip(right).map(|(z, y)| sigmoid(*z) - y).collect();
        let dense = self.outcomes.scaled(&seen.sight);
        let width = dense.len();
        for (at, value) in dense.into_iter().enumerate() {
            self.step(at, value, &off);
        }
        let gram = self.outcomes.header.gram;
        if gram > 0.0 {
            for (bucket, value) in &seen.sight.grams {
                self.step(width + *bucket as usize, value * gram, &off);
            }
        }
    }

    fn step(&mut self, row: usize, value: f32, off: &[f32]) {
        let range = row * off.len()..(row + 1) * off.len();
        let squares = &mut self.squares[range.clone()];
        let numbers = self.outcomes.numbers[range].iter_mut().zip(squares);
        for ((number, square), off) in numbers.zip(off) {
            let gradient = off * value;
            *square += gradient * gradient;
            *number -= STEP * gradient / square.sqrt();
        }
    }
}

/// Slope and offset of each model's log-odds, by Newton's method.  Source: Platt,
/// Probabilistic Outputs for Support Vector Machines (1999).
fn calibrate(outcomes: &mut Outcomes, tune: &[Seen<'_>]) {
    /// Of a slope that differs from 1, in log likelihood: a model that is always
    /// wrong must not give an endless one.
    const RIDGE: f64 = 1.0;
    let raw: Vec<Vec<f32>> = tune.iter().map(|seen| outcomes.raw(&seen.sight)).collect();
    for (model, pair) in outcomes.header.calibration.iter_mut().enumerate() {
        let (mut a, mut b) = (1f64, 0f64);
        for _ in 0..ROUNDS {
            let (mut ga, mut gb) = (RIDGE * (a - 1.0), RIDGE * b * 0.1);
            let (mut aa, mut ab, mut bb) = (RIDGE, 0f64, RIDGE * 0.1);
            for (z, seen) in raw.iter().zip(tune) {
                let z = f64::from(z[model]);
                let p = 1.0 / (1.0 + (-(a * z + b)).exp());
                let off = p - f64::from(u8::from(seen.row.right[model]));
                let w = p * (1.0 - p);
                ga += off * z;
                gb += off;
                aa += w * z * z;
                ab += w * z;
                bb += w;
            }
            let det = aa * bb - ab * ab;
            if !det.is_normal() {
                break;
            }
            a -= (bb * ga - ab * gb) / det;
            b -= (aa * gb - ab * ga) / det;
        }
        if a.is_finite() && b.is_finite() && a.abs() < 100.0 && b.abs() < 100.0 {
            *pair = [a as f32, b as f32];
        }
    }
}
