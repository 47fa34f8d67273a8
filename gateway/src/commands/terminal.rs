//! What commands show: results, errors, progress, logs.

use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use config::ConfigError;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};
use crate::errors::Refusal;
use crate::start::StartError;

/// Work that takes longer shows how far it is.
const SHOW_AFTER: Duration = Duration::from_secs(2);

/// More than any question, and less than memory.
const LONGEST_INPUT: u64 = 16 << 20;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// 1 failed, 2 misused.
    pub exit: u8,
    /// Stable, for programs.
    pub code: &'static str,
    pub message: String,
    /// The flag or field at fault.
    pub field: Option<String>,
}

impl Failure {
    /// Something went wrong.
    pub fn new(code: &'static str, error: impl ToString) -> Self {
        Self { exit: 1, code, message: error.to_string(), field: None }
    }

    /// The command line cannot be meant.
    pub fn usage(message: impl ToString) -> Self {
        Self { exit: 2, ..Self::new("usage", message) }
    }

    /// Names the flag at fault.
    pub fn at(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// To standard error, as text or as the JSON that programs read.
    pub fn print(&self, json: bool) {
        let Self { code, message, field, .. } = self;
        if json {
            let error = json!({ "code": code, "message": message, "field": field });
            eprintln!("{}", json!({ "error": error }));
        } else {
            eprintln!("error: {message}");
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let field = refusal.param();
        Self { field, ..Self::new(refusal.code(), refusal) }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let (code, field) = match &error {
            StartError::Config(
                ConfigError::UnknownKey { key, .. }
                | ConfigError::BadValue { key, .. }
                | ConfigError::Missing { key, .. }
                | ConfigError::UnknownDomain { key, .. },
            ) => ("config", Some(key.clone())),
            StartError::Config(_) => ("config", None),
            StartError::Remote { .. } => ("remote_parent", Some("parent".to_owned())),
            StartError::Gguf(_) | StartError::Model(_) => ("parent", Some("parent".to_owned())),
            StartError::Supervisor(_) | StartError::Improved { .. } | StartError::Domain(_) => {
                ("supervisor", None)
            }
            StartError::Pool(_) => ("budget", Some("budget".to_owned())),
            StartError::Listen { .. } => ("listen", Some("listen".to_owned())),
            StartError::Io { .. } => ("io", None),
            StartError::Engine(_) => ("memory", Some("memory.kv".to_owned())),
        };
        Self { field, ..Self::new(code, error) }
    }
}

/// Writes a result; a reader that has gone ends the program without a fuss.
///
/// # Errors
/// When standard output cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => done.map_err(|e| Failure::new("io", format!("standard output: {e}"))),
    }
}

/// A result as JSON on one line, or as the text that `show` makes of it.
///
/// # Errors
/// As [`print`].
pub fn result<T: Serialize>(
    cli: &Cli,
    value: &T,
    show: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    if cli.json {
        let text = serde_json::to_string(value).map_err(|e| Failure::new("internal", e))?;
        print(&(text + "\n"))
    } else {
        print(&show(value))
    }
}

/// The text of an argument; `-` is standard input.
///
/// # Errors
/// When standard input is no text, or nothing was said.
pub fn text_of(argument: &str) -> Result<String, Failure> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        let mut input = io::stdin().lock().take(LONGEST_INPUT);
        let read = input.read_to_string(&mut text);
        read.map_err(|e| Failure::new("io", format!("standard input: {e}")))?;
    }
    if text.trim().is_empty() {
        return Err(Failure::usage("the text is empty; write a question").at("TEXT"));
    }
    Ok(text)
}

/// A bar on a terminal, for work that takes its time.
pub struct Bar {
    begun: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Nothing is shown yet.
    pub fn new(cli: &Cli) -> Self {
        let terminal = io::stderr().is_terminal() && !cli.json;
        Self { begun: Instant::now(), terminal, bar: None }
    }

    /// So much of so much is done.
    pub fn show(&mut self, done: u64, total: u64, what: &str) {
        if !self.terminal || (self.bar.is_none() && self.begun.elapsed() < SHOW_AFTER) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta} left");
            // Only a malformed template has no style.
            style
                .map_or_else(|_| ProgressBar::new(total), |s| ProgressBar::new(total).with_style(s))
        });
        bar.set_length(total);
        bar.set_position(done);
        if bar.message() != what {
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Logs go to standard error: a server's steps, a command's warnings.  `RUST_LOG`
/// says otherwise.
pub fn log(cli: &Cli) {
    let usual = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second logger in one process is a test's; the first stays.
    let _ = if cli.json {
        log.json().try_init()
    } else {
        log.with_ansi(io::stderr().is_terminal()).with_target(false).try_init()
    };
}

/// A size as people read it.
pub fn size(bytes: u64) -> String {
    config::Bytes(bytes).to_string()
}
