//! Grouped-query attention over a sequence's stored keys and values.

use rayon::prelude::*;

use super::linear::Linear;
use crate::kernels::{Activations, dot_f32, sigmoid};
use crate::kv::{PAGE, Pages};
use crate::math;
use crate::rope::Rotation;
use crate::step::Step;
use crate::vector::Vector;

/// RMS norm of queries or keys before they are turned.
pub(crate) enum HeadNorm {
    /// [head_dim], of each head by itself.
    Each(Vector),
    /// [heads * head_dim], of all heads together.
    Together(Vector),
}

pub(crate) struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// [heads * head_dim, dim]; with a gate twice as many rows: for each head the query, then its gate.
    pub q: Linear,
    /// `None`: keys and values are those that another layer stored.
    pub k: Option<Linear>,
    /// `None`: values are the keys as they were before norm and rotation.
    pub v: Option<Linear>,
    /// [dim, heads * head_dim]
    pub o: Linear,
    pub q_norm: Option<HeadNorm>,
    pub k_norm: Option<HeadNorm>,
    /// Values are normed without a weight.
    pub v_norm: bool,
    pub norm_eps: f32,
    /// Index among the model's ropes.
    pub rope: usize,
    /// A token sees so many tokens, itself among them.
    pub window: Option<usize>,
    /// [heads], logits that take a share of the attention and give nothing (2309.17453).
    pub sinks: Option<Vector>,
    /// The output is multiplied by the sigmoid of a gate.
    pub gated: bool,
    /// The layer whose keys and values are read.
    pub store: usize,
}

impl Attention {
    /// What the layer adds to the residual: [rows, dim] of the normed rows.
    pub fn forward(&self, step: &mut Step<'_, '_>, normed: &[f32]) -> Vec<f32> {
        let hd = self.head_dim;
        let mut input = Activations::new(normed, self.q.weight.k);
        let (mut q, gate) = self.split(self.q.forward(&mut input));
        self.prepare(&mut q, &self.q_norm, step.rotations(self.rope));
        if let Some(k) = &self.k {
            let mut k = k.forward(&mut input);
            let mut v = match &self.v {
                Some(v) => v.forward(&mut input),
                None => k.clone(),
            };
            if self.v_norm {
                v.chunks_exact_mut(hd).for_each(|head| math::unit_rms(head, self.norm_eps));
            }
            self.prepare(&mut k, &self.k_norm, step.rotations(self.rope));
            step.store(self.store, &k, &v);
        }
        let mut out = self.attend(step, &q);
        if let Some(gate) = gate {
            out.iter_mut().zip(&gate).for_each(|(o, g)| *o *= sigmoid(*g));
        }
        self.o.rows(&out)
    }

    /// Numbers for one row: queries, gates, output, keys, values.
    pub fn row_floats(&self) -> usize {
        (3 * self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Queries and gates of a projection that holds both.
    fn split(&self, q: Vec<f32>) -> (Vec<f32>, Option<Vec<f32>>) {
        if !self.gated {
            return (q, None);
        }
        let half = |at: usize| {
            q.chunks_exact(self.head_dim).skip(at).step_by(2).flatten().copied().collect::<Vec<_>>()
        };
        (half(0), Some(half(1)))
    }

    /// Norms and turns the heads of each row.
    fn prepare(&self, heads: &mut [f32], norm: &Option<HeadNorm>, rotations: &[Rotation]) {
        let dim = heads.len() / rotations.len();
        for (row, rotation) in heads.chunks_exact_mut(dim).zip(rotations) {
            if let Some(HeadNorm::Together(weight)) = norm {
                math::rms_norm_in_place(row, weight.get(), self.norm_eps);
            }
            for head in row.chunks_exact_mut(self.head_dim) {
                if let Some(HeadNorm::Each(weight)) = norm {
                    math::rms_norm_in_place(head, weight.get(), self.norm_eps);
                }
                rotation.apply(head);
            }
        }
    }

    /// [rows, heads * head_dim]
    fn attend(&self, step: &Step<'_, '_>, q: &[f32]) -> Vec<f32> {
        let (hd, group) = (self.head_dim, self.heads / self.kv_heads);
        let sinks = self.sinks.as_ref().map(Vector::get);
        let one = |(index, (q, out)): (usize, (&[f32], &mut [f32]))| {
            let (row, head) = (index / self.heads, index % self.heads);
            let (pages, position) = step.place(row);
            let from = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
            let seen = from..position + 1;
            let sink = sinks.map(|s| s[head]);
            head_of(pages, self.store, seen, head / group * hd, q, self.scale, sink, out);
        };
        let mut out = vec![0f32; q.len()];
        let seen = |row: usize| step.place(row).1 + 1;
        let work: usize = (0..step.rows()).map(seen).sum::<usize>() * self.heads * hd;
        // A few tokens are done before other threads are awake.
        if work < 1 << 18 {
            q.chunks_exact(hd).zip(out.chunks_exact_mut(hd)).enumerate().for_each(one);
        } else {
            q.par_chunks_exact(hd).zip(out.par_chunks_exact_mut(hd)).enumerate().for_each(one);
        }
        out
    }
}

/// One head of one row over the positions `seen`; `at` is where its head begins in a key.
#[allow(clippy::too_many_arguments)]
fn head_of(
    pages: &Pages,
    layer: usize,
    seen: std::ops::Range<usize>,
    at: usize,
    q: &[f32],
    scale: f32,
    sink: Option<f32>,
    out: &mut [f32],
) {
    let hd = q.len();
    // The stored rows of `seen`, page by page: (page, rows within it).
    let pieces = || {
        (seen.start / PAGE..seen.end.div_ceil(PAGE)).map(|page| {
            let first = page * PAGE;
            (page, seen.start.saturating_sub(first)..(seen.end - first).min(PAGE))
        })
    };
    let mut scores = Vec::with_capacity(seen.len() + 1);
    for (page, rows) in pieces() {
        let keys = pages.keys(layer, page);
        let dim = keys.len() / PAGE;
        for key in keys.chunks_exact(dim).take(rows.end).skip(rows.start) {
            scores.push(dot_f32(q, &key[at..at + hd]) * scale);
        }
    }
    scores.extend(sink);
    math::softmax(&mut scores);
    out.fill(0.0);
    let mut weights = scores.iter();
    for (page, rows) in pieces() {
        let values = pages.values(layer, page);
        let dim = values.len() / PAGE;
        let values = values.chunks_exact(dim).take(rows.end).skip(rows.start);
        // Values first: a zip asks its second side only when the first gave something.
        for (value, weight) in values.zip(&mut weights) {
            out.iter_mut().zip(&value[at..at + hd]).for_each(|(o, v)| *o += weight * v);
        }
    }
}
