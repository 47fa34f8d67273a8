//! What an encoder's layers do between products, where all tokens of a text see each other.
//!
//! Sums run in one order that depends on the text's length alone, so that the numbers are the same on every processor
//! and with any number of threads.

use super::functions::exp;
use super::lanes::wide;
use super::workers::{self, Filled};

/// Columns of a product that are computed side by side, and partial sums of a norm.
const LANES: usize = 16;
/// Rows at once: as many chains of additions as hide their time.
const ROWS: usize = 4;

/// The sum of `f` of each number; number i goes to sum i mod 16.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for i in 0..LANES {
            sums[i] += f(x[i]);
        }
    }
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += f(*x));
    sums.iter().sum()
}

/// The error function within 2e-7.  Source: Abramowitz and Stegun, 7.1.26.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / 0.327_591_1f32.mul_add(a, 1.0);
    let p = 1.061_405_4f32
        .mul_add(t, -1.453_152)
        .mul_add(t, 1.421_413_7)
        .mul_add(t, -0.284_496_74)
        .mul_add(t, 0.254_829_6);
    (1.0 - p * t * exp(-a * a)).copysign(x)
}

wide! {
    /// Every row of `x` plus `more` and the `bias` of what made that, then to mean 0 and variance 1, scaled and moved;
    /// rows are as long as `bias`, `weight` and `shift`.  Source: Layer Normalization (1607.06450).
    pub fn add_and_norm(x: &mut [f32], more: &[f32], bias: &[f32], weight: &[f32], shift: &[f32], epsilon: f32) {
        let n = bias.len() as f32;
        for (x, more) in x.chunks_exact_mut(bias.len()).zip(more.chunks_exact(bias.len())) {
            for ((x, more), bias) in x.iter_mut().zip(more).zip(bias) {
                *x += more + bias;
            }
            let mean = sum(x, |v| v) / n;
            x.iter_mut().for_each(|v| *v -= mean);
            let scale = 1.0 / (sum(x, |v| v * v) / n + epsilon).sqrt();
            for ((x, weight), shift) in x.iter_mut().zip(weight).zip(shift) {
                *x = *x * scale * weight + shift;
            }
        }
    }

    /// `x Phi(x)` of each number plus its bias, rows as long as `bias`: the exact form, not that with tanh.
    /// Source: Gaussian Error Linear Units (1606.08415).
    pub fn bias_and_gelu(x: &mut [f32], bias: &[f32]) {
        for row in x.chunks_exact_mut(bias.len()) {
            for (x, bias) in row.iter_mut().zip(bias) {
                let v = *x + bias;
                *x = v * 0.5f32.mul_add(erf(v * std::f32::consts::FRAC_1_SQRT_2), 0.5);
            }
        }
    }

    /// One head of [`attend_all`]: `out` is [tokens, size].
    fn head(q: Rows<'_>, k: Rows<'_>, v: Rows<'_>, out: &mut [f32]) {
        let (tokens, size) = (q.x.len() / q.width, q.bias.len());
        let padded = tokens.next_multiple_of(LANES);
        let mut across = vec![0f32; size * padded];
        for (token, row) in k.each().enumerate() {
            for (i, (x, bias)) in row.iter().zip(k.bias).enumerate() {
                across[i * padded + token] = x + bias;
            }
        }
        let depth = size.next_multiple_of(LANES);
        let mut values = vec![0f32; tokens * depth];
        for (to, row) in values.chunks_exact_mut(depth).zip(v.each()) {
            for ((to, x), bias) in to.iter_mut().zip(row).zip(v.bias) {
                *to = x + bias;
            }
        }
        let scale = 1.0 / (size as f32).sqrt();
        let mut queries = vec![0f32; ROWS * size];
        let mut scores = vec![0f32; ROWS * padded];
        let mut mixed = vec![0f32; ROWS * depth];
        for first in (0..tokens).step_by(ROWS) {
            let there = ROWS.min(tokens - first);
            for (to, row) in queries.chunks_exact_mut(size).zip(q.each().skip(first)) {
                for ((to, x), bias) in to.iter_mut().zip(row).zip(q.bias) {
                    *to = (x + bias) * scale;
                }
            }
            product(&queries, size, &across, padded, &mut scores);
            for row in scores.chunks_exact_mut(padded) {
                let row = &mut row[..tokens];
                let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|s| *s = exp(*s - most));
                let share = 1.0 / sum(row, |v| v);
                row.iter_mut().for_each(|s| *s *= share);
            }
            product(&scores, padded, &values, depth, &mut mixed);
            for (to, from) in out[first * size..].chunks_exact_mut(size).zip(mixed.chunks_exact(depth)).take(there) {
                to.copy_from_slice(&from[..size]);
            }
        }
    }
}

/// `out = a b`: `a` is [ROWS, stride], of which as many columns count as `b` has rows, `b` [k, columns], columns a
/// multiple of [`LANES`].
#[inline(always)]
fn product(a: &[f32], stride: usize, b: &[f32], columns: usize, out: &mut [f32]) {
    let mut rows = a.chunks_exact(stride);
    let a: [&[f32]; ROWS] = std::array::from_fn(|_| rows.next().unwrap_or_default());
    for at in (0..columns).step_by(LANES) {
        let mut sums = [[0f32; LANES]; ROWS];
        for (i, line) in b.chunks_exact(columns).enumerate() {
            let line = &line[at..at + LANES];
            for (sums, a) in sums.iter_mut().zip(a) {
                let x = a[i];
                sums.iter_mut().zip(line).for_each(|(sum, b)| *sum = b.mul_add(x, *sum));
            }
        }
        for (out, sums) in out.chunks_exact_mut(columns).zip(sums) {
            out[at..at + LANES].copy_from_slice(&sums);
        }
    }
}

/// What attention reads: rows of a product, and the bias that is still to be added.
#[derive(Clone, Copy)]
pub struct Biased<'a> {
    /// [tokens, width]
    pub x: &'a [f32],
    /// [width]
    pub bias: &'a [f32],
}

/// One head's part of [`Biased`].
#[derive(Clone, Copy)]
struct Rows<'a> {
    x: &'a [f32],
    width: usize,
    first: usize,
    bias: &'a [f32],
}

impl<'a> Rows<'a> {
    fn of(all: Biased<'a>, first: usize, size: usize) -> Rows<'a> {
        Rows { x: all.x, width: all.bias.len(), first, bias: &all.bias[first..first + size] }
    }

    #[inline(always)]
    fn each(self) -> impl Iterator<Item = &'a [f32]> {
        self.x.chunks_exact(self.width).map(move |row| &row[self.first..][..self.bias.len()])
    }
}

/// `softmax(q k^T / sqrt(size)) v` of every head, each token seeing all, to `out`; [tokens, width], and the width is
/// shared by the heads in equal parts.
///
/// # Panics
///
/// If the four are of different sizes, or the heads do not share the width.
pub fn attend_all(q: Biased<'_>, k: Biased<'_>, v: Biased<'_>, heads: usize, out: &mut [f32]) {
    let width = q.bias.len();
    assert!(heads > 0 && width.is_multiple_of(heads), "{heads} heads share a width of {width}");
    assert!([k, v].iter().all(|side| side.x.len() == q.x.len() && side.bias.len() == width));
    assert!(out.len() == q.x.len(), "{} numbers to {}", q.x.len(), out.len());
    let (tokens, size) = (q.x.len() / width, width / heads);
    let places = Filled::new(out);
    workers::run(heads, 2 * tokens * tokens * width, &|at| {
        let of = |side| Rows::of(side, at * size, size);
        let mut own = vec![0f32; tokens * size];
        head(of(q), of(k), of(v), &mut own);
        for (token, row) in own.chunks_exact(size).enumerate() {
            // SAFETY: a head's part of a token is that head's alone.
            unsafe { places.range(token * width + at * size, size) }.copy_from_slice(row);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_near_its_values() {
        // Values of the normal distribution, from tables.
        for (x, want) in [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (3.0, 2.995_950_2)]
        {
            let mut one = [x - 0.25];
            bias_and_gelu(&mut one, &[0.25]);
            assert!((one[0] - want).abs() < 1e-6, "gelu {x} is {}", one[0]);
        }
        let mut far = [-40.0, 40.0];
        bias_and_gelu(&mut far, &[0.0, 0.0]);
        assert_eq!(far, [-0.0, 40.0]);
    }

    #[test]
    fn norms() {
        let mut x = [0.5, 3.0, 7.0, 6.0];
        add_and_norm(&mut x, &[0.5, 0.0, 1.0, 0.0], &[0.0, 0.0], &[2.0, 1.0], &[0.0, 5.0], 0.0);
        assert_eq!(x, [-2.0, 6.0, 2.0, 4.0]);
    }

    /// Against the same in F64, for sizes that fill registers and that do not.
    #[track_caller]
    fn check(tokens: usize, heads: usize, size: usize) {
        let width = heads * size;
        let mut rng = fastrand::Rng::with_seed((tokens * 1_000 + width) as u64);
        let mut numbers =
            |n: usize| -> Vec<f32> { (0..n).map(|_| rng.f32() * 4.0 - 2.0).collect() };
        let [q, k, v] = [(); 3].map(|()| numbers(tokens * width));
        let [a, b, c] = [(); 3].map(|()| numbers(width));
        let mut got = vec![0f32; tokens * width];
        attend_all(
            Biased { x: &q, bias: &a },
            Biased { x: &k, bias: &b },
            Biased { x: &v, bias: &c },
            heads,
            &mut got,
        );
        let at = |x: &[f32], bias: &[f32], token: usize, i: usize| {
            f64::from(x[token * width + i]) + f64::from(bias[i])
        };
        for token in 0..tokens {
            for i in 0..width {
                let head = i / size * size..(i / size + 1) * size;
                let score = |other: usize| -> f64 {
                    let dot: f64 =
                        head.clone().map(|i| at(&q, &a, token, i) * at(&k, &b, other, i)).sum();
                    (dot / (size as f64).sqrt()).exp()
                };
                let all: f64 = (0..tokens).map(score).sum();
                let want: f64 =
                    (0..tokens).map(|other| score(other) / all * at(&v, &c, other, i)).sum();
                let got = f64::from(got[token * width + i]);
                assert!((got - want).abs() < 1e-5, "{token} {i}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn attention_is_its_formula() {
        check(1, 1, 4);
        check(3, 2, 5);
        check(16, 3, 16);
        check(37, 2, 32);
    }
}
