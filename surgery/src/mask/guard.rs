//! Guards: other uses that a specialist must not lose, as constraints.
//!
//! A guard is a profile (tool syntax, refusals, ends of thinking, another
//! language) and the share of its gate mass that is to stay.  In each layer the
//! experts are chosen that maximise the least of coverage over target, over the
//! domain and all guards (max-min); once every target is met, that maximise the
//! domain's score.  Nothing changes in a layer that already meets its guards.

use super::Wishes;
use super::counts::{Target, fused_above};
use super::error::Warning;
use super::maxmin::Problem;
use super::state::{State, count, grow};
use super::stats::{Stats, unit};

/// The domain's own target beside guards, unless another is asked for.
pub const FLOOR: f64 = 0.95;

/// One use, and how much of it stays.
#[derive(Clone, Debug)]
pub struct Guard {
    /// For the report: its domain.
    pub name: String,
    pub stats: Stats,
    /// Share of its gate mass, in (0, 1].
    pub target: f64,
}

/// How a guard fared.
#[derive(Clone, Debug, PartialEq)]
pub struct Guarded {
    pub name: String,
    pub target: f64,
    /// Share of the guard's gate mass on kept experts, by layer.
    pub coverage: Vec<f64>,
    /// The least of them over the layers with experts.
    pub least: f64,
}

/// A share that is this little short is rounding.
const ROUNDING: f64 = 1e-9;

/// Chooses again under guards, with the counts that the passes before left.
/// With a coverage as target the counts grow until every guard is reached.
pub(super) fn pass(state: &mut State) {
    if state.wishes.guards.is_empty() {
        return;
    }
    let State { stats, wishes, keep, pinned, .. } = state;
    let layers: Vec<Layer> = stats.routed().map(|layer| Layer::new(stats, wishes, layer)).collect();
    let mut counts: Vec<usize> = layers.iter().map(|layer| count(&keep[layer.at])).collect();
    if matches!(wishes.request.target, Target::Coverage(_)) {
        let mut most = 0;
        for (layer, count) in layers.iter().zip(&mut counts) {
            // Of a uniform mask what one layer needs, all have.
            let least = (*count).max(if wishes.request.uniform { most } else { 0 });
            *count = layer.fewest(&keep[layer.at], &pinned[layer.at], least);
            most = most.max(*count);
        }
        if wishes.request.uniform {
            if wishes.fused {
                most = fused_above(most, stats.experts()).unwrap_or(most);
            }
            counts.fill(most);
        }
    }
    for (layer, count) in layers.iter().zip(counts) {
        keep[layer.at] = layer.choose(&keep[layer.at], &pinned[layer.at], count);
    }
}

/// One layer's problem.
struct Layer<'a> {
    at: usize,
    score: &'a [f64],
    /// `[experts]`, the score normalised.
    value: Vec<f64>,
    /// The domain's first, then each guard's: `[1 + guards][experts]`, share of gate mass over target.
    ratios: Vec<Vec<f64>>,
}

impl<'a> Layer<'a> {
    fn new(stats: &'a Stats, wishes: &Wishes, at: usize) -> Layer<'a> {
        let over = |stats: &Stats, target: f64| -> Vec<f64> {
            unit(&stats.mass[at]).iter().map(|share| share / target).collect()
        };
        let domain = over(stats, wishes.floor());
        let guards = wishes.guards.iter().map(|guard| over(&guard.stats, guard.target));
        let score = &stats.score[at];
        let ratios = std::iter::once(domain).chain(guards).collect();
        Layer { at, score, value: unit(score), ratios }
    }

    /// The best mask of `count` experts that holds the pinned ones.
    fn choose(&self, keep: &[bool], pinned: &[bool], count: usize) -> Vec<bool> {
        let mut start = keep.to_vec();
        grow(self.score, &mut start, count);
        let (ratios, value) = (&self.ratios[..], &self.value[..]);
        if (Problem { value, ratios: &ratios[1..], pinned }).met(&start) {
            return start;
        }
        Problem { value, ratios, pinned }.solve(start)
    }

    fn meets(&self, keep: &[bool], pinned: &[bool], count: usize) -> bool {
        let kept = self.choose(keep, pinned, count);
        Problem { value: &self.value, ratios: &self.ratios, pinned }.met(&kept)
    }

    /// The fewest experts, from `least` on, that meet every target; all of them do.
    fn fewest(&self, keep: &[bool], pinned: &[bool], least: usize) -> usize {
        if self.meets(keep, pinned, least) {
            return least;
        }
        let (mut low, mut high) = (least, keep.len());
        while high - low > 1 {
            let middle = low.midpoint(high);
            if self.meets(keep, pinned, middle) { high = middle } else { low = middle }
        }
        high
    }
}

/// How each guard fared, and what is to be said of those that are not reached.
pub(super) fn report(state: &mut State, kept: &[Vec<u32>]) -> Vec<Guarded> {
    let State { stats, wishes, warnings, .. } = state;
    let routed: Vec<usize> = stats.routed().collect();
    let mut judge = |name: String, target: f64, coverage: &[f64]| -> f64 {
        let least = routed.iter().copied().min_by(|a, b| coverage[*a].total_cmp(&coverage[*b]));
        let layer = least.unwrap_or(0);
        let least = coverage.get(layer).copied().unwrap_or(1.0);
        let missed = routed.iter().filter(|l| coverage[**l] < target - ROUNDING).count();
        if missed > 0 {
            let layers = routed.len();
            warnings.push(Warning::Missed { name, target, missed, layers, layer, least });
        }
        least
    };
    if !wishes.guards.is_empty() {
        judge("the domain".to_owned(), wishes.floor(), &stats.coverage(kept));
    }
    let report = |guard: &Guard| {
        let coverage = guard.stats.coverage(kept);
        let least = judge(format!("guard {}", guard.name), guard.target, &coverage);
        Guarded { name: guard.name.clone(), target: guard.target, coverage, least }
    };
    wishes.guards.iter().map(report).collect()
}
