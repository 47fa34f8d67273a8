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
use crate::names::{self, block_of};

pub(crate) use source::Source;

/// What surgery does with a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Copied whole.
    Keep,
    /// The slowest axis counts experts of block `block`: kept experts' slices are copied.
    Slice { block: usize },
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
    Arch { name: "gemma4", sliced: GEMMA4, renormalises: true, graph: gemma4::graph },
    Arch { name: "gpt-oss", sliced: GPT_OSS, renormalises: true, graph: gpt_oss::graph },
    Arch { name: "llama", sliced: ROUTED, renormalises: true, graph: llama::graph },
    Arch { name: "olmoe", sliced: ROUTED, renormalises: false, graph: olmoe::graph },
    Arch { name: "qwen2", sliced: &[], renormalises: true, graph: qwen3::qwen2 },
    Arch { name: "qwen3", sliced: &[], renormalises: true, graph: qwen3::qwen3 },
    Arch { name: "qwen35moe", sliced: FUSED, renormalises: true, graph: qwen3next::qwen35 },
    Arch { name: "qwen3moe", sliced: ROUTED, renormalises: true, graph: qwen3moe::graph },
    Arch { name: "qwen3next", sliced: FUSED, renormalises: true, graph: qwen3next::next },
    Arch { name: "qwen3vlmoe", sliced: ROUTED, renormalises: true, graph: qwen3moe::text_part },
];

/// The router's scale is by input number and stays.
const GEMMA4: &[&str] = &[
    "ffn_gate_inp.weight",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_gate_up_exps.weight",
    "ffn_down_exps.weight",
    "ffn_down_exps.scale",
];

const GPT_OSS: &[&str] = &[
    "ffn_gate_inp.weight",
    "ffn_gate_inp.bias",
    "ffn_gate_exps.weight",
    "ffn_gate_exps.bias",
    "ffn_up_exps.weight",
    "ffn_up_exps.bias",
    "ffn_down_exps.weight",
    "ffn_down_exps.bias",
];

/// Gate and up may be one tensor.  A shared expert's gate, `ffn_gate_inp_shexp`, stays.
const FUSED: &[&str] = &[
    "ffn_gate_inp.weight",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_gate_up_exps.weight",
    "ffn_down_exps.weight",
];

/// What most architectures slice.
const ROUTED: &[&str] =
    &["ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight"];

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

impl Arch {
    /// What surgery does with the tensor `name`.
    pub fn fate(&self, name: &str) -> Fate {
        match block_of(name) {
            Some((block, part)) if self.sliced.contains(&part) => Fate::Slice { block },
            _ => Fate::Keep,
        }
    }

    /// The key that counts a layer's routed experts.
    pub fn expert_count_key(&self) -> String {
        format!("{}.expert_count", self.name)
    }

    /// The layers of a file.
    pub(crate) fn graph(&self, source: &Source<'_>) -> Result<Graph, ModelError> {
        (self.graph)(source)
    }
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
    }
}
