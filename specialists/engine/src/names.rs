//! Names of keys and tensors that all architectures share.

pub const ARCHITECTURE: &str = "general.architecture";
pub const VOCABULARY: &str = "tokenizer.ggml.tokens";
pub const EMBEDDING: &str = "token_embd.weight";
pub const OUTPUT_NORM: &str = "output_norm.weight";
pub const OUTPUT: &str = "output.weight";
/// Some layer has a router exactly if its block has this.
pub const ROUTER: &str = "ffn_gate_inp.weight";

/// Of a cut file: the ids in the parent of a layer's experts; followed by the layer's number.
pub const KEPT: &str = "collegium.kept.";

pub fn block(layer: usize, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

/// The block of a tensor, and what its name says after it.
pub fn block_of(name: &str) -> Option<(usize, &str)> {
    let (n, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((n.parse().ok()?, part))
}
