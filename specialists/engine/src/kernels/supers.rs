//! Formats in super-blocks of 256 weights, whose small blocks have whole numbers as scales (ggml's K-quants).
//!
//! A weight is `scale * small scale * (stored - OFFSET)`, less `least * small least` where the format has it.
//!
//! To add a format: a type with [`Supers`], its lines in `matrix`, its reading in `dequantise`.

use super::lanes::{Lanes, Rows, eight, sixteen};

/// Weights in a super-block.
pub(super) const SUPER: usize = 256;
/// Weights that are unpacked at once.
pub(super) const PART: usize = 32;

/// Scales of one super-block of each row.
pub(super) struct Head<L: Lanes> {
    pub scale: L::F,
    pub least: L::F,
    /// One for each part; with `HALVES` two, of its first and second 16 weights.
    pub scales: [L::I; 16],
    /// For each part two halves, of its first and second 16 weights; only where the format has them.
    pub leasts: [L::I; 8],
}

/// A format in super-blocks.  Stored numbers are unsigned and below 128.
pub(super) trait Supers {
    const BYTES: usize;
    /// A small block is 16 weights, else 32.
    const HALVES: bool;
    const OFFSET: i32;
    const LEAST: bool;

    /// # Safety
    ///
    /// A super-block lies at the start of `L::N` rows.
    unsafe fn head<L: Lanes>(l: L, rows: Rows) -> Head<L>;
    /// Which two parts the `pair`-th of four gives: they share bytes.
    #[inline(always)]
    fn parts(pair: usize) -> [usize; 2] {
        [2 * pair, 2 * pair + 1]
    }
    /// Of each part, register g holds weights 4g to 4g + 3 of each row.
    ///
    /// # Safety
    ///
    /// As `head`.
    unsafe fn pair<L: Lanes>(l: L, rows: Rows, pair: usize) -> [[L::I; 8]; 2];
}

/// Two F16, eight scales and eight leasts of six bits in twelve bytes, with `FIFTH` a bit of each weight, and nibbles.
pub(super) struct SixBits<const FIFTH: bool>;
pub(super) type Q4K = SixBits<false>;
pub(super) type Q5K = SixBits<true>;
/// Six bits and scales of a signed byte.
pub(super) struct Q6K;
/// Two bits, scales and leasts of four bits.
pub(super) struct Q2K;
/// Three bits and scales of six bits.
pub(super) struct Q3K;

/// Byte `i` of each lane.
#[inline(always)]
fn byte<L: Lanes>(l: L, v: L::I, i: u32) -> L::I {
    l.and(l.shr(v, 8 * i), l.splat(0xff))
}

/// Nibble `high / 4` of byte `j` of each lane's sixteen.
#[inline(always)]
fn nibble<L: Lanes>(l: L, all: [L::I; 4], j: usize, high: u32) -> L::I {
    l.and(l.shr(all[j / 4], 8 * (j as u32 % 4) + high), l.splat(15))
}

/// Thirty-two bytes of each row.
#[inline(always)]
unsafe fn bytes<L: Lanes>(l: L, rows: Rows) -> [L::I; 8] {
    // SAFETY: by the caller.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (l.quads(rows), l.quads(rows.at(16))) };
    [a, b, c, d, e, f, g, h]
}

/// The bits of `mask` in each byte, `by` bits down.
#[inline(always)]
fn field<L: Lanes>(l: L, v: [L::I; 8], by: u32, mask: i32) -> [L::I; 8] {
    eight(
        #[inline(always)]
        |g| l.and(l.shr(v[g], by), l.splat(mask)),
    )
}

/// The low bits of `high` as the next bits above four (or `by`) of `low`.
#[inline(always)]
fn above<L: Lanes>(l: L, low: [L::I; 8], high: [L::I; 8], by: u32) -> [L::I; 8] {
    eight(
        #[inline(always)]
        |g| l.or(low[g], l.shl(high[g], by)),
    )
}

impl<const FIFTH: bool> Supers for SixBits<FIFTH> {
    const BYTES: usize = if FIFTH { 176 } else { 144 };
    const HALVES: bool = false;
    const OFFSET: i32 = 0;
    const LEAST: bool = true;

    #[inline(always)]
    unsafe fn head<L: Lanes>(l: L, rows: Rows) -> Head<L> {
        // SAFETY: by the caller; so below.
        let [both, a, b, c] = unsafe { l.quads(rows) };
        let (six, four, two) = (l.splat(0x3f3f_3f3f), l.splat(0x0f0f_0f0f), l.splat(0x0303_0303));
        // The last four of each: four bits in `c`, the two above them on top of the first four.
        let top_a = l.shl(l.and(l.shr(a, 6), two), 4);
        let top_b = l.shl(l.and(l.shr(b, 6), two), 4);
        let scales = [l.and(a, six), l.or(l.and(c, four), top_a)];
        let leasts = [l.and(b, six), l.or(l.and(l.shr(c, 4), four), top_b)];
        let mut head = Head {
            scale: l.half(both),
            least: l.half(l.shr(both, 16)),
            scales: [l.splat(0); 16],
            leasts: [l.splat(0); 8],
        };
        for j in 0..8 {
            head.scales[j] = byte(l, scales[j / 4], j as u32 % 4);
            let least = byte(l, leasts[j / 4], j as u32 % 4);
            head.leasts[j] = l.or(least, l.shl(least, 16));
        }
        head
    }

    #[inline(always)]
    unsafe fn pair<L: Lanes>(l: L, rows: Rows, pair: usize) -> [[L::I; 8]; 2] {
        // SAFETY: see above.
        let both = unsafe { bytes(l, rows.at(Self::BYTES - 128 + 32 * pair)) };
        let four = [field(l, both, 0, 0x0f0f_0f0f), field(l, both, 4, 0x0f0f_0f0f)];
        if !FIFTH {
            return four;
        }
        // SAFETY: see above.
        let (bits, j) = (unsafe { bytes(l, rows.at(16)) }, 2 * pair as u32);
        [
            above(l, four[0], field(l, bits, j, 0x0101_0101), 4),
            above(l, four[1], field(l, bits, j + 1, 0x0101_0101), 4),
        ]
    }
}

impl Supers for Q6K {
    const BYTES: usize = 210;
    const HALVES: bool = true;
    const OFFSET: i32 = 32;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn head<L: Lanes>(l: L, rows: Rows) -> Head<L> {
        // SAFETY: see above.
        let (all, [.., last]) = unsafe { (l.quads(rows.at(192)), l.quads(rows.at(194))) };
        let scale = l.half(l.shr(last, 16));
        let sign = l.splat(0x80);
        let scales = sixteen(
            #[inline(always)]
            |j| l.sub(l.xor(byte(l, all[j / 4], j as u32 % 4), sign), sign),
        );
        Head { scale, least: l.splat_f(0.0), scales, leasts: [l.splat(0); 8] }
    }

    #[inline(always)]
    fn parts(pair: usize) -> [usize; 2] {
        let first = pair / 2 * 4 + pair % 2;
        [first, first + 2]
    }

    #[inline(always)]
    unsafe fn pair<L: Lanes>(l: L, rows: Rows, pair: usize) -> [[L::I; 8]; 2] {
        let (half, odd) = (pair / 2, pair as u32 % 2);
        // SAFETY: see above.
        let (both, bits) =
            unsafe { (bytes(l, rows.at(32 * pair)), bytes(l, rows.at(128 + 32 * half))) };
        [
            above(l, field(l, both, 0, 0x0f0f_0f0f), field(l, bits, 2 * odd, 0x0303_0303), 4),
            above(l, field(l, both, 4, 0x0f0f_0f0f), field(l, bits, 4 + 2 * odd, 0x0303_0303), 4),
        ]
    }
}

impl Supers for Q2K {
    const BYTES: usize = 84;
    const HALVES: bool = true;
    const OFFSET: i32 = 0;
    const LEAST: bool = true;

    #[inline(always)]
    unsafe fn head<L: Lanes>(l: L, rows: Rows) -> Head<L> {
        // SAFETY: see above.
        let (all, [.., both]) = unsafe { (l.quads(rows), l.quads(rows.at(68))) };
        Head {
            scale: l.half(both),
            least: l.half(l.shr(both, 16)),
            scales: sixteen(
                #[inline(always)]
                |j| nibble(l, all, j, 0),
            ),
            leasts: eight(
                #[inline(always)]
                |p| l.or(nibble(l, all, 2 * p, 4), l.shl(nibble(l, all, 2 * p + 1, 4), 16)),
            ),
        }
    }

    #[inline(always)]
    unsafe fn pair<L: Lanes>(l: L, rows: Rows, pair: usize) -> [[L::I; 8]; 2] {
        // SAFETY: see above.
        let four = unsafe { bytes(l, rows.at(16 + 32 * (pair / 2))) };
        let by = 4 * (pair as u32 % 2);
        [field(l, four, by, 0x0303_0303), field(l, four, by + 2, 0x0303_0303)]
    }
}

impl Supers for Q3K {
    const BYTES: usize = 110;
    const HALVES: bool = true;
    const OFFSET: i32 = 4;
    const LEAST: bool = false;

    #[inline(always)]
    unsafe fn head<L: Lanes>(l: L, rows: Rows) -> Head<L> {
        // SAFETY: see above.
        let [v, w, x, y] = unsafe { l.quads(rows.at(94)) };
        // Two bytes before the scales, since there are but two behind them.
        let a = l.or(l.shr(v, 16), l.shl(w, 16));
        let b = l.or(l.shr(w, 16), l.shl(x, 16));
        let tops = l.or(l.shr(x, 16), l.shl(y, 16));
        let (four, two) = (l.splat(0x0f0f_0f0f), l.splat(0x0303_0303));
        let top = eight(
            #[inline(always)]
            |i| l.shl(l.and(l.shr(tops, 2 * i as u32), two), 4),
        );
        let all = [
            l.or(l.and(a, four), top[0]),
            l.or(l.and(b, four), top[1]),
            l.or(l.and(l.shr(a, 4), four), top[2]),
            l.or(l.and(l.shr(b, 4), four), top[3]),
        ];
        let less = l.splat(32);
        let scales = sixteen(
            #[inline(always)]
            |j| l.sub(byte(l, all[j / 4], j as u32 % 4), less),
        );
        Head { scale: l.half(l.shr(y, 16)), least: l.splat_f(0.0), scales, leasts: [l.splat(0); 8] }
    }

    #[inline(always)]
    unsafe fn pair<L: Lanes>(l: L, rows: Rows, pair: usize) -> [[L::I; 8]; 2] {
        // SAFETY: see above.
        let (four, bits) = unsafe { (bytes(l, rows.at(32 + 32 * (pair / 2))), bytes(l, rows)) };
        let (by, j) = (4 * (pair as u32 % 2), 2 * pair as u32);
        [
            above(l, field(l, four, by, 0x0303_0303), field(l, bits, j, 0x0101_0101), 2),
            above(l, field(l, four, by + 2, 0x0303_0303), field(l, bits, j + 1, 0x0101_0101), 2),
        ]
    }
}
