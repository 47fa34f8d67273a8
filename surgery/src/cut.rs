//! Cuts a specialist's GGUF out of its parent.
//!
//! In: the parent (one file, or the parts of a split one) and a mask of it.
//! Out: a file, or parts of a bounded size, with the kept experts' slices and
//! router rows, every other tensor byte for byte, the counts that changed, and
//! its provenance.  No weight is changed and none is requantised: an expert is
//! the slowest axis of its tensors, so its slice is one range of bytes, whatever
//! the number format.
//!
//! Everything is checked in [`plan`], which writes nothing; [`write`] then
//! streams, so that neither file has to fit in memory, and renames at the end.
//! Whatever ends it before leaves the target as it was.
//!
//! * `plan`: each tensor's fate; `keys`: what the header says; `parts`: which
//!   tensors go in which part.  All pure.
//! * `write`: bytes, and the search for what is no number; `beside`: the folder
//!   that they are written in; `forced`: a file on its way to the disk.
//!
//! Which tensors have an expert axis is said by the engine's table of
//! architectures; there are no tensor names here.

mod beside;
mod forced;
mod keys;
mod parts;
mod plan;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::PathBuf;

use engine::gguf::GgufError;
use engine::gguf::write::WriteError;
use engine::{MaskFileError, ShapeError};
use thiserror::Error;

use crate::provenance::ProvenanceError;
pub(crate) use plan::ahead;
pub use plan::{Fate, Plan, Summary, TensorPlan, plan};
pub use write::write;

/// What is wanted beside the mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub runtime: Runtime,
    pub ahead: Ahead,
    /// Bytes of a part at most; one file without.
    pub split: Option<u64>,
}

/// What will read the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// llama.cpp and what is made of it: they know one count of experts for all
    /// layers (`n_expert` in its `llama-hparams.h`).
    #[default]
    LlamaCpp,
    /// This engine, which takes the count of a layer from the provenance.
    Collegium,
}

/// What becomes of blocks that predict further tokens (MTP).
///
/// They come after the last layer and have a router of their own, which no
/// profile has seen: the engine does not run them.  Ids of another layer mean
/// nothing to it, as experts are numbered in each layer apart.  Whatever is kept
/// costs speed at worst: what such a block guesses is checked by the layers
/// before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ahead {
    /// They are left out, and the keys say so.
    #[default]
    Drop,
    /// The first experts stay, as many as in the layers.
    First,
    /// These stay, in each such block.
    Ids(Vec<u32>),
}

#[derive(Debug, Error)]
pub enum CutError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(transparent)]
    Mask(#[from] MaskFileError),
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    #[error("the mask has {what}; make it again with `surgery mask`")]
    MaskField { what: String },
    #[error("{name} has no routed experts: a dense file is its own generalist, and is not cut")]
    Dense { name: String },
    /// Most runtimes that read the file know one `expert_count`.
    #[error(
        "layer {layer} keeps {got} experts, layer {first} keeps {want}: llama.cpp knows one count for all; \
         make the mask with --for llama.cpp, or cut it with --for collegium"
    )]
    NotUniform { layer: usize, got: usize, first: usize, want: usize },
    /// Nobody who reads it could know what the others had.
    #[error(
        "the mask acts after the softmax of {architecture}, and a file without the other experts computes it before; \
         make the mask with --masking before-softmax, or serve it as a mask"
    )]
    Masking { architecture: String },
    #[error("tensor {tensor:?} has shape {dims:?}; its last size must be the {experts} experts")]
    Axis { tensor: String, dims: Vec<u64>, experts: usize },
    #[error("block {block} has no tensor with experts, and the mask keeps some there")]
    NoExperts { block: usize },
    #[error(
        "tensor {tensor:?} is of experts by its name, and its axes are not known; this parent cannot be cut"
    )]
    Unknown { tensor: String },
    #[error("tensor {tensor:?} has experts, and its block has no router that the mask speaks of")]
    NoMask { tensor: String },
    #[error(
        "the parent has no block that predicts further tokens; leave out --mtp, which says what becomes of it"
    )]
    NothingAhead,
    #[error(
        "--mtp names {got} experts; {want} are needed, ascending and below {experts}: as many as a layer keeps"
    )]
    AheadIds { got: usize, want: usize, experts: usize },
    #[error(
        "tensor {tensor:?} and the header take {need} bytes, a part may have {most}; split with {need} at least"
    )]
    PartTooSmall { tensor: String, need: u64, most: u64 },
    #[error("{parts} parts; a split model has 65535 at most, so split it less finely")]
    TooManyParts { parts: usize },
    #[error(
        "{path}: a specialist cut in parts is named NAME.gguf, and its parts get their numbers"
    )]
    PartName { path: PathBuf },
    /// Not one of the numbers that the model computes with.
    #[error("tensor {tensor:?}: block {block} is {what}; this parent is damaged, and is not cut")]
    NotFinite { tensor: String, block: u64, what: &'static str },
    #[error("{path} is the parent itself; name another file with --out")]
    OverParent { path: PathBuf },
    #[error("{path} is being written by another process; wait for it, or name another file")]
    Busy { path: PathBuf },
    #[error("{path}: no room for {need} bytes ({error}); nothing was kept of them")]
    Full { path: PathBuf, need: u64, error: io::Error },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    /// The parent changed while it was copied from.
    #[error(transparent)]
    Parent(#[from] GgufError),
    #[error(transparent)]
    Write(#[from] WriteError),
}
