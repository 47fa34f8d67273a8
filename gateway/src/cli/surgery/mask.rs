//! Flags of `surgery mask`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, ValueEnum};
use engine::Masking;
use surgery::mask::{FLOOR, SWAPS, Score, USUAL_WHITELIST};

use crate::cli::ParentPath;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("target").required(true))]
pub struct MaskArgs {
    /// What the parent's router did on the domain
    #[arg(long, value_name = "X.profile")]
    pub profile: PathBuf,
    /// Experts to keep in each layer, as 16 or 50%
    #[arg(long, value_name = "N|P%", group = "target")]
    pub keep: Option<String>,
    /// The fewest experts that carry this share of the gate mass, above 0 and at most 1
    #[arg(long, value_name = "C", group = "target")]
    pub coverage: Option<f64>,
    #[arg(long, value_name = "NAME", help = short_help(), long_help = score_help())]
    pub score: Option<String>,
    /// Let layers keep different numbers: with --keep their mean is N, and they go where the score is spread widest;
    /// with --coverage each layer keeps what it needs
    #[arg(long)]
    pub per_layer: bool,
    /// What will run the specialist; llama.cpp needs one count for all layers, on CUDA best a power of two
    #[arg(long = "for", value_name = "RUNTIME", value_enum, default_value_t = Runtime::Collegium)]
    pub runtime: Runtime,
    /// Where the mask acts in a router that does not renormalise its gates, as OLMoE's; in others it makes no difference,
    /// and after-softmax is refused
    ///
    /// before-softmax: gates of kept experts grow by 1/c, c being the probability they have together; a file that `surgery
    /// cut` writes computes just that.  after-softmax: kept experts have the parent's gates, and what the others would
    /// have added is missing; it is served as a mask by this program on the processor, and cannot be cut.  `surgery
    /// verify` says for both how far they are from the parent.
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = Acts::BeforeSoftmax)]
    pub masking: Acts,
    /// Keep experts whose mean rank is below RANK (0 is the best) and whose count is above COUNT, in place of the least;
    /// off unless asked for, 2.0,10 without a value (College of Experts)
    #[arg(long, value_name = "RANK,COUNT", num_args = 0..=1, default_missing_value = USUAL_WHITELIST)]
    pub whitelist: Option<String>,
    /// A profile of reasoning, whose experts come in for the weakest of the mask (College of Experts)
    #[arg(long, value_name = "Y.profile")]
    pub reasoning: Option<PathBuf>,
    /// How many of a layer it may swap
    #[arg(long, value_name = "N", default_value_t = SWAPS, requires = "reasoning")]
    pub swaps: usize,
    /// A profile of what must stay, and the share of its gate mass; may be given several times.  The least of coverage
    /// over share, of domain and guards, is made as large as it can be
    #[arg(long, value_name = "G.profile:SHARE")]
    pub guard: Vec<GuardPath>,
    /// The domain's own share beside guards; with --coverage it is that
    #[arg(long, value_name = "C", default_value_t = FLOOR, conflicts_with = "coverage")]
    pub floor: f64,
    /// Check that the profile is of this parent and reached all its layers [default: not checked]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Go on with fewer than four tokens for each expert
    #[arg(long)]
    pub force: bool,
    /// Where the mask goes; it names the hashes of all profiles that it was made from
    #[arg(long, value_name = "X.mask.json")]
    pub out: PathBuf,
}

fn short_help() -> String {
    format!("What makes an expert matter; --help lists the scores {}", Score::usual())
}

fn score_help() -> String {
    let help = Score::help();
    format!(
        "What makes an expert matter, and the pruning it is for (task-specific or general):{help}\n\n{}",
        Score::usual()
    )
}

/// Who runs a specialist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    Collegium,
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// Where a mask acts in the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Acts {
    BeforeSoftmax,
    AfterSoftmax,
}

impl From<Acts> for Masking {
    fn from(acts: Acts) -> Masking {
        match acts {
            Acts::BeforeSoftmax => Masking::BeforeSoftmax,
            Acts::AfterSoftmax => Masking::AfterSoftmax,
        }
    }
}

/// A guard as it is given: its profile, and the share that is to stay.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardPath {
    pub path: PathBuf,
    pub share: f64,
}

impl FromStr for GuardPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no guard; give a profile and a share, as tools.profile:0.9");
        let (path, share) = text.rsplit_once(':').ok_or_else(wrong)?;
        let share: f64 = share.parse().map_err(|_| wrong())?;
        if path.is_empty() || !(share > 0.0 && share <= 1.0) {
            return Err(format!("{}; the share is above 0 and at most 1", wrong()));
        }
        Ok(Self { path: path.into(), share })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_a_path_and_a_share() {
        #[track_caller]
        fn check(text: &str, want: Option<(&str, f64)>) {
            let want = want.map(|(path, share)| GuardPath { path: path.into(), share });
            assert_eq!(text.parse().ok(), want);
        }
        check("tools.profile:0.9", Some(("tools.profile", 0.9)));
        check("C:/tools.profile:1", Some(("C:/tools.profile", 1.0)));
        for bad in ["tools.profile", ":0.9", "tools.profile:", "t:0", "t:1.1", "t:NaN", "t:-1"] {
            check(bad, None);
        }
    }
}
