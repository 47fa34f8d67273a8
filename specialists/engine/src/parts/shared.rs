//! The expert that every token takes beside the routed ones.

use super::dense::Dense;
use super::routed::{Expert, Routed};
use crate::kernels::{dot_f32, sigmoid};
use crate::run::{Rows, Run};
use crate::vector::Vector;

pub(crate) struct Shared {
    pub dense: Dense,
    /// [dim], of the gate whose sigmoid multiplies its output.
    pub gate: Vector,
}

/// Routed experts and, if the file has one, a shared one.
pub(crate) struct Mixture {
    pub routed: Routed,
    pub shared: Option<Shared>,
}

impl Shared {
    /// What it adds to the residual: [rows, dim] of the normed rows.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = self.dense.forward(x);
        let gate = self.gate.get();
        for (out, x) in out.chunks_exact_mut(gate.len()).zip(x.chunks_exact(gate.len())) {
            let open = sigmoid(dot_f32(gate, x));
            out.iter_mut().for_each(|v| *v *= open);
        }
        out
    }
}

impl Mixture {
    /// What the layer adds to the residual, of normed rows.
    pub fn run(&self, run: &mut dyn Run, layer: usize, normed: Rows) -> Rows {
        let out = run.routed(&self.routed, layer, &normed, &normed);
        if let Some(shared) = &self.shared {
            let shared = run.shared(shared, &normed);
            run.add(&out, shared);
        }
        run.give_back(normed);
        out
    }

    /// Numbers for one row.
    pub fn row_floats(&self) -> usize {
        self.routed.row_floats() + self.shared.as_ref().map_or(0, |s| s.dense.row_floats())
    }

    pub fn experts(&self) -> &[Expert] {
        &self.routed.experts
    }
}
