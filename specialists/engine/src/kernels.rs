//! Matrices times vectors, on quantised blocks where they lie.
//!
//! In: [`Matrix`]es of rows in a mapped file, and [`Activations`] rounded once for all matrices that read them.  Out:
//! F32.  The promise: an output number depends on its matrix row and its activation row alone, never on how many rows
//! are in the batch, on which thread computes it, or on which instructions the processor has, since each is one sum in
//! one order (`tile` and `float` say which), and every set of instructions gives its bits.
//!
//! From the bottom up: `lanes` are registers, in the instructions of each processor; `blocks` and `supers` bring the
//! formats into registers; `tile` and `float` multiply, and `along` where there is one row of activations; `matrix` is
//! all formats as one, and `jobs` deals the work out to the threads of `workers`.  `pages` and `attend` are attention over keys and values in pages;
//! `encode` is what an encoder has instead, and its norms.
//! Nothing here knows of layers, masks or sequences.
//!
//! To add a format: `blocks` or `supers` says how; it is tested once it is in `tests::FORMATS`.

mod activations;
mod along;
mod attend;
mod blocks;
mod dequantise;
mod encode;
mod float;
mod functions;
mod jobs;
mod lanes;
mod matrix;
mod pages;
mod supers;
#[cfg(test)]
pub(crate) mod tests;
mod tile;
mod workers;

pub use activations::Activations;
#[cfg(feature = "cuda")]
pub(crate) use activations::Form;
pub use attend::{Attend, Query, attend};
#[cfg(feature = "candle")]
pub(crate) use blocks::{MXFP4_NUMBERS, mxfp4_scale};
pub use encode::{Biased, add_and_norm, attend_all, bias_and_gelu};
pub(crate) use float::dot;
pub use float::dot_f32;
pub use functions::{Activation, exp, sigmoid, silu};
pub use jobs::{Gated, Job, Product, compute, matmul};
#[cfg_attr(target_arch = "aarch64", allow(unused_imports))]
pub(crate) use lanes::{Set, WIDEST, wide};
pub use matrix::{Matrix, MatrixError, runs};
pub use pages::{PAGE, PageFormat};
pub use workers::{Filled, run as share};
