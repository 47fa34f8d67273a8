//! Experts in slots of a device's own memory: the same bank, another [`Place`].
//!
//! A slot holds one expert, its slices one after the other.  Where slots come from and how bytes get to them is a
//! [`DeviceMemory`]'s to know; kernels of the device find an expert by [`Arena::slot_of`].
//!
//! A step reads where experts are at its start.  While it runs ([`Arena::hold`]) slots that are given back are not taken
//! again, so that what it was told stays true.
//!
//! With the feature `cuda` the memory is a `cuda::Slots`; [`HostMemory`] stands in for a device, so that bank, pool and
//! account can be tried with slots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::place::{Place, Residents};
use super::sizes::Sizes;
use crate::model::Model;

/// Where slices begin within a slot, bytes: what wide loads of a device want.
const ALIGN: usize = 256;

/// Memory of a device.
pub trait DeviceMemory: Send {
    /// Sets bytes aside; where they begin.  `None` if there are none left.
    fn reserve(&mut self, bytes: usize) -> Option<usize>;

    /// Takes back what begins there; nothing that was asked for still reads it.
    fn release(&mut self, at: usize);

    /// Copies bytes to a place that was reserved.
    fn copy_in(&mut self, at: usize, bytes: &[u8]);

    /// Bytes set aside and not taken back, as the device counts them.
    fn reserved(&self) -> u64;
}

/// Slots for the experts of one parent.
pub struct Arena<M> {
    model: Arc<Model>,
    sizes: Arc<Sizes>,
    /// [layers], bytes of a slot.
    bytes_of: Vec<usize>,
    slots: Mutex<Slots<M>>,
}

struct Slots<M> {
    memory: M,
    /// [experts], where its slot begins.
    taken: Vec<Option<usize>>,
    /// Steps that run.
    holds: usize,
    /// Slots that were given back while steps ran.
    leaving: Vec<usize>,
}

/// While it is there, slots that are given back keep what they hold.
#[must_use = "dropping it ends the hold"]
pub struct Hold<'a, M: DeviceMemory>(&'a Arena<M>);

impl<M: DeviceMemory> Drop for Hold<'_, M> {
    fn drop(&mut self) {
        let mut slots = self.0.slots();
        slots.holds -= 1;
        if slots.holds == 0 {
            for slot in std::mem::take(&mut slots.leaving) {
                slots.memory.release(slot);
            }
        }
    }
}

impl<M: DeviceMemory> Arena<M> {
    /// No slot is taken yet.
    pub fn new(model: &Arc<Model>, memory: M) -> Arena<M> {
        let (layers, experts) = (model.shape().layers, model.shape().experts);
        let slot = |layer: usize| -> usize {
            let first = model.experts(layer).first();
            let slices = first.into_iter().flat_map(|e| &e.slices);
            slices.map(|s| s.bytes().len().next_multiple_of(ALIGN)).sum()
        };
        let bytes_of: Vec<usize> = (0..layers).map(slot).collect();
        let sizes = bytes_of.iter().map(|b| *b as u64).collect::<Vec<_>>();
        Arena {
            model: model.clone(),
            sizes: Arc::new(Sizes::uniform(experts, &sizes)),
            bytes_of,
            slots: Mutex::new(Slots {
                memory,
                taken: vec![None; layers * experts],
                holds: 0,
                leaving: Vec::new(),
            }),
        }
    }

    /// Where an expert's slot begins; `None` while it is not resident.
    pub fn slot_of(&self, layer: usize, expert: usize) -> Option<usize> {
        self.slots().taken[layer * self.sizes.experts() + expert]
    }

    /// Where all slots begin, [layers * experts]; zero while an expert is not resident.
    pub fn table(&self) -> Vec<u64> {
        self.slots().taken.iter().map(|slot| slot.map_or(0, |slot| slot as u64)).collect()
    }

    /// Where the slices of an expert begin within its slot, and bytes of the slot.
    pub fn offsets(&self, layer: usize) -> (Vec<usize>, usize) {
        let mut bytes = 0;
        let first = self.model.experts(layer).first();
        let slices = first.into_iter().flat_map(|e| &e.slices).map(|slice| {
            let at = bytes;
            bytes += slice.bytes().len().next_multiple_of(ALIGN);
            at
        });
        (slices.collect(), bytes)
    }

    /// A step begins, and ends when what this gives is dropped.
    pub fn hold(&self) -> Hold<'_, M> {
        self.slots().holds += 1;
        Hold(self)
    }

    /// Looks at the memory.
    pub fn memory<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.slots().memory)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots<M>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: DeviceMemory> Place for Arena<M> {
    fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    fn bring_in(&self, expert: usize) -> bool {
        let (layer, e) = (expert / self.sizes.experts(), expert % self.sizes.experts());
        let mut slots = self.slots();
        if slots.taken[expert].is_some() {
            return true;
        }
        let Some(slot) = slots.memory.reserve(self.bytes_of[layer]) else { return false };
        let mut at = slot;
        for slice in &self.model.experts(layer)[e].slices {
            slots.memory.copy_in(at, slice.bytes());
            at += slice.bytes().len().next_multiple_of(ALIGN);
        }
        slots.taken[expert] = Some(slot);
        true
    }

    fn give_back(&self, expert: usize, _: &Residents) {
        let mut slots = self.slots();
        if let Some(slot) = slots.taken[expert].take() {
            match slots.holds {
                0 => slots.memory.release(slot),
                _ => slots.leaving.push(slot),
            }
        }
    }

    /// What is computed elsewhere takes nothing here.
    fn tidy(&self, _: Option<usize>, _: &Residents) {}

    /// What the device has set aside.
    fn reported_bytes(&self) -> Option<u64> {
        Some(self.slots().memory.reserved())
    }
}

/// Memory of this machine in a device's stead.
pub struct HostMemory {
    bytes: Vec<u8>,
    /// Where slots begin, and their lengths; which of them are free.
    slots: BTreeMap<usize, usize>,
    free: BTreeSet<usize>,
    most: usize,
}

impl HostMemory {
    /// Of so many bytes.
    pub fn new(most: usize) -> HostMemory {
        HostMemory { bytes: Vec::new(), slots: BTreeMap::new(), free: BTreeSet::new(), most }
    }

    /// What lies at a place.
    pub fn at(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..at + len]
    }
}

impl DeviceMemory for HostMemory {
    fn reserve(&mut self, bytes: usize) -> Option<usize> {
        if let Some(&at) = self.free.iter().find(|at| self.slots[at] == bytes) {
            self.free.remove(&at);
            return Some(at);
        }
        let at = self.bytes.len();
        (at + bytes <= self.most).then(|| {
            self.bytes.resize(at + bytes, 0);
            self.slots.insert(at, bytes);
            at
        })
    }

    fn release(&mut self, at: usize) {
        self.free.insert(at);
    }

    fn copy_in(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn reserved(&self) -> u64 {
        let free: usize = self.free.iter().map(|at| self.slots[at]).sum();
        (self.bytes.len() - free) as u64
    }
}
