//! What graphs are put together from.  Each part holds its tensors and knows how to run over the rows of a batch; none
//! knows a tensor's name or an architecture.
//!
//! The promise of every part: the numbers of a row depend on that row (and what its sequence stored) alone.

mod attention;
mod delta;
mod dense;
mod feed;
mod linear;
mod routed;
mod shared;

pub(crate) use attention::{Attention, HeadNorm};
pub(crate) use delta::{DeltaNet, Mixed, Pairing, Rates};
pub(crate) use dense::Dense;
pub(crate) use feed::Feed;
pub(crate) use linear::{Linear, Norm};
#[cfg(feature = "candle")]
pub(crate) use routed::Groups;
pub(crate) use routed::{Expert, Gates, Routed};
pub(crate) use shared::{Mixture, Shared};
