//! Dot products of rows of F32, F16 and BF16.
//!
//! Number i of a row goes to sum i mod 16, in order, by `fma`; the sixteen are then added in halves: 0 with 8, then 0
//! with 4, and so on.

use std::ops::Range;

use super::lanes::{Lanes, total, wide};

/// Sums of a dot product.
const SUMS: usize = 16;
/// Rows of weights at once: as many chains of additions run side by side.
pub(super) const ROWS: usize = 4;

/// How numbers lie in a file.
pub(super) trait Float: Copy {
    /// `L::N` of them.
    ///
    /// # Safety
    ///
    /// They lie at `p`.
    unsafe fn load<L: Lanes>(l: L, p: *const Self) -> L::F;
    fn one(self) -> f32;
}

impl Float for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, p: *const f32) -> L::F {
        // SAFETY: by the caller; so below.
        unsafe { l.load_f(p) }
    }
    #[inline(always)]
    fn one(self) -> f32 {
        self
    }
}

impl Float for half::f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, p: *const half::f16) -> L::F {
        // SAFETY: see above.
        unsafe { l.load_half(p.cast()) }
    }
    #[inline(always)]
    fn one(self) -> f32 {
        self.to_f32()
    }
}

impl Float for half::bf16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(l: L, p: *const half::bf16) -> L::F {
        // SAFETY: see above.
        unsafe { l.load_brain(p.cast()) }
    }
    #[inline(always)]
    fn one(self) -> f32 {
        self.to_f32()
    }
}

/// [`ROWS`] rows with `C` rows of activations: `[c][row]`.
///
/// # Safety
///
/// `k` numbers lie at each of `rows` and of `xs`.
#[inline(always)]
pub(super) unsafe fn dots<L: Lanes, T: Float, const C: usize>(
    l: L,
    rows: [*const T; ROWS],
    xs: [*const f32; C],
    k: usize,
) -> [[f32; ROWS]; C] {
    let end = k / SUMS * SUMS;
    // As many of the first as sixteen sums have registers.
    let mut parts = [[[l.splat_f(0.0); ROWS]; C]; SUMS];
    for at in (0..end).step_by(SUMS) {
        for (part, acc) in parts.iter_mut().take(SUMS / L::N).enumerate() {
            let at = at + part * L::N;
            let mut w = [l.splat_f(0.0); ROWS];
            for (w, row) in w.iter_mut().zip(rows) {
                // SAFETY: by the caller.
                *w = unsafe { T::load(l, row.add(at)) };
            }
            for (acc, x) in acc.iter_mut().zip(xs) {
                // SAFETY: by the caller.
                let x = unsafe { l.load_f(x.add(at)) };
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = l.fma(w, x, *acc);
                }
            }
        }
    }
    if end < k {
        // SAFETY: by the caller.
        unsafe { rest(l, rows, xs, end..k, &mut parts) };
    }
    let mut half = SUMS / L::N / 2;
    while half > 0 {
        for part in 0..half {
            let last = parts[part + half];
            for (acc, last) in parts[part].iter_mut().zip(last) {
                for (acc, last) in acc.iter_mut().zip(last) {
                    *acc = l.add_f(*acc, last);
                }
            }
        }
        half /= 2;
    }
    let mut out = [[0f32; ROWS]; C];
    for (out, acc) in out.iter_mut().zip(parts[0]) {
        *out = l.totals_f(acc);
    }
    out
}

/// Adds the numbers that are too few for all sums, with zeros behind them.
///
/// # Safety
///
/// They lie there.
#[inline(always)]
unsafe fn rest<L: Lanes, T: Float, const C: usize>(
    l: L,
    rows: [*const T; ROWS],
    xs: [*const f32; C],
    at: Range<usize>,
    parts: &mut [[[L::F; ROWS]; C]; SUMS],
) {
    for (c, x) in xs.into_iter().enumerate() {
        for (r, row) in rows.into_iter().enumerate() {
            let mut pair = [[0f32; SUMS]; 2];
            for (i, at) in at.clone().enumerate() {
                // SAFETY: by the caller.
                let (w, x) = unsafe { (row.add(at).read_unaligned(), x.add(at).read()) };
                (pair[0][i], pair[1][i]) = (w.one(), x);
            }
            for (part, acc) in parts.iter_mut().take(SUMS / L::N).enumerate() {
                // SAFETY: a register's numbers.
                let [w, x] = pair.each_ref().map(
                    #[inline(always)]
                    |all| unsafe { l.load_f(all.as_ptr().add(part * L::N)) },
                );
                acc[c][r] = l.fma(w, x, acc[c][r]);
            }
        }
    }
}

/// As [`dot_f32`], for code that is compiled for a set of instructions itself.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; SUMS];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            sums[i] = a[i].mul_add(b[i], sums[i]);
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum = a.mul_add(*b, *sum);
    }
    total(sums)
}

/// Sum of `a[i] * b[i]`; equal lengths.
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    wide! {
        fn all(a: &[f32], b: &[f32]) -> f32 {
            dot(a, b)
        }
    }
    assert_eq!(a.len(), b.len());
    all(a, b)
}
