//! Every kernel against what the CPU computes, and against itself: other batches, other neighbours, again from a graph.
//!
//! They run on whatever device there is; without one, on the emulated one of `tests/gpu/emulate.sh`.  Outputs begin as what
//! is no number, so that what a kernel leaves out or reads unwritten is seen.

mod attention;
mod delta;
mod device;
mod experts;
mod layer;
mod products;
mod rows;

use std::sync::{Arc, OnceLock};

use super::{Buffer, Device, Plain, Queue, Rows};
use crate::ggml::Kind;
use crate::kernels::Matrix;
use crate::mapping::{Mapping, Region};

/// Threads of tests share one device, each with a queue of its own.
fn queue() -> Queue {
    static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();
    let open = || Device::open(0).unwrap_or_else(|error| panic!("{error}"));
    Queue::new(DEVICE.get_or_init(open)).unwrap()
}

/// Values on the device.
fn up<T: Plain>(queue: &Queue, values: &[T]) -> Buffer<T> {
    let buffer = Buffer::new(queue.device(), values.len()).unwrap();
    queue.write(buffer.slice(), values).unwrap();
    buffer
}

/// The CPU's matrix of these bytes.
fn matrix(bytes: &[u8], kind: Kind, rows: usize, k: usize) -> Matrix {
    let mapping = Arc::new(Mapping::Embedded(bytes.to_vec().leak()));
    Matrix::new(Region::new(&mapping, 0, bytes.len() as u64).unwrap(), kind, rows, k).unwrap()
}

const BLANK: f32 = f32::from_bits(u32::MAX);

/// Room for numbers, none of which is one.
fn blank(queue: &Queue, len: usize) -> Buffer<f32> {
    up(queue, &vec![BLANK; len])
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// How many rows, on the device.
struct Count(Buffer<u32>, usize);

impl Count {
    fn new(queue: &Queue, rows: usize) -> Count {
        Count(up(queue, &[rows as u32]), rows)
    }

    fn rows(&self) -> Rows<'_> {
        Rows { most: self.1, count: self.0.slice() }
    }

    /// As many in a grid that is made for more.
    fn of(&self, most: usize) -> Rows<'_> {
        Rows { most, count: self.0.slice() }
    }
}

/// No number is further off than `tolerance` times the largest.
#[track_caller]
fn close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        // Written so that what is no number is not close.
        let near = (g - w).abs() <= tolerance * largest;
        assert!(near, "{what}: number {i} is {g}, not {w}; the largest is {largest}");
    }
}

/// By the formula; `kernels::functions` has a table of it.
fn gelu(x: f32) -> f32 {
    let v = half::f16::from_f32(x).to_f32();
    let inner = 0.797_884_6 * v * (1.0 + 0.044_715 * v * v);
    half::f16::from_f32(0.5 * v * (1.0 + inner.tanh())).to_f32()
}
