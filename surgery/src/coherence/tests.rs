use engine::gguf::Gguf;
use engine::{Model, Shape};

use super::*;
use crate::Parent;
use crate::corpus::{Corpus, Part as Of};
use crate::profile::{Plan, run};
use crate::tokens::Reading;

const LAYERS: usize = 6;
const EXPERTS: usize = 16;

/// The experts that items of one kind use, in each layer: `from`, `from + 1`, … the first ones more.
#[derive(Clone, Copy)]
struct Kind {
    from: usize,
    experts: usize,
}

/// A profile of items: `tokens` tokens each, drawn from the experts of its kind.
fn profile_of(kinds: &[Kind], tokens: usize, seed: u64) -> Profile {
    let shape = Shape::of_experts(LAYERS, EXPERTS, 2);
    let mut profile = Profile::new(&shape, "p", "law").with_signatures();
    let mut random = fastrand::Rng::with_seed(seed);
    for (line, kind) in (1..).zip(kinds) {
        let mut mass = vec![0f32; LAYERS * EXPERTS];
        for layer in mass.chunks_mut(EXPERTS) {
            for _ in 0..tokens {
                // The lower of two draws, and with a gate.
                let draw = random.usize(..kind.experts).min(random.usize(..kind.experts));
                layer[(kind.from + draw) % EXPERTS] += 0.5 + random.f32() / 2.0;
            }
        }
        profile.signatures.as_mut().unwrap().push(line, &mass);
    }
    profile
}

fn judged(kinds: &[Kind], tokens: usize, keep: usize) -> Report {
    let profile = profile_of(kinds, tokens, 7);
    let question = Question { keep, seed: 1 };
    let report = judge(&profile, question).unwrap();
    // The same for the same.
    assert_eq!(judge(&profile, question).unwrap(), report);
    report
}

/// Sizes of the parts that are proposed; none if one mask will do.
#[track_caller]
fn check(kinds: &[Kind], keep: usize, verdict: Verdict, sizes: &[usize]) {
    for tokens in [20, 200] {
        let report = judged(kinds, tokens, keep);
        let parts: Vec<usize> = report.parts.iter().map(|part| part.items).collect();
        assert_eq!((report.verdict, &parts[..]), (verdict, sizes), "{tokens}: {report:?}");
    }
}

const LEFT: Kind = Kind { from: 0, experts: 8 };
const RIGHT: Kind = Kind { from: 8, experts: 8 };

#[test]
fn one_kind_is_one_mask() {
    check(&[LEFT; 60], 8, Verdict::One, &[]);
    // Some items are longer than others; that makes no kinds of them.
    check(&[Kind { from: 3, experts: 12 }; 100], 10, Verdict::One, &[]);
}

#[test]
fn kinds_that_share_nothing_are_parts() {
    let sorted = [[LEFT; 40], [RIGHT; 40]].concat();
    check(&sorted, 8, Verdict::Split, &[40, 40]);
    let uneven: Vec<Kind> = (0..80).map(|i| if i % 4 == 0 { RIGHT } else { LEFT }).collect();
    check(&uneven, 8, Verdict::Split, &[60, 20]);
    let report = judged(&uneven, 50, 8);
    let part_of: Vec<usize> = report.each.iter().filter_map(|item| item.part).collect();
    assert_eq!(part_of, (0..80).map(|i| usize::from(i % 4 == 0)).collect::<Vec<_>>());
    // Half of what the larger part leaves of one mask is all that the smaller one has of it.
    let [left, right] = &report.parts[..] else { panic!("{report:?}") };
    assert_eq!((left.own.mean, right.own.mean), (1.0, 1.0));
    assert!((left.share - 0.75).abs() < 0.02 && right.one.mean < 0.5, "{report:?}");
    assert!(left.experts.iter().all(|t| t.expert < 8 && t.elsewhere == 0.0 && t.share > 0.0));
    assert_eq!(report.overlap, Some(0.0));
    assert!(right.lines.iter().all(|line| line % 4 == 1), "{:?}", right.lines);
    let three = [[LEFT; 30], [RIGHT; 30], [Kind { from: 4, experts: 6 }; 30]].concat();
    check(&three, 6, Verdict::Split, &[30, 30, 30]);
}

#[test]
fn parts_that_one_mask_covers_are_not_proposed() {
    // All of both are kept.
    let near = [[Kind { from: 0, experts: 6 }; 40], [Kind { from: 4, experts: 6 }; 40]].concat();
    check(&near, 12, Verdict::One, &[]);
}

#[test]
fn noise_has_no_parts() {
    let mut random = fastrand::Rng::with_seed(3);
    // Any experts, with nothing in common.
    let mut any = || Kind { from: random.usize(..EXPERTS), experts: 5 };
    let kinds: Vec<Kind> = (0..90).map(|_| any()).collect();
    let noise = noise(&kinds);
    let report = judge(&noise, Question { keep: 8, seed: 1 }).unwrap();
    assert_eq!((report.verdict, report.parts.len()), (Verdict::Larger, 0), "{report:?}");
    assert!((9..=EXPERTS).contains(&report.enough), "{report:?}");
    let enough = Question { keep: report.enough, seed: 1 };
    assert_eq!(judge(&noise, enough).unwrap().verdict, Verdict::One);
    check(&[Kind { from: 0, experts: EXPERTS }; 90], 12, Verdict::One, &[]);
}

/// Items whose layers have nothing to do with each other.
fn noise(kinds: &[Kind]) -> Profile {
    let mut profile = profile_of(kinds, 50, 5);
    let items = profile.signatures.as_mut().unwrap();
    let whole = items.mass.clone();
    for (at, layer) in items.mass.chunks_mut(EXPERTS).enumerate() {
        let from = (at / LAYERS + 7 * (at % LAYERS)) % kinds.len() * LAYERS + at % LAYERS;
        layer.copy_from_slice(&whole[from * EXPERTS..][..EXPERTS]);
    }
    profile
}

#[test]
fn what_a_profile_cannot_say_is_an_error() {
    let question = Question { keep: 8, seed: 1 };
    let few = profile_of(&[LEFT; 23], 50, 1);
    assert_eq!(judge(&few, question), Err(CoherenceError::Few { items: 23 }));
    let none = Profile { signatures: None, ..few.clone() };
    assert_eq!(judge(&none, question), Err(CoherenceError::NoItems));
    for keep in [0, 1, 17] {
        let error = judge(&few, Question { keep, ..question });
        assert_eq!(error, Err(CoherenceError::Keep { keep, top_k: 2, experts: 16 }));
    }
    // Items that asked for nothing are none.
    let mut empty = profile_of(&[LEFT; 30], 50, 1);
    empty.signatures.as_mut().unwrap().mass.fill(0.0);
    assert_eq!(judge(&empty, question), Err(CoherenceError::Few { items: 0 }));
}

// The real thing: a licence and a program, to the embedded parent.
#[test]
fn two_real_subjects_are_found_and_one_is_not_two() {
    let parent = Parent::new(Model::load(Gguf::nano().unwrap()).unwrap());
    let law = include_str!("../../../LICENSE");
    // Some of this program, as it was when the numbers below were looked at.
    let code = include_str!("../../tests/data/program.txt");
    let folder = tempfile::tempdir().unwrap();
    let judged = |name: &str, texts: &[&str]| {
        let path = folder.path().join(name);
        let pieces = texts.iter().flat_map(|text| pieces(text));
        let line = |text: String| serde_json::json!({ "text": text }).to_string() + "\n";
        std::fs::write(&path, pieces.map(line).collect::<String>()).unwrap();
        let domains = config::Domains::new(vec![config::Domain::new("law")]).unwrap();
        let corpus = Corpus::at(&path);
        let reading = Reading {
            corpus: &corpus,
            domains: &domains,
            domain: Some("law"),
            part: Of::All,
            tokens: None,
        };
        let plan = Plan { signatures: true, ..Plan::whole(reading) };
        let profile = run(&parent, plan, &mut |_, _, _| ()).unwrap().profile;
        // Of half of the experts one mask has enough for both.
        let keep = profile.experts / 4;
        let report = judge(&profile, Question { keep, seed: 1 }).unwrap();
        let written = report.write(&folder.path().join("out"), &profile.source, Some(&corpus));
        (report, written.unwrap())
    };
    let (both, files) = judged("both.jsonl", &[law, code]);
    assert_eq!((both.verdict, both.parts.len()), (Verdict::Split, 2), "{both:#?}");
    // The licence comes first.
    let licence = pieces(law).len();
    let wrong = |item: &&Item| (item.line as usize <= licence) != (item.part == both.each[0].part);
    let wrong = both.each.iter().filter(wrong).count();
    assert!(wrong * 20 <= both.items, "{wrong} of {}", both.items);
    let lines: Vec<String> =
        files[3..].iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let lines: Vec<usize> = lines.iter().map(|text| text.lines().count()).collect();
    assert_eq!(lines, both.parts.iter().map(|part| part.items).collect::<Vec<_>>());
    for (name, text) in [("law.jsonl", law), ("code.jsonl", code)] {
        let (one, _) = judged(name, &[text]);
        assert_ne!(one.verdict, Verdict::Split, "{name}: {one:#?}");
    }
}

/// At most 40 pieces of 400 bytes.
fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(400).take(40).map(|piece| piece.iter().collect()).collect()
}
