//! The supervisor: a conversation in, a calibrated domain or an abstention out.
//!
//! [`Supervisor::decide`] takes a [`Query`] and gives a [`Decision`]: the domain,
//! its probability, every alternative, and the words that decided.  It is pure
//! but for the clock in `micros`.
//!
//! The lexical stage always speaks, in tens of microseconds: words, pairs of words
//! and pieces of words that are known (`vocabulary.rs`, `features.rs`) have a
//! weight for each label (`weights.rs`); the sums, divided by a temperature that
//! knows how much was read (`calibrate.rs`), are probabilities.  Where they are
//! unsure the second stage reads meaning, in milliseconds (`encoder.rs`), and both
//! are added (`stages.rs`).  Several turns of a user are averaged, the newest most
//! (`query.rs`).  A domain that an operator adds is learnt from its examples when
//! the supervisor is made (`head.rs`).
//!
//! The promise: the same query and files give the same decision everywhere, a
//! probability of 0.8 is right four times in five on questions like the held-out
//! ones, and no text and no weights file can make it panic.
//!
//! Absent on purpose: keyword lists, rules for single domains, and any memory of
//! past queries (a conversation that stays with its specialist is the gateway's).
//!
//! To train, see [`train`]; to measure, [`evaluate`] and [`report`]; before adding
//! a domain, [`lint`]; to choose by who was right, [`outcome`]; the card with what
//! ships and how it fares is `README.md`.

mod calibrate;
mod classifier;
mod decision;
mod encoder;
mod error;
pub mod evaluate;
mod features;
mod file;
mod grams;
mod head;
mod item;
pub mod lint;
pub mod outcome;
mod query;
pub mod report;
mod stages;
mod supervisor;
mod text;
pub mod train;
mod typo;
mod vocabulary;
mod weights;

pub use calibrate::Heat;
pub use classifier::Classifier;
pub use decision::{Alternative, Decision, Evidence, Reason, Rule};
pub use encoder::{Encoder, EncoderError, MiniLm};
pub use error::{SupervisorError, TrainError, WeightsError};
pub use query::{Query, Role, Turn};
pub use stages::{Mix, Second, Stage};
pub use supervisor::Supervisor;
pub use weights::{Header, Weights};
