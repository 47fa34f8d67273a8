//! AVX-512 with VNNI: sixteen lanes.

use std::arch::x86_64::*;

use super::{Lanes, Rows, Work, avx2};

/// Exists only where the instructions do.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Beside what AVX2 needs.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
}

/// # Safety
///
/// The instructions were detected.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) unsafe fn run<W: Work>(work: W) -> W::Output {
    work.run(Avx512(()))
}

// SAFETY, for every block of this file: the value `self` proves that the processor has the instructions, and pointers
// are good by the contracts of `Lanes`.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Avx512 {
    const N: usize = 16;
    const SIGNED_OFFSET: i32 = 128;
    const ALONG: bool = true;
    type I = __m512i;
    type F = __m512;
    type S = __m512i;

    #[inline(always)]
    fn splat(self, v: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(v) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    fn shl(self, a: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(a, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    fn shr(self, a: __m512i, by: u32) -> __m512i {
        unsafe { _mm512_srlv_epi32(a, _mm512_set1_epi32(by as i32)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], a: __m512i) -> __m512i {
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, a)
        }
    }
    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, y: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, y) }
    }
    #[inline(always)]
    fn signed(self, w: __m512i) -> __m512i {
        // The instruction wants unsigned times signed.
        unsafe { _mm512_xor_si512(w, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    fn dot_signed(self, acc: __m512i, w: __m512i, y: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, y) }
    }
    #[inline(always)]
    fn pairs(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }
    #[inline(always)]
    fn small(self, bytes: [u32; 4]) -> __m512i {
        unsafe {
            _mm512_castsi256_si512(_mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.as_ptr().cast())))
        }
    }
    #[inline(always)]
    fn small_of_six_bits(self, [a, b, c]: [u32; 3]) -> __m512i {
        // All four words of the trait's expression at once.
        unsafe {
            let all = _mm_setr_epi32(a as i32, b as i32, c as i32, 0);
            let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
            let low =
                _mm_srlv_epi32(_mm_shuffle_epi32::<0b10_01_10_00>(all), _mm_setr_epi32(0, 0, 0, 4));
            let top = _mm_srli_epi32::<2>(_mm_shuffle_epi32::<0b01_01_00_00>(all));
            let bytes = _mm_or_si128(
                _mm_and_si128(low, _mm_setr_epi32(six, four, six, four)),
                _mm_and_si128(top, _mm_setr_epi32(0, two, 0, two)),
            );
            _mm512_castsi256_si512(_mm256_cvtepi8_epi16(bytes))
        }
    }
    #[inline(always)]
    fn scales(self, small: __m512i, of: [usize; 4], _: usize) -> __m512i {
        unsafe {
            let [a, b, c, d] = of.map(|j| j as i64 * 0x0001_0001_0001_0001);
            _mm512_permutexvar_epi16(_mm512_setr_epi64(a, a, b, b, c, c, d, d), small)
        }
    }
    #[inline(always)]
    unsafe fn weigh(self, small: __m512i, y: *const i16) -> __m512i {
        unsafe {
            let small = _mm512_castsi512_si256(small);
            _mm512_zextsi256_si512(_mm256_madd_epi16(small, _mm256_loadu_si256(y.cast())))
        }
    }
    #[inline(always)]
    fn scaled(self, acc: __m512i, w: __m512i, y: __m512i, scale: __m512i) -> __m512i {
        // Two products of at most 127 * 127 stay within 16 bits.
        unsafe { _mm512_dpwssd_epi32(acc, _mm512_maddubs_epi16(w, y), scale) }
    }
    #[inline(always)]
    fn totals(self, of: [__m512i; 4]) -> [i32; 4] {
        unsafe {
            let [a, b, c, d] = of;
            let add = |a, b| _mm512_add_epi32(a, b);
            let ab = add(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = add(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let all = add(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let half =
                _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
            let whole =
                _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            std::mem::transmute::<__m128i, [i32; 4]>(whole)
        }
    }
    #[inline(always)]
    fn shr_two(self, v: __m512i, a: u32, b: u32) -> __m512i {
        unsafe {
            let (a, b) = (_mm256_set1_epi32(a as i32), _mm256_set1_epi32(b as i32));
            _mm512_srlv_epi32(v, _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
        }
    }
    #[inline(always)]
    fn float(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn as_float(self, a: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn half(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }

    #[inline(always)]
    fn splat_f(self, v: f32) -> __m512 {
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    fn add_f(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn mul_f(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn totals_f(self, of: [__m512; 4]) -> [f32; 4] {
        unsafe {
            let half = |v: __m512| {
                _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))
            };
            let [a, b, c, d] = of;
            avx2::totals([half(a), half(b), half(c), half(d)])
        }
    }

    #[inline(always)]
    unsafe fn load_f(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_f(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_brain(self, p: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_bytes(self, p: *const i8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn quads(self, rows: Rows) -> [__m512i; 4] {
        unsafe {
            let load = |r: usize| _mm_loadu_si128(rows.row(r).cast());
            let join = |r: usize| {
                let all = _mm512_castsi128_si512(load(r));
                let all = _mm512_inserti32x4::<1>(all, load(r + 4));
                let all = _mm512_inserti32x4::<2>(all, load(r + 8));
                _mm512_inserti32x4::<3>(all, load(r + 12))
            };
            let (a, b, c, d) = (join(0), join(1), join(2), join(3));
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn halves(self, a: *const u8, b: *const u8) -> __m512i {
        unsafe {
            let (a, b) = (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast()));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b)
        }
    }
    #[inline(always)]
    unsafe fn heads(self, rows: Rows) -> __m512i {
        // What is not used of the four is not computed.
        let [heads, ..] = unsafe { self.quads(rows) };
        heads
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
