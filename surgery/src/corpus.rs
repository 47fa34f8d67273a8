//! Reads corpora: `.jsonl` and `.jsonl.xz`, one item a line.
//!
//! In: lines of four forms, told apart by their keys, with an optional label
//! `domain` or `category`:
//!
//! ```text
//! {"text": …}
//! {"prompt": …, "response": …}
//! {"messages": [{"role": …, "content": …}, …]}
//! {"question": …, "options": […], "answer": …}      a letter, an option or its index
//! ```
//!
//! Out: [`Item`]s, one at a time, so that a corpus larger than memory can be
//! read.  Keys that mean nothing here are passed over: data sets carry many.
//! A line that is none of these, or whose label maps to no domain, is an error
//! with its number; no line is ever skipped in silence.
//!
//! Absent: tokens and templates, which are the parent's (`tokens.rs`).  To read
//! another form: a key in [`Row`] and an arm in `content`.

mod row;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use config::Domains;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use serde::Deserialize;
use thiserror::Error;

use row::{Row, asks, choices, content, in_line};
pub(crate) use row::{asked, letters};

/// The longest line that is read, bytes.  A book in one line is below 10 MB;
/// without a bound a file of zeros would be read into memory whole.
const LONGEST_LINE: u64 = 16 << 20;

/// What the decompressor may use, bytes.  `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Editors on Windows begin a file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One in this many items is held back when a corpus is its own test.
const HELD_BACK: u64 = 20;

/// A corpus on disk, opened anew for each pass.
#[derive(Clone, Debug)]
pub struct Corpus {
    path: PathBuf,
    /// Only what is asked is read of a line.
    questions: bool,
}

/// Visits lines, each with its number.
pub type Lines<'a, E> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), E>;

/// Which items of a corpus are meant.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// What labels may say.
    pub domains: &'a Domains,
    /// Items with another label are left out; an item without one belongs to
    /// every domain.  `None` takes all.
    pub domain: Option<&'a str>,
    pub part: Part,
}

/// A corpus can be split by item: nineteen to learn from, the twentieth to
/// test with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    Training,
    HeldBack,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// From 1, as editors count.
    pub line: u64,
    /// Length of its line, bytes.
    pub bytes: u64,
    /// What its label names.
    pub domain: Option<String>,
    pub content: Content,
    /// Where the line is one with options.
    pub question: Option<Question>,
}

/// A question with options, of which one is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// At most 26.
    pub options: Vec<String>,
    /// Index of the right one.
    pub answer: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// As it stands; it may hold the parent's own turn markers.
    Text(String),
    /// To be rendered by the parent's chat template.
    Chat(Vec<Message>),
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// What one pass over the selected items saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    pub items: u64,
    /// Sum of [`Item::bytes`].
    pub bytes: u64,
}

#[derive(Debug, Error)]
pub enum CorpusError {
    #[error("{path}: {error}")]
    Open { path: PathBuf, error: io::Error },
    /// The disk, the compression or the encoding.
    #[error("{path}:{line}: {error}")]
    Read { path: PathBuf, line: u64, error: io::Error },
    #[error("{path}:{line}: the line is longer than {limit} bytes; split the item")]
    Long { path: PathBuf, line: u64, limit: u64 },
    #[error("{path}:{line}: {what}")]
    Line { path: PathBuf, line: u64, what: String },
    #[error(
        "{path}:{line}: label {label:?} names no domain{}; add it to a domain's aliases, or correct it",
        nearest.as_ref().map(|near| format!(" (nearest is {near:?})")).unwrap_or_default()
    )]
    Label { path: PathBuf, line: u64, label: String, nearest: Option<String> },
    #[error("{path}: no item{}", domain.as_ref().map(|d| format!(" for the domain {d:?}")).unwrap_or_default())]
    Empty { path: PathBuf, domain: Option<String> },
}

impl Corpus {
    pub fn at(path: &Path) -> Corpus {
        Corpus { path: path.to_owned(), questions: false }
    }

    /// The same file read for its questions alone, whether or not it has answers: each item is one turn of a user.  A
    /// line that asks nothing is an error.
    pub fn questions(self) -> Corpus {
        Corpus { questions: true, ..self }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name without `.jsonl` and `.xz`.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".xz").unwrap_or(&name);
        name.strip_suffix(".jsonl").unwrap_or(name).to_owned()
    }

    /// Lowercase hex SHA-256 of the file as it lies on disk.
    ///
    /// # Errors
    ///
    /// [`CorpusError::Open`].
    pub fn sha256(&self) -> Result<String, CorpusError> {
        engine::hash::file(&self.path).map_err(|error| self.unopened(error))
    }

    /// The selected items, in order.
    ///
    /// # Errors
    ///
    /// [`CorpusError::Open`]; the items carry the errors of their lines.
    pub fn items<'a>(&'a self, selection: Selection<'a>) -> Result<Items<'a>, CorpusError> {
        let file = BufReader::new(File::open(&self.path).map_err(|error| self.unopened(error))?);
        let lines: Box<dyn BufRead> = if self.path.extension().is_some_and(|e| e == "xz") {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                .map_err(|error| self.unopened(error.into()))?;
            Box::new(BufReader::new(XzDecoder::new_stream(file, stream)))
        } else {
            Box::new(file)
        };
        let (path, questions) = (&self.path, self.questions);
        Ok(Items { path, questions, lines, selection, line: 0, index: 0, failed: false })
    }

    /// The domains that the selected items are labelled with.
    ///
    /// # Errors
    ///
    /// The first bad line.
    pub fn labels(&self, selection: Selection) -> Result<BTreeSet<String>, CorpusError> {
        let mut labels = BTreeSet::new();
        for item in self.items(selection)? {
            labels.extend(item?.domain);
        }
        Ok(labels)
    }

    /// Every line that is not empty as it stands, with its number; the visitor's error ends it.
    ///
    /// # Errors
    ///
    /// [`CorpusError`] of the file, or the visitor's.
    pub fn lines<E: From<CorpusError>>(&self, visit: Lines<E>) -> Result<(), E> {
        let none = Domains::default();
        let mut items = self.items(Selection { domains: &none, domain: None, part: Part::All })?;
        while let Some(text) = items.read()? {
            let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
            if !text.trim_ascii().is_empty() {
                visit(items.line, text)?;
            }
        }
        Ok(())
    }

    /// Reads everything once: a bad line is found before an hour of work, and
    /// the sizes say how to spread a limit over the whole.
    ///
    /// # Errors
    ///
    /// The first bad line, or [`CorpusError::Empty`].
    pub fn survey(&self, selection: Selection) -> Result<Survey, CorpusError> {
        let mut survey = Survey::default();
        for item in self.items(selection)? {
            survey.items += 1;
            survey.bytes += item?.bytes;
        }
        if survey.items == 0 {
            let domain = selection.domain.map(str::to_owned);
            return Err(CorpusError::Empty { path: self.path.clone(), domain });
        }
        Ok(survey)
    }

    fn unopened(&self, error: io::Error) -> CorpusError {
        CorpusError::Open { path: self.path.clone(), error }
    }
}

/// The items of a corpus; ends after the first error.
pub struct Items<'a> {
    path: &'a Path,
    questions: bool,
    lines: Box<dyn BufRead>,
    selection: Selection<'a>,
    /// Lines read.
    line: u64,
    /// Items of the wanted domain seen, whatever their part.
    index: u64,
    failed: bool,
}

impl Iterator for Items<'_> {
    type Item = Result<Item, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            let next = self.read().transpose()?.and_then(|text| self.select(&text));
            self.failed = next.is_err();
            if let Some(next) = next.transpose() {
                return Some(next);
            }
        }
        None
    }
}

impl Items<'_> {
    /// The next line's bytes; `None` at the end.
    fn read(&mut self) -> Result<Option<Vec<u8>>, CorpusError> {
        let (path, line) = (self.path.to_owned(), self.line + 1);
        let mut text = Vec::new();
        match self.lines.by_ref().take(LONGEST_LINE + 1).read_until(b'\n', &mut text) {
            Err(error) => return Err(CorpusError::Read { path, line, error }),
            Ok(0) => return Ok(None),
            Ok(_) if text.len() as u64 > LONGEST_LINE => {
                return Err(CorpusError::Long { path, line, limit: LONGEST_LINE });
            }
            Ok(_) => self.line = line,
        }
        Ok(Some(text))
    }

    /// The item of a line, if it has one and it is selected.
    fn select(&mut self, text: &[u8]) -> Result<Option<Item>, CorpusError> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let bad = |what| CorpusError::Line { path: self.path.to_owned(), line: self.line, what };
        let row: Row = serde_json::from_slice(text).map_err(|error| bad(in_line(&error)))?;
        let domain = match row.domain.as_deref().or(row.category.as_deref()) {
            Some(label) => Some(self.domain(label)?.to_owned()),
            None => None,
        };
        let question = choices(&row);
        let content = if self.questions { asks(row) } else { content(row) }.map_err(bad)?;
        if let (Some(want), Some(got)) = (self.selection.domain, &domain)
            && want != got
        {
            return Ok(None);
        }
        self.index += 1;
        let held_back = self.index.is_multiple_of(HELD_BACK);
        let selected = match self.selection.part {
            Part::All => true,
            Part::Training => !held_back,
            Part::HeldBack => held_back,
        };
        let (line, bytes) = (self.line, text.len() as u64);
        Ok(selected.then_some(Item { line, bytes, domain, content, question }))
    }

    fn domain(&self, label: &str) -> Result<&str, CorpusError> {
        let domains = self.selection.domains;
        // A new domain, which no file describes yet, is what the selection says.
        if let Some(wanted) = self.selection.domain.filter(|wanted| *wanted == label) {
            return Ok(wanted);
        }
        domains.canonical(label).ok_or_else(|| CorpusError::Label {
            path: self.path.to_owned(),
            line: self.line,
            label: label.to_owned(),
            nearest: domains.nearest(label).map(str::to_owned),
        })
    }
}
