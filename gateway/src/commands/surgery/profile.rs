//! `surgery profile`: what the parent's router does on a domain, from one of several sources.
//!
//! A source is a function below that gives a [`Made`].  What all have in common is in [`run`]: nothing is written of a
//! profile that a mask could not be made from.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use engine::{Profile, ProfileError, SamplingParams, hash};
use serde_json::{Value, json};
use surgery::answers::{Asking, answer};
use surgery::corpus::Corpus;
use surgery::profile::{Checkpoint, Plan, Profiled, checkpoint_of, run as read_corpus, usable};
use surgery::stability::Settle;

use super::{Bench, failed, writable};
use crate::cli::Cli;
use crate::cli::surgery::profile::{Answers, ProfileArgs};
use crate::commands::terminal::{Bar, Failure, result};
use crate::defaults::defaults;
use crate::path::TEMPERATURE;

/// Time between two checkpoints: what a kill costs at most.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// A profile, what else there is to say in JSON, and in words.
struct Made {
    profile: Profile,
    more: Value,
    words: String,
    /// To be removed when the profile is there.
    checkpoint: Option<PathBuf>,
}

/// Runs the step.
pub fn run(cli: &Cli, args: &ProfileArgs) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&args.until) {
        return Err(Failure::usage("an agreement is between 0 and 1").at("until"));
    }
    let inputs = args.corpus.iter().chain(&args.imatrix).chain(&args.merge);
    writable(&args.out, &inputs.map(|path| path.as_path()).collect::<Vec<_>>())?;
    let Made { profile, more, words, checkpoint } = match &args.merge[..] {
        [] => {
            let bench = Bench::new(cli, args.parent.as_ref())?;
            let domain = bench.domain(args.domain.as_deref().unwrap_or_default())?;
            match (&args.corpus, &args.imatrix) {
                (Some(corpus), _) => from_corpus(&bench, args, &Corpus::at(corpus), domain)?,
                (None, Some(file)) => {
                    let model = &bench.parent.model;
                    let profile = surgery::imatrix::profile(file, model, domain);
                    of_parent(&bench, args, profile.map_err(failed("imatrix", "imatrix"))?)?
                }
                (None, None) => of_parent(&bench, args, counted(&bench, domain)?)?,
            }
        }
        files => merged(args, files)?,
    };
    profile.write(&args.out).map_err(failed("io", "out"))?;
    if let Some(checkpoint) = checkpoint {
        // Most runs are too short to leave one.
        let _ = fs::remove_file(checkpoint);
    }
    let mut done = json!({
        "out": args.out, "domain": profile.domain, "tokens": profile.tokens,
        "prompt_tokens": profile.prompt_tokens, "parent": profile.parent,
        "agreement": profile.agreement, "source": profile.source,
    });
    if let (Value::Object(done), Value::Object(more)) = (&mut done, more) {
        done.extend(more);
    }
    result(cli, &done, |_| {
        let (out, tokens, domain) = (args.out.display(), profile.tokens, &profile.domain);
        format!("{out}: {tokens} tokens of {domain}{words}\n")
    })
}

/// Reads a corpus, the parent's own answers to it if so asked.
fn from_corpus(
    bench: &Bench<'_>,
    args: &ProfileArgs,
    corpus: &Corpus,
    domain: &str,
) -> Result<Made, Failure> {
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let (mut answered, mut answers) = (Value::Null, None);
    if args.answers == Answers::Parent {
        let out = args.out.with_extension("answers.jsonl");
        let asking = Asking {
            corpus,
            domains: &bench.loaded.domains,
            domain: Some(domain),
            sampling: sampling(bench, domain),
            seed: args.seed,
            max_tokens: args.answer_tokens.max(1),
            tokens: args.tokens,
            out: &out,
        };
        let done = answer(&bench.parent, &asking, &mut |d, t, w| bar.show(d, t, w));
        let done = done.map_err(failed("answers", "answers"))?;
        answered = json!({ "file": out, "made": done });
        answers = Some(Corpus::at(&out));
    }
    // Answers are as many as the bound allows already.
    let (corpus, tokens) = match &answers {
        Some(answers) => (answers, None),
        None => (corpus, args.tokens),
    };
    let path = checkpoint_of(&args.out);
    let plan = Plan {
        reading: bench.reading(corpus, Some(domain), tokens),
        pairs: args.pairs,
        signatures: true,
        settle: (!args.all).then(|| Settle { agreement: args.until, ..Settle::default() }),
        force: args.force,
        checkpoint: Some(Checkpoint { path: &path, every: CHECKPOINT_EVERY }),
    };
    let read = read_corpus(&bench.parent, plan, &mut |d, t, w| bar.show(d, t, w));
    let Profiled { profile, items, rounds, settled, resumed, warnings } =
        read.map_err(failed("profile", "corpus"))?;
    let mut words = format!(" in {items} items");
    if let Some(agreement) = profile.agreement {
        words += &format!("; masks of its halves agree by {agreement:.3}");
    }
    if let Some(change) = rounds.last().and_then(|round| round.change) {
        words += &format!(", its last doubling changed {:.1} % of the mask", 100.0 * change);
    }
    if settled {
        words += "; it has settled, the rest was not read";
    }
    if let Some(file) = &answers {
        words += &format!("\nthe parent's answers are in {}", file.path().display());
    }
    for warning in &warnings {
        words += &format!("\nwarning: {warning}");
    }
    let more = json!({
        "items": items, "settled": settled, "rounds": rounds, "resumed_items": resumed,
        "answers": answered, "warnings": warnings,
    });
    Ok(Made { profile, more, words, checkpoint: Some(path) })
}

/// What the gateway counted.
fn counted(bench: &Bench<'_>, domain: &str) -> Result<Profile, Failure> {
    let file = bench.home.join("traffic").join(format!("{domain}.profile"));
    Profile::read(&file).map_err(|error| match error {
        ProfileError::Io { error, .. } if error.kind() == ErrorKind::NotFound => {
            let home = bench.home.display();
            let message = format!(
                "no traffic of {domain} was counted in {home}; serve it first, or name its --home"
            );
            failed("traffic", "traffic")(message)
        }
        error => failed("traffic", "traffic")(error.to_string()),
    })
}

/// One that was made elsewhere.
fn of_parent(bench: &Bench<'_>, args: &ProfileArgs, profile: Profile) -> Result<Made, Failure> {
    let model = &bench.parent.model;
    usable(&profile, model.shape(), &model.parent(), args.force)
        .map_err(failed("profile", "parent"))?;
    let mut warnings = Vec::new();
    if !profile.known.ranks {
        warnings.push(
            "it knows how often experts were chosen, not at which rank or gate: use --score frequency; norm-sum and \
             norm-mean take what goes into an expert for what comes out",
        );
    }
    let words = warnings.iter().map(|warning| format!("\nwarning: {warning}")).collect();
    Ok(Made { profile, more: json!({ "warnings": warnings }), words, checkpoint: None })
}

/// The sum of several.
fn merged(args: &ProfileArgs, files: &[PathBuf]) -> Result<Made, Failure> {
    let failed = failed("profile", "merge");
    let mut sum: Option<Profile> = None;
    let mut hashes = Vec::new();
    for file in files {
        let profile = Profile::read(file).map_err(|e| failed(e.to_string()))?;
        hashes.push(hash::file(file).map_err(|e| failed(format!("{}: {e}", file.display())))?);
        match &mut sum {
            None => sum = Some(profile),
            Some(sum) => {
                sum.add(&profile).map_err(|e| failed(format!("{}: {e}", file.display())))?
            }
        }
    }
    let mut profile = sum.ok_or_else(|| failed("nothing to merge".to_owned()))?;
    if let Some(domain) = &args.domain {
        profile.domain.clone_from(domain);
    }
    profile.source = format!("the sum of {}", hashes.join(", "));
    let words = format!(", the sum of {} profiles", files.len());
    Ok(Made { profile, more: json!({ "merged": hashes }), words, checkpoint: None })
}

/// The domain's sampling, else the parent's, as when a question is asked.
fn sampling(bench: &Bench<'_>, domain: &str) -> SamplingParams {
    let domain = bench.loaded.domains.get(domain);
    let said = defaults(domain, None, bench.parent.model.sampling());
    let plain = SamplingParams::default();
    SamplingParams {
        temperature: said.temperature.unwrap_or(TEMPERATURE),
        top_k: said.top_k.unwrap_or(plain.top_k),
        top_p: said.top_p.unwrap_or(plain.top_p),
        min_p: said.min_p.unwrap_or(plain.min_p),
        repetition_penalty: said.repetition_penalty.unwrap_or(plain.repetition_penalty),
        ..plain
    }
}
