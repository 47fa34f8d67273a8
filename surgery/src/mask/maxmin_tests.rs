use super::super::state::heaviest_first;
use super::super::stats::unit;
use super::*;

/// Shares of a layer as routers give them: few heavy experts, many light ones.
fn row(random: &mut fastrand::Rng, experts: usize, target: f64) -> Vec<f64> {
    let row: Vec<f64> = (0..experts).map(|_| -random.f64().max(1e-9).ln()).collect();
    unit(&row).iter().map(|share| share / target).collect()
}

/// What two random rows need, and a start that knows only the first.
struct Case {
    value: Vec<f64>,
    ratios: Vec<Vec<f64>>,
    pinned: Vec<bool>,
    start: Vec<bool>,
}

fn case(seed: u64, experts: usize, keep: usize, targets: &[f64]) -> Case {
    let mut random = fastrand::Rng::with_seed(seed);
    let ratios: Vec<Vec<f64>> = targets.iter().map(|t| row(&mut random, experts, *t)).collect();
    let value = unit(&ratios[0]);
    let order = heaviest_first(&value);
    let mut start = vec![false; experts];
    order.iter().take(keep).for_each(|id| start[*id] = true);
    let mut pinned = vec![false; experts];
    // Now and then one stays whatever it is worth.
    if seed.is_multiple_of(3) {
        pinned[order[keep - 1]] = true;
    }
    Case { value, ratios, pinned, start }
}

/// The best of every subset, by counting in binary: another way than the solver's own.
fn optimum(problem: &Problem, keep: u32) -> Worth {
    let n = problem.value.len();
    let sets = (0u32..1 << n).filter(|bits| bits.count_ones() == keep);
    let kept = sets.map(|bits| (0..n).map(|id| bits >> id & 1 == 1).collect::<Vec<bool>>());
    let held = kept.filter(|kept| problem.pinned.iter().zip(kept).all(|(pin, keep)| !pin || *keep));
    let worths = held.map(|kept| problem.worth(&kept));
    worths.reduce(|a, b| if b.better(a) { b } else { a }).unwrap()
}

#[test]
fn small_layers_are_solved_exactly() {
    #[track_caller]
    fn check(experts: usize, keep: usize, targets: &[f64]) {
        for seed in 0..60 {
            let Case { value, ratios, pinned, start } = case(seed, experts, keep, targets);
            let problem = Problem { value: &value, ratios: &ratios, pinned: &pinned };
            let (kept, want) = (problem.solve(start), optimum(&problem, keep as u32));
            let got = problem.worth(&kept);
            assert_eq!(kept.iter().filter(|keep| **keep).count(), keep);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(
                close(got.ratio, want.ratio) && close(got.value, want.value),
                "seed {seed}: {got:?}, the optimum is {want:?}"
            );
        }
    }
    // Within reach, at the edge, and out of reach.
    check(8, 4, &[0.6, 0.5]);
    check(8, 4, &[0.8, 0.8, 0.8]);
    check(12, 5, &[0.7, 0.5, 0.4]);
    check(12, 6, &[0.95, 0.9, 0.9]);
}

/// The search, which larger layers need, on cases small enough to know the optimum of.
#[test]
fn the_search_comes_close_to_the_optimum() {
    #[track_caller]
    fn check(experts: usize, keep: usize, targets: &[f64], ratio: f64, exact: usize) {
        let mut hits = 0;
        for seed in 0..60 {
            let Case { value, ratios, pinned, start } = case(seed, experts, keep, targets);
            let problem = Problem { value: &value, ratios: &ratios, pinned: &pinned };
            let before = problem.worth(&start);
            let (kept, want) = (problem.search(start), optimum(&problem, keep as u32));
            let got = problem.worth(&kept);
            assert!(!before.better(got), "seed {seed}: {before:?} became {got:?}");
            assert!(got.ratio >= ratio * want.ratio, "seed {seed}: {got:?} of {want:?}");
            hits += usize::from(!want.better(got));
        }
        assert!(hits >= exact, "{hits} of 60 are optimal");
    }
    check(12, 6, &[0.8, 0.8], 0.98, 50);
    check(14, 7, &[0.95, 0.9, 0.9], 0.98, 40);
}

/// Of layers as large as they come no optimum is known, but a bound of it is.
#[test]
fn the_search_comes_close_to_the_bound() {
    #[track_caller]
    fn check(experts: usize, keep: usize, targets: &[f64], short: f64) {
        for seed in 0..20 {
            let Case { value, ratios, pinned, start } = case(seed, experts, keep, targets);
            let problem = Problem { value: &value, ratios: &ratios, pinned: &pinned };
            let got = problem.worth(&problem.solve(start.clone())).ratio;
            // Any mix bounds the least need; the best of a coarse grid of mixes is bound enough.
            let mut search = Search::new(&problem, start);
            let mut bound = 1.0f64;
            for a in 0..=40 {
                for b in 0..=40 - a {
                    let mix =
                        [f64::from(a) / 40.0, f64::from(b) / 40.0, f64::from(40 - a - b) / 40.0];
                    let sums = search.weigh(&mix, 0.0);
                    bound = bound.min(mix.iter().zip(&sums.needs).map(|(m, s)| m * s).sum());
                }
            }
            assert!(got >= bound - short, "seed {seed}: {got} of {bound}");
        }
    }
    check(128, 64, &[0.95, 0.9, 0.9], 3e-3);
    check(256, 100, &[0.95, 0.9, 0.9], 1e-3);
}
