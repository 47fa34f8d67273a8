use engine::{Known, Masking, Profile, Shape, Source};

use super::*;

/// Numbers a profile is made of, where a test does not say: norms are absent.
struct Counted {
    layers: usize,
    experts: usize,
    top_k: usize,
    counts: Vec<i64>,
    gate_mass: Vec<f64>,
    norms: Vec<f64>,
}

impl Counted {
    /// `gates` is one row a layer, all on the first rank: the other ranks only make room for `top_k`.
    fn gates(gates: &[&[f64]], top_k: usize) -> Counted {
        let first = |gate: &f64| -> Vec<f64> {
            (0..top_k).map(|rank| if rank == 0 { *gate } else { 0.0 }).collect()
        };
        let gate_mass: Vec<f64> = gates.concat().iter().flat_map(first).collect();
        let experts = gates.first().map_or(0, |row| row.len());
        let norms = vec![0.0; gates.len() * experts];
        let counts = vec![1; gate_mass.len()];
        Counted { layers: gates.len(), experts, top_k, counts, gate_mass, norms }
    }

    fn stats(&self, score: Score) -> Result<Stats, MaskError> {
        Stats::new(
            Taps {
                layers: self.layers,
                experts: self.experts,
                top_k: self.top_k,
                counts: &self.counts,
                gate_mass: &self.gate_mass,
                output_norm: &self.norms,
                gated_norm: &self.norms,
            },
            score,
        )
    }
}

/// Each layer with `#` for kept, then the steps beyond the first.
fn drawn(choice: &Choice, experts: usize) -> String {
    let row = |ids: &Vec<u32>| -> String {
        (0..experts as u32).map(|id| if ids.contains(&id) { '#' } else { '.' }).collect()
    };
    let step = |step: &Step| {
        let Step { pass, layer, added, removed } = step;
        let removed = if removed.is_empty() { String::new() } else { format!("-{removed:?}") };
        format!(", {pass} {layer}:+{added:?}{removed}")
    };
    let later = choice.steps.iter().filter(|step| step.pass != "base").map(step);
    choice.kept.iter().map(row).collect::<Vec<_>>().join(" ") + &later.collect::<String>()
}

#[track_caller]
fn check(gates: &[&[f64]], top_k: usize, target: Target, uniform: bool, want: &str) {
    let counted = Counted::gates(gates, top_k);
    let wishes = Wishes::plain(Request { target, uniform });
    let chosen = counted.stats(Score::Gate).and_then(|stats| choose(&stats, &wishes));
    let got = chosen.map_or_else(|e| e.to_string(), |choice| drawn(&choice, counted.experts));
    assert_eq!(got, want);
}

#[test]
fn passes() {
    use Target::{Count, Coverage, Share};
    // The heaviest stay; equal ones by the lower id.
    check(&[&[1., 5., 2., 4.]], 1, Count(2), false, ".#.#");
    check(&[&[2., 2., 2., 2.]], 1, Share(0.5), false, "##..");
    // A share is of the experts; coverage is of the mass.
    check(&[&[7., 1., 1., 1.]], 1, Share(0.75), false, "###.");
    check(&[&[7., 1., 1., 1.]], 1, Coverage(0.7), false, "#...");
    check(&[&[7., 1., 1., 1.]], 1, Coverage(0.75), false, "##..");
    // All of the mass is not all of the experts, also where sums round.
    check(&[&[0.3, 0.1, 0., 0.2]], 1, Coverage(1.0), false, "##.#");
    // A router that picks two needs two, also where one carries everything.
    check(&[&[0., 0., 9., 0.]], 2, Coverage(0.5), false, "#.#., top-k 0:+[0]");
    // Layers choose alone, unless the runtime wants one count.
    check(&[&[9., 1., 0.], &[2., 3., 4.]], 1, Coverage(0.7), false, "#.. .##");
    check(&[&[9., 1., 0.], &[2., 3., 4.]], 1, Coverage(0.7), true, "##. .##, uniform 0:+[1]");
    // A count in the mean goes where the mass is spread widest; ties to the
    // lower layer.
    check(&[&[8., 1., 1.], &[2., 3., 4.]], 1, Count(2), true, "##. .##");
    check(&[&[8., 1., 1.], &[2., 3., 4.]], 1, Count(2), false, "#.. ###");
    check(&[&[1., 1., 1.], &[9., 9., 9.]], 1, Count(2), false, "### #..");
    check(&[&[9., 0., 0., 0.], &[1., 1., 1., 1.]], 2, Count(3), false, "##.. ####");
    // A block without experts stays without.
    check(&[&[0., 0., 0.], &[2., 3., 4.]], 1, Count(2), true, "... .##");
}

#[test]
fn refuses_what_it_cannot_judge() {
    use Target::{Count, Coverage, Share};
    let two: &[&[f64]] = &[&[1., 1.]];
    check(two, 1, Count(3), false, "a mask of 3 experts a layer was asked for, the parent has 2");
    check(two, 1, Coverage(0.0), false, "the share is 0; it must be above 0 and at most 1");
    check(two, 1, Coverage(f64::NAN), false, "the share is NaN; it must be above 0 and at most 1");
    check(two, 3, Count(1), false, "the router picks 3 experts, the profile has 2");
    let few = "a mask of 1 experts a layer was asked for, the router picks 2; keep 2 or more";
    check(&[&[0., 0., 9., 0.]], 2, Count(1), false, few);
    check(&[&[0., 0., 9., 0.]], 2, Share(0.25), true, few);
    check(
        &[&[1., f64::NAN]],
        1,
        Count(1),
        false,
        "layer 0, expert 1: gate mass is NaN; profile again",
    );
    check(
        &[&[1., 2.], &[-1., 1.]],
        1,
        Count(1),
        false,
        "layer 1, expert 0: gate mass is -1; profile again",
    );
    check(
        &[&[1., f64::INFINITY]],
        1,
        Count(1),
        false,
        "layer 0, expert 1: gate mass is inf; profile again",
    );
    check(&[], 1, Count(1), false, "the router picks 1 experts, the profile has 0");
}

#[test]
fn numbers_that_are_none_are_named() {
    #[track_caller]
    fn check(spoil: fn(&mut Counted), score: Score, want: &str) {
        let mut counted = Counted::gates(&[&[1., 1.], &[1., 1.]], 2);
        counted.norms = vec![1.0; 4];
        assert!(counted.stats(score).is_ok());
        spoil(&mut counted);
        assert_eq!(counted.stats(score).unwrap_err().to_string(), want);
    }
    let gate = Score::Gate;
    check(|c| c.counts[5] = -3, gate, "layer 1, expert 0: count is -3; profile again");
    check(
        |c| c.norms[3] = f64::INFINITY,
        gate,
        "layer 1, expert 1: output norm is inf; profile again",
    );
    check(
        |c| c.gate_mass[2..4].fill(f64::MAX),
        gate,
        "layer 0, expert 1: score is inf; profile again",
    );
    let short = "counts has 7 values, the profile's shape needs 8; profile again";
    check(|c| c.counts.truncate(7), gate, short);
    check(|c| c.counts.fill(0), gate, "the profile has no tokens; profile a corpus first");
    let gates =
        "the profile has no gates, which the score gate needs; use frequency, or profile a corpus";
    check(|c| c.gate_mass.fill(0.0), gate, gates);
    let norms =
        "the profile has no norms, which the score reap needs; use gate, or profile with norms";
    check(|c| c.norms.fill(0.0), Score::Reap, norms);
    let some = "layer 1: 1 of the 2 experts that were chosen did not run and have no norms, which the \
                score norm-sum needs; profile the whole parent";
    check(|c| c.norms[2] = 0.0, Score::NormSum, some);
}

#[test]
fn every_score_has_its_formula() {
    // Expert 0 is often second, 1 rarely first, 2 in between but gated high, 3 never chosen.
    let taps = Taps {
        layers: 1,
        experts: 4,
        top_k: 2,
        counts: &[0, 6, 4, 0, 2, 4, 0, 0],
        gate_mass: &[0., 1., 2., 0., 2., 1., 0., 0.],
        output_norm: &[12., 2., 3., 0.],
        gated_norm: &[3., 1., 1.5, 0.],
    };
    let want = |score| match score {
        Score::Frequency => [6., 4., 6., 0.],
        // Of two choices the first counts two thirds, the second one.
        Score::Rank => [2., 8. / 3., 8. / 3., 0.],
        Score::Gate => [1., 2., 3., 0.],
        Score::NormMean => [2., 0.5, 0.5, 0.],
        Score::NormSum => [12., 2., 3., 0.],
        Score::Reap => [0.5, 0.25, 0.25, 0.],
        Score::GateNorm => [3., 1., 1.5, 0.],
    };
    for &score in Score::ALL {
        assert_eq!(Stats::new(taps, score).unwrap().score[0], want(score), "{}", score.name());
    }
}

#[test]
fn scores_have_one_list() {
    for &score in Score::ALL {
        assert_eq!(score.name().parse(), Ok(score));
        let About { formula, suits, source, .. } = score.about();
        let help = Score::help();
        let line = help.lines().find(|line| line.trim().starts_with(&format!("{} ", score.name())));
        assert!([formula, suits, source].iter().all(|part| line.unwrap().contains(part)), "{help}");
    }
    let error = "magic".parse::<Score>().unwrap_err().to_string();
    let names = "frequency, rank, gate, norm-mean, norm-sum, reap or gate-norm";
    assert_eq!(error, format!("score `magic` is not known; use {names}"));
    // The recipe that measures which is best.
    let recipe = include_str!("../../../specialists/nano/train/scores.py");
    let quoted: Vec<String> = Score::ALL.iter().map(|s| format!("{:?}", s.name())).collect();
    assert!(recipe.contains(&format!("SCORES = [{}]", quoted.join(", "))));
}

#[test]
fn coverage_is_of_gate_mass_whatever_the_score() {
    let mut counted = Counted::gates(&[&[1., 4., 5., 0.]], 1);
    counted.counts = vec![9, 1, 1, 0];
    let stats = counted.stats(Score::Frequency).unwrap();
    let of = |target| {
        let choice = choose(&stats, &Wishes::plain(Request { target, uniform: true })).unwrap();
        (choice.kept[0].clone(), choice.coverage[0])
    };
    assert_eq!(of(Target::Count(2)), (vec![0, 1], 0.5));
    // The order is the score's, the goal the mass's.
    assert_eq!(of(Target::Coverage(0.6)), (vec![0, 1, 2], 1.0));
    // Without gates it is of what there is, and that is said.
    counted.gate_mass.fill(0.0);
    let stats = counted.stats(Score::Frequency).unwrap();
    let request = Request { target: Target::Count(1), uniform: true };
    let choice = choose(&stats, &Wishes::plain(request)).unwrap();
    assert_eq!((choice.coverage, choice.warnings), (vec![9. / 11.], vec![Warning::OfSelections]));
}

#[test]
fn coverage_is_of_all_ranks() {
    let mut counted = Counted::gates(&[&[1., 0.]], 2);
    counted.gate_mass = vec![1., 0., 0., 3.];
    let stats = counted.stats(Score::Gate).unwrap();
    assert_eq!(stats.coverage(&[vec![1]]), [0.75]);
}

// A count of one of five is a fifth; half of five is three.
#[test]
fn shares_are_rounded() {
    let row: &[f64] = &[5., 4., 3., 2., 1.];
    check(&[row], 1, Target::Share(0.3), true, "##...");
    check(&[row], 1, Target::Share(0.5), true, "###..");
    check(&[row], 1, Target::Share(0.29), true, "#....");
}

#[test]
fn experts_that_did_not_run_are_counted() {
    let mut counted = Counted::gates(&[&[1., 1., 1.]], 1);
    counted.norms = vec![2., 0., 2.];
    let error = counted.stats(Score::NormSum).unwrap_err();
    let want = MaskError::SomeNorms { score: "norm-sum", layer: 0, missing: 1, chosen: 3 };
    assert_eq!(error, want);
    // One that nothing chose need not have run.
    counted.counts[1] = 0;
    assert!(counted.stats(Score::NormSum).is_ok());
}

#[test]
fn keep_is_a_count_or_a_share() {
    #[track_caller]
    fn check(text: &str, want: Option<Target>) {
        assert_eq!(Target::keep(text).ok(), want);
    }
    check("16", Some(Target::Count(16)));
    check("50%", Some(Target::Share(0.5)));
    for bad in ["0", "", "%", "0%", "101%", "-3", "NaN%", "half"] {
        check(bad, None);
    }
}

#[test]
fn a_random_mask_has_the_sizes_of_its_model_and_the_luck_of_its_seed() {
    let kept = vec![vec![0, 1, 2, 3], vec![], vec![5]];
    let drawn = random(&kept, 32, 7);
    assert_eq!(drawn.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, 1]);
    assert!(drawn.iter().all(|row| row.is_sorted() && row.iter().all(|id| *id < 32)));
    assert_eq!(drawn, random(&kept, 32, 7));
    assert_ne!(drawn, random(&kept, 32, 8));
}

/// Twenty experts of equal mass but the first, and a router of one: what counts llama.cpp likes.
#[test]
fn llama_cpp_gets_counts_its_kernels_take() {
    #[track_caller]
    fn check(experts: usize, target: Target, want: usize, warning: &str) {
        let row = vec![1.0; experts];
        let stats = Counted::gates(&[&row, &row], 1).stats(Score::Gate).unwrap();
        let request = Request { target, uniform: false };
        let wishes = Wishes { fused: true, ..Wishes::plain(request) };
        let choice = choose(&stats, &wishes).unwrap();
        assert_eq!(choice.kept.iter().map(Vec::len).collect::<Vec<_>>(), [want, want]);
        let warnings: Vec<String> = choice.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(warnings.join("; "), warning);
    }
    use Target::{Count, Coverage, Share};
    let rule = "llama.cpp's fused routing on CUDA needs a power of two up to 512, or 288 or 576";
    check(20, Count(16), 16, "");
    check(20, Coverage(0.4), 8, "");
    check(20, Coverage(0.41), 16, "");
    check(20, Coverage(0.85), 17, &format!("17 experts a layer: {rule}; use 16"));
    check(20, Count(12), 12, &format!("12 experts a layer: {rule}; use 8 or 16"));
    check(600, Share(0.5), 300, &format!("300 experts a layer: {rule}; use 288 or 512"));
    check(600, Coverage(0.47), 288, "");
    check(600, Count(590), 590, &format!("590 experts a layer: {rule}; use 576"));
}

#[test]
fn the_count_below_may_be_the_least_there_is() {
    assert_eq!(counts::fused_below(8, 12), Some(8));
    assert_eq!(counts::fused_below(9, 12), None);
    assert_eq!(counts::fused_above(12, 16), Some(16));
    assert_eq!(counts::fused_above(12, 15), None);
    assert!([1, 64, 512, 288, 576].into_iter().all(fused));
    assert!(![80, 287, 513, 1024].into_iter().any(fused));
}

/// A profile of one layer, of ten tokens for each expert; the domain is its name.
fn profile(domain: &str, gates: &[f64]) -> Profile {
    let mut profile = Profile::new(&Shape::of_experts(1, gates.len(), 1), "parent", domain);
    profile.all.gate_mass.copy_from_slice(gates);
    profile.all.counts.fill(10);
    profile.tokens = 10 * gates.len() as u64;
    profile
}

#[test]
fn the_best_score_is_one_that_all_profiles_can_bear() {
    #[track_caller]
    fn check(norms: &[&[f64]], want: Score) {
        let of = |norms: &&[f64]| {
            let mut profile = profile("law", &[2., 1.]);
            profile.all.output_norm.copy_from_slice(norms);
            profile.all.gated_norm.copy_from_slice(norms);
            profile
        };
        let profiles: Vec<Profile> = norms.iter().map(of).collect();
        assert_eq!(Score::best(&profiles), want);
    }
    check(&[&[3., 4.]], DEFAULT);
    // An expert that was chosen and did not run.
    check(&[&[3., 0.]], Score::Gate);
    check(&[&[3., 4.], &[0., 4.]], Score::Gate);
    let mut counted = profile("law", &[2., 1.]);
    counted.known = Known { ranks: false, gates: false, norms: false, ..Known::default() };
    assert_eq!(Score::best([&counted, &profile("math", &[2., 1.])]), Score::Frequency);
}

#[test]
fn a_whitelist_swaps_for_the_least() {
    /// `ranks` are each expert's tokens at the first and the last of three ranks.
    #[track_caller]
    fn check(ranks: &[(i64, i64)], gates: &[f64], rule: &str, want: &str, warned: usize) {
        let mut counted = Counted::gates(&[gates], 3);
        counted.counts = ranks.iter().flat_map(|(first, last)| [*first, 0, *last]).collect();
        let stats = counted.stats(Score::Gate).unwrap();
        let request = Request { target: Target::Count(3), uniform: true };
        let whitelist = Some(rule.parse().unwrap());
        let choice = choose(&stats, &Wishes { whitelist, ..Wishes::plain(request) }).unwrap();
        assert_eq!((&drawn(&choice, gates.len())[..], choice.warnings.len()), (want, warned));
    }
    let last = (0, 20);
    // Expert 4 fires first when it does: it comes in for the weakest.
    check(
        &[last, last, last, last, (11, 0)],
        &[5., 4., 3., 2., 1.],
        "1.0,10",
        "##..#, whitelist 0:+[4]-[2]",
        0,
    );
    // Both bounds are strict.
    check(&[last, last, last, last, (10, 0)], &[5., 4., 3., 2., 1.], "1.0,10", "###..", 0);
    check(&[last, last, last, last, (11, 11)], &[5., 4., 3., 2., 1.], "1.0,10", "###..", 0);
    check(
        &[last, last, last, last, (12, 11)],
        &[5., 4., 3., 2., 1.],
        "1.0,10",
        "##..#, whitelist 0:+[4]-[2]",
        0,
    );
    // Of equal ones the higher id leaves, and a whitelisted one never does.
    check(
        &[last, last, (20, 0), last, (20, 0)],
        &[2., 2., 2., 1., 1.],
        "1.0,10",
        "#.#.#, whitelist 0:+[4]-[1]",
        0,
    );
    // More on the list than places: the heaviest of them.
    let first = (20, 0);
    check(
        &[last, first, first, first, first],
        &[9., 1., 2., 3., 4.],
        "1.0,10",
        "..###, whitelist 0:+[2]-[0]",
        1,
    );
    for bad in ["", "2", "2,", "x,10", "NaN,1", "2.0,-1", "-1,3", "2,1,1"] {
        assert!(bad.parse::<Whitelist>().is_err(), "{bad}");
    }
    assert_eq!(USUAL_WHITELIST.parse(), Ok(Whitelist { rank: 2.0, count: 10 }));
}

#[test]
fn reasoning_swaps_for_the_weakest() {
    #[track_caller]
    fn check(own: &[f64], ranks: &[i64], theirs: &[f64], swaps: usize, want: &str) {
        let mut counted = Counted::gates(&[own], 2);
        // Tokens at the second rank, of ten.
        counted.counts = ranks.iter().flat_map(|last| [10 - last, *last]).collect();
        let stats = counted.stats(Score::Gate).unwrap();
        let other = Counted::gates(&[theirs], 2).stats(Score::Gate).unwrap();
        let reasoning = Some(Reasoning { stats: &other, swaps });
        let request = Request { target: Target::Count(3), uniform: true };
        let choice = choose(&stats, &Wishes { reasoning, ..Wishes::plain(request) }).unwrap();
        assert_eq!(drawn(&choice, own.len()), want);
    }
    let flat = &[0, 0, 0, 0, 0][..];
    // What reasoning uses most comes in for the least used; totals do not matter, shares do.
    check(&[50., 30., 10., 6., 4.], flat, &[0., 0., 1., 2., 7.], 1, "##..#, reasoning 0:+[4]-[2]");
    check(
        &[50., 30., 10., 6., 4.],
        flat,
        &[0., 0., 0., 5., 5.],
        6,
        "#..##, reasoning 0:+[3, 4]-[1, 2]",
    );
    // No swap that is no gain: reasoning uses it less than the domain its weakest.
    check(&[30., 30., 30., 5., 5.], flat, &[4., 4., 0., 1., 1.], 6, "###..");
    // A member that reasoning needs more than the candidate stays; the next weakest goes.
    check(&[50., 30., 10., 6., 4.], flat, &[0., 0., 6., 0., 4.], 6, "#.#.#, reasoning 0:+[4]-[1]");
    // Of members as weak the one of worse rank goes, then the higher id.
    check(
        &[9., 1., 1., 0., 0.],
        &[0, 5, 0, 0, 0],
        &[0., 0., 0., 0., 1.],
        6,
        "#.#.#, reasoning 0:+[4]-[1]",
    );
    check(&[9., 1., 1., 0., 0.], flat, &[0., 0., 0., 0., 1.], 6, "##..#, reasoning 0:+[4]-[2]");
    check(&[9., 1., 1., 0., 0.], flat, &[0., 0., 0., 0., 1.], 0, "###..");
}

/// What one pass forced in, no later one takes out; and what is short after swaps is made up for with the fewest.
#[test]
fn passes_after_one_another() {
    #[track_caller]
    fn check(ranks: &[(i64, i64)], own: &[f64], theirs: &[f64], wishes: &Wishes, want: &str) {
        let mut counted = Counted::gates(&[own], 2);
        counted.counts = ranks.iter().flat_map(|(first, last)| [*first, *last]).collect();
        let stats = counted.stats(Score::Gate).unwrap();
        let other = Counted::gates(&[theirs], 2).stats(Score::Gate).unwrap();
        let reasoning = wishes.reasoning.map(|r| r.swaps).unwrap_or(6);
        let reasoning = Some(Reasoning { stats: &other, swaps: reasoning });
        let choice = choose(&stats, &Wishes { reasoning, ..wishes.clone() }).unwrap();
        assert_eq!(drawn(&choice, own.len()), want);
    }
    let flat = &[(5, 5); 5][..];
    let coverage = Wishes::plain(Request { target: Target::Coverage(0.75), uniform: true });
    check(
        flat,
        &[30., 25., 20., 15., 10.],
        &[0., 0., 0., 5., 5.],
        &coverage,
        "##.##, reasoning 0:+[3, 4]-[1, 2], coverage 0:+[1]",
    );
    // The whitelisted is the weakest, and another one leaves for reasoning.
    let whitelist = Some("0.5,10".parse().unwrap());
    let count = Request { target: Target::Count(3), uniform: true };
    check(
        &[(5, 5), (5, 5), (5, 5), (5, 5), (20, 0)],
        &[50., 30., 10., 6., 4.],
        &[0., 0., 0., 9., 1.],
        &Wishes { whitelist, ..Wishes::plain(count) },
        "#..##, whitelist 0:+[4]-[2], reasoning 0:+[3]-[1]",
    );
    // A guard needs 3; the least that may leave for it is not what reasoning brought.
    let tools = Counted::gates(&[&[0., 0., 0., 1., 0.]], 2).stats(Score::Gate).unwrap();
    let guards = [Guard { name: "tools".to_owned(), stats: tools, target: 1.0 }];
    check(
        flat,
        &[50., 30., 10., 6., 4.],
        &[0., 0., 0., 0., 1.],
        &Wishes { guards: &guards, floor: Some(0.1), ..Wishes::plain(count) },
        "#..##, reasoning 0:+[4]-[2], guards 0:+[3]-[1]",
    );
}

/// Two layers, of which the second needs more for the guard; then more than the kernels like.
#[test]
fn guards_leave_one_count() {
    #[track_caller]
    fn check(uniform: bool, fused: bool, want: &[usize]) {
        let own = Counted::gates(&[&[6., 1., 1., 1., 1.], &[6., 1., 1., 1., 1.]], 1);
        let tools = Counted::gates(&[&[1., 0., 0., 0., 0.], &[0., 0., 0., 1., 1.]], 1);
        let stats = own.stats(Score::Gate).unwrap();
        let guard = tools.stats(Score::Gate).unwrap();
        let guards = [Guard { name: "tools".to_owned(), stats: guard, target: 1.0 }];
        let request = Request { target: Target::Coverage(0.6), uniform };
        let wishes = Wishes { guards: &guards, fused, ..Wishes::plain(request) };
        let choice = choose(&stats, &wishes).unwrap();
        assert_eq!(choice.kept.iter().map(Vec::len).collect::<Vec<_>>(), want);
        assert_eq!(choice.warnings, []);
    }
    check(false, false, &[1, 3]);
    check(true, false, &[3, 3]);
    check(true, true, &[4, 4]);
}

/// Stands for the hash of another profile's file.
const OTHER: &str = "beefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeef";

pub(super) fn beside(profile: &Profile) -> Beside<'_> {
    Beside { profile, sha256: OTHER }
}

#[test]
fn a_mask_names_all_profiles_that_it_was_made_from() {
    let (own, tools) = (profile("law", &[4., 3., 2., 1.]), profile("tools", &[4., 3., 2., 1.]));
    let order = Order::plain(Score::Gate, Request { target: Target::Count(2), uniform: true });
    assert_eq!(make(&own, "", &order).unwrap().file.sources, []);
    let guards = [(beside(&tools), 0.5)];
    let reasoning = Some((Beside { profile: &own, sha256: "more" }, 6));
    let file = make(&own, "", &Order { reasoning, guards: &guards, ..order }).unwrap().file;
    // They change nothing here, and are named.
    assert!(file.passes.iter().all(|step| step.name == "base"));
    let of = |pass: &str, domain: &str, profile: &str, share, swaps| Source {
        pass: pass.to_owned(),
        domain: domain.to_owned(),
        profile: profile.to_owned(),
        share,
        swaps,
    };
    let want = [
        of("reasoning", "law", "more", None, Some(6)),
        of("guards", "tools", OTHER, Some(0.5), None),
    ];
    assert_eq!(file.sources, want);
}

#[test]
fn masks_after_the_softmax_are_of_routers_that_do_not_renormalise() {
    let order = Order::plain(Score::Gate, Request { target: Target::Count(2), uniform: true });
    let after = Order { masking: Masking::AfterSoftmax, ..order.clone() };
    let of = |architecture: &str| {
        let own = profile("law", &[4., 3., 2., 1.]);
        Profile { architecture: architecture.to_owned(), ..own }
    };
    let file = make(&of("olmoe"), "", &after).unwrap().file;
    assert_eq!((&file.format[..], file.masking), ("collegium.mask/2", Masking::AfterSoftmax));
    let file = make(&of("olmoe"), "", &order).unwrap().file;
    assert_eq!((&file.format[..], file.masking), ("collegium.mask/1", Masking::BeforeSoftmax));
    let error = make(&of("qwen3moe"), "", &after).unwrap_err().to_string();
    assert!(error.starts_with("qwen3moe renormalises the gates"), "{error}");
    assert!(make(&of("qwen3moe"), "", &order).is_ok());
}

#[test]
fn what_stands_in_for_norms_is_said() {
    let mut own = profile("law", &[4., 3., 2., 1.]);
    own.known = engine::Known { ranks: false, gates: false, norms: false, stand_in: true };
    own.all.output_norm = vec![1., 2., 3., 4.];
    own.all.gated_norm = own.all.output_norm.clone();
    let order = |score| Order::plain(score, Request { target: Target::Count(2), uniform: true });
    for score in [Score::NormSum, Score::NormMean] {
        let made = make(&own, "", &order(score)).unwrap();
        assert_eq!(made.warnings, [Warning::StandIn { score: score.name() }]);
    }
    for score in [Score::Reap, Score::GateNorm] {
        let error = make(&own, "", &order(score)).unwrap_err();
        assert_eq!(error, MaskError::StandIn { score: score.name() });
    }
    // Of whatever is not said to stand in nothing is made.
    own.known.stand_in = false;
    let error = make(&own, "", &order(Score::NormSum)).unwrap_err();
    assert_eq!(error, MaskError::NoNorms { score: "norm-sum" });
}

#[test]
fn guards_get_their_share() {
    #[track_caller]
    fn check(
        guards: &[(&[f64], f64)],
        target: Target,
        floor: f64,
        want: &str,
        least: f64,
        warnings: &[&str],
    ) {
        let profiles: Vec<Profile> =
            guards.iter().map(|(gates, _)| profile("tools", gates)).collect();
        let shares = guards.iter().map(|(_, share)| *share);
        let guards: Vec<(Beside, f64)> = profiles.iter().map(beside).zip(shares).collect();
        let own = profile("law", &[40., 30., 15., 10., 5.]);
        let request = Request { target, uniform: true };
        let order =
            Order { guards: &guards, floor: Some(floor), ..Order::plain(Score::Gate, request) };
        let made = make(&own, "", &order).unwrap();
        let kept: String =
            (0..5).map(|id| if made.file.kept[0].contains(&id) { '#' } else { '.' }).collect();
        let got: Vec<String> = made.warnings.iter().map(Warning::to_string).collect();
        assert_eq!((&kept[..], got.join("; ")), (want, warnings.join("; ")));
        assert!((made.guards[0].least - least).abs() < 1e-12, "{:?}", made.guards);
    }
    use Target::{Count, Coverage};
    // What the guard has already changes nothing.
    check(&[(&[5., 5., 0., 0., 0.], 0.9)], Count(3), 0.5, "###..", 1.0, &[]);
    // The domain gives up no more than the guard needs.
    check(&[(&[5., 1., 1., 2., 1.], 0.8)], Count(3), 0.5, "##.#.", 0.8, &[]);
    check(&[(&[1., 1., 1., 1., 6.], 0.7)], Count(3), 0.5, "##..#", 0.8, &[]);
    // What is enough is enough: more of it for the guard is worth less than the domain.
    check(&[(&[0., 0., 3., 4., 3.], 0.35)], Count(3), 0.1, "##.#.", 0.4, &[]);
    // Where not both can be, the least of the two is as much as it can.
    check(
        &[(&[0., 0., 0., 5., 5.], 1.0)],
        Count(3),
        0.9,
        "#..##",
        1.0,
        &["the domain: 0.9 is not reached in 1 of 1 layers, the least is 0.550 in layer 0"],
    );
    check(
        &[(&[0., 0., 4., 3., 3.], 1.0), (&[1., 1., 1., 1., 1.], 0.7)],
        Count(3),
        0.5,
        "#.##.",
        0.7,
        &[
            "guard tools: 1 is not reached in 1 of 1 layers, the least is 0.700 in layer 0",
            "guard tools: 0.7 is not reached in 1 of 1 layers, the least is 0.600 in layer 0",
        ],
    );
    // With a coverage the count grows until all is reached.
    check(&[(&[0., 0., 0., 5., 5.], 1.0)], Coverage(0.7), 0.5, "##.##", 1.0, &[]);
    check(&[(&[0., 0., 0., 1., 9.], 0.9)], Coverage(0.7), 0.5, "##..#", 0.9, &[]);
}

#[test]
fn other_profiles_must_be_of_the_same_parent() {
    let own = profile("law", &[4., 3., 2., 1.]);
    let order = Order::plain(Score::Gate, Request { target: Target::Count(2), uniform: true });
    #[track_caller]
    fn check(own: &Profile, order: &Order, want: &str) {
        assert_eq!(make(own, "", order).unwrap_err().to_string(), want);
    }
    let stray = Profile { parent: "another".to_owned(), ..own.clone() };
    let other = "it is of parent another…, the domain's profile is of parent…; profile one parent";
    let guards = [(beside(&stray), 0.9)];
    check(&own, &Order { guards: &guards, ..order.clone() }, &format!("guard law: {other}"));
    let reasoning = Some((beside(&stray), 6));
    check(&own, &Order { reasoning, ..order.clone() }, &format!("reasoning: {other}"));
    // The same hash in another shape: somebody wrote it by hand.
    let mut small = profile("law", &[1., 1.]);
    small.tokens = 100;
    let shape = "reasoning: it is 1x2 top-1, the domain's profile is 1x4 top-1 (layers x experts, top-k); \
                 profile one parent";
    check(&own, &Order { reasoning: Some((beside(&small), 6)), ..order.clone() }, shape);
    let guards = [(beside(&own), 1.5)];
    let share = "law: the share is 1.5; it must be above 0 and at most 1";
    check(&own, &Order { guards: &guards, ..order.clone() }, share);
    let mut spoiled = own.clone();
    spoiled.all.gate_mass[2] = f64::NAN;
    let guards = [(beside(&spoiled), 0.9)];
    let value = "guard law: layer 0, expert 2: gate mass is NaN; profile again";
    check(&own, &Order { guards: &guards, ..order.clone() }, value);
    assert!(make(&own, "", &order).is_ok());
}

#[test]
fn a_layer_that_was_never_reached_is_named() {
    let empty = |layer: usize| {
        let mut profile = Profile::new(&Shape::of_experts(3, 2, 1), "parent", "law");
        (profile.all.counts, profile.all.gate_mass) = (vec![10; 6], vec![1.0; 6]);
        profile.tokens = 20;
        profile.all.counts[layer * 2..][..2].fill(0);
        profile.all.gate_mass[layer * 2..][..2].fill(0.0);
        profile
    };
    let order = Order::plain(Score::Gate, Request { target: Target::Count(1), uniform: true });
    let own = empty(1);
    // Alone it could be a dense block.
    assert_eq!(make(&own, "", &order).unwrap().file.experts, [1, 0, 1]);
    #[track_caller]
    fn check(own: &Profile, order: &Order, want: Option<&str>) {
        assert_eq!(make(own, "", order).err().map(|e| e.to_string()).as_deref(), want);
    }
    let never = "layer 1 was never reached, and has experts; profile more, or another corpus";
    check(&own, &Order { routed: Some(&[true; 3]), ..order.clone() }, Some(never));
    check(&own, &Order { routed: Some(&[true, false, true]), ..order.clone() }, None);
    // Another profile of the parent shows that it is none.
    let other = empty(2);
    let seen =
        "reasoning: layer 2 was never reached, and has experts; profile more, or another corpus";
    check(&own, &Order { reasoning: Some((beside(&other), 6)), ..order.clone() }, Some(seen));
    let again = empty(1);
    let guards = [(beside(&again), 0.9)];
    check(&own, &Order { guards: &guards, ..order.clone() }, None);
    let mut whole = empty(1);
    (whole.all.counts, whole.all.gate_mass) = (vec![10; 6], vec![1.0; 6]);
    let seen = "reasoning: layer 1 was never reached by the domain's profile, and has experts; profile more, or \
                another corpus";
    check(&own, &Order { reasoning: Some((beside(&whole), 6)), ..order.clone() }, Some(seen));
}

#[test]
fn few_tokens_are_refused_unless_forced() {
    let request = Request { target: Target::Count(2), uniform: true };
    let order = Order::plain(Score::Gate, request);
    let mut own = profile("law", &[4., 3., 2., 1.]);
    own.tokens = 16;
    assert!(make(&own, "", &order).unwrap().warnings.is_empty());
    own.tokens = 13;
    let error = make(&own, "", &order).unwrap_err().to_string();
    let want = "the profile has 13 tokens, its 4 experts need 16, four each; profile 3 more, or go on with --force";
    assert_eq!(error, want);
    let made = make(&own, "", &Order { force: true, ..order }).unwrap();
    assert_eq!(made.warnings, [Warning::FewTokens { tokens: 13, experts: 4, need: 16 }]);
    assert_eq!(made.file, from_profile(&own, "", Score::Gate, request).unwrap());
}
