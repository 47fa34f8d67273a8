//! Learns what stands beside the lexical weights: how much the encoder counts, and,
//! where it has no classifier of its own for these labels, one on its mean.
//!
//! A classifier is a logistic regression on the mean of the encoder's tokens; the
//! encoder itself stays as it is.

use super::{lbfgs, mix};
use crate::calibrate::Said;
use crate::classifier::Classifier;
use crate::encoder::Encoder;
use crate::features::Features;
use crate::item::{Item, Kind};
use crate::stages::Second;
use crate::{Header, Weights};

/// Half of it times the sum of squared weights is added to the loss of a text, whose
/// mean is scaled to a length of about one; the one that the tuning texts like is taken.
const PENALTIES: &[f32] = &[1e-4, 1e-5, 1e-6];

const STEPS: usize = 200;
const TOLERANCE: f64 = 1e-5;

/// A text as the encoder sees it, and its label's place.
struct Shown {
    mean: Vec<f32>,
    truth: usize,
}

/// Learns from `learn` if need be; `tune` are questions that `weights` never saw.
pub(super) fn find(
    weights: &Weights,
    encoder: &dyn Encoder,
    learn: &[&Item],
    tune: &[&Item],
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Second {
    let header = weights.header();
    let held_out = shown(header, encoder, tune, progress);
    let own = encoder.classifier(&header.labels);
    let learnt = match own {
        Some(_) => None,
        None => {
            // What names its own domain is text as it is asked.
            let asks = |item: &&&Item| match item.kind {
                Kind::Question | Kind::Said => item.own_label,
                kind => kind == Kind::Example,
            };
            let learn: Vec<&Item> = learn.iter().filter(asks).copied().collect();
            let shown = shown(header, encoder, &learn, progress);
            Some(best(&shown, &held_out, header.labels.len(), progress))
        }
    };
    let both = |(item, shown): (&&Item, &Shown)| {
        let features = Features::new(&item.text, weights.vocabulary());
        let heat = header.heat.at(Said { words: features.words, known: features.known });
        let (mut lexical, _) = weights.judge(&features);
        lexical.iter_mut().for_each(|z| *z /= heat);
        let classifier = learnt.as_ref().or(own.as_ref());
        let encoder = classifier.map(|c| c.logits(&shown.mean)).unwrap_or_default();
        mix::Both { lexical, encoder, truth: shown.truth }
    };
    let labelled = tune.iter().filter(|item| header.labels.contains(&item.domain));
    let asked: Vec<mix::Both> = labelled.zip(&held_out).map(both).collect();
    Second { encoder: encoder.fingerprint(), mix: mix::find(&asked), classifier: learnt }
}

fn shown(
    header: &Header,
    encoder: &dyn Encoder,
    items: &[&Item],
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Vec<Shown> {
    let mut list = Vec::new();
    for (done, item) in items.iter().enumerate() {
        if done % 64 == 0 {
            progress(done as u64, items.len() as u64, "asking the encoder");
        }
        if let Some(truth) = header.labels.iter().position(|label| *label == item.domain) {
            list.push(Shown { mean: encoder.embed(&item.text), truth });
        }
    }
    list
}

/// The classifier of the penalty that loses least on texts held out.
fn best(
    learn: &[Shown],
    held_out: &[Shown],
    labels: usize,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Classifier {
    let tried = PENALTIES.iter().enumerate().map(|(done, penalty)| {
        progress(done as u64, PENALTIES.len() as u64, "training the encoder's classifier");
        let classifier = fit(learn, labels, *penalty);
        let loss: f64 =
            held_out.iter().map(|one| loss(&classifier.logits(&one.mean), one.truth).0).sum();
        (loss, classifier)
    });
    let best = tried.min_by(|a, b| a.0.total_cmp(&b.0));
    // There is at least one penalty.
    best.map_or_else(|| fit(learn, labels, PENALTIES[0]), |(_, classifier)| classifier)
}

fn fit(learn: &[Shown], labels: usize, penalty: f32) -> Classifier {
    let width = learn.first().map_or(0, |one| one.mean.len());
    let length = |one: &Shown| one.mean.iter().map(|x| x * x).sum::<f32>().sqrt();
    let scale = learn.iter().map(length).sum::<f32>() / learn.len().max(1) as f32;
    let scale = if scale > 0.0 { scale } else { 1.0 };
    // `[labels][width]`, then the biases.
    let mut x = vec![0f32; labels * (width + 1)];
    let split = labels * width;
    let mut of = |x: &[f32], slope: &mut [f32]| -> f64 {
        slope.fill(0.0);
        let mut sum = 0f64;
        for one in learn {
            let row = |label: usize| &x[label * width..(label + 1) * width];
            let z = |label| {
                let product: f32 = row(label).iter().zip(&one.mean).map(|(w, m)| w * m).sum();
                product / scale + x[split + label]
            };
            let (value, off) = loss(&(0..labels).map(z).collect::<Vec<f32>>(), one.truth);
            sum += value;
            for (label, off) in off.into_iter().enumerate() {
                slope[split + label] += off;
                let row = &mut slope[label * width..(label + 1) * width];
                row.iter_mut().zip(&one.mean).for_each(|(s, m)| *s += off * m / scale);
            }
        }
        let n = learn.len().max(1) as f32;
        slope.iter_mut().for_each(|s| *s /= n);
        let mut squares = 0f64;
        for (s, w) in slope[..split].iter_mut().zip(x) {
            *s += penalty * w;
            squares += f64::from(w * w);
        }
        sum / f64::from(n) + 0.5 * f64::from(penalty) * squares
    };
    lbfgs::minimise(&mut x, STEPS, TOLERANCE, &mut of, &mut |_| ());
    let biases = x.split_off(split);
    let rows = x.chunks_exact(width.max(1)).map(|row| row.iter().map(|w| w / scale).collect());
    Classifier { weights: rows.collect(), biases }
}

/// Negative log likelihood of `truth`, and its slope by logit.
fn loss(logits: &[f32], truth: usize) -> (f64, Vec<f32>) {
    let mut off = crate::calibrate::softmax(logits, 1.0);
    let value = -f64::from(off[truth].max(1e-9)).ln();
    off[truth] -= 1.0;
    (value, off)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two labels, told by the sign of the first number; the second is noise.
    fn shown(count: usize, strength: f32) -> Vec<Shown> {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut one = |at: usize| {
            let truth = at % 2;
            let sign = if truth == 0 { 1.0 } else { -1.0 };
            Shown { mean: vec![sign * strength, (rng.f32() - 0.5) * strength], truth }
        };
        (0..count).map(&mut one).collect()
    }

    // Also where an encoder's numbers are very large or small.
    #[test]
    fn a_classifier_learns_what_tells_labels_apart() {
        for strength in [1e-3, 1.0, 1e3] {
            let (learn, held_out) = (shown(60, strength), shown(20, strength));
            let classifier = best(&learn, &held_out, 2, &mut |_, _, _| ());
            assert!(classifier.is_sound(2));
            for one in held_out {
                let z = classifier.logits(&one.mean);
                assert!(
                    z[one.truth] - z[1 - one.truth] > 1.0,
                    "{z:?} for {} at {strength}",
                    one.truth
                );
            }
        }
        // Nothing to learn from is no panic.
        assert_eq!(fit(&[], 2, 1e-4).biases, [0.0, 0.0]);
    }
}
