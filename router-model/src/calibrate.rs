//! Probabilities that mean what they say, and how far they do.

use serde::{Deserialize, Serialize};

/// Probabilities of logits at a temperature.
pub(crate) fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|z| ((z - most) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// A temperature that depends on how much a text says: `exp(base + words *
/// ln(1 + n) + unknown * (share of the text never seen))` for a text of `n` words.
///
/// Features have the same length whatever the text's, so that a short question is
/// as loud as a long one, but not as reliable or unreliable.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    pub base: f32,
    pub words: f32,
    pub unknown: f32,
}

impl Heat {
    /// Leaves logits as they are.
    pub(crate) const NONE: Heat = Heat { base: 0.0, words: 0.0, unknown: 0.0 };

    /// The temperature of a text, kept from 0.05 to 20: beyond, something else is
    /// wrong.
    pub(crate) fn at(&self, said: Said) -> f32 {
        let words = (1.0 + said.words as f32).ln();
        let heat = self.base + self.words * words + self.unknown * (1.0 - said.known);
        heat.exp().clamp(0.05, 20.0)
    }

    pub(crate) fn is_sound(&self) -> bool {
        [self.base, self.words, self.unknown].iter().all(|x| x.is_finite() && x.abs() < 100.0)
    }
}

/// How much a text says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Said {
    /// Words that can say something.
    pub(crate) words: usize,
    /// Share of its n-grams, by rarity, that training has seen; 0 to 1.
    pub(crate) known: f32,
}

/// What the weights made of a held-out text, and what it was.
pub(crate) struct HeldOut {
    pub(crate) logits: Vec<f32>,
    pub(crate) said: Said,
    pub(crate) familiarity: f32,
    pub(crate) truth: usize,
}

impl HeldOut {
    pub(crate) fn probabilities(&self, heat: Heat) -> Vec<f32> {
        probabilities(&self.logits, heat.at(self.said), self.familiarity)
    }
}

/// Probabilities of logits; where a text is unlike anything seen, any label is as
/// good as another.
pub(crate) fn probabilities(logits: &[f32], temperature: f32, familiarity: f32) -> Vec<f32> {
    let even = (1.0 - familiarity) / logits.len().max(1) as f32;
    let mut list = softmax(logits, temperature);
    list.iter_mut().for_each(|p| *p = *p * familiarity + even);
    list
}

/// The temperatures with the least mean negative log likelihood on held-out
/// texts; [`Heat::NONE`] where there are none.
///
/// Each number in turn has one valley, which a golden section finds; a few rounds
/// over the three do.  Source of the loss: Guo et al., On Calibration of Modern
/// Neural Networks (arXiv 1706.04599).
pub(crate) fn heat(held_out: &[HeldOut]) -> Heat {
    const ROUNDS: usize = 8;
    let count = held_out.len().max(1) as f32;
    let words = held_out.iter().map(|one| (1.0 + one.said.words as f32).ln()).sum::<f32>() / count;
    let unknown = held_out.iter().map(|one| 1.0 - one.said.known).sum::<f32>() / count;
    // Around the mean text: else a change of one number asks for one of another.
    let around =
        |mean: Heat| Heat { base: mean.base - mean.words * words - mean.unknown * unknown, ..mean };
    let loss = |mean: Heat| -> f64 {
        let heat = around(mean);
        let of = |one: &HeldOut| {
            let p = one.probabilities(heat).get(one.truth).copied().unwrap_or(0.0);
            -f64::from(p.max(f32::MIN_POSITIVE)).ln()
        };
        // A little ridge: a number that buys nothing stays at zero.
        let ridge = f64::from(mean.words.powi(2) + mean.unknown.powi(2)) * 0.1;
        held_out.iter().map(of).sum::<f64>() + ridge
    };
    if held_out.is_empty() {
        return Heat::NONE;
    }
    let mut best = Heat::NONE;
    for _ in 0..ROUNDS {
        best.base = golden(-3.0, 3.0, |x| loss(Heat { base: x, ..best }));
        best.words = golden(-1.0, 1.0, |x| loss(Heat { words: x, ..best }));
        best.unknown = golden(-2.0, 2.0, |x| loss(Heat { unknown: x, ..best }));
    }
    around(best)
}

/// Where a function with one valley is least.
fn golden(low: f32, high: f32, of: impl Fn(f32) -> f64) -> f32 {
    const GOLDEN: f32 = 0.618_034;
    let (mut low, mut high) = (low, high);
    while high - low > 2e-3 {
        let (a, b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        if of(a) < of(b) {
            high = b;
        } else {
            low = a;
        }
    }
    f32::midpoint(low, high)
}

/// The least probability with which a label is in the set, so that the truth is in
/// it for `coverage` of texts like the held-out ones.
///
/// Split conformal prediction: the quantile of the truth's probability, with the
/// correction for a finite list.  Source: Angelopoulos and Bates (arXiv
/// 2107.07511), section 1.
pub(crate) fn set_from(mut of_truth: Vec<f32>, coverage: f64) -> f32 {
    of_truth.sort_by(f32::total_cmp);
    let n = of_truth.len() as f64;
    // So many of the truths may be left out.
    let out = ((n + 1.0) * (1.0 - coverage)).floor() as usize;
    // Too few to say anything: every label is in the set.
    out.checked_sub(1).and_then(|at| of_truth.get(at)).copied().unwrap_or(0.0)
}

/// Area under the curve: how often a text of a domain has more `confidence` than
/// one that belongs to none; a tie counts half.  `None` without both.
pub(crate) fn auc(inside: &[f32], outside: &[f32]) -> Option<f64> {
    if inside.is_empty() || outside.is_empty() {
        return None;
    }
    let mut outside = outside.to_vec();
    outside.sort_by(f32::total_cmp);
    let wins = |x: &f32| {
        let below = outside.partition_point(|y| y.total_cmp(x).is_lt());
        let until = outside.partition_point(|y| y.total_cmp(x).is_le());
        (below + until) as f64 / 2.0
    };
    let sum: f64 = inside.iter().map(wins).sum();
    Some(sum / inside.len() as f64 / outside.len() as f64)
}

/// One answer of a classifier: how sure it was, and whether it was right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Guess {
    pub(crate) confidence: f32,
    pub(crate) right: bool,
}

/// Expected calibration error: mean distance of confidence and accuracy, over 15
/// equal bins of confidence, weighted by their size.
pub(crate) fn ece(guesses: &[Guess]) -> f64 {
    const BINS: usize = 15;
    let mut bins = [(0f64, 0f64); BINS];
    for guess in guesses {
        let bin = ((guess.confidence * BINS as f32) as usize).min(BINS - 1);
        bins[bin].0 += f64::from(guess.confidence);
        bins[bin].1 += f64::from(u8::from(guess.right));
    }
    // |confidence - accuracy| * size / n, with both sums still unnormalised.
    let off: f64 = bins.iter().map(|(confidence, right)| (confidence - right).abs()).sum();
    off / guesses.len().max(1) as f64
}

/// Share of right answers; 0 where there are none.
pub(crate) fn accuracy(guesses: &[Guess]) -> f64 {
    let right = guesses.iter().filter(|guess| guess.right).count();
    right as f64 / guesses.len().max(1) as f64
}

/// Accuracy on the `share` of the guesses that are surest.
pub(crate) fn accuracy_at(guesses: &[Guess], share: f64) -> f64 {
    let mut by_confidence = guesses.to_vec();
    by_confidence.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let keep = (guesses.len() as f64 * share).ceil() as usize;
    accuracy(&by_confidence[..keep.min(guesses.len())])
}

/// What a threshold buys: of all guesses the share at or above it, and of those
/// the share that is right.
pub(crate) fn at_threshold(guesses: &[Guess], threshold: f32) -> (f64, f64) {
    let kept: Vec<Guess> = guesses.iter().copied().filter(|g| g.confidence >= threshold).collect();
    (kept.len() as f64 / guesses.len().max(1) as f64, accuracy(&kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 0.01, "{got}, want {want}");
    }

    /// Each guess reads `confidence+` if right, `confidence-` if wrong.
    fn guesses(text: &str) -> Vec<Guess> {
        let one = |word: &str| Guess {
            confidence: word[..word.len() - 1].parse().unwrap(),
            right: word.ends_with('+'),
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn softmax_is_stable() {
        for logits in [vec![0.0, 0.0], vec![1e5, -1e5], vec![-1e5, -1e5, -1e5]] {
            let p = softmax(&logits, 0.01);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5 && p.iter().all(|p| p.is_finite()));
        }
        near(f64::from(softmax(&[2.0, 0.0], 2.0)[0]), 0.731);
    }

    /// Logits that are too large, the more so the more words there are, and right as
    /// often as the true ones say, are brought back.
    #[test]
    fn finds_the_temperature() {
        for (times, by_words) in [(3.0f32, 0.0), (1.0, 0.0), (0.2, 0.0), (1.0, 0.5)] {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut held_out = Vec::new();
            for n in 0..20_000 {
                let logits = [4.0 * rng.f32(), 4.0 * rng.f32(), 4.0 * rng.f32()];
                let p = softmax(&logits, 1.0);
                let draw = rng.f32();
                let truth = if draw < p[0] { 0 } else { 1 + usize::from(draw > p[0] + p[1]) };
                let said = Said { words: n % 40, known: 1.0 };
                let by = times * (1.0 + said.words as f32).powf(by_words);
                let logits = logits.iter().map(|z| z * by).collect();
                held_out.push(HeldOut { logits, said, familiarity: 1.0, truth });
            }
            let heat = heat(&held_out);
            for words in [0, 5, 39] {
                let want = times * (1.0 + words as f32).powf(by_words);
                let got = heat.at(Said { words, known: 1.0 });
                assert!((got / want - 1.0).abs() < 0.1, "{got}, want {want}");
            }
        }
        assert_eq!(heat(&[]), Heat::NONE);
    }

    /// A set keeps its promise on other texts than those it was made of.
    #[test]
    fn sets_hold_the_truth() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.f32().sqrt()).collect() };
        for coverage in [0.8, 0.9, 0.95] {
            let least = set_from(draw(5_000), coverage);
            let held = draw(5_000).iter().filter(|p| **p >= least).count() as f64 / 5_000.0;
            assert!((held - coverage).abs() < 0.02, "{held}, want {coverage}");
        }
        // Too few to leave any out.
        assert_eq!(set_from(vec![0.9; 5], 0.9), 0.0);
        assert_eq!(set_from(Vec::new(), 0.9), 0.0);
    }

    #[test]
    fn the_area_under_the_curve() {
        near(auc(&[0.9, 0.8], &[0.1, 0.2]).unwrap(), 1.0);
        near(auc(&[0.1], &[0.9]).unwrap(), 0.0);
        near(auc(&[0.5, 0.5], &[0.5]).unwrap(), 0.5);
        near(auc(&[0.9, 0.3], &[0.5]).unwrap(), 0.5);
        assert_eq!(auc(&[0.5], &[]), None);
    }

    #[test]
    fn a_strange_text_is_any_label_alike() {
        let p = probabilities(&[9.0, 0.0], 1.0, 0.0);
        assert_eq!(p, [0.5, 0.5]);
        assert_eq!(probabilities(&[9.0, 0.0], 1.0, 1.0), softmax(&[9.0, 0.0], 1.0));
    }

    #[test]
    fn measures() {
        near(ece(&[]), 0.0);
        near(ece(&guesses("1.0+ 1.0+")), 0.0);
        near(ece(&guesses("1.0+ 1.0-")), 0.5);
        // Sure by 0.8 and right four times in five is calibrated.
        near(ece(&guesses("0.8+ 0.8+ 0.8+ 0.8+ 0.8-")), 0.0);
        near(ece(&guesses("0.9- 0.1+")), 0.9);
        near(accuracy(&guesses("0.9- 0.1+")), 0.5);
        near(accuracy_at(&guesses("0.9+ 0.8+ 0.1-"), 0.6), 1.0);
        near(accuracy_at(&guesses("0.9+ 0.8+ 0.1-"), 1.0), 0.667);
        near(accuracy_at(&[], 0.9), 0.0);
        let (coverage, accuracy) = at_threshold(&guesses("0.9+ 0.5- 0.1+"), 0.5);
        near(coverage, 0.667);
        near(accuracy, 0.5);
    }
}
