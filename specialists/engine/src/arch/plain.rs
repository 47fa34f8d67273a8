//! The block that most architectures share: norm, attention, norm, feed-forward, each added to the residual.

use super::source::Heads;
use super::source::Source;
use crate::graph::{Graph, Layer};
use crate::kernels::Activation;
use crate::kv::Kept;
use crate::load::{Block, ModelError};
use crate::parts::{Attention, Expert, Feed, Gates, Norm};
use crate::rope::Pairs;
use crate::run::{Rows, Run};

struct Plain {
    index: usize,
    attn_norm: Norm,
    attention: Attention,
    ffn_norm: Norm,
    feed: Feed,
}

/// What sets an architecture of plain blocks apart.
pub(super) struct Kind {
    pub pairs: Pairs,
    /// Of layers with routed experts.
    pub gates: Gates,
    /// Key of an expert's hidden width; the dense width where a file has no such key.
    pub expert_ff: &'static str,
    /// What the attention has beyond its four projections.
    pub attention: fn(&Source<'_>, &Block<'_>, &mut Attention) -> Result<(), ModelError>,
}

pub(super) fn graph(source: &Source<'_>, kind: &Kind) -> Result<Graph, ModelError> {
    let heads = source.heads()?;
    let mut layers: Vec<Box<dyn Layer>> = Vec::new();
    for (index, &h) in heads.iter().enumerate() {
        layers.push(Box::new(layer(source, kind, index, h)?));
    }
    Ok(Graph {
        layers,
        kept: heads.iter().map(|h| Kept::keys(h.kv_heads, h.head_dim)).collect(),
        ropes: vec![source.rope(heads[0].head_dim, kind.pairs)?],
        embedding_scale: 1.0,
        softcap: None,
    })
}

fn layer(
    source: &Source<'_>,
    kind: &Kind,
    index: usize,
    heads: Heads,
) -> Result<Plain, ModelError> {
    let block = source.load.block(index);
    let mut attention = source.attention(&block, heads)?;
    (kind.attention)(source, &block, &mut attention)?;
    let feed = if source.shape.routed[index] {
        let ff = source.count_of([kind.expert_ff, "feed_forward_length"])?;
        Feed::Routed(source.routed(&block, ff, kind.gates, Activation::Silu)?)
    } else {
        let ff = source.counts("feed_forward_length")?[index];
        Feed::Dense(source.dense(&block, "", ff, Activation::Silu)?)
    };
    Ok(Plain {
        index,
        attn_norm: source.norm(&block, "attn_norm")?,
        attention,
        ffn_norm: source.norm(&block, "ffn_norm")?,
        feed,
    })
}

impl Layer for Plain {
    fn forward(&self, run: &mut dyn Run, x: &Rows) {
        let normed = run.norm(&self.attn_norm, x);
        let attended = run.attention(&self.attention, normed);
        run.add(x, attended);
        let normed = run.norm(&self.ffn_norm, x);
        let fed = self.feed.run(run, self.index, normed);
        run.add(x, fed);
    }

    fn row_floats(&self) -> usize {
        self.attention.row_floats() + self.feed.row_floats()
    }

    fn experts(&self) -> &[Expert] {
        self.feed.experts()
    }
}
