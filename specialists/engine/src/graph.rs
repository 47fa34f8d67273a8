//! What an architecture makes of a file: layers that run one after the other.

use crate::kv::Kept;
use crate::parts::Expert;
use crate::rope::Rope;
use crate::run::{Rows, Run};

/// What an architecture makes of a file.
pub(crate) struct Graph {
    pub layers: Vec<Box<dyn Layer>>,
    /// What each layer keeps of a sequence.
    pub kept: Vec<Kept>,
    /// Ropes of the layers' attention, which name them by index.
    pub ropes: Vec<Rope>,
    /// What embeddings are multiplied by.
    pub embedding_scale: f32,
    /// Logits are bent to stay within it.
    pub softcap: Option<f32>,
}

/// One block of a model.
pub(crate) trait Layer: Send + Sync {
    /// Runs the block on the residual `x`, [rows, dim].
    fn forward(&self, run: &mut dyn Run, x: &Rows);

    /// Numbers that one row needs at most while the block runs, beside the residual.
    fn row_floats(&self) -> usize;

    /// Its routed experts; none if it is dense.
    fn experts(&self) -> &[Expert];
}
