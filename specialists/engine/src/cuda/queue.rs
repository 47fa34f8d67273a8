//! Streams: what is asked of one runs in order, while this machine goes on.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;

use super::device::{CudaError, Device, call};
use super::memory::{Pinned, Plain, Slice};

/// A stream of a device.
pub struct Queue {
    device: Arc<Device>,
    stream: sys::CUstream,
}

/// A place in a queue that others may wait for.
pub struct Mark {
    device: Arc<Device>,
    event: sys::CUevent,
}

/// What a queue was asked to do, to be done again with one call.  It reads and writes the buffers that it was recorded
/// with, which must live as long.
pub struct Graph {
    device: Arc<Device>,
    graph: sys::CUgraphExec,
}

macro_rules! of_every_thread {
    ($($type:ty),*) => {$(
        // SAFETY: the driver's handles may be used from every thread.
        unsafe impl Send for $type {}
        // SAFETY: as above.
        unsafe impl Sync for $type {}
    )*};
}
of_every_thread!(Queue, Mark, Graph);

impl Queue {
    pub fn new(device: &Arc<Device>) -> Result<Queue, CudaError> {
        device.bind()?;
        let mut stream = std::ptr::null_mut();
        let apart = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the driver writes the stream.
        unsafe { call!(cuStreamCreateWithPriority(&mut stream, apart, 0))? };
        Ok(Queue { device: device.clone(), stream })
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Until all that was asked has been done.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.device.bind()?;
        // SAFETY: the stream is alive; so below.
        unsafe { call!(cuStreamSynchronize(self.stream)) }
    }

    /// Copies values to the start of `to`; they may change once this returns.
    ///
    /// # Panics
    ///
    /// When there is no room for them; so below.
    pub fn write<T: Plain>(&self, to: Slice<'_, T>, values: &[T]) -> Result<(), CudaError> {
        assert!(values.len() <= to.len(), "{} values into {}", values.len(), to.len());
        self.device.bind()?;
        // SAFETY: there is room; the driver sets aside what is not pinned before it returns.
        unsafe {
            let from = values.as_ptr().cast::<c_void>();
            call!(cuMemcpyHtoDAsync_v2(to.address(), from, size_of_val(values), self.stream))
        }
    }

    /// The same without a copy in between.
    ///
    /// # Safety
    ///
    /// `from` lives and does not change until the copy has been done.
    pub unsafe fn write_pinned<T: Plain>(
        &self,
        to: Slice<'_, T>,
        from: &Pinned<T>,
        len: usize,
    ) -> Result<(), CudaError> {
        self.write(to, &from[..len])
    }

    /// The values, once all that was asked before has been done.
    pub fn read<T: Plain>(&self, from: Slice<'_, T>) -> Result<Vec<T>, CudaError> {
        let mut values = Vec::with_capacity(from.len());
        self.device.bind()?;
        // SAFETY: there is room for as many, and every pattern of bits is a value.
        unsafe {
            let (to, bytes) = (values.as_mut_ptr(), from.len() * size_of::<T>());
            call!(cuMemcpyDtoHAsync_v2(to as *mut c_void, from.address(), bytes, self.stream))?;
            self.wait()?;
            values.set_len(from.len());
        }
        Ok(values)
    }

    /// Copies within the device.
    pub fn copy<T: Plain>(&self, to: Slice<'_, T>, from: Slice<'_, T>) -> Result<(), CudaError> {
        assert!(from.len() <= to.len(), "{} values into {}", from.len(), to.len());
        self.device.bind()?;
        let bytes = from.len() * size_of::<T>();
        // SAFETY: there is room.
        unsafe { call!(cuMemcpyDtoDAsync_v2(to.address(), from.address(), bytes, self.stream)) }
    }

    /// Makes all bytes zero.
    pub fn clear<T: Plain>(&self, what: Slice<'_, T>) -> Result<(), CudaError> {
        self.device.bind()?;
        let bytes = what.len() * size_of::<T>();
        // SAFETY: so many bytes lie there.
        unsafe { call!(cuMemsetD8Async(what.address(), 0, bytes, self.stream)) }
    }

    /// Puts the mark behind all that was asked so far.
    pub fn mark(&self, mark: &Mark) -> Result<(), CudaError> {
        self.device.bind()?;
        // SAFETY: both are alive; so below.
        unsafe { call!(cuEventRecord(mark.event, self.stream)) }
    }

    /// What is asked from here on waits until another queue has passed the mark.
    pub fn after(&self, mark: &Mark) -> Result<(), CudaError> {
        self.device.bind()?;
        // SAFETY: see above.
        unsafe { call!(cuStreamWaitEvent(self.stream, mark.event, 0)) }
    }

    /// Records what `ask` asks of this queue instead of doing it: launches, and copies within the device.
    pub fn record(&self, ask: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        self.device.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let (mut graph, mut runnable) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the capture that begins ends whatever becomes of `ask`; what it gave is destroyed once.
        unsafe {
            call!(cuStreamBeginCapture_v2(self.stream, mode))?;
            let asked = ask();
            let ended = call!(cuStreamEndCapture(self.stream, &mut graph));
            asked.and(ended)?;
            let made = call!(cuGraphInstantiateWithFlags(&mut runnable, graph, 0));
            call!(cuGraphDestroy(graph))?;
            made?;
        }
        Ok(Graph { device: self.device.clone(), graph: runnable })
    }

    /// Does again what was recorded.
    pub fn run(&self, graph: &Graph) -> Result<(), CudaError> {
        self.device.bind()?;
        // SAFETY: both are alive.
        unsafe { call!(cuGraphLaunch(graph.graph, self.stream)) }
    }

    /// Launches a kernel; [`launch!`] makes the list of parameters.
    ///
    /// # Safety
    ///
    /// Parameters are those of the kernel, in their types, and so large is what they point to as it reads and writes.
    pub(super) unsafe fn launch(
        &self,
        kernel: &str,
        grid: [usize; 3],
        threads: usize,
        parameters: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        // Nothing to do is no grid.
        if grid.contains(&0) {
            return Ok(());
        }
        assert!(grid[1] <= 65_535 && grid[2] <= 65_535, "{kernel}: {grid:?}");
        self.device.bind()?;
        let function = self.device.function(kernel)?.0;
        let [x, y, z] = grid.map(|n| n as u32);
        let (list, none) = (parameters.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: by the caller.
        unsafe {
            call!(cuLaunchKernel(
                function,
                x,
                y,
                z,
                threads as u32,
                1,
                1,
                0,
                self.stream,
                list,
                none
            ))
        }
    }
}

/// Launches a kernel: queue, name, grid, threads, parameters, each in the type that the kernel has.
macro_rules! launch {
    ($queue:expr, $kernel:expr, $grid:expr, $threads:expr, $($parameter:expr),* $(,)?) => {{
        let mut parameters = [$(std::ptr::from_ref(&$parameter).cast_mut().cast()),*];
        $queue.launch($kernel, $grid, $threads, &mut parameters)
    }};
}
pub(super) use launch;

impl Mark {
    pub fn new(device: &Arc<Device>) -> Result<Mark, CudaError> {
        device.bind()?;
        let mut event = std::ptr::null_mut();
        let untimed = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        // SAFETY: the driver writes the event.
        unsafe { call!(cuEventCreate(&mut event, untimed))? };
        Ok(Mark { device: device.clone(), event })
    }

    /// Until the queue that it was put into has passed it.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.device.bind()?;
        // SAFETY: the event is alive.
        unsafe { call!(cuEventSynchronize(self.event)) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: created once, in all three.
        let _ = unsafe { sys::cuStreamDestroy_v2(self.stream) };
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: see above.
        let _ = unsafe { sys::cuEventDestroy_v2(self.event) };
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.device.bind();
        // SAFETY: see above.
        let _ = unsafe { sys::cuGraphExecDestroy(self.graph) };
    }
}
