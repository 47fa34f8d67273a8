//! Routing by outcome: which of many models will be right, and is it worth its cost.
//!
//! In: what each model answered to many questions, and what an answer of each
//! costs.  Out: [`Outcomes`], which gives every model a probability of being right
//! about a text; [`pick`] takes the one with the most probability less lambda times
//! cost.  [`train`] also reports what that brings on questions held out.
//!
//! * `table`: reads the answers and the questions, and refuses by line.
//! * `cost`: what an answer costs; the shipped table and what the caller says.
//! * `sight`: a text as numbers: the supervisor's probabilities, its length and
//!   letters, its words.
//! * `fit`: a logistic regression a model, all at once; calibrated afterwards.
//! * `model`: the trained numbers, as a file and in memory.
//! * `report`: accuracy against cost, beside single models, chance and the oracle;
//!   `show` writes it.
//!
//! The promise: questions are parted as the supervisor's training parts them, near
//! copies together, so neither it nor this has seen what is reported on; settings
//! and thresholds are chosen on a second part, never on that one.
//!
//! Absent: serving.  Nothing on a request's path asks this yet.

mod cost;
mod fit;
mod model;
mod report;
mod seen;
mod show;
mod sight;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use thiserror::Error;

pub use cost::costs;
pub use fit::{Options, Trained, train};
pub use model::{Judged, Outcomes, pick};
pub use report::{Gain, OutcomeReport, Place, Single, Step};
pub use show::{curve, markdown};
pub use table::{Row, Table, read};

use crate::{SupervisorError, TrainError};

/// Why nothing was learnt, or a file was refused.
#[derive(Debug, Error)]
pub enum OutcomeError {
    #[error(transparent)]
    Data(#[from] TrainError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// A cost for a model that is no column; most often a misspelling.
    #[error("a cost is given for \"{model}\", which is no model of the table{}",
        .nearest.as_ref().map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default())]
    NoModel { model: String, nearest: Option<String> },
    #[error("what an answer of \"{model}\" costs is not known; say it: --cost {model}=X")]
    NoCost { model: String },
    #[error("a cost of \"{model}\" is {cost}; it must be a number of at least 0")]
    BadCost { model: String, cost: f64 },
    #[error(
        "{train} questions to learn from, {tune} to choose by, {test} to report on; each part needs \
         at least {want}: give more questions"
    )]
    TooFew { train: usize, tune: usize, test: usize, want: usize },
    #[error("{path}: not a model of outcomes: {why}")]
    NotOutcomes { path: PathBuf, why: String },
    #[error(
        "{path}: a model of outcomes of version {got:?}; this build reads {want:?}: train it again"
    )]
    Version { path: PathBuf, got: String, want: &'static str },
    /// Its numbers mean something only beside the weights it was trained with.
    #[error(
        "{path}: trained beside the supervisor's weights {got:016x}, in use are {want:016x}; train \
         it again"
    )]
    Weights { path: PathBuf, got: u64, want: u64 },
    /// The plotting library's words.
    #[error("a picture cannot be drawn: {0}")]
    Plot(String),
}
