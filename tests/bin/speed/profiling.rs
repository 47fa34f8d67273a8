//! What it costs to profile a corpus, beside reading the same tokens and looking at nothing.
//!
//! In: a model's file.  Out: seconds of [`surgery::profile::run`] as `surgery profile --pairs` calls it (with the corpus
//! read twice, tokens made, pairs, items and halves counted), and of a prefill of the same windows without taps, in turn,
//! so that a machine that becomes slower meanwhile is slower for both.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use config::{Device, Domain, Domains};
use engine::gguf::Gguf;
use engine::{ExpertMask, Model, Session};
use serde_json::{Value, json};
use surgery::Parent;
use surgery::corpus::{Corpus, Part};
use surgery::profile::{Checkpoint, Plan, run};
use surgery::tokens::{Reading, collect};

use crate::measure::bank;
use crate::said;

/// Lines of the corpus, and bytes of each: items as they are in real ones.
const LINES: usize = 24;
const BYTES: usize = 600;

/// As the command keeps them.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// `repeat` of each, after one of each that is not counted.
pub fn report(file: &Path, device: Device, repeat: usize) -> Result<Value, String> {
    let model = Model::load(Gguf::open(file).map_err(said)?).map_err(said)?;
    let parent = Parent { bank: bank(&model, device)?, model };
    parent.bank.warm(&ExpertMask::full(parent.model.shape()));
    let folder = tempfile::tempdir().map_err(said)?;
    let path = folder.path().join("corpus.jsonl");
    fs::write(&path, lines()).map_err(said)?;
    let (corpus, checkpoint) = (Corpus::at(&path), folder.path().join("checkpoint"));
    let domains = Domains::new(vec![Domain::new("any")]).map_err(said)?;
    let reading = Reading {
        corpus: &corpus,
        domains: &domains,
        domain: Some("any"),
        part: Part::All,
        tokens: None,
    };
    let plan = Plan {
        pairs: true,
        signatures: true,
        checkpoint: Some(Checkpoint { path: &checkpoint, every: CHECKPOINT_EVERY }),
        ..Plan::whole(reading)
    };
    let windows = collect(&parent.model, reading).map_err(said)?;
    let tokens: usize = windows.iter().map(|window| window.tokens.len()).sum();
    let plain = || -> Result<f64, String> {
        let begun = Instant::now();
        for window in &windows {
            let session = Session::new(&parent.model, &parent.bank, window.tokens.len());
            session.map_err(said)?.feed(&window.tokens, None, None, window.prompt);
        }
        Ok(begun.elapsed().as_secs_f64())
    };
    let profiled = || -> Result<f64, String> {
        let begun = Instant::now();
        let read = run(&parent, plan, &mut |_, _, _| ()).map_err(said)?.profile.tokens;
        let seconds = begun.elapsed().as_secs_f64();
        let _ = fs::remove_file(&checkpoint);
        match read == tokens as u64 {
            true => Ok(seconds),
            false => Err(format!("{read} tokens were profiled, {tokens} read")),
        }
    };
    plain()?;
    profiled()?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for turn in 0..repeat {
        if turn % 2 == 0 {
            without.push(plain()?);
            with.push(profiled()?);
        } else {
            with.push(profiled()?);
            without.push(plain()?);
        }
    }
    Ok(json!({ "tokens": tokens, "profile_s": with, "prefill_s": without }))
}

/// Words drawn at random, the same ones in every process.
fn lines() -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let mut word = || -> String {
        let length = random.usize(2..9);
        (0..length).map(|_| random.lowercase()).chain([' ']).collect()
    };
    let mut line = |_| {
        let mut text = String::new();
        while text.len() < BYTES {
            text += &word();
        }
        json!({ "text": text }).to_string() + "\n"
    };
    (0..LINES).map(&mut line).collect()
}
