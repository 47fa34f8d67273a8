//! Multinomial logistic regression on sparse features.
//!
//! Stochastic gradient descent, one item at a time, with a step that shrinks for
//! n-grams that have moved much (AdaGrad: Duchi, Hazan and Singer, JMLR 12,
//! 2011), so that rare words learn as fast as common ones.  The result is the
//! mean over the last epochs, which is steadier than the last.

use std::collections::{BTreeMap, HashMap};

use fastrand::Rng;

use super::{Options, Settings, noise, views};
use crate::calibrate::softmax;
use crate::features::Features;
use crate::item::{Item, Kind};
use crate::vocabulary::{self, Met, Vocabulary};
use crate::weights::{Output, Trained};

/// Share of items that a text of noise follows.
const NOISE: f32 = 0.02;

/// Fits weights to items; all labels of the items are among `labels`.
pub(super) fn fit(
    items: &[&Item],
    labels: &[String],
    options: &Options,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Trained {
    let mut rng = Rng::with_seed(options.seed);
    let (names, truth) = outputs(items, labels, options.settings.collection);
    let mut topics: HashMap<&str, Vec<&str>> = HashMap::new();
    for item in items.iter().filter(|item| item.kind == Kind::Topic) {
        topics.entry(&item.domain).or_default().push(&item.text);
    }
    let set = options.settings;
    let width = labels.len() + set.extra_columns;
    // A bucket has a weight for each column, a fingerprint, and a rarity.
    let buckets = options.bytes / (width + 3);
    let words = vocabulary(items, buckets, progress);
    let known = Vocabulary { prints: &words.0, rarity: &words.1 };
    let mut model = Model::new(set, buckets, width, names, &mut rng);
    let mut mean = vec![0f32; model.table.len()];
    let mut mean_outputs = model.outputs.clone();
    mean_outputs.iter_mut().for_each(|output| {
        output.bias = 0.0;
        output.weights.fill(0.0);
    });
    let mut mean_strange = 0f32;
    let mut order: Vec<usize> = (0..items.len()).collect();
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
            let text = views::view(item, peers, set.typos, &mut rng);
            let features = Features::new(&text, known);
            model.learn(&features, truth[*at], item.kind.weight());
            if rng.f32() < NOISE {
                let features = Features::new(&noise::text(&mut rng), known);
                model.learn(&features, Truth::None, 1.0);
            }
        }
        model.table.iter_mut().for_each(|w| *w *= 1.0 - set.decay);
        if epoch + kept >= options.epochs {
            let add = |mean: &mut [f32], now: &[f32]| {
                mean.iter_mut().zip(now).for_each(|(m, w)| *m += w / kept as f32);
            };
            add(&mut mean, &model.table);
            mean_strange += model.strange_bias / kept as f32;
            for (mean, now) in mean_outputs.iter_mut().zip(&model.outputs) {
                mean.bias += now.bias / kept as f32;
                add(&mut mean.weights, &now.weights);
            }
        }
    }
    Trained {
        labels: labels.to_vec(),
        outputs: mean_outputs,
        strange_bias: mean_strange,
        vocabulary: words,
        table: mean,
    }
}

/// What a text is known to be.
#[derive(Clone, Copy)]
enum Truth {
    /// Of no label.
    None,
    /// Of a label, whichever output.
    Label(usize),
    /// Of an output: a question whose collection is known.
    Output(usize),
}

/// The label of each output, and the truth of each item.  Every label has an
/// output for each collection that gave it `least` questions, and one for the rest.
fn outputs(items: &[&Item], labels: &[String], least: usize) -> (Vec<usize>, Vec<Truth>) {
    let of = |item: &Item| labels.iter().position(|label| *label == item.domain);
    let mut collections: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for item in items {
        if let (Some(label), Some(source)) = (of(item), item.source.as_deref()) {
            *collections.entry((label, source)).or_default() += 1;
        }
    }
    collections.retain(|_, count| *count >= least);
    let of_labels = 0..labels.len();
    let names = of_labels.chain(collections.keys().map(|(label, _)| *label)).collect();
    let truth = |item: &&Item| match (of(item), item.source.as_deref()) {
        (None, _) => Truth::None,
        (Some(label), None) => Truth::Label(label),
        (Some(label), Some(source)) => {
            let at = collections.keys().position(|key| *key == (label, source));
            Truth::Output(at.map_or(label, |at| labels.len() + at))
        }
    };
    (names, items.iter().map(truth).collect())
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
    set: Settings,
    labels: usize,
    columns: usize,
    /// `[buckets][columns]`, and the sum of its squared gradients.
    table: Vec<f32>,
    moved: Vec<f32>,
    outputs: Vec<Output>,
    /// `[outputs]`: as `moved`, of the weights and of the bias.
    outputs_moved: Vec<(Vec<f32>, f32)>,
    strange_bias: f32,
    strange_moved: f32,
}

impl Model {
    /// `names` are the labels of the outputs.
    fn new(set: Settings, buckets: usize, width: usize, names: Vec<usize>, rng: &mut Rng) -> Model {
        let labels = names.iter().copied().max().map_or(0, |most| most + 1);
        let columns = width + 1;
        // Each output begins as its label's own column, so that the worst that can
        // come of it is one column a label; the columns beyond tell outputs apart.
        let output = |label: usize| {
            let weight = |at: usize| match at {
                _ if at == label => 1.0,
                _ if at < labels => 0.0,
                _ => 0.6 * (rng.f32() - 0.5),
            };
            Output { label, bias: 0.0, weights: (0..width).map(weight).collect() }
        };
        let outputs: Vec<Output> = names.into_iter().map(output).collect();
        Model {
            set,
            labels,
            columns,
            table: vec![0.0; buckets * columns],
            // Keeps the very first steps from being as large as the rate.
            moved: vec![1e-3; buckets * columns],
            outputs_moved: vec![(vec![1.0; width], 1.0); outputs.len()],
            outputs,
            strange_bias: 0.0,
            strange_moved: 1.0,
        }
    }

    /// One step.
    fn learn(&mut self, features: &Features, truth: Truth, weight: f32) {
        let rate = self.set.rate;
        let columns = self.columns;
        let row = |bucket: u32| bucket as usize * columns..(bucket as usize + 1) * columns;
        let mut sums = vec![0f32; columns];
        for f in &features.list {
            for (sum, w) in sums.iter_mut().zip(&self.table[row(f.bucket)]) {
                *sum += f.value * w;
            }
        }
        // By column: the loss's slope.
        let mut slope = vec![0f32; columns];
        let strange = 1.0 / (1.0 + (-sums[columns - 1] - self.strange_bias).exp());
        let target = if matches!(truth, Truth::None) { 1.0 } else { 0.0 };
        slope[columns - 1] = (strange - target) * weight.min(1.0);
        // What is strange says nothing about the labels.
        if !matches!(truth, Truth::None) {
            let off = self.off(&sums, truth);
            let step = self.set.output_rate;
            for ((output, moved), off) in
                self.outputs.iter_mut().zip(&mut self.outputs_moved).zip(off)
            {
                let off = off * weight;
                let weights = output.weights.iter_mut().zip(&mut moved.0);
                for ((w, moved), (sum, slope)) in weights.zip(sums.iter().zip(&mut slope)) {
                    *slope += off * *w;
                    let gradient = off * sum;
                    *moved += gradient * gradient;
                    *w -= step * gradient / moved.sqrt();
                }
                moved.1 += off * off;
                output.bias -= 0.1 * off / moved.1.sqrt();
            }
        }
        for f in &features.list {
            let range = row(f.bucket);
            let weights = self.table[range.clone()].iter_mut();
            for ((w, moved), slope) in weights.zip(&mut self.moved[range]).zip(&slope) {
                let gradient = slope * f.value;
                *moved += gradient * gradient;
                *w -= rate * gradient / moved.sqrt();
            }
        }
        let off = slope[columns - 1];
        self.strange_moved += off * off;
        self.strange_bias -= 0.1 * off / self.strange_moved.sqrt();
    }

    /// By output: probability less truth.
    fn off(&self, sums: &[f32], truth: Truth) -> Vec<f32> {
        let score = |output: &Output| {
            output.bias + output.weights.iter().zip(sums).map(|(w, s)| w * s).sum::<f32>()
        };
        let likely = softmax(&self.outputs.iter().map(score).collect::<Vec<f32>>(), 1.0);
        let mut of_label = vec![f32::MIN_POSITIVE; self.labels];
        for (output, p) in self.outputs.iter().zip(&likely) {
            of_label[output.label] += p;
        }
        let smoothing = self.set.smoothing;
        let target = |at: usize| {
            let label = self.outputs[at].label;
            // Where only the label is known, its outputs keep their shares.
            let share = likely[at] / of_label[label];
            let own = match truth {
                Truth::Output(output) if output == at => 1.0,
                Truth::Label(truth) if truth == label => share,
                _ => 0.0,
            };
            own * (1.0 - smoothing) + share * smoothing / self.labels as f32
        };
        likely.iter().enumerate().map(|(at, p)| p - target(at)).collect()
    }
}
