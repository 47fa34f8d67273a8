//! gpt-oss: biases everywhere, sinks that take a share of the attention, every other layer seeing a window, gates as a
//! softmax over the chosen experts.

use super::source::Source;
use crate::graph::{Graph, Layer};
use crate::kernels::Activation;
use crate::load::ModelError;
use crate::parts::{Attention, Expert, Gates, Norm, Routed};
use crate::rope::Pairs;
use crate::run::{Rows, Run};

struct Block {
    index: usize,
    attn_norm: Norm,
    attention: Attention,
    post_attn_norm: Norm,
    routed: Routed,
}

pub(super) fn graph(source: &Source<'_>) -> Result<Graph, ModelError> {
    let (heads, windows) = (source.heads()?, source.windows(2)?);
    let ff = source.count("expert_feed_forward_length")?;
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    for (index, &h) in heads.iter().enumerate() {
        let block = source.load.block(index);
        let mut attention = source.attention(&block, h)?;
        attention.window = windows.of(index);
        attention.rope = usize::from(windows.sliding[index]);
        attention.sinks = Some(block.vector("attn_sinks.weight", &[h.heads])?);
        layers.push(Box::new(Block {
            index,
            attn_norm: source.norm(&block, "attn_norm")?,
            attention,
            post_attn_norm: source.norm(&block, "post_attention_norm")?,
            routed: source.routed(&block, ff, Gates::OfChosen, Activation::ClampedSwiglu)?,
        }));
    }
    let all = source.rope(heads[0].head_dim, Pairs::Halves)?;
    let mut sliding = all.clone();
    sliding.base = source.keys.float_or("rope.freq_base_swa", all.base);
    Ok(Graph {
        layers,
        kept: windows.kept(&heads),
        ropes: vec![all, sliding],
        embedding_scale: 1.0,
        softcap: None,
    })
}

impl Layer for Block {
    fn forward(&self, run: &mut dyn Run, x: &Rows) {
        let normed = run.norm(&self.attn_norm, x);
        let attended = run.attention(&self.attention, normed);
        run.add(x, attended);
        let normed = run.norm(&self.post_attn_norm, x);
        let fed = run.routed(&self.routed, self.index, &normed, &normed);
        run.give_back(normed);
        run.add(x, fed);
    }

    fn row_floats(&self) -> usize {
        self.attention.row_floats() + self.routed.row_floats()
    }

    fn experts(&self) -> &[Expert] {
        &self.routed.experts
    }
}
