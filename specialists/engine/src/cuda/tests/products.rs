//! Formats, forms and products.

use half::{bf16, f16};

use super::*;
use crate::cuda::{Embed, Form, Input, Matrices, Rounded, Unit, Work, gated, product};
use crate::ggml::Kind;
use crate::kernels::{self, Activation, Activations, Gated, Job, matmul};

/// Every format with a kernel, and where in a block its F16 scales are.
const FORMATS: [(Kind, &[usize]); 14] = [
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

/// The same numbers in sums of another order; the CPU adds block after block.
const REORDERED: f32 = 2e-6;

/// Random blocks, of every pattern of bits that does not make a scale absurd.
fn weights(kind: Kind, rows: usize, k: usize, seed: u64) -> Vec<u8> {
    let scales = FORMATS.iter().find(|(of, _)| *of == kind).unwrap().1;
    let mut rng = fastrand::Rng::with_seed(seed);
    let len = kind.bytes(k as u64).unwrap() as usize * rows;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
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
    bytes
}

/// Activations with a row of zeros and a row far larger than the others.
fn activations(n: usize, k: usize) -> Vec<f32> {
    let mut x = noise(n * k, 9);
    x[..k].fill(0.0);
    x[(n - 1) * k..].iter_mut().for_each(|v| *v *= 1e3);
    x
}

#[test]
fn rows_of_weights_are_what_the_cpu_reads() {
    let q = queue();
    for (kind, _) in FORMATS {
        let (rows, k) = (5, 512);
        let mut bytes = weights(kind, rows, k, 1);
        if kind == Kind::MXFP4 {
            (bytes[0], bytes[17], bytes[34]) = (0, 1, 2);
        }
        let cpu = matrix(&bytes, kind, rows, k);
        let tokens = [4u32, 0, 0, 3];
        let count = Count::new(&q, tokens.len());
        let (matrix, tokens_at) = (up(&q, &bytes), up(&q, &tokens));
        let out = blank(&q, tokens.len() * k);
        let embed = Embed {
            kind,
            matrix: matrix.slice(),
            k,
            scale: 1.0,
            tokens: tokens_at.slice(),
            out: out.slice(),
            rows: count.rows(),
        };
        for scale in [1.0, 45.25] {
            // SAFETY: rows of five.
            unsafe { Embed { scale, ..embed }.launch(&q) }.unwrap();
            for (got, token) in q.read(out.slice()).unwrap().chunks(k).zip(tokens) {
                let mut want = vec![0f32; k];
                cpu.dequantise_row(token as usize, &mut want);
                want.iter_mut().for_each(|v| *v *= scale);
                assert_eq!(bits(got), bits(&want), "{kind:?}");
            }
        }
    }
}

/// Rows of weights that each pick out one number: what the CPU multiplies with them is its rounded activations.
fn ones(kind: Kind, k: usize) -> Vec<u8> {
    let one = f16::from_f32(1.0).to_le_bytes();
    let mut bytes = vec![0u8; kind.bytes(k as u64).unwrap() as usize * k];
    let (in_block, block) = (kind.block_weights() as usize, kind.block_bytes() as usize);
    for (i, row) in bytes.chunks_exact_mut(k / in_block * block).enumerate() {
        for (b, block) in row.chunks_exact_mut(block).enumerate() {
            let hit = (i / in_block == b).then_some(i % in_block);
            if kind == Kind::Q8_0 {
                block[..2].copy_from_slice(&one);
                hit.into_iter().for_each(|at| block[2 + at] = 1);
                continue;
            }
            // Q6_K: 32 stands for zero.
            block[208..210].copy_from_slice(&one);
            block[192..208].fill(1);
            block[128..192].fill(0xaa);
            if let Some(at) = hit {
                let (half, part) = (at / 128, at / 32 % 4);
                block[64 * half + 32 * (part % 2) + at % 32] |= 1 << (4 * (part / 2));
            }
        }
    }
    bytes
}

/// Quants, scales and sums equal the CPU's, bit for bit.
#[test]
fn activations_are_rounded_as_the_cpu_rounds_them() {
    let q = queue();
    for (form, kind, block) in [(Form::Q8, Kind::Q8_0, 32), (Form::Q8K, Kind::Q6_K, 256)] {
        for (rows, k) in [(1, 256), (9, 512), (3, 1280)] {
            let mut x = activations(rows, k);
            // Ties of rounding, ties of size, numbers below the normal ones.
            (x[k - 256], x[k - 255], x[k - 254]) = (-127.0, 127.0, 0.5);
            x[(rows - 1) * k..][..block].fill(1e-41);
            let rounded = Rounded::new(q.device(), form, rows, k).unwrap();
            let (count, on_device) = (Count::new(&q, rows), up(&q, &x));
            rounded.round(&q, on_device.slice(), count.rows()).unwrap();
            let (quants, scales) =
                (q.read(rounded.quants.slice()).unwrap(), q.read(rounded.scales.slice()).unwrap());
            let got: Vec<f32> =
                quants.iter().enumerate().map(|(i, v)| f32::from(*v) * scales[i / block]).collect();
            let mut want = vec![0f32; rows * k];
            let one = matrix(&ones(kind, k), kind, k, k);
            matmul(&one, &mut Activations::new(&x, k), &mut want);
            assert_eq!(got, want, "{form:?}");
            let sum = |some: &[i8]| some.iter().map(|q| i32::from(*q)).sum::<i32>();
            if form == Form::Q8K {
                let want: Vec<i16> = quants.chunks(16).map(|c| sum(c) as i16).collect();
                assert_eq!(q.read(rounded.small_sums.slice()).unwrap(), want);
                continue;
            }
            let sums: Vec<i32> = quants.chunks(32).map(sum).collect();
            assert_eq!(q.read(rounded.sums.slice()).unwrap(), sums);
            let total = |(x, sum): (&[f32], &i32)| {
                let most = x.iter().fold(0f32, |m, v| m.max(v.abs()));
                let exact = most / 127.0 * *sum as f32;
                let through = f16::from_f32(exact).to_f32();
                if through.is_infinite() { exact } else { through }
            };
            let totals: Vec<f32> = x.chunks(32).zip(&sums).map(total).collect();
            assert_eq!(q.read(rounded.totals.slice()).unwrap(), totals);
        }
    }
}

/// Activations on the device, in the form that weights of `kind` want.
struct Rows9 {
    floats: Buffer<f32>,
    rounded: Rounded,
    form: Form,
    k: usize,
}

impl Rows9 {
    fn new(q: &Queue, kind: Kind, x: &[f32], k: usize) -> Rows9 {
        let (form, rows) = (Form::of(kind).unwrap(), x.len() / k);
        let (floats, count) = (up(q, x), Count::new(q, rows));
        let rounded = Rounded::new(q.device(), form, rows, k).unwrap();
        rounded.round(q, floats.slice(), count.rows()).unwrap();
        Rows9 { floats, rounded, form, k }
    }

    fn input(&self) -> Input<'_> {
        match self.form {
            Form::F32 => Input::floats(self.floats.slice(), self.k),
            _ => self.rounded.input(),
        }
    }
}

/// A product of each format: the CPU's numbers, the same bits for each row alone, and nothing written beyond.
#[track_caller]
fn check(rows: usize, k: usize, n: usize) {
    let q = queue();
    for (kind, _) in FORMATS {
        if !k.is_multiple_of(kind.block_weights() as usize) {
            continue;
        }
        let bytes = weights(kind, rows, k, (rows * k) as u64);
        let x = activations(n, k);
        let bias = noise(rows, 2);
        let (on_device, bias_at) = (up(&q, &bytes), up(&q, &bias));
        let slots = up(&q, &[on_device.slice().address()]);
        let w = Matrices {
            kind,
            rows,
            k,
            slots: slots.slice(),
            offset: 0,
            bias: Some(bias_at.slice()),
        };
        let run = |x: &[f32], most: usize| {
            let count = Count::new(&q, x.len() / k);
            let mut more = x.to_vec();
            more.resize(most * k, BLANK);
            let (x, out) = (Rows9::new(&q, kind, &more, k), blank(&q, most * rows));
            // SAFETY: the matrix lies there.
            unsafe { product(&q, &w, x.input(), Work::Rows(count.of(most)), out.slice()) }.unwrap();
            q.read(out.slice()).unwrap()
        };
        let got = run(&x, n + 1);
        let (got, beyond) = got.split_at(n * rows);
        assert!(beyond.iter().all(|v| v.to_bits() == u32::MAX), "{kind:?}: rows beyond");
        let mut want = vec![0f32; n * rows];
        matmul(&matrix(&bytes, kind, rows, k), &mut Activations::new(&x, k), &mut want);
        for ((got, want), x) in got.chunks(rows).zip(want.chunks(rows)).zip(x.chunks(k)) {
            let want: Vec<f32> = want.iter().zip(&bias).map(|(a, b)| a + b).collect();
            close(got, &want, REORDERED, &format!("{kind:?} {rows} x {k}, {n}"));
            assert_eq!(bits(&run(x, 1)), bits(got), "{kind:?}: alone");
        }
    }
}

#[test]
fn products_are_the_cpus() {
    for n in 1..=9 {
        check(17, 512, n);
    }
    check(1, 256, 2);
    check(40, 768, 17);
    // Blocks that are no whole turn of eight lanes, and rows that are aligned to nothing.
    check(7, 32, 3);
    check(33, 96, 5);
    check(5, 416, 3);
    // Numbers alone.
    check(19, 37, 4);
    check(3, 8, 2);
}

/// Units of experts, out of order, one of them absent: two matrices in a slot.
#[test]
fn gated_products_of_experts() {
    let q = queue();
    for (kind, _) in FORMATS {
        let (rows, k, n) = (21, 512, 12);
        let bytes = |seed| weights(kind, rows, k, seed);
        let x = activations(n, k);
        let gap = bytes(0).len().next_multiple_of(256);
        let both = |seed| {
            let mut slot = bytes(seed);
            slot.resize(gap, 0);
            [slot, bytes(seed + 1)].concat()
        };
        let slots: Vec<Buffer<u8>> = [10, 20].into_iter().map(|s| up(&q, &both(s))).collect();
        let table = up(&q, &[slots[0].slice().address(), 0, slots[1].slice().address()]);
        let bias: Vec<f32> = noise(2 * 3 * rows, 3);
        let (bias_g, bias_u) = (up(&q, &bias[..3 * rows]), up(&q, &bias[3 * rows..]));
        let matrices = |offset, bias| {
            let slots = table.slice();
            Matrices { kind, rows, k, slots, offset, bias: Some(bias) }
        };
        let (gate, up_) = (matrices(0, bias_g.slice()), matrices(gap as u64, bias_u.slice()));
        let rows9 = Rows9::new(&q, kind, &x, k);
        for (activation, tolerance) in
            [(Activation::Silu, 4e-6), (Activation::Gelu, 1e-3), (Activation::ClampedSwiglu, 4e-6)]
        {
            let run = |units: &[Unit], picks: &[u32]| {
                let (units, count) = (up(&q, units), up(&q, &[units.len() as u32]));
                let (at, out) = (up(&q, picks), blank(&q, picks.len() * rows));
                let work = Work::Units {
                    units: units.slice(),
                    count: count.slice(),
                    picks: Some(at.slice()),
                    outputs: picks.len(),
                };
                let input = rows9.input();
                // SAFETY: matrices lie in the slots, and picks are rows.
                unsafe { gated(&q, [&gate, &up_], activation, input, work, out.slice()) }.unwrap();
                q.read(out.slice()).unwrap()
            };
            let unit = |expert, first, count| Unit { expert, first, count };
            let picks = [5, 11, 0, 3, 3, 4, 7, 2, 11, 9, 1];
            let got = run(&[unit(2, 3, 8), unit(0, 0, 2), unit(1, 2, 1)], &picks);
            for (place, (got, pick)) in got.chunks(rows).zip(picks).enumerate() {
                let expert = [0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2][place];
                if expert == 1 {
                    assert!(got.iter().all(|v| v.is_nan()), "an expert that is absent");
                    continue;
                }
                let alone = run(&[unit(expert, 0, 1)], &[pick]);
                assert_eq!(bits(&alone), bits(got), "{kind:?} {activation:?}: alone");
                let seed = [10, 0, 20][expert as usize];
                let w = [seed, seed + 1].map(|s| matrix(&bytes(s), kind, rows, k));
                let mut x = Activations::new(&x, k);
                w.iter().for_each(|w| x.prepare_for(w));
                let mut want = vec![0f32; rows];
                let of = |b: &'_ [f32]| b[expert as usize * rows..][..rows].to_vec();
                let biases = [of(&bias[..3 * rows]), of(&bias[3 * rows..])];
                kernels::compute([Job::Gated(Gated {
                    w: [&w[0], &w[1]],
                    bias: [Some(&biases[0]), Some(&biases[1])],
                    activation,
                    x: &x,
                    picks: &[pick],
                    out: &mut want,
                })]);
                close(got, &want, tolerance, &format!("{kind:?} {activation:?}"));
            }
        }
    }
}
