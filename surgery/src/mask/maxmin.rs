//! The best experts of one layer under several needs at once.
//!
//! Given so many to keep, maximise the least of several sums over the kept
//! (coverage over target, of the domain and each guard); where every one
//! reaches 1, maximise the value instead.  Equal sums over a fixed number of
//! items is a knapsack, so in general only small cases are solved exactly, by
//! trying all of them.  Larger ones by their Lagrangian: for any mix of the
//! needs the best set is the top of one weighted sum, and the mix whose set is
//! worst is found by mirror descent with Polyak's step; the best set met on the
//! way is improved by swaps.  With hundreds of small experts and a few needs,
//! what rounding loses against the relaxation is a fraction of one expert.
//!
//! Deterministic: no randomness, and equal weights go to the lower id.

/// Sets are tried one by one up to so many: a layer of 8, or most masks of 16 that keep few.
const ALL: u64 = 4096;

/// Mixes tried in either phase; on layers of 256 experts more than this gained nothing (see the tests).
const MIXES: usize = 48;

/// Kept and dropped experts next to the cut that swaps are tried among.
const WINDOW: usize = 24;

/// The same, for swaps of two at once.
const PAIRED: usize = 10;

/// Sums differ in their last bits by the order they are made in.
const ROUNDING: f64 = 1e-12;

pub(super) struct Problem<'a> {
    /// `[experts]`, what to maximise when every need is met.
    pub value: &'a [f64],
    /// `[needs][experts]`; a need is met when its kept sum reaches 1.
    pub ratios: &'a [Vec<f64>],
    /// `[experts]`, in any solution.
    pub pinned: &'a [bool],
}

/// What a set is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Worth {
    /// The least of the needs, at most 1.
    pub ratio: f64,
    pub value: f64,
}

impl Worth {
    fn better(self, than: Worth) -> bool {
        let gain = self.ratio - than.ratio;
        gain > ROUNDING || (gain >= -ROUNDING && self.value > than.value + ROUNDING)
    }

    fn met(self) -> bool {
        self.ratio >= 1.0 - ROUNDING
    }
}

/// The sums over a set.
#[derive(Clone, Debug, PartialEq)]
struct Sums {
    needs: Vec<f64>,
    value: f64,
}

impl Sums {
    fn worth(&self) -> Worth {
        let ratio = self.needs.iter().copied().fold(1.0, f64::min);
        Worth { ratio, value: self.value }
    }
}

impl Problem<'_> {
    fn sums(&self, kept: impl Iterator<Item = usize>) -> Sums {
        let mut sums = Sums { needs: vec![0.0; self.ratios.len()], value: 0.0 };
        for id in kept {
            self.shift(&mut sums, id, 1.0);
        }
        sums
    }

    fn shift(&self, sums: &mut Sums, id: usize, sign: f64) {
        sums.needs.iter_mut().zip(self.ratios).for_each(|(sum, row)| *sum += sign * row[id]);
        sums.value += sign * self.value[id];
    }

    pub fn worth(&self, kept: &[bool]) -> Worth {
        self.sums((0..kept.len()).filter(|id| kept[*id])).worth()
    }

    /// Whether every need is.
    pub fn met(&self, kept: &[bool]) -> bool {
        self.worth(kept).met()
    }

    /// A set of as many as `start`, which holds the pinned, and is never worth less than it.
    pub fn solve(&self, start: Vec<bool>) -> Vec<bool> {
        let free = self.pinned.iter().filter(|pinned| !**pinned).count();
        let open = (0..start.len()).filter(|id| start[*id] && !self.pinned[*id]).count();
        if choices(free, open).is_some_and(|n| n <= ALL) {
            self.all(start, open)
        } else {
            self.search(start)
        }
    }

    /// The best of all sets, of equals the first by ids.
    fn all(&self, start: Vec<bool>, open: usize) -> Vec<bool> {
        let free: Vec<usize> = (0..start.len()).filter(|id| !self.pinned[*id]).collect();
        let pinned = self.sums((0..start.len()).filter(|id| self.pinned[*id]));
        let mut at: Vec<usize> = (0..open).collect();
        let (mut best, mut worth) = (at.clone(), None);
        loop {
            let mut sums = pinned.clone();
            at.iter().for_each(|i| self.shift(&mut sums, free[*i], 1.0));
            let this = sums.worth();
            if worth.is_none_or(|best| this.better(best)) {
                (best, worth) = (at.clone(), Some(this));
            }
            // The next combination in order of ids.
            let Some(turn) = (0..open).rev().find(|i| at[*i] < free.len() - open + i) else {
                break;
            };
            at[turn] += 1;
            (turn + 1..open).for_each(|i| at[i] = at[i - 1] + 1);
        }
        let mut kept = self.pinned.to_vec();
        best.iter().for_each(|i| kept[free[*i]] = true);
        kept
    }

    fn search(&self, start: Vec<bool>) -> Vec<bool> {
        let mut search = Search::new(self, start);
        search.level();
        search.swap();
        if search.worth.met() {
            search.enrich();
            search.swap();
        }
        search.best
    }
}

/// Sets of `k` out of `n`; none if that is beyond counting.
fn choices(n: usize, k: usize) -> Option<u64> {
    (0..k.min(n - k))
        .try_fold(1u64, |ways, i| Some(ways.checked_mul((n - i) as u64)? / (i as u64 + 1)))
}

/// The best set so far, and what was tried last.
struct Search<'a, 'p> {
    problem: &'a Problem<'p>,
    /// Experts to choose beside the pinned.
    open: usize,
    pinned: Sums,
    best: Vec<bool>,
    worth: Worth,
    /// The least need of the best set, also above 1.
    least: f64,
    /// The weights that gave the best set, or those of the value at first.
    best_weights: Vec<f64>,
    weights: Vec<f64>,
    /// The free ids; after a try, those chosen first.
    order: Vec<u32>,
}

impl<'a, 'p> Search<'a, 'p> {
    fn new(problem: &'a Problem<'p>, start: Vec<bool>) -> Search<'a, 'p> {
        let ids = 0..start.len();
        let order: Vec<u32> =
            ids.clone().filter(|id| !problem.pinned[*id]).map(|id| id as u32).collect();
        let sums = problem.sums(ids.clone().filter(|id| start[*id]));
        Search {
            problem,
            open: order.iter().filter(|id| start[**id as usize]).count(),
            pinned: problem.sums(ids.filter(|id| problem.pinned[*id])),
            worth: sums.worth(),
            least: sums.needs.iter().copied().fold(f64::INFINITY, f64::min),
            best: start,
            best_weights: problem.value.to_vec(),
            weights: vec![0.0; problem.value.len()],
            order,
        }
    }

    /// The set that is best for one mix of needs and value; returns its sums.
    fn weigh(&mut self, mix: &[f64], of_value: f64) -> Sums {
        let Problem { value, ratios, .. } = self.problem;
        self.weights.iter_mut().zip(*value).for_each(|(weight, value)| *weight = of_value * value);
        for (share, row) in mix.iter().zip(*ratios) {
            self.weights.iter_mut().zip(row).for_each(|(weight, ratio)| *weight += share * ratio);
        }
        let weights = &self.weights;
        if self.open > 0 && self.open < self.order.len() {
            self.order.select_nth_unstable_by(self.open - 1, |a, b| {
                weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b))
            });
        }
        let mut sums = self.pinned.clone();
        for &id in &self.order[..self.open] {
            self.problem.shift(&mut sums, id as usize, 1.0);
        }
        if sums.worth().better(self.worth) {
            self.best = self.problem.pinned.to_vec();
            self.order[..self.open].iter().for_each(|id| self.best[*id as usize] = true);
            self.take(&sums);
            self.best_weights.clone_from(&self.weights);
        }
        sums
    }

    fn take(&mut self, sums: &Sums) {
        self.worth = sums.worth();
        self.least = sums.needs.iter().copied().fold(f64::INFINITY, f64::min);
    }

    /// Raises the least need: the mix moves towards the needs that its set neglects.
    fn level(&mut self) {
        let needs = self.problem.ratios.len();
        let mut mix = vec![1.0 / needs as f64; needs];
        let mut upper = f64::INFINITY;
        for _ in 0..MIXES {
            let sums = self.weigh(&mix, 0.0);
            // What the best set for a mix reaches in the mean, no set exceeds at its least.
            let bound: f64 = mix.iter().zip(&sums.needs).map(|(share, sum)| share * sum).sum();
            upper = upper.min(bound);
            let spread = sums.needs.iter().map(|sum| (sum - bound).abs()).fold(0.0, f64::max);
            if self.worth.met() || spread <= ROUNDING || upper - self.least <= ROUNDING {
                break;
            }
            let step = (bound - self.least).max(0.0) / (spread * spread);
            let moved = mix
                .iter()
                .zip(&sums.needs)
                .map(|(share, sum)| share * (-step * (sum - bound)).exp());
            mix = super::stats::unit(&moved.collect::<Vec<_>>());
        }
    }

    /// Every need is met: raises the value, at a price for each need that falls short.
    fn enrich(&mut self) {
        let mut prices = vec![0.0; self.problem.ratios.len()];
        for _ in 0..MIXES {
            let sums = self.weigh(&prices, 1.0);
            let short: Vec<f64> = sums.needs.iter().map(|sum| 1.0 - sum).collect();
            let bound = sums.value
                - prices.iter().zip(&short).map(|(price, short)| price * short).sum::<f64>();
            let size: f64 = short.iter().map(|short| short * short).sum();
            if size <= ROUNDING || bound - self.worth.value <= ROUNDING {
                break;
            }
            let step = (bound - self.worth.value) / size;
            prices
                .iter_mut()
                .zip(&short)
                .for_each(|(price, short)| *price = (*price + step * short).max(0.0));
        }
    }

    /// Exchanges kept and dropped experts next to the cut while that gains: one for one, and two for two where no one
    /// does.
    fn swap(&mut self) {
        loop {
            let sums = self.problem.sums((0..self.best.len()).filter(|id| self.best[*id]));
            self.take(&sums);
            let (inside, outside) = self.near();
            let trade = self.trade(&sums, &ones(&inside), &ones(&outside)).or_else(|| {
                let pairs = |ids: &[usize]| pairs(&ids[..ids.len().min(PAIRED)]);
                self.trade(&sums, &pairs(&inside), &pairs(&outside))
            });
            let Some((out, into)) = trade else { break };
            out.iter().for_each(|id| self.best[*id] = false);
            into.iter().for_each(|id| self.best[*id] = true);
        }
    }

    /// The lightest kept and the heaviest dropped, by the weights that gave the best set.
    fn near(&self) -> (Vec<usize>, Vec<usize>) {
        let weights = &self.best_weights;
        let lighter = |a: &usize, b: &usize| weights[*a].total_cmp(&weights[*b]).then(b.cmp(a));
        let free = (0..weights.len()).filter(|id| !self.problem.pinned[*id]);
        let (mut inside, mut outside): (Vec<usize>, Vec<usize>) =
            free.partition(|id| self.best[*id]);
        inside.sort_by(lighter);
        outside.sort_by(|a, b| lighter(b, a));
        inside.truncate(WINDOW);
        outside.truncate(WINDOW);
        (inside, outside)
    }

    /// The trade of one of `outs` for one of `intos` that gains most, if one gains.
    fn trade(
        &self,
        sums: &Sums,
        outs: &[Vec<usize>],
        intos: &[Vec<usize>],
    ) -> Option<(Vec<usize>, Vec<usize>)> {
        let total = |ids: &Vec<usize>| self.problem.sums(ids.iter().copied());
        let gains: Vec<Sums> = intos.iter().map(total).collect();
        let mut best = None;
        for out in outs {
            let mut rest = sums.clone();
            out.iter().for_each(|id| self.problem.shift(&mut rest, *id, -1.0));
            for (into, gain) in intos.iter().zip(&gains) {
                let needs = rest.needs.iter().zip(&gain.needs).map(|(rest, gain)| rest + gain);
                let worth =
                    Worth { ratio: needs.fold(1.0, f64::min), value: rest.value + gain.value };
                if worth.better(best.map_or(self.worth, |(_, _, worth)| worth)) {
                    best = Some((out, into, worth));
                }
            }
        }
        best.map(|(out, into, _)| (out.clone(), into.clone()))
    }
}

fn ones(ids: &[usize]) -> Vec<Vec<usize>> {
    ids.iter().map(|id| vec![*id]).collect()
}

fn pairs(ids: &[usize]) -> Vec<Vec<usize>> {
    (0..ids.len()).flat_map(|i| (0..i).map(move |j| vec![ids[i], ids[j]])).collect()
}

#[cfg(test)]
#[path = "maxmin_tests.rs"]
mod tests;
