//! The graph: tokens of several sequences in, logits out.
//!
//! A batch is a list of [`Segment`]s, each some consecutive tokens of one sequence with its own pages, mask and taps.
//! Prefill, decode and any mix of the two are the same code, and a row's numbers do not depend on what else is in the
//! batch.

use rayon::prelude::*;

use crate::arch::Shape;
use crate::bank::Bank;
use crate::experts::{self, Routed};
use crate::kernels::{Activations, dot_f32, matmul};
use crate::kv::{PAGE, Pages};
use crate::mask::ExpertMask;
use crate::math::{self, Rotation};
use crate::model::{Block, Model};
use crate::profile::Profile;

/// For which of a segment's tokens logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    None,
    Last,
    All,
}

/// Consecutive tokens of one sequence; they go to positions `pages.len()` and on.
pub struct Segment<'a> {
    /// Ids below the vocabulary's size.
    pub tokens: &'a [u32],
    /// Must have room for the tokens.
    pub pages: &'a mut Pages,
    pub mask: Option<&'a ExpertMask>,
    /// Where the router's doings are counted.
    pub taps: Option<&'a mut Profile>,
    /// The tokens are part of a prompt, not generated.
    pub prompt: bool,
    pub want: Want,
}

/// What came of one segment.
pub struct Output {
    /// [wanted tokens, vocab]
    pub logits: Vec<f32>,
    /// Per token: the share of the full router's gate mass on experts that the mask lacks, mean over layers.
    pub missing_mass: Vec<f32>,
}

/// Runs a batch and stores its keys and values.
pub fn forward(model: &Model, bank: &Bank, segments: &mut [Segment<'_>]) -> Vec<Output> {
    let shape = model.shape();
    let rows: usize = segments.iter().map(|s| s.tokens.len()).sum();
    let mut x = vec![0f32; rows * shape.dim];
    let mut rotations = Vec::with_capacity(rows);
    let mut masks = Vec::with_capacity(rows);
    // Row -> (segment, position).
    let mut places = Vec::with_capacity(rows);
    for (s, segment) in segments.iter().enumerate() {
        assert!(
            segment.pages.len() + segment.tokens.len() <= segment.pages.capacity(),
            "no room was reserved"
        );
        for (i, &token) in segment.tokens.iter().enumerate() {
            let position = segment.pages.len() + i;
            let row = places.len();
            model
                .embedding
                .dequantise_row(token as usize, &mut x[row * shape.dim..(row + 1) * shape.dim]);
            rotations.push(Rotation::at(position, shape.head_dim, shape.rope_base));
            masks.push(segment.mask);
            places.push((s, position));
        }
    }

    let misses = bank.misses();
    let mut missing = vec![0f32; rows];
    let mut normed = vec![0f32; rows * shape.dim];
    for (layer, block) in model.blocks.iter().enumerate() {
        norm_rows(&x, block.attn_norm.get(), shape, &mut normed);
        attention(shape, layer, block, segments, &places, &rotations, &normed, &mut x);
        norm_rows(&x, block.ffn_norm.get(), shape, &mut normed);
        let routed = experts::forward(shape, layer, block, bank, &masks, &normed, &mut x);
        for (row, routed) in routed.iter().enumerate() {
            let (s, _) = places[row];
            if let Some(mask) = segments[s].mask {
                let lacks = routed.full.iter().filter(|(e, _)| !mask.contains(layer, *e));
                missing[row] += lacks.map(|(_, gate)| gate).sum::<f32>() / shape.layers as f32;
            }
            let prompt = segments[s].prompt;
            if let Some(taps) = &mut segments[s].taps {
                tap(taps, layer, routed, prompt);
            }
        }
    }

    if bank.misses() != misses {
        bank.settle();
    }

    let mut outputs = Vec::with_capacity(segments.len());
    let mut row = 0;
    for segment in segments.iter_mut() {
        let n = segment.tokens.len();
        let wanted = match segment.want {
            Want::None => n..n,
            Want::Last => n - 1..n,
            Want::All => 0..n,
        };
        let from = &x[(row + wanted.start) * shape.dim..(row + wanted.end) * shape.dim];
        let mut last = vec![0f32; from.len()];
        norm_rows(from, model.output_norm.get(), shape, &mut last);
        let mut logits = vec![0f32; wanted.len() * shape.vocab];
        if !wanted.is_empty() {
            matmul(&model.output, &mut Activations::new(&last, shape.dim), &mut logits);
        }
        outputs.push(Output { logits, missing_mass: missing[row..row + n].to_vec() });
        if let Some(taps) = &mut segment.taps {
            taps.tokens += n as u64;
            taps.prompt_tokens += if segment.prompt { n as u64 } else { 0 };
        }
        segment.pages.advance(n);
        row += n;
    }
    outputs
}

fn norm_rows(x: &[f32], weight: &[f32], shape: &Shape, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(shape.dim).zip(out.chunks_exact_mut(shape.dim)) {
        math::rms_norm(x, weight, shape.norm_eps, out);
    }
}

/// Grouped-query attention; adds its output to `x` [rows, dim].
#[allow(clippy::too_many_arguments)]
fn attention(
    shape: &Shape,
    layer: usize,
    block: &Block,
    segments: &mut [Segment<'_>],
    places: &[(usize, usize)],
    rotations: &[Rotation],
    normed: &[f32],
    x: &mut [f32],
) {
    let rows = places.len();
    let (hd, q_dim, kv_dim) = (shape.head_dim, shape.heads * shape.head_dim, shape.kv_dim());
    let mut input = Activations::new(normed, shape.dim);
    let mut q = vec![0f32; rows * q_dim];
    let mut k = vec![0f32; rows * kv_dim];
    let mut v = vec![0f32; rows * kv_dim];
    matmul(&block.q, &mut input, &mut q);
    matmul(&block.k, &mut input, &mut k);
    matmul(&block.v, &mut input, &mut v);
    for (heads, weight, dim) in [(&mut q, &block.q_norm, q_dim), (&mut k, &block.k_norm, kv_dim)] {
        for (row, heads) in heads.chunks_exact_mut(dim).enumerate() {
            for head in heads.chunks_exact_mut(hd) {
                let before = head.to_vec();
                math::rms_norm(&before, weight.get(), shape.norm_eps, head);
                rotations[row].apply(head);
            }
        }
    }
    for (row, &(s, position)) in places.iter().enumerate() {
        let at = row * kv_dim..(row + 1) * kv_dim;
        segments[s].pages.put(layer, position, &k[at.clone()], &v[at]);
    }
    let segments = &*segments;
    let mut out = vec![0f32; rows * q_dim];
    let group = shape.heads / shape.kv_heads;
    let one = |(index, out): (usize, &mut [f32])| {
        let (row, head) = (index / shape.heads, index % shape.heads);
        let (s, position) = places[row];
        let q = &q[row * q_dim + head * hd..row * q_dim + (head + 1) * hd];
        attend(segments[s].pages, layer, position + 1, (head / group) * hd, q, out);
    };
    // A few tokens are done before other threads are awake.
    let work: usize = places.iter().map(|(_, position)| position + 1).sum::<usize>() * q_dim;
    if work < 1 << 18 {
        out.chunks_exact_mut(hd).enumerate().for_each(one);
    } else {
        out.par_chunks_exact_mut(hd).enumerate().for_each(one);
    }
    let mut y = vec![0f32; rows * shape.dim];
    matmul(&block.o, &mut Activations::new(&out, q_dim), &mut y);
    x.iter_mut().zip(&y).for_each(|(x, y)| *x += y);
}

/// One head of one row over the first `len` positions; `at` is where its head begins in a key.
fn attend(pages: &Pages, layer: usize, len: usize, at: usize, q: &[f32], out: &mut [f32]) {
    let (hd, scale) = (q.len(), 1.0 / (q.len() as f32).sqrt());
    let mut scores = Vec::with_capacity(len);
    for page in 0..len.div_ceil(PAGE) {
        let (keys, _) = pages.read(layer, page);
        let dim = keys.len() / PAGE;
        for key in keys.chunks_exact(dim).take(len - page * PAGE) {
            scores.push(dot_f32(q, &key[at..at + hd]) * scale);
        }
    }
    math::softmax(&mut scores);
    out.fill(0.0);
    for (page, weights) in scores.chunks(PAGE).enumerate() {
        let (_, values) = pages.read(layer, page);
        let dim = values.len() / PAGE;
        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
            out.iter_mut().zip(&value[at..at + hd]).for_each(|(o, v)| *o += weight * v);
        }
    }
}

/// Counts what one layer did with one token.
fn tap(profile: &mut Profile, layer: usize, routed: &Routed, prompt: bool) {
    let (experts, top_k) = (profile.experts, profile.top_k);
    let both = [Some(&mut profile.all), prompt.then_some(&mut profile.prompt)];
    for taps in both.into_iter().flatten() {
        for (rank, &(expert, gate)) in routed.full.iter().enumerate() {
            let at = (layer * experts + expert) * top_k + rank;
            taps.counts[at] += 1;
            taps.gate_mass[at] += f64::from(gate);
        }
        for &(expert, gate, norm) in &routed.ran {
            let at = layer * experts + expert;
            taps.output_norm[at] += f64::from(norm);
            taps.gated_norm[at] += f64::from(gate * norm);
        }
    }
}
