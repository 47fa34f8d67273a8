//! Qwen3-Next: gated delta nets, every fourth layer full attention, a shared expert with a gate.
//!
//! As [`super::qwen35moe`], but for: the delta net's beta and alpha in one matrix, dealt out by heads of keys; each head
//! of keys serves the next heads of values (0, 0, 1, 1); a plain rotation.
//!
//! Variants: the older files' one matrix for queries, keys, values and gates, dealt out by heads of keys too; a block
//! for multi-token prediction, with a key that has an entry for each block.

use engine::gguf::{Array, Value};

use super::fill::{EMBEDDING, Fill, MATRIX, NORM, ROUTER};
use super::{File, VOCAB, count};

/// The fourth has full attention, by the interval that holds without its key.
const LAYERS: u32 = 5;
const DIM: u64 = 64;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD_DIM: u64 = 32;
const FF: u64 = 32;
const EXPERTS: u64 = 8;

/// The delta net's heads of keys and of values, and their length.
const KEYS: u64 = 2;
const VALUES: u64 = 4;
const STATE: u64 = 32;
const CONV: u64 = 4;

pub fn files() -> Vec<File> {
    let blocks = LAYERS + 1;
    let heads = vec![KV_HEADS as i32; blocks as usize];
    let mut mtp = file("mtp", false)
        .key("block_count", Value::U32(blocks))
        .key("nextn_predict_layers", Value::U32(1))
        .key("attention.head_count_kv", Value::Array(Array::I32(heads)));
    attention(&mut mtp, LAYERS);
    mixture(&mut mtp, LAYERS);
    mtp.block(
        LAYERS,
        &[
            ("nextn.eh_proj.weight", &[2 * DIM, DIM], MATRIX),
            ("nextn.enorm.weight", &[DIM], NORM),
            ("nextn.hnorm.weight", &[DIM], NORM),
            ("nextn.shared_head_norm.weight", &[DIM], NORM),
        ],
    );
    vec![file("", false), file("one-matrix", true), mtp]
}

fn file(variant: &'static str, one_matrix: bool) -> File {
    let keys = [
        ("block_count", Value::U32(LAYERS)),
        ("context_length", Value::U32(512)),
        ("embedding_length", count(DIM)),
        ("feed_forward_length", count(FF)),
        ("attention.head_count", count(HEADS)),
        ("attention.head_count_kv", count(KV_HEADS)),
        ("attention.key_length", count(HEAD_DIM)),
        ("attention.value_length", count(HEAD_DIM)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("rope.freq_base", Value::F32(10_000_000.0)),
        ("rope.dimension_count", count(HEAD_DIM / 4)),
        ("expert_count", count(EXPERTS)),
        ("expert_used_count", Value::U32(3)),
        ("expert_feed_forward_length", count(FF)),
        ("expert_shared_feed_forward_length", count(FF)),
        ("ssm.conv_kernel", count(CONV)),
        ("ssm.state_size", count(STATE)),
        ("ssm.group_count", count(KEYS)),
        ("ssm.time_step_rank", count(VALUES)),
        ("ssm.inner_size", count(VALUES * STATE)),
    ];
    let mut file = File::new("qwen3next", variant, &keys);
    file.tensors(&[
        ("token_embd.weight", &[DIM, VOCAB], EMBEDDING),
        ("output.weight", &[DIM, VOCAB], EMBEDDING),
        ("output_norm.weight", &[DIM], NORM),
    ]);
    for layer in 0..LAYERS {
        if layer == 3 {
            attention(&mut file, layer);
        } else {
            delta_net(&mut file, layer, one_matrix);
        }
        mixture(&mut file, layer);
    }
    file
}

fn mixture(file: &mut File, layer: u32) {
    file.block(
        layer,
        &[
            ("attn_norm.weight", &[DIM], NORM),
            ("post_attention_norm.weight", &[DIM], NORM),
            ("ffn_gate_inp.weight", &[DIM, EXPERTS], ROUTER),
            ("ffn_gate_exps.weight", &[DIM, FF, EXPERTS], MATRIX),
            ("ffn_up_exps.weight", &[DIM, FF, EXPERTS], MATRIX),
            ("ffn_down_exps.weight", &[FF, DIM, EXPERTS], MATRIX),
            ("ffn_gate_inp_shexp.weight", &[DIM], Fill::Between(-0.3, 0.3)),
            ("ffn_gate_shexp.weight", &[DIM, FF], MATRIX),
            ("ffn_up_shexp.weight", &[DIM, FF], MATRIX),
            ("ffn_down_shexp.weight", &[FF, DIM], MATRIX),
        ],
    );
}

fn attention(file: &mut File, layer: u32) {
    file.block(
        layer,
        &[
            // Per head: the query, then its gate.
            ("attn_q.weight", &[DIM, HEADS * HEAD_DIM * 2], MATRIX),
            ("attn_k.weight", &[DIM, KV_HEADS * HEAD_DIM], MATRIX),
            ("attn_v.weight", &[DIM, KV_HEADS * HEAD_DIM], MATRIX),
            ("attn_output.weight", &[HEADS * HEAD_DIM, DIM], MATRIX),
            ("attn_q_norm.weight", &[HEAD_DIM], NORM),
            ("attn_k_norm.weight", &[HEAD_DIM], NORM),
        ],
    );
}

fn delta_net(file: &mut File, layer: u32, one_matrix: bool) {
    let mixed = (2 * KEYS + VALUES) * STATE;
    if one_matrix {
        file.block(layer, &[("ssm_in.weight", &[DIM, mixed + VALUES * STATE], MATRIX)]);
    } else {
        file.block(
            layer,
            &[
                ("attn_qkv.weight", &[DIM, mixed], MATRIX),
                ("attn_gate.weight", &[DIM, VALUES * STATE], MATRIX),
            ],
        );
    }
    file.block(
        layer,
        &[
            ("ssm_conv1d.weight", &[CONV, mixed], Fill::Matrix(1.5)),
            ("ssm_dt.bias", &[VALUES], Fill::Between(-1.0, 1.0)),
            // How fast a head forgets: minus the exponential of what training learns.
            ("ssm_a", &[VALUES], Fill::Between(-0.8, -0.05)),
            ("ssm_ba.weight", &[DIM, 2 * VALUES], MATRIX),
            ("ssm_norm.weight", &[STATE], NORM),
            ("ssm_out.weight", &[VALUES * STATE, DIM], MATRIX),
        ],
    );
}
