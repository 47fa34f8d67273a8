use super::*;
use crate::evaluate::document::*;
use crate::evaluate::statistics::{Correlation, Estimate, Spread};

/// What a name in a file may be, at worst.
const HOSTILE: &str =
    "</title><script>alert(1)</script>\"'><img src=x onerror=y>|\u{202e}&amp;\u{0}\n# law";

fn estimate(value: f64) -> Estimate {
    Estimate { value, spread: Some(Spread { sigma: 0.01, low: value - 0.02, high: value + 0.02 }) }
}

fn subject(name: &str, kind: Kind, domain: Option<&str>, kept: &[&[u32]]) -> Subject {
    Subject {
        name: name.to_owned(),
        kind,
        domain: domain.map(str::to_owned),
        beside: (kind == Kind::Random).then(|| "random 2".to_owned()),
        score: Some("gate".to_owned()),
        mask_sha256: Some("5".repeat(64)),
        expert_bytes: 100 * kept.iter().map(|ids| ids.len()).sum::<usize>() as u64,
        kept: kept.iter().map(|ids| ids.to_vec()).collect(),
        masking: Default::default(),
        coverage: vec![0.9, 0.8],
    }
}

/// Two masks, two draws, two domains, the second of which is named `name`.
fn evaluation(name: &str) -> Evaluation {
    let text = |cost: f64| {
        Some(TextCell {
            nats: estimate(3.0 + cost),
            cost: estimate(cost),
            ratio: estimate((-cost).exp()),
            agreement: estimate(0.9),
            kl: estimate(0.05),
        })
    };
    let asked = |right: usize, paired| {
        Some(QuestionCell {
            n: 40,
            right,
            accuracy: crate::evaluate::statistics::share(right, 40),
            loops: 3,
            recovered: 1,
            unread: 2,
            paired,
        })
    };
    let pair = Paired {
        gained: 2,
        lost: 6,
        difference: crate::evaluate::statistics::difference(2, 6, 40),
        p: crate::evaluate::statistics::mcnemar(2, 6),
        ratio: Some(estimate(0.8)),
    };
    let headings = |tokens| {
        ["math", name]
            .map(|name| Heading { name: name.to_owned(), tokens, items: 4, sha256: "7".repeat(64) })
            .to_vec()
    };
    let correlation = Correlation {
        n: 2,
        pearson: 0.8,
        interval: None,
        spearman: 1.0,
        slope: 0.5,
        intercept: 0.4,
    };
    let row = |visitor: &str, target: &str, y: f64, f: f64| Pair {
        visitor: visitor.to_owned(),
        target: target.to_owned(),
        y: estimate(y),
        overlap: Overlap { f, jaccard: f, cosine: Some(f) },
    };
    Evaluation {
        format: FORMAT.to_owned(),
        origin: Origin {
            parent: "a".repeat(64),
            name: name.to_owned(),
            architecture: name.to_owned(),
            layers: 2,
            experts: 4,
            top_k: 2,
            backbone_bytes: 1000,
            files: vec![Source {
                role: "corpus".to_owned(),
                name: name.to_owned(),
                sha256: "c".repeat(64),
            }],
            seed: 1,
            version: "0.1.0".to_owned(),
            command: format!("collegium surgery evaluate --corpus {name}"),
        },
        subjects: vec![
            subject("parent", Kind::Parent, None, &[&[0, 1, 2, 3], &[0, 1, 2, 3]]),
            subject("math", Kind::Mask, Some("math"), &[&[0, 1], &[2, 3]]),
            subject(name, Kind::Mask, Some(name), &[&[1, 2], &[0, 3]]),
            subject("random 2, draw 1", Kind::Random, None, &[&[1, 2], &[0, 1]]),
            subject("random 2, draw 2", Kind::Random, None, &[&[0, 2], &[0, 1]]),
        ],
        text: Some(Text {
            columns: headings(1234),
            cells: [[0.0, 0.0], [0.01, 0.2], [0.15, 0.02], [0.3, 0.4], [0.5, 0.6]]
                .map(|row| row.map(text).to_vec())
                .to_vec(),
        }),
        questions: Some(Questions {
            by: By::Answer,
            temperature: Some(0.6),
            max_tokens: Some(2048),
            columns: headings(40),
            guessing: vec![0.1, 0.1],
            cells: vec![
                vec![asked(30, None), asked(30, None)],
                vec![asked(26, Some(pair)), asked(20, Some(pair))],
                vec![None, asked(26, Some(pair))],
                vec![None, None],
                vec![None, None],
            ],
        }),
        transfer: vec![Transfer {
            measure: Measure::Likelihood,
            families: vec![Family {
                masks: vec!["math".to_owned(), name.to_owned()],
                common: 1,
                pairs: vec![
                    row("math", "math", 0.99, 1.0),
                    row("math", name, 0.82, 0.4),
                    row(name, "math", 0.86, 0.5),
                    row(name, name, 0.98, 1.0),
                ],
                correlations: vec![Related { with: Predictor::F, correlation }],
            }],
        }],
        usage: vec![Usage {
            domain: name.to_owned(),
            sha256: "d".repeat(64),
            tokens: 99,
            mass: vec![vec![0.1, 0.5, 0.3, 0.1], vec![0.25; 4]],
        }],
    }
}

/// Every table and plot is there, and no markup that is not the page's own.
#[test]
fn a_page_is_whole_and_loads_nothing() {
    let page = html(&evaluation("law")).unwrap();
    for title in [
        "In short",
        "At home",
        "Multiple choice",
        "All against all",
        "Size against quality",
        "Near and far",
        "Experts",
        "Provenance",
    ] {
        assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    // Home twice, sizes, two scatters, coverage by layer, one curve, keepers, two maps.
    assert_eq!(page.matches("<svg ").count(), 10);
    let opened = |tag: &str| page.matches(&format!("<{tag}")).count();
    for tag in ["svg", "table", "section", "figure", "details", "div"] {
        assert_eq!(opened(tag), page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    // The one address is the name of SVG, which nobody fetches.
    let rest = page.replace("http://www.w3.org/2000/svg", "");
    for way in ["http", "<script", "<link", "<img", "<iframe", "src=", "url(", "@import"] {
        assert_eq!(rest.matches(way).count() - usize::from(way == "http"), 0, "{way}");
    }
}

#[test]
fn names_are_only_names() {
    let plain = html(&evaluation("law")).unwrap();
    let page = html(&evaluation(HOSTILE)).unwrap();
    // As many tags as with a harmless name.
    for tag in
        ["<script", "<img", "<svg", "<title", "</title", "<td", "<th", "<text", "<span", "<p"]
    {
        assert_eq!(page.matches(tag).count(), plain.matches(tag).count(), "{tag}");
    }
    assert!(
        page.contains("&lt;script&gt;alert(1)")
            && !page.contains('\u{202e}')
            && !page.contains('\0')
    );
    // Within Markdown: no cell, no heading and no tag more.
    let (plain, text) = (markdown(&evaluation("law")), markdown(&evaluation(HOSTILE)));
    assert_eq!(text.lines().count(), plain.lines().count());
    assert_eq!(text.matches("\n#").count(), plain.matches("\n#").count());
    let bars = |text: &str| text.replace("\\|", "").matches('|').count();
    assert_eq!(bars(&text), bars(&plain));
    assert!(!text.contains("<script"));
}

#[test]
fn tables_add_up() {
    let text = markdown(&evaluation("law"));
    #[track_caller]
    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|own| own == line), "{line}\n---\n{text}");
    }
    // By lot: (0.3 + 0.5) / 2 on math.  Sizes: 1000 of backbone and 400 of experts.
    check(
        &text,
        "| math | +0.010 (-0.010 to +0.030) | 0.990 ± 0.010 | – | +0.400 | 90.0 % | 0.050 | 20.09 | 20.29 | 4 of 8 | 1400 B | 1,234 |",
    );
    check(&text, "| random 2, mean of 2 | 0.67 | 0.61 |");
    check(&text, "| math | **0.99 ± 0.01** | 0.82 ± 0.01 |");
    check(&text, "| F, without what all keep | 2 | 0.800 | 1.000 | 0.400 + 0.500 x |");
    check(
        &text,
        "| law | law | 40 | 10.0 % | 75.0 % | 65.0 % (49.5 to 77.9) | -10.0 (-23.2 to +4.2) | 2 / 6 | 0.289 | 3 (1 recovered) | 2 |",
    );
    // 2 masks at home: 52 of 80, 4 gained, 12 lost.
    assert!(
        text.contains(
            "Of 80 questions of their own domains the masks answer 52 right; they lose 12"
        )
    );
}

/// Numbers as large as JSON has them give a page, and soon.
#[test]
fn a_strange_file_gives_a_strange_page() {
    let mut odd = evaluation("law");
    for value in [f64::MAX, -f64::MAX, f64::INFINITY, f64::NAN] {
        let cell = odd.text.as_mut().unwrap().cells[1][0].as_mut().unwrap();
        cell.ratio =
            Estimate { value, spread: Some(Spread { sigma: value, low: value, high: value }) };
        odd.transfer[0].families[0].pairs[1].y = cell.ratio;
        odd.transfer[0].families[0].pairs[1].overlap.f = value;
        odd.usage[0].mass[0][0] = value as f32;
        odd.subjects[1].coverage[0] = value;
        assert!(html(&odd).unwrap().len() > 1000);
    }
    // Nothing was measured.
    let empty = Evaluation {
        text: None,
        questions: None,
        transfer: Vec::new(),
        usage: Vec::new(),
        ..evaluation("law")
    };
    html(&empty).unwrap();
    html(&Evaluation { subjects: Vec::new(), ..empty }).unwrap();
}
