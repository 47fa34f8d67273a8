//! `surgery coherence`: whether one mask will do for a domain.

use std::path::PathBuf;

use clap::Args;
use engine::Profile;
use serde_json::{Value, json};
use surgery::coherence::{Question, judge, report::Beginnings};
use surgery::corpus::Corpus;
use surgery::mask::Target;

use super::failed;
use crate::cli::Cli;
use crate::commands::terminal::{Failure, result};

#[derive(Debug, Args)]
pub struct CoherenceArgs {
    /// As `surgery profile` writes it from a corpus
    #[arg(long, value_name = "X.profile")]
    pub profile: PathBuf,
    /// Experts of each layer that a mask keeps, as 16 or 50%
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub keep: String,
    /// What was profiled, to show the first words of examples and to write a corpus for each part
    #[arg(long, value_name = "FILE")]
    pub corpus: Option<PathBuf>,
    /// Folder for coherence.md, coherence.json, items.csv and, with --corpus, the parts
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where groups are begun from is drawn with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

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
