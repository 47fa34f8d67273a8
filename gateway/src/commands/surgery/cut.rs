//! `surgery cut`: a specialist as a file of its own.

use std::fmt::Write;

use config::Bytes;
use surgery::cut::{self, Fate, Summary};

use super::{Bench, failed, read_mask};
use crate::cli::surgery::cut::{CutArgs, Runtime};
use crate::commands::terminal::{Bar, Failure, result, size};

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &CutArgs) -> Result<(), Failure> {
    let (mask, sha256) = read_mask(&args.mask)?;
    if args.mask == args.out {
        let message = format!("{} would be written over; name another file", args.mask.display());
        return Err(Failure::usage(message).at("out"));
    }
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
