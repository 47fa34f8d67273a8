//! Weights times activations, in units: `cuda/product.cuh`; activations in the forms that weights want: `cuda/quantise.cu`;
//! rows of weights as they are: `cuda/embed.cu`.

use std::sync::Arc;

use super::device::{CudaError, Device};
use super::memory::{Buffer, Plain, Slice, address};
use super::queue::{Queue, launch};
use super::rows::{Each, Rows, THREADS, holds, number};
use crate::ggml::Kind;
use crate::kernels::Activation;
pub(super) use crate::kernels::Form;

/// Rows of activations in a unit.
const PICKS: usize = 8;
/// Rows of weights and threads in a block of a product.
const ROWS: usize = 16;
const PRODUCT_THREADS: usize = 128;
/// Lanes of a warp: parts of a row that a block of `embed` has, and threads that share a block of quants.
const WARP: usize = 32;

/// As names of kernels end.
fn kernel(family: &str, kind: Kind) -> String {
    format!("{family}_{}", kind.name().to_ascii_lowercase())
}

/// Where activations lie, as kernels take them.
#[repr(C)]
#[derive(Clone, Copy)]
struct Addresses {
    quants: u64,
    scales: u64,
    sums: u64,
    totals: u64,
}

/// Rows of activations in one form.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    form: Form,
    rows: usize,
    k: usize,
    at: Addresses,
    of: std::marker::PhantomData<&'a f32>,
}

impl<'a> Input<'a> {
    /// Numbers as they are: [rows, k].
    pub fn floats(x: Slice<'a, f32>, k: usize) -> Input<'a> {
        let at = Addresses { quants: x.address(), scales: 0, sums: 0, totals: 0 };
        Input { form: Form::F32, rows: x.len() / k, k, at, of: std::marker::PhantomData }
    }

    /// The same for longer.
    ///
    /// # Safety
    ///
    /// What it is made of stays as long.
    pub unsafe fn lasting<'b>(self) -> Input<'b> {
        let Input { form, rows, k, at, .. } = self;
        Input { form, rows, k, at, of: std::marker::PhantomData }
    }
}

/// Room for rows of activations in a form that is not theirs.
pub struct Rounded {
    form: Form,
    rows: usize,
    k: usize,
    /// [rows, k], of the forms that are numbers.
    pub(super) floats: Buffer<f32>,
    /// [rows, k]
    pub(super) quants: Buffer<i8>,
    /// [rows, k / 32 or 256]
    pub(super) scales: Buffer<f32>,
    /// Q8: [rows, k / 32]
    pub(super) sums: Buffer<i32>,
    /// Q8: [rows, k / 32]
    pub(super) totals: Buffer<f32>,
    /// Q8K: [rows, k / 16]
    pub(super) small_sums: Buffer<i16>,
}

impl Rounded {
    /// Room for so many rows of k.
    ///
    /// # Panics
    ///
    /// When k is not whole blocks of the form.
    pub fn new(
        device: &Arc<Device>,
        form: Form,
        rows: usize,
        k: usize,
    ) -> Result<Rounded, CudaError> {
        let (block, sums, small) = match form {
            Form::Q8 => (32, 1, 0),
            Form::Q8K => (256, 0, 16),
            Form::F32 | Form::F16 | Form::BF16 => (0, 0, 0),
        };
        assert!(block == 0 || k.is_multiple_of(block), "{k} is not whole blocks of {form:?}");
        let n = rows * k;
        let blocks = n.checked_div(block).unwrap_or(0);
        Ok(Rounded {
            form,
            rows,
            k,
            floats: Buffer::new(device, if block == 0 { n } else { 0 })?,
            quants: Buffer::new(device, if block == 0 { 0 } else { n })?,
            scales: Buffer::new(device, blocks)?,
            sums: Buffer::new(device, blocks * sums)?,
            totals: Buffer::new(device, blocks * sums)?,
            small_sums: Buffer::new(device, blocks * small)?,
        })
    }

    /// Rounds `x`, [rows, k].
    pub fn round(&self, queue: &Queue, x: Slice<'_, f32>, rows: Rows<'_>) -> Result<(), CudaError> {
        assert!(rows.most <= self.rows, "there is room for {} rows", self.rows);
        holds(x, "x", rows.most * self.k);
        let (k, count) = (self.k as i32, rows.count);
        let warps = THREADS / WARP;
        let grid = |block: usize| [(self.k / block).div_ceil(warps), rows.most, 1];
        let each = Each { x, out: self.floats.slice(), rows, dim: self.k };
        match self.form {
            Form::F32 => each.scale(queue, 1.0),
            Form::F16 => each.round_f16(queue),
            Form::BF16 => each.round_bf16(queue),
            Form::Q8 => {
                let (q, s) = (self.quants.slice(), self.scales.slice());
                let (sums, totals) = (self.sums.slice(), self.totals.slice());
                // SAFETY: there is room for so many rows.
                unsafe {
                    launch!(
                        queue,
                        "quantise_q8",
                        grid(32),
                        THREADS,
                        x,
                        count,
                        q,
                        s,
                        sums,
                        totals,
                        k
                    )
                }
            }
            Form::Q8K => {
                let (q, s, sums) =
                    (self.quants.slice(), self.scales.slice(), self.small_sums.slice());
                // SAFETY: as above.
                unsafe {
                    launch!(queue, "quantise_q8k", grid(256), THREADS, x, count, q, s, sums, k)
                }
            }
        }
    }

    /// What `round` left.
    pub fn input(&self) -> Input<'_> {
        let at = match self.form {
            Form::Q8 => Addresses {
                quants: self.quants.slice().address(),
                scales: self.scales.slice().address(),
                sums: self.sums.slice().address(),
                totals: self.totals.slice().address(),
            },
            Form::Q8K => Addresses {
                quants: self.quants.slice().address(),
                scales: self.scales.slice().address(),
                sums: self.small_sums.slice().address(),
                totals: 0,
            },
            _ => {
                let quants = self.floats.slice().address();
                Addresses { quants, scales: 0, sums: 0, totals: 0 }
            }
        };
        let Rounded { form, rows, k, .. } = *self;
        Input { form, rows, k, at, of: std::marker::PhantomData }
    }
}

/// Rows of activations that share a matrix: outputs `first` and on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub expert: u32,
    pub first: u32,
    pub count: u32,
}

// SAFETY: three numbers, as `Unit` in `cuda/product.cuh`.
unsafe impl Plain for Unit {}

/// Matrices of one shape and format: `rows` rows of `k` weights.
#[derive(Clone, Copy)]
pub struct Matrices<'a> {
    pub kind: Kind,
    pub rows: usize,
    pub k: usize,
    /// [experts], addresses at which each one's memory begins, multiples of 16; zero is none, and what it gives is no
    /// number.  A matrix by itself is one expert.
    pub slots: Slice<'a, u64>,
    /// From there to the matrix, a multiple of 16.
    pub offset: u64,
    /// [experts, rows]
    pub bias: Option<Slice<'a, f32>>,
}

/// Which rows of activations go with which matrix.
#[derive(Clone, Copy)]
pub enum Work<'a> {
    /// All with the first one.
    Rows(Rows<'a>),
    /// As [`super::Group`] sorted them.
    Units {
        units: Slice<'a, Unit>,
        /// One number.
        count: Slice<'a, u32>,
        /// Rows of the activations; without them activations lie as outputs do.
        picks: Option<Slice<'a, u32>>,
        /// Outputs at most.
        outputs: usize,
    },
}

/// As `Product` in `cuda/product.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameter {
    slots: u64,
    offset: u64,
    units: u64,
    count: u64,
    picks: u64,
    bias: u64,
    k: i32,
    rows: i32,
    row_bytes: i32,
}

impl Matrices<'_> {
    fn parameter(&self, work: &Work<'_>) -> Parameter {
        let (units, count, picks) = match work {
            Work::Rows(rows) => (0, rows.count.address(), 0),
            Work::Units { units, count, picks, .. } => {
                (units.address(), count.address(), address(*picks))
            }
        };
        let row_bytes = self.kind.bytes(self.k as u64).expect("rows are whole blocks") as i32;
        assert!(self.offset.is_multiple_of(16), "a matrix begins at {}", self.offset);
        if let Some(bias) = self.bias {
            holds(bias, "the bias", self.rows * self.slots.len());
        }
        Parameter {
            slots: self.slots.address(),
            offset: self.offset,
            units,
            count,
            picks,
            bias: address(self.bias),
            k: self.k as i32,
            rows: self.rows as i32,
            row_bytes,
        }
    }

    /// The grid; checks all shapes.
    fn grid(&self, input: &Input<'_>, work: &Work<'_>, out: Slice<'_, f32>) -> [usize; 3] {
        assert_eq!(Some(input.form), Form::of(self.kind), "activations for {:?}", self.kind);
        assert_eq!(input.k, self.k, "numbers of a row");
        assert!(!self.slots.is_empty());
        let (units, outputs) = match work {
            Work::Rows(rows) => (rows.most.div_ceil(PICKS), rows.most),
            Work::Units { units, outputs, .. } => (units.len(), *outputs),
        };
        if matches!(work, Work::Rows(_) | Work::Units { picks: None, .. }) {
            assert!(input.rows >= outputs, "{} rows of activations for {outputs}", input.rows);
        }
        holds(out, "out", outputs * self.rows);
        [self.rows.div_ceil(ROWS), units, 1]
    }
}

/// `out[r] = w x[r] + bias`, out [outputs, rows of w].
///
/// # Safety
///
/// Matrices lie at the slots that units name, and picks are rows of the activations.
pub unsafe fn product(
    queue: &Queue,
    w: &Matrices<'_>,
    x: Input<'_>,
    work: Work<'_>,
    out: Slice<'_, f32>,
) -> Result<(), CudaError> {
    let (grid, name) = (w.grid(&x, &work, out), kernel("product", w.kind));
    let w = w.parameter(&work);
    // SAFETY: shapes were checked, the rest is the caller's.
    unsafe { launch!(queue, &name, grid, PRODUCT_THREADS, w, x.at, out) }
}

/// `out[r] = act(gate x[r] + bias, up x[r] + bias)`, of two matrices of one shape and format in the same slots.
///
/// # Safety
///
/// As [`product`].
pub unsafe fn gated(
    queue: &Queue,
    [gate, up]: [&Matrices<'_>; 2],
    activation: Activation,
    x: Input<'_>,
    work: Work<'_>,
    out: Slice<'_, f32>,
) -> Result<(), CudaError> {
    assert_eq!((gate.kind, gate.rows, gate.k), (up.kind, up.rows, up.k), "gate and up");
    let (grid, name) = (gate.grid(&x, &work, out), kernel("gated", gate.kind));
    let (gate, up, act) = (gate.parameter(&work), up.parameter(&work), number(activation));
    // SAFETY: see above.
    unsafe { launch!(queue, &name, grid, PRODUCT_THREADS, gate, up, x.at, act, out) }
}

/// Rows of a matrix as F32: `out[r] = matrix[tokens[r]] * scale`.
#[derive(Clone, Copy)]
pub struct Embed<'a> {
    pub kind: Kind,
    /// Whole rows of `k` weights.
    pub matrix: Slice<'a, u8>,
    pub k: usize,
    pub scale: f32,
    /// [rows]
    pub tokens: Slice<'a, u32>,
    /// [rows, k]
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl Embed<'_> {
    /// # Safety
    ///
    /// `tokens` are rows of the matrix.
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Embed { kind, matrix, k, scale, tokens, out, rows } = *self;
        holds(tokens, "tokens", rows.most);
        holds(out, "out", rows.most * k);
        assert!(matrix.address().is_multiple_of(16), "a matrix begins at {}", matrix.address());
        let row_bytes = kind.bytes(k as u64).expect("rows are whole blocks") as i32;
        let grid = [k.div_ceil(WARP).div_ceil(WARP), rows.most, 1];
        let (name, k) = (kernel("embed", kind), k as i32);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe {
            launch!(queue, &name, grid, WARP, matrix, tokens, rows.count, out, k, row_bytes, scale)
        }
    }
}
