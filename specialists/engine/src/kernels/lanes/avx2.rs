//! AVX2 with FMA and F16C: eight lanes.

use std::arch::x86_64::*;

use super::{Lanes, Rows, Work};

/// Exists only where the instructions do.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// # Safety
///
/// The instructions were detected.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run(Avx2(()))
}

/// [`Lanes::totals_f`].
///
/// # Safety
///
/// The instructions were detected.
#[inline(always)]
pub(super) unsafe fn totals(of: [__m256; 4]) -> [f32; 4] {
    // SAFETY: by the caller.
    unsafe {
        let half = |v: __m256| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let pairs = |a, b| _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
        let [a, b, c, d] = of;
        let (ab, cd) = (pairs(half(a), half(b)), pairs(half(c), half(d)));
        let whole = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
        std::mem::transmute::<__m128, [f32; 4]>(whole)
    }
}

// SAFETY, for every block of this file: the value `self` proves that the processor has the instructions, and pointers
// are good by the contracts of `Lanes`.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx2 {
    const N: usize = 8;
    const SIGNED_OFFSET: i32 = 0;
    // A token of Q4_K is 19 % more instructions that way; its time was not measured here.
    const ALONG: bool = false;
    type I = __m256i;
    type F = __m256;
    /// The first eight twice, and the last.
    type S = [__m256i; 2];

    #[inline(always)]
    fn splat(self, v: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(v) }
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_max_epi32(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_sllv_epi32(a, _mm256_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: __m256i, by: u32) -> __m256i {
        unsafe { _mm256_srlv_epi32(a, _mm256_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], a: __m256i) -> __m256i {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, a)
        }
    }
    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, y: __m256i) -> __m256i {
        // Two products of at most 127 * 127 stay within 16 bits.
        unsafe {
            let two = _mm256_maddubs_epi16(w, y);
            _mm256_add_epi32(acc, _mm256_madd_epi16(two, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn signed(self, w: __m256i) -> __m256i {
        w
    }
    #[inline(always)]
    fn dot_signed(self, acc: __m256i, w: __m256i, y: __m256i) -> __m256i {
        // The instruction wants unsigned times signed: |w|, and w's sign on the other side.  Two products of at most
        // 128 * 127 stay within 16 bits.
        unsafe {
            let two = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(y, w));
            _mm256_add_epi32(acc, _mm256_madd_epi16(two, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn pairs(self, acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    fn small(self, bytes: [u32; 4]) -> [__m256i; 2] {
        unsafe {
            let all = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.as_ptr().cast()));
            [
                _mm256_permute4x64_epi64::<0b01_00_01_00>(all),
                _mm256_permute4x64_epi64::<0b11_10_11_10>(all),
            ]
        }
    }
    #[inline(always)]
    fn scales(self, small: [__m256i; 2], of: [usize; 4], i: usize) -> __m256i {
        unsafe {
            let bytes = |j: usize| _mm_set1_epi16(0x0100 + 0x0202 * (j % 8) as i16);
            let places = _mm256_set_m128i(bytes(of[2 + i]), bytes(of[i]));
            _mm256_shuffle_epi8(small[of[0] / 8], places)
        }
    }
    #[inline(always)]
    unsafe fn weigh(self, small: [__m256i; 2], y: *const i16) -> __m256i {
        unsafe {
            let all = _mm256_blend_epi32::<0b1111_0000>(small[0], small[1]);
            _mm256_madd_epi16(all, _mm256_loadu_si256(y.cast()))
        }
    }
    #[inline(always)]
    fn scaled(self, acc: __m256i, w: __m256i, y: __m256i, scale: __m256i) -> __m256i {
        // As in `dot`.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, y), scale)) }
    }
    #[inline(always)]
    fn totals(self, of: [__m256i; 4]) -> [i32; 4] {
        unsafe {
            let [a, b, c, d] = of;
            let add = |a, b| _mm256_add_epi32(a, b);
            let ab = add(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = add(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            let half = add(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            let whole =
                _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            std::mem::transmute::<__m128i, [i32; 4]>(whole)
        }
    }
    #[inline(always)]
    fn shr_two(self, v: __m256i, a: u32, b: u32) -> __m256i {
        unsafe {
            let by = _mm256_set_m128i(_mm_set1_epi32(b as i32), _mm_set1_epi32(a as i32));
            _mm256_srlv_epi32(v, by)
        }
    }
    #[inline(always)]
    fn float(self, a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn as_float(self, a: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    fn half(self, a: __m256i) -> __m256 {
        unsafe {
            let low = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
            let packed = _mm256_packus_epi32(low, low);
            let halves = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed));
            _mm256_cvtph_ps(halves)
        }
    }

    #[inline(always)]
    fn splat_f(self, v: f32) -> __m256 {
        unsafe { _mm256_set1_ps(v) }
    }
    #[inline(always)]
    fn add_f(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn mul_f(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn totals_f(self, of: [__m256; 4]) -> [f32; 4] {
        unsafe { totals(of) }
    }

    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_brain(self, p: *const u16) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn quads(self, rows: Rows) -> [__m256i; 4] {
        unsafe {
            let load = |r: usize| _mm_loadu_si128(rows.row(r).cast());
            let join = |r: usize| _mm256_set_m128i(load(r + 4), load(r));
            let (a, b, c, d) = (join(0), join(1), join(2), join(3));
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn halves(self, a: *const u8, b: *const u8) -> __m256i {
        unsafe { _mm256_set_m128i(_mm_loadu_si128(b.cast()), _mm_loadu_si128(a.cast())) }
    }
    #[inline(always)]
    unsafe fn heads(self, rows: Rows) -> __m256i {
        // What is not used of the four is not computed.
        let [heads, ..] = unsafe { self.quads(rows) };
        heads
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
