//! Decisions of the shipped weights, and of a domain they have never seen.

use config::{Domain, Domains};

use crate::{Query, Reason, Role, Rule, Supervisor, SupervisorError, Turn, Weights};

/// The shipped domains and those given, as if an operator had added them.
fn domains(added: Vec<Domain>) -> Domains {
    let shipped = config::shipped().unwrap().domains;
    let kept = shipped.iter().filter(|d| added.iter().all(|a| a.id != d.id)).cloned();
    Domains::new(kept.chain(added.iter().cloned()).collect()).unwrap()
}

fn shipped(threshold: f32) -> Supervisor {
    Supervisor::shipped(&domains(Vec::new()), threshold).unwrap()
}

/// A conversation of `role: text` lines.
fn talk(lines: &[&str]) -> Query {
    let turn = |line: &&str| {
        let (role, text) = line.split_once(": ").unwrap();
        let role = match role {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            _ => Role::Tool,
        };
        Turn { role, text: text.into() }
    };
    Query { turns: lines.iter().map(turn).collect() }
}

#[track_caller]
fn check(sup: &Supervisor, query: &Query, want: &str) {
    let got = sup.decide(query);
    let shown = got.domain.as_deref().unwrap_or("none");
    assert_eq!(
        shown,
        want,
        "{:?} {:?}",
        &got.alternatives[..got.alternatives.len().min(3)],
        got.evidence
    );
}

#[test]
fn questions_of_users() {
    let sup = shipped(0.5);
    for (text, want) in [
        ("How do I reverse a list in Python?", "computer-science"),
        ("What is the derivative of x^2?", "math"),
        ("Can my landlord evict me without notice?", "law"),
        ("What are the symptoms of anemia?", "health"),
        ("What caused the French Revolution?", "history"),
        ("What causes inflation?", "economics"),
    ] {
        check(&sup, &Query::text(text), want);
    }
}

#[test]
fn abstains_where_nothing_is_said() {
    let sup = shipped(0.0);
    for text in ["", " \n", "hi", "Thanks!", "ok", "?!", "…"] {
        let got = sup.decide(&Query::text(text));
        assert!(got.abstained && got.domain.is_none() && got.rule == Rule::Abstained, "{text:?}");
        assert!(got.alternatives.is_empty() && got.confidence == 0.0, "{text:?}");
    }
    // Nobody asked yet.
    check(&sup, &talk(&["system: You are a lawyer.", "tool: def f(x): return x"]), "none");
}

/// `other` is a label and a guess, and never a choice.
#[test]
fn other_is_no_specialist() {
    let got = shipped(0.0).decide(&Query::text("What is the capital of Australia?"));
    assert_eq!(got.alternatives[0].domain, "other");
    assert!(got.abstained && got.domain.is_none() && got.confidence > 0.0);
}

#[test]
fn a_disabled_domain_is_not_chosen() {
    let mut law = Domain::new("law");
    law.enabled = false;
    let sup = Supervisor::shipped(&domains(vec![law]), 0.0).unwrap();
    check(&sup, &Query::text("Can my landlord evict me without notice?"), "none");
}

#[test]
fn a_threshold_only_ever_abstains() {
    let query = Query::text("Explain the difference between B2B and B2C.");
    let (low, high) = (shipped(0.0).decide(&query), shipped(1.0).decide(&query));
    assert_eq!(low.alternatives, high.alternatives);
    assert!(!low.abstained && high.abstained && low.confidence == high.confidence);
    for threshold in [-0.1, 1.1, f32::NAN] {
        let made = Supervisor::shipped(&domains(Vec::new()), threshold);
        assert!(matches!(made, Err(SupervisorError::Threshold { .. })));
    }
}

/// A text of any length is read in bounded time and space, and gives an answer.
#[test]
fn a_megabyte_is_read_at_both_ends() {
    let sup = shipped(0.5);
    let noise = "\u{0}\u{fffd}x ".repeat(200_000);
    let got = sup.decide(&Query::text(noise));
    assert!(got.confidence.is_finite() && got.abstained);
    let law = "Can my landlord evict me without notice? ".repeat(30_000);
    assert_eq!(sup.decide(&Query::text(law)).domain.as_deref(), Some("law"));
}

/// Each abstention says why.
#[test]
fn reasons() {
    #[track_caller]
    fn check(text: &str, want: &[Option<Reason>]) {
        let got = shipped(0.5).decide(&Query::text(text));
        assert!(want.contains(&got.reason), "{text:?}: {got:?}");
        assert_eq!(got.reason.is_none(), got.domain.is_some() && got.rule == Rule::Classifier);
        let next = got.alternatives.get(1).map_or(0.0, |next| next.probability);
        assert!((got.margin - (got.confidence - next)).abs() < 1e-6);
        assert!(got.set.len() <= got.alternatives.len());
    }
    check("What is a tort?", &[None]);
    check("thanks!", &[Some(Reason::Empty)]);
    check(
        "What is the capital of Australia?",
        &[Some(Reason::NotRouted), Some(Reason::Unsure), Some(Reason::Ambiguous)],
    );
    let lost = [Some(Reason::Unfamiliar), Some(Reason::Unsure)];
    check("qwfp zxcd jklh wqrt ppol", &lost);
    check("今日の天気はどうですか？", &lost);
    check("Ich habe gestern einen schönen Film gesehen.", &lost);
    let aside = [Some(Reason::Unfamiliar), Some(Reason::Unsure), Some(Reason::NotRouted)];
    check("tell me a funny story about your cat", &aside);
}

/// What is strange to the labels takes certainty from all of them alike.
#[test]
fn strange_texts_are_unsure() {
    let sup = shipped(0.5);
    let sure = |text: &str| sup.decide(&Query::text(text)).confidence;
    assert!(sure("What is a tort?") > sure("wie geht es dir heute mein freund") + 0.2);
}

#[test]
fn a_conversation() {
    let sup = shipped(0.3);
    let code = "user: How do I reverse a list in Python?";
    // A follow-up without words of its own stays.
    check(&sup, &talk(&[code, "assistant: Use reversed().", "user: thanks"]), "computer-science");
    check(&sup, &talk(&[code, "assistant: Use reversed().", "user: why?"]), "computer-science");
    // A new topic moves.
    let law = "user: Can my landlord evict me without notice?";
    check(&sup, &talk(&[code, "assistant: Use reversed().", law]), "law");
    check(&sup, &talk(&[law, code]), "computer-science");
    // Who else speaks does not matter.
    let noise = "system: You are a careful lawyer who knows contracts, torts and courts.";
    let tool = "tool: The court held that the landlord was liable for breach of the lease.";
    let (alone, among) = (sup.decide(&talk(&[code])), sup.decide(&talk(&[noise, code, tool])));
    assert_eq!(alone.alternatives, among.alternatives);
}

/// What `query.rs` tells of the weight of turns; `data/check.jsonl` trained nothing.
#[test]
fn topics_move_and_follow_ups_stay() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/check.jsonl");
    let lines = std::fs::read_to_string(file).unwrap();
    let sup = shipped(0.0);
    let best = |turns: &[&str]| sup.decide(&talk(turns)).alternatives[0].domain.clone();
    let asked: Vec<(usize, String, String)> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .enumerate()
        .map(|(at, line)| {
            let said = format!("user: {}", line["text"].as_str().unwrap());
            (at, line["domain"].as_str().unwrap().to_owned(), said)
        })
        .collect();
    let right: Vec<bool> = asked.iter().map(|(_, domain, said)| best(&[said]) == *domain).collect();
    let follow_ups = [
        "user: why?",
        "user: can you explain that again more simply",
        "user: and what happens next",
        "user: give me an example",
        "user: I still don't get it, show me the steps",
        "user: how do you know that",
    ];
    let (mut moved, mut pairs, mut stayed, mut followed) = (0, 0, 0, 0);
    for (at, domain, said) in asked.iter().filter(|(at, ..)| right[*at]) {
        for apart in [29, 67] {
            let (other, other_domain, before) = &asked[(at * 7 + apart) % asked.len()];
            if other_domain != domain && right[*other] {
                pairs += 1;
                moved += usize::from(best(&[before, "assistant: Well.", said]) == *domain);
            }
        }
        followed += 1;
        let follow_up = follow_ups[at % follow_ups.len()];
        stayed += usize::from(best(&[said, "assistant: Well.", follow_up]) == *domain);
    }
    println!("moved {moved} of {pairs}, stayed {stayed} of {followed}");
    assert!(pairs > 150 && followed > 100, "{pairs} pairs, {followed} followed");
    assert!(moved * 100 >= pairs * 85, "{moved} of {pairs} moved");
    assert!(stayed * 100 >= followed * 75, "{stayed} of {followed} stayed");
}

fn gardening() -> Domain {
    let mut domain = Domain::new("gardening");
    domain.examples = [
        "When should I prune my roses?",
        "Why are the leaves of my tomato plants turning yellow?",
        "How often do I have to water a lawn in summer?",
        "Which vegetables can I sow in March?",
        "How do I get rid of slugs in the garden?",
        "What soil do hydrangeas need?",
        "Can I plant garlic in spring?",
        "How deep should tulip bulbs be planted?",
        "What is eating my cabbage plants?",
        "How do I make compost from kitchen scraps?",
        "Which shrubs grow well in the shade?",
        "When do I harvest potatoes from a raised bed?",
        "How do I prune an apple tree in winter?",
        "What fertilizer is best for tomatoes in pots?",
        "Can lavender survive frost in the garden?",
        "How far apart should I plant strawberry plants?",
    ]
    .map(str::to_owned)
    .to_vec();
    domain
}

#[test]
fn an_added_domain_is_routed_at_once() {
    let sup = Supervisor::shipped(&domains(vec![gardening()]), 0.5).unwrap();
    // Not among the examples.
    check(&sup, &Query::text("How do I prune my tomato plants?"), "gardening");
    check(&sup, &Query::text("Which soil is best for roses in a garden?"), "gardening");
    let got = sup.decide(&Query::text("Which soil is best for roses in a garden?"));
    assert!(got.evidence.iter().any(|e| e.text.contains("soil") || e.text.contains("roses")));
}

/// Others keep their place, and their odds among themselves.
#[test]
fn an_added_domain_leaves_the_others_alone() {
    let with = Supervisor::shipped(&domains(vec![gardening()]), 0.5).unwrap();
    let without = shipped(0.5);
    for text in ["Can my landlord evict me without notice?", "What is the derivative of x^2?"] {
        let (with, without) = (with.decide(&Query::text(text)), without.decide(&Query::text(text)));
        assert_eq!(with.domain, without.domain);
        let sum: f32 = with.alternatives.iter().map(|a| a.probability).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        let of = |d: &crate::Decision, id: &str| {
            d.alternatives.iter().find(|a| a.domain == id).unwrap().probability
        };
        let ratio = |d: &crate::Decision| of(d, "law") / of(d, "math");
        assert!((ratio(&with) / ratio(&without) - 1.0).abs() < 1e-3);
    }
}

#[test]
fn a_domain_without_examples_is_an_error() {
    let err = Supervisor::shipped(&domains(vec![Domain::new("tea")]), 0.5).unwrap_err();
    assert!(err.to_string().starts_with("domain \"tea\" has 0 examples"), "{err}");
}

#[test]
fn shipped_weights_fit() {
    let weights = Weights::shipped().unwrap();
    assert_eq!(weights.header().labels.len(), 14);
    assert!(weights.write().len() <= 4_000_000);
    assert_eq!(Weights::read(&weights.write()), Ok(weights));
}

/// An answer is JSON that a client can read back, in the names it was promised.
#[test]
fn a_decision_as_json() {
    let got = shipped(0.5).decide(&Query::text("How do I reverse a list in Python?"));
    let json = serde_json::to_value(&got).unwrap();
    assert_eq!(json["rule"], "classifier");
    assert_eq!(json["domain"], "computer-science");
    assert_eq!(serde_json::from_value::<crate::Decision>(json).unwrap(), got);
    let sorted = got.alternatives.is_sorted_by(|a, b| a.probability >= b.probability);
    assert!(sorted && got.evidence[0].weight != 0.0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Whatever is sent, probabilities are probabilities, and twice the same.
    #[test]
    fn any_text_is_decided(text in "\\PC{0,400}") {
        let sup = shipped(0.5);
        let (mut a, mut b) = (sup.decide(&Query::text(&*text)), sup.decide(&Query::text(&*text)));
        (a.micros, b.micros) = (0, 0);
        proptest::prop_assert_eq!(&a, &b);
        let sum: f32 = a.alternatives.iter().map(|x| x.probability).sum();
        proptest::prop_assert!(a.alternatives.is_empty() || (sum - 1.0).abs() < 1e-3);
    }
}
