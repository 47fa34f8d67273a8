//! What holds for any profile, tried on many.

use engine::{MaskFile, Profile, Shape};
use proptest::prelude::*;

use super::tests::beside;
use super::*;

const EXPERTS: usize = 12;
const TOP_K: usize = 3;

/// A profile of a few layers, gates and counts drawn alike.
fn profile(layers: usize) -> impl Strategy<Value = Profile> {
    let cells = layers * EXPERTS * TOP_K;
    proptest::collection::vec((0i64..40, 0.0f64..1.0), cells).prop_map(move |cells| {
        let mut profile =
            Profile::new(&Shape::of_experts(layers, EXPERTS, TOP_K), "parent", "some");
        // Every layer is reached, and every expert ran that was chosen.
        let counts = cells.iter().enumerate().map(|(at, c)| c.0 + i64::from(at % 36 == 0));
        profile.all.counts = counts.collect();
        let gates = profile.all.counts.iter().zip(&cells);
        profile.all.gate_mass = gates.map(|(count, cell)| *count as f64 * cell.1).collect();
        let chosen = profile.all.counts.chunks(TOP_K);
        let norms = chosen.zip(&cells).map(|(n, c)| n.iter().sum::<i64>() as f64 * (c.1 + 0.1));
        profile.all.output_norm = norms.collect();
        profile.all.gated_norm = profile.all.output_norm.iter().map(|norm| norm * 0.5).collect();
        profile.tokens = 1000;
        profile
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        (TOP_K as u32..=EXPERTS as u32).prop_map(Target::Count),
        (0.25f64..=1.0).prop_map(Target::Share),
        (0.01f64..=1.0).prop_map(Target::Coverage),
    ]
}

fn score() -> impl Strategy<Value = Score> {
    proptest::sample::select(Score::ALL)
}

/// The profile with expert `order[i]` of each layer at place `i`.
fn moved(profile: &Profile, order: &[usize]) -> Profile {
    fn rows<T: Copy>(values: &[T], each: usize, order: &[usize]) -> Vec<T> {
        let layer = |layer: &[T]| -> Vec<T> {
            order.iter().flat_map(|from| layer[from * each..(from + 1) * each].to_vec()).collect()
        };
        values.chunks(EXPERTS * each).flat_map(layer).collect()
    }
    let mut moved = profile.clone();
    moved.all.counts = rows(&profile.all.counts, TOP_K, order);
    moved.all.gate_mass = rows(&profile.all.gate_mass, TOP_K, order);
    moved.all.output_norm = rows(&profile.all.output_norm, 1, order);
    moved.all.gated_norm = rows(&profile.all.gated_norm, 1, order);
    moved
}

fn distinct(row: &[f64]) -> bool {
    let mut sorted = row.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.windows(2).all(|pair| pair[1] - pair[0] > 1e-9)
}

fn swapped() -> impl Strategy<Value = Vec<usize>> {
    Just((0..EXPERTS).collect::<Vec<_>>()).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for: sorted ids of the layer, as many as the router needs, the counts that were asked for.
    #[test]
    fn kept_sets_are_valid(
        own in profile(3), other in profile(3), guard in profile(3), target in target(), score in score(),
        uniform: bool, fused: bool, listed: bool, swaps in 0usize..8, share in 0.1f64..1.0,
    ) {
        let guards = [(beside(&guard), share)];
        let order = Order {
            fused,
            whitelist: listed.then_some(Whitelist { rank: 0.9, count: 10 }),
            reasoning: Some((beside(&other), swaps)),
            guards: &guards,
            ..Order::plain(score, Request { target, uniform })
        };
        let made = make(&own, "", &order).unwrap();
        let MaskFile { kept, experts, coverage, .. } = &made.file;
        for (layer, ids) in kept.iter().enumerate() {
            prop_assert!(ids.is_sorted_by(|a, b| a < b) && ids.iter().all(|id| (*id as usize) < EXPERTS));
            prop_assert!(ids.len() == experts[layer] && ids.len() >= TOP_K);
        }
        match (target, uniform || fused) {
            (Target::Coverage(share), _) => {
                prop_assert!(coverage.iter().all(|got| *got >= share - 1e-9));
                prop_assert!(made.guards[0].coverage.iter().all(|got| *got >= guards[0].1 - 1e-9));
            }
            (target, false) => {
                prop_assert_eq!(experts.iter().sum::<usize>(), 3 * target.count(EXPERTS).unwrap());
            }
            (target, true) => prop_assert!(experts.iter().all(|n| Some(*n) == target.count(EXPERTS))),
        }
        // What the passes say they did makes the mask.
        let mut replayed = vec![std::collections::BTreeSet::new(); 3];
        for step in &made.file.passes {
            prop_assert!(step.removed.iter().all(|id| replayed[step.layer].remove(id)));
            prop_assert!(step.added.iter().all(|id| replayed[step.layer].insert(*id)));
        }
        for (ids, set) in kept.iter().zip(replayed) {
            prop_assert_eq!(ids, &set.into_iter().collect::<Vec<_>>());
        }
    }

    /// More experts, or more coverage, never covers less; and keep what there was.
    #[test]
    fn coverage_is_monotone(own in profile(2), few in 3u32..12, share in 0.1f64..0.9, per_layer: bool) {
        let of = |target| {
            let request = Request { target, uniform: !per_layer };
            from_profile(&own, "", Score::Gate, request).unwrap()
        };
        for (less, more) in [
            (Target::Count(few), Target::Count(few + 1)),
            (Target::Coverage(share), Target::Coverage(share + 0.1)),
        ] {
            let (less, more) = (of(less), of(more));
            for layer in 0..2 {
                prop_assert!(less.coverage[layer] <= more.coverage[layer] + 1e-12);
                prop_assert!(less.kept[layer].iter().all(|id| more.kept[layer].contains(id)));
            }
        }
    }

    /// Ids are names: experts in another order, or layers, give the same mask in that order.
    #[test]
    fn names_do_not_matter(own in profile(2), other in profile(2), score in score(), order in swapped(), keep in 3u32..12) {
        let request = Request { target: Target::Count(keep), uniform: true };
        let stats = |p: &Profile| Stats::new(Taps::of(p), score).unwrap();
        let rows = [stats(&own).score, stats(&other).score].concat();
        // Equal ones go by id, so that there ids do matter.
        prop_assume!(rows.iter().all(|row| distinct(row)));
        let made = |own: &Profile, other: &Profile| {
            let order = Order { reasoning: Some((beside(other), 3)), ..Order::plain(score, request) };
            make(own, "", &order).unwrap().file.kept
        };
        let (before, after) = (made(&own, &other), made(&moved(&own, &order), &moved(&other, &order)));
        for (before, after) in before.iter().zip(&after) {
            let mut back: Vec<u32> = after.iter().map(|id| order[*id as usize] as u32).collect();
            back.sort_unstable();
            prop_assert_eq!(before, &back);
        }
        let turned = |p: &Profile| {
            let mut turned = p.clone();
            turned.all.counts.rotate_left(EXPERTS * TOP_K);
            turned.all.gate_mass.rotate_left(EXPERTS * TOP_K);
            turned.all.output_norm.rotate_left(EXPERTS);
            turned.all.gated_norm.rotate_left(EXPERTS);
            turned
        };
        let after = made(&turned(&own), &turned(&other));
        prop_assert_eq!((&before[0], &before[1]), (&after[1], &after[0]));
    }

    /// The least of coverage over target is never less than without guards.
    #[test]
    fn guards_never_harm_the_least(
        own in profile(2), first in profile(2), second in profile(2), shares in (0.3f64..1.0, 0.3f64..1.0), keep in 3u32..12,
    ) {
        let request = Request { target: Target::Count(keep), uniform: true };
        let guards = [(beside(&first), shares.0), (beside(&second), shares.1)];
        let order = Order::plain(Score::Gate, request);
        let plain = make(&own, "", &order).unwrap().file.kept;
        let made = make(&own, "", &Order { guards: &guards, ..order }).unwrap();
        let all = [(&own, FLOOR), (&first, shares.0), (&second, shares.1)];
        let least = |kept: &[Vec<u32>], layer: usize| {
            let ratio = |(p, share): (&Profile, f64)| coverage(p, kept).unwrap()[layer] / share;
            all.iter().map(|(p, share)| ratio((p, *share))).fold(1.0, f64::min)
        };
        for layer in 0..2 {
            prop_assert!(least(&made.file.kept, layer) >= least(&plain, layer) - 1e-9);
        }
    }

    /// Reasoning never loses by its swaps, and there are no more than were allowed.
    #[test]
    fn swaps_serve_reasoning(own in profile(2), other in profile(2), score in score(), keep in 3u32..12, swaps in 0usize..7) {
        let request = Request { target: Target::Count(keep), uniform: true };
        let order = Order::plain(score, request);
        let plain = make(&own, "", &order).unwrap().file.kept;
        let made = make(&own, "", &Order { reasoning: Some((beside(&other), swaps)), ..order }).unwrap().file;
        let stats = Stats::new(Taps::of(&other), score).unwrap();
        let rows = stats.score.iter().zip(plain.iter().zip(&made.kept));
        for (score, (plain, kept)) in rows {
            let of = |kept: &[u32]| kept.iter().map(|id| score[*id as usize]).sum::<f64>();
            prop_assert!(of(kept) >= of(plain) - 1e-9);
        }
        prop_assert!(made.passes.iter().filter(|p| p.name == "reasoning").all(|p| p.added.len() <= swaps));
    }
}
