//! Memory for the bank's slots of experts: copied in from pinned memory by a queue of its own, beside what is computed.
//!
//! Slots of one size lie in chunks, and one that was released is the next one taken of its size, so that memory never
//! breaks into pieces; a chunk without slots in use goes back to the device.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::device::{CudaError, Device};
use super::memory::{Buffer, Pinned, Slice};
use super::queue::{Mark, Queue};
use crate::bank::DeviceMemory;

/// Bytes that are set aside at once: slots are small, and allocations are not cheap.
const CHUNK: usize = 32 << 20;
/// Bytes that are copied at once: long enough for the bus, short enough that filling one hides behind copying another.
const PIECE: usize = 4 << 20;
/// Pieces on their way.
const PIECES: usize = 3;
/// Where slots begin.
const ALIGN: usize = 256;

/// Memory of at most so many bytes on a device.  Slots are addresses there.
///
/// A slot may be written again while kernels that were asked for still read what was there: copies wait for what the
/// computing queue was asked to do before them.  What is computed waits for copies by [`Slots::arrived`].
pub struct Slots {
    device: Arc<Device>,
    computing: Arc<Queue>,
    copying: Queue,
    /// By where they begin.
    chunks: BTreeMap<usize, Chunk>,
    most: usize,
    /// Bytes in chunks, and bytes of slots in use.
    taken: usize,
    reserved: usize,
    /// The one that was used longest ago first.
    pieces: VecDeque<(Pinned<u8>, Mark)>,
    computed: Mark,
    copied: Mark,
    /// The first error of a copy, which could not be told then.
    failed: Cell<Option<CudaError>>,
}

/// Memory in slots of one size.
struct Chunk {
    memory: Buffer<u8>,
    /// Bytes of a slot.
    slot: usize,
    slots: usize,
    /// Where free slots begin.
    free: Vec<usize>,
}

impl Slots {
    /// No byte is set aside yet.
    pub fn new(computing: &Arc<Queue>, most: usize) -> Result<Slots, CudaError> {
        let device = computing.device().clone();
        let piece = |_| Ok((Pinned::new(&device, PIECE)?, Mark::new(&device)?));
        Ok(Slots {
            computing: computing.clone(),
            copying: Queue::new(&device)?,
            chunks: BTreeMap::new(),
            most,
            taken: 0,
            reserved: 0,
            pieces: (0..PIECES).map(piece).collect::<Result<_, CudaError>>()?,
            computed: Mark::new(&device)?,
            copied: Mark::new(&device)?,
            failed: Cell::new(None),
            device,
        })
    }

    /// What the computing queue is asked from here on waits for all copies so far.  Not while it records.
    ///
    /// # Errors
    ///
    /// The first that a copy met.
    pub fn arrived(&self) -> Result<(), CudaError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.computing.after(&self.copied)
    }

    /// Bytes that the device has given.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// A slot of a new chunk.
    fn set_aside(&mut self, slot: usize) -> Option<usize> {
        // Near the end a chunk is as many slots as there is room for.
        let slots = CHUNK.min(self.most - self.taken).max(slot) / slot;
        if self.taken + slots * slot > self.most {
            return None;
        }
        let memory = Buffer::new(&self.device, slots * slot).ok()?;
        let start = memory.slice().address() as usize;
        let mut free: Vec<usize> = (0..slots).rev().map(|i| start + i * slot).collect();
        let at = free.pop();
        self.taken += slots * slot;
        self.chunks.insert(start, Chunk { memory, slot, slots, free });
        at
    }

    fn copy(&mut self, at: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.computing.mark(&self.computed)?;
        self.copying.after(&self.computed)?;
        for (i, some) in bytes.chunks(PIECE).enumerate() {
            let Some((mut piece, mark)) = self.pieces.pop_front() else { break };
            let to = at + (i * PIECE) as u64;
            let asked = mark.wait().and_then(|()| {
                piece[..some.len()].copy_from_slice(some);
                // SAFETY: a slot was reserved there; the piece is not touched before its mark is passed.
                unsafe {
                    let to = Slice::at(to, some.len());
                    self.copying.write_pinned(to, &piece, some.len())?;
                }
                self.copying.mark(&mark)
            });
            self.pieces.push_back((piece, mark));
            asked?;
        }
        self.copying.mark(&self.copied)
    }
}

impl DeviceMemory for Slots {
    fn reserve(&mut self, bytes: usize) -> Option<usize> {
        let slot = bytes.next_multiple_of(ALIGN);
        let mut chunks = self.chunks.values_mut();
        let at = match chunks.find(|chunk| chunk.slot == slot && !chunk.free.is_empty()) {
            Some(chunk) => chunk.free.pop(),
            None => self.set_aside(slot),
        }?;
        self.reserved += slot;
        Some(at)
    }

    fn release(&mut self, at: usize) {
        let Some((&start, chunk)) = self.chunks.range_mut(..=at).next_back() else { return };
        chunk.free.push(at);
        self.reserved -= chunk.slot;
        if chunk.free.len() == chunk.slots {
            self.taken -= chunk.memory.slice().len();
            // Kernels and copies on their way are waited for.
            self.chunks.remove(&start);
        }
    }

    fn copy_in(&mut self, at: usize, bytes: &[u8]) {
        if let Err(error) = self.copy(at as u64, bytes) {
            self.failed.get_mut().get_or_insert(error);
        }
    }

    fn reserved(&self) -> u64 {
        self.reserved as u64
    }
}
