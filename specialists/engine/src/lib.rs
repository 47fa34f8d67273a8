//! The engine: GGUF in, tokens out.
//!
//! One parent is in memory once.  Its backbone and every expert are used where they lie in the mapped file; a
//! specialist is an [`ExpertMask`] on the router's logits, so that rows of different specialists share one batch.
//!
//! Where things are:
//! * [`gguf`], [`ggml`], [`mapping`]: files, formats, bytes in place; [`fault`]: a file that shrinks under its map.
//! * [`arch`]: the table of architectures and one graph a file, with `names` the only places with tensor names; `keys`,
//!   `load`: what graphs are made from; [`Shape`], [`Model`]: a parent ready to run.
//! * [`forward()`]: one step of a batch; `run`: the operations that layers are made of; `step`: what those see of the
//!   batch; `parts`, `rope`: attention, routed experts and all else that graphs are put together from.
//! * [`Device`]: what computes steps, and whose memory they are in; [`Host`]: the processor, by [`kernels`], matrix
//!   products and attention; with features, `cuda`: NVIDIA's devices, `candle`: Apple's.
//! * [`Bank`]: which experts are in memory, for whom, and what becomes of a row ([`Missing`]) whose experts are not;
//!   [`Place`]: whether that is the file's own pages or slots of a device.
//! * [`kv`]: pages of keys and values, and recurrent states.
//! * [`Engine`]: takes requests; `batcher` runs them in one batch, `sequence` is one of them on its way, `lookup` guesses
//!   how it goes on.  [`Session`]: teacher-forced runs for surgery and tests.
//! * [`Profile`], [`MaskFile`]: the files that surgery reads and writes.
//!
//! The promise: the numbers of a row depend on its own tokens and mask alone, bit for bit, whatever else is in the
//! batch, and however its prompt was cut into pieces.
//!
//! Absent: HTTP, domains, budgets, policy.  To add an architecture start in [`arch`]; a number format, in [`kernels`].  A
//! token's way through, and an architecture from first to last, are in `README.md`.

pub mod arch;
mod bank;
mod batcher;
#[cfg(feature = "candle")]
mod candle;
#[cfg(feature = "cuda")]
mod cuda;
pub mod device;
mod dry;
pub mod fault;
pub mod file;
pub mod finite;
mod forward;
pub mod ggml;
pub mod gguf;
mod graph;
mod handle;
pub mod hash;
mod host;
pub mod kernels;
mod keys;
pub mod kv;
mod load;
mod lookup;
pub mod mapping;
mod mask;
mod math;
pub mod memory;
mod model;
mod names;
#[cfg(feature = "nano")]
mod nano;
mod parts;
mod prefix;
mod profile;
mod repeat;
mod request;
mod rope;
mod run;
mod sampler;
mod sequence;
mod session;
mod shape;
mod step;
mod stop;
mod template;
mod tokenizer;
mod vector;

pub use bank::{
    Arena, Bank, DeviceMemory, HostMemory, LayerCounts, Moved, Place, Residents, Sizes,
};
pub use batcher::EngineOptions;
#[cfg(feature = "candle")]
pub use candle::Candle;
pub use config::{Missing, Precision};
pub use device::Device;
pub use dry::Dry;
pub use forward::forward;
pub use handle::{Engine, Generation};
pub use host::Host;
pub use keys::ShapeError;
pub use load::ModelError;
pub use lookup::Guesses;
pub use mask::{
    ExpertMask, FORMAT as MASK_FORMAT, MaskError, MaskFile, MaskFileError, Masking, Pass, Source,
};
pub use model::Model;
pub use profile::{FORMAT as PROFILE_FORMAT, Known, Profile, ProfileError, Signatures, Taps};
pub use request::{EngineError, Event, Finish, Reason, Request};
pub use sampler::{Constraint, SamplingParams, Scored};
pub use session::Session;
pub use shape::Shape;
pub use step::{Guess, Output, Segment, Want};
pub use template::{Effort, TemplateError, TemplateMessage, Thinking};
pub use tokenizer::{Tokenizer, TokenizerError, Utf8Stream};
