//! The shape of Gemma-4-26B-A4B: all its dimensions, fewer layers.
//!
//! Of each six layers of the real one five see a window and one sees all; here the last of `layers` sees all.  Number
//! formats as of a Q4_K file: experts are 704 wide, which is no whole number of 256, so that what leads down from there
//! is in blocks of 32.  The vocabulary is the embedded parent's, filled up to the real size with names that no text has.

use std::io;
use std::path::Path;

use engine::ggml::Kind;
use engine::gguf::{Array, Gguf, Value};

use super::fill::{Fill, NORM, Tensors, filled};

/// What is not fixed.
#[derive(Clone, Debug)]
pub struct Gemma4 {
    pub layers: u32,
    pub seed: u64,
}

pub const GEMMA4: Gemma4 = Gemma4 { layers: 3, seed: 0 };

const DIM: u64 = 2816;
const HEADS: u64 = 16;
const FF: u64 = 2112;
const EXPERTS: u64 = 128;
const TOP_K: u64 = 8;
const EXPERT_FF: u64 = 704;
const VOCAB: usize = 262_144;
/// Length and number of the heads of keys in layers that see a window, and in those that see all.
const WINDOW: (u64, u64) = (256, 8);
const ALL: (u64, u64) = (512, 2);

impl Gemma4 {
    fn sees_all(&self, layer: u32) -> bool {
        layer + 1 == self.layers
    }

    fn tensors(&self) -> Tensors {
        let mut all = Tensors::default();
        let mut plain = |name: &str, dims: &[u64], fill| all.add(name, Kind::F32, dims, fill);
        plain("output_norm.weight", &[DIM], NORM);
        // A quarter of each long head turns.
        let turns = (0..ALL.0 / 2).map(|pair| if pair < ALL.0 / 8 { 1.0 } else { 1e30 });
        plain("rope_freqs.weight", &[ALL.0 / 2], Fill::Given(turns.collect()));
        all.add("token_embd.weight", Kind::Q6_K, &[DIM, VOCAB as u64], Fill::Matrix(1.0));
        for layer in 0..self.layers {
            let sees_all = self.sees_all(layer);
            let (head, kv) = if sees_all { ALL } else { WINDOW };
            let name = |part: &str| format!("blk.{layer}.{part}");
            let mut matrix = |part: &str, kind, dims: &[u64]| {
                all.add(&name(part), kind, dims, Fill::Matrix(1.0));
            };
            matrix("attn_q.weight", Kind::Q4_K, &[DIM, HEADS * head]);
            matrix("attn_k.weight", Kind::Q4_K, &[DIM, kv * head]);
            if !sees_all {
                matrix("attn_v.weight", Kind::Q6_K, &[DIM, kv * head]);
            }
            matrix("attn_output.weight", Kind::Q4_K, &[HEADS * head, DIM]);
            matrix("ffn_gate.weight", Kind::Q4_K, &[DIM, FF]);
            matrix("ffn_up.weight", Kind::Q4_K, &[DIM, FF]);
            matrix("ffn_down.weight", Kind::Q8_0, &[FF, DIM]);
            matrix("ffn_gate_up_exps.weight", Kind::Q4_K, &[DIM, 2 * EXPERT_FF, EXPERTS]);
            matrix("ffn_down_exps.weight", Kind::Q8_0, &[EXPERT_FF, DIM, EXPERTS]);
            let mut plain =
                |part: &str, dims: &[u64], fill| all.add(&name(part), Kind::F32, dims, fill);
            // The router's input is divided by the root of its length; apart enough that some experts are chosen
            // more often than others.
            plain("ffn_gate_inp.weight", &[DIM, EXPERTS], Fill::Matrix(2.0));
            plain("ffn_gate_inp.scale", &[DIM], Fill::Between(26.0, 80.0));
            plain("ffn_down_exps.scale", &[EXPERTS], Fill::Between(0.5, 2.0));
            plain("layer_output_scale.weight", &[1], Fill::Between(0.5, 1.5));
            // Scores are not divided by the root of a head's length.
            for part in ["attn_q_norm.weight", "attn_k_norm.weight"] {
                plain(part, &[head], Fill::Between(0.2, 0.4));
            }
            for part in [
                "attn_norm.weight",
                "post_attention_norm.weight",
                "ffn_norm.weight",
                "post_ffw_norm.weight",
                "post_ffw_norm_1.weight",
                "pre_ffw_norm_2.weight",
                "post_ffw_norm_2.weight",
            ] {
                plain(part, &[DIM], NORM);
            }
        }
        all
    }

    fn metadata(&self, nano: &Gguf) -> Vec<(String, Value)> {
        let text = |key: &str, text: &str| (key.to_owned(), Value::Text(text.to_owned()));
        let own = |(key, value): (&str, Value)| (format!("gemma4.{key}"), value);
        let count = |n: u64| Value::U32(n as u32);
        let layers = || 0..self.layers;
        let kv = layers().map(|l| if self.sees_all(l) { ALL.1 } else { WINDOW.1 } as i32).collect();
        let windows = layers().map(|l| !self.sees_all(l)).collect();
        let mut keys = vec![text("general.architecture", "gemma4"), text("general.name", "random")];
        let numbers = [
            ("block_count", count(self.layers.into())),
            ("context_length", Value::U32(4096)),
            ("embedding_length", count(DIM)),
            ("embedding_length_per_layer_input", Value::U32(0)),
            ("feed_forward_length", count(FF)),
            ("expert_count", count(EXPERTS)),
            ("expert_used_count", count(TOP_K)),
            ("expert_feed_forward_length", count(EXPERT_FF)),
            ("attention.head_count", count(HEADS)),
            ("attention.head_count_kv", Value::Array(Array::I32(kv))),
            ("attention.key_length", count(ALL.0)),
            ("attention.value_length", count(ALL.0)),
            ("attention.key_length_swa", count(WINDOW.0)),
            ("attention.value_length_swa", count(WINDOW.0)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
            ("attention.sliding_window", Value::U32(1024)),
            ("attention.sliding_window_pattern", Value::Array(Array::Bool(windows))),
            ("attention.shared_kv_layers", Value::U32(0)),
            ("rope.dimension_count", count(ALL.0)),
            ("rope.dimension_count_swa", count(WINDOW.0)),
            ("rope.freq_base", Value::F32(1_000_000.0)),
            ("rope.freq_base_swa", Value::F32(10_000.0)),
            ("final_logit_softcapping", Value::F32(30.0)),
        ];
        keys.extend(numbers.map(own));
        let theirs = nano.metadata().iter().filter(|(key, _)| key.starts_with("tokenizer."));
        keys.extend(theirs.map(|(key, value)| (key.clone(), filled(key, value, VOCAB))));
        keys
    }

    /// Writes the file; its size in bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(&self, path: &Path) -> io::Result<u64> {
        let nano = Gguf::nano().map_err(io::Error::other)?;
        self.tensors().write(path, &self.metadata(&nano), self.seed)
    }
}
