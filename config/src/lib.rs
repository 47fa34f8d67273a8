//! Configuration and domains: what an operator writes, read and checked.
//!
//! In come `collegium.toml` and the files of `domains/` beside it; out come
//! [`Config`] and [`Domains`].  Both have a shipped form, embedded here, so
//! that everything also works in an empty folder.
//!
//! The promise: what [`load`] returns needs no further check.  Numbers are in
//! range, names are unique, every fallback exists; and an error names the file,
//! the key and, for a misspelt key, the one that was probably meant.
//!
//! Absent on purpose: an enum of domains (a domain is a file), secrets
//! (`key_env` names a variable and never holds its value), and watching files (the gateway compares [`Stamp`]s and calls [`reread`]).
//!
//! To add a key: a field in `settings.rs` (or `domain.rs`), its row in `KEYS`
//! there, its line in `parse`, and its sentence in `collegium.toml`; a test
//! holds the four together.  To add a domain: one file in `domains/`.

mod bytes;
mod device;
mod domain;
mod domains;
mod error;
mod examples;
mod load;
mod precision;
mod reader;
mod reread;
mod settings;

pub use bytes::{BadBytes, Bytes};
pub use device::{BadDevice, Device};
pub use domain::{Circles, Domain, Missing, RESERVED, Sampling, Think, Upstream};
pub use domains::Domains;
pub use error::ConfigError;
pub use load::{Loaded, domain_at, home, load, shipped};
pub use precision::{BadPrecision, Precision};
pub use reread::{Refused, Reread, Stamp, reread};
pub use settings::{
    Autopilot, Config, Conversations, Encoder, Memory, Parent, Server, Serving, Specialists,
    Supervisor, Traffic, shipped_text,
};
