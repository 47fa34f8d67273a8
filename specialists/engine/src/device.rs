//! Where a parent is computed: the processor, or a device with memory of its own.

use std::io;
use std::sync::Arc;

use crate::bank::Place;
use crate::kv::{Layout, Units};
use crate::model::Model;
use crate::step::Step;

/// What computes steps, and whose memory experts, keys and values are in.
pub trait Device: Send + Sync {
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
