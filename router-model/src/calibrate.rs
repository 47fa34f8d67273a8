//! Probabilities that mean what they say, and how far they do.

/// Probabilities of logits at a temperature.
pub(crate) fn softmax(logits: &[f32], temperature: f32) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|z| ((z - most) / temperature).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The temperature with the least mean negative log likelihood on held-out
/// `(logits, truth)` pairs; 1 where there are none.
///
/// The loss has one valley in the logarithm of the temperature, so a golden
/// section finds it.  Source: Guo et al., On Calibration of Modern Neural
/// Networks (arXiv 1706.04599).
pub(crate) fn temperature(held_out: &[(Vec<f32>, usize)]) -> f32 {
    if held_out.is_empty() {
        return 1.0;
    }
    let loss = |log_t: f64| -> f64 {
        let t = log_t.exp() as f32;
        let of = |(logits, truth): &(Vec<f32>, usize)| {
            -f64::from(softmax(logits, t)[*truth].max(f32::MIN_POSITIVE)).ln()
        };
        held_out.iter().map(of).sum()
    };
    const GOLDEN: f64 = 0.618_033_988_749_895;
    // Temperatures from 0.05 to 20: beyond, something else is wrong.
    let (mut low, mut high) = (0.05f64.ln(), 20f64.ln());
    while high - low > 1e-3 {
        let (a, b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        if loss(a) < loss(b) {
            high = b;
        } else {
            low = a;
        }
    }
    f64::midpoint(low, high).exp() as f32
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

    /// Logits three times too large, right as often as the true ones say, are
    /// brought back by a temperature of three.
    #[test]
    fn finds_the_temperature() {
        for (times, want) in [(3.0, 3.0), (1.0, 1.0), (0.2, 0.2)] {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut held_out = Vec::new();
            for _ in 0..20_000 {
                let logits = vec![4.0 * rng.f32(), 4.0 * rng.f32(), 4.0 * rng.f32()];
                let p = softmax(&logits, 1.0);
                let draw = rng.f32();
                let truth = if draw < p[0] { 0 } else { 1 + usize::from(draw > p[0] + p[1]) };
                held_out.push((logits.iter().map(|z| z * times).collect(), truth));
            }
            let got = temperature(&held_out);
            assert!((got / want - 1.0).abs() < 0.05, "{got}, want {want}");
        }
        near(f64::from(temperature(&[])), 1.0);
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
