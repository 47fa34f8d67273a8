//! The routed feed-forward layer: router, mask, top-k, experts, and what the router did.
//!
//! The full router always runs.  A row's mask puts -inf on its logits before anything is made of them, so that what
//! the experts that are there get is what a file without the others would give; what the full router would have chosen
//! is recorded beside.
//!
//! Rows are grouped by expert, so that each expert is read once for all rows that chose it, whichever specialist they
//! belong to.

use config::Missing;

use super::linear::Linear;
use crate::kernels::{
    Activation, Activations, Filled, Gated, Job, Matrix, Product, compute, share,
};
use crate::mapping::Region;
use crate::mask::{ExpertMask, Masking};
use crate::math;
use crate::step::{Ran, Step};

/// How gates are made of the router's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gates {
    /// Softmax over all, divided by the sum of the chosen.
    Renormalised,
    /// Softmax over all.
    OfAll,
    /// Softmax over the chosen.
    OfChosen,
}

/// The slices of one routed expert.
pub(crate) struct Expert {
    /// [ff, dim]
    pub gate: Matrix,
    /// [ff, dim]
    pub up: Matrix,
    /// [dim, ff]
    pub down: Matrix,
    /// What its output is multiplied by.
    pub scale: Option<f32>,
    /// Added to the products of gate, up and down.
    pub bias: [Option<Vec<f32>>; 3],
    /// The bytes of its matrices, for residency: one for each stacked tensor, in one order for all experts of a layer.
    pub slices: Vec<Region>,
}

/// Rows by the experts that they chose.
pub(crate) struct Groups {
    /// Experts that some row chose, in order.
    pub used: Vec<usize>,
    /// [experts], the (row, rank) pairs of each.
    pairs: Vec<Vec<(usize, usize)>>,
}

pub(crate) struct Routed {
    /// [experts, dim]
    pub router: Linear,
    pub experts: Vec<Expert>,
    pub top_k: usize,
    pub gates: Gates,
    pub activation: Activation,
}

impl Gates {
    /// The chosen experts of one row and their gates.
    fn choose(
        self,
        logits: &[f32],
        top_k: usize,
        masking: Masking,
        keep: impl Fn(usize) -> bool,
    ) -> Vec<(usize, f32)> {
        if (self, masking) == (Gates::OfAll, Masking::AfterSoftmax) {
            let mut p = logits.to_vec();
            math::softmax(&mut p);
            let kept = |(e, &v): (usize, &f32)| if keep(e) { v } else { f32::NEG_INFINITY };
            let kept: Vec<f32> = p.iter().enumerate().map(kept).collect();
            return math::top_k(&kept, top_k).into_iter().map(|e| (e, p[e])).collect();
        }
        let masked = |(e, &v): (usize, &f32)| if keep(e) { v } else { f32::NEG_INFINITY };
        let mut p: Vec<f32> = logits.iter().enumerate().map(masked).collect();
        if self == Gates::OfChosen {
            let chosen = math::top_k(&p, top_k);
            let mut gates: Vec<f32> = chosen.iter().map(|&e| p[e]).collect();
            math::softmax(&mut gates);
            return chosen.into_iter().zip(gates).collect();
        }
        math::softmax(&mut p);
        let chosen = math::top_k(&p, top_k);
        let sum = match self {
            // The bound is llama.cpp's: the smallest normal F16.
            Gates::Renormalised => chosen.iter().map(|&e| p[e]).sum::<f32>().max(6.103_515_6e-5),
            _ => 1.0,
        };
        chosen.into_iter().map(|e| (e, p[e] / sum)).collect()
    }
}

impl Groups {
    pub fn of(ran: &[Ran], experts: usize) -> Groups {
        let mut pairs: Vec<Vec<(usize, usize)>> = vec![Vec::new(); experts];
        for (row, ran) in ran.iter().enumerate() {
            for (rank, &(expert, ..)) in ran.ran.iter().enumerate() {
                pairs[expert].push((row, rank));
            }
        }
        Groups { used: (0..experts).filter(|&e| !pairs[e].is_empty()).collect(), pairs }
    }

    /// The (row, rank) pairs of an expert.
    pub fn of_expert(&self, expert: usize) -> &[(usize, usize)] {
        &self.pairs[expert]
    }

    /// The rows of an expert.
    pub fn rows(&self, expert: usize) -> impl Iterator<Item = u32> {
        self.pairs[expert].iter().map(|&(row, _)| row as u32)
    }

    /// The (row, rank) pairs of all that are used, expert after expert.
    pub fn all(&self) -> impl Iterator<Item = &(usize, usize)> {
        self.used.iter().flat_map(|&e| &self.pairs[e])
    }
}

impl Routed {
    /// What the layer adds to the residual: [rows, dim] of the normed rows.  The router reads rows of its own.
    pub fn forward(
        &self,
        step: &mut Step<'_, '_>,
        layer: usize,
        router: &[f32],
        x: &[f32],
    ) -> Vec<f32> {
        let (rows, dim) = (step.rows(), self.router.weight.k);
        let mut activations = Activations::new(x, dim);
        let logits = if std::ptr::eq(router, x) {
            self.router.forward(&mut activations)
        } else {
            self.router.rows(router)
        };
        let mut ran = self.route(step, layer, &logits);
        let groups = Groups::of(&ran, self.experts.len());
        let absent = self.prepare(step, layer, &groups);
        let outputs = self.experts_of(&groups.used, &groups, &mut activations);
        step.experts.passed(layer, &groups.used, absent);

        // Gate and add in the order of ranks, so that a row's sum does not depend on its batch.
        let mut at: Vec<&[f32]> = vec![&[]; rows * self.top_k];
        for (&(row, rank), y) in groups.all().zip(outputs.chunks_exact(dim)) {
            at[row * self.top_k + rank] = y;
        }
        let mut out = vec![0f32; rows * dim];
        let (outs, rans) = (Filled::new(&mut out), Filled::new(&mut ran));
        share(rows, 2 * rows * self.top_k * dim, &|row| {
            // SAFETY: a row of its own, in both.
            let (out, ran) = unsafe { (outs.range(row * dim, dim), &mut rans.range(row, 1)[0]) };
            for (rank, (_, gate, norm)) in ran.ran.iter_mut().enumerate() {
                let y = at[row * self.top_k + rank];
                *norm = math::l2_norm(y);
                math::add_scaled(out, *gate, y);
            }
        });
        step.tap(layer, ran);
        out
    }

    /// Tells whoever knows which experts are in memory what is about to be computed.  Whether any is not there.
    pub fn prepare(&self, step: &Step<'_, '_>, layer: usize, groups: &Groups) -> bool {
        let wish = |e: usize| step.wish(groups.of_expert(e).iter().map(|&(row, _)| row));
        step.experts.prepare(layer, &groups.used, &wish)
    }

    /// What some experts make of their rows of `x`, expert after expert: [rows of all of them, dim].
    pub fn experts_of(&self, used: &[usize], groups: &Groups, x: &mut Activations<'_>) -> Vec<f32> {
        x.prepare_for(&self.experts[0].gate);
        x.prepare_for(&self.experts[0].up);
        let x = &*x;
        let picks: Vec<u32> = used.iter().flat_map(|&e| groups.rows(e)).collect();
        let (ff, dim) = (self.experts[0].gate.rows, self.experts[0].down.rows);
        let mut hidden = vec![0f32; picks.len() * ff];
        let (mut left, mut to) = (&picks[..], &mut hidden[..]);
        compute(used.iter().map(|&e| {
            let (expert, out);
            (expert, left) = left.split_at(groups.of_expert(e).len());
            (out, to) = std::mem::take(&mut to).split_at_mut(expert.len() * ff);
            let Expert { gate, up, bias, .. } = &self.experts[e];
            let bias = [&bias[0], &bias[1]].map(Option::as_deref);
            let activation = self.activation;
            Job::Gated(Gated { w: [gate, up], bias, activation, x, picks: expert, out })
        }));
        let mut hidden = Activations::new(&hidden, ff);
        hidden.prepare_for(&self.experts[0].down);
        let mut out = vec![0f32; picks.len() * dim];
        let (mut left, mut to) = (hidden.all(), &mut out[..]);
        compute(used.iter().map(|&e| {
            let (expert, out);
            (expert, left) = left.split_at(groups.of_expert(e).len());
            (out, to) = std::mem::take(&mut to).split_at_mut(expert.len() * dim);
            Job::Product(Product { w: &self.experts[e].down, x: &hidden, picks: expert, out })
        }));
        let mut rows = out.chunks_exact_mut(dim);
        for &e in used {
            let Expert { scale, bias, .. } = &self.experts[e];
            for row in rows.by_ref().take(groups.of_expert(e).len()) {
                if let Some(scale) = scale {
                    row.iter_mut().for_each(|v| *v *= scale);
                }
                if let Some(bias) = &bias[2] {
                    math::add(row, bias);
                }
            }
        }
        out
    }

    /// Numbers for one row: logits, probabilities, and what its experts make.
    pub fn row_floats(&self) -> usize {
        let expert = self.experts.first().map_or(0, |e| 2 * e.up.rows + e.down.rows);
        2 * self.experts.len() + self.top_k * expert
    }

    /// Chooses for every row, with what it may have and without bounds.
    pub fn route(&self, step: &Step<'_, '_>, layer: usize, logits: &[f32]) -> Vec<Ran> {
        let choose = |logits: &[f32], masking, keep: &dyn Fn(usize) -> bool| {
            self.gates.choose(logits, self.top_k, masking, keep)
        };
        // What is resident may change at any time; all rows of a segment see it at one.
        let mut there: Option<(usize, Option<Vec<u64>>)> = None;
        let rows = logits.chunks_exact(self.experts.len()).enumerate();
        rows.map(|(row, logits)| {
            let full = choose(logits, Masking::default(), &|_| true);
            let mask = step.mask(row);
            let masking = mask.map(ExpertMask::masking).unwrap_or_default();
            if step.missing(row) == Missing::Renormalise {
                let segment = step.segment(row);
                if there.as_ref().is_none_or(|(of, _)| *of != segment) {
                    there = Some((segment, step.experts.there(layer, mask, self.top_k)));
                }
            } else {
                there = None;
            }
            let words = there.as_ref().and_then(|(_, words)| words.as_deref());
            let keep = |e: usize| match (words, mask) {
                (Some(words), _) => words[e / 64] >> (e % 64) & 1 == 1,
                (None, Some(mask)) => mask.contains(layer, e),
                (None, None) => true,
            };
            let bounded = words.is_some() || mask.is_some();
            let ran = if bounded { choose(logits, masking, &keep) } else { full.clone() };
            let lacks = full.iter().filter(|(e, _)| !keep(*e)).map(|(_, gate)| gate);
            let all: f32 = full.iter().map(|(_, gate)| gate).sum();
            let missing = if bounded { lacks.sum::<f32>() / all } else { 0.0 };
            Ran { ran: ran.into_iter().map(|(e, gate)| (e, gate, 0.0)).collect(), full, missing }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_of_a_masked_router() {
        #[track_caller]
        fn check(logits: &[f32], keep: &[usize], want: &[usize]) {
            for gates in [Gates::Renormalised, Gates::OfChosen, Gates::OfAll] {
                let got = gates.choose(logits, 2, Masking::default(), |e| keep.contains(&e));
                assert_eq!(got.iter().map(|(e, _)| *e).collect::<Vec<_>>(), want, "{gates:?}");
                assert!(got.is_sorted_by(|a, b| a.1 >= b.1));
                let sum: f32 = got.iter().map(|(_, g)| g).sum();
                if gates == Gates::OfAll {
                    assert!(sum < 1.0 + 1e-6);
                } else {
                    assert!((sum - 1.0).abs() < 1e-6, "{gates:?}");
                }
            }
        }
        check(&[1., 4., 3., 2.], &[0, 1, 2, 3], &[1, 2]);
        // The best expert is not there: the next ones take over.
        check(&[1., 4., 3., 2.], &[0, 2, 3], &[2, 3]);
        check(&[1., 4., 3., 2.], &[0, 3], &[3, 0]);
        // Far apart logits still give a gate to both.
        check(&[-80., 40.], &[0, 1], &[1, 0]);
    }

    #[test]
    fn gates_of_what_is_left_are_those_of_a_smaller_router() {
        let (logits, keep) = ([0.3f32, 2.0, -1.0, 0.7], [0usize, 2, 3]);
        let small: Vec<f32> = keep.iter().map(|&e| logits[e]).collect();
        for gates in [Gates::Renormalised, Gates::OfChosen, Gates::OfAll] {
            let masked = gates.choose(&logits, 2, Masking::default(), |e| keep.contains(&e));
            let cut = gates.choose(&small, 2, Masking::default(), |_| true);
            let cut: Vec<_> = cut.into_iter().map(|(e, g)| (keep[e], g)).collect();
            assert_eq!(masked, cut, "{gates:?}");
        }
    }

    // c(x) is what the kept experts have of the softmax over all.
    #[test]
    fn a_mask_after_the_softmax_keeps_the_parents_gates() {
        let (logits, keep) = ([0.3f32, 2.0, -1.0, 0.7], [0usize, 2, 3]);
        let choose = |masking| Gates::OfAll.choose(&logits, 2, masking, |e| keep.contains(&e));
        let (before, after) = (choose(Masking::BeforeSoftmax), choose(Masking::AfterSoftmax));
        let all = Gates::OfAll.choose(&logits, 4, Masking::default(), |_| true);
        let parents = |e: usize| all.iter().find(|(other, _)| *other == e).unwrap().1;
        assert_eq!(after, [3, 0].map(|e| (e, parents(e))));
        let c: f32 = keep.iter().map(|e| parents(*e)).sum();
        for ((e, before), (_, after)) in before.iter().zip(&after) {
            assert!((before * c - after).abs() < 1e-6, "expert {e}: {before}, {after}");
        }
        // Routers that renormalise take no notice.
        for gates in [Gates::Renormalised, Gates::OfChosen] {
            let of = |masking| gates.choose(&logits, 2, masking, |e| keep.contains(&e));
            assert_eq!(of(Masking::BeforeSoftmax), of(Masking::AfterSoftmax));
        }
    }
}
