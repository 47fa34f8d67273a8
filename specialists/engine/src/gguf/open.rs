//! Opens a model: one file, or several, as llama.cpp's gguf-split makes them.
//!
//! Of several the first part holds the keys; every part holds some of the tensors, and says which part of how many it is
//! (`split.no` from 0, `split.count`, `split.tensors.count` of all).  The files are found by their names,
//! `NAME-00001-of-00003.gguf`.  A model is opened by its first part, as in llama.cpp; all parts are opened, or none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::read::{Parsed, parse, sorted};
use super::{Gguf, GgufError, Part, Tensor, Value};
use crate::hash::Late;
use crate::mapping::Mapping;

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

impl Parsed {
    fn bad(&self, what: String) -> GgufError {
        GgufError::Bad { path: self.part.path.clone(), what }
    }

    fn meta(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// One of the numbers above; `None` if it is not there.
    fn number(&self, key: &str) -> Result<Option<u64>, GgufError> {
        let value = self.meta(key);
        let number = |value: &Value| {
            value.int().ok_or_else(|| self.bad(format!("{key} is {value:?}, not a count")))
        };
        value.map(number).transpose()
    }

    /// Which part of how many it is, the first being 0; `None` if it is a whole model.
    fn place(&self) -> Result<Option<(u64, u64)>, GgufError> {
        let count = self.number(COUNT)?.unwrap_or(0);
        // gguf-split leaves a count of 0 in what it merged.
        if count < 2 {
            return Ok(None);
        }
        let no = self.number(NO)?.ok_or_else(|| self.bad(format!("{NO} is missing")))?;
        if no >= count {
            return Err(self.bad(format!("{NO} is {no}, {COUNT} is {count}")));
        }
        Ok(Some((no, count)))
    }
}

impl Gguf {
    /// Maps and checks a file, and with the first part of a split file all the others.
    ///
    /// # Errors
    ///
    /// [`GgufError`] when a file cannot be opened, its header does not hold together, or the parts do not.
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        let mapping =
            Mapping::open(path).map_err(|error| GgufError::Io { path: path.to_owned(), error })?;
        open(parse(Part::new(path.to_owned(), Arc::new(mapping)))?)
    }

    /// The same for the bytes of a file; `name` stands for its path in messages.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`]; a part of a split file is refused.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        let mapping = Arc::new(Mapping::Owned(bytes.into()));
        whole(parse(Part::new(PathBuf::from(name), mapping))?)
    }

    /// The same for a file inside the binary, which is used where it lies.
    ///
    /// # Errors
    ///
    /// As [`Gguf::from_bytes`].
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Gguf, GgufError> {
        let mapping = Arc::new(Mapping::Embedded(bytes));
        whole(parse(Part::new(PathBuf::from(name), mapping))?)
    }

    /// The parent inside the binary.
    #[cfg(feature = "nano")]
    pub fn nano() -> Result<Gguf, GgufError> {
        let mapping = Arc::new(Mapping::Embedded(crate::nano::bytes()));
        let path = PathBuf::from("(embedded nano parent)");
        let gguf = whole(parse(Part::new(path, mapping))?)?;
        gguf.sha256.set(crate::nano::SHA256.trim().to_owned());
        Ok(gguf)
    }
}

/// A model from what must be all of it.
fn whole(file: Parsed) -> Result<Gguf, GgufError> {
    match file.place()? {
        None => join(file, vec![]),
        Some((no, count)) => {
            Err(file.bad(format!("this is part {} of {count}, without the others", no + 1)))
        }
    }
}

/// A model from its first file, with all others that belong to it.
fn open(first: Parsed) -> Result<Gguf, GgufError> {
    let Some((no, count)) = first.place()? else { return join(first, vec![]) };
    let path = first.part.path.clone();
    let Some(stem) = stem(&path, no, count) else {
        let want = name("NAME", no, count);
        return Err(first.bad(format!(
            "this is part {} of {count}, so it must be called {want}: the others are found by name",
            no + 1
        )));
    };
    if no > 0 {
        let first = path.with_file_name(name(&stem, 0, count));
        return Err(GgufError::NotFirst { path, no: no + 1, count, first });
    }
    let mut rest = Vec::new();
    for no in 1..count {
        let path = path.with_file_name(name(&stem, no, count));
        let mapping = Mapping::open(&path).map_err(|error| {
            let path = path.clone();
            GgufError::MissingPart { path, no: no + 1, count, error }
        })?;
        let part = parse(Part::new(path, Arc::new(mapping)))?;
        belongs(&first, &part, no, count)?;
        rest.push(part);
    }
    join(first, rest)
}

/// Whether `part` is the one that `first` expects there.
fn belongs(first: &Parsed, part: &Parsed, no: u64, count: u64) -> Result<(), GgufError> {
    if part.place()? != Some((no, count)) {
        let say = |key| part.meta(key).map_or("missing".to_owned(), |value| format!("{value:?}"));
        return Err(part.bad(format!(
            "this is not part {} of {count} by its keys: {NO} is {}, {COUNT} is {}",
            no + 1,
            say(NO),
            say(COUNT)
        )));
    }
    for key in [TENSORS, "general.architecture"] {
        if let (Some(want), Some(got)) = (first.meta(key), part.meta(key))
            && want != got
        {
            return Err(part.bad(format!(
                "this part is of another model: {key} is {got:?}, in {} it is {want:?}",
                first.part.path.display()
            )));
        }
    }
    Ok(())
}

/// One model of files that belong together.
fn join(first: Parsed, rest: Vec<Parsed>) -> Result<Gguf, GgufError> {
    let split = !rest.is_empty();
    let count = first.tensors.len() + rest.iter().map(|file| file.tensors.len()).sum::<usize>();
    if let (true, Some(want)) = (split, first.number(TENSORS)?)
        && want != count as u64
    {
        let what = format!("{TENSORS} is {want}, the {} parts have {count}", rest.len() + 1);
        return Err(first.bad(what));
    }
    let Parsed { part, version, mut metadata, mut by_key, mut tensors, alignment } = first;
    let mut parts = vec![part];
    for file in rest {
        let part = parts.len();
        parts.push(file.part);
        tensors.extend(file.tensors.into_iter().map(|tensor| Tensor { part, ..tensor }));
    }
    let by_name = sorted(&tensors, |tensor| &tensor.name).map_err(|at| {
        let Tensor { name, part, .. } = &tensors[at];
        let before = tensors.iter().find(|t| t.name == *name).map_or(0, |t| t.part);
        let also = match before == *part {
            true => String::new(),
            false => format!(" (it is in {} too)", parts[before].path.display()),
        };
        let path = parts[*part].path.clone();
        GgufError::Bad { path, what: format!("tensor {name:?} is there twice{also}") }
    })?;
    if split {
        metadata.retain(|(key, _)| ![NO, COUNT, TENSORS].contains(&key.as_str()));
        // There is none twice, as there was none before.
        by_key = sorted(&metadata, |(key, _)| key).unwrap_or_default();
    }
    let sha256 = Late::default();
    Ok(Gguf { parts, version, metadata, tensors, by_key, by_name, alignment, sha256 })
}

/// What stands before `-00001-of-00003.gguf`.
fn stem(path: &Path, no: u64, count: u64) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    file.strip_suffix(&name("", no, count)).filter(|stem| !stem.is_empty()).map(str::to_owned)
}

fn name(stem: &str, no: u64, count: u64) -> String {
    format!("{stem}-{:05}-of-{count:05}.gguf", no + 1)
}
