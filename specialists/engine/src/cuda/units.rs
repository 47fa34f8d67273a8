//! Memory of a device for what sequences keep.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::error;

use super::device::{CudaError, Device};
use super::memory::{Buffer, Slice};
use super::queue::Queue;
use crate::kv::Units;

/// Units that were taken once stay, for the next who takes one of their size.
pub(super) struct DeviceUnits {
    /// Of its own, and waited for: steps, which others may be recording, end with a wait too.
    queue: Queue,
    unit_bytes: Vec<usize>,
    all: HashMap<u64, Buffer<u8>>,
    /// [sizes], addresses.
    free: Vec<Vec<u64>>,
}

impl DeviceUnits {
    pub fn new(device: &Arc<Device>, unit_bytes: Vec<usize>) -> Result<DeviceUnits, CudaError> {
        let free = vec![Vec::new(); unit_bytes.len()];
        Ok(DeviceUnits { queue: Queue::new(device)?, unit_bytes, all: HashMap::new(), free })
    }

    /// A device that fails here fails in the step that reads the unit too, which says so to whom it concerns.
    fn said(what: &str, result: Result<(), CudaError>) {
        if let Err(why) = result {
            error!(%why, "{what} of keys and values failed");
        }
    }
}

impl Units for DeviceUnits {
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        if let Some(free) = self.free[size].pop() {
            return Some(free as *mut u8);
        }
        let unit = Buffer::new(self.queue.device(), self.unit_bytes[size]).ok()?;
        let address = unit.slice().address();
        self.all.insert(address, unit);
        Some(address as *mut u8)
    }

    fn give_back(&mut self, size: usize, start: *mut u8) {
        self.free[size].push(start as u64);
    }

    unsafe fn zero(&mut self, start: *mut u8, bytes: usize) {
        // SAFETY: by the caller.
        let unit = unsafe { Slice::<u8>::at(start as u64, bytes) };
        DeviceUnits::said("clearing", self.queue.clear(unit).and_then(|()| self.queue.wait()));
    }

    unsafe fn copy(&mut self, from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: by the caller.
        let (from, to) =
            unsafe { (Slice::<u8>::at(from as u64, bytes), Slice::at(to as u64, bytes)) };
        DeviceUnits::said("copying", self.queue.copy(to, from).and_then(|()| self.queue.wait()));
    }
}
