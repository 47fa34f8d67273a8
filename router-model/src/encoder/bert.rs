//! BERT's forward pass over one text: embeddings, layers, mean of all tokens,
//! one linear layer.
//!
//! Matrix products are the engine's, in whatever format the file has, Q8_0 or
//! F32; everything between them is F32.  All tokens see each other, and there is
//! one text at a time, so there is no padding and no mask.
//! Source: Devlin et al., BERT (arXiv 1810.04805).

use std::sync::Arc;

use engine::ggml::Kind;
use engine::kernels::{Activations, Job, Matrix, Product, compute};
use engine::mapping::{Mapping, Region};

use super::math::{add, gelu, normalise, softmax};

/// `x W^T + b`
pub(super) struct Linear {
    pub(super) w: Matrix,
    pub(super) bias: Vec<f32>,
}

pub(super) struct Norm {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

pub(super) struct Layer {
    pub(super) q: Linear,
    pub(super) k: Linear,
    pub(super) v: Linear,
    pub(super) o: Linear,
    pub(super) after_attention: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
    pub(super) after_feed_forward: Norm,
}

/// A checked model: `read` has made sure that all shapes fit each other.
pub(super) struct Bert {
    /// `[vocabulary][width]`
    pub(super) words: Matrix,
    /// `[positions][width]`, with the embedding of the only kind of text added.
    pub(super) places: Vec<f32>,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    /// `[labels][width]`
    pub(super) head: Linear,
    pub(super) heads: usize,
    pub(super) epsilon: f32,
}

impl Bert {
    /// Tokens of a text that are read.
    pub(super) fn positions(&self) -> usize {
        self.places.len() / self.words.k
    }

    /// Logits `[labels]`; ids are below the vocabulary's size and at most
    /// [`Bert::positions`].
    pub(super) fn logits(&self, ids: &[u32]) -> Vec<f32> {
        let width = self.words.k;
        let mut x = vec![0f32; ids.len() * width];
        for (row, (id, place)) in
            x.chunks_exact_mut(width).zip(ids.iter().zip(self.places.chunks_exact(width)))
        {
            self.words.dequantise_row(*id as usize, row);
            add(row, place);
        }
        self.norm.apply(&mut x, self.epsilon);
        for layer in &self.layers {
            layer.forward(&mut x, self.heads, self.epsilon);
        }
        let mut mean = vec![0f32; width];
        x.chunks_exact(width).for_each(|row| add(&mut mean, row));
        mean.iter_mut().for_each(|sum| *sum /= ids.len().max(1) as f32);
        let [logits] = products(&mean, [&self.head]);
        logits
    }
}

impl Norm {
    fn apply(&self, x: &mut [f32], epsilon: f32) {
        for row in x.chunks_exact_mut(self.weight.len()) {
            normalise(row, &self.weight, &self.bias, epsilon);
        }
    }
}

impl Layer {
    fn forward(&self, x: &mut [f32], heads: usize, epsilon: f32) {
        let [q, k, v] = products(x, [&self.q, &self.k, &self.v]);
        let mixed = attention(&q, &k, &v, heads, self.q.w.rows);
        let [out] = products(&mixed, [&self.o]);
        add(x, &out);
        self.after_attention.apply(x, epsilon);
        let [mut wide] = products(x, [&self.up]);
        gelu(&mut wide);
        let [out] = products(&wide, [&self.down]);
        add(x, &out);
        self.after_feed_forward.apply(x, epsilon);
    }
}

/// The same rows through several linear layers; they are rounded once.
fn products<const N: usize>(x: &[f32], layers: [&Linear; N]) -> [Vec<f32>; N] {
    let k = layers[0].w.k;
    let mut rows = Activations::new(x, k);
    layers.iter().for_each(|layer| rows.prepare_for(&layer.w));
    let mut outs = layers.map(|layer| vec![0f32; x.len() / k * layer.w.rows]);
    let jobs = layers.iter().zip(&mut outs).map(|(layer, out)| {
        Job::Product(Product { w: &layer.w, x: &rows, picks: rows.all(), out })
    });
    compute(jobs);
    for (layer, out) in layers.iter().zip(&mut outs) {
        out.chunks_exact_mut(layer.w.rows).for_each(|row| add(row, &layer.bias));
    }
    outs
}

/// `softmax(q k^T / sqrt(size)) v` for each head; all are `[tokens][width]`.
fn attention(q: &[f32], k: &[f32], v: &[f32], heads: usize, width: usize) -> Vec<f32> {
    let (tokens, size) = (q.len() / width, width / heads);
    let scale = 1.0 / (size as f32).sqrt();
    let mut out = vec![0f32; q.len()];
    let mut one = vec![0f32; tokens * size];
    let mut scores = vec![0f32; tokens * tokens];
    for head in 0..heads {
        let piece = head * size..(head + 1) * size;
        let rows = |x: &[f32], scale: f32| -> Vec<f32> {
            x.chunks_exact(width).flat_map(|r| &r[piece.clone()]).map(|v| v * scale).collect()
        };
        product(&rows(k, 1.0), size, &rows(q, scale), &mut scores);
        scores.chunks_exact_mut(tokens).for_each(softmax);
        let v = rows(v, 1.0);
        let across: Vec<f32> =
            (0..size).flat_map(|i| v.iter().skip(i).step_by(size).copied()).collect();
        product(&across, tokens, &scores, &mut one);
        for (to, from) in out.chunks_exact_mut(width).zip(one.chunks_exact(size)) {
            to[piece.clone()].copy_from_slice(from);
        }
    }
    out
}

/// `out = x w^T`, both `[rows][k]`.
fn product(w: &[f32], k: usize, x: &[f32], out: &mut [f32]) {
    let bytes: Vec<u8> = w.iter().flat_map(|v| v.to_le_bytes()).collect();
    let len = bytes.len() as u64;
    let mapping = Arc::new(Mapping::Owned(bytes.into()));
    let matrix = Region::new(&mapping, 0, len)
        .and_then(|region| Matrix::new(region, Kind::F32, w.len() / k, k).ok());
    // Whole rows of F32 always make a matrix; no tokens at all make none.
    if let Some(matrix) = matrix {
        engine::kernels::matmul(&matrix, &mut Activations::new(x, k), out);
    }
}
