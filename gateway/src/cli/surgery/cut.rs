//! Flags of `surgery cut`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use config::Bytes;
use surgery::cut::Ahead;

use crate::cli::ParentPath;

#[derive(Debug, Args)]
pub struct CutArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Which experts stay, as `surgery mask` or `surgery create` writes it
    #[arg(long, value_name = "X.mask.json")]
    pub mask: PathBuf,
    /// Written beside and renamed when it is whole; one that is there is replaced
    #[arg(long, value_name = "S.gguf")]
    pub out: PathBuf,
    /// What will read the file; llama.cpp takes the same number of experts in every layer only
    #[arg(long = "for", value_name = "RUNTIME", default_value = "llama.cpp")]
    pub runtime: Runtime,
    /// Blocks that predict further tokens: `drop` them, or keep in each the `first` experts, or
    /// these (as `0-15,20,31-46`); as many as a layer keeps
    ///
    /// No profile has seen their routers, and another layer's ids mean nothing to them.  What is
    /// kept costs speed at worst: the layers before check what such a block guesses.
    #[arg(long, value_name = "drop|first|IDS", default_value = "drop")]
    pub mtp: Mtp,
    /// Write parts of this size at most, as llama.cpp's gguf-split [default: one file]
    #[arg(long, value_name = "SIZE")]
    pub split: Option<Bytes>,
    /// Say what would become of each tensor, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Runtime {
    #[value(name = "llama.cpp")]
    LlamaCpp,
    #[value(name = "collegium")]
    Collegium,
}

/// `--mtp` as it was given.
#[derive(Clone, Debug)]
pub struct Mtp(pub Ahead);

/// More than any model has experts.
const MOST_EXPERTS: u32 = 1 << 16;

impl FromStr for Mtp {
    type Err = String;

    fn from_str(text: &str) -> Result<Mtp, String> {
        let ids = |text: &str| -> Option<Vec<u32>> {
            let mut ids = Vec::new();
            for range in text.split(',') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                if last >= MOST_EXPERTS {
                    return None;
                }
                ids.extend(first..=last);
            }
            Some(ids)
        };
        match text {
            "drop" => Ok(Mtp(Ahead::Drop)),
            "first" => Ok(Mtp(Ahead::First)),
            text => ids(text).map(|ids| Mtp(Ahead::Ids(ids))).ok_or_else(|| {
                format!(
                    "{text:?} is neither drop nor first, nor ids as 0-15,20 below {MOST_EXPERTS}"
                )
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_blocks_that_predict_further_tokens() {
        #[track_caller]
        fn check(text: &str, want: Option<Ahead>) {
            assert_eq!(text.parse::<Mtp>().ok().map(|mtp| mtp.0), want, "{text}");
        }
        check("drop", Some(Ahead::Drop));
        check("first", Some(Ahead::First));
        check("0-2,7", Some(Ahead::Ids(vec![0, 1, 2, 7])));
        check("5", Some(Ahead::Ids(vec![5])));
        check("last", None);
        check("1,,2", None);
        check("0-4294967295", None);
    }
}
