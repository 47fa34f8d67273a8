//! Products of super-blocks with one row of activations: rows of weights one after the other, each from its beginning
//! to its end, which is how memory is read fastest.
//!
//! The numbers are those of `tile`: what is summed across a register is whole numbers, which have no order, and the sum
//! over super-blocks keeps its own.

use std::mem::MaybeUninit;

use super::activations::Q8K;
use super::lanes::{Lanes, MOST, Rows};
use super::supers::{PART, Q6K, SUPER, SixBits, Supers};
use super::tile::TILES;

/// Super-blocks of a row that are summed before the next row's; a multiple of four.
const SPAN: usize = 64;
/// Bytes that are asked for before they are used.
const AHEAD: usize = 16384;
const LINE: usize = 64;

/// A format that can be read row by row: 64 weights at once, of two parts that lie side by side.
pub(super) trait Along: Supers {
    /// Scales of eight parts and then their least values, or with `HALVES` scales of sixteen halves.
    ///
    /// # Safety
    ///
    /// A super-block lies at `w`.
    unsafe fn small<L: Lanes>(l: L, w: *const u8) -> L::S;
    /// The scale as F16, and above it the least value's.
    ///
    /// # Safety
    ///
    /// As `small`.
    unsafe fn scale_bits(w: *const u8) -> u32;
    /// Parts `2 * strip` and one more: register `i` of 16 / N has so many bytes of the first, and as many of the second.
    ///
    /// # Safety
    ///
    /// As `small`.
    unsafe fn weights<L: Lanes>(l: L, w: *const u8, strip: usize, i: usize) -> L::I;
}

/// The `i`-th of 16 / N pieces of 32 bytes, and of 32 that are so far `apart`.
///
/// # Safety
///
/// They lie there.
#[inline(always)]
unsafe fn pieces<L: Lanes>(l: L, at: *const u8, apart: usize, i: usize) -> L::I {
    // SAFETY: by the caller.
    unsafe {
        let at = at.add(2 * L::N * i);
        l.halves(at, at.add(apart))
    }
}

impl<const FIFTH: bool> Along for SixBits<FIFTH> {
    #[inline(always)]
    unsafe fn small<L: Lanes>(l: L, w: *const u8) -> L::S {
        // SAFETY: by the caller; so below.
        l.small_of_six_bits(unsafe { w.add(4).cast::<[u32; 3]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn scale_bits(w: *const u8) -> u32 {
        // SAFETY: see above.
        unsafe { w.cast::<u32>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes>(l: L, w: *const u8, strip: usize, i: usize) -> L::I {
        // SAFETY: see above.
        let both = unsafe { pieces(l, w.add(Self::BYTES - 128 + 32 * strip), 0, i) };
        let four = l.and(l.shr_two(both, 0, 4), l.splat(0x0f0f_0f0f));
        if !FIFTH {
            return four;
        }
        let part = 2 * strip as u32;
        // SAFETY: see above.
        let bits = l.shr_two(unsafe { pieces(l, w.add(16), 0, i) }, part, part + 1);
        l.or(four, l.shl(l.and(bits, l.splat(0x0101_0101)), 4))
    }
}

impl Along for Q6K {
    #[inline(always)]
    unsafe fn small<L: Lanes>(l: L, w: *const u8) -> L::S {
        // SAFETY: see above.
        l.small(unsafe { w.add(192).cast::<[u32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn scale_bits(w: *const u8) -> u32 {
        // SAFETY: see above.
        u32::from(unsafe { w.add(208).cast::<u16>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes>(l: L, w: *const u8, strip: usize, i: usize) -> L::I {
        let (half, by) = (strip / 2, 4 * (strip as u32 % 2));
        // SAFETY: see above.
        let (both, bits) = unsafe {
            (pieces(l, w.add(64 * half), 32, i), pieces(l, w.add(128 + 32 * half), 0, i))
        };
        let four = l.and(l.shr(both, by), l.splat(0x0f0f_0f0f));
        let two = l.and(l.shr_two(bits, by, by + 2), l.splat(0x0303_0303));
        l.or(four, l.shl(two, 4))
    }
}

/// What super-blocks of each row came to in whole numbers: sums of small scales times products, sums of small least
/// values times sums of activations, and heads.
type Sums = [[[i32; SPAN]; 3]; MOST];

/// One row of activations.
#[derive(Clone, Copy)]
struct Side<'a> {
    x: &'a Q8K,
    row: usize,
}

impl Side<'_> {
    /// Where super-block `b` is in what `x` holds.
    #[inline(always)]
    fn at(self, b: usize) -> usize {
        b * self.x.rows + self.row
    }
}

/// Up to four super-blocks of a row, from number `b` of the activations on.
///
/// # Safety
///
/// They lie at `w` and in `x`, and at `to` there is room for four numbers in each of three lines.
#[inline(always)]
unsafe fn four<L: Lanes, F: Along>(
    l: L,
    w: *const u8,
    x: Side<'_>,
    b: usize,
    count: usize,
    to: *mut i32,
) {
    let (mut wholes, mut leasts) = ([l.splat(0); 4], [l.splat(0); 4]);
    let mut heads = [0; 4];
    for n in 0..count {
        // SAFETY: by the caller.
        unsafe {
            let (w, at) = (w.add(n * F::BYTES), x.at(b + n));
            let quants = x.x.quants.as_ptr().add(at * SUPER).cast::<u8>();
            let small = F::small(l, w);
            // Two chains, as in `tile`.
            let mut sums = [l.splat(0); 2];
            for strip in 0..4 {
                let part = 2 * strip;
                let of = match F::HALVES {
                    true => [2 * part, 2 * part + 1, 2 * part + 2, 2 * part + 3],
                    false => [part, part, part + 1, part + 1],
                };
                for i in 0..16 / L::N {
                    let y = pieces(l, quants.add(part * PART), PART, i);
                    let weights = F::weights(l, w, strip, i);
                    let sum = &mut sums[strip % 2];
                    *sum = l.scaled(*sum, weights, y, l.scales(small, of, i));
                }
            }
            wholes[n] = l.add(sums[0], sums[1]);
            if F::OFFSET > 0 {
                let less = l.weigh(small, x.x.sums.as_ptr().add(at * 16));
                wholes[n] = l.sub(wholes[n], l.mul(less, l.splat(F::OFFSET)));
            }
            if F::LEAST {
                leasts[n] = l.weigh(small, x.x.pairs.as_ptr().add(at * 16));
            }
            heads[n] = F::scale_bits(w);
        }
    }
    // SAFETY: by the caller.
    unsafe {
        to.cast::<[i32; 4]>().write(l.totals(wholes));
        if F::LEAST {
            to.add(SPAN).cast::<[i32; 4]>().write(l.totals(leasts));
        }
        to.add(2 * SPAN).cast::<[u32; 4]>().write(heads);
    }
}

/// As [`super::tile::supers`], of one row of activations.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(super) unsafe fn supers<L: Lanes, F: Along>(
    l: L,
    rows: [Rows; TILES],
    supers: usize,
    x: &Q8K,
    pick: u32,
    sums: &mut [f32],
) {
    assert!(sums.len() == TILES * L::N);
    let mut room = MaybeUninit::<Sums>::uninit();
    let room = room.as_mut_ptr().cast::<i32>();
    let x = Side { x, row: pick as usize };
    for (rows, sums) in rows.into_iter().zip(sums.chunks_exact_mut(L::N)) {
        // SAFETY: a register's numbers.
        let mut acc = unsafe { l.load_f(sums.as_ptr()) };
        for from in (0..supers).step_by(SPAN) {
            let span = SPAN.min(supers - from);
            for row in 0..L::N {
                let w = rows.row(row).wrapping_add(from * F::BYTES);
                let mut asked = 0;
                for b in (0..span).step_by(4) {
                    while asked < (b + 4) * F::BYTES {
                        l.prefetch(w.wrapping_add(AHEAD + asked));
                        asked += LINE;
                    }
                    // SAFETY: by the caller; there is room for each row.
                    unsafe {
                        let (w, to) = (w.add(b * F::BYTES), room.add(row * 3 * SPAN + b));
                        match span - b {
                            4.. => four::<L, F>(l, w, x, from + b, 4, to),
                            rest => four::<L, F>(l, w, x, from + b, rest, to),
                        }
                    }
                }
            }
            for b in (0..span).step_by(4) {
                let rows = Rows {
                    start: room.wrapping_add(b).cast(),
                    stride: size_of::<[[i32; SPAN]; 3]>(),
                };
                // SAFETY: sixteen bytes of each line of each row were written.
                let (wholes, heads) =
                    unsafe { (l.quads(rows), l.quads(rows.at(2 * size_of::<[i32; SPAN]>()))) };
                let leasts = match F::LEAST {
                    // SAFETY: as above.
                    true => unsafe { l.quads(rows.at(size_of::<[i32; SPAN]>())) },
                    false => [l.splat(0); 4],
                };
                for i in 0..4.min(span - b) {
                    // SAFETY: a super-block of `x`.
                    let scale = unsafe { *x.x.scales.get_unchecked(x.at(from + b + i)) };
                    let scale = l.splat_f(scale);
                    acc = l.fma(l.float(wholes[i]), l.mul_f(l.half(heads[i]), scale), acc);
                    if F::LEAST {
                        let least = l.half(l.shr(heads[i], 16));
                        let less = l.mul_f(least, l.mul_f(scale, l.splat_f(-1.0)));
                        acc = l.fma(l.float(leasts[i]), less, acc);
                    }
                }
            }
        }
        // SAFETY: a register's numbers.
        unsafe { l.store_f(sums.as_mut_ptr(), acc) };
    }
}
