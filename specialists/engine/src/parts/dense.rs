//! The feed-forward layer that every token takes.

use super::linear::Linear;
use crate::kernels::{Activation, Activations, Gated, Job, compute};

/// `down(act(gate(x), up(x)))`
pub(crate) struct Dense {
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
    pub activation: Activation,
}

impl Dense {
    /// Numbers for one row.
    pub fn row_floats(&self) -> usize {
        2 * self.up.weight.rows + self.down.weight.rows
    }

    /// `x` and the result are [rows, dim].
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut x = Activations::new(x, self.gate.weight.k);
        x.prepare_for(&self.gate.weight);
        x.prepare_for(&self.up.weight);
        let mut out = vec![0f32; x.rows() * self.gate.weight.rows];
        compute([Job::Gated(Gated {
            w: [&self.gate.weight, &self.up.weight],
            bias: [self.gate.bias(), self.up.bias()],
            activation: self.activation,
            x: &x,
            picks: x.all(),
            out: &mut out,
        })]);
        self.down.rows(&out)
    }
}
