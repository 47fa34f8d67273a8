//! What is done to a mask, in order; each pass is recorded layer by layer.
//!
//! A pass turns bits of `[layers][experts]` on or off and knows nothing but
//! [`State`].  What a pass forces in, no later one takes out.

use super::counts::{Target, fused, fused_above, fused_below};
use super::error::Warning;
use super::state::{State, count, grow, heaviest_first};
use super::stats::Stats;
use super::{guard, reasoning, whitelist};

/// What one pass did to one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub pass: &'static str,
    pub layer: usize,
    pub added: Vec<u32>,
    pub removed: Vec<u32>,
}

type Pass = fn(&mut State);

/// First what the domain needs, then what other profiles need, then what the
/// runtime needs, then the guards, at the counts that all that left.
const PASSES: &[(&str, Pass)] = &[
    ("base", base),
    ("top-k", at_least_top_k),
    ("whitelist", whitelist::pass),
    ("reasoning", reasoning::pass),
    ("coverage", covered),
    ("uniform", uniform),
    ("fused", fused_count),
    ("guards", guard::pass),
];

/// All passes, and what each changed.
pub(super) fn run(state: &mut State) -> Vec<Step> {
    let mut steps = Vec::new();
    for (pass, apply) in PASSES {
        let before = state.keep.clone();
        apply(state);
        for (layer, (old, new)) in before.iter().zip(&state.keep).enumerate() {
            let ids = |want: bool| -> Vec<u32> {
                let pairs = (0..).zip(old.iter().zip(new));
                pairs.filter(|(_, (a, b))| a != b && **b == want).map(|(id, _)| id).collect()
            };
            if old != new {
                steps.push(Step { pass, layer, added: ids(true), removed: ids(false) });
            }
        }
    }
    steps
}

/// The best of each layer by score: so many, or as many as carry the share.
fn base(state: &mut State) {
    let State { stats, wishes, keep, .. } = state;
    let layers: Vec<usize> = stats.routed().collect();
    let request = wishes.request;
    let each = request.target.count(stats.experts());
    if let (Some(each), false) = (each, request.uniform) {
        return spread(stats, &layers, each, keep);
    }
    for layer in layers {
        let order = heaviest_first(&stats.score[layer]);
        let count = match request.target {
            Target::Coverage(share) => fewest(&stats.mass[layer], &order, share),
            _ => each.unwrap_or_default(),
        };
        order.iter().take(count).for_each(|&id| keep[layer][id] = true);
    }
}

/// Keeps `each` experts a layer in the mean: what the router needs in every
/// layer, then the heaviest of all layers by their share of their own layer, as
/// water fills the lowest places first.  Without that norm the layers with the
/// largest sums would take everything.
fn spread(stats: &Stats, layers: &[usize], each: usize, keep: &mut [Vec<bool>]) {
    let mut rest = Vec::new();
    for &layer in layers {
        let row = &stats.score[layer];
        let sum: f64 = row.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        for (rank, id) in heaviest_first(row).into_iter().enumerate() {
            if rank < stats.top_k.min(each) {
                keep[layer][id] = true;
            } else {
                rest.push((row[id] / sum, layer, id));
            }
        }
    }
    rest.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let more = each.saturating_sub(stats.top_k) * layers.len();
    rest.iter().take(more).for_each(|&(_, layer, id)| keep[layer][id] = true);
}

/// How many of `order` reach `share` of the row's sum.
fn fewest(row: &[f64], order: &[usize], share: f64) -> usize {
    // Both sums run in this one order: summed in two, rounding could leave the
    // goal just above what all experts add up to.
    let running: Vec<f64> = order
        .iter()
        .scan(0.0, |sum, id| {
            *sum += row[*id];
            Some(*sum)
        })
        .collect();
    let goal = share * running.last().copied().unwrap_or(0.0);
    running.iter().position(|sum| *sum >= goal).map_or(order.len(), |last| last + 1)
}

/// A router cannot pick more experts than there are.
fn at_least_top_k(state: &mut State) {
    let goal = state.stats.top_k;
    grow_all(state, goal);
}

/// A share that was asked for is reached again after swaps.
fn covered(state: &mut State) {
    let State { stats, wishes, keep, .. } = state;
    let Target::Coverage(share) = wishes.request.target else { return };
    for layer in stats.routed() {
        let row = &mut keep[layer];
        let mut order = heaviest_first(&stats.score[layer]);
        // What is kept comes first, so that only what is missing is added.
        order.sort_by_key(|id| !row[*id]);
        let count = fewest(&stats.mass[layer], &order, share);
        order.iter().take(count).for_each(|&id| row[id] = true);
    }
}

fn uniform(state: &mut State) {
    if state.wishes.request.uniform {
        let most = state.keep.iter().map(|row| count(row)).max().unwrap_or(0);
        grow_all(state, most);
    }
}

/// The next count that the runtime likes, where the count is ours to choose; a
/// count that was asked for stays, with a warning.
fn fused_count(state: &mut State) {
    if !state.wishes.fused {
        return;
    }
    let (experts, top_k) = (state.stats.experts(), state.stats.top_k);
    let count = state.keep.iter().map(|row| count(row)).max().unwrap_or(0);
    let above = fused_above(count, experts);
    match (state.wishes.request.target, above) {
        _ if fused(count) => {}
        (Target::Coverage(_), Some(above)) => grow_all(state, above),
        _ => {
            let below = fused_below(top_k, count);
            state.warnings.push(Warning::NotFused { count, below, above });
        }
    }
}

fn grow_all(state: &mut State, goal: usize) {
    for layer in state.stats.routed() {
        grow(&state.stats.score[layer], &mut state.keep[layer], goal);
    }
}
