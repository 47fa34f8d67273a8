//! Items as the parent reads them: token ids in windows no longer than it can
//! see, spread evenly over a corpus when only so many tokens are wanted.
//!
//! In: a [`Corpus`] and the parent's tokenizer and chat template.  Out:
//! [`Window`]s, each with the number of its tokens that are prompt, so that
//! what a user said and what the parent answers can be told apart.
//!
//! Long items are cut into windows one after another; each begins without
//! memory of the last.

use engine::{Model, TemplateError, TemplateMessage};
use std::collections::BTreeSet;

use config::Domains;
use thiserror::Error;

use crate::Progress;
use crate::corpus::{Content, Corpus, CorpusError, Message, Part, Selection, Survey};

/// The longest window, tokens, whatever the parent could see: keys and values
/// of one window stay small, and an expert's use does not change much after it.
const LONGEST_WINDOW: usize = 4096;

/// What to read of a corpus.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    pub corpus: &'a Corpus,
    pub domains: &'a Domains,
    /// An id of `domains`; items with another label are left out.
    pub domain: Option<&'a str>,
    pub part: Part,
    /// About so many tokens, spread over the corpus; `None` reads it all.
    pub tokens: Option<u64>,
}

/// What the parent reads in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub tokens: Vec<u32>,
    /// The first so many are prompt.
    pub prompt: usize,
}

#[derive(Debug, Error)]
pub enum TokensError {
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error("{path}:{line}: {error}")]
    Template { path: std::path::PathBuf, line: u64, error: TemplateError },
}

impl Reading<'_> {
    /// What the profile says it was made from; equal texts mean equal work, so
    /// that an interrupted run can go on.
    ///
    /// # Errors
    ///
    /// When the corpus cannot be read.
    pub fn source(&self) -> Result<String, TokensError> {
        let part = match self.part {
            Part::All => "all items",
            Part::Training => "19 of 20 items",
            Part::HeldBack => "every 20th item",
        };
        let tokens =
            self.tokens.map(|n| format!(", {n} tokens spread over it")).unwrap_or_default();
        Ok(format!("corpus {}, {part}{tokens}", self.corpus.sha256()?))
    }

    /// The domains its items are labelled with.
    ///
    /// # Errors
    ///
    /// The first bad line.
    pub fn labels(&self) -> Result<BTreeSet<String>, TokensError> {
        Ok(self.corpus.labels(self.selection())?)
    }

    /// How much there is to read.
    ///
    /// # Errors
    ///
    /// The first bad line.
    pub fn survey(&self) -> Result<Survey, TokensError> {
        Ok(self.corpus.survey(self.selection())?)
    }

    /// Which items it reads.
    pub fn selection(&self) -> Selection<'_> {
        Selection { domains: self.domains, domain: self.domain, part: self.part }
    }
}

/// Which items of a reading are walked over, and where the walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Items `first`, `first + step`, … of those selected, counted from 0.
    pub first: u64,
    pub step: u64,
    /// So many of these have been passed in an earlier walk, which took so many tokens of them.
    pub passed: u64,
    pub taken: u64,
}

impl Walk {
    /// All of them.
    pub const WHOLE: Walk = Walk { first: 0, step: 1, passed: 0, taken: 0 };
}

/// An item that was passed, whether or not any of it was due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Of the corpus, from 1.
    pub line: u64,
    /// What is to be read of it.
    pub windows: Vec<Window>,
    /// Bytes of this walk's items up to here.
    pub bytes: u64,
}

/// Visits the windows of a reading; the visitor's error ends the walk.
///
/// # Errors
///
/// [`TokensError`], or the visitor's.
pub fn walk<E: From<TokensError>>(
    model: &Model,
    reading: Reading,
    visit: &mut dyn FnMut(Window) -> Result<(), E>,
    progress: Progress,
) -> Result<(), E> {
    let survey = reading.survey()?;
    let name = reading.corpus.name();
    walk_items(model, reading, survey, Walk::WHOLE, &mut |item: Passed| {
        item.windows.into_iter().try_for_each(&mut *visit)?;
        progress(item.bytes, survey.bytes, &name);
        Ok(())
    })
}

/// Visits some items of a reading, of which `survey` knows the sizes; the visitor's error ends the walk.
///
/// A limit of tokens is that of the whole: of a half of the items about half as many are due.
///
/// # Errors
///
/// [`TokensError`], or the visitor's.
pub fn walk_items<E: From<TokensError>>(
    model: &Model,
    reading: Reading,
    survey: Survey,
    walk: Walk,
    visit: &mut dyn FnMut(Passed) -> Result<(), E>,
) -> Result<(), E> {
    let (corpus, selection, limit) = (reading.corpus, reading.selection(), reading.tokens);
    let mut spread = Spread { taken: walk.taken, ..Spread::new(survey, limit) };
    let longest = model.shape().context.min(LONGEST_WINDOW);
    let step = usize::try_from(walk.step.max(1)).unwrap_or(usize::MAX);
    let first = usize::try_from(walk.first).unwrap_or(usize::MAX);
    let items = corpus.items(selection).map_err(TokensError::from)?.enumerate();
    // A bad line is an error in whichever walk meets it.
    let items = items.filter(|(at, item)| item.is_err() || (at % step == first % step));
    for (passed, (_, item)) in (0..).zip(items) {
        let item = item.map_err(TokensError::from)?;
        let mut due = Vec::new();
        // Tokenising costs as much as reading; items that are not due are left unread.
        if passed >= walk.passed && spread.due(item.bytes, 1.0) {
            let (tokens, prompt) = encode(model, &item.content).map_err(|error| {
                TokensError::Template { path: corpus.path().to_owned(), line: item.line, error }
            })?;
            let count = tokens.len().div_ceil(longest).max(1);
            for (at, window) in windows(&tokens, prompt, longest).enumerate() {
                if spread.due(item.bytes, at as f64 / count as f64) {
                    spread.taken += window.tokens.len() as u64;
                    due.push(window);
                }
            }
        }
        spread.seen += item.bytes;
        if passed >= walk.passed {
            visit(Passed { line: item.line, windows: due, bytes: spread.seen })?;
        }
    }
    Ok(())
}

/// All windows of a reading; give it a limit, or they must fit in memory.
///
/// # Errors
///
/// [`TokensError`].
pub fn collect(model: &Model, reading: Reading) -> Result<Vec<Window>, TokensError> {
    let mut windows = Vec::new();
    let mut visit = |window| {
        windows.push(window);
        Ok(())
    };
    walk::<TokensError>(model, reading, &mut visit, &mut |_, _, _| ())?;
    Ok(windows)
}

/// Takes tokens in step with the bytes read, so that a limit falls evenly on
/// the whole corpus without knowing how long its items are in tokens.
#[derive(Debug)]
struct Spread {
    /// Tokens for each byte; `None` takes everything.
    rate: Option<f64>,
    /// Bytes of the items gone by.
    seen: u64,
    /// Tokens taken.
    taken: u64,
}

impl Spread {
    fn new(survey: Survey, limit: Option<u64>) -> Spread {
        let rate = limit.map(|limit| limit as f64 / survey.bytes.max(1) as f64);
        Spread { rate, seen: 0, taken: 0 }
    }

    /// Whether tokens at this share of an item of `bytes` are due.
    fn due(&self, bytes: u64, share: f64) -> bool {
        let read = self.seen as f64 + bytes as f64 * share;
        self.rate.is_none_or(|rate| self.taken as f64 <= rate * read)
    }
}

/// Ids of an item, and how many of them are prompt.
fn encode(model: &Model, content: &Content) -> Result<(Vec<u32>, usize), TemplateError> {
    let tokenizer = model.tokenizer();
    match content {
        // Control tokens written out are meant: corpora hold whole conversations as text.
        Content::Text(text) => Ok((tokenizer.encode_prompt(text, true), 0)),
        Content::Chat(turns) => {
            let (prompt, answer) = rendered(turns, |turns, open| model.render(turns, open))?;
            // Apart, as when the answer is generated: no token spans the seam.
            if prompt.is_empty() {
                return Ok((tokenizer.encode_chat(&answer), 0));
            }
            let mut tokens = tokenizer.encode_chat(&prompt);
            let seam = tokens.len();
            tokens.extend(tokenizer.encode(&answer, true));
            Ok((tokens, seam))
        }
    }
}

/// A conversation's text up to its last answer, and that answer.
fn rendered(
    turns: &[Message],
    render: impl Fn(&[TemplateMessage], bool) -> Result<String, TemplateError>,
) -> Result<(String, String), TemplateError> {
    let message =
        |m: &Message| TemplateMessage { role: m.role.clone(), content: m.content.clone() };
    let turns: Vec<TemplateMessage> = turns.iter().map(message).collect();
    let whole = render(&turns, false)?;
    let Some((_, before)) = turns.split_last().filter(|(last, _)| last.role == "assistant") else {
        return Ok((whole, String::new()));
    };
    if before.is_empty() {
        return Ok((String::new(), whole));
    }
    // Some templates open the answer with more than they write before a past
    // one (an empty thought); then the seam is before the turn's header.
    for open in [true, false] {
        let prompt = render(before, open)?;
        if let Some(answer) = whole.strip_prefix(&prompt) {
            let answer = answer.to_owned();
            return Ok((prompt, answer));
        }
    }
    Ok((String::new(), whole))
}

fn windows(
    tokens: &[u32],
    prompt: usize,
    longest: usize,
) -> impl Iterator<Item = Window> + use<'_> {
    tokens.chunks(longest.max(1)).enumerate().map(move |(at, tokens)| {
        let before = at * longest.max(1);
        Window { tokens: tokens.to_vec(), prompt: prompt.saturating_sub(before).min(tokens.len()) }
    })
}

#[cfg(test)]
mod tests;
