//! What a cut file says about where it came from, as GGUF keys.
//!
//! Expert ids are always those of the first parent: cutting a cut file
//! composes them, so that any specialist can be checked against the parent, and
//! an expert that was dropped can be found again.
//!
//! Only keys, no tensors: llama.cpp refuses a file with a tensor it does not
//! expect.

use engine::Shape;
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
/// All but those of blocks.
const ALL: &[&str] = &[PARENT, NAME, DOMAIN, MASK, PROFILE, VERSION, COVERAGE];

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
    /// Ids in the parent by block; empty for a block without experts.  Blocks
    /// that predict further tokens come behind the layers.
    pub kept: Vec<Vec<u32>>,
}

/// Experts of each block of a file, `ahead` blocks that predict further tokens
/// with them.
pub(crate) fn counts(shape: &Shape, ahead: usize) -> Vec<usize> {
    let layers = (0..shape.layers).map(|layer| shape.experts_in(layer));
    layers.chain(vec![shape.experts; ahead]).collect()
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
    #[error("key {key:?} is {found:?}, no SHA-256; the file was changed after it was cut")]
    Hash { key: String, found: String },
    #[error(
        "key {COVERAGE:?} holds {found:?} at {at}, no share of anything; the file was changed after it was cut"
    )]
    Coverage { at: usize, found: f32 },
    #[error(
        "key {key:?} is not known; the file was changed after it was cut, or a later version cut it"
    )]
    Unknown { key: String },
}

impl Provenance {
    /// What `file` says; `None` for a parent that was never cut.  `counts` are
    /// the file's own experts, by block.
    ///
    /// # Errors
    ///
    /// [`ProvenanceError`] where it is there but not whole.
    pub fn read(file: &Gguf, counts: &[usize]) -> Result<Option<Provenance>, ProvenanceError> {
        let mut own = file.metadata().iter().map(|(key, _)| key).filter(|k| k.starts_with(PREFIX));
        if own.clone().next().is_none() {
            return Ok(None);
        }
        let of_block = |key: &str| key.strip_prefix(KEPT).and_then(|n| n.parse::<usize>().ok());
        let known = |key: &str| {
            ALL.contains(&key) || of_block(key).is_some_and(|block| block < counts.len())
        };
        if let Some(key) = own.find(|key| !known(key)) {
            return Err(ProvenanceError::Unknown { key: key.clone() });
        }
        let missing = |key: &str| ProvenanceError::Key { key: key.to_owned() };
        let text = |key: &str| file.text(key).map(str::to_owned).ok_or_else(|| missing(key));
        let hash = |key: &str| match text(key)? {
            hash if is_sha256(&hash) => Ok(hash),
            found => Err(ProvenanceError::Hash { key: key.to_owned(), found }),
        };
        let coverage = match file.meta(COVERAGE) {
            Some(Value::Array(Array::F32(coverage))) => coverage.clone(),
            _ => return Err(missing(COVERAGE)),
        };
        if let Some(at) = coverage.iter().position(|c| !is_share(*c)) {
            return Err(ProvenanceError::Coverage { at, found: coverage[at] });
        }
        let kept = |(block, &experts): (usize, &usize)| {
            let key = format!("{KEPT}{block}");
            match file.meta(&key) {
                // A block without experts has no key.
                None if experts == 0 => Ok(Vec::new()),
                Some(Value::Array(Array::U32(ids))) if ids.len() != experts => {
                    Err(ProvenanceError::Count { block, got: ids.len(), want: experts })
                }
                Some(Value::Array(Array::U32(ids))) if !ids.is_sorted_by(|a, b| a < b) => {
                    Err(ProvenanceError::Order { block })
                }
                Some(Value::Array(Array::U32(ids))) => Ok(ids.clone()),
                _ => Err(missing(&key)),
            }
        };
        Ok(Some(Provenance {
            parent: hash(PARENT)?,
            name: text(NAME)?,
            domain: text(DOMAIN)?,
            mask: hash(MASK)?,
            profile: hash(PROFILE)?,
            coverage,
            kept: counts.iter().enumerate().map(kept).collect::<Result<_, _>>()?,
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

/// Whether a text is a hash as ours are written.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a number is a share of something.  It was a sum, which may come out a
/// little above one.
pub(crate) fn is_share(number: f32) -> bool {
    (0.0..1.001).contains(&number)
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
