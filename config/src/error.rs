//! What can be wrong with a configuration; every message names the file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration was refused.  Nothing of it is in use then.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is missing, unreadable, not UTF-8, or far too large.
    #[error("{file}: cannot be read: {source}")]
    Read { file: String, source: io::Error },
    /// Not TOML.
    #[error("{file}:{line}: {message}")]
    Syntax { file: String, line: usize, message: String },
    /// A key nobody reads; most often a misspelling.
    #[error("{file}: unknown key \"{key}\"{}", meant(.nearest.as_deref()))]
    UnknownKey { file: String, key: String, nearest: Option<String> },
    /// A key whose value cannot be used.
    #[error("{file}: \"{key}\" is {got}; it must be {want}")]
    BadValue { file: String, key: String, got: String, want: String },
    /// A key that has no default.
    #[error("{file}: \"{key}\" is missing; it must be {want}")]
    Missing { file: String, key: String, want: String },
    /// A line of an `examples_file` that holds no example.
    #[error("{file}:{line}: {reason}")]
    Example { file: PathBuf, line: usize, reason: String },
    /// One word for two domains; a label or a model id could mean either.
    #[error(
        "{file}: \"{word}\" already names the domain \"{first}\"; take another word for \"{second}\", \
         or remove it there by a file domains/{first}.toml of your own"
    )]
    Ambiguous { file: String, word: String, first: String, second: String },
    /// A fallback that is not a domain, or not one that is served.
    #[error("{file}: \"{key}\" is \"{id}\", which is not an enabled domain{}", meant(.nearest.as_deref()))]
    UnknownDomain { file: String, key: String, id: String, nearest: Option<String> },
    /// Fallbacks that lead back to where they began.
    #[error("{file}: fallbacks go in a circle: {}", .path.join(" -> "))]
    Circle { file: String, path: Vec<String> },
}

pub(crate) fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default()
}
