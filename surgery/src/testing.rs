//! A parent small enough to write in a test: two layers of four experts, the
//! router picks two.

use std::path::{Path, PathBuf};

use engine::ggml::Kind;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Array, Gguf, Value};
use engine::{MASK_FORMAT, MaskFile};

/// Stands for the hash of a mask's file.
pub const MASK: &str = "feedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeedfeed";

const DIM: u64 = 32;
const EXPERTS: u64 = 4;

/// A folder with a parent in it, which goes when it is dropped.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A parent whose weights are drawn from `seed`.
    pub fn parent(&self, seed: u64) -> Gguf {
        self.parent_with(seed, &[])
    }

    /// The same, with these keys added or instead.
    pub fn parent_with(&self, seed: u64, keys: &[(&str, Value)]) -> Gguf {
        let path = self.path(&format!("parent-{seed}-{}.gguf", keys.len()));
        write(&path, seed, keys);
        Gguf::open(&path).unwrap()
    }
}

/// A mask of `parent` that keeps these.
pub fn mask(parent: &Gguf, kept: &[&[u32]]) -> MaskFile {
    MaskFile {
        format: MASK_FORMAT.to_owned(),
        parent: parent.sha256(),
        domain: "law".to_owned(),
        score: "gate".to_owned(),
        experts: kept.iter().map(|ids| ids.len()).collect(),
        kept: kept.iter().map(|ids| ids.to_vec()).collect(),
        coverage: vec![0.75; kept.len()],
        profile: "0".repeat(64),
        sources: Vec::new(),
        masking: Default::default(),
        passes: Vec::new(),
    }
}

fn write(path: &Path, seed: u64, more: &[(&str, Value)]) {
    let count = |key: &str, n: u32| (format!("qwen3moe.{key}"), Value::U32(n));
    let text = |key: &str, text: &str| (key.to_owned(), Value::Text(text.to_owned()));
    // Bytes as GPT-2 writes them; one merge, since an array of nothing has no type.
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let odd = (256..256 + (0..256).filter(|b| !printable(*b)).count() as u32).collect::<Vec<_>>();
    let codes = (0..256).filter(|b| printable(*b)).chain(odd);
    let mut tokens: Vec<String> = codes.filter_map(char::from_u32).map(String::from).collect();
    tokens.push("th".to_owned());
    let vocab = tokens.len() as u64;
    let mut keys = vec![
        text("general.architecture", "qwen3moe"),
        text("general.name", "Tiny"),
        ("general.alignment".to_owned(), Value::U32(64)),
        count("block_count", 2),
        count("context_length", 64),
        count("embedding_length", DIM as u32),
        count("attention.head_count", 2),
        count("attention.head_count_kv", 1),
        count("attention.key_length", 16),
        count("attention.value_length", 16),
        count("expert_count", EXPERTS as u32),
        count("expert_used_count", 2),
        count("expert_feed_forward_length", DIM as u32),
        ("qwen3moe.attention.layer_norm_rms_epsilon".to_owned(), Value::F32(1e-6)),
        text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.tokens".to_owned(), Value::Array(Array::Text(tokens))),
        ("tokenizer.ggml.merges".to_owned(), Value::Array(Array::Text(vec!["t h".to_owned()]))),
    ];
    keys.retain(|(key, _)| !more.iter().any(|(name, _)| name == key));
    keys.extend(more.iter().map(|(key, value)| (key.to_string(), value.clone())));
    let mut entries = vec![entry("token_embd.weight", &[DIM, vocab], Kind::F32)];
    for block in 0..2 {
        let mut add = |part: &str, dims: &[u64], kind| {
            entries.push(entry(&format!("blk.{block}.{part}"), dims, kind))
        };
        add("attn_norm.weight", &[DIM], Kind::F32);
        add("attn_q.weight", &[DIM, 32], Kind::F32);
        add("attn_k.weight", &[DIM, 16], Kind::F32);
        add("attn_v.weight", &[DIM, 16], Kind::F32);
        add("attn_output.weight", &[32, DIM], Kind::F32);
        add("attn_q_norm.weight", &[16], Kind::F32);
        add("attn_k_norm.weight", &[16], Kind::F32);
        add("ffn_norm.weight", &[DIM], Kind::F32);
        add("ffn_gate_inp.weight", &[DIM, EXPERTS], Kind::F32);
        // Two number formats, so that slices have two sizes.
        add("ffn_gate_exps.weight", &[DIM, DIM, EXPERTS], Kind::Q8_0);
        add("ffn_up_exps.weight", &[DIM, DIM, EXPERTS], Kind::Q8_0);
        add("ffn_down_exps.weight", &[DIM, DIM, EXPERTS], Kind::F32);
    }
    entries.push(entry("output_norm.weight", &[DIM], Kind::F32));
    let mut random = fastrand::Rng::with_seed(seed);
    let layout = Layout::plan(&keys, &entries).unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    layout.write(&mut file, |index, sink| sink(&weights(&entries[index], &mut random))).unwrap();
}

fn entry(name: &str, dims: &[u64], kind: Kind) -> Entry {
    Entry { name: name.to_owned(), dims: dims.to_vec(), kind }
}

fn weights(entry: &Entry, random: &mut fastrand::Rng) -> Vec<u8> {
    let count: u64 = entry.dims.iter().product();
    if entry.kind == Kind::F32 {
        return (0..count).flat_map(|_| (random.f32() - 0.5).to_le_bytes()).collect();
    }
    // Blocks of an F16 scale (0x2000 is 1/128) and 32 whole numbers.
    let block =
        |_| [0x00, 0x20].into_iter().chain((0..32).map(|_| random.u8(..))).collect::<Vec<u8>>();
    (0..count / 32).flat_map(block).collect()
}
