//! How the two stages become one answer.
//!
//! The lexical stage always speaks.  An [`Encoder`] is asked where the lexical
//! stage is less sure than [`Mix::below`](crate::Mix); its logits are then added with the
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
