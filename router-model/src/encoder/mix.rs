//! How much an encoder says beside the lexical stage.

use serde::{Deserialize, Serialize};

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
