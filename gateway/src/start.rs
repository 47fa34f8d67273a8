//! Opens a parent and shares out memory: from settings to things that run.
//!
//! In: the settings and the home folder.  Out: a [`Model`], and how many bytes
//! there are for everything ([`share`], pure).  Every error says which file or
//! key is at fault and what to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{ConfigError, Domains, Loaded};
use engine::gguf::{Gguf, GgufError};
use engine::hash::Remembered;
use engine::{Model, ModelError};
use router_model::lint::DomainFault;
use router_model::{Supervisor, SupervisorError, Weights, WeightsError};
use specialists::PoolError;
use thiserror::Error;
use tracing::{info, warn};

use crate::cli::{Cli, ParentArgs};

/// The folder in the home folder with weights of the supervisor that came after the shipped ones.
pub const SUPERVISOR: &str = "supervisor";

/// Those in use.
pub const WEIGHTS: &str = "lexical.bin";

/// The embedded parent, where a path is expected.
pub const NANO: &str = "nano";

/// Conversations of full length that fit at once, if nobody says how much memory there is.
const CONVERSATIONS: u64 = 8;

/// Why nothing can be started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{name}: this build cannot download; fetch the file and give its path as the parent")]
    Remote { name: String },
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error("{path}: {error}; `collegium supervisor improve --rollback` goes back")]
    Improved { path: PathBuf, error: WeightsError },
    #[error(transparent)]
    Domain(DomainFault),
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("cannot listen on {address}: {error}; choose another address with --listen")]
    Listen { address: String, error: std::io::Error },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("no memory for keys and values, or no thread: {0}; lower memory.kv")]
    Engine(std::io::Error),
}

/// The settings with the command line's on top, and the home folder.
///
/// # Errors
/// [`ConfigError`].
pub fn settings(cli: &Cli) -> Result<(Loaded, PathBuf), StartError> {
    Ok((config::load(cli.config.as_deref())?, config::home(cli.home.as_deref())))
}

/// What a command's flags say of the parent wins over the settings.
pub fn overrule(loaded: &mut Loaded, flags: &ParentArgs) {
    if let Some(parent) = &flags.parent {
        loaded.config.parent.path = Some(parent.0.clone());
    }
    if flags.budget.is_some() {
        loaded.config.memory.budget = flags.budget;
    }
    if let Some(kv_type) = flags.kv_type {
        loaded.config.memory.kv_type = kv_type;
    }
    if let Some(device) = flags.device {
        loaded.config.memory.device = device;
    }
}

/// Maps and checks the parent's file; `None` is the embedded one.
fn gguf(path: Option<&Path>) -> Result<Gguf, StartError> {
    let Some(path) = path.filter(|p| *p != Path::new(NANO)) else { return Ok(Gguf::nano()?) };
    match path.to_str().filter(|p| p.starts_with("hf:")) {
        Some(name) => Err(StartError::Remote { name: name.to_owned() }),
        None => Ok(Gguf::open(path)?),
    }
}

/// The supervisor with the improved weights of the home folder, if there are some, else with the shipped ones.
///
/// # Errors
/// [`StartError`]; weights that cannot be used are never passed over in silence.
pub fn supervisor(
    home: &Path,
    domains: &Domains,
    settings: &config::Supervisor,
) -> Result<Supervisor, StartError> {
    let path = home.join(SUPERVISOR).join(WEIGHTS);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let weights = Weights::read(&bytes)
                .map_err(|error| StartError::Improved { path: path.clone(), error })?;
            let supervisor = Supervisor::new(weights, domains, settings.threshold)?;
            Ok(supervisor.with_configured(&settings.encoder)?)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(Supervisor::configured(domains, settings)?)
        }
        Err(error) => Err(StartError::Io { path, error }),
    }
}

/// Hashes of files seen before, so that only the first use of a file reads all of it.
fn hashes(home: &Path) -> Remembered {
    Remembered::at(home.join("models").join("hashes.json"))
}

/// Opens the parent that the settings name; its hash is known.
///
/// # Errors
/// [`StartError`] naming the file.
pub fn model(path: Option<&Path>, home: &Path) -> Result<Arc<Model>, StartError> {
    let gguf = gguf(path)?;
    let late = gguf.late_sha256();
    if late.get().is_none() {
        let sha256 = hashes(home).get_or_compute(gguf.parts());
        let path = gguf.path().to_owned();
        late.set(sha256.map_err(|error| StartError::Io { path, error })?);
    }
    Ok(Model::load(gguf)?)
}

/// Opens the parent that the settings name, to answer from it at once.
///
/// The hash of a file that was not seen before comes later, from a thread; until
/// then specialists, which name their parent by its hash, are not served.
///
/// # Errors
/// [`StartError`] naming the file.
pub fn model_at_once(path: Option<&Path>, home: &Path) -> Result<Arc<Model>, StartError> {
    let gguf = gguf(path)?;
    let (late, path, known) = (gguf.late_sha256(), gguf.path().to_owned(), hashes(home));
    let parts = gguf.parts().to_vec();
    let model = Model::load(gguf)?;
    if late.get().is_some() {
        return Ok(model);
    }
    if let Some(sha256) = known.get(&parts) {
        late.set(sha256);
        return Ok(model);
    }
    info!(path = %path.display(), "first use of this file: specialists are served once it is hashed");
    let compute = move || match known.get_or_compute(&parts) {
        Ok(sha256) => {
            info!(%sha256, "hashed");
            late.set(sha256);
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "cannot be hashed: no specialist is served")
        }
    };
    std::thread::Builder::new()
        .name("hash".to_owned())
        .spawn(compute)
        .map_err(StartError::Engine)?;
    Ok(model)
}

/// What the sharing out of memory depends on; all in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    pub backbone: u64,
    /// All experts of the parent.
    pub experts: u64,
    pub workspace: u64,
    /// Keys and values of one conversation of full length.
    pub conversation: u64,
}

/// How the memory is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    pub budget: u64,
    pub kv: u64,
}

/// Shares out memory: what was said stands; the rest follows from what there is.
///
/// Without a budget it is what everything needs, but not more than is free.  Keys
/// and values take a quarter at most, but at least one conversation, since with
/// less no question of full length could be answered.
pub fn share(needs: Needs, budget: Option<u64>, kv: Option<u64>, free: Option<u64>) -> Shares {
    let ample = needs.conversation.saturating_mul(CONVERSATIONS);
    let limit = budget.or(free).unwrap_or(u64::MAX);
    let kv = kv.unwrap_or(ample.min((limit / 4).max(needs.conversation)));
    let everything = needs.backbone + needs.experts + needs.workspace + kv;
    Shares { budget: budget.unwrap_or(everything.min(limit)), kv }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(budget: Option<u64>, kv: Option<u64>, free: Option<u64>, expect: (u64, u64)) {
        let needs = Needs { backbone: 10, experts: 100, workspace: 5, conversation: 4 };
        let got = share(needs, budget, kv, free);
        assert_eq!((got.budget, got.kv), expect, "{budget:?}, {kv:?}, {free:?}");
    }

    #[test]
    fn memory_is_shared_out() {
        // Nothing said: everything fits, or what is free is used.
        check(None, None, None, (147, 32));
        check(None, None, Some(1000), (147, 32));
        check(None, None, Some(80), (80, 20));
        check(None, Some(7), None, (122, 7));
        // A quarter for conversations, within what is of use.
        check(Some(80), None, None, (80, 20));
        check(Some(1000), None, Some(80), (1000, 32));
        // Never less than one.
        check(Some(8), None, None, (8, 4));
        check(Some(80), Some(7), None, (80, 7));
    }

    #[test]
    fn parents_that_cannot_be_opened() {
        #[track_caller]
        fn check(path: &str, expect: &str) {
            let home = tempfile::tempdir().expect("a folder");
            let error = model(Some(Path::new(path)), home.path()).err().expect(path).to_string();
            assert!(error.contains(expect), "{error}");
        }
        check("hf:a/b/c.gguf", "cannot download");
        check("/nowhere/at/all.gguf", "/nowhere/at/all.gguf");
        // A text is no model.
        check(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "Cargo.toml");
    }
}
