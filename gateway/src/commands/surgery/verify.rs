//! `surgery verify`: that a specialist is its masked parent.

use std::fmt::Write;

use engine::ExpertMask;
use surgery::corpus::Corpus;
use surgery::tokens::collect;
use surgery::{Parent, verify};

use super::{Bench, failed, read_mask};
use crate::cli::surgery::verify::VerifyArgs;
use crate::commands::terminal::{Bar, Failure, result};
use crate::start;

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &VerifyArgs) -> Result<(), Failure> {
    /// Tokens of a corpus that are compared on; every one is run twice.
    const PROBED: u64 = 4096;
    let model = &bench.parent.model;
    let corpus = args.corpus.as_deref().map(Corpus::at);
    let windows = match &corpus {
        Some(corpus) => collect(model, bench.reading(corpus, None, Some(PROBED)))
            .map_err(failed("corpus", "corpus"))?,
        None => Vec::new(),
    };
    let probes = verify::probes(model.shape(), &windows);
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let mut progress = |d: u64, t: u64, w: &str| bar.show(d, t, w);
    let report = match (&args.mask, &args.specialist) {
        (Some(mask), _) => {
            let (mask, sha256) = read_mask(mask)?;
            verify::mask(&bench.parent, &mask, &sha256, &probes, &mut progress)
                .map_err(failed("verify", "mask"))?
        }
        (None, Some(file)) => {
            let specialist = Parent::new(start::model(Some(file), &bench.home)?);
            specialist.bank.warm(&ExpertMask::full(specialist.model.shape()));
            verify::specialist(&bench.parent, &specialist, &probes, &mut progress)
                .map_err(failed("verify", "specialist"))?
        }
        (None, None) => return Err(Failure::usage("--mask or --specialist is needed")),
    };
    drop(bar);
    result(bench.cli, &report, |report| {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for check in &report.checks {
            let word = if check.passed { "passed" } else { "FAILED" };
            let _ = writeln!(text, "{word}  {}: {}", check.name, check.detail);
        }
        text
    })?;
    match report.failure() {
        None => Ok(()),
        Some(check) => Err(Failure::new("not_equal", format!("{}: {}", check.name, check.detail))),
    }
}
