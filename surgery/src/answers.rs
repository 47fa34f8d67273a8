//! What the parent answers itself, as a corpus: a specialist is used on its own words, not on those of a textbook.
//!
//! In: a corpus of questions (`question` with or without `options` and `answer`, or `prompt`).  Out: a file with the
//! parent's answers, `{"prompt": …, "response": …}` on a line each, in the order of the questions.  It is a corpus like
//! any other: it is profiled, read by people, and given to `coherence`.
//!
//! Questions go through the parent's chat template, without thinking aloud; several are answered at once, and what is
//! said does not depend on how many.  Each line is on disk before the next begins, so that an interrupted run goes on
//! after the last whole line.  An answer that goes round in circles ends there, and its line says so.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use config::{Domains, Think};
use engine::{
    Engine, EngineError, EngineOptions, Event, Generation, Reason, Request, SamplingParams,
    TemplateError, TemplateMessage, Thinking, hash,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::corpus::{Content, Corpus, CorpusError, Item, Part, Selection, Survey};
use crate::{Parent, Progress};

/// Answers that are made at once.
const AT_ONCE: usize = 16;

/// Tokens of a question that there is room for with each of them; a longer one waits until others are done.
const USUAL_QUESTION: usize = 512;

/// The longest question that there is room for at all, if the parent reads so much.
const LONGEST_QUESTION: usize = 4096;

/// Bytes of a question for each of its tokens, as a guess.
const BYTES_PER_TOKEN: u64 = 4;

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    pub corpus: &'a Corpus,
    pub domains: &'a Domains,
    pub domain: Option<&'a str>,
    /// Each question has a seed of its own, drawn from `seed` and its line.
    pub sampling: SamplingParams,
    pub seed: u64,
    /// Of an answer, at most.
    pub max_tokens: usize,
    /// Questions and answers together, at most; questions are spread over the corpus.
    pub tokens: Option<u64>,
    pub out: &'a Path,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answered {
    pub questions: u64,
    /// Of these, answered by an earlier run.
    pub before: u64,
    /// Of answers of this run.
    pub tokens: u64,
    /// Answers that reached the bound, or went round in circles, in this run.
    pub cut: u64,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    prompt: String,
    response: String,
    /// Of the corpus.
    line: u64,
    /// `stop`, `length` or `circle`.
    end: String,
    /// What parent, corpus and flags it was made with.
    of: String,
}

#[derive(Debug, Error)]
pub enum AnswersError {
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error("{path}:{line}: {error}")]
    Template { path: PathBuf, line: u64, error: TemplateError },
    #[error("{path}:{line}: {error}")]
    Engine { path: PathBuf, line: u64, error: EngineError },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("no memory for keys and values: {0}; free some, or ask for shorter answers")]
    Memory(io::Error),
    #[error(
        "{path}:{line}: an answer of another parent, corpus or other flags; finish that run, or remove the file"
    )]
    Other { path: PathBuf, line: u64 },
    #[error("the engine ended without a word")]
    Ended,
}

/// A question on its way.
struct Asked {
    line: u64,
    prompt: String,
    text: String,
    generation: Generation,
}

/// Answers all questions that have no answer in the file.
///
/// # Errors
///
/// [`AnswersError`]; the answers that were made stay.
pub fn answer(
    parent: &Parent,
    asking: &Asking,
    progress: Progress,
) -> Result<Answered, AnswersError> {
    let corpus = asking.corpus.clone().questions();
    let selection = Selection { domains: asking.domains, domain: asking.domain, part: Part::All };
    let survey = corpus.survey(selection)?;
    let of = identity(parent, asking)?;
    let (lines, mut file) = earlier(asking.out, &of)?;
    let wanted = wanted(survey, asking.tokens, asking.max_tokens);
    let mut done = Answered { before: lines.len() as u64, ..Answered::default() };
    let engine = engine_for(parent, asking.max_tokens)?;
    let name = corpus.name();
    let mut running: VecDeque<Asked> = VecDeque::new();
    let items = corpus.items(selection)?.enumerate();
    let due = items.filter(|(at, item)| item.is_err() || due(*at as u64, survey.items, wanted));
    for (_, item) in due {
        let item = item?;
        if let Some(line) = lines.get(done.questions as usize) {
            if *line != item.line {
                let (path, line) = (asking.out.to_owned(), done.questions + 1);
                return Err(AnswersError::Other { path, line });
            }
            done.questions += 1;
            continue;
        }
        if running.len() == AT_ONCE {
            finish(&mut running, asking, &of, &mut file, &mut done)?;
            progress(done.questions, wanted, &name);
        }
        running.push_back(ask(parent, &engine, asking, item)?);
    }
    while !running.is_empty() {
        finish(&mut running, asking, &of, &mut file, &mut done)?;
        progress(done.questions, wanted, &name);
    }
    file.sync_all().map_err(io_at(asking.out))?;
    Ok(done)
}

/// Whether item `at` of `items` is one of `wanted` that are spread over them.
fn due(at: u64, items: u64, wanted: u64) -> bool {
    let before = |at: u64| u128::from(at) * u128::from(wanted) / u128::from(items.max(1));
    before(at) != before(at + 1)
}

/// Questions that so many tokens are enough for, if every answer is as long as it may be.
fn wanted(survey: Survey, tokens: Option<u64>, max_tokens: usize) -> u64 {
    let question = survey.bytes / survey.items.max(1) / BYTES_PER_TOKEN;
    let each = question + max_tokens as u64;
    tokens.map_or(survey.items, |tokens| (tokens / each.max(1)).clamp(1, survey.items))
}

fn identity(parent: &Parent, asking: &Asking) -> Result<String, CorpusError> {
    let Asking { corpus, domain, sampling, seed, max_tokens, tokens, .. } = asking;
    let (parent, corpus) = (parent.model.parent(), corpus.sha256()?);
    let all = format!("{parent} {corpus} {domain:?} {sampling:?} {seed} {max_tokens} {tokens:?}");
    Ok(hash::hex(all.as_bytes()))
}

/// Lines of the corpus that have an answer in the file, and the file ready for the next one.
fn earlier(path: &Path, of: &str) -> Result<(Vec<u64>, fs::File), AnswersError> {
    let io = io_at(path);
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(&io)?;
    let mut text = Vec::new();
    io::Read::read_to_end(&mut file, &mut text).map_err(&io)?;
    // The last one may have been cut off.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = Vec::new();
    for (at, line) in (1..).zip(text[..whole].split_inclusive(|byte| *byte == b'\n')) {
        match serde_json::from_slice::<Line>(line) {
            Ok(line) if line.of == of => lines.push(line.line),
            _ => return Err(AnswersError::Other { path: path.to_owned(), line: at }),
        }
    }
    file.set_len(whole as u64).map_err(&io)?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(whole as u64)).map_err(&io)?;
    Ok((lines, file))
}

fn engine_for(parent: &Parent, max_tokens: usize) -> Result<Engine, AnswersError> {
    let options = EngineOptions::default();
    let layout = parent.model.layout(options.kv_precision);
    let context = parent.model.shape().context;
    let usual = layout.bytes_at_once((USUAL_QUESTION + max_tokens).min(context));
    let longest = layout.bytes_at_once((LONGEST_QUESTION + max_tokens).min(context));
    let kv_bytes = longest.max(AT_ONCE as u64 * usual);
    let options = EngineOptions { kv_bytes, max_rows: AT_ONCE, ..options };
    Engine::start(parent.model.clone(), parent.bank.clone(), options).map_err(AnswersError::Memory)
}

fn ask(
    parent: &Parent,
    engine: &Engine,
    asking: &Asking,
    item: Item,
) -> Result<Asked, AnswersError> {
    let (path, line) = (asking.corpus.path().to_owned(), item.line);
    let prompt = match item.content {
        Content::Text(text) => text,
        Content::Chat(turns) => turns.into_iter().map(|turn| turn.content).collect(),
    };
    let turn = TemplateMessage { role: "user".to_owned(), content: prompt.clone() };
    let think = Thinking { think: Think::Off, effort: None };
    let rendered = parent.model.render_open(&[turn], think);
    let rendered =
        rendered.map_err(|error| AnswersError::Template { path: path.clone(), line, error })?;
    // Lines that follow each other have seeds that do not.
    let seed = asking.seed ^ line.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let request = Request {
        prompt: parent.model.tokenizer().encode_chat(&rendered),
        sampling: SamplingParams { seed: Some(seed), ..asking.sampling.clone() },
        max_tokens: asking.max_tokens,
        stop_circles: true,
        ..Request::default()
    };
    let generation = engine.generate(request);
    let generation = generation.map_err(|error| AnswersError::Engine { path, line, error })?;
    Ok(Asked { line, prompt, text: String::new(), generation })
}

/// Waits for the first of those that are running and writes it down.
fn finish(
    running: &mut VecDeque<Asked>,
    asking: &Asking,
    of: &str,
    file: &mut fs::File,
    done: &mut Answered,
) -> Result<(), AnswersError> {
    let Some(Asked { line, prompt, mut text, mut generation }) = running.pop_front() else {
        return Ok(());
    };
    let finish = loop {
        match generation.next_blocking().ok_or(AnswersError::Ended)? {
            Event::Text(more) => text += &more,
            Event::Scored(_) => {}
            Event::Done(finish) => break finish,
            Event::Failed(error) => {
                let path = asking.corpus.path().to_owned();
                return Err(AnswersError::Engine { path, line, error });
            }
        }
    };
    let end = match finish.reason {
        Reason::Stop => "stop",
        Reason::Length => "length",
        Reason::Circle(_) => "circle",
    };
    let row = Line { prompt, response: text, line, end: end.to_owned(), of: of.to_owned() };
    let io = |error: io::Error| AnswersError::Io { path: asking.out.to_owned(), error };
    let row = serde_json::to_string(&row).map_err(|error| io(error.into()))? + "\n";
    file.write_all(row.as_bytes()).map_err(io)?;
    done.questions += 1;
    done.tokens += finish.completion_tokens as u64;
    done.cut += u64::from(finish.reason != Reason::Stop);
    Ok(())
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> AnswersError {
    move |error| AnswersError::Io { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests;
