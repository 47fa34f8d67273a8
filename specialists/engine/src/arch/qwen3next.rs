//! Qwen3-Next and Qwen3.5: gated delta nets in most layers, gated attention in the others, routed experts and a shared
//! one in all.
//!
//! The two differ in how the delta net's projections are laid out, and in which heads of keys and values go together.
//! Blocks that predict further tokens are in some files; they do not run.

use super::source::Heads;
use super::source::Source;
use crate::graph::{Graph, Layer};
use crate::kernels::Activation;
use crate::kv::Kept;
use crate::load::{self, ModelError};
use crate::parts::{
    Attention, DeltaNet, Expert, Gates, Mixed, Mixture, Norm, Pairing, Rates, Shared,
};
use crate::run::{Rows, Run};

struct Block {
    index: usize,
    attn_norm: Norm,
    mixer: Mixer,
    post_attn_norm: Norm,
    mixture: Mixture,
}

enum Mixer {
    Attention(Box<Attention>),
    Delta(Box<DeltaNet>),
}

/// One layer in so many is attention, where the file does not say.
const INTERVAL: usize = 4;

/// `qwen3next`
pub(super) fn next(source: &Source<'_>) -> Result<Graph, ModelError> {
    graph(source, Pairing::Grouped)
}

/// `qwen35moe`
pub(super) fn qwen35(source: &Source<'_>) -> Result<Graph, ModelError> {
    graph(source, Pairing::InTurn)
}

fn graph(source: &Source<'_>, pairing: Pairing) -> Result<Graph, ModelError> {
    let wrong = |error| source.load.shape_error(error);
    let heads = source.heads()?;
    let recurrent = source.keys.flags("attention.recurrent_layers", heads.len()).map_err(wrong)?;
    let interval = source.keys.count_or("full_attention_interval", INTERVAL).map_err(wrong)?;
    let recurrent =
        recurrent.unwrap_or_else(|| (1..=heads.len()).map(|n| n % interval != 0).collect());
    let (mut layers, mut kept) = (Vec::<Box<dyn Layer>>::new(), Vec::new());
    for (index, (&h, &recurrent)) in heads.iter().zip(&recurrent).enumerate() {
        let block = source.load.block(index);
        let mixer = if recurrent {
            let delta = delta(source, &block, pairing)?;
            kept.push(Kept::State { floats: delta.state_floats() });
            Mixer::Delta(Box::new(delta))
        } else {
            kept.push(Kept::keys(h.kv_heads, h.head_dim));
            Mixer::Attention(Box::new(attention(source, &block, h)?))
        };
        layers.push(Box::new(Block {
            index,
            attn_norm: source.norm(&block, "attn_norm")?,
            mixer,
            post_attn_norm: source.norm(&block, "post_attention_norm")?,
            mixture: mixture(source, &block)?,
        }));
    }
    let ropes = vec![source.rope_of_sections(heads[0].head_dim)?];
    Ok(Graph { layers, kept, ropes, embedding_scale: 1.0, softcap: None })
}

fn attention(
    source: &Source<'_>,
    block: &load::Block<'_>,
    h: Heads,
) -> Result<Attention, ModelError> {
    let mut attention = source.gated_attention(block, h)?;
    Source::head_norms(source, block, &mut attention)?;
    if let Some(scale) = source.keys.float("attention.scale").filter(|s| *s != 0.0) {
        attention.scale = scale;
    }
    Ok(attention)
}

fn delta(
    source: &Source<'_>,
    block: &load::Block<'_>,
    pairing: Pairing,
) -> Result<DeltaNet, ModelError> {
    let (dim, head_dim) = (source.shape.dim, source.count("ssm.state_size")?);
    let (key_heads, value_heads) =
        (source.count("ssm.group_count")?, source.count("ssm.time_step_rank")?);
    let taps = source.count("ssm.conv_kernel")?;
    if !value_heads.is_multiple_of(key_heads)
        || source.count("ssm.inner_size")? != value_heads * head_dim
    {
        let want = "it must be a multiple of ssm.group_count, and ssm.inner_size that many states";
        let wrong = source.keys.wrong("ssm.time_step_rank", value_heads, want);
        return Err(source.load.shape_error(wrong));
    }
    let (key_dim, value_dim) = (key_heads * head_dim, value_heads * head_dim);
    let mixed = if block.has("ssm_in.weight") {
        Mixed::Together(block.linear("ssm_in", 2 * key_dim + 2 * value_dim, dim)?)
    } else {
        Mixed::Apart {
            qkv: block.linear("attn_qkv", 2 * key_dim + value_dim, dim)?,
            z: block.linear("attn_gate", value_dim, dim)?,
        }
    };
    let rates = if block.has("ssm_ba.weight") {
        Rates::Together(block.linear("ssm_ba", 2 * value_heads, dim)?)
    } else {
        Rates::Apart {
            beta: block.linear("ssm_beta", value_heads, dim)?,
            alpha: block.linear("ssm_alpha", value_heads, dim)?,
        }
    };
    Ok(DeltaNet {
        key_heads,
        value_heads,
        head_dim,
        pairing,
        mixed,
        rates,
        conv: block.vector("ssm_conv1d.weight", &[taps, 2 * key_dim + value_dim])?,
        taps,
        dt: block.vector("ssm_dt.bias", &[value_heads])?,
        a: block.vector("ssm_a", &[value_heads])?,
        norm: block.vector("ssm_norm.weight", &[head_dim])?,
        eps: source.norm_eps()?,
        out: block.linear("ssm_out", dim, value_dim)?,
    })
}

fn mixture(source: &Source<'_>, block: &load::Block<'_>) -> Result<Mixture, ModelError> {
    let ff = source.count("expert_feed_forward_length")?;
    let routed = source.routed(block, ff, Gates::Renormalised, Activation::Silu)?;
    let shared = if block.has("ffn_gate_inp_shexp.weight") {
        let ff = source.count_of(["expert_shared_feed_forward_length", "feed_forward_length"])?;
        Some(Shared {
            dense: source.dense(block, "_shexp", ff, Activation::Silu)?,
            gate: block.vector("ffn_gate_inp_shexp.weight", &[source.shape.dim])?,
        })
    } else {
        None
    };
    Ok(Mixture { routed, shared })
}

impl Layer for Block {
    fn forward(&self, run: &mut dyn Run, x: &Rows) {
        let normed = run.norm(&self.attn_norm, x);
        let mixed = match &self.mixer {
            Mixer::Attention(attention) => run.attention(attention, normed),
            Mixer::Delta(delta) => run.delta(delta, self.index, normed),
        };
        run.add(x, mixed);
        let normed = run.norm(&self.post_attn_norm, x);
        let fed = self.mixture.run(run, self.index, normed);
        run.add(x, fed);
    }

    fn row_floats(&self) -> usize {
        let mixer = match &self.mixer {
            Mixer::Attention(attention) => attention.row_floats(),
            Mixer::Delta(delta) => delta.row_floats(),
        };
        mixer + self.mixture.row_floats()
    }

    fn experts(&self) -> &[Expert] {
        self.mixture.experts()
    }
}
