//! A matrix with an optional bias, and the norm before it.

use crate::kernels::{Activations, Filled, Job, Matrix, Product, compute, share};
use crate::math::{self, add};
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
        together(&[self], x).swap_remove(0)
    }

    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().map(Vector::get)
    }

    /// The same for rows that only this matrix reads.
    pub fn rows(&self, x: &[f32]) -> Vec<f32> {
        self.forward(&mut Activations::new(x, self.weight.k))
    }
}

/// What several give of the same rows, each [rows, out]; computed at once.
pub(crate) fn together(of: &[&Linear], x: &mut Activations<'_>) -> Vec<Vec<f32>> {
    of.iter().for_each(|linear| x.prepare_for(&linear.weight));
    let room = |linear: &&Linear| vec![0f32; x.rows() * linear.weight.rows];
    let mut outs: Vec<Vec<f32>> = of.iter().map(room).collect();
    compute(
        of.iter().zip(&mut outs).map(|(linear, out)| {
            Job::Product(Product { w: &linear.weight, x, picks: x.all(), out })
        }),
    );
    for (linear, out) in of.iter().zip(&mut outs) {
        if let Some(bias) = linear.bias() {
            out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
    }
    outs
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
        let (weight, filled) = (self.weight.get(), Filled::new(&mut out));
        let dim = weight.len();
        share(x.len() / dim, x.len(), &|row| {
            // SAFETY: a row of its own.
            let out = unsafe { filled.range(row * dim, dim) };
            math::rms_norm(&x[row * dim..(row + 1) * dim], weight, self.eps, out);
        });
        out
    }
}
