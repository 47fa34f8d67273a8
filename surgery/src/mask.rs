//! Chooses the experts a specialist keeps.
//!
//! In: what the router did on one domain's tokens ([`Stats`]), and how much to
//! keep ([`Request`]).  Out: a [`Choice`], the kept ids of each layer, the gate
//! mass they cover, and what each pass did.  Everything here is pure: no files,
//! no model, no clock, and the same profile gives the same mask anywhere.
//!
//! A layer without experts (a dense block) is a row of zeros and keeps nothing.
//! Shared experts are not in a mask: they always run.
//!
//! To add a score: a variant of [`Score`] and its arm in `weigh`.  To add a
//! rule: a function in [`PASSES`] and a case in `tests::passes`.

use std::str::FromStr;

use engine::{MASK_FORMAT, MaskFile, Pass as Recorded, Profile};
use thiserror::Error;

/// What makes an expert matter.  The norm-weighted scores need a profile with
/// norms; these three need the router's choices alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// Sum of the gate that was applied: how often, times how strongly.
    Gate,
    /// Number of tokens that chose the expert.
    Frequency,
    /// Number of tokens, the first choice counting `top_k` times the last.
    Rank,
}

impl Score {
    pub fn name(self) -> &'static str {
        match self {
            Score::Gate => "gate",
            Score::Frequency => "frequency",
            Score::Rank => "rank",
        }
    }
}

impl FromStr for Score {
    type Err = MaskError;

    fn from_str(name: &str) -> Result<Score, MaskError> {
        [Score::Gate, Score::Frequency, Score::Rank]
            .into_iter()
            .find(|score| score.name() == name)
            .ok_or_else(|| MaskError::Score { name: name.to_owned() })
    }
}

/// How much of each layer stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// So many experts of each layer.
    Count(u32),
    /// This share of each layer's experts, in (0, 1], rounded to whole ones.
    Share(f64),
    /// The fewest experts that carry this share of the layer's score, in (0, 1].
    Coverage(f64),
}

impl Target {
    /// `"16"` or `"50%"`, as `--keep` takes it.
    ///
    /// # Errors
    ///
    /// [`MaskError::Keep`] if it is neither.
    pub fn keep(text: &str) -> Result<Target, MaskError> {
        let bad = || MaskError::Keep { text: text.to_owned() };
        match text.strip_suffix('%') {
            Some(percent) => {
                let share = percent.trim().parse::<f64>().map_err(|_| bad())? / 100.0;
                if share > 0.0 && share <= 1.0 { Ok(Target::Share(share)) } else { Err(bad()) }
            }
            None => match text.trim().parse() {
                Ok(0) | Err(_) => Err(bad()),
                Ok(count) => Ok(Target::Count(count)),
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub target: Target,
    /// One count for all layers, as llama.cpp and every runtime that reads a
    /// single `expert_count` needs.  Otherwise a count or a share is the mean
    /// over the layers, and goes where the score is spread widest.
    pub uniform: bool,
}

/// One domain's router statistics, checked.
#[derive(Clone, Debug)]
pub struct Stats {
    /// `[layers][experts]`, by the chosen score; compare only within a layer.
    score: Vec<Vec<f64>>,
    /// `[layers][experts]`, sum of the gate applied.  Coverage is of this,
    /// whatever the score.
    mass: Vec<Vec<f64>>,
    top_k: usize,
}

/// The taps of a profile as they lie in the file: `[layers, experts, top_k]`,
/// the rank fastest.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    pub layers: usize,
    pub experts: usize,
    pub top_k: usize,
    pub counts: &'a [i64],
    pub gate_mass: &'a [f64],
}

impl<'a> Taps<'a> {
    /// Of all tokens, prompt and answer.
    pub fn of(profile: &'a Profile) -> Taps<'a> {
        let Profile { layers, experts, top_k, ref all, .. } = *profile;
        Taps { layers, experts, top_k, counts: &all.counts, gate_mass: &all.gate_mass }
    }
}

/// What one pass did to one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub pass: &'static str,
    pub layer: usize,
    pub added: Vec<u32>,
    pub removed: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Ascending ids per layer.
    pub kept: Vec<Vec<u32>>,
    /// Share of each layer's gate mass on kept experts.
    pub coverage: Vec<f64>,
    /// Only steps that changed something, in the order they were taken.
    pub steps: Vec<Step>,
}

#[derive(Debug, Error, PartialEq)]
pub enum MaskError {
    #[error("score `{name}` is not known; use gate, frequency or rank")]
    Score { name: String },
    #[error("`{text}` keeps nothing; give a count such as 16, or a share such as 50%")]
    Keep { text: String },
    #[error("a mask of {asked} experts a layer was asked for, the parent has {experts}")]
    TooMany { asked: u32, experts: usize },
    #[error("the share is {share}; it must be above 0 and at most 1")]
    Share { share: f64 },
    /// The file is damaged, or was written for another shape.
    #[error("{what} has {got} values, the profile's shape needs {want}; profile again")]
    Length { what: &'static str, got: usize, want: usize },
    #[error("the router picks {top_k} experts, the profile has {experts}")]
    TooFew { top_k: usize, experts: usize },
    /// Some gate was not a number; no choice made from it can be trusted.
    #[error("layer {layer}, expert {expert}: {what} is {value}; profile again")]
    Value { layer: usize, expert: usize, what: &'static str, value: f64 },
    /// Nothing was measured, so keeping or dropping would be a guess.
    #[error("the profile has no tokens; profile a corpus first")]
    Empty,
}

impl Stats {
    /// Reads the taps by `score`.
    ///
    /// # Errors
    ///
    /// [`MaskError`] if they cannot support a choice; never a partial result.
    pub fn new(taps: Taps, score: Score) -> Result<Stats, MaskError> {
        let Taps { layers, experts, top_k, counts, gate_mass } = taps;
        let want = layers.saturating_mul(experts).saturating_mul(top_k);
        for (what, got) in [("counts", counts.len()), ("gate_mass", gate_mass.len())] {
            if got != want {
                return Err(MaskError::Length { what, got, want });
            }
        }
        if experts < top_k || top_k == 0 {
            return Err(MaskError::TooFew { top_k, experts });
        }
        let cell = |what, at: usize, value: f64| {
            let (layer, expert) = (at / experts, at % experts);
            let good = value.is_finite() && value >= 0.0;
            if good { Ok(value) } else { Err(MaskError::Value { layer, expert, what, value }) }
        };
        let mut rows = (Vec::new(), Vec::new());
        for (at, (counts, gates)) in counts.chunks(top_k).zip(gate_mass.chunks(top_k)).enumerate() {
            for (count, gate) in counts.iter().zip(gates) {
                cell("count", at, *count as f64)?;
                cell("gate mass", at, *gate)?;
            }
            rows.0.push(cell("score", at, weigh(score, counts, gates))?);
            rows.1.push(cell("gate mass", at, gates.iter().sum())?);
        }
        if rows.1.iter().all(|mass| *mass == 0.0) {
            return Err(MaskError::Empty);
        }
        let layered = |row: Vec<f64>| row.chunks(experts).map(<[f64]>::to_vec).collect();
        Ok(Stats { score: layered(rows.0), mass: layered(rows.1), top_k })
    }

    /// A layer nothing was routed in: a block without experts.
    fn dense(&self, layer: usize) -> bool {
        self.mass[layer].iter().all(|mass| *mass == 0.0)
    }

    /// Share of each layer's gate mass on `kept`; 1 where a layer has nothing
    /// to lose, 0 where it was kept for and never fired.
    pub fn coverage(&self, kept: &[Vec<u32>]) -> Vec<f64> {
        let share = |(row, ids): (&Vec<f64>, &Vec<u32>)| {
            let all: f64 = row.iter().sum();
            let held: f64 = ids.iter().filter_map(|id| row.get(*id as usize)).sum();
            match (all > 0.0, ids.is_empty()) {
                (true, _) => (held / all).min(1.0),
                (false, empty) => f64::from(u8::from(empty)),
            }
        };
        self.mass.iter().zip(kept).map(share).collect()
    }
}

/// One expert's weight from its counts and gates by rank, best rank first.
fn weigh(score: Score, counts: &[i64], gates: &[f64]) -> f64 {
    match score {
        Score::Gate => gates.iter().sum(),
        Score::Frequency => counts.iter().map(|count| *count as f64).sum(),
        Score::Rank => {
            let top_k = counts.len();
            counts
                .iter()
                .enumerate()
                .map(|(rank, count)| (top_k - rank) as f64 * *count as f64)
                .sum()
        }
    }
}

/// Turns bits of `[layers][experts]` on or off.
type Pass = fn(&Stats, Request, &mut [Vec<bool>]);

/// First what the domain needs, then what the model and the runtime need.
const PASSES: &[(&str, Pass)] = &[("base", base), ("top-k", at_least_top_k), ("uniform", uniform)];

/// Chooses the kept experts.
///
/// # Errors
///
/// [`MaskError`] if the request does not fit the shape.
pub fn choose(stats: &Stats, request: Request) -> Result<Choice, MaskError> {
    let experts = stats.mass.first().map_or(0, Vec::len);
    match request.target {
        Target::Count(asked) if asked as usize > experts => {
            return Err(MaskError::TooMany { asked, experts });
        }
        Target::Share(share) | Target::Coverage(share) if !(share > 0.0 && share <= 1.0) => {
            return Err(MaskError::Share { share });
        }
        _ => {}
    }
    let mut keep = vec![vec![false; experts]; stats.mass.len()];
    let mut steps = Vec::new();
    for (pass, apply) in PASSES {
        let before = keep.clone();
        apply(stats, request, &mut keep);
        for (layer, (old, new)) in before.iter().zip(&keep).enumerate() {
            let ids = |want: bool| -> Vec<u32> {
                (0..)
                    .zip(old.iter().zip(new))
                    .filter(|(_, (a, b))| a != b && **b == want)
                    .map(|(id, _)| id)
                    .collect()
            };
            let step = Step { pass, layer, added: ids(true), removed: ids(false) };
            if old != new {
                steps.push(step);
            }
        }
    }
    let ids =
        |row: &Vec<bool>| (0..).zip(row).filter(|(_, keep)| **keep).map(|(id, _)| id).collect();
    let kept: Vec<Vec<u32>> = keep.iter().map(ids).collect();
    Ok(Choice { coverage: stats.coverage(&kept), kept, steps })
}

fn base(stats: &Stats, request: Request, keep: &mut [Vec<bool>]) {
    let layers: Vec<usize> = (0..keep.len()).filter(|layer| !stats.dense(*layer)).collect();
    let experts = keep.first().map_or(0, Vec::len);
    let each = match request.target {
        Target::Count(count) => Some(count as usize),
        Target::Share(share) => Some((share * experts as f64).round() as usize),
        Target::Coverage(_) => None,
    };
    if let (Some(each), false) = (each, request.uniform) {
        return spread(stats, &layers, each, keep);
    }
    for layer in layers {
        let row = &stats.score[layer];
        let order = heaviest_first(row);
        let count = match request.target {
            Target::Coverage(share) => fewest(row, &order, share),
            _ => each.unwrap_or_default(),
        };
        order.iter().take(count).for_each(|&id| keep[layer][id] = true);
    }
}

/// Keeps `each` experts a layer in the mean: what the router needs in every
/// layer, then the heaviest of all layers by their share of their own layer.
/// Without that norm the layers with the largest sums would take everything.
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

fn at_least_top_k(stats: &Stats, _: Request, keep: &mut [Vec<bool>]) {
    grow(stats, keep, stats.top_k);
}

fn uniform(stats: &Stats, request: Request, keep: &mut [Vec<bool>]) {
    if request.uniform {
        let most = keep.iter().map(|row| count(row)).max().unwrap_or(0);
        grow(stats, keep, most);
    }
}

/// Adds the heaviest dropped experts of each layer until it keeps `goal`.
fn grow(stats: &Stats, keep: &mut [Vec<bool>], goal: usize) {
    for layer in (0..keep.len()).filter(|layer| !stats.dense(*layer)) {
        let missing = goal.saturating_sub(count(&keep[layer]));
        let order = heaviest_first(&stats.score[layer]);
        let add: Vec<usize> =
            order.into_iter().filter(|id| !keep[layer][*id]).take(missing).collect();
        add.into_iter().for_each(|id| keep[layer][id] = true);
    }
}

fn count(row: &[bool]) -> usize {
    row.iter().filter(|keep| **keep).count()
}

/// Ids by falling weight; equal weights stay in id order (the sort is stable).
fn heaviest_first(row: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
    order
}

/// The mask file of a profile; `sha256` is of the profile's file.
///
/// # Errors
///
/// [`MaskError`]; never a partial mask.
pub fn from_profile(
    profile: &Profile,
    sha256: &str,
    score: Score,
    request: Request,
) -> Result<MaskFile, MaskError> {
    let choice = choose(&Stats::new(Taps::of(profile), score)?, request)?;
    let record = |step: Step| Recorded {
        name: step.pass.to_owned(),
        layer: step.layer,
        added: step.added,
        removed: step.removed,
    };
    Ok(MaskFile {
        format: MASK_FORMAT.to_owned(),
        parent: profile.parent.clone(),
        domain: profile.domain.clone(),
        score: score.name().to_owned(),
        experts: choice.kept.iter().map(Vec::len).collect(),
        kept: choice.kept,
        coverage: choice.coverage,
        profile: sha256.to_owned(),
        passes: choice.steps.into_iter().map(record).collect(),
    })
}

/// How much of another profile's gate mass a mask carries, by layer: the test
/// on tokens it was not made from.
///
/// # Errors
///
/// [`MaskError`] if the profile cannot support a judgement.
pub fn coverage(profile: &Profile, kept: &[Vec<u32>]) -> Result<Vec<f64>, MaskError> {
    Ok(Stats::new(Taps::of(profile), Score::Gate)?.coverage(kept))
}

/// A mask of the same sizes drawn at random: the control that a score must
/// beat.  Equal seeds give equal masks.
pub fn random(kept: &[Vec<u32>], experts: u32, seed: u64) -> Vec<Vec<u32>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut draw = |ids: &Vec<u32>| {
        let mut drawn = random.choose_multiple(0..experts, ids.len());
        drawn.sort_unstable();
        drawn
    };
    kept.iter().map(&mut draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `gates` is one row a layer, one rank; `want` draws each layer with `#`
    /// for kept, then the steps beyond the first.
    #[track_caller]
    fn check(gates: &[&[f64]], top_k: usize, target: Target, uniform: bool, want: &str) {
        // All mass on the first rank: the other ranks only make room for top_k.
        let spread = |gate: &f64| {
            (0..top_k).map(|rank| if rank == 0 { *gate } else { 0.0 }).collect::<Vec<_>>()
        };
        let gate_mass: Vec<f64> = gates.concat().iter().flat_map(spread).collect();
        let taps = Taps {
            layers: gates.len(),
            experts: gates.first().map_or(0, |row| row.len()),
            top_k,
            counts: &vec![1; gate_mass.len()],
            gate_mass: &gate_mass,
        };
        let chosen = Stats::new(taps, Score::Gate)
            .and_then(|stats| choose(&stats, Request { target, uniform }));
        let got = match chosen {
            Err(error) => error.to_string(),
            Ok(choice) => {
                let row = |ids: &Vec<u32>| -> String {
                    (0..taps.experts as u32)
                        .map(|id| if ids.contains(&id) { '#' } else { '.' })
                        .collect()
                };
                let step =
                    |step: &Step| format!(", {} {}:+{:?}", step.pass, step.layer, step.added);
                let later = choice.steps.iter().filter(|step| step.pass != "base").map(step);
                choice.kept.iter().map(row).collect::<Vec<_>>().join(" ")
                    + &later.collect::<String>()
            }
        };
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
        check(&[&[0., 0., 9., 0.]], 2, Count(1), false, "#.#., top-k 0:+[0]");
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
        use Target::{Count, Coverage};
        let two: &[&[f64]] = &[&[1., 1.]];
        check(
            two,
            1,
            Count(3),
            false,
            "a mask of 3 experts a layer was asked for, the parent has 2",
        );
        check(two, 1, Coverage(0.0), false, "the share is 0; it must be above 0 and at most 1");
        check(
            two,
            1,
            Coverage(f64::NAN),
            false,
            "the share is NaN; it must be above 0 and at most 1",
        );
        check(two, 3, Count(1), false, "the router picks 3 experts, the profile has 2");
        check(
            &[&[0., 0.]],
            1,
            Count(1),
            false,
            "the profile has no tokens; profile a corpus first",
        );
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
    }

    #[test]
    fn scores_read_the_ranks() {
        // Expert 0 is often second, 1 rarely first, 2 in between but gated high.
        let taps = Taps {
            layers: 1,
            experts: 3,
            top_k: 2,
            counts: &[0, 7, 4, 0, 2, 4],
            gate_mass: &[0., 1., 2., 0., 2., 1.],
        };
        #[track_caller]
        fn check(taps: Taps, score: Score, want: &[f64]) {
            assert_eq!(Stats::new(taps, score).unwrap().score[0], want);
        }
        check(taps, Score::Gate, &[1., 2., 3.]);
        check(taps, Score::Frequency, &[7., 4., 6.]);
        check(taps, Score::Rank, &[7., 8., 8.]);
    }

    #[test]
    fn coverage_is_of_gate_mass_whatever_the_score() {
        let counts = [9, 1, 1, 0];
        let taps =
            Taps { layers: 1, experts: 4, top_k: 1, counts: &counts, gate_mass: &[1., 4., 5., 0.] };
        let stats = Stats::new(taps, Score::Frequency).unwrap();
        let choice = choose(&stats, Request { target: Target::Count(2), uniform: true }).unwrap();
        assert_eq!((choice.kept, choice.coverage), (vec![vec![0, 1]], vec![0.5]));
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
}
