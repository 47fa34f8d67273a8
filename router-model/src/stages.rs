//! How the two stages become one answer.
//!
//! The lexical stage always speaks.  An [`Encoder`] is asked where the lexical
//! stage is less sure than [`Mix::below`]; its logits are then added with the
//! weight that held-out questions gave it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encoder::Encoder;

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

/// What an encoder counts beside the lexical stage; found on held-out questions
/// and kept in the header of the encoder's file.
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

/// The logits of both, to be given to a softmax: `lexical` are the calibrated
/// ones, already divided by their temperature.  A stage that answers with
/// another number of labels is not heard.
pub(crate) fn combine(lexical: &[f32], encoder: &dyn Encoder, text: &str) -> Vec<f32> {
    let mix = encoder.mix();
    let second = encoder.logits(text);
    if second.len() != lexical.len() || second.iter().any(|z| !z.is_finite()) {
        return lexical.to_vec();
    }
    let sum = lexical.iter().zip(&second).map(|(a, b)| (a + mix.weight * b) / mix.temperature);
    sum.collect()
}
