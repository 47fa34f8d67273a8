//! The product at the heart: two tiles of rows of weights with rows of activations, all in the same turn.
//!
//! A tile is as many rows as a register has lanes; each output number stays in one lane.  What it is does not depend on
//! the tile, nor on how many rows of activations there are, nor on whether it comes from here or from `along`:
//!
//! - blocks of 32, one after the other: `acc = fma(dot, scale of weights * scale of activations, acc)`, where `dot` is
//!   the sum of `(stored - OFFSET) * activation`, whole numbers; with a least value then
//!   `acc = fma(least, total of activations, acc)`;
//! - super-blocks of 256, likewise: `acc = fma(whole, scale of weights * scale of activations, acc)`, where `whole` is
//!   the sum over small blocks of their small scale times such a `dot`; with least values then
//!   `acc = fma(leasts, -(least * scale of activations), acc)`, where `leasts` is the sum over small blocks of their
//!   small least value times the sum of their activations, without a scale.
//!
//! Whole numbers are exact, so that only the order of blocks matters.  Rows of numbers are summed by `float`, in an
//! order of its own.
//!
//! Weights are unpacked once for all rows of activations that are given, and never stored.  In come rows where they lie,
//! activations of the form that the format wants and sums to add to; nothing here knows which rows are there twice.
//!
//! To add a format see `blocks` and `supers`: these loops are the same for all.

use std::mem::MaybeUninit;

use super::activations::{Q8, Q8K};
use super::blocks::{BLOCK, Blocks};
use super::lanes::{Lanes, Rows, eight};
use super::supers::{PART, SUPER, Supers};

/// Tiles at once: their rows share what is read of the activations.
pub(super) const TILES: usize = 2;
/// The most rows of activations at once: so many sums stay in the nearest cache.
pub(super) const PICKS: usize = 64;

/// Room for sums, [picks][TILES][lanes]; they come in as zero.
pub(super) type Sums = [f32; PICKS * TILES * super::lanes::MOST];

/// Bytes of each row that are asked for before they are used: what memory delivers while one access takes.
const AHEAD: usize = 512;
/// Bytes that come at once.
const LINE: usize = 64;

/// Asks for the lines of rows that are read side by side, which is more streams than processors follow by themselves.
struct Ahead {
    row_bytes: usize,
    /// Where in each row the next line to ask for begins; beyond the end it is in the rows of the next tiles.
    line: usize,
}

impl Ahead {
    /// The rows have been read up to `at`.
    #[inline(always)]
    fn reach<L: Lanes>(&mut self, l: L, rows: [Rows; TILES], at: usize) {
        while self.line < at + AHEAD {
            let next = match self.line < self.row_bytes {
                true => self.line,
                false => self.line + (TILES * L::N - 1) * self.row_bytes,
            };
            for rows in rows {
                for row in 0..L::N {
                    l.prefetch(rows.at(next).row(row));
                }
            }
            self.line += LINE;
        }
    }
}

/// An expression for each tile, written out so that it is compiled with the set's instructions.
macro_rules! both {
    (|$t:ident| $of:expr) => {
        [
            {
                let $t = 0;
                $of
            },
            {
                let $t = 1;
                $of
            },
        ]
    };
}

/// Products of blocks of 32.
///
/// # Safety
///
/// `blocks` blocks lie behind each of the rows' first `L::N`, and `picks`, at most [`PICKS`], are rows of `x`, which has
/// as many blocks.
#[inline(always)]
pub(super) unsafe fn blocks<L: Lanes, F: Blocks>(
    l: L,
    rows: [Rows; TILES],
    blocks: usize,
    x: &Q8,
    picks: &[u32],
    sums: &mut [f32],
) {
    assert!(picks.len() <= PICKS && sums.len() == picks.len() * TILES * L::N);
    let mut ahead = Ahead { row_bytes: blocks * F::BYTES, line: 0 };
    for b in 0..blocks {
        ahead.reach(l, rows, b * F::BYTES);
        // SAFETY: by the caller.
        let mut w = unsafe { both!(|t| F::block(l, rows[t].at(b * F::BYTES))) };
        if F::SIGNED {
            for w in &mut w {
                w.weights = eight(
                    #[inline(always)]
                    |g| l.signed(w.weights[g]),
                );
            }
        }
        let offset = if F::SIGNED { L::SIGNED_OFFSET } else { F::OFFSET };
        for (r, &pick) in picks.iter().enumerate() {
            let at = b * x.rows + pick as usize;
            // SAFETY: `at` is a block of `x`.
            let (quants, scale, sum) = unsafe {
                (
                    x.quants.as_ptr().add(at * BLOCK).cast::<i32>(),
                    *x.scales.get_unchecked(at),
                    *x.sums.get_unchecked(at),
                )
            };
            // Two chains of four: one of eight takes longer than all the rest.
            let mut dots = [[l.splat(-offset * sum); TILES], [l.splat(0); TILES]];
            for g in 0..8 {
                // SAFETY: a block is eight times four bytes.
                let y = l.splat(unsafe { quants.add(g).read_unaligned() });
                for t in 0..TILES {
                    let dots = &mut dots[g % 2][t];
                    *dots = match F::SIGNED {
                        true => l.dot_signed(*dots, w[t].weights[g], y),
                        false => l.dot(*dots, w[t].weights[g], y),
                    };
                }
            }
            let dots = both!(|t| l.add(dots[0][t], dots[1][t]));
            let scale = l.splat_f(scale);
            for t in 0..TILES {
                // SAFETY: `sums` has room for so many picks, tiles and lanes.
                unsafe {
                    let to = sums.as_mut_ptr().add((r * TILES + t) * L::N);
                    let mut acc = l.fma(l.float(dots[t]), l.mul_f(w[t].scale, scale), l.load_f(to));
                    if F::LEAST {
                        acc = l.fma(w[t].least, l.splat_f(*x.totals.get_unchecked(at)), acc);
                    }
                    l.store_f(to, acc);
                }
            }
        }
    }
}

/// Products of super-blocks.
///
/// # Safety
///
/// As [`blocks`], of super-blocks.
#[inline(always)]
pub(super) unsafe fn supers<L: Lanes, F: Supers>(
    l: L,
    rows: [Rows; TILES],
    supers: usize,
    x: &Q8K,
    picks: &[u32],
    sums: &mut [f32],
) {
    assert!(picks.len() <= PICKS && sums.len() == picks.len() * TILES * L::N);
    let mut wholes = [const { MaybeUninit::<[L::I; TILES]>::uninit() }; PICKS];
    let mut ahead = Ahead { row_bytes: supers * F::BYTES, line: 0 };
    for b in 0..supers {
        let at = b * F::BYTES;
        // SAFETY: by the caller.
        let heads = unsafe { both!(|t| F::head(l, rows[t].at(at))) };
        for whole in &mut wholes[..picks.len()] {
            whole.write([l.splat(0); TILES]);
        }
        for pair in 0..4 {
            ahead.reach(l, rows, at + pair * F::BYTES / 4);
            // SAFETY: by the caller.
            let both = unsafe { both!(|t| F::pair(l, rows[t].at(at), pair)) };
            for (half, part) in F::parts(pair).into_iter().enumerate() {
                let weights = [both[0][half], both[1][half]];
                for (whole, &pick) in wholes.iter_mut().zip(picks) {
                    // SAFETY: as many were written as there are picks.
                    let whole = unsafe { whole.assume_init_mut() };
                    let at = b * x.rows + pick as usize;
                    // SAFETY: `at` is a super-block of `x`, with 256 bytes and 16 sums.
                    let (quants, sums) = unsafe {
                        (
                            x.quants.as_ptr().add(at * SUPER + part * PART).cast::<i32>(),
                            x.sums.as_ptr().add(at * 16 + part * 2),
                        )
                    };
                    // SAFETY: a part is eight times four bytes and two sums.
                    let (y, sum) = unsafe {
                        (
                            |g: usize| l.splat(quants.add(g).read_unaligned()),
                            |i: usize| i32::from(*sums.add(i)),
                        )
                    };
                    if F::HALVES {
                        let mut dots = both!(|i| [l.splat(-F::OFFSET * sum(i)); TILES]);
                        for g in 0..8 {
                            let y = y(g);
                            for t in 0..TILES {
                                dots[g / 4][t] = l.dot(dots[g / 4][t], weights[t][g], y);
                            }
                        }
                        for t in 0..TILES {
                            for (i, dots) in dots.iter().enumerate() {
                                let scaled = l.mul(heads[t].scales[2 * part + i], dots[t]);
                                whole[t] = l.add(whole[t], scaled);
                            }
                        }
                    } else {
                        let mut dots = [[l.splat(0); TILES]; 2];
                        for g in 0..8 {
                            let y = y(g);
                            for t in 0..TILES {
                                dots[g % 2][t] = l.dot(dots[g % 2][t], weights[t][g], y);
                            }
                        }
                        for t in 0..TILES {
                            let dots = l.add(dots[0][t], dots[1][t]);
                            whole[t] = l.add(whole[t], l.mul(heads[t].scales[part], dots));
                        }
                    }
                }
            }
        }
        for (r, (whole, &pick)) in wholes.iter().zip(picks).enumerate() {
            // SAFETY: see above.
            let whole = unsafe { whole.assume_init_ref() };
            let at = b * x.rows + pick as usize;
            // SAFETY: as above; `sums` has room for so many picks, tiles and lanes.
            unsafe {
                let scale = l.splat_f(*x.scales.get_unchecked(at));
                let to = sums.as_mut_ptr().add(r * TILES * L::N);
                let pairs = x.sums.as_ptr().add(at * 16).cast::<i32>();
                for t in 0..TILES {
                    let to = to.add(t * L::N);
                    let head = &heads[t];
                    let mut acc =
                        l.fma(l.float(whole[t]), l.mul_f(head.scale, scale), l.load_f(to));
                    if F::LEAST {
                        let mut leasts = l.splat(0);
                        for (part, least) in head.leasts.iter().enumerate() {
                            let sums = l.splat(pairs.add(part).read_unaligned());
                            leasts = l.pairs(leasts, *least, sums);
                        }
                        let less = l.mul_f(head.least, l.mul_f(scale, l.splat_f(-1.0)));
                        acc = l.fma(l.float(leasts), less, acc);
                    }
                    l.store_f(to, acc);
                }
            }
        }
    }
}
