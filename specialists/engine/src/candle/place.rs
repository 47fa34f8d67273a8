//! Routed experts on a device of candle: resident is what has its matrices there.
//!
//! The rest is computed by the host from the file, whose pages then go back: none of them count as resident.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use candle::{Device, Result, Tensor};
use candle_core as candle;

use super::weights::{self, Product, activate};
use crate::bank::{Mapped, Place, Residents, Sizes};
use crate::kernels::Activation;
use crate::model::Model;
use crate::parts;

/// One routed expert on the device.
pub(super) struct Expert {
    gate: Product,
    up: Product,
    down: Product,
    /// As in the parent.
    bias: [Option<Tensor>; 3],
    scale: Option<f32>,
}

/// The experts of a parent.
pub(super) struct Experts {
    device: Device,
    model: Arc<Model>,
    sizes: Arc<Sizes>,
    /// The file, in which none is resident.
    mapped: Mapped,
    nobody: Residents,
    /// [layers * experts]
    held: Vec<RwLock<Option<Arc<Expert>>>>,
    /// That those take.
    bytes: AtomicU64,
    /// Somebody was told that one could not be made.
    told: AtomicBool,
}

/// Bytes of an expert on a device.
fn bytes(expert: &parts::Expert) -> u64 {
    let biases = expert.bias.iter().flatten().map(|bias| size_of_val(&bias[..]) as u64);
    [&expert.gate, &expert.up, &expert.down].map(weights::bytes).into_iter().chain(biases).sum()
}

impl Expert {
    fn new(device: &Device, expert: &parts::Expert) -> Result<Expert> {
        let [gate, up, down] =
            [&expert.gate, &expert.up, &expert.down].map(|matrix| Product::new(device, matrix));
        let bias = expert
            .bias
            .each_ref()
            .map(|bias| bias.as_ref().map(|numbers| Tensor::new(&numbers[..], device)).transpose());
        let [a, b, c] = bias;
        let (bias, scale) = ([a?, b?, c?], expert.scale);
        Ok(Expert { gate: gate?, up: up?, down: down?, bias, scale })
    }

    fn bytes(&self) -> u64 {
        let biases = self.bias.iter().flatten().map(|b| (b.elem_count() * size_of::<f32>()) as u64);
        [&self.gate, &self.up, &self.down]
            .map(|product| product.bytes)
            .into_iter()
            .chain(biases)
            .sum()
    }

    /// What it makes of rows, [rows, dim].
    pub fn forward(&self, activation: Activation, x: &Tensor) -> Result<Tensor> {
        let with = |product: &Product, bias: &Option<Tensor>, x: &Tensor| match bias {
            Some(bias) => product.forward(x)?.broadcast_add(bias),
            None => product.forward(x),
        };
        let [gate, up, down] = &self.bias;
        let (gate, up) = (with(&self.gate, gate, x)?, with(&self.up, up, x)?);
        let out = self.down.forward(&activate(activation, gate, up)?)?;
        let out = match self.scale {
            Some(scale) => (out * f64::from(scale))?,
            None => out,
        };
        match down {
            Some(bias) => out.broadcast_add(bias),
            None => Ok(out),
        }
    }
}

impl Experts {
    pub fn new(device: &Device, model: &Arc<Model>) -> Experts {
        let (layers, experts) = (model.shape().layers, model.shape().experts);
        let by_layer: Vec<u64> =
            (0..layers).map(|layer| model.experts(layer).first().map_or(0, bytes)).collect();
        Experts {
            device: device.clone(),
            sizes: Arc::new(Sizes::uniform(experts, &by_layer)),
            mapped: Mapped::new(model.clone()),
            nobody: Residents::new(layers, experts),
            held: (0..layers * experts).map(|_| RwLock::new(None)).collect(),
            bytes: AtomicU64::new(0),
            told: AtomicBool::new(false),
            model: model.clone(),
        }
    }

    /// It stays for as long as somebody has it; `None` while it is not resident.
    pub fn get(&self, layer: usize, expert: usize) -> Option<Arc<Expert>> {
        let held = &self.held[layer * self.sizes.experts() + expert];
        held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, expert: usize, by: Option<Arc<Expert>>) {
        let mut held = self.held[expert].write().unwrap_or_else(PoisonError::into_inner);
        let bytes = |of: &Option<Arc<Expert>>| of.as_ref().map_or(0, |expert| expert.bytes());
        self.bytes.fetch_add(bytes(&by), Ordering::Relaxed);
        self.bytes.fetch_sub(bytes(&held), Ordering::Relaxed);
        *held = by;
    }
}

impl Place for Experts {
    fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    fn bring_in(&self, expert: usize) -> bool {
        let (layer, e) = (expert / self.sizes.experts(), expert % self.sizes.experts());
        if self.get(layer, e).is_some() {
            return true;
        }
        let made = Expert::new(&self.device, &self.model.experts(layer)[e]);
        self.mapped.give_back(expert, &self.nobody);
        match made {
            Ok(made) => self.replace(expert, Some(Arc::new(made))),
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(layer, expert = e, %error, "the processor computes experts that the device cannot hold");
                }
                return false;
            }
        }
        true
    }

    fn give_back(&self, expert: usize, _: &Residents) {
        self.replace(expert, None);
    }

    fn tidy(&self, layer: Option<usize>, _: &Residents) {
        self.mapped.tidy(layer, &self.nobody);
    }

    /// What the device holds, and what is mapped of the file although nobody counts on it.
    fn reported_bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed) + self.mapped.reported_bytes().unwrap_or(0))
    }
}
