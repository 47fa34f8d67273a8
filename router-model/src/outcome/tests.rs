//! Two models that know one field each, and files that cannot be used.

use std::fs;
use std::path::Path;

use super::*;
use crate::{Supervisor, Weights};

/// Questions on contracts and on equations, told apart by their numbers; `jurist`
/// is right about the first, `reckoner` about the second, `parrot` never.
fn files(folder: &Path, n: usize) -> (PathBuf, PathBuf) {
    let (mut csv, mut lines) =
        ("question_id,category,answer,jurist,reckoner,parrot\n".to_owned(), String::new());
    let mut rng = fastrand::Rng::with_seed(3);
    let mut words = |list: &[&str]| -> String {
        let words: Vec<&str> = (0..12).map(|_| list[rng.usize(..list.len())]).collect();
        words.join(" ")
    };
    let law = [
        "landlord",
        "contract",
        "tenant",
        "breach",
        "court",
        "plaintiff",
        "damages",
        "clause",
        "statute",
        "lease",
        "seller",
        "remedy",
        "duty",
        "tort",
        "notice",
        "consent",
    ];
    let math = [
        "integral",
        "matrix",
        "prime",
        "sum",
        "root",
        "polynomial",
        "vector",
        "limit",
        "series",
        "angle",
        "triangle",
        "factor",
        "modulo",
        "graph",
        "slope",
        "cosine",
    ];
    for id in 0..n {
        let (list, category, row) = match id % 2 {
            0 => (&law, "law", "A,B,B"),
            // The one who knows nothing may also say nothing.
            _ => (&math, "math", "B,A,"),
        };
        let text = words(list);
        csv += &format!("{id},{category},A,{row}\n");
        lines += &format!(
            "{{\"question_id\": {id}, \"question\": \"{text}\", \"options\": [\"yes\", \"no\"], \
             \"category\": \"{category}\"}}\n"
        );
    }
    let (a, q) = (folder.join("outcomes.csv"), folder.join("q.jsonl"));
    fs::write(&a, csv).unwrap();
    fs::write(&q, lines).unwrap();
    (a, q)
}

fn costs(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
    pairs.iter().map(|(model, cost)| ((*model).to_owned(), *cost)).collect()
}

fn trained(folder: &Path) -> (Trained, Weights) {
    let (answers, questions) = files(folder, 600);
    let table = read(&answers, &questions).unwrap();
    let weights = Weights::shipped().unwrap();
    let costs = costs(&[("jurist", 1.0), ("reckoner", 20.0), ("parrot", 0.5)]);
    let options = Options { costs, seed: 1 };
    (train(&table, &weights, &options, &mut |_, _, _| ()).unwrap(), weights)
}

#[test]
fn who_knows_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let (Trained { outcomes, report }, weights) = trained(folder.path());
    let first = report.curve[0];
    assert!(first.accuracy > 0.95, "{report:?}");
    assert!((0.4..0.6).contains(&report.best_single.accuracy), "{:?}", report.best_single);
    assert!(report.gain.low > 0.3 && report.ece < 0.1, "{:?} {}", report.gain, report.ece);
    assert_eq!(report.oracle.accuracy, 1.0);
    assert!(report.loss < report.loss_constant / 2.0, "{} {}", report.loss, report.loss_constant);
    assert_eq!(report.train + report.tune + report.test, 600);
    // Dear answers are asked for less and less.
    assert!(report.curve.windows(2).all(|w| w[1].cost <= w[0].cost + 1e-9), "{:?}", report.curve);
    assert!(report.curve.last().unwrap().cost < 1.5, "{:?}", report.curve);
    let good = report.as_good.unwrap();
    assert!(good.cost <= first.cost && good.accuracy > 0.4, "{good:?}");

    let supervisor = Supervisor::new(weights.clone(), &Default::default(), 0.0).unwrap();
    let model = |text: &str, lambda: f64| {
        let judged = outcomes.judge(text, &supervisor);
        judged[pick(&judged, lambda)].model.clone()
    };
    assert_eq!(model("breach of a lease by the landlord, a remedy for the tenant", 0.0), "jurist");
    assert_eq!(model("root of a polynomial, integral of a cosine", 0.0), "reckoner");
    assert_eq!(model("root of a polynomial, integral of a cosine", 1.0), "parrot");

    let svg = curve(&report).unwrap();
    assert!(svg.starts_with("<svg") && !svg.contains("NaN") && !svg.contains("inf"));
    let page = markdown(&report);
    assert!(page.contains("best single: ") && page.contains("(curve.svg)"), "{page}");
}

#[test]
fn the_best_is_worth_most_and_then_cheapest() {
    #[track_caller]
    fn check(models: &[(f64, f64)], lambda: f64, want: usize) {
        let judged: Vec<Judged> = models
            .iter()
            .map(|(probability, cost)| Judged {
                model: String::new(),
                probability: *probability,
                cost: *cost,
            })
            .collect();
        assert_eq!(pick(&judged, lambda), want);
    }
    check(&[(0.5, 1.0), (0.9, 10.0)], 0.0, 1);
    check(&[(0.5, 1.0), (0.9, 10.0)], 0.1, 0);
    check(&[(0.5, 9.0), (0.5, 1.0)], 0.0, 1);
    check(&[(0.5, 1.0), (0.5, 1.0)], 0.0, 0);
    check(&[], 0.0, 0);
}

/// What is read back decides the same; what is not exactly such a file is refused.
#[test]
fn a_file_of_outcomes() {
    let folder = tempfile::tempdir().unwrap();
    let (Trained { outcomes, .. }, weights) = trained(folder.path());
    let bytes = outcomes.write();
    let path = Path::new("o.bin");
    assert_eq!(Outcomes::read(&bytes, path, &weights).unwrap(), outcomes);

    let check = |bytes: &[u8], want: &str| {
        let got = Outcomes::read(bytes, path, &weights).unwrap_err().to_string();
        assert!(got.starts_with("o.bin: ") && got.contains(want), "{got}");
    };
    check(b"", "the first bytes are others");
    check(b"clgmlex\n", "the first bytes are others");
    check(&bytes[..10], "it is cut off");
    check(&bytes[..100], "the header is longer than the file");
    check(&bytes[..bytes.len() - 1], "bytes of numbers");
    let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let changed = |from: &str, to: &str| {
        let header = String::from_utf8(bytes[12..12 + length].to_vec()).unwrap();
        assert!(header.contains(from), "{header}");
        let header = header.replacen(from, to, 1);
        let length = (header.len() as u32).to_le_bytes();
        [&bytes[..8], &length, header.as_bytes(), &bytes[12 + length_of(&bytes)..]].concat()
    };
    check(&changed("outcomes/1", "outcomes/2"), "version \"collegium.outcomes/2\"");
    check(
        &changed("\"supervisor\":", "\"supervisor\":1,\"was\":"),
        "trained beside the supervisor's weights",
    );
    check(&changed("\"costs\":[1.0,", "\"costs\":["), "do not go together");
    check(&changed("\"costs\":[1.0,", "\"costs\":[-1.0,"), "out of range");
    check(&changed("\"gram\":", "\"gram\":-9"), "out of range");
    let mut none = bytes.clone();
    let end = none.len();
    none[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    check(&none, "one of its numbers is none");
}

fn length_of(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize
}

/// `csv` and `lines` as files; the message of the refusal without their folder.
#[track_caller]
fn refused(csv: &str, lines: &str, want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (a, q) = (folder.path().join("o.csv"), folder.path().join("q.jsonl"));
    fs::write(&a, csv).unwrap();
    fs::write(&q, lines).unwrap();
    let got = read(&a, &q).map(|table| format!("{} rows", table.rows.len()));
    let got = got.unwrap_or_else(|error| error.to_string());
    let got = got.replace(&format!("{}/", folder.path().display()), "");
    assert!(got.starts_with(want), "got: {got}\nwant: {want}");
}

#[test]
fn bad_tables_are_named_with_their_line() {
    const Q: &str = r#"{"question_id": 1, "question": "Why?", "options": ["a", "b"]}"#;
    let head = "question_id,category,answer,x,y\n";
    let with = |row: &str| format!("{head}{row}\n");
    refused(&with("1,law,A,A,"), Q, "1 rows");
    // A wrong letter that was drawn need not be an option.
    refused(&with("1,law,A,A,J"), Q, "1 rows");
    refused("", Q, "o.csv: no text");
    refused(head, Q, "o.csv: no text");
    refused(
        "question_id,answer,x,y\n",
        Q,
        "o.csv:1: column 2 is \"answer\"; it must be \"category\"",
    );
    refused("question_id,category,answer,x\n", Q, "o.csv:1: at least two models");
    refused("question_id,category,answer,x,x\n", Q, "o.csv:1: at least two models");
    refused(&with("2,law,A,A,B"), Q, "o.csv:2: question 2 is not among");
    refused(&with("one,law,A,A,B"), Q, "o.csv:2: question_id is \"one\"");
    refused(&with("1,law,A,A"), Q, "o.csv:2: 4 cells, the head has 5");
    refused(&with("1,law,A,a,B"), Q, "o.csv:2: x is \"a\"; it must be a letter");
    refused(&with("1,law,A,A,AB"), Q, "o.csv:2: y is \"AB\"; it must be one letter");
    refused(&with("1,law,,A,B"), Q, "o.csv:2: answer is \"\"; it must be one of the 2");
    refused(&with("1,law,C,A,B"), Q, "o.csv:2: answer is \"C\"; it must be one of the 2");
    refused(&with("1,\"law\",A,A,B"), Q, "o.csv:2: quotes are not read");
    refused(&with("1,law,A,A,B\n1,law,A,A,B"), Q, "o.csv:3: question 1 is there twice");
    refused(&with("1,law,A,A,B"), "{", "q.jsonl:1: not JSON");
    refused(&with("1,law,A,A,B"), r#"{"question": "Why?"}"#, "q.jsonl:1: \"question_id\" is no");
    refused(&with("1,law,A,A,B"), r#"{"question_id": 1}"#, "q.jsonl:1: \"question\" is no text");
    refused(&with("1,law,A,A,B"), "", "q.jsonl: no text");
}

#[test]
fn costs_are_known_or_asked_for() {
    #[track_caller]
    fn check(models: &[&str], said: &[(&str, f64)], want: Result<&[f64], &str>) {
        let models: Vec<String> = models.iter().map(|m| (*m).to_owned()).collect();
        match (super::costs(&models, &costs(said)), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }
    check(&["gemma-7b", "Yi-34B"], &[], Ok(&[8.5, 34.0]));
    check(&["gemma-7b", "x"], &[("x", 2.0), ("gemma-7b", 1.0)], Ok(&[1.0, 2.0]));
    check(&["x"], &[], Err("\"x\" costs is not known; say it: --cost x=X"));
    check(&["Yi-34B"], &[("yi-34b", 1.0)], Err("did you mean \"Yi-34B\"?"));
    check(&["x"], &[("x", f64::NAN)], Err("a cost of \"x\" is NaN"));
}

#[test]
fn few_questions_teach_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (answers, questions) = files(folder.path(), 40);
    let table = read(&answers, &questions).unwrap();
    let costs = costs(&[("jurist", 1.0), ("reckoner", 1.0), ("parrot", 1.0)]);
    let options = Options { costs, seed: 1 };
    let weights = Weights::shipped().unwrap();
    let error = train(&table, &weights, &options, &mut |_, _, _| ()).err().unwrap().to_string();
    assert!(error.contains("each part needs at least 20"), "{error}");
}
