//! What an evaluation found, as it is kept: one JSON file, from which the
//! Markdown and the page are made without the models.
//!
//! Rows are subjects, columns are domains; a cell that was not measured is
//! absent.  Numbers are finite.

use engine::Masking;
use serde::{Deserialize, Serialize};

use super::statistics::{Correlation, Estimate, share};

/// The format's name and version.
pub const FORMAT: &str = "collegium.evaluation/1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub format: String,
    pub origin: Origin,
    /// The parent, then the masks as given, then the controls.
    pub subjects: Vec<Subject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions: Option<Questions>,
    /// Of questions and of text, where there are two masks or more.
    #[serde(default)]
    pub transfer: Vec<Transfer>,
    /// From the profiles that were given.
    #[serde(default)]
    pub usage: Vec<Usage>,
}

impl Evaluation {
    /// Whether Y can be of accuracy: it must be more than luck, unless there is nothing else.
    pub fn by_accuracy(&self) -> bool {
        let questions = self.questions.as_ref();
        questions.is_some_and(|q| self.text.is_none() || q.beats_guessing())
    }
}

/// What it was made from, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// SHA-256 of the parent's file.
    pub parent: String,
    /// Its name and architecture, as its file says.
    pub name: String,
    pub architecture: String,
    pub layers: usize,
    /// Routed experts in a layer that has them.
    pub experts: usize,
    pub top_k: usize,
    /// Bytes of all tensors that are not routed experts.
    pub backbone_bytes: u64,
    /// Texts, questions and profiles.
    pub files: Vec<Source>,
    /// Of the controls, the draws and the resampling.
    pub seed: u64,
    pub version: String,
    /// As it was typed; empty where there was none.
    pub command: String,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `corpus`, `questions`, `profile`.
    pub role: String,
    /// Without its folder.
    pub name: String,
    pub sha256: String,
}

/// The parent, or one choice of its experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Unlike every other's.
    pub name: String,
    pub kind: Kind,
    /// The domain it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Of a control, the size or the mask that it stands beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// What its experts were ranked by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<String>,
    /// SHA-256 of the mask's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_sha256: Option<String>,
    /// Bytes of its experts.
    pub expert_bytes: u64,
    /// Kept ids, by layer; of the parent all.
    pub kept: Vec<Vec<u32>>,
    /// Where in the router the mask acts; a control does as what it stands beside.
    #[serde(default, skip_serializing_if = "Masking::is_default")]
    pub masking: Masking,
    /// Share of its domain's gate mass on kept experts, by layer, as its mask says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Parent,
    Mask,
    /// As many experts, drawn by lot.
    Random,
    /// As many experts, those that most tokens chose.
    Frequency,
}

impl Subject {
    /// Experts kept, over all layers.
    pub fn total(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }
}

/// Held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    pub columns: Vec<Heading>,
    /// [subjects][columns]
    pub cells: Vec<Vec<Option<TextCell>>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heading {
    pub name: String,
    /// Tokens scored; of questions, their number.
    pub tokens: u64,
    /// What intervals are made of: stretches of at most 128 tokens, or questions.
    #[serde(default)]
    pub items: u64,
    /// SHA-256 of what was read, as token ids.
    #[serde(default)]
    pub sha256: String,
}

/// One subject on one domain's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextCell {
    /// Negative log-likelihood a token, nats.
    pub nats: Estimate,
    /// The same above the parent's, on the same tokens.
    pub cost: Estimate,
    /// exp(-cost): the parent's perplexity by the subject's.
    pub ratio: Estimate,
    /// Share of tokens for which the most probable one is the parent's.
    pub agreement: Estimate,
    /// Mean KL(parent || subject), nats a token.
    pub kl: Estimate,
}

/// Multiple choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Questions {
    pub by: By,
    /// What answers were made with; absent by likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    pub columns: Vec<Heading>,
    /// Share that a guess gets right, by column.
    pub guessing: Vec<f64>,
    /// [subjects][columns]
    pub cells: Vec<Vec<Option<QuestionCell>>>,
}

impl Questions {
    /// Whether the parent, the first subject, answers clearly better than by luck, over all questions.
    pub fn beats_guessing(&self) -> bool {
        let parent = || self.cells.first().into_iter().flatten().zip(&self.guessing);
        let counted = || parent().filter_map(|(cell, guess)| Some((cell.as_ref()?, guess)));
        let n: usize = counted().map(|(cell, _)| cell.n).sum();
        let right: usize = counted().map(|(cell, _)| cell.right).sum();
        let luck: f64 = counted().map(|(cell, guess)| cell.n as f64 * guess).sum();
        let low = share(right, n).spread.map_or(0.0, |spread| spread.low);
        low * n as f64 > luck
    }
}

/// How a choice is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// From the answer that the model writes.
    Answer,
    /// The option whose text has the fewest nats a token.
    Likelihood,
}

/// One subject on one domain's questions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionCell {
    pub n: usize,
    pub right: usize,
    pub accuracy: Estimate,
    /// First answers that went round in circles or did not end.
    pub loops: usize,
    /// Of those, as many ended at the second try.
    pub recovered: usize,
    /// Answers that ended, and name no option.
    pub unread: usize,
    /// Beside the parent, on the same questions; absent for the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<Paired>,
}

/// The same questions, twice answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Right where the parent is wrong.
    pub gained: usize,
    /// Wrong where the parent is right.
    pub lost: usize,
    /// Of the accuracies, this less the parent's.
    pub difference: Estimate,
    /// McNemar's, exact, two-sided.
    pub p: f64,
    /// Of the accuracies; absent where the parent has none right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Estimate>,
}

/// What Y is a ratio of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    Accuracy,
    Likelihood,
}

/// Near and far: what each mask is worth on every domain, and whether the overlap of masks tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    pub measure: Measure,
    /// Masks that are compared with each other: one for each domain, of one size.
    pub families: Vec<Family>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// Names of subjects.
    pub masks: Vec<String>,
    /// Experts that all of them keep, over all layers; overlap is counted without them.
    pub common: usize,
    pub pairs: Vec<Pair>,
    /// Of Y with each kind of overlap, home left out.
    pub correlations: Vec<Related>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The mask that ran.
    pub visitor: String,
    /// The domain whose items it read.
    pub target: String,
    pub y: Estimate,
    pub overlap: Overlap,
}

/// How much of the visitor's mask is the target's own, pooled over layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    /// 2|A ∩ B| / (|A| + |B|) without the experts common to the family.
    pub f: f64,
    /// |A ∩ B| / |A ∪ B|, all experts.
    pub jaccard: f64,
    /// Mean over layers of the cosine of gate masses, weighted by what both masks keep; where both have profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Related {
    pub with: Predictor,
    pub correlation: Correlation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Predictor {
    F,
    Jaccard,
    Cosine,
}

/// Where the router sent a domain's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub domain: String,
    /// SHA-256 of the profile.
    pub sha256: String,
    pub tokens: u64,
    /// [layers][experts], share of the layer's gate mass.
    pub mass: Vec<Vec<f32>>,
}
