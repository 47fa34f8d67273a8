//! A domain the weights were not trained on, learnt from its examples at start.
//!
//! A query is likened to the examples by the rare n-grams they share.  Three
//! numbers are taken: likeness to the nearest example, to all of them together,
//! and how far the trained labels see in the query what they see in the
//! examples.  A logistic regression turns them into odds.  It is fitted on each
//! example against the *other* examples (leave one out), and on the examples of
//! all other domains; so its odds are those of a question it has not seen.
//!
//! The trained labels keep their probabilities among themselves: odds are a
//! share taken from all of them alike.

use crate::features::Features;
use crate::weights::Weights;

/// With fewer examples, leaving one out leaves nothing to go by.
pub(crate) const LEAST_EXAMPLES: usize = 3;

/// The numbers a query is judged by, and a constant.
const INPUTS: usize = 4;

/// Odds are kept from being certain: a few dozen examples cannot be.
const MOST_LOG_ODDS: f32 = 4.0;

/// A domain's examples, ready for comparison.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) domain: String,
    /// (bucket, example, value), sorted; each example has length 1.
    index: Vec<(u32, u32, f32)>,
    examples: usize,
    /// Length of the sum of all examples.
    norm: f32,
    /// `[labels]`: what the trained labels see in the examples, on average.
    profile: Vec<f32>,
    fit: [f32; INPUTS],
}

/// A text and what the trained labels make of it.
pub(crate) struct Seen {
    pub(crate) features: Features,
    pub(crate) probabilities: Vec<f32>,
}

impl Head {
    /// `own` are the domain's examples, `others` those of all other domains.
    pub(crate) fn learn(domain: &str, own: &[Seen], others: &[Seen], weights: &Weights) -> Head {
        let mut index = Vec::new();
        for (example, seen) in own.iter().enumerate() {
            let vector = vector(&seen.features);
            index.extend(vector.into_iter().map(|(bucket, value)| (bucket, example as u32, value)));
        }
        index.sort_by_key(|(bucket, example, _)| (*bucket, *example));
        let norm = |index: &[(u32, u32, f32)]| -> f32 {
            let sum = |same: &[(u32, u32, f32)]| same.iter().map(|s| s.2).sum::<f32>();
            index.chunk_by(|a, b| a.0 == b.0).map(|same| sum(same).powi(2)).sum::<f32>().sqrt()
        };
        let mut profile = vec![0f32; weights.header().labels.len()];
        for seen in own {
            for (mean, p) in profile.iter_mut().zip(&seen.probabilities) {
                *mean += p / own.len().max(1) as f32;
            }
        }
        let mut head = Head {
            domain: domain.into(),
            norm: norm(&index).max(f32::MIN_POSITIVE),
            index,
            examples: own.len(),
            profile,
            fit: [0.0; INPUTS],
        };
        let left_out = own.iter().enumerate().map(|(at, seen)| (head.inputs(seen, Some(at)), true));
        let rest = others.iter().map(|seen| (head.inputs(seen, None), false));
        head.fit = regress(&left_out.chain(rest).collect::<Vec<_>>());
        head
    }

    /// The odds that a text belongs here rather than to any trained label.
    pub(crate) fn odds(&self, seen: &Seen) -> f32 {
        let inputs = self.inputs(seen, None);
        let log_odds: f32 = inputs.iter().zip(&self.fit).map(|(x, w)| x * w).sum();
        log_odds.clamp(-2.0 * MOST_LOG_ODDS, MOST_LOG_ODDS).exp()
    }

    /// How much each feature of a text is like the examples, by unit.
    pub(crate) fn likeness<'a>(
        &'a self,
        features: &'a Features,
    ) -> impl Iterator<Item = (u32, f32)> + 'a {
        features.list.iter().map(move |f| {
            let all: f32 = self.at(f.bucket).iter().map(|(_, _, value)| value).sum();
            (f.unit, all / self.norm * f.value)
        })
    }

    fn at(&self, bucket: u32) -> &[(u32, u32, f32)] {
        let start = self.index.partition_point(|entry| entry.0 < bucket);
        let length = self.index[start..].partition_point(|entry| entry.0 == bucket);
        &self.index[start..start + length]
    }

    /// The inputs for a text, as if example `without` were not one.
    fn inputs(&self, seen: &Seen, without: Option<usize>) -> [f32; INPUTS] {
        let mut likeness = vec![0f32; self.examples];
        for (bucket, value) in vector(&seen.features) {
            for (_, example, own) in self.at(bucket) {
                likeness[*example as usize] += value * own;
            }
        }
        if let Some(at) = without {
            likeness[at] = 0.0;
        }
        let nearest = likeness.iter().copied().fold(0f32, f32::max);
        let all = likeness.iter().sum::<f32>() / self.norm;
        let shared: f32 = self.profile.iter().zip(&seen.probabilities).map(|(a, b)| a * b).sum();
        [1.0, nearest, all, (shared + 1e-3).ln()]
    }
}

/// Length 1; rare n-grams count more.
fn vector(features: &Features) -> Vec<(u32, f32)> {
    let mut vector: Vec<(u32, f32)> = features.list.iter().map(|f| (f.bucket, f.value)).collect();
    let length = vector.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|(_, value)| *value /= length);
    }
    vector
}

/// Logistic regression by gradient descent on inputs of unit spread.
fn regress(items: &[([f32; INPUTS], bool)]) -> [f32; INPUTS] {
    /// Examples that happen to be separable must not give endless weights.
    const RIDGE: f64 = 0.01;
    const STEPS: usize = 2_000;
    let count = items.len().max(1) as f64;
    let mut mean = [0f64; INPUTS];
    let mut spread = [0f64; INPUTS];
    for i in 1..INPUTS {
        mean[i] = items.iter().map(|(x, _)| f64::from(x[i])).sum::<f64>() / count;
        let square = items.iter().map(|(x, _)| (f64::from(x[i]) - mean[i]).powi(2)).sum::<f64>();
        spread[i] = (square / count).sqrt().max(1e-6);
    }
    let unit = |x: &[f32; INPUTS], i: usize| {
        if i == 0 { 1.0 } else { (f64::from(x[i]) - mean[i]) / spread[i] }
    };
    let mut w = [0f64; INPUTS];
    for _ in 0..STEPS {
        let mut gradient = [0f64; INPUTS];
        for (x, truth) in items {
            let z: f64 = (0..INPUTS).map(|i| w[i] * unit(x, i)).sum();
            let off = 1.0 / (1.0 + (-z).exp()) - f64::from(u8::from(*truth));
            (0..INPUTS).for_each(|i| gradient[i] += off * unit(x, i) / count);
        }
        for i in 0..INPUTS {
            let ridge = if i == 0 { 0.0 } else { RIDGE * w[i] };
            w[i] -= gradient[i] + ridge;
        }
    }
    // Back to the inputs as they come.
    let mut fit = [0f32; INPUTS];
    let mut constant = w[0];
    for i in 1..INPUTS {
        // More likeness can only speak for the domain; where chance says
        // otherwise, the number is left out.
        let slope = w[i].max(0.0) / spread[i];
        constant -= slope * mean[i];
        fit[i] = slope as f32;
    }
    fit[0] = constant as f32;
    fit
}
