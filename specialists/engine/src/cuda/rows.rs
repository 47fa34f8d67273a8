//! Kernels that go over rows number by number, and norms of rows: `cuda/rows.cu`, `cuda/norm.cu`.

use super::device::CudaError;
use super::memory::Slice;
use super::queue::{Queue, launch};
use crate::kernels::Activation;

/// Threads of a block where a kernel's source says nothing else.
pub(super) const THREADS: usize = 256;

/// How many rows there are.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// At most; what grids and buffers are made for.
    pub most: usize,
    /// One number, read when a kernel runs.
    pub count: Slice<'a, u32>,
}

/// Asserts that a buffer holds so many values.
#[track_caller]
pub(super) fn holds<T: super::memory::Plain>(slice: Slice<'_, T>, what: &str, values: usize) {
    assert!(slice.len() >= values, "{what} has {} values, the kernel takes {values}", slice.len());
}

/// As kernels number them.
pub(super) fn number(activation: Activation) -> i32 {
    match activation {
        Activation::Silu => 0,
        Activation::Gelu => 1,
        Activation::ClampedSwiglu => 2,
    }
}

/// Number by number; `x` and `out` are [rows, dim] and may be one.
#[derive(Clone, Copy)]
pub struct Each<'a> {
    pub x: Slice<'a, f32>,
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
    pub dim: usize,
}

impl Each<'_> {
    fn grid(&self) -> [usize; 3] {
        holds(self.x, "x", self.rows.most * self.dim);
        holds(self.out, "out", self.rows.most * self.dim);
        [self.dim.div_ceil(THREADS), self.rows.most, 1]
    }

    /// x and nothing else.
    fn one(&self, queue: &Queue, kernel: &str) -> Result<(), CudaError> {
        let Each { x, out, rows, dim } = *self;
        let (grid, dim) = (self.grid(), dim as i32);
        // SAFETY: the shapes were checked; so below.
        unsafe { launch!(queue, kernel, grid, THREADS, x, rows.count, out, dim) }
    }

    fn with_number(&self, queue: &Queue, kernel: &str, number: f32) -> Result<(), CudaError> {
        let Each { x, out, rows, dim } = *self;
        let (grid, dim) = (self.grid(), dim as i32);
        // SAFETY: see above.
        unsafe { launch!(queue, kernel, grid, THREADS, x, rows.count, out, dim, number) }
    }

    /// `out = x + y`, y [rows, dim].
    pub fn add(&self, queue: &Queue, y: Slice<'_, f32>) -> Result<(), CudaError> {
        holds(y, "y", self.rows.most * self.dim);
        let Each { x, out, rows, dim } = *self;
        let (grid, dim) = (self.grid(), dim as i32);
        // SAFETY: see above.
        unsafe { launch!(queue, "add", grid, THREADS, x, y, rows.count, out, dim) }
    }

    /// `out = x * by`
    pub fn scale(&self, queue: &Queue, by: f32) -> Result<(), CudaError> {
        self.with_number(queue, "scale", by)
    }

    /// `out = tanh(x / cap) * cap`
    pub fn softcap(&self, queue: &Queue, cap: f32) -> Result<(), CudaError> {
        self.with_number(queue, "softcap", cap)
    }

    /// `out = act(x, up)`, up [rows, dim].
    pub fn activated(
        &self,
        queue: &Queue,
        up: Slice<'_, f32>,
        act: Activation,
    ) -> Result<(), CudaError> {
        holds(up, "up", self.rows.most * self.dim);
        let Each { x, out, rows, dim } = *self;
        let (grid, dim, act) = (self.grid(), dim as i32, number(act));
        // SAFETY: see above.
        unsafe { launch!(queue, "activated", grid, THREADS, x, up, rows.count, out, dim, act) }
    }

    /// `out[r] = x[picks[r]]`, picks [rows]; x has as many rows as picks name.
    ///
    /// # Safety
    ///
    /// `picks` are rows of `x`.
    pub unsafe fn gather(&self, queue: &Queue, picks: Slice<'_, u32>) -> Result<(), CudaError> {
        holds(picks, "picks", self.rows.most);
        holds(self.out, "out", self.rows.most * self.dim);
        let Each { x, out, rows, dim } = *self;
        let (grid, dim) = ([dim.div_ceil(THREADS), rows.most, 1], dim as i32);
        // SAFETY: the shapes were checked, the rest is the caller's.
        unsafe { launch!(queue, "gather", grid, THREADS, x, picks, rows.count, out, dim) }
    }

    /// `out` is x as F16 holds it.
    pub fn round_f16(&self, queue: &Queue) -> Result<(), CudaError> {
        self.one(queue, "round_f16")
    }

    /// `out` is x as BF16 holds it.
    pub fn round_bf16(&self, queue: &Queue) -> Result<(), CudaError> {
        self.one(queue, "round_bf16")
    }
}

/// RMS norm of rows; `x` and `out` are [rows, dim] and may be one.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub x: Slice<'a, f32>,
    /// [dim]
    pub weight: Slice<'a, f32>,
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
    pub eps: f32,
}

impl Norm<'_> {
    fn dim(&self) -> i32 {
        let dim = self.weight.len();
        holds(self.x, "x", self.rows.most * dim);
        holds(self.out, "out", self.rows.most * dim);
        dim as i32
    }

    /// `out = x / rms(x) * weight`
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Norm { x, weight, out, rows, eps } = *self;
        let (dim, grid) = (self.dim(), [rows.most, 1, 1]);
        // SAFETY: see above.
        unsafe { launch!(queue, "rms_norm", grid, THREADS, x, weight, rows.count, out, dim, eps) }
    }
}

/// `out[r] = y[r] * sigmoid(gate · x[r])`: what an expert that every token takes gives.
#[derive(Clone, Copy)]
pub struct GateRows<'a> {
    /// [rows, dim]
    pub y: Slice<'a, f32>,
    /// [rows, dim]
    pub x: Slice<'a, f32>,
    /// [dim]
    pub gate: Slice<'a, f32>,
    /// [rows, dim], may be `y`.
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl GateRows<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let GateRows { y, x, gate, out, rows } = *self;
        let dim = gate.len();
        for (slice, name) in [(x, "x"), (y, "y"), (out, "out")] {
            holds(slice, name, rows.most * dim);
        }
        let (dim, grid) = (dim as i32, [rows.most, 1, 1]);
        // SAFETY: see above.
        unsafe { launch!(queue, "gate_rows", grid, THREADS, y, x, gate, rows.count, out, dim) }
    }
}

/// Logits [rows, vocab] of rows [rows, dim] that hold what is no number become none.
#[derive(Clone, Copy)]
pub struct Refuse<'a> {
    pub x: Slice<'a, f32>,
    pub logits: Slice<'a, f32>,
    pub rows: Rows<'a>,
    pub dim: usize,
    pub vocab: usize,
}

impl Refuse<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Refuse { x, logits, rows, dim, vocab } = *self;
        holds(x, "x", rows.most * dim);
        holds(logits, "logits", rows.most * vocab);
        let (dim, vocab, grid) = (dim as i32, vocab as i32, [rows.most, 1, 1]);
        // SAFETY: see above.
        unsafe { launch!(queue, "refuse", grid, THREADS, x, rows.count, logits, dim, vocab) }
    }
}
