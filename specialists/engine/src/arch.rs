//! The table of architectures: how a file's tensors make a graph, and which of them surgery slices.
//!
//! This file and those below it are the only places with tensor names.  To add an architecture: a row in
//! [`ARCHITECTURES`] and a file beside the others here, which reads the keys and puts `parts` together; then its tiny
//! file and its line in the parity test.
//!
//! Sources: llama.cpp's `llama-arch.cpp` and the files of `src/models`.

mod gemma3;
mod gemma4;
mod gpt_oss;
mod llama;
mod olmoe;
mod plain;
mod qwen3;
mod qwen3moe;
mod qwen3next;
mod source;
mod window;

use crate::gguf::Gguf;
use crate::graph::Graph;
use crate::keys::ShapeError;
use crate::load::ModelError;
use crate::names;

pub(crate) use source::Source;

/// What surgery does with a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Copied whole.
    Keep,
    /// The slowest axis counts experts of block `block`: kept experts' slices are copied.
    Slice { block: usize },
    /// It has experts by its name, and nothing is known of its axes: the file cannot be cut.
    Unknown,
}

/// One architecture.
pub struct Arch {
    /// `general.architecture`.
    pub name: &'static str,
    /// Parts of a block, after `blk.N.`, whose slowest axis counts routed experts.
    pub sliced: &'static [&'static str],
    /// The router renormalises over the chosen experts, so that a masked parent and a pruned file are one function.
    pub renormalises: bool,
    /// Makes the layers out of the file's tensors.
    graph: fn(&Source<'_>) -> Result<Graph, ModelError>,
}

/// Every architecture the engine runs.
pub const ARCHITECTURES: &[Arch] = &[
    Arch { name: "gemma3", sliced: &[], renormalises: true, graph: gemma3::graph },
    Arch { name: "gemma4", sliced: EXPERTS, renormalises: true, graph: gemma4::graph },
    Arch { name: "gpt-oss", sliced: EXPERTS, renormalises: true, graph: gpt_oss::graph },
    Arch { name: "llama", sliced: EXPERTS, renormalises: true, graph: llama::graph },
    Arch { name: "olmoe", sliced: EXPERTS, renormalises: false, graph: olmoe::graph },
    Arch { name: "qwen2", sliced: &[], renormalises: true, graph: qwen3::qwen2 },
    Arch { name: "qwen3", sliced: &[], renormalises: true, graph: qwen3::qwen3 },
    Arch { name: "qwen35moe", sliced: EXPERTS, renormalises: true, graph: qwen3next::qwen35 },
    Arch { name: "qwen3moe", sliced: EXPERTS, renormalises: true, graph: qwen3moe::graph },
    Arch { name: "qwen3next", sliced: EXPERTS, renormalises: true, graph: qwen3next::next },
    Arch { name: "qwen3vlmoe", sliced: EXPERTS, renormalises: true, graph: qwen3moe::text_part },
];

/// All parts that can have an axis of routed experts; it is the slowest in each.  The router with its bias, the experts
/// with theirs, the scales that go with some number formats and architectures, and the bias that some routers add only
/// to choose.  Gate and up may be one tensor.
///
/// What looks alike and stays: `ffn_gate_inp_shexp` is a shared expert's, `ffn_gate_inp.scale` is by input number.
const EXPERTS: &[&str] = &[
    "ffn_gate_inp.weight",
    "ffn_gate_inp.bias",
    "exp_probs_b.bias",
    "ffn_gate_exps.weight",
    "ffn_gate_exps.bias",
    "ffn_gate_exps.scale",
    "ffn_gate_exps.input_scale",
    "ffn_up_exps.weight",
    "ffn_up_exps.bias",
    "ffn_up_exps.scale",
    "ffn_up_exps.input_scale",
    "ffn_gate_up_exps.weight",
    "ffn_gate_up_exps.bias",
    "ffn_gate_up_exps.scale",
    "ffn_gate_up_exps.input_scale",
    "ffn_down_exps.weight",
    "ffn_down_exps.bias",
    "ffn_down_exps.scale",
    "ffn_down_exps.input_scale",
];

/// Keys below the architecture's that may hold one number for each block.
const BY_BLOCK: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.recurrent_layers",
    "attention.sliding_window_pattern",
    "expert_feed_forward_length",
    "feed_forward_length",
];

/// The matrices, all experts of a layer in one, that make an expert's output: what goes into them is what only this expert
/// has computed.
pub fn expert_output(block: usize) -> String {
    names::block(block, "ffn_down_exps.weight")
}

/// The row of the table for a file.
///
/// # Errors
///
/// [`ShapeError::Unknown`] with the names that are known.
pub fn find(gguf: &Gguf) -> Result<&'static Arch, ShapeError> {
    let name = gguf.text(names::ARCHITECTURE).unwrap_or("");
    ARCHITECTURES.iter().find(|arch| arch.name == name).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|arch| arch.name).collect();
        ShapeError::Unknown { name: name.to_owned(), known: known.join(", ") }
    })
}

/// Whether the router of an architecture renormalises; `None` for a name that is not in the table.
pub fn renormalises(name: &str) -> Option<bool> {
    ARCHITECTURES.iter().find(|arch| arch.name == name).map(|arch| arch.renormalises)
}

/// The block that a tensor is of.
pub fn block_of(name: &str) -> Option<usize> {
    names::block_of(name).map(|(block, _)| block)
}

impl Arch {
    /// What surgery does with the tensor `name`.
    pub fn fate(&self, name: &str) -> Fate {
        let Some((block, part)) = names::block_of(name) else { return Fate::Keep };
        if self.sliced.contains(&part) {
            return Fate::Slice { block };
        }
        match !self.sliced.is_empty() && of_experts(part) {
            true => Fate::Unknown,
            false => Fate::Keep,
        }
    }

    /// Whether a tensor has what experts compute with, and not what chooses them.
    pub fn holds_experts(&self, name: &str) -> bool {
        self.fate(name) != Fate::Keep && name.contains("_exps.")
    }

    /// The key that counts a layer's routed experts.
    pub fn expert_count_key(&self) -> String {
        format!("{}.expert_count", self.name)
    }

    /// The key that counts blocks, those that predict further tokens with them.
    pub fn block_count_key(&self) -> String {
        format!("{}.block_count", self.name)
    }

    /// The key that counts the blocks that predict further tokens; they are the last ones.
    pub fn ahead_key(&self) -> String {
        format!("{}.nextn_predict_layers", self.name)
    }

    /// Whether a key may hold one number for each block.
    pub fn is_by_block(&self, key: &str) -> bool {
        let own = key.strip_prefix(self.name).and_then(|rest| rest.strip_prefix('.'));
        own.is_some_and(|part| BY_BLOCK.contains(&part))
    }

    /// The layers of a file.
    pub(crate) fn graph(&self, source: &Source<'_>) -> Result<Graph, ModelError> {
        (self.graph)(source)
    }
}

/// Whether a part of a block has to do with routed experts, by what its name begins with: also in files of the time when
/// each expert was a tensor of its own (`ffn_up.7.weight`).
fn of_experts(part: &str) -> bool {
    let alone = ["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|of| {
        part.strip_prefix(of).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    alone || part.contains("_exps") || part.starts_with("exp_probs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates() {
        let arch = ARCHITECTURES.iter().find(|arch| arch.name == "qwen3moe").unwrap();
        #[track_caller]
        fn check(arch: &Arch, name: &str, want: Fate) {
            assert_eq!(arch.fate(name), want, "{name}");
        }
        check(arch, "blk.3.ffn_down_exps.weight", Fate::Slice { block: 3 });
        check(arch, "blk.11.ffn_gate_inp.weight", Fate::Slice { block: 11 });
        // A shared expert's gate has a name that begins the same.
        check(arch, "blk.3.ffn_gate_inp_shexp.weight", Fate::Keep);
        check(arch, "blk.x.ffn_down_exps.weight", Fate::Keep);
        check(arch, "ffn_down_exps.weight", Fate::Keep);
        check(arch, "token_embd.weight", Fate::Keep);
        // What goes with the experts goes with them, also where this engine would not run it.
        check(arch, "blk.3.exp_probs_b.bias", Fate::Slice { block: 3 });
        check(arch, "blk.3.ffn_up_exps.input_scale", Fate::Slice { block: 3 });
        check(arch, "blk.3.ffn_gate_inp.scale", Fate::Keep);
        check(arch, "blk.3.ffn_up.weight", Fate::Keep);
        check(arch, "blk.3.ffn_up.7.weight", Fate::Unknown);
        check(arch, "blk.3.ffn_norm_exps.weight", Fate::Unknown);
        check(arch, "blk.3.exp_probs_b.weight", Fate::Unknown);
        let dense = ARCHITECTURES.iter().find(|arch| arch.name == "qwen3").unwrap();
        check(dense, "blk.3.ffn_down_exps.weight", Fate::Keep);
        assert!(arch.is_by_block("qwen3moe.attention.head_count_kv"));
        assert!(!arch.is_by_block("qwen3moe.rope.dimension_sections"));
        assert!(!arch.is_by_block("qwen3.attention.head_count_kv"));
    }
}
