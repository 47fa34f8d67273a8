//! The steps of a gated delta net between its projections: `cuda/delta.cu`.

use super::device::CudaError;
use super::memory::{Plain, Slice};
use super::queue::{Queue, launch};
use super::rows::{Rows, THREADS, holds};

/// Taps of the convolution at most.
const TAPS: usize = 8;
/// Numbers of a head at most.
const MOST: usize = 256;
const WARP: usize = 32;

/// Rows of one sequence in a step, one after the other, and where its state of the layer lies.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub first: u32,
    pub count: u32,
    pub state: u64,
}

// SAFETY: three numbers, as `Stretch` in `cuda/delta.cu`.
unsafe impl Plain for Stretch {}

/// One projection of all, for each head of keys its query, its key, its values and their gates, becomes two.
#[derive(Clone, Copy)]
pub struct Untangle<'a> {
    /// [rows, key heads, (2 + 2 * share) * head_dim]
    pub all: Slice<'a, f32>,
    pub key_heads: usize,
    /// Heads of values for each head of keys.
    pub share: usize,
    pub head_dim: usize,
    /// [rows, channels]
    pub qkv: Slice<'a, f32>,
    /// [rows, value heads, head_dim]
    pub z: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl Untangle<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Untangle { all, key_heads, share, head_dim, qkv, z, rows } = *self;
        let keys = key_heads * head_dim;
        holds(all, "all", rows.most * keys * (2 + 2 * share));
        holds(qkv, "qkv", rows.most * keys * (2 + share));
        holds(z, "z", rows.most * keys * share);
        let grid = [(keys * (2 + 2 * share)).div_ceil(THREADS), rows.most, 1];
        let (key_heads, share, hd) = (key_heads as i32, share as i32, head_dim as i32);
        // SAFETY: shapes were checked; so below.
        unsafe {
            launch!(queue, "untangle", grid, THREADS, all, rows.count, qkv, z, key_heads, share, hd)
        }
    }
}

/// How much is learnt and how much is kept.
#[derive(Clone, Copy)]
pub struct Rates<'a> {
    /// Head h of a row is at `h / share * group + h % share`.
    pub betas: Slice<'a, f32>,
    pub alphas: Slice<'a, f32>,
    /// Numbers from a row to the next.
    pub row: usize,
    pub group: usize,
    pub share: usize,
    /// [heads], added to alpha.
    pub dt: Slice<'a, f32>,
    /// [heads], what a step of time is multiplied by.
    pub a: Slice<'a, f32>,
    /// [rows, heads]
    pub beta: Slice<'a, f32>,
    /// [rows, heads]
    pub decay: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl Rates<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Rates { betas, alphas, row, group, share, dt, a, beta, decay, rows } = *self;
        let heads = dt.len();
        holds(a, "a", heads);
        [beta, decay].into_iter().for_each(|s| holds(s, "rates", rows.most * heads));
        if rows.most > 0 && heads > 0 {
            let last = (heads - 1) / share * group + (heads - 1) % share;
            [betas, alphas]
                .into_iter()
                .for_each(|s| holds(s, "inputs", (rows.most - 1) * row + last + 1));
        }
        let (row, group, share) = (row as i32, group as i32, share as i32);
        let (heads, grid) = (heads as i32, [rows.most, 1, 1]);
        // SAFETY: see above.
        unsafe {
            launch!(
                queue, "rates", grid, WARP, betas, alphas, row, group, share, dt, a, rows.count,
                beta, decay, heads
            )
        }
    }
}

/// The convolution over time, and what it remembers.
#[derive(Clone, Copy)]
pub struct Convolve<'a> {
    /// [rows, channels]
    pub x: Slice<'a, f32>,
    pub channels: usize,
    pub taps: usize,
    /// [channels, taps], oldest first.
    pub kernel: Slice<'a, f32>,
    pub stretches: Slice<'a, Stretch>,
    /// One number: of stretches.
    pub count: Slice<'a, u32>,
    /// [rows], the stretch of each.
    pub stretch_of: Slice<'a, u32>,
    /// [rows, channels], not `x`.
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl Convolve<'_> {
    /// `out`, then the past of each stretch.
    ///
    /// # Safety
    ///
    /// States lie where stretches say, no two in one place, and rows are those of their stretches.
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Convolve { x, channels, taps, kernel, stretches, count, stretch_of, out, rows } = *self;
        assert!((1..=TAPS).contains(&taps), "{taps} taps");
        assert_ne!(x.address(), out.address(), "rows are read by those behind them");
        [x, out].into_iter().for_each(|s| holds(s, "x and out", rows.most * channels));
        holds(kernel, "the kernel", channels * taps);
        holds(stretch_of, "stretches of rows", rows.most);
        holds(count, "the count", 1);
        let blocks = channels.div_ceil(THREADS);
        let (grid, last) = ([blocks, rows.most, 1], [blocks, stretches.len(), 1]);
        let (channels, taps) = (channels as i32, taps as i32);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe {
            launch!(
                queue, "convolve", grid, THREADS, x, kernel, stretches, stretch_of, rows.count,
                out, channels, taps
            )?;
            launch!(queue, "remember", last, THREADS, x, stretches, count, channels, taps)
        }
    }
}

/// Rows through the states of their sequences.
#[derive(Clone, Copy)]
pub struct Recur<'a> {
    /// [rows, channels], convolved, queries and keys of length one.
    pub qkv: Slice<'a, f32>,
    /// [rows, value heads]
    pub beta: Slice<'a, f32>,
    /// [rows, value heads]
    pub decay: Slice<'a, f32>,
    pub stretches: Slice<'a, Stretch>,
    /// One number: of stretches.
    pub count: Slice<'a, u32>,
    pub key_heads: usize,
    pub value_heads: usize,
    /// A multiple of 32.
    pub head_dim: usize,
    /// Heads of values take those of keys in turn; else neighbours share one.
    pub in_turn: bool,
    /// Numbers of a state before those of heads: the convolution's past.
    pub past: usize,
    /// [rows, value heads, head_dim]
    pub out: Slice<'a, f32>,
    /// Rows at most.
    pub rows: usize,
}

impl Recur<'_> {
    /// # Safety
    ///
    /// As [`Convolve::launch`].
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Recur { qkv, beta, decay, stretches, count, key_heads, value_heads, .. } = *self;
        let Recur { head_dim, in_turn, past, out, rows, .. } = *self;
        assert!(head_dim.is_multiple_of(WARP) && head_dim <= MOST, "heads of {head_dim}");
        holds(qkv, "qkv", rows * (2 * key_heads + value_heads) * head_dim);
        [beta, decay].into_iter().for_each(|s| holds(s, "rates", rows * value_heads));
        holds(out, "out", rows * value_heads * head_dim);
        holds(count, "the count", 1);
        let grid = [head_dim.div_ceil(THREADS / WARP), value_heads, stretches.len()];
        let (key_heads, hd) = (key_heads as i32, head_dim as i32);
        let (in_turn, past) = (i32::from(in_turn), past as i32);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe {
            launch!(
                queue, "recur", grid, THREADS, qkv, beta, decay, stretches, count, out, key_heads,
                hd, in_turn, past
            )
        }
    }
}

/// `out = x / rms(x) * weight * silu(z)`, head by head; all [rows, heads, head_dim], x and out may be one.
#[derive(Clone, Copy)]
pub struct GatedNorm<'a> {
    pub x: Slice<'a, f32>,
    pub z: Slice<'a, f32>,
    /// [head_dim]
    pub weight: Slice<'a, f32>,
    pub heads: usize,
    pub eps: f32,
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl GatedNorm<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let GatedNorm { x, z, weight, heads, eps, out, rows } = *self;
        let hd = weight.len();
        [x, z, out].into_iter().for_each(|s| holds(s, "x, z and out", rows.most * heads * hd));
        let (grid, hd) = ([heads, rows.most, 1], hd as i32);
        // SAFETY: see above.
        unsafe { launch!(queue, "gated_norm", grid, WARP, x, z, weight, rows.count, out, hd, eps) }
    }
}
