//! The table of architectures: which tensors a parent has, and which of them surgery slices.
//!
//! This is the only place with tensor and key names.  To add an architecture: a row in [`ARCHITECTURES`], and its graph.
//! Sources: llama.cpp's `llama-arch.cpp` and its model files.

use thiserror::Error;

use crate::gguf::Gguf;

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
}

/// Every architecture the engine runs.
pub const ARCHITECTURES: &[Arch] = &[Arch {
    name: "qwen3moe",
    sliced: &[
        "ffn_gate_inp.weight",
        "ffn_gate_exps.weight",
        "ffn_up_exps.weight",
        "ffn_down_exps.weight",
    ],
    renormalises: true,
}];

/// Names shared by the architectures of the table.
pub(crate) mod names {
    pub const ARCHITECTURE: &str = "general.architecture";
    pub const EMBEDDING: &str = "token_embd.weight";
    pub const OUTPUT_NORM: &str = "output_norm.weight";
    pub const OUTPUT: &str = "output.weight";
    pub const ATTN_NORM: &str = "attn_norm.weight";
    pub const ATTN_Q: &str = "attn_q.weight";
    pub const ATTN_K: &str = "attn_k.weight";
    pub const ATTN_V: &str = "attn_v.weight";
    pub const ATTN_OUTPUT: &str = "attn_output.weight";
    pub const ATTN_Q_NORM: &str = "attn_q_norm.weight";
    pub const ATTN_K_NORM: &str = "attn_k_norm.weight";
    pub const FFN_NORM: &str = "ffn_norm.weight";
    pub const ROUTER: &str = "ffn_gate_inp.weight";
    pub const GATE: &str = "ffn_gate_exps.weight";
    pub const UP: &str = "ffn_up_exps.weight";
    pub const DOWN: &str = "ffn_down_exps.weight";

    pub fn block(layer: usize, part: &str) -> String {
        format!("blk.{layer}.{part}")
    }
}

/// The sizes of a parent, in counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub architecture: String,
    pub name: String,
    pub layers: usize,
    pub dim: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Routed experts in a layer.
    pub experts: usize,
    /// Experts the router picks for a token.
    pub top_k: usize,
    pub expert_ff: usize,
    pub vocab: usize,
    /// Tokens the model was made for.
    pub context: usize,
    pub rope_base: f32,
    pub norm_eps: f32,
}

#[derive(Debug, Error, PartialEq)]
pub enum ShapeError {
    #[error("architecture {name:?} is not known to this engine; known are: {known}")]
    Unknown { name: String, known: String },
    #[error("key {key:?} is missing or no number")]
    Missing { key: String },
    #[error("{key} is {value}; {want}")]
    Value { key: String, value: u64, want: &'static str },
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
        let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        match block.and_then(|(n, part)| Some((n.parse().ok()?, part))) {
            Some((block, part)) if self.sliced.contains(&part) => Fate::Slice { block },
            _ => Fate::Keep,
        }
    }

    /// The key that counts a layer's routed experts.
    pub fn expert_count_key(&self) -> String {
        format!("{}.expert_count", self.name)
    }
}

/// No real model is near these; they keep a hostile header from asking for absurd memory.
const MOST: &[(&str, u64)] = &[
    ("block_count", 1024),
    ("embedding_length", 1 << 20),
    ("attention.head_count", 4096),
    ("attention.head_count_kv", 4096),
    ("attention.key_length", 1 << 14),
    ("expert_count", 1 << 14),
    ("expert_feed_forward_length", 1 << 20),
    ("context_length", 1 << 26),
];

impl Shape {
    /// Reads the sizes of a file, checked against each other.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] naming the key.
    pub fn read(gguf: &Gguf) -> Result<Shape, ShapeError> {
        let arch = find(gguf)?;
        let key = |part: &str| format!("{}.{part}", arch.name);
        let get = |part: &str| -> Result<usize, ShapeError> {
            let key = key(part);
            let value = gguf.int(&key).ok_or(ShapeError::Missing { key: key.clone() })?;
            let most =
                MOST.iter().find(|(name, _)| *name == part).map_or(u64::MAX, |(_, most)| *most);
            if value == 0 || value > most {
                let want = "it must be above zero and of a size that models have";
                return Err(ShapeError::Value { key, value, want });
            }
            Ok(value as usize)
        };
        let vocab =
            gguf.meta("tokenizer.ggml.tokens").and_then(|v| v.texts()).map_or(0, <[String]>::len);
        let (dim, heads) = (get("embedding_length")?, get("attention.head_count")?);
        let head_dim = match get("attention.key_length") {
            Err(ShapeError::Missing { .. }) => dim / heads,
            other => other?,
        };
        let shape = Shape {
            architecture: arch.name.to_owned(),
            name: gguf.text("general.name").unwrap_or(arch.name).to_owned(),
            layers: get("block_count")?,
            dim,
            heads,
            kv_heads: get("attention.head_count_kv")?,
            head_dim,
            experts: get("expert_count")?,
            top_k: get("expert_used_count")?,
            expert_ff: get("expert_feed_forward_length")?,
            vocab,
            context: get("context_length")?,
            rope_base: gguf.float(&key("rope.freq_base")).unwrap_or(10_000.0) as f32,
            norm_eps: gguf
                .float(&key("attention.layer_norm_rms_epsilon"))
                .ok_or(ShapeError::Missing { key: key("attention.layer_norm_rms_epsilon") })?
                as f32,
        };
        let wrong = |part: &str, value: usize, want| {
            Err(ShapeError::Value { key: key(part), value: value as u64, want })
        };
        if shape.top_k > shape.experts {
            return wrong("expert_used_count", shape.top_k, "it must not exceed expert_count");
        }
        if !shape.heads.is_multiple_of(shape.kv_heads) {
            return wrong("attention.head_count_kv", shape.kv_heads, "it must divide head_count");
        }
        if !shape.head_dim.is_multiple_of(2) {
            return wrong("attention.key_length", shape.head_dim, "rotation needs an even length");
        }
        if vocab == 0 {
            return Err(ShapeError::Missing { key: "tokenizer.ggml.tokens".to_owned() });
        }
        Ok(shape)
    }

    /// Numbers in the keys (or the values) of one token in one layer.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates() {
        let arch = &ARCHITECTURES[0];
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
