//! Domains an operator might write, held against the shipped ones.

use config::{Domain, Domains};

use super::{Lint, faults, lint};
use crate::Weights;

const GARDENING: &[&str] = &[
    "When should I prune my roses?",
    "Why are the leaves of my tomato plants turning yellow?",
    "How often should I water a newly planted hedge?",
    "Which vegetables can I sow in March?",
    "how do I get rid of slugs in the vegetable bed",
    "Can I plant tulip bulbs in pots on a balcony?",
    "What is the best compost for raised beds?",
    "My roses have black spots on the leaves, what should I do?",
    "When do I harvest garlic that was planted in autumn?",
    "How deep should I plant potatoes?",
    "Should I mulch the flower beds before winter?",
    "How do I prune an old apple tree?",
    "Which plants grow well in the shade of a hedge?",
    "Why does my lawn have moss, and how do I get rid of it?",
    "How far apart should tomato plants stand in a greenhouse?",
];

/// Questions that the shipped `health` is for.
const CLINIC: &[&str] = &[
    "What are the symptoms of anemia?",
    "Which drugs lower blood pressure?",
    "How is pneumonia treated in elderly patients?",
    "What is the normal range of blood glucose?",
    "Which vaccine protects against measles?",
    "How long does a broken wrist take to heal?",
    "What are the side effects of ibuprofen?",
    "Is a fever of 39 dangerous for a child?",
];

fn domain(id: &str, examples: &[&str]) -> Domain {
    let mut domain = Domain::new(id);
    domain.description = "Written for a test.".into();
    domain.examples = examples.iter().map(|e| (*e).to_owned()).collect();
    domain
}

fn with(added: Vec<Domain>) -> Domains {
    let shipped = config::shipped().unwrap().domains;
    let kept = shipped.iter().filter(|d| added.iter().all(|a| a.id != d.id)).cloned();
    Domains::new(kept.chain(added.iter().cloned()).collect()).unwrap()
}

fn look(examples: &[&str]) -> Lint {
    let domains = with(vec![domain("tea", examples)]);
    lint("tea", &domains, &Weights::shipped().unwrap(), 0.5).unwrap()
}

/// `codes` are those that must be among the findings; each comes with its message.
#[track_caller]
fn check(examples: &[&str], refused: bool, codes: &[&str]) {
    let lint = look(examples);
    assert_eq!(lint.refused, refused, "{:?}", lint.findings);
    for code in codes {
        assert!(lint.findings.iter().any(|f| f.code == *code), "{code}: {:?}", lint.findings);
    }
    assert_eq!(lint.findings.is_empty(), codes.is_empty(), "{:?}", lint.findings);
}

#[test]
fn a_domain_of_its_own_is_fine() {
    let lint = look(GARDENING);
    assert!(!lint.refused && !lint.trained);
    let held = lint.held_out.unwrap();
    assert_eq!((held.n, held.folds), (GARDENING.len(), 10));
    assert!(held.right * 2 > held.n && held.guesses[0].domain == "tea", "{held:?}");
    assert_eq!(held.guesses.iter().map(|g| g.n).sum::<usize>(), held.n);
    assert!(held.takes.iter().map(|t| t.n).sum::<usize>() <= 5, "{:?}", held.takes);
    assert!(lint.fit_ms > 0.0 && lint.fit_ms < 1_000.0, "{} ms", lint.fit_ms);
}

#[test]
fn what_is_wrong_with_examples_is_said() {
    check(&GARDENING[..2], true, &["few_examples"]);
    // Greetings and repeats are no examples.
    check(&["hi", "ok", "thanks!", GARDENING[0]], true, &["few_examples", "empty_talk"]);
    let twice = "when should I prune  my ROSES";
    check(&[&[twice], &GARDENING[..2]].concat(), true, &["few_examples", "duplicate"]);
    check(&[&[twice], GARDENING].concat(), false, &["duplicate"]);
    let near = "When should I prune my old roses?";
    check(&[&[near], GARDENING].concat(), false, &["near_duplicate"]);
    // An example of the shipped law.
    let law = "How do I contest a will?";
    check(&[&[law], GARDENING].concat(), true, &["contradiction"]);
    let like = "How do I contest a will in court?";
    check(&[&[like], GARDENING].concat(), false, &["alike_elsewhere"]);
}

#[test]
fn confusion_is_named_with_what_it_is_with() {
    let lint = look(CLINIC);
    let held = lint.held_out.unwrap();
    let health = held.guesses.iter().find(|g| g.domain == "health").map_or(0, |g| g.n);
    let taken = held.takes.iter().find(|t| t.domain == "health").map_or(0, |t| t.n);
    assert!(health >= 2 || taken >= 2, "{held:?}");
    let named = |f: &super::Finding| {
        ["confused", "takes"].contains(&f.code) && f.message.contains("\"health\"")
    };
    assert!(lint.findings.iter().any(named), "{:?}", lint.findings);
    assert!(lint.suggestions.iter().any(|s| s.contains("\"health\"")), "{:?}", lint.suggestions);
    for confused in &held.confused {
        let near = confused.nearest.as_ref().map(|n| n.domain.as_str());
        assert!(near.is_none_or(|domain| domain == confused.guess), "{confused:?}");
    }
}

/// A held-out example must not help itself: one that shares nothing with the
/// others cannot be right.
#[test]
fn nothing_is_asked_that_was_learnt() {
    let odd = ["zyxw qvut", "plugh xyzzy", "frobnitz grault", "wibble quuxly", "snark borogove"];
    let held = look(&odd).held_out.unwrap();
    assert_eq!((held.n, held.right), (5, 0), "{held:?}");
}

#[test]
fn few_are_not_parted() {
    let lint = look(&GARDENING[..3]);
    assert!(!lint.refused && lint.held_out.is_none());
    assert!(lint.suggestions.iter().any(|s| s.contains("nothing can be held out")));
}

/// Faults are of the set, whichever file came last.
#[test]
fn contradictions_are_seen_from_both_sides() {
    #[track_caller]
    fn check(a: Domain, b: Domain, want: &str) {
        let labels = ["law".to_owned()];
        let got: Vec<String> = faults([&a, &b], &labels).iter().map(ToString::to_string).collect();
        assert!(got.join("\n").contains(want) && got.is_empty() == want.is_empty(), "{got:?}");
    }
    let off = |mut domain: Domain| {
        domain.enabled = false;
        domain
    };
    let (three, same) = (["one two", "three", "four"], ["five", "six", "Three!"]);
    check(domain("a", &three), domain("b", &same), "domains \"a\" and \"b\" both have");
    check(domain("a", &three), domain("law", &same), "domains \"a\" and \"law\" both have");
    check(domain("law", &three), domain("b", &same), "domains \"law\" and \"b\" both have");
    check(domain("law", &three), off(domain("b", &same)), "");
    check(domain("a", &three), domain("b", &same[..2]), "\"b\" has 2 examples");
    check(domain("a", &three), off(domain("b", &[])), "");
    check(domain("law", &[]), domain("a", &three), "");
}
