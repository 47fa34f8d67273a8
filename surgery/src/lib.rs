//! Surgery: cuts specialists out of a parent.
//!
//! In comes a parent and a corpus of one domain; out comes a mask, proven and
//! measured, registered as a specialist, and on request a GGUF of its own:
//!
//! ```text
//! corpus ─profile→ X.profile ─mask→ X.mask.json ─verify→ report.json ─register→ registry/<id>/manifest.toml
//!                                        └─cut→ X.gguf
//! ```
//!
//! Every arrow is a file that names the hash of what it was made from, and a
//! step refuses a mismatch.  [`create`] takes all of them in order.
//!
//! The promise: no weight is ever changed.  A specialist computes what the
//! parent does whose router may not choose the other experts, bit for bit, and
//! [`verify`] shows it.
//!
//! * [`corpus`], [`tokens`]: lines of JSON to windows of tokens.
//! * [`profile`]: windows through the parent, and what its router did;
//!   [`stability`]: whether it has seen enough; [`answers`]: a corpus of the
//!   parent's own answers; [`imatrix`]: a profile from llama.cpp's counts.
//! * [`coherence`]: whether one mask will do; pure.
//! * [`mask`]: which experts stay; pure.
//! * [`compare`]: what specialists share, and what a pool of them costs; pure.
//! * [`cut`], [`provenance`]: a GGUF with the kept experts' slices.
//! * [`verify`], [`evaluate`]: that it is equal, and what it costs; [`report`]
//!   shows the latter.
//! * [`create`]: all of it, resumable, and the specialist is registered.
//!
//! Absent: tensor names (the engine's table has them), serving, and any number
//! format: slices are copied as bytes.  To choose experts in another way start
//! in [`mask`]; to read another corpus, in [`corpus`].

pub mod answers;
pub mod coherence;
pub mod compare;
pub mod corpus;
pub mod create;
pub mod cut;
pub mod evaluate;
pub mod imatrix;
pub mod mask;
mod parent;
pub mod profile;
pub mod provenance;
pub mod report;
pub mod stability;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod verify;

pub use parent::Parent;

/// Called as work goes on: done, of how much, at what.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64, &str);
