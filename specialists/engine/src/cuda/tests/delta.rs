//! The gated delta net, step after step and a whole sequence cut in pieces.

use super::*;
use crate::cuda::{Convolve, GatedNorm, HeadNorm, Heads, Rates, Recur, Stretch, Untangle};
use crate::kernels::{sigmoid, silu};
use crate::math;

/// Sums in another order than in F64.
const CLOSE: f32 = 3e-6;

struct Shape {
    key_heads: usize,
    share: usize,
    head_dim: usize,
    taps: usize,
    in_turn: bool,
}

impl Shape {
    fn value_heads(&self) -> usize {
        self.key_heads * self.share
    }

    fn channels(&self) -> usize {
        (2 * self.key_heads + self.value_heads()) * self.head_dim
    }

    fn past(&self) -> usize {
        (self.taps - 1) * self.channels()
    }

    fn state(&self) -> usize {
        self.past() + self.value_heads() * self.head_dim * self.head_dim
    }
}

const SHAPES: [Shape; 3] = [
    Shape { key_heads: 2, share: 2, head_dim: 128, taps: 4, in_turn: false },
    Shape { key_heads: 3, share: 1, head_dim: 32, taps: 2, in_turn: true },
    Shape { key_heads: 1, share: 4, head_dim: 96, taps: 3, in_turn: true },
];

#[test]
fn a_projection_is_taken_apart() {
    let q = queue();
    for Shape { key_heads, share, head_dim, .. } in SHAPES {
        let (rows, group) = (3, (2 + 2 * share) * head_dim);
        let (keys, values) = (key_heads * head_dim, key_heads * share * head_dim);
        let all = noise(rows * key_heads * group, 1);
        let (count, all_at) = (Count::new(&q, rows), up(&q, &all));
        let (qkv, z) = (blank(&q, rows * (2 * keys + values)), blank(&q, rows * values));
        let (qkv_to, z_to) = (qkv.slice(), z.slice());
        let all_from = all_at.slice();
        let rows_of = count.rows();
        Untangle { all: all_from, key_heads, share, head_dim, qkv: qkv_to, z: z_to, rows: rows_of }
            .launch(&q)
            .unwrap();
        let (mut want, mut want_z) = (Vec::new(), Vec::new());
        for row in all.chunks(key_heads * group) {
            let take = |at: usize, len: usize| -> Vec<f32> {
                let piece = |g: &[f32]| g[at * head_dim..(at + len) * head_dim].to_vec();
                row.chunks(group).flat_map(piece).collect()
            };
            want.extend([take(0, 1), take(1, 1), take(2, share)].concat());
            want_z.extend(take(2 + share, share));
        }
        assert_eq!(q.read(qkv.slice()).unwrap(), want);
        assert_eq!(q.read(z.slice()).unwrap(), want_z);
    }
}

#[test]
fn rates_that_lie_apart_and_in_turn() {
    let q = queue();
    let (rows, heads, share) = (3, 6, 2);
    // For each head of keys the betas of its values, then their alphas.
    let both: Vec<f32> = noise(rows * 2 * heads, 1).iter().map(|v| v * 15.0).collect();
    let (dt, a) = (noise(heads, 2), noise(heads, 3).iter().map(|v| v - 2.0).collect::<Vec<f32>>());
    let half = |at: usize| -> Vec<f32> {
        both.chunks(share).skip(at).step_by(2).flatten().copied().collect()
    };
    let (betas, alphas) = (half(0), half(1));
    let want: Vec<f32> = betas.iter().map(|b| sigmoid(*b)).collect();
    let kept =
        |(i, alpha): (usize, &f32)| (math::softplus(alpha + dt[i % heads]) * a[i % heads]).exp();
    let want_decay: Vec<f32> = alphas.iter().enumerate().map(kept).collect();
    let (count, dt, a) = (Count::new(&q, rows), up(&q, &dt), up(&q, &a));
    let (both, betas, alphas) = (up(&q, &both), up(&q, &betas), up(&q, &alphas));
    let (beta, decay) = (blank(&q, rows * heads), blank(&q, rows * heads));
    let apart = Rates {
        betas: betas.slice(),
        alphas: alphas.slice(),
        row: heads,
        group: share,
        share,
        dt: dt.slice(),
        a: a.slice(),
        beta: beta.slice(),
        decay: decay.slice(),
        rows: count.rows(),
    };
    let len = rows * 2 * heads;
    let (first, second) = (both.slice(), both.slice().range(share..len));
    let in_turn = Rates { betas: first, alphas: second, row: 2 * heads, group: 2 * share, ..apart };
    for rates in [apart, in_turn] {
        rates.launch(&q).unwrap();
        assert_eq!(q.read(beta.slice()).unwrap(), want);
        close(&q.read(decay.slice()).unwrap(), &want_decay, 1e-6, "decay");
    }
}

/// Rows of a sequence, [channels] each, and their rates.
struct Part<'a> {
    sequence: usize,
    x: &'a [f32],
    beta: &'a [f32],
    decay: &'a [f32],
}

/// Sequences on the device: states, and rows pushed through them.
struct Net<'a> {
    shape: &'a Shape,
    kernel: Buffer<f32>,
    states: Vec<Buffer<f32>>,
}

impl Net<'_> {
    /// What comes of one step.
    fn step(&self, q: &Queue, of: &[Part<'_>]) -> Vec<f32> {
        let (s, channels, heads) = (self.shape, self.shape.channels(), self.shape.value_heads());
        let (mut x, mut beta, mut decay) = (Vec::new(), Vec::new(), Vec::new());
        let (mut stretches, mut stretch_of) = (Vec::new(), Vec::new());
        for (index, part) in of.iter().enumerate() {
            let (first, count) = (stretch_of.len() as u32, (part.x.len() / channels) as u32);
            let state = self.states[part.sequence].slice().address();
            stretches.push(Stretch { first, count, state });
            stretch_of.extend(vec![index as u32; count as usize]);
            x.extend_from_slice(part.x);
            beta.extend_from_slice(part.beta);
            decay.extend_from_slice(part.decay);
        }
        let rows = stretch_of.len();
        let (count, number) = (Count::new(q, rows), up(q, &[stretches.len() as u32]));
        let (x, beta, decay) = (up(q, &x), up(q, &beta), up(q, &decay));
        // Room for more stretches than there are.
        let more = Stretch { first: u32::MAX, count: u32::MAX, state: u64::MAX };
        stretches.push(more);
        let (stretches, stretch_of) = (up(q, &stretches), up(q, &stretch_of));
        let mixed = blank(q, rows * channels);
        let convolve = Convolve {
            x: x.slice(),
            channels,
            taps: s.taps,
            kernel: self.kernel.slice(),
            stretches: stretches.slice(),
            count: number.slice(),
            stretch_of: stretch_of.slice(),
            out: mixed.slice(),
            rows: count.rows(),
        };
        let out = blank(q, rows * heads * s.head_dim);
        // SAFETY: states lie there, each once.
        unsafe {
            convolve.launch(q).unwrap();
            // Queries and keys, where they are.
            let heads_of = Heads {
                x: mixed.slice(),
                row: channels,
                head: s.head_dim,
                heads: 2 * s.key_heads,
                head_dim: s.head_dim,
                norm: HeadNorm::Length,
                eps: 1e-6,
                rotations: None,
                out: mixed.slice(),
                out_row: channels,
                rows: count.rows(),
            };
            heads_of.launch(q).unwrap();
            let recur = Recur {
                qkv: mixed.slice(),
                beta: beta.slice(),
                decay: decay.slice(),
                stretches: stretches.slice(),
                count: number.slice(),
                key_heads: s.key_heads,
                value_heads: heads,
                head_dim: s.head_dim,
                in_turn: s.in_turn,
                past: s.past(),
                out: out.slice(),
                rows,
            };
            recur.launch(q).unwrap();
        }
        q.read(out.slice()).unwrap()
    }
}

/// One sequence from an empty state, in F64 but for the rounding of what goes in.
fn reference(s: &Shape, kernel: &[f32], x: &[f32], beta: &[f32], decay: &[f32]) -> Vec<f32> {
    let (channels, hd, heads) = (s.channels(), s.head_dim, s.value_heads());
    let keys = s.key_heads * hd;
    let mut states = vec![0f64; heads * hd * hd];
    let mut out = Vec::new();
    for i in 0..x.len() / channels {
        let tap = |c: usize, t: usize| {
            let at = (i + t).checked_sub(s.taps - 1);
            at.map_or(0.0, |at| f64::from(x[at * channels + c]) * f64::from(kernel[c * s.taps + t]))
        };
        let sum = |c: usize| (0..s.taps).map(|t| tap(c, t)).sum::<f64>();
        let mut row: Vec<f64> = (0..channels).map(sum).map(|v| v / (1.0 + (-v).exp())).collect();
        for head in row[..2 * keys].chunks_mut(hd) {
            let length = (head.iter().map(|v| v * v).sum::<f64>() + 1e-6).sqrt();
            head.iter_mut().for_each(|v| *v /= length);
        }
        for head in 0..heads {
            let key_head = if s.in_turn { head % s.key_heads } else { head / s.share };
            let (q, k) = (&row[key_head * hd..][..hd], &row[keys + key_head * hd..][..hd]);
            let v = &row[2 * keys + head * hd..][..hd];
            let (b, d) = (f64::from(beta[i * heads + head]), f64::from(decay[i * heads + head]));
            for (line, v) in states[head * hd * hd..][..hd * hd].chunks_mut(hd).zip(v) {
                line.iter_mut().for_each(|s| *s *= d);
                let known: f64 = line.iter().zip(k).map(|(s, k)| s * k).sum();
                line.iter_mut().zip(k).for_each(|(s, k)| *s += (v - known) * b * k);
                let answer: f64 = line.iter().zip(q).map(|(s, q)| s * q).sum();
                out.push((answer / (hd as f64).sqrt()) as f32);
            }
        }
    }
    out
}

/// However a sequence is cut into steps, and whoever is beside it, its numbers are the same bits.
#[test]
fn sequences_go_through_their_states() {
    for s in &SHAPES {
        let q = queue();
        let (channels, heads, rows) = (s.channels(), s.value_heads(), 7);
        let kernel = noise(channels * s.taps, 1);
        let data: Vec<[Vec<f32>; 3]> = (0..2)
            .map(|i| {
                let rate = |seed| noise(rows * heads, seed).iter().map(|v| v.abs()).collect();
                [noise(rows * channels, 10 + i), rate(20 + i), rate(30 + i)]
            })
            .collect();
        let net = || Net {
            shape: s,
            kernel: up(&q, &kernel),
            states: (0..2).map(|_| up(&q, &vec![0f32; s.state()])).collect(),
        };
        let part = |sequence: usize, from: usize, to: usize| {
            let [x, beta, decay] = &data[sequence];
            let (x, rates) = (&x[from * channels..to * channels], from * heads..to * heads);
            Part { sequence, x, beta: &beta[rates.clone()], decay: &decay[rates] }
        };
        let whole = net();
        let got = whole.step(&q, &[part(0, 0, rows), part(1, 0, rows)]);
        let cut = net();
        let width = heads * s.head_dim;
        let mut pieces = [Vec::new(), Vec::new()];
        for (one, other) in [((0, 1), (0, 4)), ((1, 3), (4, 5)), ((3, 7), (5, 7))] {
            let out = cut.step(&q, &[part(1, other.0, other.1), part(0, one.0, one.1)]);
            let (first, second) = out.split_at((other.1 - other.0) * width);
            pieces[1].extend_from_slice(first);
            pieces[0].extend_from_slice(second);
        }
        assert_eq!(bits(&pieces.concat()), bits(&got));
        for (whole, cut) in whole.states.iter().zip(&cut.states) {
            let (whole, cut) = (q.read(whole.slice()).unwrap(), q.read(cut.slice()).unwrap());
            assert_eq!(bits(&whole), bits(&cut), "states");
        }
        for (data, got) in data.iter().zip(got.chunks(rows * width)) {
            let want = reference(s, &kernel, &data[0], &data[1], &data[2]);
            close(got, &want, CLOSE, "the delta net");
        }
    }
}

#[test]
fn heads_are_normed_and_gated() {
    let q = queue();
    for (heads, head_dim) in [(2, 128), (3, 32), (1, 80)] {
        let (rows, weight) = (3, noise(head_dim, 3));
        let n = rows * heads * head_dim;
        let (x, z) = (noise(n, 1), noise(n, 2));
        let mut want = x.clone();
        for (head, z) in want.chunks_mut(head_dim).zip(z.chunks(head_dim)) {
            math::rms_norm_in_place(head, &weight, 1e-6);
            head.iter_mut().zip(z).for_each(|(v, z)| *v *= silu(*z));
        }
        let (count, x, z, weight) = (Count::new(&q, rows), up(&q, &x), up(&q, &z), up(&q, &weight));
        let (weight, rows) = (weight.slice(), count.rows());
        GatedNorm { x: x.slice(), z: z.slice(), weight, heads, eps: 1e-6, out: x.slice(), rows }
            .launch(&q)
            .unwrap();
        close(&q.read(x.slice()).unwrap(), &want, 1e-6, "gated norm");
    }
}
