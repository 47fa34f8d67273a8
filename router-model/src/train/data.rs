//! Reads training and evaluation files into items.
//!
//! Read are `.jsonl`, `.json` and text (`.txt`, `.md`), each also as `.xz`, and
//! folders of them.  The domain is the line's `domain` or `category`, else the
//! one given for the file, else what stands before `__` in a book's name.

use std::fs;
use std::path::{Path, PathBuf};

use config::Domains;
use serde_json::Value;

use super::{Source, books};
use crate::item::NONE;
pub use crate::item::{Item, Kind};
use crate::{TrainError, file};

/// The domains' own examples.
pub fn examples(domains: &Domains) -> impl Iterator<Item = Item> {
    let of = |d: &config::Domain, text: &String| Item::new(text, &d.id, Kind::Example);
    domains.iter().flat_map(move |d| d.examples.iter().map(move |text| of(d, text)))
}

/// Everything in `sources`, in their order.  Of each book at most `per_book`
/// passages are taken.
///
/// # Errors
///
/// [`TrainError`] names the file, the line, and what to do.
pub fn read(
    sources: &[Source],
    domains: &Domains,
    per_book: usize,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Result<Vec<Item>, TrainError> {
    read_placed(sources, domains, per_book, progress).map(|read| read.items)
}

/// Items, and where each one stands.
pub(super) struct Placed {
    pub(super) items: Vec<Item>,
    /// Of each item: its file in `paths`, and its line, 0 where it has none.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) paths: Vec<PathBuf>,
}

/// As [`read`], with files and lines.
pub(super) fn read_placed(
    sources: &[Source],
    domains: &Domains,
    per_book: usize,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Result<Placed, TrainError> {
    let mut items = Vec::new();
    let (mut places, mut paths) = (Vec::new(), Vec::new());
    for (done, source) in sources.iter().enumerate() {
        progress(done as u64, sources.len() as u64, "reading");
        let before = items.len();
        for path in files(&source.path)? {
            let reader = File { path: &path, given: source.domain.as_deref(), domains, per_book };
            let lines = reader.read(&mut items)?;
            places.extend(lines.into_iter().map(|line| (paths.len(), line)));
            places.resize(items.len(), (paths.len(), 0));
            paths.push(path);
        }
        if items.len() == before {
            return Err(TrainError::Empty { path: source.path.clone() });
        }
    }
    Ok(Placed { items, places, paths })
}

/// The file itself, or what can be read in the folder, by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let fail = |source| TrainError::Read { path: path.to_owned(), source };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        if form(&file).is_some() && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Lines,
    Json,
    Text,
}

fn form(path: &Path) -> Option<Form> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".xz").unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "jsonl" => Some(Form::Lines),
        "json" => Some(Form::Json),
        "txt" | "md" => Some(Form::Text),
        _ => None,
    }
}

/// One file, and how to label it.
struct File<'a> {
    path: &'a Path,
    given: Option<&'a str>,
    domains: &'a Domains,
    per_book: usize,
}

impl File<'_> {
    /// Adds the file's items; where it is one of lines, gives the line of each.
    fn read(&self, items: &mut Vec<Item>) -> Result<Vec<usize>, TrainError> {
        let Some(form) = form(self.path) else {
            return Err(TrainError::Empty { path: self.path.to_owned() });
        };
        let fail = |source| TrainError::Read { path: self.path.to_owned(), source };
        let bytes = file::bytes(self.path).map_err(fail)?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // Old law texts are not all UTF-8; one odd letter is no reason to stop.
            Err(error) if form == Form::Text => String::from_utf8_lossy(error.as_bytes()).into(),
            Err(error) => {
                let sound = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..sound].iter().filter(|b| **b == b'\n').count() + 1;
                return Err(self.bad(line, "not UTF-8; save the file as UTF-8"));
            }
        };
        match form {
            Form::Lines => self.lines(&text, items),
            Form::Json => self.json(&text, items).map(|()| Vec::new()),
            Form::Text => {
                let domain = self.domain_of_file()?;
                items.extend(books::items(&text, &domain, self.per_book));
                Ok(Vec::new())
            }
        }
    }

    fn bad(&self, line: usize, why: impl Into<String>) -> TrainError {
        TrainError::Line { path: self.path.to_owned(), line, why: why.into() }
    }

    fn lines(&self, text: &str, items: &mut Vec<Item>) -> Result<Vec<usize>, TrainError> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let value: Value = serde_json::from_str(line)
                .map_err(|err| self.bad(index + 1, format!("not JSON: {err}")))?;
            let own = ["domain", "category"].iter().find_map(|key| value[*key].as_str());
            let aside = own == Some(NONE);
            let domain = match own {
                Some(_) if aside => NONE.to_owned(),
                Some(label) => self.canonical(label, index + 1)?,
                None => self.domain_of_file()?,
            };
            let from = items.len();
            from_line(&value, &domain, own.is_some(), items);
            items[from..].iter_mut().filter(|_| aside).for_each(|item| item.kind = Kind::Aside);
            lines.resize(lines.len() + items.len() - from, index + 1);
            if !KEYS.iter().any(|key| !value[*key].is_null()) {
                let why = "nothing to learn here; a line has \"text\", \"prompt\", \"messages\", \
                           \"question\", \"answer_text\" or \"topics\"";
                return Err(self.bad(index + 1, why));
            }
        }
        Ok(lines)
    }

    /// Questions and passages at any depth.
    fn json(&self, text: &str, items: &mut Vec<Item>) -> Result<(), TrainError> {
        let root: Value = serde_json::from_str(text)
            .map_err(|err| self.bad(err.line(), format!("not JSON: {err}")))?;
        let domain = self.domain_of_file()?;
        let mut open = vec![&root];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(list) => open.extend(list.iter().rev()),
                Value::Object(map) => {
                    from_line(value, &domain, false, items);
                    if let Some(passage) = map.get("passage").and_then(Value::as_str) {
                        items.push(Item::new(passage, &domain, Kind::Passage));
                    }
                    open.extend(map.values().filter(|v| v.is_array() || v.is_object()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn domain_of_file(&self) -> Result<String, TrainError> {
        let name = self.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        match self.given.or(name.split_once("__").map(|(domain, _)| domain)) {
            Some(label) => self.canonical(label, 0),
            None => Err(TrainError::NoDomain { path: self.path.to_owned() }),
        }
    }

    fn canonical(&self, label: &str, line: usize) -> Result<String, TrainError> {
        self.domains.canonical(label).map(str::to_owned).ok_or_else(|| TrainError::Label {
            path: self.path.to_owned(),
            line,
            label: label.to_owned(),
            nearest: self.domains.nearest(label).map(str::to_owned),
        })
    }
}

/// One of these makes a line a line of data; its text may still be too short.
const KEYS: &[&str] = &["text", "prompt", "messages", "question", "answer_text", "topics"];

/// A letter or a number teaches nothing about a domain.
const LEAST_ANSWER: usize = 40;

fn from_line(value: &Value, domain: &str, own_label: bool, items: &mut Vec<Item>) {
    let question = value["question_id"].as_i64();
    let mut add = |text: &str, kind, options| {
        if !text.trim().is_empty() {
            items.push(Item { options, own_label, question, ..Item::new(text, domain, kind) });
        }
    };
    if let Some(text) = value["question"].as_str() {
        add(text, Kind::Question, options(&value["options"]));
    }
    for key in ["text", "prompt"] {
        if let Some(text) = value[key].as_str() {
            add(text, Kind::Said, Vec::new());
        }
    }
    for key in ["answer_text", "response", "answer", "code"] {
        if let Some(text) = value[key].as_str().filter(|text| text.len() >= LEAST_ANSWER) {
            add(text, Kind::Answer, Vec::new());
        }
    }
    for topic in value["topics"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        add(topic, Kind::Topic, Vec::new());
    }
    for message in value["messages"].as_array().into_iter().flatten() {
        let kind = match message["role"].as_str() {
            Some("user") => Kind::Said,
            Some("assistant") => Kind::Answer,
            _ => continue,
        };
        add(message["content"].as_str().unwrap_or_default(), kind, Vec::new());
    }
}

/// Options are a list, or an object by letter.
fn options(value: &Value) -> Vec<String> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    match value {
        Value::Array(list) => list.iter().filter_map(text).collect(),
        Value::Object(map) => map.values().filter_map(text).collect(),
        _ => Vec::new(),
    }
}
