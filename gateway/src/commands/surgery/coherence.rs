//! `surgery coherence`: whether one mask will do for a domain.

use engine::Profile;
use serde_json::{Value, json};
use surgery::coherence::{Question, judge, report::Beginnings};
use surgery::corpus::Corpus;
use surgery::mask::Target;

use super::failed;
use crate::cli::Cli;
use crate::cli::surgery::coherence::CoherenceArgs;
use crate::commands::terminal::{Failure, result};

/// Runs the step.
pub fn run(cli: &Cli, args: &CoherenceArgs) -> Result<(), Failure> {
    let target = Target::keep(&args.keep).map_err(|e| Failure::usage(e).at("keep"))?;
    let profile = Profile::read(&args.profile).map_err(failed("profile", "profile"))?;
    let keep = match target {
        Target::Count(count) => count as usize,
        Target::Share(share) => (share * profile.experts as f64).round() as usize,
        _ => return Err(Failure::usage("a number or a share is needed").at("keep")),
    };
    let question = Question { keep, seed: args.seed };
    let report = judge(&profile, question).map_err(failed("coherence", "profile"))?;
    let corpus = args.corpus.as_deref().map(Corpus::at);
    let (source, mut files, mut beginnings) = (&profile.source, Vec::new(), Beginnings::new());
    if let Some(corpus) = &corpus {
        beginnings = report.beginnings(corpus, source).map_err(failed("corpus", "corpus"))?;
    }
    if let Some(folder) = &args.out {
        files = report.write(folder, source, corpus.as_ref()).map_err(failed("io", "out"))?;
    }
    let mut done = serde_json::to_value(&report).map_err(failed("internal", "profile"))?;
    if let Value::Object(done) = &mut done {
        done.insert("headline".to_owned(), json!(report.headline()));
        done.insert("files".to_owned(), json!(files));
    }
    result(cli, &done, |_| {
        let mut text = report.to_markdown(&beginnings);
        for file in &files {
            text += &format!("\n{} is written", file.display());
        }
        text + "\n"
    })
}
