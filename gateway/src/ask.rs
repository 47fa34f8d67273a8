//! A question as the college sees it: no HTTP from here on.
//!
//! The wire parsers and the command line make an [`Ask`]; the request path
//! consumes it.  A field that is `None` was not sent, so that the defaults of
//! the domain and the specialist can fill it.

use config::{Circles, Sampling};
use engine::Thinking;
use router_model::{Role, Turn};

use crate::conversation::Context;

/// The model when none is named.
pub const AUTO: &str = "auto";

/// What is asked, of whom, and how to answer.
#[derive(Debug, Clone)]
pub struct Ask {
    /// `auto`, a domain's id, name or alias, or `generalist`.
    pub model: String,
    /// The prompt.
    pub input: Input,
    /// What was asked for; `max_tokens` included.
    pub sampling: Sampling,
    /// What only a request can ask for.
    pub bending: Bending,
    /// Fixes the random numbers of this answer.
    pub seed: Option<u64>,
    /// How many answers, one or more.
    pub answers: usize,
    /// Tokens are scored, each with so many of the likeliest beside it.
    pub scores: Option<usize>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// What happens to an answer that goes round in circles.
    pub circles: Option<Circles>,
    /// Whether to think aloud first; `Auto` was not said.
    pub thinking: Thinking,
    /// Go on to `max_tokens` whatever the model says; for measurements.
    pub ignore_eos: bool,
    /// What the request belongs to.
    pub context: Context,
}

impl Ask {
    /// One question to `model`, everything else by default.
    pub fn text(model: &str, text: &str) -> Self {
        let turn = Turn { role: Role::User, text: text.to_owned() };
        Self {
            model: model.to_owned(),
            input: Input::Chat(vec![turn]),
            sampling: Sampling::default(),
            bending: Bending::default(),
            seed: None,
            answers: 1,
            scores: None,
            stop: Vec::new(),
            circles: None,
            thinking: Thinking::default(),
            ignore_eos: false,
            context: Context::default(),
        }
    }
}

/// What bends the model's probabilities beyond the usual; each has no effect by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bending {
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    pub typical_p: Option<f32>,
    pub xtc_probability: f32,
    pub xtc_threshold: Option<f32>,
    /// Tokens that the repetition penalty looks back.
    pub penalty_window: Option<usize>,
    /// Within so many standard deviations of the best logit.
    pub top_n_sigma: f32,
    pub dry: Option<Dry>,
}

/// What going on with something said before costs; see the engine's.
#[derive(Debug, Clone, PartialEq)]
pub struct Dry {
    pub multiplier: f32,
    pub base: f32,
    pub allowed_length: usize,
    pub window: usize,
    /// Texts that no repetition goes beyond.
    pub breakers: Vec<String>,
}

/// What the model is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Turns, through the model's chat template.
    Chat(Vec<Turn>),
    /// Text as it is, with a BOS token if the file says so.
    Text(String),
    /// Tokens as they are.
    Tokens(Vec<u32>),
}
