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
        let mut room = Room::default();
        for layer in &self.layers {
            layer.forward(&mut x, self.heads, self.epsilon, &mut room);
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

/// What layers make one after the other, in the same memory: fresh pages for each took an eighth of the time.
#[derive(Default)]
struct Room {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    wide: Vec<f32>,
    out: Vec<f32>,
}

impl Layer {
    fn forward(&self, x: &mut [f32], heads: usize, epsilon: f32, room: &mut Room) {
        let Room { q, k, v, mixed, wide, out } = room;
        products(x, [(&self.q, &mut *q), (&self.k, &mut *k), (&self.v, &mut *v)]);
        mixed.resize(q.len(), 0.0);
        attend_all(self.q.biased(q), self.k.biased(k), self.v.biased(v), heads, mixed);
        products(mixed, [(&self.o, &mut *out)]);
        self.after_attention.of_sum(x, out, &self.o.bias, epsilon);
        products(x, [(&self.up, &mut *wide)]);
        bias_and_gelu(wide, &self.up.bias);
        products(wide, [(&self.down, &mut *out)]);
        self.after_feed_forward.of_sum(x, out, &self.down.bias, epsilon);
    }
}

impl Linear {
    fn biased<'a>(&'a self, x: &'a [f32]) -> Biased<'a> {
        Biased { x, bias: &self.bias }
    }
}

/// The same rows through several matrices, without their biases; they are rounded once.
fn products<const N: usize>(x: &[f32], layers: [(&Linear, &mut Vec<f32>); N]) {
    let k = layers[0].0.w.k;
    let mut rows = Activations::new(x, k);
    layers.iter().for_each(|(layer, _)| rows.prepare_for(&layer.w));
    compute(layers.map(|(layer, out)| {
        out.resize(rows.rows() * layer.w.rows, 0.0);
        Job::Product(Product { w: &layer.w, x: &rows, picks: rows.all(), out })
    }));
}
