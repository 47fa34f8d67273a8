//! Heads, pages, attention.

use std::ops::Range;

use config::Precision;

use super::*;
use crate::cuda::{Attend, Gate, HeadNorm, Heads, PageFormat, Places, Rotations, Store};
use crate::kernels::{self, PAGE, Query, sigmoid};
use crate::math;
use crate::rope::{Pairs, Rope};

/// Sums in F32 in another order than the CPU's in F64, through norm and rotation.
const TURNED: f32 = 2e-6;
/// Softmax in pieces, blended; scores of about ten have an error of a few units in the last place.
const ATTENDED: f32 = 1e-5;

/// Cosines and sines of positions, out of what they do to (1, 0).
fn rotations(rope: &Rope, positions: &[usize]) -> [Vec<f32>; 2] {
    let mut tables = [Vec::new(), Vec::new()];
    for position in positions {
        let mut ones = vec![0f32; rope.dims];
        let half = rope.dims / 2;
        let (first, second): (Vec<usize>, Vec<usize>) = match rope.pairs {
            Pairs::Halves => ((0..half).collect(), (half..rope.dims).collect()),
            Pairs::Neighbours => {
                ((0..half).map(|i| 2 * i).collect(), (0..half).map(|i| 2 * i + 1).collect())
            }
        };
        first.iter().for_each(|&i| ones[i] = 1.0);
        rope.at(*position).apply(&mut ones);
        tables[0].extend(first.iter().map(|&i| ones[i]));
        tables[1].extend(second.iter().map(|&i| ones[i]));
    }
    tables
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Normed {
    No,
    Each,
    Together,
    Unit,
    Length,
}

/// Heads as they come from between gates, against the CPU's steps.
#[track_caller]
fn check_heads(heads: usize, head_dim: usize, turned: usize, pairs: Pairs, normed: Normed) {
    let q = queue();
    let (positions, eps) = ([0, 5, 1234], 1e-6);
    let rows = positions.len();
    // Each head is followed by a gate.
    let x = noise(rows * heads * 2 * head_dim, 1);
    let weight = noise(heads * head_dim, 2);
    let rope = Rope::plain(turned, 10_000.0, pairs);
    let [cos, sin] = rotations(&rope, &positions);
    let (x_at, cos_at, sin_at, weight_at) =
        (up(&q, &x), up(&q, &cos), up(&q, &sin), up(&q, &weight));
    let count = Count::new(&q, rows);
    let norm = match normed {
        Normed::No => HeadNorm::None,
        Normed::Each => HeadNorm::Each(weight_at.slice()),
        Normed::Together => HeadNorm::Together(weight_at.slice()),
        Normed::Unit => HeadNorm::Unit,
        Normed::Length => HeadNorm::Length,
    };
    let rotations = Rotations {
        cos: cos_at.slice(),
        sin: sin_at.slice(),
        turned,
        neighbours: pairs == Pairs::Neighbours,
    };
    let out = blank(&q, rows * heads * head_dim);
    let launch = Heads {
        x: x_at.slice(),
        row: heads * 2 * head_dim,
        head: 2 * head_dim,
        heads,
        head_dim,
        norm,
        eps,
        rotations: (turned > 0).then_some(rotations),
        out: out.slice(),
        out_row: heads * head_dim,
        rows: count.rows(),
    };
    launch.launch(&q).unwrap();
    let mut want: Vec<f32> = x.chunks(head_dim).step_by(2).flatten().copied().collect();
    for (row, position) in want.chunks_mut(heads * head_dim).zip(positions) {
        if normed == Normed::Together {
            math::rms_norm_in_place(row, &weight, eps);
        }
        for head in row.chunks_mut(head_dim) {
            match normed {
                Normed::Each => math::rms_norm_in_place(head, &weight[..head_dim], eps),
                Normed::Unit => math::unit_rms(head, eps),
                Normed::Length => math::unit_length(head, eps),
                Normed::No | Normed::Together => {}
            }
            rope.at(position).apply(head);
        }
    }
    let got = q.read(out.slice()).unwrap();
    close(&got, &want, TURNED, &format!("{normed:?} {pairs:?} {head_dim}"));
    // In place, where heads lie side by side.
    if normed != Normed::Together {
        let dense: Vec<f32> = x.chunks(head_dim).step_by(2).flatten().copied().collect();
        let dense = up(&q, &dense);
        let (x, row, head) = (dense.slice(), heads * head_dim, head_dim);
        Heads { x, row, head, out: dense.slice(), ..launch }.launch(&q).unwrap();
        assert_eq!(bits(&q.read(dense.slice()).unwrap()), bits(&got), "in place");
    }
}

#[test]
fn heads_are_normed_and_turned() {
    use Normed::*;
    for normed in [No, Each, Together, Unit, Length] {
        for (heads, head_dim, turned) in
            [(1, 64, 64), (3, 128, 128), (2, 80, 32), (5, 48, 0), (2, 512, 512), (2, 6, 4)]
        {
            check_heads(heads, head_dim, turned, Pairs::Halves, normed);
            check_heads(heads, head_dim, turned, Pairs::Neighbours, normed);
        }
    }
}

struct Case {
    precision: Precision,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    /// Tokens of each of the sequences.
    tokens: [usize; 2],
    window: Option<usize>,
    sinks: bool,
    gated: bool,
}

/// Sequences whose last tokens are rows of one batch: the CPU's attention over the CPU's pages, and the same bits with
/// pieces side by side, with each row alone, and with the prompt in pieces.
#[track_caller]
fn check(case: &Case, rows_of_each: usize) {
    let Case { precision, heads, kv_heads, head_dim, tokens, window, sinks, gated } = *case;
    let what = format!("{precision:?} {heads}/{kv_heads}x{head_dim} {tokens:?} {window:?}");
    let q = queue();
    let (dim, scale, layers) = (kv_heads * head_dim, 0.3, 2);
    let format = PageFormat { precision, kv_heads, head_dim };
    let sinks = sinks.then(|| noise(heads, 8));
    let sinks_at = sinks.as_ref().map(|s| up(&q, s));

    // Pages of both sequences, taken from a pool in turn; the layer is the second one in a page.
    let pages_of = tokens.map(|t| t.div_ceil(PAGE));
    let pool: Vec<Buffer<u8>> = (0..pages_of[0] + pages_of[1])
        .map(|_| up(&q, &vec![0xffu8; layers * format.bytes()]))
        .collect();
    let addresses: Vec<u64> = pool.iter().rev().map(|b| b.slice().address()).collect();
    let pages = up(&q, &addresses);
    let table_of = [0, pages_of[0] as u32];
    let keys = tokens.map(|t| noise(t * dim, 10 + t as u64));
    let values = tokens.map(|t| noise(t * dim, 20 + t as u64));
    // Rows: sequence and position.
    let store = |of: &[(usize, usize)]| {
        let pick = |from: &[Vec<f32>; 2]| -> Vec<f32> {
            of.iter().flat_map(|&(s, p)| from[s][p * dim..(p + 1) * dim].to_vec()).collect()
        };
        let (k, v) = (up(&q, &pick(&keys)), up(&q, &pick(&values)));
        let positions: Vec<u32> = of.iter().map(|(_, p)| *p as u32).collect();
        let tables: Vec<u32> = of.iter().map(|(s, _)| table_of[*s]).collect();
        let (positions, tables) = (up(&q, &positions), up(&q, &tables));
        let count = Count::new(&q, of.len());
        let places = Places {
            positions: positions.slice(),
            tables: tables.slice(),
            pages: pages.slice(),
            offset: format.bytes() as u64,
        };
        let rows = count.rows();
        let store = Store { format, keys: k.slice(), values: v.slice(), places, rows };
        // SAFETY: pages lie there.
        unsafe { store.launch(&q) }.unwrap();
    };
    let all: Vec<(usize, usize)> =
        (0..2).flat_map(|s| (0..tokens[s]).map(move |p| (s, p))).collect();
    all.chunks(77).for_each(store);

    let rows: Vec<(usize, usize)> =
        (0..2).flat_map(|s| (tokens[s] - rows_of_each..tokens[s]).map(move |p| (s, p))).collect();
    // Each head of queries is followed by its gate.
    let mixed = noise(rows.len() * heads * 2 * head_dim, 30);
    let context = tokens[0].max(tokens[1]);
    let run = |of: Range<usize>, apart: bool| {
        let n = of.len();
        let mixed = &mixed[of.start * heads * 2 * head_dim..of.end * heads * 2 * head_dim];
        let queries: Vec<f32> = mixed.chunks(head_dim).step_by(2).flatten().copied().collect();
        let (queries, mixed) = (up(&q, &queries), up(&q, mixed));
        let positions: Vec<u32> = rows[of.clone()].iter().map(|(_, p)| *p as u32).collect();
        let tables: Vec<u32> = rows[of].iter().map(|(s, _)| table_of[*s]).collect();
        let (positions, tables) = (up(&q, &positions), up(&q, &tables));
        let (count, out) = (Count::new(&q, n), blank(&q, n * heads * head_dim));
        let gate = Gate {
            x: mixed.slice().range(head_dim..n * heads * 2 * head_dim),
            row: heads * 2 * head_dim,
            head: 2 * head_dim,
        };
        let attend = Attend {
            format,
            q: queries.slice(),
            heads,
            scale,
            window,
            sinks: sinks_at.as_ref().map(Buffer::slice),
            gate: gated.then_some(gate),
            places: Places {
                positions: positions.slice(),
                tables: tables.slice(),
                pages: pages.slice(),
                offset: format.bytes() as u64,
            },
            out: out.slice(),
            rows: count.rows(),
        };
        // SAFETY: pages lie there and were stored to.
        unsafe {
            if apart {
                let room = blank(&q, attend.room(context));
                attend.launch_apart(&q, context, room.slice()).unwrap();
            } else {
                attend.launch(&q).unwrap();
            }
        }
        q.read(out.slice()).unwrap()
    };
    let got = run(0..rows.len(), false);
    assert_eq!(bits(&run(0..rows.len(), true)), bits(&got), "{what}: pieces side by side");

    let cpu = kernels::PageFormat { precision, dim };
    let memory: Vec<Vec<u64>> = pool.iter().map(|_| vec![u64::MAX; cpu.bytes() / 8 + 1]).collect();
    let page = |s: usize, i: usize| memory[table_of[s] as usize + i].as_ptr().cast::<u8>();
    for &(s, p) in &all {
        let at = p * dim..(p + 1) * dim;
        let to = page(s, p / PAGE).cast_mut();
        // SAFETY: the page has so many bytes, and nobody else.
        unsafe { cpu.put(to, p % PAGE, &keys[s][at.clone()], &values[s][at]) };
    }
    for (i, &(s, p)) in rows.iter().enumerate() {
        let of = i * heads * head_dim..(i + 1) * heads * head_dim;
        assert_eq!(bits(&run(i..i + 1, i % 2 == 0)), bits(&got[of.clone()]), "{what}: alone");
        for (head, got) in got[of].chunks(head_dim).enumerate() {
            let at = (i * heads + head) * 2 * head_dim;
            let (query, gate) = mixed[at..at + 2 * head_dim].split_at(head_dim);
            let mut want = vec![0f32; head_dim];
            let from = window.map_or(0, |w| (p + 1).saturating_sub(w));
            let sink = sinks.as_ref().map(|s| s[head]);
            kernels::attend(kernels::Attend {
                format: cpu,
                page: |i| page(s, i),
                at: head / (heads / kv_heads) * head_dim,
                scale,
                queries: &mut [Query { q: query, out: &mut want, sees: from..p + 1, sink }],
            });
            if gated {
                want.iter_mut().zip(gate).for_each(|(v, g)| *v *= sigmoid(*g));
            }
            close(got, &want, ATTENDED, &what);
        }
    }
}

#[test]
fn attention_is_the_cpus() {
    for precision in [Precision::F32, Precision::F16, Precision::Q8] {
        let plain = Case {
            precision,
            heads: 2,
            kv_heads: 2,
            head_dim: 64,
            tokens: [1, 5],
            window: None,
            sinks: false,
            gated: false,
        };
        check(&plain, 1);
        // Pages begun, pieces begun, several pieces; groups of fewer and of more heads than a block has.
        let long = Case { tokens: [300, 128], ..plain };
        check(&long, 3);
        check(&Case { heads: 8, kv_heads: 2, head_dim: 96, gated: true, ..long }, 2);
        check(&Case { heads: 10, kv_heads: 1, head_dim: 128, sinks: true, ..long }, 2);
        check(&Case { heads: 2, kv_heads: 1, head_dim: 256, sinks: true, gated: true, ..long }, 1);
        check(&Case { heads: 2, kv_heads: 1, head_dim: 512, tokens: [140, 33], ..plain }, 1);
        // Windows within a piece, over a piece's edge, over two, and wider than there are tokens.
        for window in [1, 7, 100, 129, 1000] {
            check(&Case { window: Some(window), sinks: window == 7, ..long }, 2);
        }
        if precision != Precision::Q8 {
            check(&Case { head_dim: 48, ..long }, 1);
            check(&Case { head_dim: 80, heads: 6, ..long }, 1);
            // Heads that are no whole eight.
            check(&Case { head_dim: 20, tokens: [40, 9], ..plain }, 1);
            check(&Case { head_dim: 7, kv_heads: 1, ..long }, 1);
        }
    }
}
