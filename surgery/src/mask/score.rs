//! What makes an expert matter.
//!
//! One list: the names that `--score` takes, its help, the documentation of
//! [`Score`] and the tests all read it.  To add a score: a row in the list and
//! its arm in [`Score::weigh`].

use std::str::FromStr;

use engine::{Known, Profile};

use super::error::MaskError;
use super::stats::{Stats, Taps};

/// Best first, of those that ask for less and less of a profile; as measured on
/// held-out text of the nano parent's thirteen domains (the crate's README).
const BY_MERIT: [Score; 3] = [Score::GateNorm, Score::Gate, Score::Frequency];

/// What [`Score::best`] is of a profile that a parent was run for, whole.
pub const DEFAULT: Score = BY_MERIT[0];

/// What a score must find in a profile beside counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Counts,
    /// Counts by rank.
    Ranks,
    Gates,
    /// Norms of outputs, which exist only for experts that ran.
    Norms,
}

/// Everything that is known of one score.
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub name: &'static str,
    pub formula: &'static str,
    /// The kind of pruning it is for.
    pub suits: &'static str,
    pub source: &'static str,
    pub needs: Needs,
}

macro_rules! scores {
    ($($variant:ident: $name:literal, $needs:ident, $suits:literal, $formula:literal, $source:literal;)*) => {
        /// What makes an expert matter, of one layer, summed over the tokens
        /// that chose it.  No unit; compare only within a layer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Score {
            $(
                #[doc = concat!("`", $name, "`: ", $formula, "; ", $suits, ".  Source: ", $source, ".")]
                $variant,
            )*
        }

        impl Score {
            /// All of them, in the order of the help.
            pub const ALL: &[Score] = &[$(Score::$variant),*];

            pub const fn about(self) -> About {
                match self {
                    $(Score::$variant => About {
                        name: $name,
                        formula: $formula,
                        suits: $suits,
                        source: $source,
                        needs: Needs::$needs,
                    },)*
                }
            }
        }
    };
}

scores! {
    Frequency: "frequency", Counts, "task-specific, weak",
        "tokens that chose the expert", "the baseline of REAP, arXiv 2510.13999";
    Rank: "rank", Ranks, "task-specific",
        "tokens, of R choices the first counting R and the last 1, over R(R+1)/2",
        "College of Experts, first pipeline";
    Gate: "gate", Gates, "task-specific",
        "sum of the gate", "College of Experts; soft frequency in REAP's code";
    NormMean: "norm-mean", Norms, "general",
        "mean norm of the output over the tokens that chose it", "MAN, arXiv 2606.15716";
    NormSum: "norm-sum", Norms, "task-specific",
        "sum of the norm of the output", "EAN in REAP's code, arXiv 2510.13999";
    Reap: "reap", Norms, "general",
        "mean of gate times norm over the tokens that chose it", "REAP, arXiv 2510.13999";
    GateNorm: "gate-norm", Norms, "task-specific",
        "sum of gate times norm", "weighted EAN in REAP's code; arXiv 2606.15716 on when to sum";
}

/// What the profile holds of one expert.
pub(super) struct Cell<'a> {
    /// Tokens by rank, best first.
    pub counts: &'a [i64],
    /// Gate mass by rank.
    pub gates: &'a [f64],
    /// Sum over its tokens.
    pub norm: f64,
    /// The same, times the gate.
    pub gated: f64,
}

impl Score {
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// Every name, as a sentence lists them.
    pub fn names() -> String {
        let (last, rest) = Score::ALL.split_last().unzip();
        let rest: Vec<&str> = rest.unwrap_or_default().iter().map(|s| s.name()).collect();
        format!("{} or {}", rest.join(", "), last.map_or("", |s| s.name()))
    }

    /// One line a score: what it is, what it is for, who it is from.
    pub fn help() -> String {
        let line = |score: &Score| {
            let About { name, formula, suits, source, needs } = score.about();
            let norms = if needs == Needs::Norms { "; needs norms" } else { "" };
            format!("\n  {name:<10} {formula}: {suits}{norms} ({source})")
        };
        Score::ALL.iter().map(line).collect()
    }

    /// [`Score::best`] in words, for the help.
    pub fn usual() -> String {
        let [best, rest @ ..] = BY_MERIT.map(Score::name);
        format!(
            "[default: {best}; of a profile without the numbers for it {}]",
            rest.join(", else ")
        )
    }

    /// The best score that all the profiles have the numbers for: traffic of a specialist has no norms of the experts
    /// it lacks, counts alone have no gates.
    pub fn best<'a>(profiles: impl IntoIterator<Item = &'a Profile> + Clone) -> Score {
        let fits = |score: Score, profile: &Profile| {
            score.check(profile.known).is_ok() && Stats::new(Taps::of(profile), score).is_ok()
        };
        let all = |score: &Score| profiles.clone().into_iter().all(|profile| fits(*score, profile));
        BY_MERIT.into_iter().find(all).unwrap_or(Score::Frequency)
    }

    /// That the profile's numbers are what the score is made of, and do not only stand in for it.
    pub(super) fn check(self, known: Known) -> Result<(), MaskError> {
        let (score, needs) = (self.name(), self.about().needs);
        match needs {
            Needs::Ranks if !known.ranks => Err(MaskError::NoRanks { score }),
            Needs::Gates if !known.gates => Err(MaskError::NoGates { score }),
            Needs::Norms if known.norms || (known.stand_in && !self.gated()) => Ok(()),
            Needs::Norms if known.stand_in => Err(MaskError::StandIn { score }),
            Needs::Norms => Err(MaskError::NoNorms { score }),
            _ => Ok(()),
        }
    }

    /// Each token's norm is weighed with its gate.
    pub(super) const fn gated(self) -> bool {
        matches!(self, Score::Reap | Score::GateNorm)
    }

    /// One expert's weight.
    pub(super) fn weigh(self, cell: &Cell) -> f64 {
        let tokens: f64 = cell.counts.iter().map(|count| *count as f64).sum();
        let mean = |sum: f64| if tokens > 0.0 { sum / tokens } else { 0.0 };
        match self {
            Score::Frequency => tokens,
            Score::Rank => {
                let ranks = cell.counts.len();
                let weighted = |(rank, count): (usize, &i64)| (ranks - rank) as f64 * *count as f64;
                let all = (ranks * (ranks + 1) / 2) as f64;
                cell.counts.iter().enumerate().map(weighted).sum::<f64>() / all
            }
            Score::Gate => cell.gates.iter().sum(),
            Score::NormMean => mean(cell.norm),
            Score::NormSum => cell.norm,
            Score::Reap => mean(cell.gated),
            Score::GateNorm => cell.gated,
        }
    }
}

impl FromStr for Score {
    type Err = MaskError;

    fn from_str(name: &str) -> Result<Score, MaskError> {
        let found = Score::ALL.iter().find(|score| score.name() == name);
        found.copied().ok_or_else(|| MaskError::Score { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_needs_what_it_is_made_of() {
        #[track_caller]
        fn check(known: Known, refused: &[Score]) {
            for score in Score::ALL {
                assert_eq!(score.check(known).is_err(), refused.contains(score), "{score:?}");
            }
        }
        use Score::*;
        let all = Known::default();
        check(all, &[]);
        check(Known { ranks: false, ..all }, &[Rank]);
        check(Known { norms: false, ..all }, &[NormMean, NormSum, Reap, GateNorm]);
        let counted = Known { ranks: false, gates: false, norms: false, ..all };
        check(counted, &[Rank, Gate, NormMean, NormSum, Reap, GateNorm]);
        // An imatrix: what stands in for norms does for scores that have no gate in them.
        check(Known { stand_in: true, ..counted }, &[Rank, Gate, Reap, GateNorm]);
    }
}
