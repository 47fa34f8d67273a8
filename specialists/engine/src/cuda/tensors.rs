//! A parent's tensors on a device, found by where they lie in this machine's memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::CudaError;
use super::memory::{Buffer, Plain, Slice};
use super::products::Matrices;
use super::queue::Queue;
use crate::kernels::Matrix;
use crate::parts::Linear;
use crate::vector::Vector;

/// One tensor.
struct There {
    bytes: Buffer<u8>,
    /// Its address, which kernels of products take from memory.
    slot: Buffer<u64>,
}

/// All tensors that are no experts; they stay until this is dropped.
pub(super) struct Tensors {
    queue: Arc<Queue>,
    /// By address here.
    there: HashMap<usize, There>,
    /// Changed whenever a tensor comes.
    pub bytes: u64,
}

impl Tensors {
    pub fn new(queue: &Arc<Queue>) -> Tensors {
        Tensors { queue: queue.clone(), there: HashMap::new(), bytes: 0 }
    }

    /// Copies a tensor, unless it is there.
    pub fn bring_in<T: Plain>(&mut self, key: usize, values: &[T]) -> Result<(), CudaError> {
        if self.there.contains_key(&key) {
            return Ok(());
        }
        let device = self.queue.device();
        let len = size_of_val(values);
        let (bytes, slot) = (Buffer::<u8>::new(device, len)?, Buffer::new(device, 1)?);
        // SAFETY: as many values have as many bytes.
        self.queue.write(unsafe { Slice::at(bytes.slice().address(), values.len()) }, values)?;
        self.queue.write(slot.slice(), &[bytes.slice().address()])?;
        self.there.insert(key, There { bytes, slot });
        self.bytes += len as u64;
        Ok(())
    }

    fn get<'r, T: Plain>(
        &mut self,
        key: usize,
        values: &[T],
    ) -> Result<(Slice<'r, T>, Slice<'r, u64>), CudaError> {
        self.bring_in(key, values)?;
        let There { bytes, slot } = &self.there[&key];
        // SAFETY: no tensor leaves before all do, and nobody computes then.
        unsafe {
            let values = Slice::at(bytes.slice().address(), values.len());
            Ok((values, Slice::at(slot.slice().address(), 1)))
        }
    }

    /// Numbers of the file, or made of it at load.
    pub fn vector<'r>(&mut self, vector: &Vector) -> Result<Slice<'r, f32>, CudaError> {
        let numbers = vector.get();
        Ok(self.get(numbers.as_ptr() as usize, numbers)?.0)
    }

    /// Numbers that are many here and one there; `key` is an address that stays theirs.
    pub fn made<'r>(
        &mut self,
        key: usize,
        make: impl FnOnce() -> Vec<f32>,
    ) -> Result<Slice<'r, f32>, CudaError> {
        if !self.there.contains_key(&key) {
            self.bring_in(key, &make())?;
        }
        let bytes = self.there[&key].bytes.slice();
        // SAFETY: as in `get`.
        Ok(unsafe { Slice::at(bytes.address(), bytes.len() / size_of::<f32>()) })
    }

    /// The bytes of a matrix.
    pub fn bytes<'r>(&mut self, matrix: &Matrix) -> Result<Slice<'r, u8>, CudaError> {
        let bytes = matrix.bytes();
        Ok(self.get(bytes.as_ptr() as usize, bytes)?.0)
    }

    /// A matrix by itself.
    pub fn matrix<'r>(&mut self, matrix: &Matrix) -> Result<Matrices<'r>, CudaError> {
        let (kind, bytes) = (matrix.kind(), matrix.bytes());
        let (_, slots) = self.get(bytes.as_ptr() as usize, bytes)?;
        Ok(Matrices { kind, rows: matrix.rows, k: matrix.k, slots, offset: 0, bias: None })
    }

    /// The same with its bias.
    pub fn linear<'r>(&mut self, linear: &Linear) -> Result<Matrices<'r>, CudaError> {
        let bias = linear.bias.as_ref().map(|bias| self.vector(bias)).transpose()?;
        Ok(Matrices { bias, ..self.matrix(&linear.weight)? })
    }
}
