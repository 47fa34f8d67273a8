//! Formats in blocks of 32 weights with a scale each: how sixteen rows' blocks become registers.
//!
//! A weight is `scale * (stored - OFFSET)`, and a least value more where the format has one.  What is stored stands in
//! the registers as [`Block`] says; nothing is multiplied here.
//!
//! To add a format: a type with [`Blocks`], its lines in `matrix`, its reading in `dequantise`.

use super::lanes::{Lanes, Rows, eight};

/// Weights in a block.
pub(super) const BLOCK: usize = 32;

/// One block of each row.
pub(super) struct Block<L: Lanes> {
    /// Register g holds weights 4g to 4g + 3 of each row.
    pub weights: [L::I; 8],
    pub scale: L::F,
    /// Added to each weight; only where the format has it.
    pub least: L::F,
}

/// A format in blocks of 32.
pub(super) trait Blocks {
    const BYTES: usize;
    /// Stored numbers are signed bytes; else they are unsigned and below 128.
    const SIGNED: bool;
    const OFFSET: i32;
    const LEAST: bool;

    /// # Safety
    ///
    /// A block lies at the start of `L::N` rows.
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L>;
}

/// An F16 scale and 32 signed bytes.
pub(super) struct Q8_0;
/// An F16 scale and 32 nibbles: weight i in the low half of byte i for i < 16, in the high half of byte i - 16 otherwise.
pub(super) struct Q4_0;
/// As Q4_0 with an F16 least value after the scale.
pub(super) struct Q4_1;
/// As Q4_0 with 32 fifth bits between scale and nibbles.
pub(super) struct Q5_0;
/// As Q4_1 with 32 fifth bits before the nibbles.
pub(super) struct Q5_1;
/// An exponent and 32 nibbles, which are numbers of four bits.
pub(super) struct Mxfp4;

/// The numbers of four bits (E2M1), twice as large.  Source: OCP Microscaling Formats 1.0.
pub(crate) const MXFP4_NUMBERS: [i8; 16] =
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of `2^(exponent - 127)`, since the numbers are doubled.
pub(crate) fn mxfp4_scale(exponent: u8) -> f32 {
    // The two smallest are below the normal numbers.
    let bits = match exponent {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        e => u32::from(e - 1) << 23,
    };
    f32::from_bits(bits)
}

/// The 32 nibbles of each row's sixteen bytes.
///
/// # Safety
///
/// As [`Blocks::block`].
#[inline(always)]
pub(super) unsafe fn nibbles<L: Lanes>(l: L, rows: Rows) -> [L::I; 8] {
    // SAFETY: by the caller.
    let [a, b, c, d] = unsafe { l.quads(rows) };
    let four = [a, b, c, d];
    let low = l.splat(0x0f0f_0f0f);
    eight(
        #[inline(always)]
        |g| l.and(l.shr(four[g % 4], 4 * (g as u32 / 4)), low),
    )
}

/// Adds bit i of each row's dword to weight i, as 16.
#[inline(always)]
fn fifth<L: Lanes>(l: L, weights: [L::I; 8], bits: L::I) -> [L::I; 8] {
    eight(
        #[inline(always)]
        |g| {
            let four = l.and(l.shr(bits, 4 * g as u32), l.splat(15));
            // Bit i of four goes to the lowest bit of byte i.
            let spread = l.and(l.mul(four, l.splat(0x0020_4081)), l.splat(0x0101_0101));
            l.or(weights[g], l.shl(spread, 4))
        },
    )
}

impl Blocks for Q8_0 {
    const BYTES: usize = 34;
    const SIGNED: bool = true;
    const OFFSET: i32 = 0;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: by the caller; so below.
        let ([a, b, c, d], [e, f, g, h], head) =
            unsafe { (l.quads(rows.at(2)), l.quads(rows.at(18)), l.heads(rows)) };
        Block { weights: [a, b, c, d, e, f, g, h], scale: l.half(head), least: l.splat_f(0.0) }
    }
}

impl Blocks for Q4_0 {
    const BYTES: usize = 18;
    const SIGNED: bool = false;
    const OFFSET: i32 = 8;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: see above.
        let (weights, head) = unsafe { (nibbles(l, rows.at(2)), l.heads(rows)) };
        Block { weights, scale: l.half(head), least: l.splat_f(0.0) }
    }
}

impl Blocks for Q4_1 {
    const BYTES: usize = 20;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;
    const LEAST: bool = true;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: see above.
        let (weights, head) = unsafe { (nibbles(l, rows.at(4)), l.heads(rows)) };
        Block { weights, scale: l.half(head), least: l.half(l.shr(head, 16)) }
    }
}

impl Blocks for Q5_0 {
    const BYTES: usize = 22;
    const SIGNED: bool = false;
    const OFFSET: i32 = 16;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: see above.
        let (low, [head, next, ..]) = unsafe { (nibbles(l, rows.at(6)), l.quads(rows)) };
        let bits = l.or(l.shr(head, 16), l.shl(next, 16));
        Block { weights: fifth(l, low, bits), scale: l.half(head), least: l.splat_f(0.0) }
    }
}

impl Blocks for Q5_1 {
    const BYTES: usize = 24;
    const SIGNED: bool = false;
    const OFFSET: i32 = 0;
    const LEAST: bool = true;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: see above.
        let (low, [head, bits, ..]) = unsafe { (nibbles(l, rows.at(8)), l.quads(rows)) };
        let least = l.half(l.shr(head, 16));
        Block { weights: fifth(l, low, bits), scale: l.half(head), least }
    }
}

impl Blocks for Mxfp4 {
    const BYTES: usize = 17;
    const SIGNED: bool = false;
    const OFFSET: i32 = 12;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn block<L: Lanes>(l: L, rows: Rows) -> Block<L> {
        // SAFETY: see above.
        let (places, head) = unsafe { (nibbles(l, rows.at(1)), l.heads(rows)) };
        let exponent = l.and(head, l.splat(0xff));
        // As `mxfp4_scale`: of the exponents 2 and more one less is the power's; the two below give what is no normal
        // number, here by a parabola through 2 -> 0x200000, 1 -> 0x400000 and 0 -> 0.
        let zero = l.splat(0);
        let normal = l.shl(l.max(l.sub(exponent, l.splat(1)), zero), 23);
        let below = l.max(l.sub(l.splat(2), exponent), zero);
        let small = l.mul(below, l.sub(l.splat(0x0070_0000), l.mul(below, l.splat(0x0030_0000))));
        let scale = l.as_float(l.or(normal, small));
        let table = MXFP4_NUMBERS.map(|n| (n + Self::OFFSET as i8) as u8);
        let weights = eight(
            #[inline(always)]
            |g| l.lookup(&table, places[g]),
        );
        Block { weights, scale, least: l.splat_f(0.0) }
    }
}
