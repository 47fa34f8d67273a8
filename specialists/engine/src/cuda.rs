//! NVIDIA devices: memory, streams, and the kernels of `cuda/*.cu`, each behind a function that checks its shapes.
//!
//! In: buffers of a [`Device`]; out: buffers.  Nothing here knows of layers, models or sequences.  What a kernel computes is
//! said in its source, under the same name; how many rows there are, where they are and which experts they chose is read
//! from device memory, so that a [`Graph`] recorded once serves every step up to its size.
//!
//! The promise: as in [`crate::kernels`], the numbers of a row depend on its own inputs alone, bit for bit, whatever else is
//! in the batch.  Quantised activations and routers' choices are the CPU's bits; sums of products run in an order of
//! their own (`cuda/product.cuh`).
//!
//! From the bottom up: `device` opens, `memory` holds, `queue` orders, `slots` brings experts in; `rows`, `products`,
//! `experts`, `attention` and `delta` launch.
//!
//! To add a kernel: its source in `cuda/`, its function here, its test in `tests`, which run without a GPU
//! (`tests/gpu/emulate.sh`) as with one.

mod attention;
mod delta;
mod device;
mod experts;
mod inputs;
mod layers;
mod limits;
mod memory;
mod products;
mod queue;
mod rows;
mod scratch;
mod slots;
mod steps;
mod tensors;
#[cfg(test)]
mod tests;
mod units;

#[cfg(test)]
use {
    attention::{Attend, Gate, HeadNorm, Heads, PageFormat, Places, Rotations, Store},
    delta::{Convolve, GatedNorm, Rates, Recur, Stretch, Untangle},
    device::Device,
    experts::{Combine, Gates, Group, Masks, Route, units},
    memory::{Buffer, Pinned, Plain, Slice},
    products::{Embed, Form, Input, Matrices, Rounded, Unit, Work, gated, product},
    queue::{Mark, Queue},
    rows::{Each, GateRows, Norm, Refuse, Rows},
    slots::Slots,
};

pub use device::CudaError;
pub use steps::Gpu;
