//! One step: tokens of several sequences in, logits out.
//!
//! A batch is a list of [`Segment`]s, each some consecutive tokens of one sequence with its own memory, mask and taps.
//! Prefill, decode and any mix of the two are the same code, and a row's numbers do not depend on what else is in the
//! batch.  What the layers do is the architecture's (`arch`), put together from `parts`; they see the batch as a
//! `Step`.

use crate::bank::Bank;
use crate::kernels::{Activations, matmul};
use crate::model::Model;
use crate::rope::Rope;
use crate::step::{Guess, Output, Segment, Step, Want};

/// Runs a batch and stores what the sequences need to go on.
///
/// # Panics
///
/// When a segment's pages have no room for its tokens: the caller reserves it.
pub fn forward(model: &Model, bank: &Bank, segments: &mut [Segment<'_>]) -> Vec<Output> {
    let shape = model.shape();
    let mut places = Vec::new();
    for (s, segment) in segments.iter().enumerate() {
        let (len, tokens) = (segment.pages.len(), segment.tokens.len());
        assert!(len + tokens <= segment.pages.capacity(), "no room was reserved");
        places.extend((len..len + tokens).map(|position| (s, position)));
    }
    let rows = places.len();
    let mut x = vec![0f32; rows * shape.dim];
    let tokens = segments.iter().flat_map(|s| s.tokens);
    for (&token, x) in tokens.zip(x.chunks_exact_mut(shape.dim)) {
        model.embed(token, x);
    }
    let turn = |rope: &Rope| places.iter().map(|&(_, p)| rope.at(p)).collect();
    let rotations = model.ropes.iter().map(turn).collect();
    let misses = bank.misses();
    bank.begin();
    let missing = vec![0f32; rows];
    let guesses = (0..rows).map(|_| Guess::default()).collect();
    let mut step = Step { experts: bank, segments, places, rotations, missing, guesses };
    for layer in &model.layers {
        layer.forward(&mut step, &mut x);
    }
    let Step { missing, segments, guesses, .. } = step;
    if bank.misses() != misses {
        bank.settle();
    }

    let routed = shape.routed.iter().filter(|r| **r).count().max(1) as f32;
    let missing: Vec<f32> = missing.into_iter().map(|m| m / routed).collect();
    let mut outputs = Vec::with_capacity(segments.len());
    let mut guesses = guesses.into_iter();
    let mut row = 0;
    for segment in segments.iter_mut() {
        let (n, sure) = (segment.tokens.len(), segment.sure());
        let wanted = match segment.want {
            Want::None => n..n,
            Want::Last => n - 1..n,
            Want::All | Want::Guesses(_) => 0..n,
        };
        let last = &x[(row + wanted.start) * shape.dim..(row + wanted.end) * shape.dim];
        outputs.push(Output {
            logits: model.logits(last),
            missing_mass: missing[row..row + n].to_vec(),
            guesses: guesses.by_ref().take(n).skip(sure).collect(),
        });
        if let Some(taps) = &mut segment.taps {
            taps.tokens += sure as u64;
            taps.prompt_tokens += if segment.prompt { sure as u64 } else { 0 };
        }
        // What a guess stored is written over by what comes instead.
        segment.pages.advance(sure);
        row += n;
    }
    outputs
}

impl Model {
    /// The row of a token: [dim].
    fn embed(&self, token: u32, out: &mut [f32]) {
        self.embedding.dequantise_row(token as usize, out);
        if self.embedding_scale != 1.0 {
            out.iter_mut().for_each(|v| *v *= self.embedding_scale);
        }
    }

    /// [rows, vocab] of what the last layer gave, [rows, dim].
    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let normed = self.output_norm.forward(x);
        let rows = normed.len() / self.shape().dim;
        let mut logits = vec![0f32; rows * self.shape().vocab];
        if rows > 0 {
            matmul(&self.output, &mut Activations::new(&normed, self.shape().dim), &mut logits);
        }
        // Some formats' products pass over numbers that are none; what came out of such a row is no logit.
        let normed = normed.chunks_exact(self.shape().dim);
        for (normed, logits) in normed.zip(logits.chunks_exact_mut(self.shape().vocab)) {
            if normed.iter().any(|v| !v.is_finite()) {
                logits.fill(f32::NAN);
            }
        }
        if let Some(cap) = self.softcap {
            logits.iter_mut().for_each(|v| *v = (*v / cap).tanh() * cap);
        }
        logits
    }
}
