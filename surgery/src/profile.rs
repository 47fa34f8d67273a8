//! Runs the parent over a corpus and records what its router did.
//!
//! In: a parent and a corpus.  Out: a [`Profile`], the file that masks are made
//! from.  The parent reads the corpus as it stands (teacher forced); nothing is
//! generated.

use std::io;

use engine::Profile;
use thiserror::Error;

use crate::tokens::{self, Reading, TokensError, Window};
use crate::{Parent, Progress};

#[derive(Debug, Error)]
pub enum ProfileError {
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error("no memory for the keys and values of one window: {0}; free some")]
    Memory(#[from] io::Error),
}

/// Profiles the parent on a corpus.
///
/// # Errors
///
/// [`ProfileError`]; the first bad line is found before the parent runs.
pub fn profile(
    parent: &Parent,
    reading: Reading,
    progress: Progress,
) -> Result<Profile, ProfileError> {
    let model = &parent.model;
    let mut taps = Profile::new(model.shape(), &model.parent(), reading.domain.unwrap_or_default());
    taps.source = reading.source()?;
    let mut visit = |window: Window| Ok(parent.tap(&window, &mut taps)?);
    tokens::walk::<ProfileError>(model, reading, &mut visit, progress)?;
    Ok(taps)
}
