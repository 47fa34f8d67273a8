//! How the two stages become one answer.
//!
//! The lexical stage always speaks.  An [`Encoder`] is asked where the lexical stage is
//! less sure than [`Mix::below`]; its logits are then added with the weight that
//! held-out questions gave it ([`train`](crate::train)).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::calibrate::softmax;
use crate::classifier::Classifier;
use crate::encoder::{Encoder, EncoderError};

/// Which stages answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    Lexical,
    #[default]
    Both,
}

impl FromStr for Stage {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Stage, Self::Err> {
        match text {
            "lexical" => Ok(Stage::Lexical),
            "both" => Ok(Stage::Both),
            _ => Err("lexical or both is expected"),
        }
    }
}

/// What an encoder counts beside the lexical stage; part of the lexical weights, whose
/// training finds it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Of the encoder's logits, added to the calibrated lexical ones.
    pub weight: f32,
    /// What the sum is divided by.
    pub temperature: f32,
    /// The encoder is asked where the lexical stage's best probability is lower.
    pub below: f32,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { weight: 1.0, temperature: 1.0, below: 1.0 }
    }
}

impl Mix {
    /// Whether its numbers can be used.
    pub(crate) fn is_sound(&self) -> bool {
        (0.0..=100.0).contains(&self.weight)
            && (1e-3..=1e3).contains(&self.temperature)
            && (0.0..=2.0).contains(&self.below)
    }

    /// Logarithms of probabilities, of both stages' logits `[labels]`.
    pub(crate) fn sum(self, lexical: &[f32], encoder: &[f32]) -> Vec<f32> {
        let lexical = log_softmax(lexical);
        let both = lexical.iter().zip(encoder);
        let both = both.map(|(a, b)| (a + self.weight * b) / self.temperature);
        log_softmax(&both.collect::<Vec<f32>>())
    }
}

/// What training found for the encoder that was to stand beside the lexical weights;
/// it is kept in their header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which encoder it was: a checksum of its numbers.
    pub encoder: u64,
    pub mix: Mix,
    /// Where the encoder has none of its own for the weights' labels.
    pub classifier: Option<Classifier>,
}

/// An encoder beside weights whose labels it can score.
#[derive(Debug)]
pub(crate) struct Asked {
    encoder: Box<dyn Encoder>,
    classifier: Classifier,
    mix: Mix,
}

impl Asked {
    /// Its classifier is what training found for it, else its own; of an encoder that
    /// training did not know, the [`Mix`] of the one it knew is the nearest there is.
    pub(crate) fn new(
        encoder: Box<dyn Encoder>,
        labels: &[String],
        second: Option<&Second>,
    ) -> Result<Asked, EncoderError> {
        let learnt = second.filter(|second| second.encoder == encoder.fingerprint());
        let learnt = learnt.and_then(|second| second.classifier.clone());
        let classifier = learnt.or_else(|| encoder.classifier(labels));
        let classifier = classifier.ok_or_else(|| EncoderError::Labels {
            got: encoder.labels().join(", "),
            want: labels.join(", "),
        })?;
        Ok(Asked { encoder, classifier, mix: second.map(|s| s.mix).unwrap_or_default() })
    }

    /// The answer to a text: `lexical` are calibrated logits, already divided by their
    /// temperature, and so is what comes back.
    pub(crate) fn answer(&self, lexical: Vec<f32>, text: &str) -> Vec<f32> {
        let sure = softmax(&lexical, 1.0).into_iter().fold(0f32, f32::max);
        match sure < self.mix.below {
            true => self.mix.sum(&lexical, &self.classifier.logits(&self.encoder.embed(text))),
            false => lexical,
        }
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let all = most + logits.iter().map(|z| (z - most).exp()).sum::<f32>().ln();
    logits.iter().map(|z| z - all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVEN: Mix = Mix { weight: 1.0, temperature: 1.0, below: 2.0 };

    #[track_caller]
    fn check(mix: Mix, lexical: &[f32], encoder: &[f32], want: &[f32]) {
        let logs: Vec<f32> = lexical.iter().map(|p: &f32| p.ln()).collect();
        let got: Vec<f32> = mix.sum(&logs, encoder).iter().map(|z| z.exp()).collect();
        let near = got.len() == want.len()
            && got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5);
        assert!(near, "{got:?}, not {want:?}");
    }

    #[test]
    fn shares_of_both() {
        let ln4 = 4f32.ln();
        check(EVEN, &[0.5, 0.5], &[ln4, 0.0], &[0.8, 0.2]);
        check(Mix { weight: 0.5, ..EVEN }, &[0.5, 0.5], &[ln4, 0.0], &[2.0 / 3.0, 1.0 / 3.0]);
        check(Mix { temperature: 2.0, ..EVEN }, &[0.8, 0.2], &[ln4, 0.0], &[0.8, 0.2]);
    }
}
