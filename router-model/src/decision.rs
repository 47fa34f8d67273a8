//! What the supervisor answers; the shape of `POST /v1/route` and of
//! `collegium route --json`.

use serde::{Deserialize, Serialize};

/// Where a query goes, how sure that is, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// An enabled domain's id; `None` is an abstention.
    pub domain: Option<String>,
    /// The calibrated probability, 0 to 1, of the likeliest alternative, chosen
    /// or not; 0 where there was nothing to judge.
    pub confidence: f32,
    pub abstained: bool,
    pub rule: Rule,
    /// Why the supervisor abstained; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// How far the likeliest alternative is ahead of the next, in probability.
    #[serde(default)]
    pub margin: f32,
    /// The conformal set: on questions like the held-out ones, the right label is
    /// among these as often as the weights' header says (four in five).
    #[serde(default)]
    pub set: Vec<String>,
    /// The probability that the text is like anything seen in training, 0 to 1.
    #[serde(default)]
    pub familiarity: f32,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Classifier,
    #[default]
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

/// Why no domain was chosen; the first that holds, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing was said, or only a greeting.
    Empty,
    /// Unlike anything seen: small talk, another language, noise.
    Unfamiliar,
    /// The likeliest label is below the threshold.
    Unsure,
    /// More than one label, or none, is in the conformal set.
    Ambiguous,
    /// The likeliest label is `other`, or a domain that is not enabled.
    NotRouted,
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

impl Decision {
    /// How far a text seems to belong anywhere, 0 to 1: the share of the likeliest label
    /// among those that are routed to; one that is not (`other`) is no place to belong.
    /// Source: the maximum softmax probability of Hendrycks and Gimpel (arXiv
    /// 1610.02136), over routed domains.
    pub(crate) fn belonging(&self, routed: impl Fn(&str) -> bool) -> f32 {
        let shares = self.alternatives.iter().filter(|a| routed(&a.domain));
        shares.map(|a| a.probability).fold(0f32, f32::max)
    }
}
