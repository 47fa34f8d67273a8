//! A step on a device of candle: Apple's GPUs, or the processor to try the same code on.
//!
//! Products, norms and gates are candle's, of weights that are made on the device once (`weights`): the backbone
//! when a bank opens (`backbone`), experts as they become resident (`place`).  What lies between the projections of
//! attention and of delta nets, and the choice of experts, is the host's (`running`), as are keys and values: memory is
//! one there.  So a step waits for the device once for attention and once for the router of each layer.
//!
//! What candle cannot hold stays with the host's kernels, matrix by matrix and expert by expert.  A step that fails
//! gives logits that are no numbers, which no sequence goes on from, and says why in the log.
//!
//! The promise is weaker than the host's: a row's numbers depend on the rows beside it, and on which experts are there,
//! but only as rounding goes.
//!
//! Absent: kernels of our own.  To hold another format start in `weights`.

mod backbone;
mod place;
mod running;
mod weights;

use std::io;
use std::sync::{Arc, OnceLock};

use candle_core as candle;

use crate::bank::{self, Place};
use crate::device::Device;
use crate::kv::{HostUnits, Layout, Units};
use crate::memory;
use crate::model::Model;
use crate::step::Step;
use backbone::Backbone;
use place::Experts;
use running::Running;

/// A device of candle with one parent, for one bank.
pub struct Candle {
    device: candle::Device,
    model: Arc<Model>,
    /// Made when a bank asks for it.
    backbone: OnceLock<Backbone>,
    experts: Arc<Experts>,
}

impl Candle {
    /// The processor, by candle's kernels: for tests.
    pub fn processor(model: &Arc<Model>) -> Candle {
        Candle::on(candle::Device::Cpu, model)
    }

    /// Apple's first GPU.
    ///
    /// # Errors
    ///
    /// Why there is none, in candle's words.
    #[cfg(all(feature = "metal", target_os = "macos"))]
    pub fn metal(model: &Arc<Model>) -> Result<Candle, String> {
        // Candle takes the first of a list without looking whether there is one, as on a machine without a screen.
        let opened = std::panic::catch_unwind(|| candle::Device::new_metal(0));
        let device = opened.map_err(|_| "this machine shows no such device".to_owned())?;
        Ok(Candle::on(device.map_err(|error| error.to_string())?, model))
    }

    fn on(device: candle::Device, model: &Arc<Model>) -> Candle {
        let experts = Arc::new(Experts::new(&device, model));
        Candle { device, model: model.clone(), backbone: OnceLock::new(), experts }
    }

    fn backbone(&self) -> &Backbone {
        self.backbone.get_or_init(|| Backbone::new(&self.device, &self.model))
    }
}

impl Device for Candle {
    fn name(&self) -> String {
        if self.device.is_metal() { "metal" } else { "candle" }.into()
    }

    fn free_memory(&self) -> Option<u64> {
        #[cfg(all(feature = "metal", target_os = "macos"))]
        if let Ok(metal) = self.device.as_metal_device() {
            let metal = metal.metal_device();
            let (most, taken) =
                (metal.recommended_max_working_set_size(), metal.current_allocated_size());
            return Some(most.saturating_sub(taken) as u64);
        }
        memory::free()
    }

    /// What the device holds, and what is still read from the file: the embedding, and what stays with the host.
    fn bring_in_backbone(&self, model: &Model) -> u64 {
        let backbone = self.backbone();
        let embedding = model.embedding.bytes().as_ptr();
        let stays = |data: &&[u8]| data.as_ptr() == embedding || !backbone.holds(data.as_ptr());
        backbone.bytes() + bank::bring_in(model, model.backbone().filter(stays))
    }

    fn place(&self, model: &Arc<Model>) -> Arc<dyn Place> {
        debug_assert!(Arc::ptr_eq(model, &self.model), "a device is opened for one parent");
        self.experts.clone()
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
        let running = Running::new(&self.device, self.backbone(), &self.experts, step);
        running.run(model, tokens, wanted).unwrap_or_else(|error| {
            tracing::error!(device = self.name(), %error, "a step failed");
            vec![f32::NAN; wanted.len() * model.shape().vocab]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::gguf::Gguf;
    use crate::session::Session;

    fn logits(device: Arc<dyn Device>, model: &Arc<Model>) -> Vec<f32> {
        let bank = Bank::on(device, model);
        Session::new(model, &bank, 8).unwrap().logits(&[300, 5, 77, 4000, 1234], None)
    }

    fn with(model: &Arc<Model>, backbone: Backbone) -> Arc<Candle> {
        let candle = Candle::processor(model);
        assert!(candle.backbone.set(backbone).is_ok());
        Arc::new(candle)
    }

    #[test]
    fn what_the_device_does_not_hold_is_the_hosts() {
        let model = Model::load(Gguf::nano().unwrap()).unwrap();
        let want = logits(Arc::new(crate::Host), &model);
        let got = logits(with(&model, Backbone::default()), &model);
        let largest = want.iter().fold(0f32, |most, v| most.max(v.abs()));
        let apart = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(apart < 0.02 * largest, "{apart} of {largest}");
    }

    #[test]
    fn a_step_that_fails_gives_no_numbers() {
        let model = Model::load(Gguf::nano().unwrap()).unwrap();
        let mut backbone = Backbone::new(&candle::Device::Cpu, &model);
        backbone.spoil(model.output_norm.weight.get());
        assert!(logits(with(&model, backbone), &model).iter().all(|logit| logit.is_nan()));
    }
}
