//! NEON: four lanes; with its dot products of bytes where the processor has them.
//!
//! Three instructions are written as such, since the standard library's functions for them are not stable in every
//! version of Rust that the project takes: `sdot`, `fcvtl` and `prfm`.
//!
//! The tests of `kernels` pass under emulation (QEMU), on processors with dot products and without.  On hardware it never
//! ran: nothing is known of its speed, nor whether asking for memory ahead of time helps there.  What only rows one after
//! the other need (`small`, `scales`, `weigh`, `scaled`, `totals`, `shr_two` and `halves`) no kernel uses here: `ALONG` is
//! off.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Lanes, Rows, Work};

/// Exists only where the instructions do: NEON, and with `DOT` the dot products.
#[derive(Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>(());

pub(super) fn detected() -> bool {
    is_aarch64_feature_detected!("neon")
}

/// Beside NEON.
pub(super) fn dot_detected() -> bool {
    is_aarch64_feature_detected!("dotprod")
}

/// # Safety
///
/// The instructions were detected.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run(Neon::<false>(()))
}

/// # Safety
///
/// As `run`, the dot products too.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn run_dot<W: Work>(work: W) -> W::Output {
    work.run(Neon::<true>(()))
}

/// `acc` plus the products of the four signed bytes of each lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: it reads and writes these registers alone.
    unsafe {
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

/// Four F16 as F32.
#[inline]
#[target_feature(enable = "neon")]
fn from_half(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: it reads and writes these registers alone.
    unsafe {
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = lateout(vreg) floats,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    floats
}

// SAFETY, for every block of this file below: the value `self` proves that the processor has the instructions, and
// pointers are good by the contracts of `Lanes`; what is loaded need not be aligned.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const DOT: bool> Lanes for Neon<DOT> {
    const N: usize = 4;
    const SIGNED_OFFSET: i32 = 0;
    const ALONG: bool = false;
    type I = int32x4_t;
    type F = float32x4_t;
    type S = [i16; 16];

    #[inline(always)]
    fn splat(self, v: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(v) }
    }
    #[inline(always)]
    fn and(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vandq_s32(a, b) }
    }
    #[inline(always)]
    fn or(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vorrq_s32(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { veorq_s32(a, b) }
    }
    #[inline(always)]
    fn add(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vsubq_s32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmulq_s32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vmaxq_s32(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: int32x4_t, by: u32) -> int32x4_t {
        unsafe { vshlq_s32(a, vdupq_n_s32(by as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: int32x4_t, by: u32) -> int32x4_t {
        // To the left by less than nothing.
        unsafe {
            let by = vdupq_n_s32(-(by as i32));
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), by))
        }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], a: int32x4_t) -> int32x4_t {
        unsafe {
            let found = vqtbl1q_u8(vld1q_u8(table.as_ptr()), vreinterpretq_u8_s32(a));
            vreinterpretq_s32_u8(found)
        }
    }
    #[inline(always)]
    fn dot(self, acc: int32x4_t, w: int32x4_t, y: int32x4_t) -> int32x4_t {
        // Below 128 signed and unsigned are one.
        self.dot_signed(acc, w, y)
    }
    #[inline(always)]
    fn signed(self, w: int32x4_t) -> int32x4_t {
        w
    }
    #[inline(always)]
    fn dot_signed(self, acc: int32x4_t, w: int32x4_t, y: int32x4_t) -> int32x4_t {
        unsafe {
            if DOT {
                return sdot(acc, w, y);
            }
            // Two products of at most 128 * 127 stay within 16 bits.
            let (w, y) = (vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(y));
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(y));
            vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, y)))
        }
    }
    #[inline(always)]
    fn pairs(self, acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe {
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)))
        }
    }
    #[inline(always)]
    fn small(self, bytes: [u32; 4]) -> [i16; 16] {
        let byte = |i: usize| i16::from(bytes[i / 4].to_le_bytes()[i % 4] as i8);
        super::sixteen(byte)
    }
    #[inline(always)]
    fn scales(self, small: [i16; 16], of: [usize; 4], i: usize) -> int32x4_t {
        unsafe {
            let (a, b) = (vdup_n_s16(small[of[i / 2]]), vdup_n_s16(small[of[2 + i / 2]]));
            vreinterpretq_s32_s16(vcombine_s16(a, b))
        }
    }
    #[inline(always)]
    unsafe fn weigh(self, small: [i16; 16], y: *const i16) -> int32x4_t {
        unsafe {
            let (a, b) = (vld1q_s16(small.as_ptr()), vld1q_s16(small.as_ptr().add(8)));
            let (y, z) = (vld1q_s16(y), vld1q_s16(y.add(8)));
            let low = vmlal_s16(
                vmull_s16(vget_low_s16(a), vget_low_s16(y)),
                vget_low_s16(b),
                vget_low_s16(z),
            );
            vmlal_high_s16(vmlal_high_s16(low, a, y), b, z)
        }
    }
    #[inline(always)]
    fn scaled(self, acc: int32x4_t, w: int32x4_t, y: int32x4_t, scale: int32x4_t) -> int32x4_t {
        unsafe { vmlaq_s32(acc, self.dot(vdupq_n_s32(0), w, y), vshrq_n_s32::<16>(scale)) }
    }
    #[inline(always)]
    fn totals(self, of: [int32x4_t; 4]) -> [i32; 4] {
        unsafe { [vaddvq_s32(of[0]), vaddvq_s32(of[1]), vaddvq_s32(of[2]), vaddvq_s32(of[3])] }
    }
    #[inline(always)]
    fn shr_two(self, v: int32x4_t, a: u32, b: u32) -> int32x4_t {
        // As `shr`.
        unsafe {
            let by = vcombine_s32(vdup_n_s32(-(a as i32)), vdup_n_s32(-(b as i32)));
            vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), by))
        }
    }
    #[inline(always)]
    fn float(self, a: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    fn as_float(self, a: int32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(a) }
    }
    #[inline(always)]
    fn half(self, a: int32x4_t) -> float32x4_t {
        unsafe { from_half(vmovn_u32(vreinterpretq_u32_s32(a))) }
    }

    #[inline(always)]
    fn splat_f(self, v: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(v) }
    }
    #[inline(always)]
    fn add_f(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn mul_f(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn totals_f(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        unsafe {
            let pairs = |a, b| vaddq_f32(vzip1q_f32(a, b), vzip2q_f32(a, b));
            let (ab, cd) = (pairs(a, b), pairs(c, d));
            let evens = vcombine_f32(vget_low_f32(ab), vget_low_f32(cd));
            let odds = vcombine_f32(vget_high_f32(ab), vget_high_f32(cd));
            std::mem::transmute::<float32x4_t, [f32; 4]>(vaddq_f32(evens, odds))
        }
    }

    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> float32x4_t {
        unsafe { from_half(vld1_u16(p)) }
    }
    #[inline(always)]
    unsafe fn load_brain(self, p: *const u16) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const i8) -> int32x4_t {
        unsafe {
            let four = vcreate_s8(u64::from(p.cast::<u32>().read_unaligned()));
            vmovl_s16(vget_low_s16(vmovl_s8(four)))
        }
    }
    #[inline(always)]
    unsafe fn quads(self, rows: Rows) -> [int32x4_t; 4] {
        unsafe {
            let load = |r: usize| vreinterpretq_s32_u8(vld1q_u8(rows.row(r)));
            let (a, b, c, d) = (load(0), load(1), load(2), load(3));
            let pair = |v| vreinterpretq_s64_s32(v);
            let (ab, cd) = (pair(vzip1q_s32(a, b)), pair(vzip1q_s32(c, d)));
            let (ab_high, cd_high) = (pair(vzip2q_s32(a, b)), pair(vzip2q_s32(c, d)));
            [
                vreinterpretq_s32_s64(vzip1q_s64(ab, cd)),
                vreinterpretq_s32_s64(vzip2q_s64(ab, cd)),
                vreinterpretq_s32_s64(vzip1q_s64(ab_high, cd_high)),
                vreinterpretq_s32_s64(vzip2q_s64(ab_high, cd_high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn halves(self, a: *const u8, b: *const u8) -> int32x4_t {
        unsafe { vreinterpretq_s32_u8(vcombine_u8(vld1_u8(a), vld1_u8(b))) }
    }
    #[inline(always)]
    unsafe fn heads(self, rows: Rows) -> int32x4_t {
        // What is not used of the four is not computed.
        let [heads, ..] = unsafe { self.quads(rows) };
        heads
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // It asks, and neither reads nor faults.
        unsafe {
            asm!(
                "prfm pldl1keep, [{p}]",
                p = in(reg) p.addr(),
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}
