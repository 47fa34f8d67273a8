//! Where a parent is computed: the processor, or a device with memory of its own.
//!
//! To add one: its [`Device`], a `Run` over the operations of `run`, and a line in [`open`].

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::bank::Place;
use crate::host::Host;
use crate::kv::{Layout, Units};
use crate::model::Model;
use crate::step::Step;

pub use config::Device as Wanted;

/// What computes steps, and whose memory experts, keys and values are in.
pub trait Device: Send + Sync {
    /// As people know it.
    fn name(&self) -> String;

    /// Whether it computes masks that act after the softmax ([`crate::Masking::AfterSoftmax`]).
    fn masks_after_softmax(&self) -> bool {
        false
    }

    /// Bytes of its memory that are free; `None` where nobody tells.
    fn free_memory(&self) -> Option<u64>;

    /// Brings in what all specialists of a parent share; the bytes that it takes.
    fn bring_in_backbone(&self, model: &Model) -> u64;

    /// Where the experts of a parent are while they are resident.
    fn place(&self, model: &Arc<Model>) -> Arc<dyn Place>;

    /// Memory for what sequences keep, `bytes` at most.
    ///
    /// # Errors
    ///
    /// When there is none.
    fn units(&self, layout: &Layout, bytes: u64) -> io::Result<Box<dyn Units>>;

    /// Runs the tokens of a step, one a row, through all layers; what the layers do beside is in `step`.  The logits
    /// of the rows that are wanted, [wanted, vocab].
    fn run(
        &self,
        model: &Model,
        step: &mut Step<'_, '_>,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Vec<f32>;
}

/// Why the device that was asked for is not there; the processor computes instead.
#[derive(Debug, Error)]
pub enum NoDevice {
    #[error(
        "{wanted} was asked for, and this build has no such device: build with `--features {feature}`"
    )]
    NotBuilt { wanted: Wanted, feature: &'static str },
    #[error("{wanted} was asked for, and it does not open: {reason}")]
    NotOpened { wanted: Wanted, reason: String },
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
}

/// The device that is asked for, or the processor and why.  [`Wanted::Auto`] is content with the processor.
pub fn open(wanted: Wanted, model: &Arc<Model>) -> (Arc<dyn Device>, Option<NoDevice>) {
    let opened = match wanted {
        Wanted::Cpu => Ok(Arc::new(Host) as Arc<dyn Device>),
        Wanted::Auto => Ok(best(model)),
        Wanted::Cuda(ordinal) => cuda(ordinal, model),
        Wanted::Metal => metal(model),
    };
    match opened {
        Ok(device) => (device, None),
        Err(missing) => (Arc::new(Host), Some(missing)),
    }
}

/// A device if there is one.
fn best(model: &Arc<Model>) -> Arc<dyn Device> {
    cuda(0, model).or_else(|_| metal(model)).unwrap_or_else(|_| Arc::new(Host))
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: u32, model: &Arc<Model>) -> Result<Arc<dyn Device>, NoDevice> {
    Ok(crate::cuda::Gpu::open(ordinal, model)?)
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: u32, _: &Arc<Model>) -> Result<Arc<dyn Device>, NoDevice> {
    Err(NoDevice::NotBuilt { wanted: Wanted::Cuda(ordinal), feature: "cuda" })
}

#[cfg(all(feature = "metal", target_os = "macos"))]
fn metal(model: &Arc<Model>) -> Result<Arc<dyn Device>, NoDevice> {
    match crate::candle::Candle::metal(model) {
        Ok(metal) => Ok(Arc::new(metal)),
        Err(reason) => Err(NoDevice::NotOpened { wanted: Wanted::Metal, reason }),
    }
}

#[cfg(not(all(feature = "metal", target_os = "macos")))]
fn metal(_: &Arc<Model>) -> Result<Arc<dyn Device>, NoDevice> {
    Err(NoDevice::NotBuilt { wanted: Wanted::Metal, feature: "metal" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;

    #[test]
    fn the_processor_stands_in_for_what_is_not_there() {
        let model = Model::load(Gguf::nano().unwrap()).unwrap();
        #[track_caller]
        fn check(model: &Arc<Model>, wanted: Wanted, why: &str) {
            let (device, missing) = open(wanted, model);
            assert_eq!(device.name(), "cpu");
            assert!(missing.map_or(String::new(), |m| m.to_string()).contains(why));
        }
        check(&model, Wanted::Auto, "");
        check(&model, Wanted::Cpu, "");
        check(&model, Wanted::Metal, "metal was asked for");
    }
}
