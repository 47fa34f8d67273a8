//! `manifest.toml`: what a specialist is, and what it was made from.  A specialist exists when its manifest does.

use config::{Sampling, Think};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a specialist is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Canary,
    Active,
    Retired,
}

/// A specialist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Also the name of its folder.
    pub id: String,
    pub domain: String,
    /// SHA-256 of the parent's file.
    pub parent: String,
    /// SHA-256 of `mask.json` beside it.
    pub mask_sha256: String,
    pub state: State,
    #[serde(default)]
    pub think: Think,
    #[serde(default)]
    pub sampling: Sampling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    pub created: Created,
}

/// Held-out text of its own domain: nats per token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    pub tokens: u64,
    pub parent_nats: f64,
    pub specialist_nats: f64,
    /// Mean over random masks of the same size.
    pub random_nats: f64,
}

/// How it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Created {
    pub profile_sha256: String,
    /// Of the corpus file, or `traffic`.
    pub corpus_sha256: String,
    pub score: String,
    /// Mean over layers of the share of gate mass on kept experts.
    pub coverage: f64,
    /// Seconds since 1970.
    pub time: u64,
    /// Of the program.
    pub version: String,
}

#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("{0}")]
    Read(#[from] toml::de::Error),
    #[error("{0}")]
    Write(#[from] toml::ser::Error),
    #[error("id {id:?} must be lowercase letters, digits and '-', at most 64")]
    Id { id: String },
}

impl Manifest {
    /// Reads the text of a `manifest.toml`.
    ///
    /// # Errors
    ///
    /// [`ManifestError`] with the line and key.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        let manifest: Manifest = toml::from_str(text)?;
        if !valid_id(&manifest.id) {
            return Err(ManifestError::Id { id: manifest.id });
        }
        Ok(manifest)
    }

    /// The text of the file.
    pub fn to_toml(&self) -> Result<String, ManifestError> {
        Ok(toml::to_string(self)?)
    }
}

/// Whether a text can be an id: ids become folder names and parts of URLs.
pub fn valid_id(id: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(fine)
}
