//! Finds what an encoder counts beside the lexical stage, on questions that neither
//! learnt from.

use crate::Mix;
use crate::calibrate::softmax;

/// What both stages say of a question.
pub(super) struct Both {
    /// Calibrated logits.
    pub(super) lexical: Vec<f32>,
    pub(super) encoder: Vec<f32>,
    pub(super) truth: usize,
}

/// By how much of itself asking less often may raise the loss: less than accuracy can
/// tell on a thousand questions, and a question that is not asked takes a fiftieth of
/// the time.
const LOSS: f64 = 0.05;

/// Weight and temperature of the least mean negative log likelihood; then the lowest
/// bound above which the lexical stage is believed alone at little loss; then the
/// temperature at which both are as sure as they are right.
pub(super) fn find(asked: &[Both]) -> Mix {
    let tenths = |from: u8, to: u8| (from..=to).map(|n| f32::from(n) / 10.0);
    let always = |weight, temperature| Mix { weight, temperature, below: 2.0 };
    let tried = tenths(1, 30).flat_map(|w| tenths(5, 30).map(move |t| always(w, t)));
    let scored = tried.map(|mix| (mix, loss(asked, mix)));
    let best = scored.min_by(|a, b| a.1.total_cmp(&b.1));
    let (best, least) = best.unwrap_or((Mix::default(), 0.0));
    let bounds = (40..=100u8).map(|n| Mix { below: f32::from(n) / 100.0, ..best });
    let cheap = bounds.into_iter().find(|mix| loss(asked, *mix) <= least * (1.0 + LOSS));
    as_sure_as_right(asked, cheap.unwrap_or(best))
}

/// Moves the temperature, by a factor of at most two, to where the mean confidence is
/// the accuracy; the likeliest one left both 1.4 points too sure on a thousand questions.
///
/// Source: Clarté et al., Expectation consistency for calibration of neural networks
/// (arXiv 2303.02644).
fn as_sure_as_right(asked: &[Both], mix: Mix) -> Mix {
    let too_sure = |mix: Mix| {
        let of = |both: &Both| {
            let p = probabilities(both, mix);
            let (label, sure) = (0..p.len()).map(|at| (at, p[at])).fold((0, 0.0), larger);
            f64::from(sure) - f64::from(u8::from(label == both.truth))
        };
        asked.iter().map(of).sum::<f64>() > 0.0
    };
    let (mut low, mut high) = (mix.temperature / 2.0, mix.temperature * 2.0);
    // Confidence falls as the temperature rises; accuracy does not depend on it.
    while high - low > 0.01 {
        let temperature = f32::midpoint(low, high);
        match too_sure(Mix { temperature, ..mix }) {
            true => low = temperature,
            false => high = temperature,
        }
    }
    let temperature = if asked.is_empty() { mix.temperature } else { f32::midpoint(low, high) };
    Mix { temperature, ..mix }
}

fn larger(a: (usize, f32), b: (usize, f32)) -> (usize, f32) {
    if b.1 > a.1 { b } else { a }
}

fn probabilities(both: &Both, mix: Mix) -> Vec<f32> {
    let alone = softmax(&both.lexical, 1.0);
    match alone.iter().copied().fold(0f32, f32::max) < mix.below {
        true => softmax(&mix.sum(&both.lexical, &both.encoder), 1.0),
        false => alone,
    }
}

fn loss(asked: &[Both], mix: Mix) -> f64 {
    let of = |both: &Both| -f64::from(probabilities(both, mix)[both.truth].max(1e-9)).ln();
    asked.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(lexical: [f32; 2], encoder: [f32; 2], truth: usize) -> Both {
        Both { lexical: lexical.to_vec(), encoder: encoder.to_vec(), truth }
    }

    // Where the lexical stage is sure it is right; where it is not, the encoder is.
    #[test]
    fn asks_where_it_pays() {
        let mut asked = Vec::new();
        for truth in [0, 1] {
            let to = |strength: f32| if truth == 0 { [strength, 0.0] } else { [0.0, strength] };
            for _ in 0..40 {
                asked.push(both(to(6.0), to(2.0), truth));
                asked.push(both([0.1, 0.0], to(2.0), truth));
            }
            // One in ten goes wrong, so that being surer still does not pay.
            (0..5).for_each(|_| asked.push(both([0.1, 0.0], to(-2.0), truth)));
        }
        let mix = find(&asked);
        assert!(mix.is_sound() && (0.53..0.9).contains(&mix.below), "{mix:?}");
        assert!(loss(&asked, mix) < 0.6 * loss(&asked, Mix { below: 0.0, ..mix }));
    }

    // Both stages are loud, and right three times in four however loud they are: no
    // temperature says that, and the likeliest is not the one as sure as right.
    #[test]
    fn is_as_sure_as_it_is_right() {
        let loud = |n: u8| if n.is_multiple_of(3) { 9.0 } else { 2.0 };
        let one = |n: u8| both([loud(n), 0.0], [loud(n), 0.0], usize::from(n.is_multiple_of(4)));
        let asked: Vec<Both> = (0..240).map(one).collect();
        let mix = find(&asked);
        let sure = |both| probabilities(both, mix).into_iter().fold(0f32, f32::max);
        let mean = asked.iter().map(sure).sum::<f32>() / 240.0;
        assert!((mean - 0.75).abs() < 0.01, "{mean} at {mix:?}");
    }

    // An encoder of coin tosses counts as little as can be tried.
    #[test]
    fn hears_no_noise() {
        let asked: Vec<Both> = (0..200)
            .map(|n: u32| {
                let toss =
                    if n.wrapping_mul(2_654_435_761) >> 31 == 0 { [3.0, 0.0] } else { [0.0, 3.0] };
                both([2.0, 0.0], toss, usize::from(n.is_multiple_of(8)))
            })
            .collect();
        let mix = find(&asked);
        assert!(mix.weight <= 0.2, "{mix:?}");
    }
}
