//! Registers of `N` lanes in plain Rust: what every operation means.

use half::{bf16, f16};

use super::{Lanes, Rows, total};

/// `N` lanes of 32 bits, any number up to [`super::MOST`].
#[derive(Clone, Copy)]
pub(crate) struct Plain<const N: usize>;

fn each<const N: usize, A: Copy, B: Copy, C>(
    a: [A; N],
    b: [B; N],
    f: impl Fn(A, B) -> C,
) -> [C; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

fn bytes(a: i32) -> [u8; 4] {
    a.to_le_bytes()
}

impl<const N: usize> Lanes for Plain<N> {
    const N: usize = N;
    const SIGNED_OFFSET: i32 = 0;
    // Halves of one lane would be halves of a number.
    const ALONG: bool = N > 1;
    type I = [i32; N];
    type F = [f32; N];
    type S = [i16; 16];

    fn splat(self, v: i32) -> Self::I {
        [v; N]
    }
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a & b)
    }
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a | b)
    }
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, |a, b| a ^ b)
    }
    fn add(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, i32::wrapping_add)
    }
    fn sub(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, i32::wrapping_sub)
    }
    fn mul(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, i32::wrapping_mul)
    }
    fn max(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, i32::max)
    }
    fn shl(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| a << by)
    }
    fn shr(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| (a as u32 >> by) as i32)
    }
    fn lookup(self, table: &[u8; 16], a: Self::I) -> Self::I {
        a.map(|a| i32::from_le_bytes(bytes(a).map(|b| table[usize::from(b & 15)])))
    }
    fn dot(self, acc: Self::I, w: Self::I, y: Self::I) -> Self::I {
        let four =
            |w, y| (0..4).map(|i| i32::from(bytes(w)[i]) * i32::from(bytes(y)[i] as i8)).sum();
        self.add(acc, each(w, y, four))
    }
    fn signed(self, w: Self::I) -> Self::I {
        w
    }
    fn dot_signed(self, acc: Self::I, w: Self::I, y: Self::I) -> Self::I {
        let byte = |v: i32, i: usize| i32::from(bytes(v)[i] as i8);
        let four = |w, y| (0..4).map(|i| byte(w, i) * byte(y, i)).sum();
        self.add(acc, each(w, y, four))
    }
    fn pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        let two =
            |a: i32, b: i32| i32::from(a as i16) * i32::from(b as i16) + (a >> 16) * (b >> 16);
        self.add(acc, each(a, b, two))
    }
    fn small(self, all: [u32; 4]) -> [i16; 16] {
        std::array::from_fn(|i| i16::from(bytes(all[i / 4] as i32)[i % 4] as i8))
    }
    fn scales(self, small: [i16; 16], of: [usize; 4], i: usize) -> Self::I {
        std::array::from_fn(|lane| {
            // Which byte of the 32 from one place.
            let at = 2 * N * i + 4 * lane % (2 * N);
            let scale = small[of[2 * (2 * lane / N) + at / 16]];
            i32::from(scale) << 16 | i32::from(scale as u16)
        })
    }
    unsafe fn weigh(self, small: [i16; 16], y: *const i16) -> Self::I {
        // SAFETY: by the caller.
        let y = unsafe { y.cast::<[i16; 16]>().read_unaligned() };
        let mut sum = [0; N];
        for (i, (a, b)) in small.iter().zip(y).enumerate() {
            sum[i % N] += i32::from(*a) * i32::from(b);
        }
        sum
    }
    fn scaled(self, acc: Self::I, w: Self::I, y: Self::I, scale: Self::I) -> Self::I {
        self.add(acc, self.mul(self.dot([0; N], w, y), scale.map(|s| s >> 16)))
    }
    fn totals(self, of: [Self::I; 4]) -> [i32; 4] {
        of.map(|lanes| lanes.into_iter().fold(0, i32::wrapping_add))
    }
    fn shr_two(self, v: Self::I, a: u32, b: u32) -> Self::I {
        std::array::from_fn(|i| (v[i] as u32 >> if 2 * i < N { a } else { b }) as i32)
    }
    fn float(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    fn as_float(self, a: Self::I) -> Self::F {
        a.map(|a| f32::from_bits(a as u32))
    }
    fn half(self, a: Self::I) -> Self::F {
        a.map(|a| f16::from_bits(a as u16).to_f32())
    }

    fn splat_f(self, v: f32) -> Self::F {
        [v; N]
    }
    fn add_f(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a + b)
    }
    fn mul_f(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a * b)
    }
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    fn totals_f(self, of: [Self::F; 4]) -> [f32; 4] {
        of.map(total)
    }

    unsafe fn load_f(self, p: *const f32) -> Self::F {
        // SAFETY: by the caller.
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    unsafe fn store_f(self, p: *mut f32, v: Self::F) {
        // SAFETY: by the caller.
        unsafe { p.cast::<[f32; N]>().write_unaligned(v) }
    }
    unsafe fn load_half(self, p: *const u16) -> Self::F {
        // SAFETY: by the caller.
        let all = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        all.map(|bits| f16::from_bits(bits).to_f32())
    }
    unsafe fn load_brain(self, p: *const u16) -> Self::F {
        // SAFETY: by the caller.
        let all = unsafe { p.cast::<[u16; N]>().read_unaligned() };
        all.map(|bits| bf16::from_bits(bits).to_f32())
    }
    unsafe fn load_bytes(self, p: *const i8) -> Self::I {
        // SAFETY: by the caller.
        unsafe { p.cast::<[i8; N]>().read_unaligned() }.map(i32::from)
    }
    unsafe fn quads(self, rows: Rows) -> [Self::I; 4] {
        // SAFETY: by the caller.
        std::array::from_fn(|j| unsafe { self.heads(rows.at(4 * j)) })
    }
    unsafe fn halves(self, a: *const u8, b: *const u8) -> Self::I {
        std::array::from_fn(|i| {
            let at = if 2 * i < N { a.wrapping_add(4 * i) } else { b.wrapping_add(4 * i - 2 * N) };
            // SAFETY: by the caller.
            i32::from_le_bytes(unsafe { at.cast::<[u8; 4]>().read() })
        })
    }
    unsafe fn heads(self, rows: Rows) -> Self::I {
        // SAFETY: by the caller; bytes need no alignment.
        std::array::from_fn(|r| i32::from_le_bytes(unsafe { rows.row(r).cast::<[u8; 4]>().read() }))
    }
    fn prefetch(self, _: *const u8) {}
}
