//! What can be wrong with weights, with domains, and with training data.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::encoder::EncoderError;

/// Why a weights file was refused; nothing of it is in use then.
#[derive(Debug, Error, PartialEq)]
pub enum WeightsError {
    #[error("not a supervisor's weights: {why}")]
    NotWeights { why: String },
    #[error("weights are {got:?}, this build reads {want:?}; train them again")]
    Version { got: String, want: &'static str },
    #[error("the header's \"{field}\" cannot be used: {why}")]
    Header { field: &'static str, why: String },
    #[error("{got} bytes of numbers, the header says {want}; the file is cut off or damaged")]
    Size { got: u64, want: u64 },
    #[error(
        "the numbers' checksum is {got:016x}, the header says {want:016x}; the file is damaged"
    )]
    Checksum { got: u64, want: u64 },
}

/// Why a supervisor could not be made.
#[derive(Debug, Error)]
pub enum SupervisorError {
    #[error("weights: {0}")]
    Weights(#[from] WeightsError),
    #[error("encoder: {0}")]
    Encoder(#[from] EncoderError),
    #[error("threshold is {threshold}; it must be from 0 to 1")]
    Threshold { threshold: f32 },
    /// An enabled domain the weights do not know and nothing to learn it from.
    #[error(
        "domain \"{domain}\" has {got} examples and the supervisor was not trained on it; give it \
         at least {want}, worded as users ask, or set enabled = false"
    )]
    FewExamples { domain: String, got: usize, want: usize },
}

/// Why training or evaluation stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}:{line}: {why}")]
    Line { path: PathBuf, line: usize, why: String },
    /// A label that maps nowhere would silently be lost, or worse, be a class.
    #[error(
        "{path}:{line}: \"{label}\" names no domain{}; add it as an alias or correct it",
        .nearest.as_ref().map(|n| format!(" (did you mean \"{n}\"?)")).unwrap_or_default()
    )]
    Label { path: PathBuf, line: usize, label: String, nearest: Option<String> },
    #[error("{path}: its lines do not say their domain; name it: DOMAIN={path}")]
    NoDomain { path: PathBuf },
    #[error("{path}: no text to learn from; .jsonl, .json and .txt are read, each also as .xz")]
    Empty { path: PathBuf },
    #[error(
        "--leave-out: \"{name}\" is no domain{}; the domains are named by their files",
        .nearest.as_ref().map(|n| format!(" (did you mean \"{n}\"?)")).unwrap_or_default()
    )]
    NoSuchDomain { name: String, nearest: Option<String> },
    #[error("steps is {steps}; nothing is learnt in none")]
    Steps { steps: usize },
    #[error("penalty is {penalty}; it must be a number of at least 0")]
    Penalty { penalty: f32 },
    #[error("no items held out for {what}; give more questions that carry their own domain")]
    NothingHeldOut { what: &'static str },
    #[error("{labels} domains in the data; a choice needs two")]
    OneLabel { labels: usize },
    #[error("the trained weights do not load: {0}")]
    Weights(#[from] WeightsError),
    #[error("the trained weights make no supervisor: {0}")]
    Supervisor(#[from] SupervisorError),
}
