//! Shows that a specialist is its masked parent.
//!
//! In: a parent and a mask, or a file that was cut from it.  Out: a [`Report`]
//! of checks, each with what was compared.  A mask is shown to restrict the
//! parent as it says; a cut file to be the parent's bytes (`bytes`), of numbers
//! (`weights`), and to compute the masked parent's logits bit for bit
//! (`logits`).
//!
//! Where a router does not renormalise, as OLMoE's, the file is equal to the
//! parent masked before the softmax, and the report has a line more: what that
//! does to the gates, and how far it is from a mask after the softmax
//! ([`engine::Masking`]).
//!
//! To add a check: a function that gives a [`Check`], and its call.

mod bytes;
mod logits;
#[cfg(test)]
mod tests;
mod weights;

use std::io;

use engine::Shape;
use engine::{ExpertMask, MaskError, MaskFile, MaskFileError, Masking, Profile};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cut::ahead;
use crate::provenance::{self, Provenance, ProvenanceError};
use crate::tokens::Window;
use crate::{Parent, Progress};

/// Tokens of one probe: more than a page of keys and values, and few enough
/// that a window's logits fit in memory also for a large vocabulary.
const PROBE: usize = 64;

/// Probes when no corpus is given.
const PROBES: usize = 4;

/// What was checked, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// SHA-256 of the parent's file.
    pub parent: String,
    /// SHA-256 of the mask or of the cut file.
    pub subject: String,
    pub domain: String,
    /// Tokens that were run through the parent.
    pub tokens: u64,
    pub passed: bool,
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    pub passed: bool,
    /// What was compared; where it failed, the first difference.
    pub detail: String,
}

/// Why nothing could be checked at all.
#[derive(Debug, Error)]
pub enum VerifyError {
    #[error(transparent)]
    Mask(#[from] MaskFileError),
    #[error(transparent)]
    Kept(#[from] MaskError),
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    #[error("the file says nothing of a parent; it was not cut by `surgery cut`")]
    NotCut,
    #[error(
        "the specialist was cut from parent {cut:.12}…, this parent is {parent:.12}…; name its own with --parent"
    )]
    OtherParent { cut: String, parent: String },
    #[error("no memory for the keys and values of one window: {0}; free some")]
    Memory(#[from] io::Error),
}

impl Check {
    fn new(name: &str, found: Result<String, String>) -> Check {
        let passed = found.is_ok();
        Check { name: name.to_owned(), passed, detail: found.unwrap_or_else(|what| what) }
    }
}

impl Report {
    fn new(
        parent: &Parent,
        subject: String,
        domain: String,
        probes: &[Window],
        checks: Vec<Check>,
    ) -> Report {
        Report {
            parent: parent.model.parent(),
            subject,
            domain,
            tokens: probes.iter().map(|w| w.tokens.len() as u64).sum(),
            passed: checks.iter().all(|check| check.passed),
            checks,
        }
    }

    /// The first check that failed.
    pub fn failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.passed)
    }
}

/// Windows to compare on: the first `PROBE` tokens of each of some windows, or
/// fixed ids where there are none.
pub fn probes(shape: &Shape, windows: &[Window]) -> Vec<Window> {
    if windows.is_empty() {
        // Any ids will do: equality must hold for all of them.
        let mut random = fastrand::Rng::with_seed(1);
        let mut ids =
            || (0..PROBE.min(shape.context)).map(|_| random.u32(0..shape.vocab as u32)).collect();
        return (0..PROBES).map(|_| Window { tokens: ids(), prompt: 0 }).collect();
    }
    let cut = |w: &Window| {
        let len = w.tokens.len().min(PROBE);
        Window { tokens: w.tokens[..len].to_vec(), prompt: w.prompt.min(len) }
    };
    windows.iter().map(cut).collect()
}

/// Checks a mask on its parent.  `sha256` is of the mask's file.
///
/// # Errors
///
/// [`VerifyError`] when the mask is not of this parent.
pub fn mask(
    parent: &Parent,
    file: &MaskFile,
    sha256: &str,
    probes: &[Window],
    progress: Progress,
) -> Result<Report, VerifyError> {
    let shape = parent.model.shape();
    let mask = file.mask(shape, &parent.model.parent())?;
    let mut taps = Profile::new(shape, &file.parent, &file.domain);
    let (total, mut finite) = (probes.len() as u64, Ok(0));
    for (done, window) in probes.iter().enumerate() {
        progress(done as u64, total, "verify");
        parent.read(window, Some(&mask), Some(&mut taps), |at, values| {
            finite = finite.clone().and_then(|n| logits::all_finite(n, at, values));
        })?;
    }
    progress(total, total, "verify");
    let arch = parent.model.arch();
    let acts = match arch.renormalises {
        true => String::new(),
        false => format!("; it acts {} the softmax", of_softmax(mask.masking())),
    };
    let weights = weights::finite(parent.model.gguf(), arch, Some(&file.kept));
    let mut checks = vec![
        Check::new(
            "parent",
            Ok(format!("the mask is of this parent: {} layers{acts}", mask.layers())),
        ),
        Check::new("logits are finite", finite.map(|n| format!("{n} numbers"))),
        Check::new("norms are finite", norms(&taps)),
        Check::new("only kept experts ran", only_kept(&taps, &mask)),
        Check::new("weights are finite", weights),
    ];
    if !arch.renormalises {
        checks.push(Check::new("gates", logits::gates(parent, &mask, probes)?));
    }
    Ok(Report::new(parent, sha256.to_owned(), file.domain.clone(), probes, checks))
}

/// Checks a cut file against its parent.
///
/// # Errors
///
/// [`VerifyError`] when the file was not cut from this parent.
pub fn specialist(
    parent: &Parent,
    specialist: &Parent,
    probes: &[Window],
    progress: Progress,
) -> Result<Report, VerifyError> {
    let (whole, cut) = (parent.model.gguf(), specialist.model.gguf());
    let (shape, small) = (parent.model.shape(), specialist.model.shape());
    let arch = parent.model.arch();
    let counts = provenance::counts(small, ahead(cut, arch));
    let origin = Provenance::read(cut, &counts)?.ok_or(VerifyError::NotCut)?;
    let own = parent.model.parent();
    if origin.parent != own {
        return Err(VerifyError::OtherParent { cut: origin.parent, parent: own });
    }
    let layers = origin.kept.get(..shape.layers).unwrap_or(&origin.kept);
    let mask = ExpertMask::from_kept(shape, layers)?;
    let blocks = shape.layers + ahead(whole, arch);
    let pair = bytes::Pair { arch, whole, cut, kept: &origin.kept, blocks };
    let equal = logits::equal(parent, &mask, specialist, probes, progress)?;
    let mut checks = vec![
        Check::new("keys", pair.keys()),
        Check::new("tensors", pair.tensors()),
        Check::new("weights are finite", weights::finite(cut, arch, None)),
        Check::new("logits", equal),
    ];
    if !arch.renormalises {
        checks.push(Check::new("gates", logits::gates(parent, &mask, probes)?));
    }
    Ok(Report::new(parent, specialist.model.parent(), origin.domain, probes, checks))
}

fn of_softmax(masking: Masking) -> &'static str {
    match masking {
        Masking::BeforeSoftmax => "before",
        Masking::AfterSoftmax => "after",
    }
}

fn norms(taps: &Profile) -> Result<String, String> {
    let bad = taps.all.output_norm.iter().position(|norm| !norm.is_finite());
    match bad {
        Some(at) => {
            let (layer, expert) = (at / taps.experts, at % taps.experts);
            Err(format!("layer {layer}, expert {expert}: its outputs are not numbers"))
        }
        None => {
            let ran = taps.all.output_norm.iter().filter(|norm| **norm > 0.0).count();
            Ok(format!("{ran} experts ran"))
        }
    }
}

/// Norms are of experts that ran; the counts are of what the full router chose.
fn only_kept(taps: &Profile, mask: &ExpertMask) -> Result<String, String> {
    let place = |at: usize| (at / taps.experts, at % taps.experts);
    let mut ran =
        (0..).zip(&taps.all.output_norm).filter(|(_, norm)| **norm != 0.0).map(|(at, _)| place(at));
    match ran.find(|(layer, expert)| !mask.contains(*layer, *expert)) {
        Some((layer, expert)) => Err(format!("layer {layer}: expert {expert} ran and is not kept")),
        None => Ok(format!("{} layers", taps.layers)),
    }
}
