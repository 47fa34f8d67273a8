//! How far a run has come, as a file beside its target: safetensors with the profile so far, the gate mass of both
//! halves and of the last round, and where in the corpus it is.
//!
//! It names what it is of ([`Place::of`]): another parent, corpus or plan does not go on from it.  It is replaced whole,
//! so that a kill leaves the last one.  One that cannot be read is an error, not a fresh start: it may be hours of work.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use engine::Profile;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Round;

/// The format's name and version.
const FORMAT: &str = "collegium.profile-checkpoint/1";

#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: not a checkpoint that can be gone on from: {what}; remove it to start anew")]
    Bad { path: PathBuf, what: String },
    #[error(
        "{path}: an interrupted run of another parent, corpus or other flags; finish that one, or remove the file"
    )]
    Other { path: PathBuf },
    #[error(transparent)]
    Profile(#[from] engine::ProfileError),
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// What the run is of.
    pub of: String,
    /// Items of which something was read.
    pub items: u64,
    /// Of the round that it is in, from 0.
    pub round: u32,
    /// Items of that round that were passed, and tokens taken of them.
    pub passed: u64,
    pub taken: u64,
    pub rounds: Vec<Round>,
}

/// All of it.
pub(super) struct State {
    pub place: Place,
    pub profile: Profile,
    /// [layers, experts] each, gate mass of even and odd items.
    pub halves: [Vec<f64>; 2],
    /// [layers, experts], when the last round ended.
    pub before: Option<Vec<f64>>,
}

impl State {
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let bad = |what: String| CheckpointError::Bad { path: path.to_owned(), what };
        let profile = self.profile.to_bytes()?;
        let le = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let (halves, before) =
            (self.halves.each_ref().map(|h| le(h)).concat(), self.before.as_deref().map(le));
        let width = self.halves[0].len();
        let mut tensors = vec![
            ("profile", Dtype::U8, vec![profile.len()], &profile),
            ("halves", Dtype::F64, vec![2, width], &halves),
        ];
        if let Some(before) = &before {
            tensors.push(("before", Dtype::F64, vec![width], before));
        }
        let views = tensors
            .into_iter()
            .map(|(name, kind, shape, data)| Ok((name, TensorView::new(kind, shape, data)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        let place = serde_json::to_string(&self.place).map_err(|e| bad(e.to_string()))?;
        let meta =
            HashMap::from([("format".to_owned(), FORMAT.to_owned()), ("place".to_owned(), place)]);
        let bytes = views.and_then(|views| safetensors::serialize(views, Some(meta)));
        let bytes = bytes.map_err(|e| bad(e.to_string()))?;
        engine::file::replace(path, &bytes)
            .map_err(|error| CheckpointError::Io { path: path.to_owned(), error })
    }

    /// What a run of this left, if it left anything.
    pub fn read(path: &Path, of: &str) -> Result<Option<State>, CheckpointError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CheckpointError::Io { path: path.to_owned(), error }),
        };
        let bad = |what| CheckpointError::Bad { path: path.to_owned(), what };
        let state = parse(&bytes).map_err(bad)?;
        match state.place.of == of {
            true => Ok(Some(state)),
            false => Err(CheckpointError::Other { path: path.to_owned() }),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let meta = header.metadata().clone().unwrap_or_default();
    if meta.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(format!("its format is {:?}, not {FORMAT:?}", meta.get("format")));
    }
    let place: Place = serde_json::from_str(meta.get("place").map_or("", String::as_str))
        .map_err(|e| format!("its place: {e}"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let profile = file.tensor("profile").map_err(|e| e.to_string())?;
    let profile = Profile::parse(profile.data())?;
    let width = profile.layers * profile.experts;
    let sums = |name: &str, shape: &[usize]| {
        let view = file.tensor(name).map_err(|e| e.to_string())?;
        if view.dtype() != Dtype::F64 || view.shape() != shape {
            return Err(format!("{name} is {:?} {:?}", view.dtype(), view.shape()));
        }
        let (numbers, _) = view.data().as_chunks::<8>();
        let numbers: Vec<f64> = numbers.iter().map(|n| f64::from_le_bytes(*n)).collect();
        match numbers.iter().all(|n| n.is_finite() && *n >= 0.0) {
            true => Ok(numbers),
            false => Err(format!("{name} has numbers that are none")),
        }
    };
    let mut even = sums("halves", &[2, width])?;
    let odd = even.split_off(width);
    let before = match file.tensor("before") {
        Ok(_) => Some(sums("before", &[width])?),
        Err(_) => None,
    };
    Ok(State { place, profile, halves: [even, odd], before })
}

#[cfg(test)]
mod tests {
    use engine::Shape;

    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint");
        let profile = Profile::new(&Shape::of_experts(1, 2, 1), "p", "law");
        let of = "this".to_owned();
        let place = Place { of, items: 3, round: 1, passed: 2, taken: 40, rounds: Vec::new() };
        let halves = [vec![1.0, 2.0], vec![3.0, 4.0]];
        for before in [None, Some(vec![5.0, 6.0])] {
            let state = State {
                place: place.clone(),
                profile: profile.clone(),
                halves: halves.clone(),
                before,
            };
            state.write(&path).unwrap();
            let read = State::read(&path, "this").unwrap().unwrap();
            assert_eq!((read.place, read.profile), (place.clone(), profile.clone()));
            assert_eq!((read.halves, read.before), (halves.clone(), state.before));
            assert!(matches!(State::read(&path, "that"), Err(CheckpointError::Other { .. })));
        }
    }
}
