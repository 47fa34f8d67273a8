//! Memory for the bank's slots of experts: copied in from pinned memory by a queue of its own, beside what is computed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use super::device::{CudaError, Device};
use super::memory::{Buffer, Pinned, Slice};
use super::queue::{Mark, Queue};
use crate::bank::DeviceMemory;

/// Bytes that are set aside at once: slots are small, and allocations are not cheap.
const CHUNK: usize = 64 << 20;
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
    chunks: Vec<Buffer<u8>>,
    /// What is left of the last chunk: where, and bytes.
    rest: (u64, usize),
    most: usize,
    /// Bytes in chunks, and bytes of slots.
    taken: usize,
    reserved: usize,
    /// The one that was used longest ago first.
    pieces: VecDeque<(Pinned<u8>, Mark)>,
    computed: Mark,
    copied: Mark,
    /// The first error of a copy, which could not be told then.
    failed: Cell<Option<CudaError>>,
}

impl Slots {
    /// No byte is set aside yet.
    pub fn new(computing: &Arc<Queue>, most: usize) -> Result<Slots, CudaError> {
        let device = computing.device().clone();
        let piece = |_| Ok((Pinned::new(&device, PIECE)?, Mark::new(&device)?));
        Ok(Slots {
            computing: computing.clone(),
            copying: Queue::new(&device)?,
            chunks: Vec::new(),
            rest: (0, 0),
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
        let bytes = bytes.next_multiple_of(ALIGN);
        if self.rest.1 < bytes {
            // What is left of the old chunk is less than a slot.
            let chunk = CHUNK.min(self.most - self.taken).max(bytes);
            if self.taken + chunk > self.most {
                return None;
            }
            let buffer = Buffer::new(&self.device, chunk).ok()?;
            self.rest = (buffer.slice().address(), chunk);
            self.taken += chunk;
            self.chunks.push(buffer);
        }
        let (at, left) = self.rest;
        self.rest = (at + bytes as u64, left - bytes);
        self.reserved += bytes;
        Some(at as usize)
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
