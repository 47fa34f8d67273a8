//! Gemma 4: routed experts beside a dense path, a router with an input of its own, and two kinds of attention.
//!
//! Layers that see everything have longer heads than those that see a window, and may take their values from their
//! keys.  The variants with embeddings for each layer (E2B, E4B) are refused by name.

use super::gemma3::softcap;
use super::source::Heads;
use super::source::Source;
use crate::graph::{Graph, Layer};
use crate::kernels::Activation;
use crate::load::{self, ModelError};
use crate::parts::{Attention, Dense, Expert, Gates, Norm, Routed};
use crate::rope::{Pairs, Rope};
use crate::run::{Rows, Run};
use crate::vector::Vector;

struct Block {
    index: usize,
    attn_norm: Norm,
    attention: Attention,
    post_attn_norm: Norm,
    ffn_norm: Norm,
    dense: Dense,
    moe: Option<Moe>,
    post_ffn_norm: Norm,
    /// The block's output is multiplied by it.
    scale: f32,
}

/// What a layer with routed experts has beside the dense path.
struct Moe {
    post_dense_norm: Norm,
    norm: Norm,
    /// Of what the router reads: the residual, normed and scaled.
    router_norm: Norm,
    routed: Routed,
    post_norm: Norm,
}

pub(super) fn graph(source: &Source<'_>) -> Result<Graph, ModelError> {
    for key in ["embedding_length_per_layer_input", "attention.shared_kv_layers"] {
        let value = source.keys.any_count(key).map_err(|e| source.load.shape_error(e))?;
        if value > 0 {
            let want = "variants with embeddings or keys shared between layers are not known to this engine";
            return Err(source.load.shape_error(source.keys.wrong(key, value, want)));
        }
    }
    let windows = source.windows(6)?;
    let heads = heads(source, &windows.sliding)?;
    let ff = source.counts("feed_forward_length")?;
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    for (index, &h) in heads.iter().enumerate() {
        let block = source.load.block(index);
        let mut attention = attention(source, &block, h)?;
        attention.window = windows.of(index);
        attention.rope = usize::from(windows.sliding[index]);
        let scale = block.vector_if("layer_output_scale.weight", &[1])?;
        layers.push(Box::new(Block {
            index,
            attn_norm: source.norm(&block, "attn_norm")?,
            attention,
            post_attn_norm: source.norm(&block, "post_attention_norm")?,
            ffn_norm: source.norm(&block, "ffn_norm")?,
            dense: source.dense(&block, "", ff[index], Activation::Gelu)?,
            moe: source.shape.routed[index].then(|| moe(source, &block)).transpose()?,
            post_ffn_norm: source.norm(&block, "post_ffw_norm")?,
            scale: scale.map_or(1.0, |s| s.get()[0]),
        }));
    }
    Ok(Graph {
        layers,
        kept: windows.kept(&heads),
        ropes: ropes(source, &windows.sliding, &heads)?,
        embedding_scale: (source.shape.dim as f32).sqrt(),
        softcap: softcap(source),
    })
}

/// Attention sizes of each layer: heads have another length where a window is seen.
fn heads(source: &Source<'_>, sliding: &[bool]) -> Result<Vec<Heads>, ModelError> {
    let mut heads = source.heads()?;
    let (key, all) = ("attention.key_length_swa", heads[0].head_dim);
    let length = source.keys.count_or(key, all).map_err(|e| source.load.shape_error(e))?;
    if !length.is_multiple_of(2) {
        let wrong = source.keys.wrong(key, length, "rotation needs an even length");
        return Err(source.load.shape_error(wrong));
    }
    for (h, _) in heads.iter_mut().zip(sliding).filter(|(_, sliding)| **sliding) {
        h.head_dim = length;
    }
    Ok(heads)
}

fn attention(
    source: &Source<'_>,
    block: &load::Block<'_>,
    h: Heads,
) -> Result<Attention, ModelError> {
    let mut attention = source.queries_and_keys(block, h, false)?;
    attention.v = block.linear_if("attn_v", h.kv_dim(), source.shape.dim)?;
    Source::head_norms(source, block, &mut attention)?;
    attention.scale = 1.0;
    attention.v_norm = true;
    Ok(attention)
}

fn moe(source: &Source<'_>, block: &load::Block<'_>) -> Result<Moe, ModelError> {
    let (ff, dim) = (source.count("expert_feed_forward_length")?, source.shape.dim);
    let (scale, root) = (block.vector("ffn_gate_inp.scale", &[dim])?, 1.0 / (dim as f32).sqrt());
    let weight = Vector::owned(scale.get().iter().map(|s| root * s).collect());
    Ok(Moe {
        post_dense_norm: source.norm(block, "post_ffw_norm_1")?,
        norm: source.norm(block, "pre_ffw_norm_2")?,
        router_norm: Norm { weight, eps: source.norm_eps()? },
        routed: source.routed(block, ff, Gates::Renormalised, Activation::Gelu)?,
        post_norm: source.norm(block, "post_ffw_norm_2")?,
    })
}

/// Of layers that see everything, whose frequencies have factors, and of those that see a window.
fn ropes(source: &Source<'_>, sliding: &[bool], heads: &[Heads]) -> Result<Vec<Rope>, ModelError> {
    let length = |window: bool| {
        let layer = sliding.iter().position(|s| *s == window);
        layer.map_or(heads[0].head_dim, |layer| heads[layer].head_dim)
    };
    let mut all = source.rope(length(false), Pairs::Halves)?;
    if sliding.contains(&false) {
        let factors = source.load.vector("rope_freqs.weight", &[all.dims / 2])?;
        all.factors = Some(factors.get().to_vec());
    }
    let dims = source.keys.count_or("rope.dimension_count_swa", all.dims.min(length(true)));
    let dims = dims.map_err(|e| source.load.shape_error(e))?;
    if dims > length(true) || !dims.is_multiple_of(2) {
        let want = "it must be even and not above attention.key_length_swa";
        return Err(source.load.shape_error(source.keys.wrong(
            "rope.dimension_count_swa",
            dims,
            want,
        )));
    }
    let base = source.keys.float_or("rope.freq_base_swa", 10_000.0);
    Ok(vec![all, Rope::plain(dims, base, Pairs::Halves)])
}

impl Layer for Block {
    fn forward(&self, run: &mut dyn Run, x: &Rows) {
        let normed = run.norm(&self.attn_norm, x);
        let attended = run.attention(&self.attention, normed);
        run.add_normed(x, &self.post_attn_norm, attended);
        let normed = run.norm(&self.ffn_norm, x);
        let mut fed = run.dense(&self.dense, &normed);
        run.give_back(normed);
        if let Some(moe) = &self.moe {
            fed = run.normed(&moe.post_dense_norm, fed);
            let (router, normed) = (run.norm(&moe.router_norm, x), run.norm(&moe.norm, x));
            let routed = run.routed(&moe.routed, self.index, &router, &normed);
            run.give_back(router);
            run.give_back(normed);
            run.add_normed(&fed, &moe.post_norm, routed);
        }
        run.add_normed(x, &self.post_ffn_norm, fed);
        if self.scale != 1.0 {
            run.scale(x, self.scale);
        }
    }

    fn row_floats(&self) -> usize {
        let routed = self.moe.as_ref().map_or(0, |moe| moe.routed.row_floats());
        self.attention.row_floats() + self.dense.row_floats() + routed
    }

    fn experts(&self) -> &[Expert] {
        self.moe.as_ref().map_or(&[], |moe| &moe.routed.experts)
    }
}
