//! Gated delta net (2412.06464): linear attention whose state is a matrix per head, corrected by what it gets wrong.
//!
//! A token's queries, keys and values pass through a short convolution over time.  A head's state decays by the token's
//! gate, then learns the token's value under its key, as far as it does not know it already.
//!
//! A sequence keeps, per layer, the inputs of the convolution's last tokens and the states of all heads
//! ([`DeltaNet::state_floats`]).  Tokens go one after the other, so that a prompt in pieces gives the same bits.

use super::linear::Linear;
use crate::kernels::{Activations, Filled, dot, share, sigmoid, silu, wide};
use crate::math;
use crate::step::Step;
use crate::vector::Vector;

/// Which head of keys a head of values goes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Neighbouring heads of values share one.
    Grouped,
    /// Heads of values take them in turn.
    InTurn,
}

/// Queries, keys, values and output gates out of a row.
pub(crate) enum Mixed {
    /// [2 * key dim + value dim] and [value dim].
    Apart { qkv: Linear, z: Linear },
    /// For each head of keys: query, key, its values, their gates.
    Together(Linear),
}

/// How much is learnt and how much is kept, out of a row.
pub(crate) enum Rates {
    /// [value heads] each.
    Apart { beta: Linear, alpha: Linear },
    /// For each head of keys: the betas of its values, their alphas.
    Together(Linear),
}

pub(crate) struct DeltaNet {
    pub key_heads: usize,
    pub value_heads: usize,
    pub head_dim: usize,
    pub pairing: Pairing,
    pub mixed: Mixed,
    pub rates: Rates,
    /// [channels][taps], oldest first.
    pub conv: Vector,
    pub taps: usize,
    /// [value heads], added to alpha.
    pub dt: Vector,
    /// [value heads], what a step of time is multiplied by; negative.
    pub a: Vector,
    /// [head_dim]
    pub norm: Vector,
    pub eps: f32,
    /// [dim, value dim]
    pub out: Linear,
}

/// One row after the projections.
struct Inputs {
    /// [rows, channels]: queries, keys, values.
    qkv: Vec<f32>,
    /// [rows, value dim]
    z: Vec<f32>,
    /// [rows, value heads], within 0 and 1.
    beta: Vec<f32>,
    /// [rows, value heads], what states are multiplied by.
    decay: Vec<f32>,
}

impl DeltaNet {
    fn key_dim(&self) -> usize {
        self.key_heads * self.head_dim
    }

    fn value_dim(&self) -> usize {
        self.value_heads * self.head_dim
    }

    /// Numbers that pass through the convolution.
    pub fn channels(&self) -> usize {
        2 * self.key_dim() + self.value_dim()
    }

    /// Numbers that a sequence keeps: the convolution's past, [taps - 1, channels], then a matrix for each head of
    /// values, [value of a head, key of a head].
    pub fn state_floats(&self) -> usize {
        (self.taps - 1) * self.channels() + self.value_dim() * self.head_dim
    }

    /// Numbers for one row.
    pub fn row_floats(&self) -> usize {
        3 * self.channels() + 3 * self.value_dim()
    }

    /// What the layer adds to the residual: [rows, dim] of the normed rows.
    pub fn forward(&self, step: &mut Step<'_, '_>, layer: usize, normed: &[f32]) -> Vec<f32> {
        let mut x = Activations::new(normed, self.out.weight.rows);
        let projected = self.projections().into_iter().map(|linear| linear.forward(&mut x));
        let projected = projected.collect();
        self.out.rows(&self.between(step, layer, projected))
    }

    /// What is multiplied with the normed rows.
    pub fn projections(&self) -> Vec<&Linear> {
        let mut all = match &self.mixed {
            Mixed::Apart { qkv, z } => vec![qkv, z],
            Mixed::Together(all) => vec![all],
        };
        match &self.rates {
            Rates::Apart { beta, alpha } => all.extend([beta, alpha]),
            Rates::Together(both) => all.push(both),
        }
        all
    }

    /// What lies between the projections, each [rows, its dim], and the output's: convolution, recurrence, norm and
    /// gate.  [rows, value dim]
    pub fn between(
        &self,
        step: &mut Step<'_, '_>,
        layer: usize,
        projected: Vec<Vec<f32>>,
    ) -> Vec<f32> {
        let mut inputs = self.inputs(projected);
        let mut out = vec![0f32; step.rows() * self.value_dim()];
        for (rows, state) in step.states(layer) {
            let (past, heads) = state.split_at_mut((self.taps - 1) * self.channels());
            let channels = rows.start * self.channels()..rows.end * self.channels();
            self.convolve(past, &mut inputs.qkv[channels]);
            let values = rows.start * self.value_dim()..rows.end * self.value_dim();
            self.recur(&inputs, rows, heads, &mut out[values]);
        }
        let (weight, hd) = (self.norm.get(), self.head_dim);
        for (head, z) in out.chunks_exact_mut(hd).zip(inputs.z.chunks_exact(hd)) {
            math::rms_norm_in_place(head, weight, self.eps);
            head.iter_mut().zip(z).for_each(|(o, z)| *o *= silu(*z));
        }
        out
    }

    fn inputs(&self, projected: Vec<Vec<f32>>) -> Inputs {
        let (hd, share) = (self.head_dim, self.value_heads / self.key_heads);
        let mut projected = projected.into_iter();
        let mut next = || projected.next().unwrap_or_default();
        let (qkv, z) = match &self.mixed {
            Mixed::Apart { .. } => (next(), next()),
            Mixed::Together(_) => {
                let all = next();
                // Piece `at` of every head of keys, in units of a head's length.
                let group = (2 + 2 * share) * hd;
                let row = self.key_heads * group;
                let take = |to: &mut Vec<f32>, row: &[f32], at: usize, len: usize| {
                    row.chunks_exact(group).for_each(|g| to.extend(&g[at * hd..(at + len) * hd]));
                };
                let (mut qkv, mut z) = (Vec::new(), Vec::new());
                for row in all.chunks_exact(row) {
                    take(&mut qkv, row, 0, 1);
                    take(&mut qkv, row, 1, 1);
                    take(&mut qkv, row, 2, share);
                    take(&mut z, row, 2 + share, share);
                }
                (qkv, z)
            }
        };
        let (mut beta, mut decay) = match &self.rates {
            Rates::Apart { .. } => (next(), next()),
            Rates::Together(_) => {
                let both = next();
                let half = |at: usize| {
                    both.chunks_exact(share)
                        .skip(at)
                        .step_by(2)
                        .flatten()
                        .copied()
                        .collect::<Vec<_>>()
                };
                (half(0), half(1))
            }
        };
        beta.iter_mut().for_each(|b| *b = sigmoid(*b));
        for row in decay.chunks_exact_mut(self.value_heads) {
            for ((alpha, dt), a) in row.iter_mut().zip(self.dt.get()).zip(self.a.get()) {
                *alpha = (math::softplus(*alpha + dt) * a).exp();
            }
        }
        Inputs { qkv, z, beta, decay }
    }

    /// Convolves one sequence's rows over time, in place; `past` becomes that of the last row.  Then queries and keys
    /// are brought to length one.
    fn convolve(&self, past: &mut [f32], rows: &mut [f32]) {
        let (channels, kernel) = (self.channels(), self.conv.get());
        let mut before = past.to_vec();
        before.extend_from_slice(rows);
        for (i, row) in rows.chunks_exact_mut(channels).enumerate() {
            for (c, out) in row.iter_mut().enumerate() {
                let tap = |t: usize| before[(i + t) * channels + c] * kernel[c * self.taps + t];
                *out = silu((0..self.taps).map(tap).sum());
            }
            for head in row[..2 * self.key_dim()].chunks_exact_mut(self.head_dim) {
                math::unit_length(head, self.eps);
            }
        }
        let kept = before.len() - past.len();
        past.copy_from_slice(&before[kept..]);
    }

    /// Runs one sequence's rows through its states; `out` is [rows, value dim].
    fn recur(
        &self,
        inputs: &Inputs,
        rows: std::ops::Range<usize>,
        states: &mut [f32],
        out: &mut [f32],
    ) {
        let (hd, kd, vd) = (self.head_dim, self.key_dim(), self.value_dim());
        let scale = 1.0 / (hd as f32).sqrt();
        let (states, filled) = (Filled::new(states), Filled::new(out));
        let operations = 3 * rows.len() * vd * hd;
        share(self.value_heads, operations, &|head| {
            let key_head = match self.pairing {
                Pairing::Grouped => head / (self.value_heads / self.key_heads),
                Pairing::InTurn => head % self.key_heads,
            };
            // SAFETY: a state of its own.
            let state = unsafe { states.range(head * hd * hd, hd * hd) };
            for (index, row) in rows.clone().enumerate() {
                let qkv = &inputs.qkv[row * self.channels()..(row + 1) * self.channels()];
                let q = &qkv[key_head * hd..(key_head + 1) * hd];
                let k = &qkv[kd + key_head * hd..kd + (key_head + 1) * hd];
                let v = &qkv[2 * kd + head * hd..2 * kd + (head + 1) * hd];
                let at = row * self.value_heads + head;
                // SAFETY: this head of this row is nobody else's.
                let out = unsafe { filled.range(index * vd + head * hd, hd) };
                let (beta, decay) = (inputs.beta[at], inputs.decay[at]);
                learn(state, [q, k, v], beta, decay, scale, out);
            }
        });
    }
}

wide! {
    /// One token through one head's state, [value, key]: it decays, learns, and answers.
    fn learn(state: &mut [f32], qkv: [&[f32]; 3], beta: f32, decay: f32, scale: f32, out: &mut [f32]) {
        let [q, k, v] = qkv;
        for ((line, v), out) in state.chunks_exact_mut(k.len()).zip(v).zip(out) {
            line.iter_mut().for_each(|s| *s *= decay);
            let delta = (v - dot(line, k)) * beta;
            line.iter_mut().zip(k).for_each(|(s, k)| *s += delta * k);
            *out = dot(line, q) * scale;
        }
    }
}
