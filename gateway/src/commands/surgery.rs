//! `collegium surgery`: each step by hand, or all of them.
//!
//! Thin: paths become files of the `surgery` crate's kinds, results become text
//! or JSON.  What a step checks and does is there.  A step is a file below; its
//! flags are in the file of the same name below `cli::surgery`.

mod coherence;
mod compare;
mod create;
mod cut;
mod evaluate;
mod mask;
mod profile;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use config::Loaded;
use engine::{ExpertMask, MaskFile, hash};
use surgery::Parent;
use surgery::corpus::{Corpus, Part};
use surgery::mask::{MaskError, Score};
use surgery::tokens::Reading;

use super::terminal::Failure;
use crate::cli::surgery::Surgery;
use crate::cli::{Cli, ParentPath};
use crate::start::{self, settings};

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

/// The same of a file, which is named.
fn failed_at<E: ToString>(
    code: &'static str,
    field: &'static str,
    path: &Path,
) -> impl Fn(E) -> Failure {
    move |error| {
        let (path, error) = (path.display().to_string(), error.to_string());
        let named = error.starts_with(&path);
        Failure::new(code, if named { error } else { format!("{path}: {error}") }).at(field)
    }
}

/// The score that was asked for by name.
fn asked(score: Option<&str>) -> Result<Option<Score>, Failure> {
    score.map(str::parse).transpose().map_err(|e: MaskError| Failure::usage(e).at("score"))
}

/// A mask's file and its hash.
fn read_mask(path: &Path) -> Result<(MaskFile, String), Failure> {
    let mask = MaskFile::read(path).map_err(failed_at("mask", "mask", path))?;
    Ok((mask, hash::file(path).map_err(failed_at("io", "mask", path))?))
}

/// Before any work: that a file can be written at `out`, and is none of those that it is made from.
fn writable(out: &Path, inputs: &[&Path]) -> Result<(), Failure> {
    let real = |path: &Path| path.canonicalize().ok();
    let input = inputs.iter().find(|input| real(input).is_some_and(|of| real(out) == Some(of)));
    if let Some(input) = input {
        let message = format!("{} would be written over; name another file", input.display());
        return Err(Failure::usage(message).at("out"));
    }
    if out.is_dir() {
        let message = format!("{} is a folder; name a file in it", out.display());
        return Err(Failure::usage(message).at("out"));
    }
    let beside = engine::file::beside(out);
    let wrong = failed_at("io", "out", out);
    fs::File::create(&beside).and_then(|_| fs::remove_file(&beside)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_results_go_is_asked_before_the_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("in"), "old").unwrap();
        #[track_caller]
        fn check(out: &Path, inputs: &[&Path], want: Option<&str>) {
            let got = writable(out, inputs).err().map(|failure| failure.message);
            match want {
                None => assert_eq!(got, None),
                Some(want) => assert!(got.as_ref().is_some_and(|m| m.contains(want)), "{got:?}"),
            }
        }
        check(&path("out"), &[&path("in")], None);
        // What is there stays, and nothing comes.
        check(&path("in"), &[], None);
        assert_eq!(fs::read(path("in")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        check(&path("in"), &[&path("in")], Some("in would be written over"));
        check(&path("./in"), &[&path("in")], Some("in would be written over"));
        check(folder.path(), &[], Some("is a folder"));
        check(&path("none/out"), &[], Some("none/out: "));
    }
}
