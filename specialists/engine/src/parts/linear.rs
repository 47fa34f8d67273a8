//! A matrix with an optional bias, and the norm before it.

use crate::kernels::{Activations, Matrix, matmul};
use crate::math;
use crate::vector::Vector;

/// `y = W x + b`
pub(crate) struct Linear {
    /// [out, in]
    pub weight: Matrix,
    /// [out]
    pub bias: Option<Vector>,
}

impl Linear {
    /// [rows, out]
    pub fn forward(&self, x: &mut Activations<'_>) -> Vec<f32> {
        let mut out = vec![0f32; x.rows() * self.weight.rows];
        matmul(&self.weight, x, &mut out);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(self.weight.rows).for_each(|row| add(row, bias.get()));
        }
        out
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Vector::get)
    }

    /// The same for rows that only this matrix reads.
    pub fn rows(&self, x: &[f32]) -> Vec<f32> {
        self.forward(&mut Activations::new(x, self.weight.k))
    }
}

/// `to += from`, number by number.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
}

/// RMS norm of whole rows.
pub(crate) struct Norm {
    /// [dim]
    pub weight: Vector,
    pub eps: f32,
}

impl Norm {
    /// [rows, dim] of the same.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0f32; x.len()];
        let weight = self.weight.get();
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            math::rms_norm(x, weight, self.eps, out);
        }
        out
    }
}
