//! Runs the parent over a corpus and records what its router did.
//!
//! In: a parent, a corpus and a [`Plan`].  Out: a [`Profiled`]: the profile, the file that masks are made from, and
//! whether it has seen enough.  The parent reads the corpus as it stands (teacher forced); nothing is generated (answers
//! that the parent gives itself are a corpus made before, see `answers`).
//!
//! Where reading may stop early the items are read in rounds, each of which doubles what was read and is spread evenly
//! over the corpus: one in 2^n items, then those halfway between them, and so on.  After each round the halves of what
//! was read are compared, and the mask with that of the round before ([`stability`]).  So a corpus that is sorted by
//! subject is not judged by its beginning, and what was read when it stops is a fair sample.
//!
//! A long run leaves a checkpoint beside its target from time to time; the same plan goes on from there
//! (`checkpoint`), and ends with the same bits as a run that was not interrupted.  What a profile must not be is in
//! `health`: nothing is written of one that a mask should not be made from.

mod checkpoint;
mod health;
mod run;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::Profile;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::stability::Settle;
use crate::tokens::{Reading, TokensError};
use crate::{Parent, Progress};

pub use checkpoint::CheckpointError;
pub use health::{TOKENS_PER_EXPERT, needed, unreached, usable, warnings};

/// What to record, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub reading: Reading<'a>,
    /// Count which experts are chosen together.
    pub pairs: bool,
    /// Keep what each item used.
    pub signatures: bool,
    /// Stop when the mask has settled; `None` reads everything, in order.
    pub settle: Option<Settle>,
    /// Go on with fewer than four tokens for each expert.
    pub force: bool,
    pub checkpoint: Option<Checkpoint<'a>>,
}

/// Where an interrupted run is kept.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'a> {
    pub path: &'a Path,
    /// Time between two.
    pub every: Duration,
}

/// A profile and how sure one can be of it.
#[derive(Clone, Debug)]
pub struct Profiled {
    pub profile: Profile,
    /// Items of which something was read.
    pub items: u64,
    /// After each round.
    pub rounds: Vec<Round>,
    /// Whether it stopped because the mask had settled.
    pub settled: bool,
    /// Items of an earlier run that it went on from.
    pub resumed: u64,
    pub warnings: Vec<String>,
}

/// How things stood after a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    pub tokens: u64,
    /// See [`stability::agreement`](crate::stability::agreement).
    pub agreement: Option<f64>,
    /// See [`stability::change`](crate::stability::change); of the round before.
    pub change: Option<f64>,
}

#[derive(Debug, Error)]
pub enum ProfileError {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("no memory for the keys and values of one window: {0}; free some")]
    Memory(#[from] io::Error),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("the profile is of parent {profile:.12}…, this parent is {parent:.12}…")]
    OtherParent { profile: String, parent: String },
    /// Another shape than the parent's, though it says it is of the parent.
    #[error("the profile has {profile} layers, experts and choices, the parent {parent}")]
    Shape { profile: String, parent: String },
    #[error(
        "{tokens} tokens for {experts} experts a layer: {more} more are needed for four each; \
         give more text, or --force"
    )]
    Few { tokens: u64, experts: usize, more: u64 },
    #[error("layer {layer} was never reached: no token chose any of its {experts} experts")]
    Unreached { layer: usize, experts: usize },
    #[error(
        "layer {layer}, expert {expert}: {what} is {value} after {tokens} tokens; the parent's file may be damaged"
    )]
    NotFinite { layer: usize, expert: usize, what: &'static str, value: f64, tokens: u64 },
}

impl<'a> Plan<'a> {
    /// What the profile says of where it comes from: the corpus, and what of it is read.
    ///
    /// # Errors
    ///
    /// [`TokensError`] when the corpus cannot be read.
    pub fn source(&self) -> Result<String, TokensError> {
        let settled = |settle: Settle| format!(", until halves agree by {}", settle.agreement);
        Ok(self.reading.source()? + &self.settle.map(settled).unwrap_or_default())
    }

    /// Everything, in order, and nothing beyond what masks need.
    pub fn whole(reading: Reading<'a>) -> Plan<'a> {
        Plan {
            reading,
            pairs: false,
            signatures: false,
            settle: None,
            force: true,
            checkpoint: None,
        }
    }
}

/// The name of the checkpoint of a profile.
pub fn checkpoint_of(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".checkpoint");
    target.with_file_name(name)
}

/// Profiles the parent on a whole corpus.
///
/// # Errors
///
/// [`ProfileError`]; the first bad line is found before the parent runs.
pub fn profile(
    parent: &Parent,
    reading: Reading,
    progress: Progress,
) -> Result<Profile, ProfileError> {
    Ok(run(parent, Plan::whole(reading), progress)?.profile)
}

/// Profiles the parent by a plan.  The checkpoint is left to be removed by who has written the profile.
///
/// # Errors
///
/// [`ProfileError`]; the first bad line is found before the parent runs.
pub fn run(parent: &Parent, plan: Plan, progress: Progress) -> Result<Profiled, ProfileError> {
    run::Run::new(parent, plan)?.finish(progress)
}
