//! What graphs are made from: a file's keys and tensors, by the names that most architectures give them.

use crate::kernels::Activation;
use crate::keys::{Keys, ShapeError};
use crate::load::{Block, Loader, ModelError};
use crate::parts::{Attention, Dense, Expert, Gates, HeadNorm, Linear, Norm, Routed};
use crate::rope::{Pairs, Rope};
use crate::shape::Shape;

/// What a graph is made from.
pub(crate) struct Source<'a> {
    pub load: &'a Loader<'a>,
    pub keys: Keys<'a>,
    pub shape: &'a Shape,
}

impl Block<'_> {
    /// The same as [`Block::linear`] if the weight is there.
    pub fn linear_if(
        &self,
        part: &str,
        rows: usize,
        k: usize,
    ) -> Result<Option<Linear>, ModelError> {
        self.has(&format!("{part}.weight")).then(|| self.linear(part, rows, k)).transpose()
    }

    /// `<part>.weight`, with `<part>.bias` if it is there.
    pub fn linear(&self, part: &str, rows: usize, k: usize) -> Result<Linear, ModelError> {
        let weight = self.matrix(&format!("{part}.weight"), rows, k)?;
        let bias = self.vector_if(&format!("{part}.bias"), &[rows])?;
        Ok(Linear { weight, bias })
    }
}

/// Sizes of a layer's attention, in counts.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Heads {
    /// Numbers in the keys (or the values) of one token.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Source<'_> {
    /// The attention sizes of each layer.
    pub fn heads(&self) -> Result<Vec<Heads>, ModelError> {
        let wrong = |error| self.load.shape_error(error);
        let layers = self.shape.layers;
        let heads = self.keys.counts("attention.head_count", layers).map_err(wrong)?;
        let kv_heads = match self.keys.counts("attention.head_count_kv", layers) {
            Err(ShapeError::Missing { .. }) => heads.clone(),
            other => other.map_err(wrong)?,
        };
        let head_dim =
            self.keys.count_or("attention.key_length", self.shape.dim / heads[0]).map_err(wrong)?;
        let value_dim = self.keys.count_or("attention.value_length", head_dim).map_err(wrong)?;
        if !head_dim.is_multiple_of(2) {
            let want = "rotation needs an even length";
            return Err(wrong(self.keys.wrong("attention.key_length", head_dim, want)));
        }
        if value_dim != head_dim {
            let want = "keys and values of different lengths are not known to this engine";
            return Err(wrong(self.keys.wrong("attention.value_length", value_dim, want)));
        }
        let of = |(&heads, &kv_heads): (&usize, &usize)| {
            if !heads.is_multiple_of(kv_heads) {
                let want = "it must divide head_count";
                return Err(wrong(self.keys.wrong("attention.head_count_kv", kv_heads, want)));
            }
            Ok(Heads { heads, kv_heads, head_dim })
        };
        heads.iter().zip(&kv_heads).map(of).collect()
    }

    pub fn rope(&self, head_dim: usize, pairs: Pairs) -> Result<Rope, ModelError> {
        Rope::read(&self.keys, head_dim, pairs).map_err(|error| self.load.shape_error(error))
    }

    /// The rope of models that also see pictures, for text alone.
    ///
    /// Their pairs are dealt in turn to time, height and width (`rope.dimension_sections`), which in text are all the
    /// same position.  A pair whose section is used up turns by a fourth position, which text leaves at zero: it stands
    /// still.  As llama.cpp's interleaved rope.
    pub fn rope_of_sections(&self, head_dim: usize) -> Result<Rope, ModelError> {
        let mut rope = self.rope(head_dim, Pairs::Halves)?;
        let sections = self.keys.numbers("rope.dimension_sections", 4);
        if let Some(sections) = sections.map_err(|error| self.load.shape_error(error))? {
            let turns = |pair: usize| pair < 3 * sections[pair % 3];
            let factor = |pair: usize| if turns(pair) { 1.0 } else { f32::INFINITY };
            rope.factors = Some((0..rope.dims / 2).map(factor).collect());
        }
        Ok(rope)
    }

    pub fn norm_eps(&self) -> Result<f32, ModelError> {
        self.keys.norm_eps().map_err(|error| self.load.shape_error(error))
    }

    /// A number above zero.
    pub fn count(&self, key: &str) -> Result<usize, ModelError> {
        self.keys.count(key).map_err(|error| self.load.shape_error(error))
    }

    /// The first of two keys that the file has; it holds a number above zero.
    pub fn count_of(&self, keys: [&str; 2]) -> Result<usize, ModelError> {
        let found = keys.into_iter().find(|key| self.keys.has(key));
        self.count(found.unwrap_or(keys[0]))
    }

    /// One number above zero for each layer.
    pub fn counts(&self, key: &str) -> Result<Vec<usize>, ModelError> {
        self.keys.counts(key, self.shape.layers).map_err(|error| self.load.shape_error(error))
    }

    /// An RMS norm over whole rows.
    pub fn norm(&self, block: &Block<'_>, part: &str) -> Result<Norm, ModelError> {
        let weight = block.vector(&format!("{part}.weight"), &[self.shape.dim])?;
        Ok(Norm { weight, eps: self.norm_eps()? })
    }

    /// Attention with query, key, value and output projections; the rest as for a plain transformer.
    pub fn attention(&self, block: &Block<'_>, h: Heads) -> Result<Attention, ModelError> {
        let v = block.linear("attn_v", h.kv_dim(), self.shape.dim)?;
        Ok(Attention { v: Some(v), ..self.queries_and_keys(block, h, false)? })
    }

    /// The same with a gate beside each query.
    pub fn gated_attention(&self, block: &Block<'_>, h: Heads) -> Result<Attention, ModelError> {
        let v = block.linear("attn_v", h.kv_dim(), self.shape.dim)?;
        Ok(Attention { v: Some(v), ..self.queries_and_keys(block, h, true)? })
    }

    /// The same without values of its own.
    pub fn queries_and_keys(
        &self,
        block: &Block<'_>,
        h: Heads,
        gated: bool,
    ) -> Result<Attention, ModelError> {
        let (dim, q_dim) = (self.shape.dim, h.heads * h.head_dim);
        Ok(Attention {
            heads: h.heads,
            kv_heads: h.kv_heads,
            head_dim: h.head_dim,
            scale: 1.0 / (h.head_dim as f32).sqrt(),
            q: block.linear("attn_q", if gated { 2 * q_dim } else { q_dim }, dim)?,
            k: Some(block.linear("attn_k", h.kv_dim(), dim)?),
            v: None,
            o: block.linear("attn_output", dim, q_dim)?,
            q_norm: None,
            k_norm: None,
            v_norm: false,
            norm_eps: self.norm_eps()?,
            rope: 0,
            window: None,
            sinks: None,
            gated,
            store: block.layer,
        })
    }

    /// Norms of queries and keys, head by head.
    pub fn head_norms(
        _: &Source<'_>,
        block: &Block<'_>,
        to: &mut Attention,
    ) -> Result<(), ModelError> {
        to.q_norm = Some(HeadNorm::Each(block.vector("attn_q_norm.weight", &[to.head_dim])?));
        to.k_norm = Some(HeadNorm::Each(block.vector("attn_k_norm.weight", &[to.head_dim])?));
        Ok(())
    }

    /// A feed-forward layer of hidden width `ff`; `suffix` follows `ffn_gate`, `ffn_up` and `ffn_down`.
    pub fn dense(
        &self,
        block: &Block<'_>,
        suffix: &str,
        ff: usize,
        activation: Activation,
    ) -> Result<Dense, ModelError> {
        let dim = self.shape.dim;
        Ok(Dense {
            gate: block.linear(&format!("ffn_gate{suffix}"), ff, dim)?,
            up: block.linear(&format!("ffn_up{suffix}"), ff, dim)?,
            down: block.linear(&format!("ffn_down{suffix}"), dim, ff)?,
            activation,
        })
    }

    /// A router and its experts of hidden width `ff`.
    pub fn routed(
        &self,
        block: &Block<'_>,
        ff: usize,
        gates: Gates,
        activation: Activation,
    ) -> Result<Routed, ModelError> {
        let s = self.shape;
        let router = block.linear("ffn_gate_inp", s.experts_in(block.layer), s.dim)?;
        let experts = self.experts(block, ff)?;
        Ok(Routed { router, experts, top_k: s.top_k, gates, activation })
    }

    /// The experts of a block: three stacked tensors, or two where gate and up are one; with their biases and scales.
    fn experts(&self, block: &Block<'_>, ff: usize) -> Result<Vec<Expert>, ModelError> {
        let (n, dim) = (self.shape.experts_in(block.layer), self.shape.dim);
        let load = block.load;
        let stack = |part: &str, rows, k| {
            let name = block.name(part);
            let slices = load.stack(&name, n, rows, k)?;
            Ok::<_, ModelError>((name, slices))
        };
        let fused = block.has("ffn_gate_up_exps.weight");
        let stacks = if fused {
            vec![
                stack("ffn_gate_up_exps.weight", 2 * ff, dim)?,
                stack("ffn_down_exps.weight", dim, ff)?,
            ]
        } else {
            vec![
                stack("ffn_gate_exps.weight", ff, dim)?,
                stack("ffn_up_exps.weight", ff, dim)?,
                stack("ffn_down_exps.weight", dim, ff)?,
            ]
        };
        let bias = |part: &str, rows| block.vector_if(part, &[rows, n]);
        let biases = [
            (bias("ffn_gate_exps.bias", ff)?, ff),
            (bias("ffn_up_exps.bias", ff)?, ff),
            (bias("ffn_down_exps.bias", dim)?, dim),
        ];
        let scales = block.vector_if("ffn_down_exps.scale", &[n])?;
        let expert = |e: usize| {
            // Matrix `half` of a fused stack, or the whole slice.
            let matrix = |stack: usize, half: Option<usize>, rows, k| {
                let (name, slices) = &stacks[stack];
                let (region, kind) = &slices[e];
                let len = region.bytes().len() / 2;
                let part = half.and_then(|half| region.part(half * len, len));
                load.slice(name, part.unwrap_or_else(|| region.clone()), *kind, rows, k)
            };
            let bias = |at: usize| {
                let (bias, rows) = &biases[at];
                bias.as_ref().map(|b| b.get()[e * rows..(e + 1) * rows].to_vec())
            };
            Ok(Expert {
                gate: matrix(0, fused.then_some(0), ff, dim)?,
                up: matrix(usize::from(!fused), fused.then_some(1), ff, dim)?,
                down: matrix(stacks.len() - 1, None, dim, ff)?,
                scale: scales.as_ref().map(|s| s.get()[e]),
                bias: [bias(0), bias(1), bias(2)],
                slices: stacks.iter().map(|(_, slices)| slices[e].0.clone()).collect(),
            })
        };
        (0..n).map(expert).collect()
    }
}
