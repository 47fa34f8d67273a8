//! `collegium surgery`: each step by hand, or all of them.
//!
//! Thin: paths become files of the `surgery` crate's kinds, results become text
//! or JSON.  What a step checks and does is there.  A step is a file below: its
//! flags, and what runs it.

mod coherence;
mod compare;
mod create;
mod cut;
mod evaluate;
mod mask;
mod profile;
mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use config::Loaded;
use engine::{ExpertMask, MaskFile, hash};
use surgery::Parent;
use surgery::corpus::{Corpus, Part};
use surgery::tokens::Reading;

use super::terminal::Failure;
use crate::cli::{Cli, ParentPath};
use crate::start::{self, settings};

#[derive(Debug, Subcommand)]
pub enum Surgery {
    /// Measure what the parent's router does on a corpus
    #[command(after_help = "Examples:\n  \
        collegium surgery profile --corpus law.jsonl --domain law --out law.profile\n  \
        collegium surgery profile --corpus questions.jsonl --answers parent --domain law --out law.profile\n  \
        collegium surgery profile --imatrix imatrix.gguf --domain law --out law.profile\n  \
        collegium surgery profile --traffic --domain law --out law.profile\n  \
        collegium surgery profile --merge a.profile b.profile --domain law --out law.profile\n\n\
        An interrupted run leaves X.profile.checkpoint, and the same command goes on from there.")]
    Profile(profile::ProfileArgs),
    /// Ask whether one mask can cover a domain, or which parts it falls into
    #[command(after_help = "Example:\n  \
        collegium surgery coherence --profile law.profile --corpus law.jsonl --out law-parts")]
    Coherence(coherence::CoherenceArgs),
    /// Choose the experts that stay
    #[command(after_help = "Example:\n  \
        collegium surgery mask --profile law.profile --keep 50% --out law.mask.json")]
    Mask(mask::MaskArgs),
    /// Write a specialist as a GGUF file
    #[command(after_help = "Example:\n  \
        collegium surgery cut --mask law.mask.json --out law.gguf")]
    Cut(cut::CutArgs),
    /// Prove that a specialist is its masked parent
    #[command(after_help = "Examples:\n  \
        collegium surgery verify --mask law.mask.json\n  \
        collegium surgery verify --specialist law.gguf")]
    Verify(verify::VerifyArgs),
    /// What specialists share, what a pool of them costs, and whether overlap foretells transfer
    #[command(after_help = "Examples:\n  \
        collegium surgery compare law.mask.json math.mask.json law.profile math.profile\n  \
        collegium surgery compare --table rows.csv --without law")]
    Compare(compare::CompareArgs),
    /// Measure what specialists cost beside the parent and controls: text, questions, near and far
    #[command(after_help = "Examples:\n  \
        collegium surgery evaluate --mask law.mask.json --mask math.mask.json --corpus held-out.jsonl --out report\n  \
        collegium surgery evaluate --mask law.mask.json --questions mmlu-pro.jsonl --items 100")]
    Evaluate(evaluate::EvaluateArgs),
    /// Profile, mask, verify, evaluate and register in one go
    #[command(after_help = "Example:\n  \
        collegium surgery create --domain law --corpus law.jsonl")]
    Create(create::CreateArgs),
}

/// Runs one step.
pub fn run(cli: &Cli, step: &Surgery) -> Result<(), Failure> {
    let bench = |parent: &Option<ParentPath>| Bench::new(cli, parent.as_ref());
    match step {
        Surgery::Profile(args) => profile::run(cli, args),
        Surgery::Coherence(args) => coherence::run(cli, args),
        Surgery::Mask(args) => mask::run(cli, args),
        Surgery::Compare(args) => compare::run(cli, args),
        Surgery::Cut(args) => cut::run(&bench(&args.parent)?, args),
        Surgery::Verify(args) => verify::run(&bench(&args.parent)?, args),
        Surgery::Evaluate(args) => evaluate::run(&bench(&args.parent)?, args),
        Surgery::Create(args) => create::run(&bench(&args.parent)?, args),
    }
}

/// What most steps work with.
struct Bench<'a> {
    cli: &'a Cli,
    loaded: Loaded,
    home: PathBuf,
    parent: Parent,
}

impl<'a> Bench<'a> {
    fn new(cli: &'a Cli, parent: Option<&ParentPath>) -> Result<Self, Failure> {
        let (loaded, home) = settings(cli)?;
        let path = parent.map(|p| p.0.as_path()).or(loaded.config.parent.path.as_deref());
        let parent = Parent::new(start::model(path, &home)?);
        Ok(Self { cli, loaded, home, parent })
    }

    /// All experts stay in memory while a corpus is read; without that each pass
    /// would map them anew.  The system still takes back what it must.
    fn warm(&self) {
        self.parent.bank.warm(&ExpertMask::full(self.parent.model.shape()));
    }

    /// The id of the domain that a label names.
    fn domain(&self, label: &str) -> Result<&str, Failure> {
        let domains = &self.loaded.domains;
        domains.canonical(label).ok_or_else(|| {
            let near = domains.nearest(label).map(|n| format!("; did you mean {n}?"));
            let message = format!("{label:?} names no domain{}", near.unwrap_or_default());
            Failure::usage(message).at("domain")
        })
    }

    fn reading<'r>(
        &'r self,
        corpus: &'r Corpus,
        domain: Option<&'r str>,
        tokens: Option<u64>,
    ) -> Reading<'r> {
        Reading { corpus, domains: &self.loaded.domains, domain, part: Part::All, tokens }
    }
}

/// An error of a step, with the flag it is most likely about.
fn failed<E: ToString>(code: &'static str, field: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(code, error).at(field)
}

/// A mask's file and its hash.
fn read_mask(path: &Path) -> Result<(MaskFile, String), Failure> {
    let mask = MaskFile::read(path).map_err(failed("mask", "mask"))?;
    Ok((mask, hash::file(path).map_err(failed("io", "mask"))?))
}
