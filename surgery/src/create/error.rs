//! Why no specialist was made.

use std::io;
use std::path::PathBuf;

use engine::MaskFileError;
use specialists::RegistryError;
use thiserror::Error;

use crate::coherence::report::ReportError;
use crate::evaluate::EvaluateError;
use crate::mask::MaskError;
use crate::profile::ProfileError;
use crate::report::ReportError as PageError;
use crate::tokens::TokensError;
use crate::verify::VerifyError;

/// Why no specialist was made; the steps that were done stay in the work folder.
#[derive(Debug, Error)]
pub enum CreateError {
    #[error("{label:?} names no domain{}; a new one is lowercase letters, digits and '-', and unlike the others",
        nearest.as_ref().map(|near| format!(" (nearest is {near:?})")).unwrap_or_default())]
    Domain { label: String, nearest: Option<String> },
    #[error("the id {id:?} must be lowercase letters, digits and '-', at most 64")]
    Id { id: String },
    #[error("the domain {id:?} is not enabled, so nothing would be routed to its specialist")]
    Disabled { id: String },
    /// Its mask would not be one of this parent.
    #[error(
        "the profile is of parent {profile:.12}…, this parent is {parent:.12}…; profile this parent"
    )]
    OtherParent { profile: String, parent: String },
    #[error("the profile is of the domain {profile:?}, not {domain:?}")]
    OtherDomain { profile: String, domain: String },
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    ProfileFile(#[from] engine::ProfileError),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    MaskFile(#[from] MaskFileError),
    #[error(transparent)]
    Coherence(#[from] ReportError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("not registered: the check {check:?} failed: {detail}")]
    Unverified { check: String, detail: String },
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(
        "{path}: another process makes a specialist there; wait for it, or name another folder with --out"
    )]
    Busy { path: PathBuf },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Json { path: PathBuf, error: serde_json::Error },
}
