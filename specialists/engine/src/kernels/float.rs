//! Dot products of rows of F32, F16 and BF16.
//!
//! Number i of a row goes to sum i mod 16, in order, by `fma`; the sixteen are then added in halves: 0 with 8, then 0
//! with 4, and so on.

use super::lanes::{Lanes, wide};

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

/// The sixteen sums as one.
#[inline(always)]
fn whole(mut sums: [f32; SUMS]) -> f32 {
    let mut half = SUMS / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `R` rows with one row of activations.
///
/// # Safety
///
/// `k` numbers lie at each of `rows` and at `x`.
#[inline(always)]
pub(super) unsafe fn dots<L: Lanes, T: Float, const R: usize>(
    l: L,
    rows: [*const T; R],
    x: *const f32,
    k: usize,
) -> [f32; R] {
    // Sixteen lanes are as many registers at most.
    let mut acc = [[l.splat_f(0.0); SUMS]; R];
    for at in (0..k / SUMS * SUMS).step_by(SUMS) {
        for part in 0..SUMS / L::N {
            let at = at + part * L::N;
            // SAFETY: by the caller.
            let y = unsafe { l.load_f(x.add(at)) };
            for (row, acc) in rows.iter().zip(&mut acc) {
                // SAFETY: by the caller.
                let w = unsafe { T::load(l, row.add(at)) };
                acc[part] = l.fma(w, y, acc[part]);
            }
        }
    }
    let mut out = [0f32; R];
    for r in 0..R {
        let mut sums = [0f32; SUMS];
        for (sums, part) in sums.chunks_exact_mut(L::N).zip(acc[r]) {
            // SAFETY: a register's numbers.
            unsafe { l.store_f(sums.as_mut_ptr(), part) };
        }
        for (sum, at) in sums.iter_mut().zip(k / SUMS * SUMS..k) {
            // SAFETY: by the caller.
            let (w, y) = unsafe { (rows[r].add(at).read_unaligned().one(), x.add(at).read()) };
            *sum = w.mul_add(y, *sum);
        }
        out[r] = whole(sums);
    }
    out
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
    whole(sums)
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
