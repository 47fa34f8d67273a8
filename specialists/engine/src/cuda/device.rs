//! Opens a device and loads the kernels.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::sync::Arc;

use cudarc::driver::sys;
use thiserror::Error;

/// The version of CUDA that the images are made for, as the driver counts: 1000 * major + 10 * minor.
const NEEDED: i32 = 13_000;
/// The least compute capability.
const LEAST: (i32, i32) = (8, 0);

/// One image for each `cuda/*.cu`.
static IMAGES: &[&[u8]] = &include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Why a device cannot be used.
#[derive(Debug, Error)]
pub enum CudaError {
    #[error(
        "there is no CUDA driver: libcuda.so.1 is not found; install NVIDIA's driver, or use the CPU"
    )]
    NoDriver,
    #[error("the CUDA driver does not start: {name}; see what nvidia-smi says, or use the CPU")]
    Driver { name: String },
    #[error("the CUDA driver finds no device; see what nvidia-smi says, or use the CPU")]
    NoDevice,
    #[error(
        "the driver knows CUDA {}.{}, this build needs {}.{}: install driver 580 or newer",
        have / 1000, have % 1000 / 10, NEEDED / 1000, NEEDED % 1000 / 10
    )]
    OldDriver { have: i32 },
    #[error("{name} has compute capability {major}.{minor}, kernels need {}.{}; use the CPU", LEAST.0, LEAST.1)]
    OldDevice { name: String, major: i32, minor: i32 },
    #[error(
        "the device has no {bytes} bytes left; give the engine less, or close what else uses it"
    )]
    OutOfMemory { bytes: usize },
    #[error("kernels cannot run this parent: {what}; use the CPU")]
    Unsuited { what: String },
    #[error("{call} failed: {name}")]
    Call { call: &'static str, name: String },
}

/// What the driver calls a result.
fn name(result: sys::CUresult) -> String {
    let mut name = std::ptr::null();
    // SAFETY: the driver writes the address of a text of its own, or none.
    unsafe {
        let _ = sys::cuGetErrorName(result, &mut name);
        match name.is_null() {
            true => format!("error {}", result as u32),
            false => CStr::from_ptr(name).to_string_lossy().into_owned(),
        }
    }
}

/// An error unless the driver did it.
pub(super) fn check(call: &'static str, result: sys::CUresult) -> Result<(), CudaError> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        result => Err(CudaError::Call { call, name: name(result) }),
    }
}

/// A call of the driver by its name.
macro_rules! call {
    ($function:ident($($arg:expr),* $(,)?)) => {
        $crate::cuda::device::check(stringify!($function), cudarc::driver::sys::$function($($arg),*))
    };
}
pub(super) use call;

/// A device with the kernels loaded.
pub struct Device {
    ordinal: sys::CUdevice,
    context: sys::CUcontext,
    name: String,
    modules: Vec<sys::CUmodule>,
    /// All kernels, loaded: while a queue records nothing may be.
    functions: HashMap<String, Function>,
}

#[derive(Clone, Copy)]
pub(super) struct Function(pub sys::CUfunction);

// SAFETY: the driver's handles may be used from every thread whose context is current.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}
// SAFETY: as above.
unsafe impl Send for Function {}

impl Device {
    /// Opens the `index`-th device.
    ///
    /// # Errors
    ///
    /// [`CudaError`], for each thing that may be lacking; never a panic, and nothing is left open.
    pub fn open(index: usize) -> Result<Arc<Device>, CudaError> {
        // SAFETY: looks for the library; no function of it is called before it is found.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let (mut have, mut count, mut ordinal) = (0, 0, 0);
        let mut context = std::ptr::null_mut();
        // SAFETY: the driver writes to the places it is given.
        unsafe {
            // Of an old driver no other function is asked.
            call!(cuDriverGetVersion(&mut have))?;
            if have < NEEDED {
                return Err(CudaError::OldDriver { have });
            }
            match sys::cuInit(0) {
                sys::CUresult::CUDA_SUCCESS => {}
                sys::CUresult::CUDA_ERROR_NO_DEVICE => return Err(CudaError::NoDevice),
                result => return Err(CudaError::Driver { name: name(result) }),
            }
            call!(cuDeviceGetCount(&mut count))?;
            if index >= count as usize {
                return Err(CudaError::NoDevice);
            }
            call!(cuDeviceGet(&mut ordinal, index as i32))?;
        }
        let name = fits(ordinal)?;
        // SAFETY: as above.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut context, ordinal))? };
        let (modules, functions) = (Vec::new(), HashMap::new());
        let mut device = Device { ordinal, context, name, modules, functions };
        device.load()?;
        Ok(Arc::new(device))
    }

    /// As its maker calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that are free, and all there are.
    ///
    /// # Errors
    ///
    /// When the device is lost; so in all that follows.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes to both.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total))? };
        Ok((free, total))
    }

    /// Makes this thread's calls go to the device.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as the device.
        unsafe { call!(cuCtxSetCurrent(self.context)) }
    }

    fn load(&mut self) -> Result<(), CudaError> {
        self.bind()?;
        for image in IMAGES {
            let (mut module, mut count) = (std::ptr::null_mut(), 0);
            // SAFETY: an image as the compiler made it, which says itself how long it is.
            unsafe { call!(cuModuleLoadData(&mut module, image.as_ptr().cast::<c_void>()))? };
            self.modules.push(module);
            // SAFETY: the module is loaded, and there is room for as many functions as it has.
            let functions = unsafe {
                call!(cuModuleGetFunctionCount(&mut count, module))?;
                let mut functions = vec![std::ptr::null_mut(); count as usize];
                call!(cuModuleEnumerateFunctions(functions.as_mut_ptr(), count, module))?;
                functions
            };
            for function in functions {
                let mut name = std::ptr::null();
                // SAFETY: a function of the module, whose name is a text of the driver's.
                let name = unsafe {
                    call!(cuFuncLoad(function))?;
                    call!(cuFuncGetName(&mut name, function))?;
                    CStr::from_ptr(name).to_string_lossy().into_owned()
                };
                self.functions.insert(name, Function(function));
            }
        }
        Ok(())
    }

    /// The kernel of this name.
    pub(super) fn function(&self, name: &str) -> Result<Function, CudaError> {
        let lacks = || CudaError::Call { call: "a kernel's launch", name: name.to_owned() };
        self.functions.get(name).copied().ok_or_else(lacks)
    }
}

/// The name of a device that kernels run on.
fn fits(ordinal: sys::CUdevice) -> Result<String, CudaError> {
    use sys::CUdevice_attribute::*;
    let (mut text, mut major, mut minor) = ([0u8; 256], 0, 0);
    // SAFETY: the driver writes a text that ends within the room it is told, and two numbers.
    unsafe {
        call!(cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32, ordinal))?;
        let (of_major, of_minor) = (
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        );
        call!(cuDeviceGetAttribute(&mut major, of_major, ordinal))?;
        call!(cuDeviceGetAttribute(&mut minor, of_minor, ordinal))?;
    }
    let name = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy().into_owned();
    match (major, minor) < LEAST {
        true => Err(CudaError::OldDevice { name, major, minor }),
        false => Ok(name),
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A device that is lost has nothing to give back.
        let _ = self.bind();
        for module in &self.modules {
            // SAFETY: loaded once, and its kernels are gone with the device.
            let _ = unsafe { sys::cuModuleUnload(*module) };
        }
        // SAFETY: retained once.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.ordinal) };
    }
}
