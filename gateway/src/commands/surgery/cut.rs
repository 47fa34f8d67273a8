//! `surgery cut`: a specialist as a file of its own.

use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use config::Bytes;
use surgery::cut::{self, Ahead, Fate, Summary};

use super::{Bench, failed, read_mask};
use crate::cli::ParentPath;
use crate::commands::terminal::{Bar, Failure, result, size};

#[derive(Debug, Args)]
pub struct CutArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    #[arg(long, value_name = "X.mask.json")]
    pub mask: PathBuf,
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
pub struct Mtp(Ahead);

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

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &CutArgs) -> Result<(), Failure> {
    let (mask, sha256) = read_mask(&args.mask)?;
    let gguf = bench.parent.model.gguf();
    let request = cut::Request {
        runtime: match args.runtime {
            Runtime::LlamaCpp => cut::Runtime::LlamaCpp,
            Runtime::Collegium => cut::Runtime::Collegium,
        },
        ahead: args.mtp.0.clone(),
        split: args.split.map(|Bytes(bytes)| bytes),
    };
    let plan = cut::plan(gguf, &mask, &sha256, &request).map_err(failed("cut", "mask"))?;
    if args.dry_run {
        return result(bench.cli, &plan.summary, |s| table(s) + &in_words(s, "would have"));
    }
    let mut bar = Bar::new(bench.cli);
    let written = cut::write(gguf, &plan, &args.out, &mut |d, t, w| bar.show(d, t, w))
        .map_err(failed("cut", "out"))?;
    drop(bar);
    result(bench.cli, &plan.summary, |s| {
        let paths = written.iter().map(|path| format!("{}\n", path.display()));
        paths.collect::<String>() + &in_words(s, "has")
    })
}

/// Every tensor: its fate, its number format, experts and bytes before and after.
fn table(summary: &Summary) -> String {
    let wide = summary.tensors.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &summary.tensors {
        let fate = match row.fate {
            Fate::Kept => "kept".to_owned(),
            Fate::Sliced => format!("{} of {}", row.experts_out, row.experts_in),
            Fate::Dropped => "dropped".to_owned(),
        };
        let (name, kind) = (&row.name, row.kind);
        let (before, after) = (size(row.bytes_in), size(row.bytes_out));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:wide$}  {kind:8} {fate:>12} {before:>12} {after:>12}");
    }
    text
}

fn in_words(s: &Summary, has: &str) -> String {
    let counts = &s.experts_by_layer;
    let least = counts.iter().filter(|n| **n > 0).min().unwrap_or(&s.experts_out);
    let kept = match *least == s.experts_out {
        true => s.experts_out.to_string(),
        false => format!("{least} to {}", s.experts_out),
    };
    let mut text = format!(
        "{has} {kept} of {} experts a layer, {} (parent: {}) in {} file{}; {} tensors sliced, {} copied, {} dropped\n",
        s.experts_in,
        size(s.bytes_out),
        size(s.bytes_in),
        s.parts.len(),
        if s.parts.len() == 1 { "" } else { "s" },
        s.tensors_sliced,
        s.tensors_copied,
        s.tensors_dropped
    );
    if *least != s.experts_out {
        text += "counts differ by layer: this file runs in Collegium, and llama.cpp refuses it\n";
    }
    if !s.renormalises {
        text += "this router does not renormalise: gates of kept experts are larger than in the parent; \
                 `surgery verify --specialist` says by how much\n";
    }
    text
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
