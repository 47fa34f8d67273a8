//! Multinomial logistic regression on sparse features.
//!
//! Stochastic gradient descent, one item at a time, with a step that shrinks for
//! n-grams that have moved much (AdaGrad: Duchi, Hazan and Singer, JMLR 12,
//! 2011), so that rare words learn as fast as common ones.  The result is the
//! mean over the last epochs, which is steadier than the last.

use std::collections::HashMap;

use fastrand::Rng;

use super::{Options, noise, views};
use crate::calibrate::softmax;
use crate::features::{Features, knob};
use crate::item::{Item, Kind};
use crate::vocabulary::{self, Met, Vocabulary};

/// First step.  A quarter did about as well or better in trials on other splits;
/// the shipped weights were made with this one.
const RATE: f32 = 0.5;

/// Part of the truth that is spread over all labels: some questions fit two.
const SMOOTHING: f32 = 0.05;

/// Weights shrink by this share each epoch, so that chance does not stay.
const DECAY: f32 = 0.02;

/// Share of items that a text of noise follows.
const NOISE: f32 = 0.02;

pub(super) struct Fitted {
    /// `[buckets][columns]`: the labels, then what is strange to all of them.
    pub(super) weights: Vec<f32>,
    /// `[columns]`.
    pub(super) bias: Vec<f32>,
    /// Fingerprints and rarities, each `[buckets]`.
    pub(super) vocabulary: (Vec<u8>, Vec<u8>),
}

/// Fits weights to items; all labels of the items are among `labels`.
pub(super) fn fit(
    items: &[&Item],
    labels: &[String],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Fitted {
    let buckets = options.buckets;
    // The last column tells what is strange to all labels.
    let columns = labels.len() + 1;
    let mut rng = Rng::with_seed(options.seed);
    let truth: Vec<Option<usize>> =
        items.iter().map(|item| labels.iter().position(|l| *l == item.domain)).collect();
    let mut topics: HashMap<&str, Vec<&str>> = HashMap::new();
    for item in items.iter().filter(|item| item.kind == Kind::Topic) {
        topics.entry(&item.domain).or_default().push(&item.text);
    }
    let mut model = Model::new(buckets, columns);
    let mut mean = vec![0f32; buckets * columns];
    let mut mean_bias = vec![0f32; columns];
    let mut order: Vec<usize> = (0..items.len()).collect();
    let words = vocabulary(items, buckets, progress);
    let known = Vocabulary { prints: &words.0, rarity: &words.1 };
    // The first half only finds the way.
    let kept = options.epochs.div_ceil(2).max(1);
    for epoch in 0..options.epochs {
        rng.shuffle(&mut order);
        for (done, at) in order.iter().enumerate() {
            if done % 4_096 == 0 {
                let total = (options.epochs * items.len()) as u64;
                progress((epoch * items.len() + done) as u64, total, "training");
            }
            let item = items[*at];
            let peers = topics.get(item.domain.as_str()).map_or(&[][..], Vec::as_slice);
            let text = views::view(item, peers, &mut rng);
            let features = Features::new(&text, known);
            let weight = match item.kind {
                Kind::Said | Kind::Example | Kind::Topic => knob("WSAID", 6.0),
                Kind::Question => {
                    if item.own_label {
                        1.0
                    } else {
                        knob("WQ2", 1.0)
                    }
                }
                Kind::Exercise => knob("WEX", 0.1),
                Kind::Answer => knob("WANS", 0.1),
                Kind::Heading => knob("WHEAD", 0.1),
                Kind::Passage => knob("WPASS", 0.02),
                Kind::Aside => knob("WASIDE", 3.0),
            };
            if weight > 0.0 {
                model.learn(&features, truth[*at], weight * knob("WALL", 1.0));
            }
            if rng.f32() < NOISE {
                let features = Features::new(&noise::text(&mut rng), known);
                model.learn(&features, None, 1.0);
            }
        }
        model.weights.iter_mut().for_each(|w| *w *= 1.0 - knob("DECAY", DECAY));
        if epoch + kept >= options.epochs {
            let add = |mean: &mut [f32], now: &[f32]| {
                mean.iter_mut().zip(now).for_each(|(m, w)| *m += w / kept as f32);
            };
            add(&mut mean, &model.weights);
            add(&mut mean_bias, &model.bias);
        }
    }
    Fitted { weights: mean, bias: mean_bias, vocabulary: words }
}

/// The n-grams that get weights.
fn vocabulary(
    items: &[&Item],
    buckets: usize,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> (Vec<u8>, Vec<u8>) {
    let mut met: HashMap<u64, Met> = HashMap::new();
    for (done, item) in items.iter().enumerate() {
        if done % 4_096 == 0 {
            progress(done as u64, items.len() as u64, "counting");
        }
        let asked = !matches!(item.kind, Kind::Passage | Kind::Answer);
        for hash in Features::hashes(&item.whole()) {
            let met = met.entry(hash).or_default();
            met.all += 1;
            met.asked += u32::from(asked);
        }
    }
    vocabulary::choose(&met, buckets, items.len())
}

struct Model {
    columns: usize,
    weights: Vec<f32>,
    /// Sum of squared gradients, as `weights`.
    moved: Vec<f32>,
    bias: Vec<f32>,
    bias_moved: Vec<f32>,
}

impl Model {
    fn new(buckets: usize, columns: usize) -> Model {
        Model {
            columns,
            weights: vec![0.0; buckets * columns],
            // Keeps the very first steps from being as large as the rate.
            moved: vec![1e-3; buckets * columns],
            bias: vec![0.0; columns],
            bias_moved: vec![1.0; columns],
        }
    }

    /// One step for a text of a label, or of none.
    fn learn(&mut self, features: &Features, truth: Option<usize>, weight: f32) {
        let rate = knob("RATE", RATE);
        let smoothing = knob("SMOOTH", SMOOTHING);
        let columns = self.columns;
        let row = |bucket: u32| bucket as usize * columns..(bucket as usize + 1) * columns;
        let mut off = self.bias.clone();
        for f in &features.list {
            for (z, w) in off.iter_mut().zip(&self.weights[row(f.bucket)]) {
                *z += f.value * w;
            }
        }
        let labels = columns - 1;
        let strange = 1.0 / (1.0 + (-off[labels]).exp());
        off[labels] = (strange - if truth.is_none() { 1.0 } else { 0.0 }) * weight.min(1.0);
        match truth {
            // What is strange says nothing about the labels.
            None => off[..labels].fill(0.0),
            Some(truth) => {
                let likely = softmax(&off[..labels], 1.0);
                for (label, p) in likely.into_iter().enumerate() {
                    let target = if label == truth { 1.0 - smoothing } else { 0.0 };
                    off[label] = (p - target - smoothing / labels as f32) * weight;
                }
            }
        }
        for f in features.list.iter().filter(|f| f.value > 0.0) {
            let range = row(f.bucket);
            let weights = self.weights[range.clone()].iter_mut();
            for ((w, moved), off) in weights.zip(&mut self.moved[range]).zip(&off) {
                let gradient = off * f.value;
                *moved += gradient * gradient;
                *w -= rate * gradient / moved.sqrt();
            }
        }
        for ((b, moved), off) in self.bias.iter_mut().zip(&mut self.bias_moved).zip(&off) {
            *moved += off * off;
            *b -= 0.1 * off / moved.sqrt();
        }
    }
}
