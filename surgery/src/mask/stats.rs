//! One domain's router statistics, read from a profile and checked.

use engine::Profile;

use super::error::MaskError;
use super::score::{Cell, Needs, Score};
use crate::profile::TOKENS_PER_EXPERT;

/// One domain's router statistics, checked.
#[derive(Clone, Debug)]
pub struct Stats {
    /// `[layers][experts]`, by the chosen score; compare only within a layer.
    pub(super) score: Vec<Vec<f64>>,
    /// `[layers][experts]`, sum of the gate applied.  Coverage is of this,
    /// whatever the score.
    pub(super) mass: Vec<Vec<f64>>,
    /// `[layers][experts]`, tokens that chose the expert.
    pub(super) count: Vec<Vec<f64>>,
    /// `[layers][experts]`, mean of the ranks it was chosen at, 0 the best;
    /// `top_k` for one that never was.
    pub(super) rank: Vec<Vec<f64>>,
    pub(super) top_k: usize,
    /// The profile has no gates, and `mass` is of selections.
    pub(super) of_selections: bool,
}

/// The taps of a profile as they lie in the file.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    pub layers: usize,
    pub experts: usize,
    pub top_k: usize,
    /// `[layers, experts, top_k]`, the rank fastest.
    pub counts: &'a [i64],
    /// `[layers, experts, top_k]`, the same.
    pub gate_mass: &'a [f64],
    /// `[layers, experts]`, sum of the norm of the output.
    pub output_norm: &'a [f64],
    /// `[layers, experts]`, sum of gate times norm.
    pub gated_norm: &'a [f64],
}

impl<'a> Taps<'a> {
    /// Of all tokens, prompt and answer.
    pub fn of(profile: &'a Profile) -> Taps<'a> {
        let Profile { layers, experts, top_k, ref all, .. } = *profile;
        let (counts, gate_mass) = (&all.counts[..], &all.gate_mass[..]);
        let (output_norm, gated_norm) = (&all.output_norm[..], &all.gated_norm[..]);
        Taps { layers, experts, top_k, counts, gate_mass, output_norm, gated_norm }
    }

    /// # Errors
    ///
    /// [`MaskError`] unless every list has the length and every number the range it claims.
    fn check(&self) -> Result<(), MaskError> {
        let Taps { layers, experts, top_k, .. } = *self;
        let cells = layers.saturating_mul(experts);
        let ranked = cells.saturating_mul(top_k);
        for (what, got, want) in [
            ("counts", self.counts.len(), ranked),
            ("gate_mass", self.gate_mass.len(), ranked),
            ("output_norm", self.output_norm.len(), cells),
            ("gated_norm", self.gated_norm.len(), cells),
        ] {
            if got != want {
                return Err(MaskError::Length { what, got, want });
            }
        }
        if experts < top_k || top_k == 0 {
            return Err(MaskError::TooFew { top_k, experts });
        }
        let wrong = |what, at: usize, value: f64| {
            let (layer, expert) = (at / experts, at % experts);
            Err(MaskError::Value { layer, expert, what, value })
        };
        if let Some(at) = self.counts.iter().position(|count| *count < 0) {
            return wrong("count", at / top_k, self.counts[at] as f64);
        }
        for (what, values, each) in [
            ("gate mass", self.gate_mass, top_k),
            ("output norm", self.output_norm, 1),
            ("gated norm", self.gated_norm, 1),
        ] {
            if let Some(at) = values.iter().position(|v| !v.is_finite() || *v < 0.0) {
                return wrong(what, at / each, values[at]);
            }
        }
        Ok(())
    }
}

impl Stats {
    /// Reads the taps by `score`.
    ///
    /// # Errors
    ///
    /// [`MaskError`] if they cannot support a choice; never a partial result.
    pub fn new(taps: Taps, score: Score) -> Result<Stats, MaskError> {
        taps.check()?;
        let Taps { experts, top_k, .. } = taps;
        if taps.counts.iter().all(|count| *count == 0) {
            return Err(MaskError::Empty);
        }
        let of_selections = taps.gate_mass.iter().all(|gate| *gate == 0.0);
        if of_selections && score.about().needs == Needs::Gates {
            return Err(MaskError::NoGates { score: score.name() });
        }
        if score.about().needs == Needs::Norms {
            norms(&taps, score)?;
        }
        let mut stats = Stats {
            score: Vec::with_capacity(taps.layers),
            mass: Vec::with_capacity(taps.layers),
            count: Vec::with_capacity(taps.layers),
            rank: Vec::with_capacity(taps.layers),
            top_k,
            of_selections,
        };
        for layer in 0..taps.layers {
            let mut rows: [Vec<f64>; 4] = Default::default();
            for expert in 0..experts {
                let at = layer * experts + expert;
                let ranks = at * top_k..(at + 1) * top_k;
                let counts = &taps.counts[ranks.clone()];
                let gates = &taps.gate_mass[ranks];
                let (norm, gated) = (taps.output_norm[at], taps.gated_norm[at]);
                let count: f64 = counts.iter().map(|count| *count as f64).sum();
                let ranked = |(rank, count): (usize, &i64)| rank as f64 * *count as f64;
                let ranked: f64 = counts.iter().enumerate().map(ranked).sum();
                let mass = if of_selections { count } else { gates.iter().sum() };
                let score = score.weigh(&Cell { counts, gates, norm, gated });
                // Sums of finite numbers can still leave the range.
                for (what, value) in [("score", score), ("gate mass", mass)] {
                    if !value.is_finite() {
                        return Err(MaskError::Value { layer, expert, what, value });
                    }
                }
                let rank = if count > 0.0 { ranked / count } else { top_k as f64 };
                for (row, value) in rows.iter_mut().zip([score, mass, count, rank]) {
                    row.push(value);
                }
            }
            let [score, mass, count, rank] = rows;
            stats.score.push(score);
            stats.mass.push(mass);
            stats.count.push(count);
            stats.rank.push(rank);
        }
        Ok(stats)
    }

    pub(super) fn layers(&self) -> usize {
        self.mass.len()
    }

    /// Of a layer that has them.
    pub(super) fn experts(&self) -> usize {
        self.mass.first().map_or(0, Vec::len)
    }

    /// A layer nothing was routed in: a block without experts.
    pub(super) fn dense(&self, layer: usize) -> bool {
        self.mass[layer].iter().all(|mass| *mass == 0.0)
    }

    /// The layers with experts.
    pub(super) fn routed(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.layers()).filter(|layer| !self.dense(*layer))
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

    /// How much each expert matters in each layer, `[layers][experts]`, by the score it was read with.
    pub fn utility(&self) -> &[Vec<f64>] {
        &self.score
    }
}

/// A row that sums to 1; one of zeros stays.
pub(super) fn unit(row: &[f64]) -> Vec<f64> {
    let sum: f64 = row.iter().sum();
    if sum > 0.0 { row.iter().map(|value| value / sum).collect() } else { row.to_vec() }
}

/// # Errors
///
/// [`MaskError`] if an expert that was chosen has no norm: it did not run.
fn norms(taps: &Taps, score: Score) -> Result<(), MaskError> {
    let (experts, top_k, score_name) = (taps.experts, taps.top_k, score.name());
    let gated = score.gated();
    // A gate can round to nothing, the norm of an output that was computed does not.
    let has = |at: usize| taps.output_norm[at] > 0.0 || (gated && taps.gated_norm[at] > 0.0);
    if !(0..taps.output_norm.len()).any(has) {
        return Err(MaskError::NoNorms { score: score_name });
    }
    for layer in 0..taps.layers {
        let ranks = |at: usize| &taps.counts[at * top_k..(at + 1) * top_k];
        let chosen =
            (layer * experts..(layer + 1) * experts).filter(|at| ranks(*at).iter().any(|n| *n > 0));
        let (mut all, mut missing) = (0, 0);
        for at in chosen {
            all += 1;
            missing += usize::from(!has(at));
        }
        if missing > 0 {
            return Err(MaskError::SomeNorms { score: score_name, layer, missing, chosen: all });
        }
    }
    Ok(())
}

/// Whether a profile has tokens enough to choose from.
///
/// # Errors
///
/// [`MaskError::FewTokens`] with fewer than four for each expert.
pub fn enough(profile: &Profile) -> Result<(), MaskError> {
    let (tokens, experts) = (profile.tokens, profile.experts);
    let need = TOKENS_PER_EXPERT.saturating_mul(experts as u64);
    if tokens < need { Err(MaskError::FewTokens { tokens, experts, need }) } else { Ok(()) }
}

/// Whether every layer that has experts was reached; `routed` is of the parent, see [`engine::Shape::routed`].
///
/// # Errors
///
/// [`MaskError::Unreached`] with the first that was not.
pub fn reached(profile: &Profile, routed: &[bool]) -> Result<(), MaskError> {
    let layer = profile.experts.saturating_mul(profile.top_k).max(1);
    let mut rows = profile.all.counts.chunks(layer);
    let missed = routed.iter().position(|routed| {
        let row = rows.next().unwrap_or_default();
        *routed && row.iter().all(|count| *count == 0)
    });
    missed.map_or(Ok(()), |layer| Err(MaskError::Unreached { layer }))
}
