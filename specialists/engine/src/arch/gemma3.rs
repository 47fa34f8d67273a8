//! Gemma 3: scaled embeddings, norms before and after each part, most layers seeing a window only.

use super::source::Source;
use super::window::Windows;
use crate::graph::{Graph, Layer};
use crate::kernels::Activation;
use crate::load::ModelError;
use crate::parts::{Attention, Dense, Expert, Norm};
use crate::rope::{Pairs, Rope};
use crate::run::{Rows, Run};

struct Block {
    attn_norm: Norm,
    attention: Attention,
    post_attn_norm: Norm,
    ffn_norm: Norm,
    dense: Dense,
    post_ffn_norm: Norm,
}

/// Of the 27 B model, whose heads are scaled by another number than their length.
const LAYERS_OF_27B: usize = 62;

pub(super) fn graph(source: &Source<'_>) -> Result<Graph, ModelError> {
    let (heads, windows) = (source.heads()?, source.windows(6)?);
    let ff = source.counts("feed_forward_length")?;
    let shape = source.shape;
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    for (index, &h) in heads.iter().enumerate() {
        let block = source.load.block(index);
        let mut attention = source.attention(&block, h)?;
        Source::head_norms(source, &block, &mut attention)?;
        attention.window = windows.of(index);
        attention.rope = usize::from(windows.sliding[index]);
        if shape.layers == LAYERS_OF_27B {
            attention.scale = 1.0 / ((shape.dim / h.heads) as f32).sqrt();
        }
        layers.push(Box::new(Block {
            attn_norm: source.norm(&block, "attn_norm")?,
            attention,
            post_attn_norm: source.norm(&block, "post_attention_norm")?,
            ffn_norm: source.norm(&block, "ffn_norm")?,
            dense: source.dense(&block, "", ff[index], Activation::Gelu)?,
            post_ffn_norm: source.norm(&block, "post_ffw_norm")?,
        }));
    }
    Ok(Graph {
        layers,
        kept: windows.kept(&heads),
        ropes: ropes(source, &windows, heads[0].head_dim)?,
        embedding_scale: (shape.dim as f32).sqrt(),
        softcap: softcap(source),
    })
}

/// Of layers that see everything, and of those that see a window.
fn ropes(source: &Source<'_>, windows: &Windows, head_dim: usize) -> Result<Vec<Rope>, ModelError> {
    let all = source.rope(head_dim, Pairs::Halves)?;
    let base = source.keys.float_or("rope.freq_base_swa", 10_000.0);
    let sliding = Rope::plain(all.dims, base, Pairs::Halves);
    Ok(if windows.width == 0 { vec![all] } else { vec![all, sliding] })
}

/// What logits are bent to stay within, if the file says.
pub(super) fn softcap(source: &Source<'_>) -> Option<f32> {
    source.keys.float("final_logit_softcapping").filter(|cap| *cap > 0.0)
}

impl Layer for Block {
    fn forward(&self, run: &mut dyn Run, x: &Rows) {
        let normed = run.norm(&self.attn_norm, x);
        let attended = run.attention(&self.attention, normed);
        run.add_normed(x, &self.post_attn_norm, attended);
        let normed = run.norm(&self.ffn_norm, x);
        let fed = run.dense(&self.dense, &normed);
        run.give_back(normed);
        run.add_normed(x, &self.post_ffn_norm, fed);
    }

    fn row_floats(&self) -> usize {
        self.attention.row_floats() + self.dense.row_floats()
    }

    fn experts(&self) -> &[Expert] {
        &[]
    }
}
