//! All of a parent but its routed experts, on a device of candle.
//!
//! What there is is found by running the layers without numbers: a [`Run`] that writes down what it would multiply.

use std::collections::HashMap;

use candle::{Device, Tensor};
use candle_core as candle;

use super::weights::Product;
use crate::kernels::Matrix;
use crate::model::Model;
use crate::parts::{Attention, DeltaNet, Dense, Linear, Norm, Routed, Shared};
use crate::run::{Rows, Run};
use crate::vector::Vector;

/// Matrices and vectors by the address that they have in the parent, which outlives them.
#[derive(Default)]
pub(super) struct Backbone {
    matrices: HashMap<*const u8, Product>,
    vectors: HashMap<*const f32, Tensor>,
}

// SAFETY: addresses are compared, never read through.
unsafe impl Send for Backbone {}
// SAFETY: as above.
unsafe impl Sync for Backbone {}

impl Backbone {
    /// What the device has no memory for stays with the host.
    pub fn new(device: &Device, model: &Model) -> Backbone {
        let mut all = Listed::default();
        model.layers.iter().for_each(|layer| layer.forward(&mut all, &Rows(0)));
        all.matrices.push(model.output.clone());
        all.vectors.push(model.output_norm.weight.clone());
        let mut backbone = Backbone::default();
        let (mut without, mut why) = (0, None);
        for matrix in all.matrices {
            match Product::new(device, &matrix) {
                Ok(product) => {
                    backbone.matrices.insert(matrix.bytes().as_ptr(), product);
                }
                Err(error) => (without, why) = (without + 1, Some(error)),
            }
        }
        for vector in all.vectors {
            // One that is not there is copied whenever it is needed.
            let numbers = vector.get();
            if let Ok(tensor) = Tensor::new(numbers, device) {
                backbone.vectors.insert(numbers.as_ptr(), tensor);
            }
        }
        if let Some(error) = why {
            tracing::warn!(matrices = without, %error, "the processor multiplies with what the device cannot hold");
        }
        backbone
    }

    /// `None`: the host multiplies with it.
    pub fn matrix(&self, matrix: &Matrix) -> Option<&Product> {
        self.matrices.get(&matrix.bytes().as_ptr())
    }

    pub fn vector(&self, numbers: &[f32]) -> Option<&Tensor> {
        self.vectors.get(&numbers.as_ptr())
    }

    /// Makes a vector one that fits nothing.
    #[cfg(test)]
    pub fn spoil(&mut self, numbers: &[f32]) {
        let vector = Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu).expect("candle's processor");
        self.vectors.insert(numbers.as_ptr(), vector);
    }

    /// Whether it holds the matrix at an address.
    pub fn holds(&self, address: *const u8) -> bool {
        self.matrices.contains_key(&address)
    }

    /// Bytes that it takes on the device.
    pub fn bytes(&self) -> u64 {
        let vectors = self.vectors.values().map(|v| (v.elem_count() * size_of::<f32>()) as u64);
        self.matrices.values().map(|product| product.bytes).chain(vectors).sum()
    }
}

/// What layers would multiply with.
#[derive(Default)]
struct Listed {
    matrices: Vec<Matrix>,
    vectors: Vec<Vector>,
}

impl Listed {
    fn linear(&mut self, linear: &Linear) {
        self.matrices.push(linear.weight.clone());
        self.vectors.extend(linear.bias.clone());
    }

    fn dense(&mut self, dense: &Dense) {
        [&dense.gate, &dense.up, &dense.down].into_iter().for_each(|l| self.linear(l));
    }
}

impl Run for Listed {
    fn norm(&mut self, norm: &Norm, _: &Rows) -> Rows {
        self.vectors.push(norm.weight.clone());
        Rows(0)
    }

    fn add(&mut self, _: &Rows, _: Rows) {}

    fn scale(&mut self, _: &Rows, _: f32) {}

    fn attention(&mut self, attention: &Attention, _: Rows) -> Rows {
        attention.projections().into_iter().chain([&attention.o]).for_each(|l| self.linear(l));
        Rows(0)
    }

    fn delta(&mut self, delta: &DeltaNet, _: usize, _: Rows) -> Rows {
        delta.projections().into_iter().chain([&delta.out]).for_each(|l| self.linear(l));
        Rows(0)
    }

    fn dense(&mut self, dense: &Dense, _: &Rows) -> Rows {
        Listed::dense(self, dense);
        Rows(0)
    }

    fn routed(&mut self, routed: &Routed, _: usize, _: &Rows, _: &Rows) -> Rows {
        self.linear(&routed.router);
        Rows(0)
    }

    fn shared(&mut self, shared: &Shared, _: &Rows) -> Rows {
        Listed::dense(self, &shared.dense);
        self.vectors.push(shared.gate.clone());
        Rows(0)
    }

    fn give_back(&mut self, _: Rows) {}
}
