//! Attention of queries over the pages of their sequence: scores, softmax, weighted sum of values.
//!
//! A score is `fma(q[d], k[d], score)`, number after number, times the scale.  The softmax subtracts the largest score,
//! and adds the powers in sixteen sums, position modulo sixteen, then in halves.  The answer is
//! `fma(power, v[d], answer)`, position after position, divided by the sum.  So it depends on the query and the
//! positions it sees alone.

use std::cell::RefCell;
use std::ops::Range;

use config::Precision;

use super::functions::exp;
use super::lanes::{self, Lanes, Work};
use super::pages::{InQ8, Numbers, PAGE, PageFormat, Stored};

/// Queries whose scores are made at once: their sums stay in registers.
const QUERIES: usize = 4;
/// Registers of an answer that are summed at once.
const ANSWERS: usize = 4;
/// Sums of powers.
const SUMS: usize = 16;

/// One head of one row.
pub struct Query<'a> {
    /// [head_dim]
    pub q: &'a [f32],
    /// [head_dim]
    pub out: &'a mut [f32],
    /// Positions that it sees; not empty.
    pub sees: Range<usize>,
    /// A score that takes a share and gives nothing (2309.17453).
    pub sink: Option<f32>,
}

/// Queries over the same keys and values.
pub struct Attend<'a, 'q, P> {
    pub format: PageFormat,
    /// Where the page with this number lies.
    pub page: P,
    /// Which number of a key the head begins with.
    pub at: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    pub queries: &'a mut [Query<'q>],
}

/// Answers all queries.
///
/// The pages that `page` tells, of the numbers that queries see, must be of the format and not written meanwhile.
pub fn attend<P: Fn(usize) -> *const u8>(what: Attend<'_, '_, P>) {
    thread_local! {
        /// Kept between calls: long sequences have many scores.
        static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    SCORES.with_borrow_mut(|scores| lanes::run(Scored { what, scores }));
}

struct Scored<'a, 'q, P> {
    what: Attend<'a, 'q, P>,
    scores: &'a mut Vec<f32>,
}

impl<P: Fn(usize) -> *const u8> Work for Scored<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        match self.what.format.precision {
            Precision::F32 => self.stored::<L, Numbers<f32>>(l),
            Precision::F16 => self.stored::<L, Numbers<half::f16>>(l),
            Precision::Q8 => self.stored::<L, InQ8>(l),
        }
    }
}

impl<P: Fn(usize) -> *const u8> Scored<'_, '_, P> {
    #[inline(always)]
    fn stored<L: Lanes, S: Stored>(self, l: L) {
        let Scored { what: Attend { format, page, at, scale, queries }, scores } = self;
        let first = queries.iter().map(|q| q.sees.start).min().unwrap_or(0) / PAGE;
        let last = queries.iter().map(|q| q.sees.end).max().unwrap_or(0).div_ceil(PAGE);
        let width = (last - first) * PAGE;
        scores.clear();
        scores.resize(queries.len() * width, 0.0);
        for number in first..last {
            let page = page(number);
            for (i, some) in queries.chunks(QUERIES).enumerate() {
                let to = i * QUERIES * width + (number - first) * PAGE;
                // SAFETY: the page is of the format, and each query's line of scores has room for it.
                unsafe { page_scores::<L, S>(l, format, page, at, some, &mut scores[to..], width) };
            }
        }
        for (query, scores) in queries.iter_mut().zip(scores.chunks_exact_mut(width)) {
            let seen = query.sees.start - first * PAGE..query.sees.end - first * PAGE;
            let sum = powers(scores, seen, scale, query.sink);
            query.out.fill(0.0);
            // Divided at the end.
            let rest = 1.0 / sum;
            answer::<L, S>(l, format, &page, at, first, query, scores, rest);
        }
    }
}

/// Scores of up to [`QUERIES`] queries with a page's keys, before they are scaled; lines of `scores` are `width` apart.
///
/// # Safety
///
/// A page of the format lies at `page`.
#[inline(always)]
unsafe fn page_scores<L: Lanes, S: Stored>(
    l: L,
    format: PageFormat,
    page: *const u8,
    at: usize,
    queries: &[Query<'_>],
    scores: &mut [f32],
    width: usize,
) {
    assert!(scores.len() >= (queries.len() - 1) * width + PAGE);
    let q = |i: usize| queries[i.min(queries.len() - 1)].q;
    let q = [q(0), q(1), q(2), q(3)];
    // Two registers of tokens at once, so that a page is one, two or four turns.
    for token in (0..PAGE).step_by(2 * L::N) {
        let mut sums = [[l.splat_f(0.0); 2]; QUERIES];
        for d in 0..q[0].len() {
            // SAFETY: by the caller.
            let keys = unsafe {
                [
                    S::key(l, format, page, at + d, token),
                    S::key(l, format, page, at + d, token + L::N),
                ]
            };
            for i in 0..QUERIES {
                let q = l.splat_f(q[i][d]);
                sums[i] = [l.fma(q, keys[0], sums[i][0]), l.fma(q, keys[1], sums[i][1])];
            }
        }
        for i in 0..queries.len() {
            let to = &mut scores[i * width + token..i * width + token + 2 * L::N];
            // SAFETY: two registers.
            unsafe {
                l.store_f(to.as_mut_ptr(), sums[i][0]);
                l.store_f(to.as_mut_ptr().add(L::N), sums[i][1]);
            }
        }
    }
}

/// Scores become powers, zero where they are not `seen`; their sum.
#[inline(always)]
fn powers(scores: &mut [f32], seen: Range<usize>, scale: f32, sink: Option<f32>) -> f32 {
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let mut most = [sink.unwrap_or(f32::NEG_INFINITY); SUMS];
    for scores in scores.as_chunks_mut::<SUMS>().0 {
        for (most, score) in most.iter_mut().zip(scores) {
            *score *= scale;
            *most = if *score > *most { *score } else { *most };
        }
    }
    let most = most.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let mut sums = [0f32; SUMS];
    for scores in scores.as_chunks_mut::<SUMS>().0 {
        for (sum, score) in sums.iter_mut().zip(scores) {
            *score = exp(*score - most);
            *sum += *score;
        }
    }
    let mut half = SUMS / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] += sums[i + half];
        }
        half /= 2;
    }
    sums[0] + sink.map_or(0.0, |sink| exp(sink - most))
}

/// The sum of the values that a query sees, each times its power, times `rest`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn answer<L: Lanes, S: Stored>(
    l: L,
    format: PageFormat,
    page: &impl Fn(usize) -> *const u8,
    at: usize,
    first: usize,
    query: &mut Query<'_>,
    powers: &[f32],
    rest: f32,
) {
    let hd = query.out.len();
    let sees = query.sees.clone();
    let tokens = |number: usize| {
        sees.start.max(number * PAGE) - number * PAGE
            ..sees.end.min((number + 1) * PAGE) - number * PAGE
    };
    let pages = sees.start / PAGE..sees.end.div_ceil(PAGE);
    let whole = hd / L::N * L::N;
    for d in (0..whole).step_by(ANSWERS * L::N) {
        let registers = ANSWERS.min((whole - d) / L::N);
        let mut sums = [l.splat_f(0.0); ANSWERS];
        for number in pages.clone() {
            let page = page(number);
            for token in tokens(number) {
                let power = l.splat_f(powers[(number - first) * PAGE + token]);
                for (i, sum) in sums.iter_mut().enumerate().take(registers) {
                    // SAFETY: a whole register within the head.
                    let value = unsafe { S::value(l, format, page, token, at + d + i * L::N) };
                    *sum = l.fma(power, value, *sum);
                }
            }
        }
        for (i, sum) in sums.iter().enumerate().take(registers) {
            // SAFETY: a whole register within the answer.
            unsafe {
                let to = query.out.as_mut_ptr().add(d + i * L::N);
                l.store_f(to, l.mul_f(*sum, l.splat_f(rest)));
            }
        }
    }
    for d in whole..hd {
        let mut sum = 0f32;
        for number in pages.clone() {
            let page = page(number);
            for token in tokens(number) {
                // SAFETY: a number within the head.
                let value = unsafe { S::one(format, page, token, at + d) };
                sum = powers[(number - first) * PAGE + token].mul_add(value, sum);
            }
        }
        query.out[d] = sum * rest;
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::kernels::lanes::Set;

    struct Case {
        precision: Precision,
        heads: usize,
        head_dim: usize,
        tokens: usize,
        /// Positions that each query sees.
        sees: &'static [Range<usize>],
        sink: Option<f32>,
    }

    fn noise(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rng.f32() * 4.0 - 2.0).collect()
    }

    /// Scores of about ten have an error of a few units in the last place, which is one of powers and answers.
    const CLOSE: f64 = 1e-5;

    /// What is kept of the numbers of tokens.
    fn rounded(precision: Precision, x: &[f32], dim: usize) -> Vec<f32> {
        let block = |x: &[f32]| -> Vec<f32> {
            let most = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = f16::from_f32(most / 127.0).to_f32();
            x.iter().map(|v| (v * (127.0 / most)).round_ties_even() * scale).collect()
        };
        match precision {
            Precision::F32 => x.to_vec(),
            Precision::F16 => x.iter().map(|v| f16::from_f32(*v).to_f32()).collect(),
            Precision::Q8 => x.chunks(dim).flat_map(|x| x.chunks(32).flat_map(block)).collect(),
        }
    }

    /// Against softmax attention in F64, for every head; by every set the same bits, alone as together.
    #[track_caller]
    fn check(case: &Case) {
        let Case { precision, heads, head_dim, tokens, sees, sink } = *case;
        let (dim, scale) = (heads * head_dim, 0.3);
        let format = PageFormat { precision, dim };
        let (keys, values) = (noise(tokens * dim, 1), noise(tokens * dim, 2));
        // What was never written is no number, so that it is seen if it is used.
        let pages = tokens.div_ceil(PAGE);
        let mut memory = vec![u64::MAX; pages * format.bytes() / 8];
        let start = memory.as_mut_ptr().cast::<u8>();
        let page = |i: usize| start.wrapping_add(i * format.bytes());
        for (t, (k, v)) in keys.chunks(dim).zip(values.chunks(dim)).enumerate() {
            // SAFETY: the memory holds so many pages.
            unsafe { format.put(page(t / PAGE), t % PAGE, k, v) };
        }
        let (keys, values) = (rounded(precision, &keys, dim), rounded(precision, &values, dim));
        for head in 0..heads {
            let at = head * head_dim;
            let q = noise(sees.len() * head_dim, 3 + head as u64);
            let run = |set: Set, which: Range<usize>| {
                let mut out = vec![f32::NAN; which.len() * head_dim];
                let each = out.chunks_mut(head_dim).zip(which.clone());
                let mut queries: Vec<Query<'_>> = each
                    .map(|(out, i)| {
                        let q = &q[i * head_dim..(i + 1) * head_dim];
                        Query { q, out, sees: sees[i].clone(), sink }
                    })
                    .collect();
                let page = |i| page(i).cast_const();
                let what = Attend { format, page, at, scale, queries: &mut queries };
                lanes::run_with(set, Scored { what, scores: &mut Vec::new() });
                out
            };
            let got = run(Set::Plain, 0..sees.len());
            for set in Set::all() {
                assert_eq!(run(set, 0..sees.len()), got, "{precision:?} {set:?}");
                for i in 0..sees.len() {
                    let alone = run(set, i..i + 1);
                    assert_eq!(
                        alone,
                        got[i * head_dim..(i + 1) * head_dim],
                        "{precision:?} {set:?}"
                    );
                }
            }
            for (i, (sees, got)) in sees.iter().zip(got.chunks(head_dim)).enumerate() {
                let q = &q[i * head_dim..(i + 1) * head_dim];
                let number = |of: &[f32], t: usize, d: usize| f64::from(of[t * dim + at + d]);
                let score = |t: usize| {
                    (0..head_dim).map(|d| f64::from(q[d]) * number(&keys, t, d)).sum::<f64>()
                        * f64::from(scale)
                };
                let powers: Vec<f64> = sees.clone().map(|t| score(t).exp()).collect();
                let sum = powers.iter().sum::<f64>() + sink.map_or(0.0, |s| f64::from(s).exp());
                for (d, got) in got.iter().enumerate() {
                    let all = sees.clone().zip(&powers);
                    let want = all.map(|(t, p)| p * number(&values, t, d)).sum::<f64>() / sum;
                    assert!(
                        (f64::from(*got) - want).abs() < CLOSE,
                        "{precision:?}: {got} is not {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn softmax_attention() {
        for precision in [Precision::F32, Precision::F16, Precision::Q8] {
            let sees = &[0..5, 0..1];
            let whole = Case { precision, heads: 1, head_dim: 32, tokens: 5, sees, sink: None };
            check(&whole);
            // Pages within, whole and begun; more queries than are read at once; windows.
            let sees = &[0..5, 0..32, 0..33, 20..70, 64..70, 69..70, 31..32, 0..70, 3..70];
            check(&Case { heads: 3, head_dim: 64, tokens: 70, sees, ..whole });
            check(&Case { heads: 2, head_dim: 128, tokens: 70, sees, sink: Some(1.5), ..whole });
            // Registers that are not all there are.
            check(&Case { heads: 2, head_dim: 96, tokens: 40, sees: &[0..40, 2..39], ..whole });
        }
        // Heads of no whole register.
        let odd = Case {
            precision: Precision::F32,
            heads: 2,
            head_dim: 20,
            tokens: 40,
            sees: &[0..40, 7..9],
            sink: None,
        };
        check(&odd);
        check(&Case { precision: Precision::F16, head_dim: 6, ..odd });
    }
}
