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

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use config::Domains;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

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

/// The keys that mean something.
#[derive(Deserialize)]
struct Row {
    text: Option<String>,
    prompt: Option<String>,
    response: Option<String>,
    messages: Option<Vec<Message>>,
    question: Option<String>,
    options: Option<Vec<String>>,
    answer: Option<Value>,
    domain: Option<String>,
    category: Option<String>,
}

/// serde counts lines from the start of what it was given, which is one line.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{what} (column {})", error.column())
}

fn turn(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content }
}

/// What is asked, without an answer.
fn asks(row: Row) -> Result<Content, String> {
    let asked = match row {
        Row { question: Some(question), options, .. } => {
            asked(question, &options.unwrap_or_default())
        }
        Row { prompt: Some(prompt), .. } => prompt,
        _ => return Err("no \"question\" or \"prompt\" to answer".to_owned()),
    };
    Ok(Content::Chat(vec![turn("user", asked)]))
}

fn content(row: Row) -> Result<Content, String> {
    match row {
        Row { messages: Some(messages), .. } if messages.is_empty() => {
            Err("\"messages\" is empty".to_owned())
        }
        Row { messages: Some(messages), .. } => Ok(Content::Chat(messages)),
        Row { prompt: Some(prompt), response: Some(response), .. } => {
            Ok(Content::Chat(vec![turn("user", prompt), turn("assistant", response)]))
        }
        Row { prompt: Some(_), .. } => Err("\"prompt\" has no \"response\"".to_owned()),
        Row { question: Some(question), options, answer: Some(answer), .. } => {
            let options = options.unwrap_or_default();
            let answer = answered(&options, &answer)?;
            Ok(Content::Chat(vec![
                turn("user", asked(question, &options)),
                turn("assistant", answer),
            ]))
        }
        Row { question: Some(_), .. } => Err("\"question\" has no \"answer\"".to_owned()),
        Row { text: Some(text), .. } if text.is_empty() => Err("\"text\" is empty".to_owned()),
        Row { text: Some(text), .. } => Ok(Content::Text(text)),
        _ => Err("no item here: \"text\", \"prompt\" and \"response\", \"messages\", or \
                  \"question\" and \"answer\" are read"
            .to_owned()),
    }
}

/// The same line as a question with options, if it is one.
fn choices(row: &Row) -> Option<Question> {
    let (text, options) = (row.question.clone()?, row.options.clone()?);
    let answer = chosen(&options, row.answer.as_ref()?).ok()?;
    Some(Question { text, options, answer })
}

/// The letters options are called by.
pub(crate) fn letters() -> impl Iterator<Item = char> {
    'A'..='Z'
}

/// The question as people put it: the options below it, by letter.
pub(crate) fn asked(question: String, options: &[String]) -> String {
    letters()
        .zip(options)
        .fold(question, |text, (letter, option)| format!("{text}\n{letter}. {option}"))
}

fn answered(options: &[String], answer: &Value) -> Result<String, String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err("\"answer\" is neither text nor a number".to_owned()),
    };
    if options.is_empty() {
        return Ok(text);
    }
    if options.len() == 1 {
        return Err("\"options\" has one; a question has two or more, or none".to_owned());
    }
    let chosen = chosen(options, answer)?;
    let (letter, option) = letters().zip(options).nth(chosen).unwrap_or((' ', &text));
    Ok(format!("{option} The answer is ({letter})."))
}

/// Index of the option that `answer` names: a letter, an option or its index.
fn chosen(options: &[String], answer: &Value) -> Result<usize, String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        answer => answer.to_string(),
    };
    if options.len() > letters().count() {
        return Err(format!("{} options; there are letters for 26", options.len()));
    }
    let letter =
        |c: char| letters().take(options.len()).position(|own| own == c.to_ascii_uppercase());
    let mut chars = text.trim().chars();
    let by_letter = chars.next().filter(|_| chars.next().is_none()).and_then(letter);
    let by_text = || options.iter().position(|option| *option == text);
    let by_index = || answer.as_u64()?.try_into().ok().filter(|at| *at < options.len());
    by_letter.or_else(by_text).or_else(by_index).ok_or_else(|| {
        format!("\"answer\" is {text:?}: no letter, text or index of {} options", options.len())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn domains() -> Domains {
        let mut law = config::Domain::new("law");
        law.aliases = vec!["legal".to_owned()];
        Domains::new(vec![law, config::Domain::new("math")]).unwrap()
    }

    /// Items as `line:content`, joined by `; `, or the error without the path.
    fn read(name: &str, bytes: &[u8], domain: Option<&str>, part: Part) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (corpus, domains) = (Corpus::at(&path), domains());
        let show = |item: Result<Item, CorpusError>| match item {
            Ok(Item { line, content: Content::Text(text), .. }) => format!("{line}:{text}"),
            Ok(Item { line, content: Content::Chat(turns), .. }) => {
                let turn = |m: &Message| format!("{}>{}", &m.role[..1], m.content);
                format!("{line}:{}", turns.iter().map(turn).collect::<Vec<_>>().join(" "))
            }
            Err(error) => error.to_string().replace(&path.display().to_string(), "F"),
        };
        match corpus.items(Selection { domains: &domains, domain, part }) {
            Ok(items) => items.map(show).collect::<Vec<_>>().join("; "),
            Err(error) => error.to_string(),
        }
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(read("c.jsonl", text.as_bytes(), None, Part::All), want);
    }

    #[test]
    fn forms() {
        check(r#"{"text": "a", "source": {"any": 1}}"#, "1:a");
        check("\u{feff}{\"text\": \"a\"}\r\n\n  \n{\"text\": \"b\"}", "1:a; 4:b");
        check(r#"{"prompt": "p", "response": "r"}"#, "1:u>p a>r");
        check(
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}"#,
            "1:s>s u>u",
        );
        // The answer by letter, by text, by index; or free.
        let ask =
            |answer| format!(r#"{{"question": "q", "options": ["x", "yy"], "answer": {answer}}}"#);
        for answer in [r#""B""#, r#""b""#, r#""yy""#, "1"] {
            check(&ask(answer), "1:u>q\nA. x\nB. yy a>yy The answer is (B).");
        }
        check(r#"{"question": "6*3?", "answer": 18}"#, "1:u>6*3? a>18");
    }

    #[test]
    fn labels() {
        let two = br#"{"text": "l", "domain": "LEGAL"}
            {"text": "m", "category": "math"}
            {"text": "any"}"#;
        assert_eq!(read("c.jsonl", two, Some("law"), Part::All), "1:l; 3:any");
        assert_eq!(read("c.jsonl", two, Some("math"), Part::All), "2:m; 3:any");
        assert_eq!(read("c.jsonl", two, None, Part::All), "1:l; 2:m; 3:any");
        // Also where it would have been left out, and nothing is read after it.
        let unknown =
            b"{\"text\": \"l\"}\n{\"text\": \"x\", \"domain\": \"maths\"}\n{\"text\": \"l\"}";
        let error = "F:2: label \"maths\" names no domain (nearest is \"math\"); add it to a domain's \
                     aliases, or correct it";
        assert_eq!(read("c.jsonl", unknown, Some("law"), Part::All), format!("1:l; {error}"));
    }

    #[test]
    fn one_in_twenty_is_held_back() {
        let all: String = (1..=41).map(|n| format!("{{\"text\": \"t{n}\"}}\n")).collect();
        let of = |part| read("c.jsonl", all.as_bytes(), None, part);
        assert_eq!(of(Part::HeldBack), "20:t20; 40:t40");
        assert_eq!(of(Part::Training).split("; ").count(), 39);
        assert!(!of(Part::Training).contains("t40"));
    }

    #[test]
    fn bad_lines() {
        check("{\"text\": \"a\"}\n{", "1:a; F:2: EOF while parsing an object (column 1)");
        check("[1]", "F:1: invalid type: integer `1`, expected a string (column 2)");
        check(r#"{"text": 3}"#, "F:1: invalid type: integer `3`, expected a string (column 10)");
        check(r#"{"text": ""}"#, r#"F:1: "text" is empty"#);
        check(r#"{"messages": []}"#, r#"F:1: "messages" is empty"#);
        check(r#"{"prompt": "p"}"#, r#"F:1: "prompt" has no "response""#);
        check(r#"{"question": "q"}"#, r#"F:1: "question" has no "answer""#);
        check(
            r#"{"question": "q", "options": ["x"], "answer": "C"}"#,
            r#"F:1: "answer" is "C": no letter, text or index of 1 options"#,
        );
        check(r#"{"question": "q", "answer": null}"#, r#"F:1: "question" has no "answer""#);
        check(
            r#"{"question": "q", "answer": []}"#,
            r#"F:1: "answer" is neither text nor a number"#,
        );
        let none = read("c.jsonl", b"{\"label\": 1}", None, Part::All);
        assert!(none.starts_with("F:1: no item here"), "{none}");
        let latin = read("c.jsonl", b"{\"text\": \"\xe9\"}", None, Part::All);
        assert!(latin.starts_with("F:1: invalid unicode code point"), "{latin}");
        // Nesting is refused before the stack is gone.
        let deep = read("c.jsonl", "[".repeat(1 << 20).as_bytes(), None, Part::All);
        assert!(deep.starts_with("F:1: "), "{deep}");
        let long = read("c.jsonl", &vec![b' '; (16 << 20) + 2], None, Part::All);
        assert_eq!(long, "F:1: the line is longer than 16777216 bytes; split the item");
    }

    // Whatever the bytes are, a corpus is items and at most one error, at its end.
    #[test]
    fn hostile_bytes_are_an_error_at_most() {
        let lines = [
            r#"{"text": "a", "domain": "law"}"#,
            r#"{"messages": [{"role": "user", "content": "u"}]}"#,
            r#"{"question": "q", "options": ["x", "yy"], "answer": "B", "category": "math"}"#,
        ];
        let good = lines.join("\n").into_bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        let (corpus, domains) = (Corpus::at(&path), domains());
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..400 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..4) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    2 => bytes.insert(at, *b"\n\"{[\\\xff".get(random.usize(0..6)).unwrap_or(&0)),
                    _ => drop(bytes.remove(at)),
                }
                bytes.push(b' ');
            }
            std::fs::write(&path, &bytes).unwrap();
            let all = Selection { domains: &domains, domain: None, part: Part::All };
            let good: Vec<bool> = corpus.items(all).unwrap().map(|item| item.is_ok()).collect();
            assert!(good.iter().rev().skip(1).all(|good| *good), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn compressed() {
        let pack = |text: &[u8]| {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let one = pack(b"{\"text\": \"a\"}\n");
        assert_eq!(read("c.jsonl.xz", &one, None, Part::All), "1:a");
        // Streams one after another are one file, as `xz` has it.
        let two = [one.clone(), pack(b"{\"text\": \"b\"}\n")].concat();
        assert_eq!(read("c.jsonl.xz", &two, None, Part::All), "1:a; 2:b");
        for cut in 0..one.len() {
            let got = read("c.jsonl.xz", &one[..cut], None, Part::All);
            assert!(got.contains("F:"), "{cut}: {got}");
        }
        assert!(read("c.jsonl.xz", b"{\"text\": \"a\"}", None, Part::All).contains("F:1: "));
    }

    #[test]
    fn an_empty_selection_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.jsonl");
        std::fs::write(&path, "{\"text\": \"a\", \"domain\": \"law\"}\n").unwrap();
        let (corpus, domains) = (Corpus::at(&path), domains());
        let survey = |domain| {
            let selection = Selection { domains: &domains, domain: Some(domain), part: Part::All };
            corpus.survey(selection).map_err(|error| error.to_string())
        };
        assert_eq!(survey("law"), Ok(Survey { items: 1, bytes: 31 }));
        let all = Selection { domains: &domains, domain: None, part: Part::All };
        assert_eq!(corpus.labels(all).unwrap().into_iter().collect::<Vec<_>>(), ["law"]);
        assert!(survey("math").unwrap_err().ends_with("no item for the domain \"math\""));
        assert_eq!(corpus.name(), "c");
    }
}
