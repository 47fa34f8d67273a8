//! What the supervisor answers; the shape of `POST /v1/route` and of
//! `collegium route --json`.

use serde::{Deserialize, Serialize};

/// Where a query goes, how sure that is, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// An enabled domain's id; `None` is an abstention.
    pub domain: Option<String>,
    /// The calibrated probability, 0 to 1, of the likeliest alternative, chosen
    /// or not; 0 where there was nothing to judge.
    pub confidence: f32,
    pub abstained: bool,
    pub rule: Rule,
    /// Every label with its probability, likeliest first; they sum to 1.  Labels
    /// that are not routed to (`other`, disabled domains) are among them.
    pub alternatives: Vec<Alternative>,
    /// What spoke most for the first alternative, and what against it.
    pub evidence: Vec<Evidence>,
    /// How long deciding took, in microseconds.
    pub micros: u64,
}

/// Which rule decided.  The supervisor itself knows the first two; the others
/// are the gateway's, which sees conversations, keys and feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Classifier,
    Abstained,
    /// The conversation stays where it is.
    Sticky,
    /// In the middle of a tool loop.
    Locked,
    /// An abstention answered by the configured fallback.
    Fallback,
    /// The request named its model.
    Pinned,
    /// An editor's completion of code.
    Code,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    pub domain: String,
    pub probability: f32,
}

/// A word or a pair of words, and how far it moved the first alternative above
/// (or, below zero, under) the average label, in logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub text: String,
    pub weight: f32,
}
