//! Every kernel against sums in F64, and against itself: other instructions, other batches, other neighbours.

use std::sync::Arc;

use half::{bf16, f16};

use super::jobs::compute_with;
use super::lanes::Set;
use super::*;
use crate::ggml::Kind;
use crate::mapping::{Mapping, Region};

/// Every format with a kernel, and where in a block its F16 scales are.
pub(crate) const FORMATS: [(Kind, &[usize]); 14] = [
    (Kind::F32, &[]),
    (Kind::F16, &[0]),
    (Kind::BF16, &[]),
    (Kind::Q4_0, &[0]),
    (Kind::Q4_1, &[0, 2]),
    (Kind::Q5_0, &[0]),
    (Kind::Q5_1, &[0, 2]),
    (Kind::Q8_0, &[0]),
    (Kind::MXFP4, &[]),
    (Kind::Q2_K, &[80, 82]),
    (Kind::Q3_K, &[108]),
    (Kind::Q4_K, &[0, 2]),
    (Kind::Q5_K, &[0, 2]),
    (Kind::Q6_K, &[208]),
];

/// A matrix of random blocks, of every pattern of bits that does not make a scale absurd.
pub(crate) fn matrix(kind: Kind, scales: &[usize], rows: usize, k: usize, seed: u64) -> Matrix {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..))
        .take(kind.bytes(k as u64).unwrap() as usize * rows)
        .collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes() as usize) {
        let mut number = || rng.f32() * 0.02 - 0.01;
        match kind {
            Kind::F32 => block.copy_from_slice(&number().to_le_bytes()),
            Kind::BF16 => block.copy_from_slice(&bf16::from_f32(number()).to_le_bytes()),
            Kind::MXFP4 => block[0] = rng.u8(115..125),
            _ => scales.iter().for_each(|&at| {
                block[at..at + 2].copy_from_slice(&f16::from_f32(number()).to_le_bytes());
            }),
        }
    }
    let len = bytes.len() as u64;
    // An odd address: rows are aligned to nothing.
    let at = if kind == Kind::F32 { 4 } else { 1 };
    let mut moved = vec![0; at];
    moved.append(&mut bytes);
    let mapping = Arc::new(Mapping::Embedded(moved.leak()));
    Matrix::new(Region::new(&mapping, at as u64, len).unwrap(), kind, rows, k).unwrap()
}

pub(crate) fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// What the activations stand for once they are rounded as `kind` wants; independent of how the kernels do it.
fn rounded(kind: Kind, x: &[f32]) -> Vec<f64> {
    let blocks = |size: usize, through_f16: bool| -> Vec<f64> {
        let block = |x: &[f32]| -> Vec<f64> {
            let most = x.iter().copied().fold(0f32, |a, v| if v.abs() > a.abs() { v } else { a });
            if most == 0.0 {
                return vec![0.0; x.len()];
            }
            let inverse = if through_f16 { 127.0 / most.abs() } else { -127.0 / most };
            let scale = match through_f16 {
                true => f16::from_f32(most.abs() / 127.0).to_f32(),
                false => 1.0 / inverse,
            };
            x.iter()
                .map(|v| f64::from((v * inverse).round_ties_even()) * f64::from(scale))
                .collect()
        };
        x.chunks_exact(size).flat_map(block).collect()
    };
    match (kind, kind.block_weights()) {
        (Kind::F16, _) => x.iter().map(|v| f16::from_f32(*v).to_f64()).collect(),
        (Kind::BF16, _) => x.iter().map(|v| bf16::from_f32(*v).to_f64()).collect(),
        (_, 32) => blocks(32, true),
        (_, 256) => blocks(256, false),
        _ => x.iter().map(|v| f64::from(*v)).collect(),
    }
}

#[test]
fn blocks_are_read_as_candle_reads_them() {
    use candle_core::quantized::k_quants::*;
    #[track_caller]
    fn check<T: GgmlType>(kind: Kind) {
        let scales = FORMATS.iter().find(|(k, _)| *k == kind).unwrap().1;
        let (k, rows) = (512, 3);
        let w = matrix(kind, scales, 16, k, 8);
        for i in 0..rows {
            let mut got = vec![0f32; k];
            w.dequantise_row(i, &mut got);
            let mut blocks = vec![T::zeros(); k / T::BLCK_SIZE];
            assert_eq!(size_of_val(&blocks[..]), w.row_bytes(i).len());
            // SAFETY: as many bytes; blocks of numbers are good in every pattern of bits.
            unsafe {
                let to = blocks.as_mut_ptr().cast::<u8>();
                to.copy_from_nonoverlapping(w.row_bytes(i).as_ptr(), w.row_bytes(i).len());
            }
            let mut want = vec![0f32; k];
            T::to_float(&blocks, &mut want);
            assert_eq!(got, want, "{kind:?}");
        }
    }
    check::<f16>(Kind::F16);
    check::<bf16>(Kind::BF16);
    check::<BlockQ4_0>(Kind::Q4_0);
    check::<BlockQ4_1>(Kind::Q4_1);
    check::<BlockQ5_0>(Kind::Q5_0);
    check::<BlockQ5_1>(Kind::Q5_1);
    check::<BlockQ8_0>(Kind::Q8_0);
    check::<BlockQ2K>(Kind::Q2_K);
    check::<BlockQ3K>(Kind::Q3_K);
    check::<BlockQ4K>(Kind::Q4_K);
    check::<BlockQ5K>(Kind::Q5_K);
    check::<BlockQ6K>(Kind::Q6_K);
}

fn product(set: Set, w: &Matrix, x: &[f32], picks: &[u32]) -> Vec<f32> {
    let mut x = Activations::new(x, w.k);
    x.prepare_for(w);
    let mut out = vec![0f32; picks.len() * w.rows];
    compute_with(set, [Job::Product(Product { w, x: &x, picks, out: &mut out })]);
    out
}

/// A product of each format: the sums, and the same bits by every set, for each row alone and picked out of order.
#[track_caller]
fn check(rows: usize, k: usize, n: usize) {
    for (kind, scales) in FORMATS {
        if !k.is_multiple_of(kind.block_weights() as usize) {
            continue;
        }
        let w = matrix(kind, scales, rows, k, (rows * k) as u64);
        let mut x = noise(n * k, 9);
        // A row that is all zero, and one far larger than the others.
        x[..k].fill(0.0);
        x[(n - 1) * k..].iter_mut().for_each(|v| *v *= 1e4);
        let picks: Vec<u32> = (0..n as u32).collect();
        let got = product(Set::Plain, &w, &x, &picks);
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        for set in Set::all() {
            assert_eq!(bits(&product(set, &w, &x, &picks)), bits(&got), "{kind:?} {set:?}");
            for r in [0, n - 1] {
                let alone = product(set, &w, &x[r * k..(r + 1) * k], &[0]);
                assert_eq!(bits(&alone), bits(&got[r * rows..(r + 1) * rows]), "{kind:?} {set:?}");
            }
            let picked = product(set, &w, &x, &[n as u32 - 1, 0]);
            assert_eq!(bits(&picked[..rows]), bits(&got[(n - 1) * rows..]), "{kind:?} {set:?}");
        }
        let mut line = vec![0f32; k];
        for i in 0..rows {
            w.dequantise_row(i, &mut line);
            for r in 0..n {
                let y = rounded(kind, &x[r * k..(r + 1) * k]);
                let products = line.iter().zip(&y).map(|(a, b)| f64::from(*a) * b);
                let (want, size): (f64, f64) =
                    products.fold((0.0, 0.0), |(s, a), p| (s + p, a + p.abs()));
                let got = f64::from(got[r * rows + i]);
                // A least value is multiplied with a total that has passed through F16.
                let least = matches!(kind, Kind::Q4_1 | Kind::Q5_1);
                let close = size * if least { 6e-4 } else { 2e-6 } + 1e-30;
                assert!((got - want).abs() <= close, "{kind:?} {i} {r}: {got} is not {want}");
            }
        }
    }
}

#[test]
fn every_kernel_and_remainder() {
    // One tile and less, one more, two pairs of tiles and a rest, of the widest and the narrowest.
    for rows in [1, 2, 3, 4, 7, 8, 9, 15, 16, 31, 32, 33, 71] {
        check(rows, 256, 3);
    }
    // Lengths that only some formats have.
    for k in [1, 15, 16, 17, 32, 96, 100, 576, 768] {
        check(17, k, 2);
    }
    // One row of activations, as many as are summed at once, one more.
    for n in [1, 64, 65] {
        check(9, 256, n);
    }
    // Large enough for several threads.
    check(300, 512, 5);
}

#[test]
fn gates() {
    #[track_caller]
    fn check(kinds: [usize; 2], activation: Activation, biased: bool) {
        let (ff, k, n) = (83, 256, 66);
        let w = kinds.map(|i| matrix(FORMATS[i].0, FORMATS[i].1, ff, k, i as u64));
        let (x, bias) = (noise(n * k, 5), [noise(ff, 6), noise(ff, 7)]);
        let picks: Vec<u32> = (0..n as u32).rev().collect();
        let mut apart = w.each_ref().map(|w| product(Set::Plain, w, &x, &picks));
        if biased {
            for (out, bias) in apart.iter_mut().zip(&bias) {
                out.chunks_exact_mut(ff)
                    .for_each(|o| o.iter_mut().zip(bias).for_each(|(o, b)| *o += b));
            }
        }
        let [mut want, ups] = apart;
        activation.apply(&mut want, &ups);
        for set in Set::all() {
            let mut prepared = Activations::new(&x, k);
            w.iter().for_each(|w| prepared.prepare_for(w));
            let mut out = vec![0f32; n * ff];
            let bias = if biased { bias.each_ref().map(|b| Some(&b[..])) } else { [None, None] };
            let w = w.each_ref();
            let job = Gated { w, bias, activation, x: &prepared, picks: &picks, out: &mut out };
            compute_with(set, [Job::Gated(job)]);
            assert_eq!(out, want, "{kinds:?} {activation:?} {set:?}");
        }
    }
    check([7, 7], Activation::Silu, false);
    check([3, 11], Activation::Gelu, true);
    check([8, 8], Activation::ClampedSwiglu, true);
}

#[test]
fn jobs_at_once_are_jobs_apart() {
    let (x, k) = (noise(40 * 256, 1), 256);
    let all: Vec<Matrix> = FORMATS
        .iter()
        .enumerate()
        .map(|(i, (kind, scales))| matrix(*kind, scales, 20 + 31 * i, k, i as u64))
        .collect();
    let mut prepared = Activations::new(&x, k);
    all.iter().for_each(|w| prepared.prepare_for(w));
    let picks: Vec<Vec<u32>> =
        (0..all.len() as u32).map(|i| (0..i * 3).map(|p| p % 40).collect()).collect();
    let mut outs: Vec<Vec<f32>> =
        all.iter().zip(&picks).map(|(w, picks)| vec![0.0; w.rows * picks.len()]).collect();
    let jobs = all
        .iter()
        .zip(&picks)
        .zip(&mut outs)
        .map(|((w, picks), out)| Job::Product(Product { w, x: &prepared, picks, out }));
    compute(jobs);
    for ((w, picks), out) in all.iter().zip(&picks).zip(&outs) {
        assert_eq!(*out, product(Set::Plain, w, &x, picks));
    }
}

#[test]
fn what_is_no_number_is_passed_on() {
    for (kind, scales) in FORMATS {
        let (w, mut x) = (matrix(kind, scales, 40, 256, 3), noise(2 * 256, 4));
        x[300] = f32::NAN;
        for set in Set::all() {
            let out = product(set, &w, &x, &[0, 1]);
            assert!(out[..40].iter().all(|v| v.is_finite()), "{kind:?} {set:?}");
            assert!(out[40..].iter().all(|v| v.is_nan()), "{kind:?} {set:?}");
        }
    }
}

#[test]
fn a_dot_product_is_the_same_by_every_set() {
    for len in [0, 1, 15, 16, 17, 40, 128] {
        let (a, b) = (noise(len, 1), noise(len, 2));
        let want: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((f64::from(dot_f32(&a, &b)) - want).abs() < 1e-5, "{len}");
    }
}
