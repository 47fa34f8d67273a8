//! `create` that ends in the middle, at many points: it goes on in the next run to just what an undisturbed one makes,
//! and at no time is there a file that is half-written under its own name, or a specialist that is not whole.
//!
//! Each run is a process of its own, this test binary again, so that what it leaves is what the system leaves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use config::{Domain, Domains};
use engine::gguf::Gguf;
use engine::{MaskFile, Model, Profile};
use specialists::Registry;
use surgery::Parent;
use surgery::corpus::Corpus;
use surgery::create::{CreateError, Recipe, Report, Texts, Workshop};
use tests::tiny;

const CHILD: &str = "COLLEGIUM_TEST_CREATE";
const STOP: &str = "COLLEGIUM_TEST_STOP";
const NAME: &str = "creating::a_create_that_ends_anywhere_goes_on";
/// The signals that end a process that may not write more, or is killed.
const SIGXFSZ: i32 = 25;
const SIGKILL: i32 = 9;

/// A folder with a parent and a corpus; specialists are made in homes below it.
fn stage() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let parent = tiny::all().into_iter().find(|file| file.name() == "qwen3moe").unwrap();
    parent.write(&folder.path().join("parent.gguf"));
    let item = |n| format!("{{\"text\": \"whereas the party of part {n} agrees\"}}\n");
    fs::write(folder.path().join("law.jsonl"), (0..40).map(item).collect::<String>()).unwrap();
    folder
}

fn open(home: &Path) -> Parent {
    let path = home.parent().unwrap().join("parent.gguf");
    Parent::new(Model::load(Gguf::open(&path).unwrap()).unwrap())
}

/// All of `create`; `each` is called as it goes on.
fn create(home: &Path, each: &mut dyn FnMut()) -> Result<Report, CreateError> {
    let parent = open(home);
    let domains = Domains::new(vec![Domain::new("law")]).unwrap();
    let registry = Registry::open(home, parent.model.shape(), parent.model.parent(), &[]);
    let shop = Workshop { parent: &parent, registry: &registry, domains: &domains };
    let corpus = Corpus::at(&home.parent().unwrap().join("law.jsonl"));
    let texts = Texts { corpus: &corpus, held_out: None, tokens: None, held_out_tokens: None };
    let recipe = Recipe { settle: None, force: true, ..Recipe::usual(home, "law") };
    shop.create(&recipe, texts, &mut |_, _, _| each())
}

/// In the process that ends.
fn child(home: &Path) {
    let stop: u64 = std::env::var(STOP).ok().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    let mut calls = 0;
    let made = create(home, &mut || {
        calls += 1;
        if calls == stop {
            let me = std::process::id().to_string();
            Command::new("kill").args(["-9", &me]).status().unwrap();
        }
    });
    println!("\n{}", made.map_or_else(|e| format!("failed: {e}"), |_| format!("made: {calls}")));
}

/// Starts a run under a shell's limits, or one that kills itself at the `stop`th word of progress.
fn start(home: &Path, limits: &str, stop: Option<u64>) -> Child {
    let mut command = Command::new("sh");
    let run = format!("{limits} exec \"$0\" --exact {NAME} --nocapture");
    command.args(["-c", &run]).arg(std::env::current_exe().unwrap()).env(CHILD, home);
    if let Some(stop) = stop {
        command.env(STOP, stop.to_string());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn run(home: &Path, limits: &str, stop: Option<u64>) -> Output {
    start(home, limits, stop).wait_with_output().unwrap()
}

/// The line that begins so.
fn said(out: &Output, word: &str) -> Option<String> {
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned)
}

/// Files below a folder, by their path from it.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_owned();
                    drop(found.insert(name, fs::read(&path).unwrap()));
                }
            }
        }
    }
    found
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "partial")
}

/// Every file that has its own name is whole, and so is what is registered.
#[track_caller]
fn whole(home: &Path) {
    for (path, bytes) in files(home) {
        let text = String::from_utf8_lossy(&bytes);
        let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let good = match &ending[..] {
            "partial" => true,
            "json" if path.ends_with("law.mask.json") => MaskFile::parse(&text).is_ok(),
            "json" => serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
            "profile" => Profile::parse(&bytes).is_ok(),
            "html" => text.trim_end().ends_with("</html>"),
            _ => text.ends_with('\n'),
        };
        assert!(good, "{} is half-written", path.display());
    }
    let parent = open(home);
    let registry = Registry::open(home, parent.model.shape(), parent.model.parent(), &[]);
    let (_, wrong) = registry.read();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The next run makes what an undisturbed one does, and leaves nothing beside.
#[track_caller]
fn goes_on(home: &Path, want: &BTreeMap<PathBuf, Vec<u8>>) {
    whole(home);
    let out = run(home, "", None);
    assert!(said(&out, "made: ").is_some(), "{}", String::from_utf8_lossy(&out.stdout));
    let got = files(home);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(want));
    for (path, bytes) in want {
        // The manifest says when it was made.
        let timed = path.ends_with("manifest.toml");
        assert!(
            timed || got[path] == *bytes,
            "{} is not what it is without an end",
            path.display()
        );
    }
}

#[test]
fn a_create_that_ends_anywhere_goes_on() {
    if let Some(home) = std::env::var_os(CHILD) {
        return child(home.as_ref());
    }
    let folder = stage();
    let mut homes = (0..).map(|n| {
        let home = folder.path().join(format!("home-{n}"));
        fs::create_dir(&home).unwrap();
        home
    });
    let mut fresh = || homes.next().unwrap();

    let undisturbed = fresh();
    let begun = Instant::now();
    let calls: u64 = said(&run(&undisturbed, "", None), "made: ").unwrap().parse().unwrap();
    let (took, want) = (begun.elapsed(), files(&undisturbed));
    assert!(calls > 40, "{calls}");
    assert!(want.keys().any(|path| path.ends_with("evaluation.html")));

    // Killed at a word of progress: within the profile, verification and evaluation.
    for stop in [1, 20, 38, calls - 12, calls - 4, calls] {
        let home = fresh();
        assert_eq!(run(&home, "", Some(stop)).status.signal(), Some(SIGKILL));
        assert!(!home.join("registry/law/manifest.toml").exists(), "{stop}");
        goes_on(&home, &want);
    }

    // No room for so many blocks of a file: the system refuses to write on, and it is said of which file.
    let mut named = Vec::new();
    for blocks in [0, 1, 2, 8, 20, 40] {
        let home = fresh();
        let limits = format!("trap '' XFSZ; ulimit -f {blocks};");
        let out = run(&home, &limits, None);
        let Some(failed) = said(&out, "failed: ") else { continue };
        assert!(failed.contains(home.to_str().unwrap()), "{failed}");
        named.push(failed.split(':').next().unwrap().rsplit('/').next().unwrap().to_owned());
        let left = files(&home);
        assert!(!left.keys().any(|path| is_partial(path)), "{left:?}");
        assert!(!home.join("registry/law/manifest.toml").exists());
        goes_on(&home, &want);

        // Killed at that byte: the system's signal for the same, not caught.
        let home = fresh();
        let out = run(&home, &format!("ulimit -f {blocks};"), None);
        assert_eq!(out.status.signal(), Some(SIGXFSZ));
        assert!(files(&home).keys().any(|path| is_partial(path)), "it was in the middle");
        goes_on(&home, &want);
    }
    named.dedup();
    assert!(named.len() > 1, "all ended at one file: {named:?}");

    // Killed whenever it may be, again and again in one home.
    let home = fresh();
    for part in 1..8 {
        let mut running = start(&home, "", None);
        std::thread::sleep(Duration::max(took * part / 8, Duration::from_millis(1)));
        let _ = running.kill();
        running.wait().unwrap();
        whole(&home);
    }
    goes_on(&home, &want);
}

#[test]
fn two_do_not_make_one_specialist() {
    let folder = stage();
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let mut other = None;
    create(&home, &mut || {
        if other.is_none() {
            other = Some(create(&home, &mut || ()).unwrap_err());
        }
    })
    .unwrap();
    let other = other.unwrap();
    assert!(matches!(other, CreateError::Busy { .. }), "{other}");
    whole(&home);
}
