//! Curves by hand, and a report of a few questions from end to end.

use super::curves::{self, Asked};
use super::*;
use crate::evaluate::Options;
use crate::item::Kind as ItemKind;

/// Each word reads `confidence+` if right, `confidence-` if wrong, with
/// `/oddness` after it where that matters.
fn asked(text: &str) -> Vec<Asked> {
    let one = |word: &str| {
        let (said, odd) = word.split_once('/').unwrap_or((word, "0"));
        Asked {
            truth: "a".into(),
            guess: if said.ends_with('+') { "a".into() } else { "b".into() },
            confidence: said[..said.len() - 1].parse().unwrap(),
            abstained: false,
            oddness: odd.parse().unwrap(),
            micros: 7,
        }
    };
    text.split_whitespace().map(one).collect()
}

#[test]
fn bins_hold_what_falls_in_them() {
    let bins = curves::reliability(&asked("1.0+ 0.99- 0.5+ 0.0-"));
    let seen: Vec<(usize, f64)> = bins.iter().map(|bin| (bin.n, bin.accuracy)).collect();
    assert_eq!(seen, [(1, 0.0), (1, 1.0), (2, 0.5)]);
    assert!((bins[2].confidence - 0.995).abs() < 1e-6 && bins[2].high == 1.0);
    // The error of these bins is the evaluation's own.
    let off: f64 = bins.iter().map(|b| b.n as f64 * (b.confidence - b.accuracy).abs()).sum();
    assert!((off / 4.0 - (0.0 + 0.5 + 2.0 * 0.495) / 4.0).abs() < 1e-6, "{off}");
    assert!(curves::reliability(&[]).is_empty());
}

#[test]
fn the_surest_are_answered_first() {
    let points = curves::coverage(&asked("0.1- 0.9+ 0.8+ 0.7-"));
    let at = |x: f64| points.iter().find(|p| (p.x - x).abs() < 1e-9).unwrap().y;
    assert_eq!((at(0.25), at(0.5), at(0.75), at(1.0)), (1.0, 1.0, 2.0 / 3.0, 0.5));
    // A share of one answer is that answer.
    assert_eq!(at(0.01), 1.0);
}

#[test]
fn areas_count_ties_half() {
    #[track_caller]
    fn check(items: &str, texts: &str, auc: f64, rejected_at_95: f64) {
        let (items, texts) = (asked(items), asked(texts));
        let got = curves::rejection(&items.iter().collect::<Vec<_>>(), &texts).unwrap();
        assert!((got.auc - auc).abs() < 1e-9, "{}", got.auc);
        assert!((got.rejected_at_95 - rejected_at_95).abs() < 1e-9, "{}", got.rejected_at_95);
        assert!((got.kinds["a"].auc - auc).abs() < 1e-9);
        assert!((got.items_by_oddness.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
    check("1+/0.1 1+/0.2", "1+/0.8 1+/0.9", 1.0, 0.0);
    check("1+/0.8 1+/0.9", "1+/0.1 1+/0.2", 0.0, 1.0);
    check("1+/0.5 1+/0.5", "1+/0.5", 0.5, 1.0);
    check("1+/0.1 1+/0.6", "1+/0.5 1+/0.9", 0.75, 0.5);
    assert_eq!(curves::rejection(&[], &asked("1+")), None);
}

fn item(text: &str, domain: &str) -> Item {
    let asked = Item::new(text, domain, ItemKind::Question);
    Item { options: vec!["yes".into()], own_label: true, ..asked }
}

#[test]
fn a_report_from_end_to_end() {
    let domains = config::shipped().unwrap().domains;
    let supervisor = Supervisor::shipped(&domains, 0.5).unwrap();
    let items = [
        item("Can my landlord evict me without notice?", "law"),
        item("What is the derivative of x^2?", "math"),
        item("What is the capital of Australia?", "other"),
    ];
    let strange = [("hi", "talk"), ("zxcv qwpo", "noise|<")];
    let strange = strange.map(|(t, k)| Strange { text: t.into(), kind: k.into() });
    let measured = Measured {
        supervisor: &supervisor,
        items: &items.iter().collect::<Vec<_>>(),
        strange: &strange,
        routed: &|id| domains.get(id).is_some_and(|domain| domain.enabled),
        options: Options::default(),
        command: "this `test`".into(),
    };
    let report = measure(measured, &mut |_, _, _| ()).unwrap();
    let ood = report.ood.as_ref().unwrap();
    // What is not routed to is no question that ought to be accepted.
    assert_eq!((ood.inside, ood.outside, ood.auc), (2, 2, 1.0));
    assert_eq!(report.typos[0].accuracy, report.evaluation.accuracy);
    let pictures = pictures(&report).unwrap();
    assert_eq!(pictures.len(), 6);
    let page = markdown(&report);
    for (name, svg) in &pictures {
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{name}");
        assert!(page.contains(&format!("]({name})")), "{name}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
    }
    assert!(page.contains("this 'test'") && page.contains("noise") && !page.contains("noise|"));
    let json = serde_json::to_value(&report).unwrap();
    for key in ["accuracy", "accuracy_at_90", "ece", "abstained", "confusion", "latency_us"] {
        assert!(!json[key].is_null(), "{key}");
    }
    // Without texts of no domain there is no picture of them, and no broken link.
    let bare = Report { ood: None, ..report };
    assert!(super::pictures(&bare).unwrap().iter().all(|(name, _)| name != "ood.svg"));
    assert!(!markdown(&bare).contains("ood.svg"));
}

#[test]
fn lists_of_strange_texts() {
    #[track_caller]
    fn check(text: &[u8], want: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ood.jsonl");
        std::fs::write(&path, text).unwrap();
        let got = strange(&path).map(|all| format!("{all:?}"));
        let got = got.unwrap_or_else(|error| error.to_string());
        assert!(got.contains(want), "{got}");
    }
    check(br#"{"text": "a"}"#, r#"text: "a", kind: "unnamed""#);
    check(b"{\"text\": \"a\xff\", \"kind\": \"k\"}", r#"kind: "k""#);
    check(b"plain \"words\"", "kind: \"unnamed\"");
    check(b"", "no text to learn from");
    check(b"{\"question\": \"a\"}\n{ plain", r#"text: "{ plain""#);
    check(b"{\"text\": \"a\"}\n{\"kind\": \"k\"}", "ood.jsonl:2: missing field `text`");
    check(b"{\"text\": 1}", "ood.jsonl:1: invalid type");
}
