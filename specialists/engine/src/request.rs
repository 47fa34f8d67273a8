//! What the engine is asked for, and what comes back.

use std::sync::Arc;

use config::Missing;
use thiserror::Error;

use crate::mask::ExpertMask;
use crate::profile::Profile;
use crate::sampler::{Constraint, SamplingParams, Scored};

/// One answer to be made.
#[derive(Clone, Default)]
pub struct Request {
    pub prompt: Vec<u32>,
    /// The specialist's experts; `None` runs them all.
    pub mask: Option<Arc<ExpertMask>>,
    /// What becomes of experts that are not resident.
    pub missing: Missing,
    pub sampling: SamplingParams,
    pub stop: Vec<String>,
    /// Tokens at most; cut to what the context leaves.
    pub max_tokens: usize,
    /// Go on after a token that ends an answer.
    pub ignore_eos: bool,
    /// Tokens that may come next, if not all.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Score each token, and so many of the best beside it.
    pub scores: Option<usize>,
    /// End an answer that goes round in circles.
    pub stop_circles: bool,
}

/// What comes out.
#[derive(Debug)]
pub enum Event {
    /// How probable a token was, where it was asked for.  The next text has the token's first character; a token of
    /// which no text goes out (it is within a stop string, or ended the answer) has no such event.
    Scored(Box<Scored>),
    /// Whole characters, never a part of a stop string.  May be empty: a token that completes no character still
    /// tells that the answer goes on.
    Text(String),
    /// The last event.
    Done(Box<Finish>),
    /// The last event of an answer that could not be made.
    Failed(EngineError),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Stop,
    Length,
    /// It went round in circles; the period in tokens.
    Circle(usize),
}

/// What an answer took.
#[derive(Debug)]
pub struct Finish {
    pub reason: Reason,
    pub prompt_tokens: usize,
    /// Tokens of the prompt that an earlier sequence had read already.
    pub cached_tokens: usize,
    /// With the token that ended it, if one did.
    pub completion_tokens: usize,
    /// Mean over the tokens that were read: the share of the full router's gate mass on experts that they could not have.
    pub missing_mass: f32,
    /// What the router did in this sequence; neither parent nor domain is named.
    pub taps: Profile,
}

#[derive(Clone, Debug, Error, PartialEq)]
pub enum EngineError {
    #[error("the prompt has no tokens")]
    Empty,
    #[error(
        "the prompt has {prompt} tokens; this model reads at most {most} and needs room for an answer"
    )]
    TooLong { prompt: usize, most: usize },
    #[error("token {id} does not exist; the vocabulary has {vocab}")]
    Token { id: u32, vocab: usize },
    #[error("the model gave a number that is none after {tokens} tokens; its file may be damaged")]
    NotFinite { tokens: usize },
    /// The parent's file is not what was opened; see [`Gguf::intact`](crate::gguf::Gguf::intact).
    #[error("{what}")]
    Changed { what: String },
    /// What it would compute instead is another function.
    #[error(
        "the specialist's mask acts after the softmax, which {device} does not compute; serve it on the processor"
    )]
    Masking { device: String },
    #[error("there is no memory for keys and values of {tokens} tokens")]
    NoRoom { tokens: usize },
    #[error("the engine has stopped")]
    Gone,
}
