//! Why there is no mask, and what to know of one that there is.

use thiserror::Error;

use super::counts::FUSED_RULE;
use super::score::Score;

/// Why no mask was made; nothing is chosen then.
#[derive(Debug, Error, PartialEq)]
pub enum MaskError {
    #[error("score `{name}` is not known; use {}", Score::names())]
    Score { name: String },
    #[error("`{text}` keeps nothing; give a count such as 16, or a share such as 50%")]
    Keep { text: String },
    #[error("a mask of {asked} experts a layer was asked for, the parent has {experts}")]
    TooMany { asked: u32, experts: usize },
    #[error(
        "a mask of {asked} experts a layer was asked for, the router picks {top_k}; keep {top_k} or more"
    )]
    BelowTopK { asked: usize, top_k: usize },
    #[error("the share is {share}; it must be above 0 and at most 1")]
    Share { share: f64 },
    #[error("`{text}` is no whitelist; give RANK,COUNT such as 2.0,10")]
    Whitelist { text: String },
    /// The file is damaged, or was written for another shape.
    #[error("{what} has {got} values, the profile's shape needs {want}; profile again")]
    Length { what: &'static str, got: usize, want: usize },
    #[error("the router picks {top_k} experts, the profile has {experts}")]
    TooFew { top_k: usize, experts: usize },
    /// Some number cannot be one; no choice made from it can be trusted.
    #[error("layer {layer}, expert {expert}: {what} is {value}; profile again")]
    Value { layer: usize, expert: usize, what: &'static str, value: f64 },
    /// Nothing was measured, so keeping or dropping would be a guess.
    #[error("the profile has no tokens; profile a corpus first")]
    Empty,
    #[error(
        "the profile has {tokens} tokens, its {experts} experts need {need}, four each; \
         profile {} more, or go on with --force", need - tokens
    )]
    FewTokens { tokens: u64, experts: usize, need: u64 },
    #[error("layer {layer} was never reached, and has experts; profile more, or another corpus")]
    Unreached { layer: usize },
    #[error(
        "layer {layer} was never reached by the domain's profile, and has experts; profile more, or another corpus"
    )]
    DomainUnreached { layer: usize },
    #[error(
        "the profile has no counts by rank, which the score {score} needs; use frequency, or profile a corpus"
    )]
    NoRanks { score: &'static str },
    #[error(
        "the profile has no gates, which the score {score} needs; use frequency, or profile a corpus"
    )]
    NoGates { score: &'static str },
    #[error(
        "the profile has no norms, which the score {score} needs; use gate, or profile with norms"
    )]
    NoNorms { score: &'static str },
    #[error(
        "the profile has norms of what goes into an expert's output matrix and no gates, as of an imatrix; the score \
         {score} needs each token's gate times the norm of what comes out; use norm-sum, norm-mean or frequency, or \
         profile a corpus"
    )]
    StandIn { score: &'static str },
    /// A mean or a sum without them would hold against an expert that it was not run.
    #[error(
        "layer {layer}: {missing} of the {chosen} experts that were chosen did not run and have no norms, which the \
         score {score} needs; profile the whole parent"
    )]
    SomeNorms { score: &'static str, layer: usize, missing: usize, chosen: usize },
    #[error(
        "it is of parent {other:.12}…, the domain's profile is of {parent:.12}…; profile one parent"
    )]
    OtherParent { other: String, parent: String },
    #[error(
        "it is {other}, the domain's profile is {own} (layers x experts, top-k); profile one parent"
    )]
    OtherShape { other: String, own: String },
    #[error(
        "{architecture} renormalises the gates of what it chooses, so that a mask after the softmax is the mask before \
         it; leave out --masking"
    )]
    Renormalises { architecture: String },
    /// Something is wrong with a profile other than the domain's.
    #[error("{profile}: {error}")]
    In { profile: String, error: Box<MaskError> },
}

/// What a mask does not do that one might expect of it.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Warning {
    #[error("{count} experts a layer: {FUSED_RULE}{}", instead(*.below, *.above))]
    NotFused { count: usize, below: Option<usize>, above: Option<usize> },
    #[error("only {tokens} tokens for {experts} experts; {need} are the least, four each")]
    FewTokens { tokens: u64, experts: usize, need: u64 },
    #[error("the profile has no gates: coverage is of selections")]
    OfSelections,
    /// Only the parent can tell.
    #[error(
        "layer {layer} was never reached, with {layers} in all: taken for blocks without experts, they keep nothing; \
         name the parent with --parent to be sure"
    )]
    Unreached { layer: usize, layers: usize },
    #[error(
        "the profile is of an imatrix: {score} is by the norm of what goes into an expert's output matrix, in place of \
         what comes out"
    )]
    StandIn { score: &'static str },
    #[error(
        "in {layers} layers more experts meet the whitelist than are kept, {most} in layer {layer}: the heaviest of \
         them stay, and later passes have no room there; a smaller RANK or a larger COUNT is stricter"
    )]
    Whitelist { layers: usize, layer: usize, most: usize },
    #[error(
        "{name}: {target} is not reached in {missed} of {layers} layers, the least is {least:.3} in layer {layer}"
    )]
    Missed { name: String, target: f64, missed: usize, layers: usize, layer: usize, least: f64 },
}

fn instead(below: Option<usize>, above: Option<usize>) -> String {
    match (below, above) {
        (Some(below), Some(above)) => format!("; use {below} or {above}"),
        (Some(one), None) | (None, Some(one)) => format!("; use {one}"),
        (None, None) => String::new(),
    }
}
