//! BERT's forward pass over one text: embeddings, layers, mean of all tokens.
//!
//! Matrix products are the engine's, in whatever format the file has, Q8_0 or
//! F32; everything between them is F32.  All tokens see each other, and there is
//! one text at a time, so there is no padding and no mask.
//! Source: Devlin et al., BERT (arXiv 1810.04805).

use engine::kernels::{
    Activations, Biased, Job, Matrix, Product, add_and_norm, attend_all, bias_and_gelu, compute,
};

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
    pub(super) heads: usize,
    pub(super) epsilon: f32,
}

impl Bert {
    /// Tokens of a text that are read.
    pub(super) fn positions(&self) -> usize {
        self.places.len() / self.words.k
    }

    /// The mean of all tokens, `[width]`; ids are below the vocabulary's size and at most
    /// [`Bert::positions`].
    pub(super) fn mean(&self, ids: &[u32]) -> Vec<f32> {
        let width = self.words.k;
        let mut x = vec![0f32; ids.len() * width];
        for (row, id) in x.chunks_exact_mut(width).zip(ids) {
            self.words.dequantise_row(*id as usize, row);
        }
        self.norm.of_sum(&mut x, &self.places, &vec![0.0; width], self.epsilon);
        for layer in &self.layers {
            layer.forward(&mut x, self.heads, self.epsilon);
        }
        let mut mean = vec![0f32; width];
        for row in x.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        mean.iter_mut().for_each(|sum| *sum /= ids.len().max(1) as f32);
        mean
    }
}

impl Norm {
    /// Of `x` with what a linear layer made, whose bias is still to be added.
    fn of_sum(&self, x: &mut [f32], more: &[f32], bias: &[f32], epsilon: f32) {
        add_and_norm(x, more, bias, &self.weight, &self.bias, epsilon);
    }
}

impl Layer {
    fn forward(&self, x: &mut [f32], heads: usize, epsilon: f32) {
        let [q, k, v] = products(x, [&self.q, &self.k, &self.v]);
        let mixed = attend_all(self.q.biased(&q), self.k.biased(&k), self.v.biased(&v), heads);
        let [out] = products(&mixed, [&self.o]);
        self.after_attention.of_sum(x, &out, &self.o.bias, epsilon);
        let [mut wide] = products(x, [&self.up]);
        bias_and_gelu(&mut wide, &self.up.bias);
        let [out] = products(&wide, [&self.down]);
        self.after_feed_forward.of_sum(x, &out, &self.down.bias, epsilon);
    }
}

impl Linear {
    fn biased<'a>(&'a self, x: &'a [f32]) -> Biased<'a> {
        Biased { x, bias: &self.bias }
    }
}

/// The same rows through several matrices, without their biases; they are rounded once.
fn products<const N: usize>(x: &[f32], layers: [&Linear; N]) -> [Vec<f32>; N] {
    let k = layers[0].w.k;
    let mut rows = Activations::new(x, k);
    layers.iter().for_each(|layer| rows.prepare_for(&layer.w));
    let mut outs = layers.map(|layer| vec![0f32; x.len() / k * layer.w.rows]);
    let jobs = layers.iter().zip(&mut outs).map(|(layer, out)| {
        Job::Product(Product { w: &layer.w, x: &rows, picks: rows.all(), out })
    });
    compute(jobs);
    outs
}
