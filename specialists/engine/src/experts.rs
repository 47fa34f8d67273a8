//! The routed feed-forward layer: router, mask, top-k, experts, and what the router did.
//!
//! The full router always runs.  A row's mask puts -inf on its logits before the softmax, so that the gates of the
//! experts that run are renormalised over what is there; what the full router would have chosen is recorded beside.
//!
//! Rows are grouped by expert, so that each expert is read once for all rows that chose it, whichever specialist they
//! belong to.

use rayon::prelude::*;

use crate::arch::Shape;
use crate::bank::Bank;
use crate::kernels::{Activations, matmul, matmul_rows};
use crate::mask::ExpertMask;
use crate::math;
use crate::model::Block;

/// What the layer did with one row.
pub(crate) struct Routed {
    /// Expert, gate, and L2 norm of the expert's output, best first: what ran.
    pub ran: Vec<(usize, f32, f32)>,
    /// Expert and gate, best first: what the full router would have run.
    pub full: Vec<(usize, f32)>,
}

/// The chosen experts of one row and their gates, which sum to one.
fn choose(logits: &[f32], top_k: usize, keep: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
    let mut p: Vec<f32> = logits
        .iter()
        .enumerate()
        .map(|(e, &v)| if keep(e) { v } else { f32::NEG_INFINITY })
        .collect();
    math::softmax(&mut p);
    let chosen = math::top_k(&p, top_k);
    // The bound is llama.cpp's: the smallest normal F16.
    let sum = chosen.iter().map(|&e| p[e]).sum::<f32>().max(6.103_515_6e-5);
    chosen.into_iter().map(|e| (e, p[e] / sum)).collect()
}

/// Adds the layer's output to `out`.  `x` and `out` are [rows, dim]; `masks` has one entry a row.
pub(crate) fn forward(
    shape: &Shape,
    layer: usize,
    block: &Block,
    bank: &Bank,
    masks: &[Option<&ExpertMask>],
    x: &[f32],
    out: &mut [f32],
) -> Vec<Routed> {
    let rows = masks.len();
    let mut activations = Activations::new(x, shape.dim);
    let mut logits = vec![0f32; rows * shape.experts];
    matmul(&block.router, &mut activations, &mut logits);
    let mut routed: Vec<Routed> = logits
        .chunks_exact(shape.experts)
        .zip(masks)
        .map(|(logits, mask)| {
            let full = choose(logits, shape.top_k, |_| true);
            let ran = match mask {
                None => full.clone(),
                Some(mask) => choose(logits, shape.top_k, |e| mask.contains(layer, e)),
            };
            Routed { ran: ran.into_iter().map(|(e, gate)| (e, gate, 0.0)).collect(), full }
        })
        .collect();

    // (row, rank) pairs of each expert.
    let mut pairs: Vec<Vec<(usize, usize)>> = vec![Vec::new(); shape.experts];
    for (row, routed) in routed.iter().enumerate() {
        for (rank, &(expert, ..)) in routed.ran.iter().enumerate() {
            pairs[expert].push((row, rank));
        }
    }
    let used: Vec<usize> = (0..shape.experts).filter(|&e| !pairs[e].is_empty()).collect();
    activations.prepare_for(&block.experts[0].gate);
    activations.prepare_for(&block.experts[0].up);
    let activations = &activations;
    let outputs: Vec<Vec<f32>> = used
        .par_iter()
        .with_min_len(2)
        .map(|&e| {
            let picked: Vec<usize> = pairs[e].iter().map(|&(row, _)| row).collect();
            expert(block, e, activations, &picked)
        })
        .collect();
    bank.passed(layer, &used);

    // Gate and add in the order of ranks, so that a row's sum does not depend on its batch.
    let mut at: Vec<&[f32]> = vec![&[]; rows * shape.top_k];
    for (&e, output) in used.iter().zip(&outputs) {
        for (&(row, rank), y) in pairs[e].iter().zip(output.chunks_exact(shape.dim)) {
            at[row * shape.top_k + rank] = y;
        }
    }
    for (row, (routed, out)) in routed.iter_mut().zip(out.chunks_exact_mut(shape.dim)).enumerate() {
        let mut sum = vec![0f32; shape.dim];
        for (rank, (_, gate, norm)) in routed.ran.iter_mut().enumerate() {
            let y = at[row * shape.top_k + rank];
            *norm = math::l2_norm(y);
            sum.iter_mut().zip(y).for_each(|(s, y)| *s += *gate * y);
        }
        out.iter_mut().zip(&sum).for_each(|(o, s)| *o += s);
    }
    routed
}

/// One expert on some rows: [picked, dim].
fn expert(block: &Block, e: usize, x: &Activations<'_>, picked: &[usize]) -> Vec<f32> {
    let expert = &block.experts[e];
    let ff = expert.gate.rows;
    let mut gate = vec![0f32; picked.len() * ff];
    let mut up = vec![0f32; picked.len() * ff];
    matmul_rows(&expert.gate, x, picked, &mut gate);
    matmul_rows(&expert.up, x, picked, &mut up);
    for (g, u) in gate.iter_mut().zip(&up) {
        *g = math::silu(*g) * u;
    }
    let mut out = vec![0f32; picked.len() * expert.down.rows];
    matmul(&expert.down, &mut Activations::new(&gate, ff), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_of_a_masked_router() {
        #[track_caller]
        fn check(logits: &[f32], keep: &[usize], want: &[usize]) {
            let got = choose(logits, 2, |e| keep.contains(&e));
            assert_eq!(got.iter().map(|(e, _)| *e).collect::<Vec<_>>(), want);
            assert!((got.iter().map(|(_, g)| g).sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(got.is_sorted_by(|a, b| a.1 >= b.1));
        }
        check(&[1., 4., 3., 2.], &[0, 1, 2, 3], &[1, 2]);
        // The best expert is not there: the next ones take over.
        check(&[1., 4., 3., 2.], &[0, 2, 3], &[2, 3]);
        check(&[1., 4., 3., 2.], &[0, 3], &[3, 0]);
        // Far apart logits still give a gate to both.
        check(&[-80., 40.], &[0, 1], &[1, 0]);
    }
}
