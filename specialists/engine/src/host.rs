//! A step on this machine's processor.

use std::io;
use std::sync::Arc;

use crate::bank::{self, Mapped, Place};
use crate::device::Device;
use crate::kernels::{Activations, matmul};
use crate::kv::{HostUnits, Layout, Units};
use crate::math;
use crate::memory;
use crate::model::Model;
use crate::parts::{Attention, DeltaNet, Dense, Norm, Routed, Shared};
use crate::run::{Rows, Run};
use crate::step::Step;

/// The processor; experts are used where they lie in the file's pages.
pub struct Host;

/// A step under way.
struct Running<'r, 'a, 'b> {
    step: &'r mut Step<'a, 'b>,
    /// What each [`Rows`] stands for.
    rows: Vec<Vec<f32>>,
    /// Those that stand for nothing.
    free: Vec<usize>,
}

impl Device for Host {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn masks_after_softmax(&self) -> bool {
        true
    }

    fn free_memory(&self) -> Option<u64> {
        memory::free()
    }

    fn bring_in_backbone(&self, model: &Model) -> u64 {
        bank::bring_in(model, model.backbone())
    }

    fn place(&self, model: &Arc<Model>) -> Arc<dyn Place> {
        Arc::new(Mapped::new(model.clone()))
    }

    fn units(&self, layout: &Layout, bytes: u64) -> io::Result<Box<dyn Units>> {
        Ok(Box::new(HostUnits::new(&layout.unit_bytes(), bytes)?))
    }

    fn run(
        &self,
        model: &Model,
        step: &mut Step<'_, '_>,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Vec<f32> {
        let dim = model.shape().dim;
        let mut x = vec![0f32; tokens.len() * dim];
        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(dim)) {
            model.embed(token, x);
        }
        let mut run = Running { step, rows: vec![x], free: Vec::new() };
        let x = Rows(0);
        for layer in &model.layers {
            layer.forward(&mut run, &x);
        }
        let x = run.take(x);
        let rows: Vec<f32> =
            wanted.iter().flat_map(|row| &x[row * dim..(row + 1) * dim]).copied().collect();
        model.logits(&rows)
    }
}

impl Running<'_, '_, '_> {
    fn put(&mut self, numbers: Vec<f32>) -> Rows {
        match self.free.pop() {
            Some(free) => {
                self.rows[free] = numbers;
                Rows(free)
            }
            None => {
                self.rows.push(numbers);
                Rows(self.rows.len() - 1)
            }
        }
    }

    fn take(&mut self, rows: Rows) -> Vec<f32> {
        self.free.push(rows.0);
        std::mem::take(&mut self.rows[rows.0])
    }
}

impl Run for Running<'_, '_, '_> {
    fn norm(&mut self, norm: &Norm, x: &Rows) -> Rows {
        let normed = norm.forward(&self.rows[x.0]);
        self.put(normed)
    }

    fn add(&mut self, to: &Rows, from: Rows) {
        let from = self.take(from);
        math::add(&mut self.rows[to.0], &from);
    }

    fn scale(&mut self, x: &Rows, by: f32) {
        self.rows[x.0].iter_mut().for_each(|v| *v *= by);
    }

    fn attention(&mut self, attention: &Attention, normed: Rows) -> Rows {
        let normed = self.take(normed);
        let out = attention.forward(self.step, &normed);
        self.put(out)
    }

    fn delta(&mut self, delta: &DeltaNet, layer: usize, normed: Rows) -> Rows {
        let normed = self.take(normed);
        let out = delta.forward(self.step, layer, &normed);
        self.put(out)
    }

    fn dense(&mut self, dense: &Dense, normed: &Rows) -> Rows {
        let out = dense.forward(&self.rows[normed.0]);
        self.put(out)
    }

    fn routed(&mut self, routed: &Routed, layer: usize, router: &Rows, normed: &Rows) -> Rows {
        let (router, normed) = (&self.rows[router.0], &self.rows[normed.0]);
        let out = routed.forward(self.step, layer, router, normed);
        self.put(out)
    }

    fn shared(&mut self, shared: &Shared, normed: &Rows) -> Rows {
        let out = shared.forward(&self.rows[normed.0]);
        self.put(out)
    }

    fn give_back(&mut self, rows: Rows) {
        let _ = self.take(rows);
    }
}

impl Model {
    /// The row of a token: [dim].
    pub(crate) fn embed(&self, token: u32, out: &mut [f32]) {
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
        self.bend(&normed, &mut logits);
        logits
    }

    /// Makes logits of products, [rows, vocab], with normed rows.
    pub(crate) fn bend(&self, normed: &[f32], logits: &mut [f32]) {
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
    }
}
