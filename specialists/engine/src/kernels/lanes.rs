//! Registers: what kernels are written with, in the instructions of each processor.
//!
//! A kernel is one generic function over [`Lanes`]; [`run`] compiles it for every set of instructions and picks, at run
//! time, the widest that the processor has.  Every operation is defined by what `portable` does in plain Rust, and all
//! sets give its bits: a kernel keeps each output number in one lane, so that how many lanes there are changes how fast
//! it comes, not what it is.
//!
//! To add a set of instructions: a file beside `portable` that implements [`Lanes`], and its lines in [`Set`];
//! `tests` then compares each of its operations with plain Rust's, and the tests of `kernels` all that is made of them.
//! Both test what the processor has that runs them; of NEON `neon` says what was tested where.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use portable::Plain;

/// The most lanes that any set has.
pub(crate) const MOST: usize = 16;

/// As many rows of weights as there are lanes: where the first is, and how many bytes apart they are.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub start: *const u8,
    pub stride: usize,
}

impl Rows {
    /// The same, so many bytes further on in each row.
    #[inline(always)]
    pub fn at(self, bytes: usize) -> Rows {
        Rows { start: self.start.wrapping_add(bytes), stride: self.stride }
    }

    #[inline(always)]
    pub fn row(self, i: usize) -> *const u8 {
        self.start.wrapping_add(i * self.stride)
    }
}

/// A set of instructions.  A value of the type is the proof that the processor has it, so that its methods are safe but
/// for the pointers they take.
///
/// A register holds [`Lanes::N`] numbers of 32 bits; as integers they may also stand for four bytes or two halves each.
pub(crate) trait Lanes: Copy {
    const N: usize;
    /// How much larger the weights that [`Lanes::signed`] makes are than what they stand for.
    const SIGNED_OFFSET: i32;
    /// Whether rows one after the other are quicker than side by side where there is one row of activations.
    const ALONG: bool;
    type I: Copy;
    type F: Copy;
    /// Sixteen signed halves.
    type S: Copy;

    fn splat(self, v: i32) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    fn add(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    /// The low 32 bits of the product.
    fn mul(self, a: Self::I, b: Self::I) -> Self::I;
    /// The larger, signed.
    fn max(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl(self, a: Self::I, by: u32) -> Self::I;
    /// Zeros come in.
    fn shr(self, a: Self::I, by: u32) -> Self::I;
    /// Each byte, below 16, replaced by that byte of the table.
    fn lookup(self, table: &[u8; 16], a: Self::I) -> Self::I;
    /// `acc` plus the products of the four bytes of each lane; `w` unsigned and below 128, `y` signed and above -128.
    fn dot(self, acc: Self::I, w: Self::I, y: Self::I) -> Self::I;
    /// Signed bytes as [`Lanes::dot_signed`] takes them.
    fn signed(self, w: Self::I) -> Self::I;
    /// As `dot` with what `signed` made.
    fn dot_signed(self, acc: Self::I, w: Self::I, y: Self::I) -> Self::I;
    /// `acc` plus the products of the two signed halves of each lane.
    fn pairs(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// Sixteen signed bytes as halves.
    fn small(self, bytes: [u32; 4]) -> Self::S;
    /// Eight numbers of six bits and eight more, as Q4_K packs them in twelve bytes.
    #[inline(always)]
    fn small_of_six_bits(self, [a, b, c]: [u32; 3]) -> Self::S {
        let (six, four, two) = (0x3f3f_3f3f, 0x0f0f_0f0f, 0x3030_3030);
        // The last four of each: four bits in `c`, the two above them on top of the first four.
        self.small([a & six, c & four | a >> 2 & two, b & six, c >> 4 & four | b >> 2 & two])
    }
    /// Scales for register `i` of the 16 / N that [`Lanes::halves`] makes of 32 bytes from each of two places: `of[0]`
    /// for the first sixteen bytes of the first place, `of[1]` for the others, and so on; each twice in a lane.  All of
    /// `of` are below 8, or none.
    fn scales(self, small: Self::S, of: [usize; 4], i: usize) -> Self::I;
    /// Lanes that add up to the sum of products with sixteen signed halves.
    ///
    /// # Safety
    ///
    /// They lie at `y`.
    unsafe fn weigh(self, small: Self::S, y: *const i16) -> Self::I;
    /// `acc` plus the products of the four bytes of each lane, as `dot`, times the half that is in `scale` twice.
    fn scaled(self, acc: Self::I, w: Self::I, y: Self::I, scale: Self::I) -> Self::I;
    /// The sum of each register's lanes.
    fn totals(self, of: [Self::I; 4]) -> [i32; 4];
    /// Zeros come in, by `a` in the first half of the lanes and by `b` in the second.
    fn shr_two(self, v: Self::I, a: u32, b: u32) -> Self::I;
    fn float(self, a: Self::I) -> Self::F;
    /// The same bits.
    fn as_float(self, a: Self::I) -> Self::F;
    /// The low half of each lane as F16.
    fn half(self, a: Self::I) -> Self::F;

    fn splat_f(self, v: f32) -> Self::F;
    fn add_f(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul_f(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The [`total`] of each register's lanes.
    fn totals_f(self, of: [Self::F; 4]) -> [f32; 4];

    /// # Safety
    ///
    /// `N` numbers lie at `p`.
    unsafe fn load_f(self, p: *const f32) -> Self::F;
    /// # Safety
    ///
    /// As `load_f`, to write.
    unsafe fn store_f(self, p: *mut f32, v: Self::F);
    /// `N` numbers in F16.
    ///
    /// # Safety
    ///
    /// They lie at `p`.
    unsafe fn load_half(self, p: *const u16) -> Self::F;
    /// `N` numbers in BF16.
    ///
    /// # Safety
    ///
    /// They lie at `p`.
    unsafe fn load_brain(self, p: *const u16) -> Self::F;
    /// `N` signed bytes.
    ///
    /// # Safety
    ///
    /// They lie at `p`.
    unsafe fn load_bytes(self, p: *const i8) -> Self::I;
    /// Sixteen bytes of each row: the first four in the first register, lane by lane, and so on.
    ///
    /// # Safety
    ///
    /// They lie at the start of `N` rows.
    unsafe fn quads(self, rows: Rows) -> [Self::I; 4];
    /// Half a register from each of two places.
    ///
    /// # Safety
    ///
    /// `2 * N` bytes lie at each.
    unsafe fn halves(self, a: *const u8, b: *const u8) -> Self::I;
    /// The first four of sixteen bytes of each row.
    ///
    /// # Safety
    ///
    /// As `quads`, of all sixteen.
    unsafe fn heads(self, rows: Rows) -> Self::I;
    /// Brings what lies there near, some time.
    fn prefetch(self, p: *const u8);
}

/// The sum of numbers in halves: the last half is added to the first until one is left.
#[inline(always)]
pub(crate) fn total<const N: usize>(mut of: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            of[i] += of[i + half];
        }
        half /= 2;
    }
    of[0]
}

/// `f` of 0 to 7.  Where registers are concerned this stands for `std::array::from_fn`, whose steps are not compiled with
/// the set's instructions; for the same reason `f` is `#[inline(always)]`, and a closure that has a name is a function.
#[inline(always)]
pub(crate) fn eight<T>(f: impl Fn(usize) -> T) -> [T; 8] {
    [f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)]
}

/// `f` of 0 to 15.
#[inline(always)]
pub(crate) fn sixteen<T>(f: impl Fn(usize) -> T) -> [T; 16] {
    let ([a, b, c, d, e, g, h, i], [j, k, l, m, n, o, p, q]) = (eight(&f), eight(|i| f(i + 8)));
    [a, b, c, d, e, g, h, i, j, k, l, m, n, o, p, q]
}

/// Something to be done in registers.
pub(crate) trait Work {
    type Output;

    /// Implementations are `#[inline(always)]`, as is all that they call with `lanes`, so that they are compiled with
    /// the set's instructions.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// The sets that programs choose among.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Set {
    /// One lane, for matrices of fewer rows than registers have.
    One,
    Plain,
    /// As many lanes as NEON.
    #[cfg(test)]
    PlainFour,
    /// As many as AVX-512.
    #[cfg(test)]
    PlainSixteen,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

impl Set {
    /// All that this processor has, the widest last.
    pub fn all() -> Vec<Set> {
        let mut all = vec![
            Set::One,
            #[cfg(test)]
            Set::PlainFour,
            #[cfg(test)]
            Set::PlainSixteen,
            Set::Plain,
        ];
        #[cfg(target_arch = "x86_64")]
        if avx2::detected() {
            all.push(Set::Avx2);
        }
        #[cfg(target_arch = "x86_64")]
        if avx2::detected() && avx512::detected() {
            all.push(Set::Avx512);
        }
        #[cfg(target_arch = "aarch64")]
        if neon::detected() {
            all.push(Set::Neon);
        }
        #[cfg(target_arch = "aarch64")]
        if neon::detected() && neon::dot_detected() {
            all.push(Set::NeonDot);
        }
        all
    }

    /// This set, or if `rows` rows do not fill its registers the widest whose registers they do.
    pub fn within(self, rows: usize) -> Set {
        if self.lanes() <= rows {
            return self;
        }
        let fits = |set: &Set| set.lanes() <= rows;
        Set::all().into_iter().rev().find(fits).unwrap_or(Set::One)
    }

    /// Lanes in its registers.
    pub fn lanes(self) -> usize {
        match self {
            Set::One => <Plain<1> as Lanes>::N,
            Set::Plain => <Plain<8> as Lanes>::N,
            #[cfg(test)]
            Set::PlainFour => <Plain<4> as Lanes>::N,
            #[cfg(test)]
            Set::PlainSixteen => <Plain<16> as Lanes>::N,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => <avx2::Avx2 as Lanes>::N,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => <avx512::Avx512 as Lanes>::N,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => <neon::Neon<false> as Lanes>::N,
            #[cfg(target_arch = "aarch64")]
            Set::NeonDot => <neon::Neon<true> as Lanes>::N,
        }
    }
}

/// The widest set of this processor.
pub(crate) static WIDEST: LazyLock<Set> =
    LazyLock::new(|| Set::all().last().copied().unwrap_or(Set::Plain));

/// Does the work with the widest registers there are.
#[inline]
pub(crate) fn run<W: Work>(work: W) -> W::Output {
    run_with(*WIDEST, work)
}

/// The same with a set out of [`Set::all`].
#[inline]
pub(crate) fn run_with<W: Work>(set: Set, work: W) -> W::Output {
    match set {
        Set::One => work.run(Plain::<1>),
        Set::Plain => work.run(Plain::<8>),
        #[cfg(test)]
        Set::PlainFour => work.run(Plain::<4>),
        #[cfg(test)]
        Set::PlainSixteen => work.run(Plain::<16>),
        // SAFETY: the set was detected, in this and the next three.
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => unsafe { avx2::run(work) },
        // SAFETY: see above.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { avx512::run(work) },
        // SAFETY: see above.
        #[cfg(target_arch = "aarch64")]
        Set::Neon => unsafe { neon::run(work) },
        // SAFETY: see above.
        #[cfg(target_arch = "aarch64")]
        Set::NeonDot => unsafe { neon::run_dot(work) },
    }
}

/// Functions of plain Rust, compiled for every set of instructions: loops over numbers become as wide as registers are.
/// They give the same bits, since the order of additions is what the code says.
macro_rules! wide {
    ($($(#[$attribute:meta])* $seen:vis fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$attribute])*
        $seen fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                plain($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
            fn avx512($($arg: $type),*) $(-> $result)? {
                plain($($arg),*)
            }
            match *$crate::kernels::WIDEST {
                // SAFETY: the set was detected, and has these instructions; so in the next line.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Set::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: see above.
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::Set::Avx512 => unsafe { avx512($($arg),*) },
                _ => plain($($arg),*),
            }
        }
    )*};
}
pub(crate) use wide;
