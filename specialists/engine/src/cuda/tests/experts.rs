//! Routing, sorting, combining.

use super::*;
use crate::cuda::{Combine, Gates, Group, Masks, Route, Unit, units};
use crate::math;

/// What a row chooses, by the CPU's steps.
fn choose(gates: Gates, logits: &[f32], top_k: usize, mask: Option<&[u64]>) -> Vec<(usize, f32)> {
    let keep = |e: usize| mask.is_none_or(|words| words[e / 64] >> (e % 64) & 1 == 1);
    let masked = |(e, v): (usize, &f32)| if keep(e) { *v } else { f32::NEG_INFINITY };
    let mut p: Vec<f32> = logits.iter().enumerate().map(masked).collect();
    if gates != Gates::OfChosen {
        math::softmax(&mut p);
    }
    let chosen = math::top_k(&p, top_k);
    let mut shares: Vec<f32> = chosen.iter().map(|&e| p[e]).collect();
    match gates {
        Gates::OfChosen => math::softmax(&mut shares),
        Gates::OfAll => {}
        Gates::Renormalised => {
            let sum = shares.iter().sum::<f32>().max(6.103_515_6e-5);
            shares.iter_mut().for_each(|v| *v /= sum);
        }
    }
    chosen.into_iter().zip(shares).collect()
}

/// What the device chooses: ids and gates of both, and what is missing.
struct Routed {
    ids: Vec<i32>,
    gates: Vec<f32>,
    full_ids: Vec<i32>,
    full_gates: Vec<f32>,
    missing: Vec<f32>,
}

fn route(
    q: &Queue,
    gates_are: Gates,
    logits: &[f32],
    (experts, top_k): (usize, usize),
    masks: Option<Masks<'_>>,
) -> Routed {
    let rows = logits.len() / experts;
    let count = Count::new(q, rows);
    let logits = up(q, logits);
    let [ids, full_ids] = [(); 2].map(|()| up(q, &vec![-1i32; rows * top_k]));
    let [gates, full_gates] = [(); 2].map(|()| blank(q, rows * top_k));
    let missing = blank(q, rows);
    let route = Route {
        logits: logits.slice(),
        experts,
        top_k,
        gates_are,
        masks,
        ids: ids.slice(),
        gates: gates.slice(),
        full_ids: full_ids.slice(),
        full_gates: full_gates.slice(),
        missing: missing.slice(),
        rows: count.rows(),
    };
    // SAFETY: masks lie there.
    unsafe { route.launch(q) }.unwrap();
    Routed {
        ids: q.read(ids.slice()).unwrap(),
        gates: q.read(gates.slice()).unwrap(),
        full_ids: q.read(full_ids.slice()).unwrap(),
        full_gates: q.read(full_gates.slice()).unwrap(),
        missing: q.read(missing.slice()).unwrap(),
    }
}

/// The CPU's experts in its order, and gates bit for bit, with masks of some rows in the second of two layers.
#[track_caller]
fn check(experts: usize, top_k: usize, logits: &[f32]) {
    let q = queue();
    let (rows, words) = (logits.len() / experts, experts.div_ceil(64));
    let mut rng = fastrand::Rng::with_seed(experts as u64);
    let masks: Vec<u64> = (0..2 * words).map(|_| rng.u64(..) | rng.u64(..)).collect();
    let on_device = up(&q, &masks);
    // Every other row has it.
    let at: Vec<u64> = (0..rows).map(|r| (r as u64 % 2) * on_device.slice().address()).collect();
    let at = up(&q, &at);
    let masks_of = Masks { rows: at.slice(), offset: 8 * words as u64 };
    let mask = &masks[words..];
    for gates in [Gates::Renormalised, Gates::OfAll, Gates::OfChosen] {
        let got = route(&q, gates, logits, (experts, top_k), Some(masks_of));
        let without = route(&q, gates, logits, (experts, top_k), None);
        assert_eq!((&without.ids, bits(&without.gates)), (&got.full_ids, bits(&got.full_gates)));
        assert_eq!(without.missing, vec![0.0; rows]);
        for (row, logits) in logits.chunks(experts).enumerate() {
            let masked = (row % 2 == 1).then_some(mask);
            let full = choose(gates, logits, top_k, None);
            let ran = choose(gates, logits, top_k, masked);
            let pairs = |ids: &[i32], gates: &[f32]| -> Vec<(usize, u32)> {
                let of = row * top_k..(row + 1) * top_k;
                let ids = ids[of.clone()].iter().map(|e| *e as usize);
                ids.zip(gates[of].iter().map(|g| g.to_bits())).collect()
            };
            let want = |of: &[(usize, f32)]| -> Vec<(usize, u32)> {
                of.iter().map(|(e, g)| (*e, g.to_bits())).collect()
            };
            assert_eq!(pairs(&got.ids, &got.gates), want(&ran), "{gates:?} {experts} masked");
            assert_eq!(pairs(&got.full_ids, &got.full_gates), want(&full), "{gates:?} {experts}");
            let missing = masked.map_or(0.0, |mask| {
                let out = full.iter().filter(|(e, _)| mask[e / 64] >> (e % 64) & 1 == 0);
                out.map(|(_, g)| g).sum::<f32>() / full.iter().map(|(_, g)| g).sum::<f32>()
            });
            assert_eq!(got.missing[row], missing, "{gates:?} {experts}");
        }
    }
}

#[test]
fn rows_choose_as_on_the_cpu() {
    for (experts, top_k) in [(4, 2), (32, 4), (60, 4), (64, 8), (128, 8), (512, 10), (1000, 64)] {
        let logits: Vec<f32> = noise(6 * experts, 1).iter().map(|v| v * 8.0).collect();
        check(experts, top_k, &logits);
        // Few values, so that there are ties, and zeros of both signs.
        let ties: Vec<f32> = logits.iter().map(|v| (v * 0.5).trunc() * -0.5).collect();
        check(experts, top_k, &ties);
    }
    // Far apart logits.
    check(4, 2, &[-80., 40., 1., -3., 0., 0., -80., 80.]);
}

/// Even of no numbers experts are chosen that there are, each once.
#[test]
fn choices_are_experts_whatever_the_logits() {
    let q = queue();
    let (experts, top_k) = (40, 8);
    let mut logits = noise(2 * experts, 1);
    logits[..experts].fill(f32::NAN);
    logits[experts..experts + 39].fill(f32::NEG_INFINITY);
    for gates in [Gates::Renormalised, Gates::OfAll, Gates::OfChosen] {
        for ids in route(&q, gates, &logits, (experts, top_k), None).ids.chunks(top_k) {
            let mut ids = ids.to_vec();
            ids.sort_unstable();
            ids.dedup();
            assert!(ids.len() == top_k && ids[0] >= 0 && ids[top_k - 1] < 40, "{ids:?}");
        }
    }
}

/// Pairs in the order of experts, cut into units of eight.
#[track_caller]
fn check_groups(rows: usize, experts: usize, top_k: usize) {
    let q = queue();
    let mut rng = fastrand::Rng::with_seed(9);
    let mut all: Vec<i32> = (0..experts as i32).collect();
    let mut ids: Vec<i32> = Vec::new();
    for _ in 0..rows {
        rng.shuffle(&mut all);
        // Some experts are liked more, and some by nobody.
        ids.extend(all[..top_k].iter().map(|e| if rng.bool() { e / 2 } else { *e }));
    }
    let (pairs, most) = (rows * top_k, rows + 3);
    let room = units(most * top_k, experts);
    let count = Count::new(&q, rows);
    ids.resize(most * top_k, -1);
    let on_device = up(&q, &ids);
    let [place, picks] = [(); 2].map(|()| up(&q, &vec![u32::MAX; most * top_k]));
    let units_at = Buffer::<Unit>::new(q.device(), room).unwrap();
    let number = up(&q, &[u32::MAX]);
    let group = Group {
        ids: on_device.slice(),
        experts,
        top_k,
        place: place.slice(),
        picks: picks.slice(),
        units: units_at.slice(),
        count: number.slice(),
        rows: count.of(most),
    };
    group.launch(&q).unwrap();
    let mut order: Vec<usize> = (0..pairs).collect();
    order.sort_by_key(|&i| ids[i]);
    let (place, picks) = (q.read(place.slice()).unwrap(), q.read(picks.slice()).unwrap());
    for (at, &pair) in order.iter().enumerate() {
        assert_eq!((place[pair] as usize, picks[at] as usize), (at, pair / top_k));
    }
    let (mut want, mut first) = (Vec::new(), 0);
    for expert in 0..experts as u32 {
        let mut left = order.iter().filter(|&&i| ids[i] as u32 == expert).count() as u32;
        while left > 0 {
            let count = left.min(8);
            want.push(Unit { expert, first, count });
            (first, left) = (first + count, left - count);
        }
    }
    assert!(want.len() <= room);
    let n = q.read(number.slice()).unwrap()[0] as usize;
    assert_eq!(q.read(units_at.slice().range(0..n)).unwrap(), want);
}

#[test]
fn rows_are_sorted_by_expert() {
    check_groups(1, 4, 2);
    check_groups(9, 8, 2);
    check_groups(33, 128, 8);
    check_groups(100, 1024, 10);
    check_groups(70, 4, 4);
    check_groups(0, 16, 2);
}

#[test]
fn what_experts_made_is_gated_in_order_of_ranks() {
    let q = queue();
    let (rows, top_k, experts, dim) = (5, 3, 6, 333);
    let y = noise(rows * top_k * dim, 1);
    let mut rng = fastrand::Rng::with_seed(2);
    let mut place: Vec<u32> = (0..(rows * top_k) as u32).collect();
    rng.shuffle(&mut place);
    let ids: Vec<i32> = place.iter().map(|_| rng.i32(0..experts)).collect();
    let gates = noise(rows * top_k, 3);
    let (scales, bias) = (noise(experts as usize, 4), noise(experts as usize * dim, 5));
    let count = Count::new(&q, rows);
    let [y_at, gates_at, scales_at, bias_at] = [&y, &gates, &scales, &bias].map(|v| up(&q, v));
    let (place_at, ids_at) = (up(&q, &place), up(&q, &ids));
    for with in [false, true] {
        let combine = Combine {
            y: y_at.slice(),
            dim,
            top_k,
            scales: with.then(|| scales_at.slice()),
            bias: with.then(|| bias_at.slice()),
            place: place_at.slice(),
            ids: ids_at.slice(),
            rows: count.rows(),
        };
        let (out, norms) = (blank(&q, rows * dim), blank(&q, rows * top_k));
        // SAFETY: ids are experts, and places outputs.
        unsafe {
            combine.launch(&q, gates_at.slice(), out.slice()).unwrap();
            combine.norms(&q, norms.slice()).unwrap();
        }
        let (mut want, mut lengths) = (vec![0f32; rows * dim], Vec::new());
        for (pair, ((&p, &e), gate)) in place.iter().zip(&ids).zip(&gates).enumerate() {
            let mut made = y[p as usize * dim..][..dim].to_vec();
            if with {
                made.iter_mut().for_each(|v| *v *= scales[e as usize]);
                math::add(&mut made, &bias[e as usize * dim..][..dim]);
            }
            lengths.push(math::l2_norm(&made));
            math::add_scaled(&mut want[pair / top_k * dim..][..dim], *gate, &made);
        }
        assert_eq!(q.read(out.slice()).unwrap(), want);
        close(&q.read(norms.slice()).unwrap(), &lengths, 1e-6, "norms");
    }
}
