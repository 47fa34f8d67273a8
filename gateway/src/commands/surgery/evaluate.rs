//! `surgery evaluate`: what masks cost, beside the parent and controls.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use engine::{Profile, hash};
use serde::Serialize;
use surgery::corpus::Corpus;
use surgery::evaluate::document::{By, Source};
use surgery::evaluate::questions::{Asking, sets};
use surgery::evaluate::{Column, Controls, Found, Given, Parts, Study, Table, columns};
use surgery::report;

use super::{Bench, failed, read_mask};
use crate::cli::ParentPath;
use crate::commands::terminal::{Bar, Failure, result};

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// May be given several times; masks of several sizes make the plot of size against quality
    #[arg(long, value_name = "X.mask.json", required = true)]
    pub mask: Vec<PathBuf>,
    /// Held-out text, labelled by domain or one domain a file: perplexity, top-1 agreement and KL from the parent.  May
    /// be given several times
    #[arg(long, value_name = "FILE", required_unless_present = "questions")]
    pub corpus: Vec<PathBuf>,
    /// Multiple-choice questions, labelled by domain: accuracy in the manner of MMLU-Pro (arXiv 2406.01574), thinking
    /// off, one more try after a loop, McNemar's test against the parent
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// How a choice is read: from the answer that is written, or, for models too small to be asked, as the option whose
    /// text has the fewest nats a token
    #[arg(long, value_enum, value_name = "WAY", default_value_t = Way::Answer)]
    pub by: Way,
    /// Temperature of answers; what else they are sampled with is their domain's
    #[arg(long, value_name = "T", default_value_t = 0.6)]
    pub temperature: f32,
    /// Tokens of an answer at most; one that has not ended by then is a loop
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_tokens: usize,
    /// Questions per domain at most, spread over the file [default: all]
    #[arg(long, value_name = "N")]
    pub items: Option<usize>,
    /// Profiles of the masks' domains: with one, its mask has a control by plain frequency, near and far has the cosine
    /// of gate masses, and the page shows use.  May be given several times
    #[arg(long, value_name = "X.profile")]
    pub profile: Vec<PathBuf>,
    /// Random masks to compare with, for each size of mask
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub random: u32,
    /// Tokens of text per domain at most, spread over the file [default: all]
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    /// Of random masks, answers and intervals
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for evaluation.json, evaluation.md, evaluation.html and table.json; what is measured is kept in its
    /// parts/, so that an interrupted run goes on
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// As `--by` says it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Way {
    Answer,
    Likelihood,
}

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &EvaluateArgs) -> Result<(), Failure> {
    let given: Vec<Given> = args.mask.iter().map(|path| mask(path)).collect::<Result<_, _>>()?;
    let profiles: Vec<(Profile, String)> =
        args.profile.iter().map(|path| profile(path)).collect::<Result<_, _>>()?;
    let mut files = Vec::new();
    let mut texts: Vec<Column> = Vec::new();
    for path in &args.corpus {
        let corpus = Corpus::at(path);
        let new = columns(&bench.parent.model, bench.reading(&corpus, None, args.tokens))
            .map_err(failed("corpus", "corpus"))?;
        if let Some(twice) = new.iter().find(|c| texts.iter().any(|own| own.name == c.name)) {
            let message = format!("{:?} is in two files; put a domain's text into one", twice.name);
            return Err(Failure::usage(message).at("corpus"));
        }
        texts.extend(new);
        files.push(source("corpus", path)?);
    }
    let mut asked = Vec::new();
    if let Some(path) = &args.questions {
        asked = sets(&Corpus::at(path), &bench.loaded.domains, args.items)
            .map_err(failed("corpus", "questions"))?;
        if asked.is_empty() {
            let message = format!("{}: no question with options", path.display());
            return Err(Failure::new("corpus", message).at("questions"));
        }
        files.push(source("questions", path)?);
    }
    for path in &args.profile {
        files.push(source("profile", path)?);
    }
    let parts = match &args.out {
        Some(folder) => Parts::at(&folder.join("parts")).map_err(failed("io", "out"))?,
        None => Parts::none(),
    };
    let controls = Controls { draws: args.random, seed: args.seed };
    let of: Vec<Profile> = profiles.iter().map(|(profile, _)| profile.clone()).collect();
    let study = Study::new(&bench.parent, &given, &of, controls, &parts)
        .map_err(failed("evaluate", "mask"))?;
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let mut progress = |done, total, what: &str| bar.show(done, total, what);
    let mut found = Found::default();
    if !texts.is_empty() {
        let text = study.text(&texts, &mut progress).map_err(failed("evaluate", "corpus"))?;
        found.text = Some(text);
    }
    if !asked.is_empty() {
        let by = match args.by {
            Way::Answer => By::Answer,
            Way::Likelihood => By::Likelihood,
        };
        let (temperature, max_tokens) = (args.temperature, args.max_tokens.max(1));
        let asking = Asking { by, temperature, max_tokens, seed: args.seed };
        let questions = study.questions(&asked, asking, &mut progress);
        found.questions = Some(questions.map_err(failed("evaluate", "questions"))?);
    }
    drop(bar);
    let table = found
        .text
        .as_ref()
        .map(|text| Table::new(&study.subjects, text, bench.parent.model.parent()));
    let command: Vec<String> = std::env::args().collect();
    let evaluation = study.document(found, &profiles, files, command.join(" "));
    if let Some(folder) = &args.out {
        let page = report::html(&evaluation).map_err(failed("internal", "out"))?;
        let mut all = vec![
            ("evaluation.json", json(&evaluation)?),
            ("evaluation.md", report::markdown(&evaluation)),
            ("evaluation.html", page),
        ];
        if let Some(table) = &table {
            all.push(("table.json", json(table)?));
        }
        for (name, text) in all {
            engine::file::replace(&folder.join(name), text.as_bytes())
                .map_err(failed("io", "out"))?;
        }
    }
    result(bench.cli, &evaluation, report::markdown)
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value).map_err(failed("internal", "out"))? + "\n")
}

fn mask(path: &Path) -> Result<Given, Failure> {
    let (file, sha256) = read_mask(path)?;
    Ok(Given { file, sha256 })
}

fn profile(path: &Path) -> Result<(Profile, String), Failure> {
    let profile = Profile::read(path).map_err(failed("profile", "profile"))?;
    Ok((profile, hash::file(path).map_err(failed("io", "profile"))?))
}

fn source(role: &'static str, path: &Path) -> Result<Source, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = hash::file(path).map_err(failed("io", role))?;
    Ok(Source { role: role.to_owned(), name, sha256 })
}
