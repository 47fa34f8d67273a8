//! The whole way from files to weights, on a few made-up questions.

use std::fs;
use std::path::Path;

use config::{Domain, Domains};

use super::data::{self, Kind};
use super::{Options, Report, Source, groups, train};
use crate::{Supervisor, TrainError};

fn domains() -> Domains {
    let mut code = Domain::new("code");
    code.aliases = vec!["software".into()];
    Domains::new(vec![code, Domain::new("law")]).unwrap()
}

/// Enough questions of two domains that some of each are held out.
fn questions() -> String {
    let mut lines = String::new();
    for n in 0..120 {
        let word: String =
            (0..6).map(|i| char::from(b'a' + ((n * 7 + i * 11) % 26) as u8)).collect();
        let (text, label) = match n % 2 {
            0 => (format!("How does the function {word} compile in the program?"), "Software"),
            _ => (format!("Can the court hear the claim of {word} against the tenant?"), "law"),
        };
        lines.push_str(&format!("{{\"question\": \"{text}\", \"category\": \"{label}\"}}\n"));
    }
    lines
}

fn options(path: &Path) -> Options {
    Options { data: vec![path.to_owned().into()], steps: 30, bytes: 1 << 16, ..Options::default() }
}

fn run(path: &Path, seed: u64) -> Report {
    train(&Options { seed, ..options(path) }, &domains(), &mut |_, _, _| ()).unwrap()
}

#[test]
fn learns_and_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    fs::write(&path, questions()).unwrap();
    let (one, same, other) = (run(&path, 1), run(&path, 1), run(&path, 2));
    assert!(one.test.accuracy > 0.9, "{:?}", one.test);
    assert_eq!(one.weights.header().labels, ["code", "law"]);
    // Same files and seed, same bytes.
    assert_eq!(one.weights.write(), same.weights.write());
    assert_ne!(one.weights.write(), other.weights.write());
}

/// A label that the encoder never learnt gets a classifier, and only beside the encoder
/// that it was made for.
#[cfg(feature = "encoder")]
#[test]
fn an_encoder_learns_new_labels() {
    use config::Encoder;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    fs::write(&path, questions()).unwrap();
    let report = run(&path, 1);
    assert!(report.mix.is_some() && report.tune_both.unwrap().accuracy > 0.9);
    let header = report.weights.header();
    assert!(header.second.as_ref().unwrap().classifier.is_some());
    let sup = Supervisor::new(report.weights, &Domains::default(), 0.0).unwrap();
    let sup = sup.with_configured(&Encoder::Shipped).unwrap();
    assert!(sup.has_encoder());
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("encoder/tiny");
    let err = sup.with_configured(&Encoder::Path(tiny)).unwrap_err().to_string();
    assert!(err.contains("collegium supervisor train"), "{err}");
    let alone = Options { encoder: Encoder::Off, ..options(&path) };
    let report = train(&alone, &domains(), &mut |_, _, _| ()).unwrap();
    assert!(report.mix.is_none() && report.tune_both.is_none());
    // Weights that never met the encoder do without it.
    let sup = Supervisor::new(report.weights, &Domains::default(), 0.0).unwrap();
    assert!(!sup.with_configured(&Encoder::Shipped).unwrap().has_encoder());
}

/// Reads one file of the given name and text.
#[track_caller]
fn check(name: &str, text: &str, given: Option<&str>, want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let source = Source { path, domain: given.map(str::to_owned) };
    let got = match data::read(&[source], &domains(), 10, &mut |_, _, _| ()) {
        Ok(items) => {
            let show = |i: &data::Item| format!("{:?} {} {}", i.kind, i.domain, i.whole());
            items.iter().map(show).collect::<Vec<_>>().join("; ")
        }
        Err(err) => err.to_string().replace(&format!("{}/", folder.path().display()), ""),
    };
    assert_eq!(got, want);
}

#[test]
fn lines_become_items() {
    let asked = r#"{"question": "Why?", "options": ["a", "b"], "category": "SOFTWARE"}"#;
    check("a.jsonl", asked, None, "Question code Why?\nA. a\nB. b");
    // The line's own label wins over the file's.
    check("a.jsonl", asked, Some("law"), "Question code Why?\nA. a\nB. b");
    check("a.jsonl", r#"{"text": "Why?"}"#, Some("law"), "Said law Why?");
    check(
        "a.jsonl",
        r#"{"topics": ["torts", "wills"], "domain": "law"}"#,
        None,
        "Topic law torts; Topic law wills",
    );
    let talk = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "domain": "law"}"#;
    check("a.jsonl", talk, None, "Said law u");
    check(
        "law__book.txt",
        "A short book about wills.",
        None,
        "Passage law A short book about wills.",
    );
}

#[test]
fn what_cannot_be_used_is_named() {
    let line = r#"{"text": "Why?", "domain": "lwa"}"#;
    let label = "names no domain (did you mean \"law\"?); add it as an alias or correct it";
    check("a.jsonl", &format!("\n{line}"), None, &format!("a.jsonl:2: \"lwa\" {label}"));
    check(
        "a.jsonl",
        "{",
        None,
        "a.jsonl:1: not JSON: EOF while parsing an object at line 1 column 1",
    );
    check(
        "a.jsonl",
        r#"{"text": "Why?"}"#,
        None,
        "a.jsonl: its lines do not say their domain; name it: DOMAIN=a.jsonl",
    );
    check(
        "a.csv",
        "a,b",
        Some("law"),
        "a.csv: no text to learn from; .jsonl, .json and .txt are read, each also as .xz",
    );
    let missing = Source::from(Path::new("/no/such.jsonl").to_owned());
    let got = data::read(&[missing], &domains(), 10, &mut |_, _, _| ());
    assert!(matches!(got, Err(TrainError::Read { .. })));
}

/// What `train` says of questions, each `label: text`.
#[track_caller]
fn refused(lines: &[&str], want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let line = |line: &&str| {
        let (label, text) = line.split_once(": ").unwrap();
        format!("{{\"question\": \"{text}\", \"category\": \"{label}\"}}\n")
    };
    fs::write(&path, lines.iter().map(line).collect::<String>()).unwrap();
    let got = train(&options(&path), &domains(), &mut |_, _, _| ()).unwrap_err().to_string();
    assert_eq!(got, want);
}

#[test]
fn too_little_to_choose_from() {
    let one = "1 domains in the data; a choice needs two";
    refused(&["law: May he sue?", "law: Is it a tort?"], one);
    // Texts of no domain are not a domain.
    refused(&["law: May he sue?", "none: How are you?"], one);
    refused(&["none: How are you?"], "0 domains in the data; a choice needs two");
    // Both say both: nothing is left to learn from.
    let nothing = "0 domains in the data; a choice needs two";
    refused(&["law: May he sue?", "code: may he  SUE?"], nothing);
}

/// The same text with two labels teaches neither, and is told with its lines.
#[test]
fn contradictions_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let line =
        |label: &str| format!("{{\"question\": \"Is it fair?\", \"category\": \"{label}\"}}\n");
    fs::write(&path, line("law") + &questions() + &line("software") + &line("law")).unwrap();
    let report = run(&path, 1);
    let told: Vec<String> = report
        .contradictions
        .iter()
        .map(|told| told.replace(&format!("{}/", folder.path().display()), ""))
        .collect();
    let want = "q.jsonl:1 says \"law\", q.jsonl:122 says \"code\": \"Is it fair?\"";
    assert_eq!(told, [want]);
}

/// Lines must be UTF-8; books are old, and one odd letter is no reason to stop.
#[test]
fn bytes_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("law__old.jsonl");
    fs::write(&path, b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n").unwrap();
    let got = data::read(&[path.clone().into()], &domains(), 10, &mut |_, _, _| ()).unwrap_err();
    let end = "law__old.jsonl:2: not UTF-8; save the file as UTF-8";
    assert!(got.to_string().ends_with(end), "{got}");
    let book = folder.path().join("law__old.txt");
    fs::write(&book, b"The widow\xff's estate goes to the heirs.").unwrap();
    assert_eq!(data::read(&[book.into()], &domains(), 10, &mut |_, _, _| ()).unwrap().len(), 1);
}

#[test]
fn sources() {
    #[track_caller]
    fn check(text: &str, domain: Option<&str>, path: &str) {
        let want = Source { path: path.into(), domain: domain.map(str::to_owned) };
        assert_eq!(text.parse::<Source>(), Ok(want));
    }
    check("a.jsonl", None, "a.jsonl");
    check("law=a.jsonl", Some("law"), "a.jsonl");
    check("computer science=/d/a.jsonl", Some("computer science"), "/d/a.jsonl");
    // A path with "=" in it is a path.
    check("/d/a=b.jsonl", None, "/d/a=b.jsonl");
    check("./a=b.jsonl", None, "./a=b.jsonl");
}

/// Near copies of one question, and answers to it, stand on one side.
#[test]
fn copies_do_not_leak() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let mut text = String::new();
    for n in 0..60 {
        let name: String =
            (0..5).map(|i| char::from(b'a' + ((n * 5 + i * 3 + n / 26) % 26) as u8)).collect();
        for number in [3, 77, 4_512] {
            let question = format!(
                "A tenant called {name} pays {name} rent of {number} to {name} each month and year"
            );
            text.push_str(&format!("{{\"question\": \"{question}, for {number}?\", \"category\": \"law\", \"question_id\": {n}}}\n"));
        }
        let answer = "Since the rent is due each month, the tenant must pay it.";
        text.push_str(&format!(
            "{{\"answer_text\": \"{answer}\", \"category\": \"law\", \"question_id\": {n}}}\n"
        ));
    }
    fs::write(&path, text).unwrap();
    let items = data::read(&[path.into()], &domains(), 10, &mut |_, _, _| ()).unwrap();
    let parts = groups::split(&items);
    for (items, parts) in items.chunks(4).zip(parts.chunks(4)) {
        assert_eq!(items[3].kind, Kind::Answer);
        assert!(parts.iter().all(|part| *part == parts[0]), "{} {parts:?}", items[0].text);
    }
    assert!(parts.iter().any(|part| *part != parts[0]), "nothing is held out");
}

/// What is left out is not learnt, and is less like the others than they are.
#[test]
fn a_domain_left_out_is_told_from_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let mut lines = questions();
    for n in 0..60 {
        let word = char::from(b'a' + (n % 26) as u8);
        lines.push_str(&format!(
            "{{\"question\": \"Which enzyme {word} splits starch in saliva?\", \"category\": \"biology\"}}\n"
        ));
    }
    fs::write(&path, lines).unwrap();
    let mut all: Vec<Domain> = domains().iter().cloned().collect();
    all.push(Domain::new("biology"));
    let all = Domains::new(all).unwrap();
    let run = |leave_out: &[&str]| {
        let leave_out = leave_out.iter().map(|name| (*name).to_owned()).collect();
        train(&Options { leave_out, ..options(&path) }, &all, &mut |_, _, _| ())
    };
    let report = run(&["biology"]).unwrap();
    assert_eq!(report.weights.header().labels, ["code", "law"]);
    assert!(report.left_out_auc.unwrap() > 0.9, "{:?}", report.left_out_auc);
    assert_eq!(run(&[]).unwrap().left_out_auc, None);
    let err = run(&["bioligy"]).unwrap_err().to_string();
    assert!(err.contains("did you mean \"biology\"?"), "{err}");
}

/// Weights that would know nothing are refused before the data is read.
#[test]
fn settings_that_learn_nothing() {
    #[track_caller]
    fn check(change: fn(&mut Options), want: &str) {
        let mut options = options(Path::new("/no/such.jsonl"));
        change(&mut options);
        let err = train(&options, &domains(), &mut |_, _, _| ()).unwrap_err().to_string();
        assert!(err.contains(want), "{err}");
    }
    check(|o| o.steps = 0, "steps is 0");
    check(|o| o.penalty = f32::NAN, "penalty is NaN");
    check(|o| o.penalty = f32::INFINITY, "penalty is inf");
    check(|o| o.penalty = -1.0, "penalty is -1");
}

/// Corrections may bring a domain that the shipped encoder does not know.
#[test]
fn weights_of_other_labels_do_without_the_shipped_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    fs::write(&path, questions()).unwrap();
    let supervisor = crate::Supervisor::new(run(&path, 1).weights, &domains(), 0.5).unwrap();
    let asked = crate::Query::text("Can the court hear the claim?");
    let alone = supervisor.decide(&asked).confidence;
    let with = supervisor.with_configured(&config::Encoder::Shipped).unwrap();
    assert_eq!(with.decide(&asked).confidence, alone);
}
