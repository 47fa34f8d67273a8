//! Norms, and what goes number by number.

use half::{bf16, f16};

use super::*;
use crate::cuda::{Each, GateRows, Norm, Refuse};
use crate::kernels::{Activation, dot_f32, sigmoid, silu};
use crate::math;

/// Dims of less than a warp, odd, and of several turns of a block.
const DIMS: [usize; 6] = [1, 31, 64, 300, 1024, 2051];
/// Sums in F32 in another order than the CPU's in F64.
const SUMMED: f32 = 1e-6;
/// A sigmoid of such a sum, of terms larger than itself.
const OPENED: f32 = 1e-5;

/// What a kernel makes of rows, against `want` of each, all at once and each alone.
#[track_caller]
fn check(
    what: &str,
    tolerance: f32,
    run: impl Fn(&Queue, &Buffer<f32>, &Buffer<f32>, Rows<'_>, usize),
    want: impl Fn(&[f32]) -> Vec<f32>,
) {
    let q = queue();
    for dim in DIMS {
        let x = noise(7 * dim, dim as u64);
        let count = Count::new(&q, 7);
        let made = |x: &[f32], rows: Rows<'_>| {
            let (x, out) = (up(&q, x), blank(&q, rows.most * dim));
            run(&q, &x, &out, rows, dim);
            q.read(out.slice()).unwrap()
        };
        let more: Vec<f32> = [&x[..], &vec![BLANK; 2 * dim]].concat();
        let got = made(&more, count.of(9));
        assert!(got[7 * dim..].iter().all(|v| v.to_bits() == u32::MAX), "{what}: rows beyond");
        let one = Count::new(&q, 1);
        for (x, got) in x.chunks(dim).zip(got.chunks(dim)) {
            close(got, &want(x), tolerance, what);
            assert_eq!(bits(&made(x, one.rows())), bits(got), "{what}: alone");
        }
    }
}

#[test]
fn norms() {
    let weight = noise(2051, 4);
    let norm = |q: &Queue, x: &Buffer<f32>, out: &Buffer<f32>, rows: Rows<'_>, dim: usize| {
        let weight = up(q, &weight[..dim]);
        let (x, out) = (x.slice(), out.slice());
        Norm { x, weight: weight.slice(), out, rows, eps: 1e-5 }.launch(q).unwrap();
    };
    check("rms", SUMMED, norm, |x| {
        let mut out = vec![0.0; x.len()];
        math::rms_norm(x, &weight[..x.len()], 1e-5, &mut out);
        out
    });
    let gate = |q: &Queue, x: &Buffer<f32>, out: &Buffer<f32>, rows: Rows<'_>, dim: usize| {
        let gate = up(q, &weight[..dim]);
        let (y, x, out) = (x.slice(), x.slice(), out.slice());
        GateRows { y, x, gate: gate.slice(), out, rows }.launch(q).unwrap();
    };
    check("gated rows", OPENED, gate, |x| {
        let open = sigmoid(dot_f32(&weight[..x.len()], x));
        x.iter().map(|v| v * open).collect()
    });
}

fn each<'a>(x: &'a Buffer<f32>, out: &'a Buffer<f32>, rows: Rows<'a>, dim: usize) -> Each<'a> {
    Each { x: x.slice(), out: out.slice(), rows, dim }
}

#[test]
fn number_by_number() {
    let run = |f: fn(&Each<'_>, &Queue)| {
        move |q: &Queue, x: &Buffer<f32>, out: &Buffer<f32>, rows: Rows<'_>, dim: usize| {
            f(&each(x, out, rows, dim), q)
        }
    };
    let all = |f: fn(f32) -> f32| move |x: &[f32]| x.iter().map(|v| f(*v)).collect::<Vec<_>>();
    check("scale", 0.0, run(|e, q| e.scale(q, 0.3).unwrap()), all(|v| v * 0.3));
    check("add", 0.0, run(|e, q| e.add(q, e.x).unwrap()), all(|v| v + v));
    check("F16", 0.0, run(|e, q| e.round_f16(q).unwrap()), all(|v| f16::from_f32(v).to_f32()));
    check("BF16", 0.0, run(|e, q| e.round_bf16(q).unwrap()), all(|v| bf16::from_f32(v).to_f32()));
    let cap = run(|e, q| e.softcap(q, 0.5).unwrap());
    check("softcap", 3e-7, cap, all(|v| (v / 0.5).tanh() * 0.5));
    // Exponentials are the CPU's bits.
    let act = run(|e, q| e.activated(q, e.x, Activation::Silu).unwrap());
    check("silu", 0.0, act, all(|v| silu(v) * v));
    // A tanh that is off by its last bit may round to the F16 beside.
    let act = run(|e, q| e.activated(q, e.x, Activation::Gelu).unwrap());
    check("gelu", 5e-4, act, all(|v| crate::cuda::tests::gelu(v) * v));
    let act = run(|e, q| e.activated(q, e.x, Activation::ClampedSwiglu).unwrap());
    check("clamped", 0.0, act, all(|v| v * sigmoid(1.702 * v) * (v + 1.0)));
}

#[test]
fn activations_beyond_their_bounds() {
    let q = queue();
    let x = [-1e4f32, -20.0, -8.0, 8.0, 20.0, 1e4, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let (n, count) = (x.len(), Count::new(&q, 1));
    let (gate, ones, out) = (up(&q, &x), up(&q, &vec![1.0; n]), blank(&q, n));
    let run = |act| {
        each(&gate, &out, count.rows(), n).activated(&q, ones.slice(), act).unwrap();
        q.read(out.slice()).unwrap()
    };
    let got = run(Activation::Gelu);
    assert_eq!(got[..8], [0.0, 0.0, 0.0, 8.0, 20.0, 1e4, f32::INFINITY, 0.0]);
    assert!(got[8].is_nan());
    let got = run(Activation::ClampedSwiglu);
    close(&got[3..7], &[7.0 * 2.0; 4], 1e-5, "no gate above seven");
    assert!(got[8].is_nan());
    let got = run(Activation::Silu);
    assert_eq!(got[4..7], [20.0, 1e4, f32::INFINITY]);
}

#[test]
fn rows_by_index_and_vectors() {
    let q = queue();
    let (dim, x) = (37, noise(5 * 37, 3));
    let count = Count::new(&q, 4);
    let (all, picks) = (up(&q, &x), up(&q, &[4u32, 0, 0, 2]));
    let out = blank(&q, 4 * dim);
    // SAFETY: rows of five.
    unsafe { each(&all, &out, count.rows(), dim).gather(&q, picks.slice()) }.unwrap();
    let got = q.read(out.slice()).unwrap();
    for (got, pick) in got.chunks(dim).zip([4, 0, 0, 2]) {
        assert_eq!(got, &x[pick * dim..(pick + 1) * dim]);
    }
}

#[test]
fn logits_of_what_is_no_number_are_none() {
    let q = queue();
    let (dim, vocab, rows) = (300, 77, 4);
    let mut x = noise(rows * dim, 5);
    (x[dim], x[3 * dim + 299]) = (f32::NAN, f32::NEG_INFINITY);
    let (count, x, logits) = (Count::new(&q, rows), up(&q, &x), up(&q, &vec![1.0; rows * vocab]));
    let refuse = Refuse { x: x.slice(), logits: logits.slice(), rows: count.rows(), dim, vocab };
    refuse.launch(&q).unwrap();
    let got = q.read(logits.slice()).unwrap();
    for (row, got) in got.chunks(vocab).enumerate() {
        assert!(got.iter().all(|v| if row % 2 == 1 { v.is_nan() } else { *v == 1.0 }), "{row}");
    }
}
