//! How much specialists have in common, and what a pool of them costs.
//!
//! In: masks and profiles of one parent.  Out: for each pair how far their
//! experts and their needs agree ([`overlap`]); for all of them together what
//! they take in memory ([`pool`]); and from a table of measured transfer how
//! well an overlap foretells it ([`table`]).  Pure: no files, no model.
//!
//! An expert is a layer and an id, and the figures of overlap are over all
//! layers at once: sums over layers, then one division, so that a layer
//! with more experts counts more.
//!
//! Absent: evaluation.  To add a figure of a pair: a field of
//! [`overlap::Pair`] and a column in `report`.

pub mod overlap;
pub mod pool;
mod report;
pub mod table;

use engine::{MaskFile, Profile};
use serde::Serialize;
use thiserror::Error;

use crate::mask::{self, MaskError, Request, Score, Stats, Taps};
use overlap::Pair;
use pool::{Pool, Price};

/// One specialist, or one domain that could be one.
#[derive(Clone, Debug)]
pub struct Item {
    pub name: String,
    /// Sorted ids by layer.
    pub kept: Vec<Vec<u32>>,
    /// `[layers][experts]`, where there is a profile.
    pub utility: Option<Vec<Vec<f64>>>,
    /// Of the file of the parent.
    pub parent: String,
    /// Of the profile's file that the mask was made from.
    pub profile: String,
}

/// What was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The names, in order.
    pub items: Vec<String>,
    /// Every two of them, the first before the second.
    pub pairs: Vec<Pair>,
    /// Experts that all have; their mean over the layers that have any.
    pub common: f64,
    pub pool: Pool,
}

#[derive(Debug, Error, PartialEq)]
pub enum CompareError {
    #[error(
        "{name} is of parent {parent:.12}…, {first} is of {other:.12}…; compare specialists of one parent"
    )]
    OtherParent { name: String, parent: String, first: String, other: String },
    #[error("{name} has {layers} layers, {first} has {other}")]
    Layers { name: String, layers: usize, first: String, other: usize },
    #[error("nothing to compare; give masks or profiles of one parent")]
    Nothing,
    #[error("{name}: {error}")]
    Mask { name: String, error: MaskError },
}

impl Item {
    pub fn of_mask(name: &str, file: &MaskFile) -> Item {
        Item {
            name: name.to_owned(),
            kept: file.kept.clone(),
            utility: None,
            parent: file.parent.clone(),
            profile: file.profile.clone(),
        }
    }

    /// A domain by the mask that `request` would make of it.
    ///
    /// # Errors
    ///
    /// [`CompareError::Mask`] if the profile gives none.
    pub fn of_profile(
        name: &str,
        profile: &Profile,
        sha256: &str,
        score: Score,
        request: Request,
    ) -> Result<Item, CompareError> {
        let wrong = |error| CompareError::Mask { name: name.to_owned(), error };
        let file = mask::from_profile(profile, sha256, score, request).map_err(wrong)?;
        let mut item = Item::of_mask(name, &file);
        item.know(profile, score)?;
        Ok(item)
    }

    /// Adds what each expert is worth to it, from the profile that its mask was made from.
    ///
    /// # Errors
    ///
    /// [`CompareError::Mask`] if the profile cannot say.
    pub fn know(&mut self, profile: &Profile, score: Score) -> Result<(), CompareError> {
        let stats = Stats::new(Taps::of(profile), score);
        let stats = stats.map_err(|error| CompareError::Mask { name: self.name.clone(), error })?;
        self.utility = Some(stats.utility().to_vec());
        Ok(())
    }
}

/// Compares all with all; `price` is known where the parent is.
///
/// # Errors
///
/// [`CompareError`] unless all are of one parent.
pub fn compare(items: &[Item], price: Option<Price>) -> Result<Report, CompareError> {
    let Some(first) = items.first() else { return Err(CompareError::Nothing) };
    for item in items {
        let (name, other) = (item.name.clone(), first.name.clone());
        if item.parent != first.parent {
            let (parent, first) = (item.parent.clone(), first.parent.clone());
            return Err(CompareError::OtherParent { name, parent, first: other, other: first });
        }
        let (layers, want) = (item.kept.len(), first.kept.len());
        if layers != want {
            return Err(CompareError::Layers { name, layers, first: other, other: want });
        }
    }
    let common = overlap::common(items.iter().map(|item| &item.kept[..]));
    let pairs = (0..items.len()).flat_map(|a| (a + 1..items.len()).map(move |b| (a, b)));
    // Of two everything common is common to all: nothing would be left.
    let family = (items.len() > 2).then_some(&common[..]);
    let pairs = pairs.map(|(a, b)| Pair::new(&items[a], &items[b], family)).collect();
    let layers = first.kept.iter().filter(|ids| !ids.is_empty()).count().max(1);
    Ok(Report {
        items: items.iter().map(|item| item.name.clone()).collect(),
        pairs,
        common: common.iter().map(Vec::len).sum::<usize>() as f64 / layers as f64,
        pool: Pool::new(items, price),
    })
}

#[cfg(test)]
mod tests;
