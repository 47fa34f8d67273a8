//! Keys and values of [`PAGE`] tokens as they lie in a page, and how one token's are written.
//!
//! Keys lie number by number, each of all tokens side by side, so that one register holds as many tokens' scores;
//! values lie token by token, so that one register holds as many of the answer's numbers.

use std::marker::PhantomData;

use config::Precision;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::float::Float;
use super::lanes::Lanes;

/// Tokens in a page.
pub const PAGE: usize = 32;
/// Numbers that share a scale in [`Precision::Q8`].
const BLOCK: usize = 32;

/// Keys and values of one layer in a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFormat {
    pub precision: Precision,
    /// Numbers of a token's key, and of its value: those of all heads.
    pub dim: usize,
}

impl PageFormat {
    /// Bytes of keys alone, and of values.
    fn half_bytes(self) -> usize {
        let numbers = PAGE * self.dim;
        match self.precision {
            Precision::F32 => 4 * numbers,
            Precision::F16 => 2 * numbers,
            Precision::Q8 => numbers + 2 * PAGE * self.dim.div_ceil(BLOCK),
        }
    }

    /// Bytes of both.
    pub fn bytes(self) -> usize {
        2 * self.half_bytes()
    }

    /// Writes the key and the value of the `token`-th token, [dim] each.
    ///
    /// # Safety
    ///
    /// `bytes` bytes that nobody reads meanwhile lie at `page`.
    pub unsafe fn put(self, page: *mut u8, token: usize, key: &[f32], value: &[f32]) {
        assert!(token < PAGE && key.len() == self.dim && value.len() == self.dim);
        // SAFETY: within the page, by the layout; below as well.
        let values = unsafe { page.add(self.half_bytes()) };
        match self.precision {
            Precision::F32 => {
                let (keys, values) = (page.cast::<f32>(), values.cast::<f32>());
                for (d, (k, v)) in key.iter().zip(value).enumerate() {
                    // SAFETY: see above.
                    unsafe {
                        keys.add(d * PAGE + token).write(*k);
                        values.add(token * self.dim + d).write(*v);
                    }
                }
            }
            Precision::F16 => {
                let (keys, values) = (page.cast::<f16>(), values.cast::<f16>());
                for (b, (k, v)) in key.chunks(BLOCK).zip(value.chunks(BLOCK)).enumerate() {
                    let all = k.len();
                    for (i, (k, v)) in halves(k).iter().zip(&halves(v)).take(all).enumerate() {
                        let d = b * BLOCK + i;
                        // SAFETY: see above.
                        unsafe {
                            keys.add(d * PAGE + token).write(*k);
                            values.add(token * self.dim + d).write(*v);
                        }
                    }
                }
            }
            Precision::Q8 => {
                let blocks = self.dim.div_ceil(BLOCK);
                let both = key.chunks(BLOCK).zip(value.chunks(BLOCK)).enumerate();
                for (b, (k, v)) in both {
                    let ((k_scale, k_inverse), (v_scale, v_inverse)) = (scale(k), scale(v));
                    // SAFETY: see above.
                    unsafe {
                        let scales = page.add(PAGE * self.dim).cast::<f16>();
                        scales.add(b * PAGE + token).write(k_scale);
                        let scales = values.add(PAGE * self.dim).cast::<f16>();
                        scales.add(token * blocks + b).write(v_scale);
                        for (i, (k, v)) in k.iter().zip(v).enumerate() {
                            let d = b * BLOCK + i;
                            let byte = |v: f32, inverse: f32| (v * inverse).round_ties_even() as i8;
                            page.cast::<i8>().add(d * PAGE + token).write(byte(*k, k_inverse));
                            values
                                .cast::<i8>()
                                .add(token * self.dim + d)
                                .write(byte(*v, v_inverse));
                        }
                    }
                }
            }
        }
    }
}

/// The largest F16.
const LARGEST: f32 = 65504.0;

/// The nearest F16 of a block at most: what is beyond its range becomes its largest number, since infinity would make a
/// sequence's attention no number from there on.
fn halves(x: &[f32]) -> [f16; BLOCK] {
    let (mut within, mut halves) = ([0f32; BLOCK], [f16::ZERO; BLOCK]);
    within.iter_mut().zip(x).for_each(|(w, v)| *w = v.clamp(-LARGEST, LARGEST));
    halves.convert_from_f32_slice(&within);
    halves
}

/// A block's scale, and what its numbers are multiplied with before they are rounded.
fn scale(x: &[f32]) -> (f16, f32) {
    let most = x.iter().fold(0f32, |m, v| if v.is_nan() { *v } else { m.max(v.abs()) });
    let scale = f16::from_f32((most / 127.0).clamp(0.0, LARGEST));
    (scale, if most == 0.0 { 0.0 } else { 127.0 / most })
}

/// Reads pages of one precision.
pub(super) trait Stored {
    /// Number `d` of the keys of `L::N` tokens from `token` on.
    ///
    /// # Safety
    ///
    /// A page of the format lies at `page`, and the numbers within it; so below.
    unsafe fn key<L: Lanes>(
        l: L,
        format: PageFormat,
        page: *const u8,
        d: usize,
        token: usize,
    ) -> L::F;
    /// `L::N` numbers from `d` on of a token's value; they share a block if `d` is a multiple of [`super::lanes::MOST`].
    ///
    /// # Safety
    ///
    /// As `key`.
    unsafe fn value<L: Lanes>(
        l: L,
        format: PageFormat,
        page: *const u8,
        token: usize,
        d: usize,
    ) -> L::F;
    /// One number of a token's value.
    ///
    /// # Safety
    ///
    /// As `key`.
    unsafe fn one(format: PageFormat, page: *const u8, token: usize, d: usize) -> f32;
}

/// As numbers of this kind.
pub(super) struct Numbers<T>(PhantomData<T>);
pub(super) struct InQ8;

impl<T: Float> Numbers<T> {
    /// Where the numbers of a token's value begin, from `d` on.
    ///
    /// # Safety
    ///
    /// As [`Stored::key`].
    #[inline(always)]
    unsafe fn at(f: PageFormat, page: *const u8, token: usize, d: usize) -> *const T {
        // SAFETY: by the caller; so below.
        unsafe { page.add(f.half_bytes()).cast::<T>().add(token * f.dim + d) }
    }
}

impl<T: Float> Stored for Numbers<T> {
    #[inline(always)]
    unsafe fn key<L: Lanes>(l: L, _: PageFormat, page: *const u8, d: usize, token: usize) -> L::F {
        // SAFETY: see above.
        unsafe { T::load(l, page.cast::<T>().add(d * PAGE + token)) }
    }
    #[inline(always)]
    unsafe fn value<L: Lanes>(
        l: L,
        f: PageFormat,
        page: *const u8,
        token: usize,
        d: usize,
    ) -> L::F {
        // SAFETY: see above.
        unsafe { T::load(l, Self::at(f, page, token, d)) }
    }
    #[inline(always)]
    unsafe fn one(f: PageFormat, page: *const u8, token: usize, d: usize) -> f32 {
        // SAFETY: see above.
        unsafe { Self::at(f, page, token, d).read().one() }
    }
}

impl InQ8 {
    /// Where the numbers of a token's value begin, from `d` on, and the scale of the block that `d` is in.
    ///
    /// # Safety
    ///
    /// As [`Stored::key`].
    #[inline(always)]
    unsafe fn at(f: PageFormat, page: *const u8, token: usize, d: usize) -> (*const i8, f32) {
        // SAFETY: see above.
        unsafe {
            let values = page.add(f.half_bytes());
            let scales = values.add(PAGE * f.dim).cast::<f16>();
            let scale = scales.add(token * f.dim.div_ceil(BLOCK) + d / BLOCK).read().to_f32();
            (values.cast::<i8>().add(token * f.dim + d), scale)
        }
    }
}

impl Stored for InQ8 {
    #[inline(always)]
    unsafe fn key<L: Lanes>(l: L, f: PageFormat, page: *const u8, d: usize, token: usize) -> L::F {
        // SAFETY: see above.
        unsafe {
            let scales = page.add(PAGE * f.dim).cast::<u16>();
            let scale = l.load_half(scales.add(d / BLOCK * PAGE + token));
            l.mul_f(l.float(l.load_bytes(page.cast::<i8>().add(d * PAGE + token))), scale)
        }
    }
    #[inline(always)]
    unsafe fn value<L: Lanes>(
        l: L,
        f: PageFormat,
        page: *const u8,
        token: usize,
        d: usize,
    ) -> L::F {
        // SAFETY: see above.
        unsafe {
            let (bytes, scale) = Self::at(f, page, token, d);
            l.mul_f(l.float(l.load_bytes(bytes)), l.splat_f(scale))
        }
    }
    #[inline(always)]
    unsafe fn one(f: PageFormat, page: *const u8, token: usize, d: usize) -> f32 {
        // SAFETY: see above.
        unsafe {
            let (byte, scale) = Self::at(f, page, token, d);
            f32::from(byte.read()) * scale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_stays_a_number() {
        #[track_caller]
        fn check(precision: Precision, value: f32, want: f32) {
            let format = PageFormat { precision, dim: BLOCK };
            let mut page = vec![0u64; format.bytes() / 8];
            let page = page.as_mut_ptr().cast::<u8>();
            // SAFETY: the memory holds a page.
            let got = unsafe {
                format.put(page, 3, &[0.0; BLOCK], &[value; BLOCK]);
                match precision {
                    Precision::F32 => Numbers::<f32>::one(format, page, 3, 5),
                    Precision::F16 => Numbers::<f16>::one(format, page, 3, 5),
                    Precision::Q8 => InQ8::one(format, page, 3, 5),
                }
            };
            assert!(got == want || got.is_nan() && want.is_nan(), "{precision:?} {value}: {got}");
        }
        check(Precision::F32, 1e9, 1e9);
        check(Precision::F16, 1e9, 65504.0);
        check(Precision::F16, -1e9, -65504.0);
        check(Precision::F16, f32::NAN, f32::NAN);
        check(Precision::Q8, 127.0, 127.0);
        check(Precision::Q8, -1e9, -65504.0 * 127.0);
        check(Precision::Q8, f32::NAN, f32::NAN);
    }
}
