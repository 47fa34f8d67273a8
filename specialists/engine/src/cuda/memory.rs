//! Memory of a device, and memory of this machine that a device copies from by itself.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use cudarc::driver::sys;

use super::device::{CudaError, Device, call};

/// What lies alike here and on a device.
///
/// # Safety
///
/// Every pattern of bits is a value, and kernels have the same layout.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($type:ty),*) => {$(
        // SAFETY: a number.
        unsafe impl Plain for $type {}
    )*};
}
plain!(f32, u8, i8, i16, u32, i32, u64);

/// `len` values on a device; dropping it gives them back once the kernels that were launched have passed.
pub struct Buffer<T> {
    device: Arc<Device>,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

/// A part of a buffer: an address and how many values lie there.  Kernels take the first field.
#[repr(C)]
pub struct Slice<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a [T]>,
}

impl<T> Clone for Slice<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slice<'_, T> {}

impl<T: Plain> Buffer<T> {
    /// Nothing is written there.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`].
    pub fn new(device: &Arc<Device>, len: usize) -> Result<Buffer<T>, CudaError> {
        device.bind()?;
        let (mut address, bytes) = (0, (len * size_of::<T>()).max(1));
        // SAFETY: the driver writes the address.
        match unsafe { sys::cuMemAlloc_v2(&mut address, bytes) } {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(CudaError::OutOfMemory { bytes }),
            result => {
                super::device::check("cuMemAlloc", result)?;
                Ok(Buffer { device: device.clone(), address, len, of: PhantomData })
            }
        }
    }

    /// All of it.
    pub fn slice(&self) -> Slice<'_, T> {
        Slice { address: self.address, len: self.len, of: PhantomData }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        // A device that is lost has nothing to give back.
        let _ = self.device.bind();
        // SAFETY: allocated once; the driver waits for what was launched.
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}

impl<'a, T: Plain> Slice<'a, T> {
    /// Where it begins.
    pub fn address(self) -> u64 {
        self.address
    }

    pub fn len(self) -> usize {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Some of it.
    ///
    /// # Panics
    ///
    /// When it does not reach so far.
    pub fn range(self, range: Range<usize>) -> Slice<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        let address = self.address + (range.start * size_of::<T>()) as u64;
        Slice { address, len: range.len(), of: PhantomData }
    }

    /// Values that lie at an address.
    ///
    /// # Safety
    ///
    /// They do, for as long as the slice is used.
    pub unsafe fn at(address: u64, len: usize) -> Slice<'a, T> {
        Slice { address, len, of: PhantomData }
    }
}

/// Its address, or zero, which kernels take for none.
pub(super) fn address<T: Plain>(slice: Option<Slice<'_, T>>) -> u64 {
    slice.map_or(0, Slice::address)
}

/// `len` values that devices copy to and from while this machine goes on.
pub struct Pinned<T> {
    device: Arc<Device>,
    start: *mut T,
    len: usize,
}

// SAFETY: the memory is its own.
unsafe impl<T: Send> Send for Pinned<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// All zero.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`].
    pub fn new(device: &Arc<Device>, len: usize) -> Result<Pinned<T>, CudaError> {
        device.bind()?;
        let (mut start, bytes) = (std::ptr::null_mut(), (len * size_of::<T>()).max(1));
        // SAFETY: the driver writes the address of as many bytes, which are then zero.
        unsafe {
            if sys::cuMemHostAlloc(&mut start, bytes, 0) != sys::CUresult::CUDA_SUCCESS {
                return Err(CudaError::OutOfMemory { bytes });
            }
            start.cast::<u8>().write_bytes(0, bytes);
        }
        Ok(Pinned { device: device.clone(), start: start.cast(), len })
    }
}

impl<T> Deref for Pinned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: so many values lie there, aligned to a page.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> DerefMut for Pinned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: allocated once; the driver waits for copies.
        let _ = unsafe { call!(cuMemFreeHost(self.start.cast())) };
    }
}
