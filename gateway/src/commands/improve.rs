//! `collegium supervisor improve`: trains again with what users corrected, and keeps it only if it is better.
//!
//! In: the data of the training before, and the corrections in `HOME/feedback`.  Out: weights in `HOME/supervisor`, which
//! `serve` and `route` use from their next start on, beside those that were there before, for `--rollback`.
//!
//! Both are measured on questions and corrections that neither has seen; [`verdict`] decides, and touches nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use router_model::train::{self, Source, data};
use router_model::{Supervisor, evaluate};
use serde::Serialize;

use super::terminal::{Bar, Failure, result};
use crate::cli::{Cli, ImproveArgs};
use crate::feedback::{CORRECTIONS, FEEDBACK};
use crate::start::{self, StartError, WEIGHTS, settings};

/// The weights before the last improvement, beside them.
const LAST: &str = "lexical.last.bin";

/// Fewer corrections that were held out say nothing: with five, one right answer is a fifth.
const LEAST: usize = 5;

/// Accuracy on questions that may be lost for a gain on corrections: within what another seed would change.
const SLACK: f64 = 0.005;

/// How one set of weights fares on what it was not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Scores {
    questions: usize,
    /// Accuracy on them.
    on_questions: f64,
    corrections: usize,
    on_corrections: f64,
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Outcome {
    before: Scores,
    after: Scores,
    replaced: bool,
    why: &'static str,
    weights: PathBuf,
}

/// Whether weights are better than those in use, and why; equal ones are not.
fn verdict(before: Scores, after: Scores) -> (bool, &'static str) {
    if before.corrections < LEAST {
        return (false, "too few corrections could be held out to tell");
    }
    if after.on_questions < before.on_questions - SLACK {
        return (false, "it has lost on other questions");
    }
    if after.on_corrections <= before.on_corrections {
        return (false, "it is no better on corrections that were held out");
    }
    (true, "it is better on corrections that were held out, and no worse on other questions")
}

/// Improves, or takes the last improvement back.
pub fn run(cli: &Cli, args: &ImproveArgs) -> Result<(), Failure> {
    let (loaded, home) = settings(cli)?;
    let folder = home.join(start::SUPERVISOR);
    let io = |e: io::Error| Failure::new("io", format!("{}: {e}", folder.display())).at("home");
    if args.rollback {
        let back = rollback(&folder).map_err(io)?;
        return match back {
            Some(what) => result(cli, &what, |what| format!("{what}\n")),
            None => Err(Failure::new(
                "nothing_to_roll_back",
                format!("{}: the shipped weights are in use already", folder.display()),
            )),
        };
    }
    let file = home.join(FEEDBACK).join(format!("{CORRECTIONS}.jsonl"));
    if !file.exists() {
        let why = "no corrections yet; with traffic.record on, POST /v1/feedback keeps them here";
        return Err(Failure::new("no_corrections", format!("{}: {why}", file.display())));
    }
    let corrections = Source::from(file);
    let outcome = improve(cli, args, &corrections, &loaded, &home)?;
    result(cli, &outcome, |o| {
        let show = |name: &str, s: &Scores| {
            format!(
                "{name}: {:.3} of {} held-out questions, {:.3} of {} held-out corrections\n",
                s.on_questions, s.questions, s.on_corrections, s.corrections
            )
        };
        let done = if o.replaced { "replaced" } else { "kept as it is" };
        format!(
            "{}{}{done}: {} ({})\n",
            show("before", &o.before),
            show("after ", &o.after),
            o.why,
            o.weights.display()
        )
    })
}

fn improve(
    cli: &Cli,
    args: &ImproveArgs,
    corrections: &Source,
    loaded: &config::Loaded,
    home: &Path,
) -> Result<Outcome, Failure> {
    let (domains, settings) = (&loaded.domains, &loaded.config.supervisor);
    let defaults = train::Options::default();
    let mut all = args.data.clone();
    all.push(corrections.clone());
    let options = train::Options {
        data: all,
        seed: args.seed.unwrap_or(defaults.seed),
        steps: args.steps.unwrap_or(defaults.steps),
        encoder: settings.encoder.clone(),
        ..defaults
    };
    let mut bar = Bar::new(cli);
    let report = train::train(&options, domains, &mut |d, t, what| bar.show(d, t, what))
        .map_err(|e| Failure::new("train", e))?;
    let mut read = |sources: &[Source]| {
        data::read(sources, domains, options.per_book, &mut |d, t, what| bar.show(d, t, what))
            .map_err(|e| Failure::new("data", e).at("data"))
    };
    let (items, corrected) = (read(&options.data)?, read(std::slice::from_ref(corrections))?);
    drop(bar);
    let held = train::held_out_items(&items);
    let (own, others): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|item| corrected.contains(item));
    let bytes = report.weights.write();
    // As they would serve: with the encoder that the configuration names.
    let current = start::supervisor(home, domains, settings)?;
    let candidate = Supervisor::new(report.weights, domains, settings.threshold)
        .and_then(|candidate| candidate.with_configured(&settings.encoder))
        .map_err(StartError::from)?;
    let accuracy = |classifier: &Supervisor, items: &[&data::Item]| match items {
        [] => Ok(0.0),
        items => evaluate::evaluate(classifier, items, &evaluate::Options::default())
            .map(|e| e.accuracy)
            .map_err(|e| Failure::new("evaluate", e)),
    };
    let scores = |classifier: &Supervisor| -> Result<Scores, Failure> {
        Ok(Scores {
            questions: others.len(),
            on_questions: accuracy(classifier, &others)?,
            corrections: own.len(),
            on_corrections: accuracy(classifier, &own)?,
        })
    };
    let (before, after) = (scores(&current)?, scores(&candidate)?);
    let (replaced, why) = verdict(before, after);
    let folder = home.join(start::SUPERVISOR);
    if replaced {
        let io = |e: io::Error| Failure::new("io", format!("{}: {e}", folder.display())).at("home");
        replace(&folder, &bytes).map_err(io)?;
    }
    Ok(Outcome { before, after, replaced, why, weights: folder.join(WEIGHTS) })
}

/// Puts weights in use; those before them stay beside.
fn replace(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let (now, last) = (folder.join(WEIGHTS), folder.join(LAST));
    // The copy first: whatever happens then, there is one to go back to.
    match fs::read(&now) {
        Ok(before) => engine::file::replace(&last, &before)?,
        // Before it were the shipped ones.
        Err(e) if e.kind() == io::ErrorKind::NotFound => gone(&last)?,
        Err(e) => return Err(e),
    }
    engine::file::replace(&now, bytes)
}

/// Takes the last improvement back; `None` if there was none.
fn rollback(folder: &Path) -> io::Result<Option<&'static str>> {
    let (now, last) = (folder.join(WEIGHTS), folder.join(LAST));
    if last.exists() {
        fs::rename(last, now)?;
        return Ok(Some(
            "the weights before the last improvement are in use from the next start on",
        ));
    }
    if now.exists() {
        fs::remove_file(now)?;
        return Ok(Some("the shipped weights are in use from the next start on"));
    }
    Ok(None)
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_better_replaces() {
        #[track_caller]
        fn check(corrections: usize, before: (f64, f64), after: (f64, f64), expect: bool) {
            let scores = |(on_questions, on_corrections)| Scores {
                questions: 100,
                on_questions,
                corrections,
                on_corrections,
            };
            assert_eq!(verdict(scores(before), scores(after)).0, expect);
        }
        check(10, (0.8, 0.2), (0.8, 0.6), true);
        check(10, (0.8, 0.2), (0.797, 0.6), true);
        check(10, (0.8, 0.2), (0.79, 0.9), false);
        check(10, (0.8, 0.6), (0.9, 0.6), false);
        check(4, (0.8, 0.2), (0.8, 0.6), false);
    }

    #[test]
    fn one_step_back() {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("supervisor");
        let now = || fs::read(folder.join(WEIGHTS)).ok();
        assert_eq!(rollback(&folder).expect("no fault"), None);
        replace(&folder, b"1").expect("written");
        replace(&folder, b"2").expect("written");
        assert!(rollback(&folder).expect("back").is_some());
        assert_eq!(now().as_deref(), Some(&b"1"[..]));
        assert!(rollback(&folder).expect("back").is_some_and(|what| what.contains("shipped")));
        assert_eq!(now(), None);
        // The step before the first is the shipped ones, not an older file.
        replace(&folder, b"1").expect("written");
        replace(&folder, b"2").expect("written");
        rollback(&folder).expect("back");
        rollback(&folder).expect("back");
        replace(&folder, b"3").expect("written");
        rollback(&folder).expect("back");
        assert_eq!(now(), None);
    }
}
