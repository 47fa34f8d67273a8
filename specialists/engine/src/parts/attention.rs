//! Grouped-query attention over a sequence's stored keys and values.

use std::ops::Range;

use super::linear::{Linear, together};
use crate::kernels::{Activations, Attend, Filled, Query, attend, share, sigmoid};
use crate::math;
use crate::rope::Rotation;
use crate::step::Step;
use crate::vector::Vector;

/// Queries over one head of keys that are read together, about.
const QUERIES: usize = 16;

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
        let mut input = Activations::new(normed, self.q.weight.k);
        let projected = together(&self.projections(), &mut input);
        self.o.rows(&self.between(step, projected))
    }

    /// What is multiplied with the normed rows: queries, and as far as the layer has them keys and values.
    pub fn projections(&self) -> Vec<&Linear> {
        let kv = self.k.as_ref().map(|k| [Some(k), self.v.as_ref()].into_iter().flatten());
        std::iter::once(&self.q).chain(kv.into_iter().flatten()).collect()
    }

    /// What lies between the projections, each [rows, its dim], and the output's: norms, rotation, storing, attention
    /// and gate.  [rows, heads * head_dim]
    pub fn between(&self, step: &mut Step<'_, '_>, projected: Vec<Vec<f32>>) -> Vec<f32> {
        let mut projected = projected.into_iter();
        let (q, k, v) = (projected.next(), projected.next(), projected.next());
        let (mut q, gate) = self.split(q.unwrap_or_default());
        self.prepare(&mut q, &self.q_norm, step.rotations(self.rope));
        if let Some(mut k) = k {
            let mut v = v.unwrap_or_else(|| k.clone());
            if self.v_norm {
                v.chunks_exact_mut(self.head_dim)
                    .for_each(|head| math::unit_rms(head, self.norm_eps));
            }
            self.prepare(&mut k, &self.k_norm, step.rotations(self.rope));
            step.store(self.store, &k, &v);
        }
        let mut out = self.attend(step, &q);
        if let Some(gate) = gate {
            out.iter_mut().zip(&gate).for_each(|(o, g)| *o *= sigmoid(*g));
        }
        out
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
        let (dim, operations) = (heads.len() / rotations.len(), heads.len());
        let filled = Filled::new(heads);
        share(rotations.len(), operations, &|row| {
            // SAFETY: a row of its own.
            let (row, rotation) = (unsafe { filled.range(row * dim, dim) }, &rotations[row]);
            if let Some(HeadNorm::Together(weight)) = norm {
                math::rms_norm_in_place(row, weight.get(), self.norm_eps);
            }
            for head in row.chunks_exact_mut(self.head_dim) {
                if let Some(HeadNorm::Each(weight)) = norm {
                    math::rms_norm_in_place(head, weight.get(), self.norm_eps);
                }
                rotation.apply(head);
            }
        });
    }

    /// [rows, heads * head_dim]
    fn attend(&self, step: &Step<'_, '_>, q: &[f32]) -> Vec<f32> {
        let (hd, group) = (self.head_dim, self.heads / self.kv_heads);
        let sinks = self.sinks.as_ref().map(Vector::get);
        // Rows of one sequence, so many that their queries of one head of keys are read together.
        let at_once = QUERIES.div_ceil(group);
        let mut pieces: Vec<Range<usize>> = Vec::new();
        for row in 0..step.rows() {
            match pieces.last_mut() {
                Some(last)
                    if last.len() < at_once && step.segment(last.start) == step.segment(row) =>
                {
                    last.end = row + 1;
                }
                _ => pieces.push(row..row + 1),
            }
        }
        let mut out = vec![0f32; q.len()];
        let filled = Filled::new(&mut out);
        let seen: usize = (0..step.rows()).map(|row| step.place(row).1 + 1).sum();
        share(pieces.len() * self.kv_heads, seen * self.heads * hd / 4, &|unit| {
            let (rows, kv_head) = (&pieces[unit / self.kv_heads], unit % self.kv_heads);
            let heads = kv_head * group..(kv_head + 1) * group;
            let both = rows.clone().flat_map(|row| heads.clone().map(move |head| (row, head)));
            let mut queries: Vec<Query<'_>> = both
                .map(|(row, head)| {
                    let (at, position) = ((row * self.heads + head) * hd, step.place(row).1);
                    let from = self.window.map_or(0, |w| (position + 1).saturating_sub(w));
                    Query {
                        q: &q[at..at + hd],
                        // SAFETY: this head of this row is nobody else's.
                        out: unsafe { filled.range(at, hd) },
                        sees: from..position + 1,
                        sink: sinks.map(|s| s[head]),
                    }
                })
                .collect();
            let (pages, _) = step.place(rows.start);
            attend(Attend {
                format: pages.format(self.store),
                page: |index| pages.page(self.store, index),
                at: kv_head * hd,
                scale: self.scale,
                queries: &mut queries,
            });
        });
        out
    }
}
