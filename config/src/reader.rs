//! Reads one TOML file by its list of known keys.
//!
//! Unknown keys are found before any value is read, so that a misspelt key is
//! reported as such and not as the absence of the right one.

use std::path::Path;

use toml::{Table, Value};

use crate::{Bytes, ConfigError};

/// Larger files are not configurations: most likely a model was named by mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// One parsed file, all of whose keys are known.
pub(crate) struct Reader {
    /// The file as messages name it.
    pub(crate) file: String,
    root: Table,
}

impl Reader {
    /// `keys` are dotted paths of values, such as `memory.budget`.
    pub(crate) fn new(file: &str, text: &str, keys: &[&str]) -> Result<Reader, ConfigError> {
        let root: Table = text.parse().map_err(|err: toml::de::Error| {
            let at = err.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
            ConfigError::Syntax { file: file.into(), line, message: err.message().to_owned() }
        })?;
        let mut found = Vec::new();
        flatten("", &root, keys, &mut found);
        if let Some(key) = found.into_iter().find(|key| !known(key, keys)) {
            let nearest = nearest_key(&key, keys);
            return Err(ConfigError::UnknownKey { file: file.into(), key, nearest });
        }
        Ok(Reader { file: file.into(), root })
    }

    fn get(&self, key: &str) -> Result<Option<&Value>, ConfigError> {
        let mut path = key.split('.').peekable();
        let mut table = &self.root;
        while let Some(name) = path.next() {
            match (table.get(name), path.peek()) {
                (None, _) => return Ok(None),
                (Some(value), None) => return Ok(Some(value)),
                (Some(Value::Table(inner)), Some(_)) => table = inner,
                (Some(other), Some(_)) => return Err(self.bad(name, other, "a table")),
            }
        }
        Ok(None)
    }

    pub(crate) fn has(&self, key: &str) -> Result<bool, ConfigError> {
        Ok(self.get(key)?.is_some())
    }

    /// An error about `key`, for checks that are the caller's.
    pub(crate) fn refuse(&self, key: &str, want: &str) -> ConfigError {
        match self.get(key) {
            Ok(Some(value)) => self.bad(key, value, want),
            _ => self.missing(key, want),
        }
    }

    pub(crate) fn missing(&self, key: &str, want: &str) -> ConfigError {
        ConfigError::Missing { file: self.file.clone(), key: key.into(), want: want.into() }
    }

    fn bad(&self, key: &str, value: &Value, want: &str) -> ConfigError {
        let file = self.file.clone();
        ConfigError::BadValue { file, key: key.into(), got: show(value), want: want.into() }
    }

    /// The value at `key` as `read` takes it; `None` where the key is absent.
    fn read<'a, T>(
        &'a self,
        key: &str,
        want: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.bad(key, value, want))
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.read(key, "a text", |v| v.as_str().map(str::to_owned))
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, ConfigError> {
        let all = |v: &Value| {
            v.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>()
        };
        self.read(key, "a list of texts", all)
    }

    /// A whole number from `min` on.
    pub(crate) fn count(&self, key: &str, min: u64) -> Result<Option<u64>, ConfigError> {
        let want = format!("a whole number of at least {min}");
        let read = |v: &Value| v.as_integer()?.try_into().ok().filter(|n: &u64| *n >= min);
        self.read(key, &want, read)
    }

    /// A number that `fits`; whole numbers are numbers too.
    pub(crate) fn number(
        &self,
        key: &str,
        want: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Option<f32>, ConfigError> {
        let read = |v: &Value| v.as_float().or_else(|| v.as_integer().map(|i| i as f64));
        self.read(key, want, |v| read(v).filter(|n| fits(*n)).map(|n| n as f32))
    }

    pub(crate) fn bytes(&self, key: &str) -> Result<Option<Bytes>, ConfigError> {
        let read = |v: &Value| match v {
            Value::String(text) => text.parse().ok(),
            Value::Integer(bytes) => (*bytes).try_into().ok().map(Bytes),
            _ => None,
        };
        let above = |b: &Bytes| b.0 > 0;
        self.read(key, "a size such as \"8GiB\" or \"512 MB\"", |v| read(v).filter(above))
    }
}

/// Reads a file that may be anything at all.
pub(crate) fn read_file(path: &Path) -> Result<String, ConfigError> {
    use std::io::{Error, ErrorKind, Read};
    let fail = |source| ConfigError::Read { file: path.display().to_string(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        let why = format!("it is larger than {}", Bytes(MAX_FILE_BYTES));
        return Err(fail(Error::new(ErrorKind::FileTooLarge, why)));
    }
    Ok(text)
}

/// The name among `known` that `word` was probably meant to be.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters wrong is still a misspelling; more is another word.
    let most = (word.chars().count() / 3).max(1);
    let near = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k));
    near.filter(|(distance, _)| *distance <= most).min().map(|(_, k)| k)
}

/// As [`nearest`], but a right key in a wrong or missing section is found too.
fn nearest_key(key: &str, keys: &[&str]) -> Option<String> {
    let leaf = |k: &str| k.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let moved = || keys.iter().copied().find(|k| leaf(k) == leaf(key));
    nearest(key, keys.iter().copied()).or_else(moved).map(str::to_owned)
}

/// Known itself, or an empty table that leads to known keys.
fn known(key: &str, keys: &[&str]) -> bool {
    keys.iter().any(|k| *k == key || k.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// All paths to values; a table where a value is expected counts as the value.
fn flatten(prefix: &str, table: &Table, keys: &[&str], found: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) if !inner.is_empty() && !keys.contains(&key.as_str()) => {
                flatten(&key, inner, keys, found);
            }
            _ => found.push(key),
        }
    }
}

/// A value as a message shows it: short, on one line.
fn show(value: &Value) -> String {
    const MOST: usize = 60;
    let text = match value {
        Value::Table(_) => "a table".into(),
        other => other.to_string().replace('\n', " "),
    };
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
