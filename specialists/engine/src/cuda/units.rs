//! Memory of a device for what sequences keep.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::error;

use super::device::CudaError;
use super::memory::{Buffer, Slice};
use super::queue::Queue;
use crate::kv::Units;

/// Units that were taken once stay, for the next who takes one of their size.
pub(super) struct DeviceUnits {
    /// What is written and copied is in order with what is computed.
    queue: Arc<Queue>,
    unit_bytes: Vec<usize>,
    all: HashMap<u64, Buffer<u8>>,
    /// [sizes], addresses.
    free: Vec<Vec<u64>>,
}

impl DeviceUnits {
    pub fn new(queue: &Arc<Queue>, unit_bytes: Vec<usize>) -> DeviceUnits {
        let free = vec![Vec::new(); unit_bytes.len()];
        DeviceUnits { queue: queue.clone(), unit_bytes, all: HashMap::new(), free }
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
        DeviceUnits::said("clearing", self.queue.clear(unit));
    }

    unsafe fn copy(&mut self, from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: by the caller.
        let (from, to) =
            unsafe { (Slice::<u8>::at(from as u64, bytes), Slice::at(to as u64, bytes)) };
        DeviceUnits::said("copying", self.queue.copy(to, from));
    }
}
