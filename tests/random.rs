//! Parents of random weights at real sizes: what memory and speed depend on, without the meaning.
//!
//! In comes a shape, out comes a GGUF of the Qwen3 MoE architecture in Q8_0 ([`Random`]) or of Gemma 4 in Q4_K
//! ([`Gemma4`]), with the embedded parent's tokenizer and chat template, so that everything from the supervisor to the sampler works on it.  Tensors follow each other as
//! stock tools write them, aligned to 32 bytes: slices of experts begin anywhere in a page.  Bytes are made as they are
//! written, in pieces; the same shape and seed give the same file.

mod fill;
mod gemma4;

use std::io;
use std::path::Path;

use engine::ExpertMask;
use engine::Shape;
use engine::ggml::Kind;
use engine::gguf::{Gguf, Value};

use fill::{Fill, NORM, Tensors, filled};
pub use gemma4::{GEMMA4, Gemma4};

/// Sizes of a random parent.
#[derive(Clone, Debug)]
pub struct Random {
    pub layers: u32,
    pub dim: u64,
    /// Experts of a layer, how many the router picks, and their hidden length.
    pub experts: u32,
    pub top_k: u32,
    pub ff: u64,
    /// Heads of queries, how many of them share a key, and their length.
    pub heads: u64,
    pub queries: u64,
    pub head: u64,
    pub vocab: u64,
    /// How the matrices are stored.
    pub format: Format,
    pub seed: u64,
}

/// Number formats of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Q8_0,
    /// Q4_K, and Q6_K what makes logits.
    Q4K,
}

/// Seconds to write and to read, megabytes: 128 experts a layer, each eight pages and a half in each of its tensors.
pub const MANY: Random = Random {
    layers: 4,
    dim: 256,
    experts: 128,
    top_k: 8,
    ff: 128,
    heads: 4,
    queries: 4,
    head: 64,
    vocab: 8192,
    format: Format::Q8_0,
    seed: 0,
};

/// The shape of a model one would run: 1.3 billion weights, 0.2 of them at work for a token.
pub const LARGE: Random = Random { layers: 12, dim: 1024, experts: 64, ff: 512, heads: 16, ..MANY };

/// The shape of Qwen3-30B-A3B, 17 GB.
pub const QWEN3_30B: Random = Random {
    layers: 48,
    dim: 2048,
    ff: 768,
    heads: 32,
    queries: 8,
    head: 128,
    vocab: 151_936,
    format: Format::Q4K,
    ..MANY
};

impl Random {
    fn tensors(&self) -> Tensors {
        let (dim, ff, experts) = (self.dim, self.ff, u64::from(self.experts));
        let (q, kv) = (self.heads * self.head, self.kv_heads() * self.head);
        let (stored, output) = match self.format {
            Format::Q8_0 => (Kind::Q8_0, Kind::Q8_0),
            Format::Q4K => (Kind::Q4_K, Kind::Q6_K),
        };
        let matrix = || (stored, Fill::Matrix(1.0));
        let norm = || (Kind::F32, NORM);
        let mut all = Tensors::default();
        all.add("token_embd.weight", output, &[dim, self.vocab], Fill::Matrix(3.0));
        all.add("output_norm.weight", Kind::F32, &[dim], NORM);
        for layer in 0..self.layers {
            let rows: [(&str, &[u64], (Kind, Fill)); 12] = [
                ("attn_norm", &[dim], norm()),
                ("attn_q", &[dim, q], matrix()),
                ("attn_k", &[dim, kv], matrix()),
                ("attn_v", &[dim, kv], matrix()),
                ("attn_output", &[q, dim], matrix()),
                ("attn_q_norm", &[self.head], norm()),
                ("attn_k_norm", &[self.head], norm()),
                ("ffn_norm", &[dim], norm()),
                // Apart enough that some experts are chosen more often than others.
                ("ffn_gate_inp", &[dim, experts], (Kind::F32, Fill::Matrix(2.0))),
                ("ffn_gate_exps", &[dim, ff, experts], matrix()),
                ("ffn_up_exps", &[dim, ff, experts], matrix()),
                ("ffn_down_exps", &[ff, dim, experts], matrix()),
            ];
            for (part, dims, (kind, fill)) in rows {
                all.add(&format!("blk.{layer}.{part}.weight"), kind, dims, fill);
            }
        }
        all
    }

    fn metadata(&self, nano: &Gguf) -> Vec<(String, Value)> {
        let count = |key: &str, n: u64| (format!("qwen3moe.{key}"), Value::U32(n as u32));
        let text = |key: &str, text: &str| (key.to_owned(), Value::Text(text.to_owned()));
        let mut keys = vec![
            text("general.architecture", "qwen3moe"),
            text("general.name", "random"),
            count("block_count", self.layers.into()),
            count("context_length", 2048),
            count("embedding_length", self.dim),
            count("feed_forward_length", u64::from(self.top_k) * self.ff),
            count("expert_feed_forward_length", self.ff),
            count("expert_count", self.experts.into()),
            count("expert_used_count", self.top_k.into()),
            count("attention.head_count", self.heads),
            count("attention.head_count_kv", self.kv_heads()),
            count("attention.key_length", self.head),
            count("attention.value_length", self.head),
            ("qwen3moe.attention.layer_norm_rms_epsilon".to_owned(), Value::F32(1e-6)),
            ("qwen3moe.rope.freq_base".to_owned(), Value::F32(10_000.0)),
        ];
        let own = nano.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
        keys.extend(own.map(|(key, value)| (key.clone(), filled(key, value, self.vocab as usize))));
        keys
    }

    fn kv_heads(&self) -> u64 {
        (self.heads / self.queries).max(1)
    }

    /// Writes the file; its size in bytes.
    ///
    /// # Errors
    ///
    /// What the system says; sizes that are no whole blocks.
    pub fn write(&self, path: &Path) -> io::Result<u64> {
        let nano = Gguf::nano().map_err(io::Error::other)?;
        self.tensors().write(path, &self.metadata(&nano), self.seed)
    }
}

/// `n` masks of `share` of each layer's experts, drawn from the first `pool` share of a shuffled list of its own, so
/// that they overlap and their union is no more than the pool.
///
/// # Panics
///
/// When a mask has fewer experts than the router picks.
pub fn masks(shape: &Shape, n: usize, share: f64, pool: f64, seed: u64) -> Vec<ExpertMask> {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = |share: f64| (shape.experts as f64 * share).floor() as usize;
    let pools: Vec<Vec<u32>> = (0..shape.layers)
        .map(|_| random.choose_multiple(0..shape.experts as u32, count(pool)))
        .collect();
    let mut draw = || -> Vec<Vec<u32>> {
        let kept = |pool: &Vec<u32>| random.choose_multiple(pool.iter().copied(), count(share));
        pools.iter().map(kept).collect()
    };
    (0..n).map(|_| ExpertMask::from_kept(shape, &draw()).expect("enough experts")).collect()
}
