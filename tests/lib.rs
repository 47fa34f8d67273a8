//! What the tests share: tiny parents of random weights, written as real GGUF files.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use engine::ggml::Kind;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Array, Value};

/// Sizes of a tiny parent.
#[derive(Clone, Debug)]
pub struct Tiny {
    pub layers: u32,
    pub experts: u32,
    pub top_k: u32,
    pub seed: u64,
}

impl Default for Tiny {
    fn default() -> Self {
        Tiny { layers: 2, experts: 8, top_k: 2, seed: 0 }
    }
}

const DIM: u64 = 32;
const FF: u64 = 32;
const HEADS: u64 = 2;
const HEAD_DIM: u64 = 16;

impl Tiny {
    /// Keys of the file.  The vocabulary is the 256 bytes and two control tokens.
    pub fn metadata(&self) -> Vec<(String, Value)> {
        let arch = |key: &str| format!("qwen3moe.{key}");
        let text = |t: &str| Value::Text(t.to_owned());
        let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_end|>"].map(str::to_owned).into();
        // The characters that stand for bytes in byte-level vocabularies.
        tokens.extend(
            (0x21..0x7f)
                .chain(0xa1..0xad)
                .chain(0xae..0x144)
                .filter_map(char::from_u32)
                .map(String::from),
        );
        let kinds = (0..tokens.len()).map(|i| if i < 2 { 3 } else { 1 }).collect();
        vec![
            ("general.architecture".into(), text("qwen3moe")),
            ("general.name".into(), text("tiny")),
            (arch("block_count"), Value::U32(self.layers)),
            (arch("context_length"), Value::U32(128)),
            (arch("embedding_length"), Value::U32(DIM as u32)),
            (arch("feed_forward_length"), Value::U32(self.top_k * FF as u32)),
            (arch("attention.head_count"), Value::U32(HEADS as u32)),
            (arch("attention.head_count_kv"), Value::U32(1)),
            (arch("attention.key_length"), Value::U32(HEAD_DIM as u32)),
            (arch("attention.value_length"), Value::U32(HEAD_DIM as u32)),
            (arch("attention.layer_norm_rms_epsilon"), Value::F32(1e-6)),
            (arch("rope.freq_base"), Value::F32(10_000.0)),
            (arch("expert_count"), Value::U32(self.experts)),
            (arch("expert_used_count"), Value::U32(self.top_k)),
            (arch("expert_feed_forward_length"), Value::U32(FF as u32)),
            ("tokenizer.ggml.model".into(), text("gpt2")),
            ("tokenizer.ggml.pre".into(), text("qwen2")),
            ("tokenizer.ggml.tokens".into(), Value::Array(Array::Text(tokens))),
            ("tokenizer.ggml.token_type".into(), Value::Array(Array::I32(kinds))),
            ("tokenizer.ggml.merges".into(), Value::Array(Array::Text(vec![]))),
            ("tokenizer.ggml.eos_token_id".into(), Value::U32(1)),
            ("tokenizer.ggml.bos_token_id".into(), Value::U32(0)),
        ]
    }

    /// Tensors of the file, F32.
    pub fn tensors(&self) -> Vec<Entry> {
        let vocab = 258;
        let mut out =
            vec![entry("token_embd.weight", &[DIM, vocab]), entry("output_norm.weight", &[DIM])];
        for layer in 0..self.layers {
            let mut block = |part: &str, dims: &[u64]| {
                out.push(entry(&format!("blk.{layer}.{part}.weight"), dims))
            };
            let experts = u64::from(self.experts);
            block("attn_norm", &[DIM]);
            block("attn_q", &[DIM, HEADS * HEAD_DIM]);
            block("attn_k", &[DIM, HEAD_DIM]);
            block("attn_v", &[DIM, HEAD_DIM]);
            block("attn_output", &[HEADS * HEAD_DIM, DIM]);
            block("attn_q_norm", &[HEAD_DIM]);
            block("attn_k_norm", &[HEAD_DIM]);
            block("ffn_norm", &[DIM]);
            block("ffn_gate_inp", &[DIM, experts]);
            block("ffn_gate_exps", &[DIM, FF, experts]);
            block("ffn_up_exps", &[DIM, FF, experts]);
            block("ffn_down_exps", &[FF, DIM, experts]);
        }
        out
    }

    /// Writes the file; the same sizes and seed give the same bytes.
    pub fn write(&self, path: &Path) {
        let tensors = self.tensors();
        let layout = Layout::plan(&self.metadata(), &tensors).expect("whole blocks");
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let mut out = BufWriter::new(File::create(path).expect("a writable folder"));
        layout
            .write(&mut out, |i, sink| {
                let norm = tensors[i].dims.len() == 1;
                let n: u64 = tensors[i].dims.iter().product();
                let mut number = || if norm { 1.0 } else { rng.f32() - 0.5 };
                let bytes: Vec<u8> = (0..n).flat_map(|_| f32::to_le_bytes(number())).collect();
                sink(&bytes)
            })
            .expect("the planned lengths");
    }
}

fn entry(name: &str, dims: &[u64]) -> Entry {
    Entry { name: name.to_owned(), dims: dims.to_vec(), kind: Kind::F32 }
}
