//! What a cut file says about where it came from, as GGUF keys.
//!
//! Expert ids are always those of the first parent: cutting a cut file
//! composes them, so that any specialist can be checked against the parent, and
//! an expert that was dropped can be found again.
//!
//! Only keys, no tensors: llama.cpp refuses a file with a tensor it does not
//! expect.

use engine::gguf::{Array, Gguf, Value};
use thiserror::Error;

/// All keys of ours begin so.
pub const PREFIX: &str = "collegium.";

const PARENT: &str = "collegium.parent.sha256";
const NAME: &str = "collegium.parent.name";
const DOMAIN: &str = "collegium.domain";
const MASK: &str = "collegium.mask.sha256";
const PROFILE: &str = "collegium.profile.sha256";
const VERSION: &str = "collegium.version";
const COVERAGE: &str = "collegium.coverage";
/// Followed by the block's number.
const KEPT: &str = "collegium.kept.";

#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// SHA-256 of the parent that was never cut.
    pub parent: String,
    /// Its `general.name`.
    pub name: String,
    pub domain: String,
    /// SHA-256 of the mask that made this file.
    pub mask: String,
    /// SHA-256 of the profile that made the mask.
    pub profile: String,
    /// The mask's coverage by block, of the file it was applied to.
    pub coverage: Vec<f32>,
    /// Ids in the parent by block; empty for a block without experts.
    pub kept: Vec<Vec<u32>>,
}

#[derive(Debug, Error, PartialEq)]
pub enum ProvenanceError {
    #[error("key {key:?} is missing or of the wrong type; the file was changed after it was cut")]
    Key { key: String },
    #[error(
        "block {block}: the file names {got} kept experts and has {want}; it was changed after it was cut"
    )]
    Count { block: usize, got: usize, want: usize },
    #[error("block {block}: kept ids are not ascending; the file was changed after it was cut")]
    Order { block: usize },
}

impl Provenance {
    /// What `file` says; `None` for a parent that was never cut.  `blocks` and
    /// `experts` are the file's own.
    ///
    /// # Errors
    ///
    /// [`ProvenanceError`] where it is there but not whole.
    pub fn read(
        file: &Gguf,
        blocks: usize,
        experts: usize,
    ) -> Result<Option<Provenance>, ProvenanceError> {
        if !file.metadata().iter().any(|(key, _)| key.starts_with(PREFIX)) {
            return Ok(None);
        }
        let missing = |key: &str| ProvenanceError::Key { key: key.to_owned() };
        let text = |key: &str| file.text(key).map(str::to_owned).ok_or_else(|| missing(key));
        let coverage = match file.meta(COVERAGE) {
            Some(Value::Array(Array::F32(coverage))) => coverage.clone(),
            _ => return Err(missing(COVERAGE)),
        };
        let kept = |block: usize| {
            let key = format!("{KEPT}{block}");
            match file.meta(&key) {
                // A block without experts has no key.
                None => Ok(Vec::new()),
                Some(Value::Array(Array::U32(ids))) if ids.len() != experts => {
                    Err(ProvenanceError::Count { block, got: ids.len(), want: experts })
                }
                Some(Value::Array(Array::U32(ids))) if !ids.is_sorted_by(|a, b| a < b) => {
                    Err(ProvenanceError::Order { block })
                }
                Some(Value::Array(Array::U32(ids))) => Ok(ids.clone()),
                Some(_) => Err(missing(&key)),
            }
        };
        Ok(Some(Provenance {
            parent: text(PARENT)?,
            name: text(NAME)?,
            domain: text(DOMAIN)?,
            mask: text(MASK)?,
            profile: text(PROFILE)?,
            coverage,
            kept: (0..blocks).map(kept).collect::<Result<_, _>>()?,
        }))
    }

    /// The keys to write.
    pub fn keys(&self) -> Vec<(String, Value)> {
        let text = |key: &str, value: &str| (key.to_owned(), Value::Text(value.to_owned()));
        let mut keys = vec![
            text(PARENT, &self.parent),
            text(NAME, &self.name),
            text(DOMAIN, &self.domain),
            text(MASK, &self.mask),
            text(PROFILE, &self.profile),
            text(VERSION, env!("CARGO_PKG_VERSION")),
            (COVERAGE.to_owned(), Value::Array(Array::F32(self.coverage.clone()))),
        ];
        for (block, ids) in self.kept.iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            keys.push((format!("{KEPT}{block}"), Value::Array(Array::U32(ids.clone()))));
        }
        keys
    }
}

/// Ids of `second`, which count what `first` kept, as ids of what `first`
/// counts.  `None` if one points past the end.
pub fn compose(first: &[u32], second: &[u32]) -> Option<Vec<u32>> {
    second.iter().map(|id| first.get(*id as usize).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compose() {
        #[track_caller]
        fn check(first: &[u32], second: &[u32], want: Option<&[u32]>) {
            assert_eq!(compose(first, second).as_deref(), want);
        }
        check(&[1, 4, 6, 7], &[0, 2], Some(&[1, 6]));
        check(&[1, 4, 6, 7], &[0, 1, 2, 3], Some(&[1, 4, 6, 7]));
        check(&[], &[], Some(&[]));
        check(&[1, 4], &[2], None);
    }
}
