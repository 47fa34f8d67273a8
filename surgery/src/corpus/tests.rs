use std::io::Write;

use super::*;

fn domains() -> Domains {
    let mut law = config::Domain::new("law");
    law.aliases = vec!["legal".to_owned()];
    Domains::new(vec![law, config::Domain::new("math")]).unwrap()
}

/// Items as `line:content`, joined by `; `, or the error without the path.
fn read(name: &str, bytes: &[u8], domain: Option<&str>, part: Part) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let (corpus, domains) = (Corpus::at(&path), domains());
    let show = |item: Result<Item, CorpusError>| match item {
        Ok(Item { line, content: Content::Text(text), .. }) => format!("{line}:{text}"),
        Ok(Item { line, content: Content::Chat(turns), .. }) => {
            let turn = |m: &Message| format!("{}>{}", &m.role[..1], m.content);
            format!("{line}:{}", turns.iter().map(turn).collect::<Vec<_>>().join(" "))
        }
        Err(error) => error.to_string().replace(&path.display().to_string(), "F"),
    };
    match corpus.items(Selection { domains: &domains, domain, part }) {
        Ok(items) => items.map(show).collect::<Vec<_>>().join("; "),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(text: &str, want: &str) {
    assert_eq!(read("c.jsonl", text.as_bytes(), None, Part::All), want);
}

#[test]
fn forms() {
    check(r#"{"text": "a", "source": {"any": 1}}"#, "1:a");
    check("\u{feff}{\"text\": \"a\"}\r\n\n  \n{\"text\": \"b\"}", "1:a; 4:b");
    check(r#"{"prompt": "p", "response": "r"}"#, "1:u>p a>r");
    check(
        r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}"#,
        "1:s>s u>u",
    );
    // The answer by letter, by text, by index; or free.
    let ask =
        |answer| format!(r#"{{"question": "q", "options": ["x", "yy"], "answer": {answer}}}"#);
    for answer in [r#""B""#, r#""b""#, r#""yy""#, "1"] {
        check(&ask(answer), "1:u>q\nA. x\nB. yy a>yy The answer is (B).");
    }
    check(r#"{"question": "6*3?", "answer": 18}"#, "1:u>6*3? a>18");
}

#[test]
fn labels() {
    let two = br#"{"text": "l", "domain": "LEGAL"}
        {"text": "m", "category": "math"}
        {"text": "any"}"#;
    assert_eq!(read("c.jsonl", two, Some("law"), Part::All), "1:l; 3:any");
    assert_eq!(read("c.jsonl", two, Some("math"), Part::All), "2:m; 3:any");
    assert_eq!(read("c.jsonl", two, None, Part::All), "1:l; 2:m; 3:any");
    // Also where it would have been left out, and nothing is read after it.
    let unknown = b"{\"text\": \"l\"}\n{\"text\": \"x\", \"domain\": \"maths\"}\n{\"text\": \"l\"}";
    let error = "F:2: label \"maths\" names no domain (nearest is \"math\"); add it to a domain's \
                 aliases, or correct it";
    assert_eq!(read("c.jsonl", unknown, Some("law"), Part::All), format!("1:l; {error}"));
}

#[test]
fn one_in_twenty_is_held_back() {
    let all: String = (1..=41).map(|n| format!("{{\"text\": \"t{n}\"}}\n")).collect();
    let of = |part| read("c.jsonl", all.as_bytes(), None, part);
    assert_eq!(of(Part::HeldBack), "20:t20; 40:t40");
    assert_eq!(of(Part::Training).split("; ").count(), 39);
    assert!(!of(Part::Training).contains("t40"));
}

#[test]
fn bad_lines() {
    check("{\"text\": \"a\"}\n{", "1:a; F:2: EOF while parsing an object (column 1)");
    check("[1]", "F:1: invalid type: integer `1`, expected a string (column 2)");
    check(r#"{"text": 3}"#, "F:1: invalid type: integer `3`, expected a string (column 10)");
    check(r#"{"text": ""}"#, r#"F:1: "text" is empty"#);
    check(r#"{"messages": []}"#, r#"F:1: "messages" is empty"#);
    check(r#"{"prompt": "p"}"#, r#"F:1: "prompt" has no "response""#);
    check(r#"{"question": "q"}"#, r#"F:1: "question" has no "answer""#);
    check(
        r#"{"question": "q", "options": ["x", "y"], "answer": "C"}"#,
        r#"F:1: "answer" is "C": no letter, text or index of 2 options"#,
    );
    check(
        r#"{"question": "q", "options": ["x"], "answer": "A"}"#,
        r#"F:1: "options" has one; a question has two or more, or none"#,
    );
    check(r#"{"question": "q", "answer": null}"#, r#"F:1: "question" has no "answer""#);
    check(r#"{"question": "q", "answer": []}"#, r#"F:1: "answer" is neither text nor a number"#);
    let none = read("c.jsonl", b"{\"label\": 1}", None, Part::All);
    assert!(none.starts_with("F:1: no item here"), "{none}");
    let latin = read("c.jsonl", b"{\"text\": \"\xe9\"}", None, Part::All);
    assert!(latin.starts_with("F:1: invalid unicode code point"), "{latin}");
    // Nesting is refused before the stack is gone.
    let deep = read("c.jsonl", "[".repeat(1 << 20).as_bytes(), None, Part::All);
    assert!(deep.starts_with("F:1: "), "{deep}");
    let long = read("c.jsonl", &vec![b' '; (16 << 20) + 2], None, Part::All);
    assert_eq!(long, "F:1: the line is longer than 16777216 bytes; split the item");
}

// Whatever the bytes are, a corpus is items and at most one error, at its end.
#[test]
fn hostile_bytes_are_an_error_at_most() {
    let lines = [
        r#"{"text": "a", "domain": "law"}"#,
        r#"{"messages": [{"role": "user", "content": "u"}]}"#,
        r#"{"question": "q", "options": ["x", "yy"], "answer": "B", "category": "math"}"#,
    ];
    let good = lines.join("\n").into_bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.jsonl");
    let (corpus, domains) = (Corpus::at(&path), domains());
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, *b"\n\"{[\\\xff".get(random.usize(0..6)).unwrap_or(&0)),
                _ => drop(bytes.remove(at)),
            }
            bytes.push(b' ');
        }
        std::fs::write(&path, &bytes).unwrap();
        let all = Selection { domains: &domains, domain: None, part: Part::All };
        let good: Vec<bool> = corpus.items(all).unwrap().map(|item| item.is_ok()).collect();
        assert!(good.iter().rev().skip(1).all(|good| *good), "{}", bytes.escape_ascii());
    }
}

#[test]
fn compressed() {
    let pack = |text: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let one = pack(b"{\"text\": \"a\"}\n");
    assert_eq!(read("c.jsonl.xz", &one, None, Part::All), "1:a");
    // Streams one after another are one file, as `xz` has it.
    let two = [one.clone(), pack(b"{\"text\": \"b\"}\n")].concat();
    assert_eq!(read("c.jsonl.xz", &two, None, Part::All), "1:a; 2:b");
    for cut in 0..one.len() {
        let got = read("c.jsonl.xz", &one[..cut], None, Part::All);
        assert!(got.contains("F:"), "{cut}: {got}");
    }
    assert!(read("c.jsonl.xz", b"{\"text\": \"a\"}", None, Part::All).contains("F:1: "));
}

#[test]
fn an_empty_selection_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.jsonl");
    std::fs::write(&path, "{\"text\": \"a\", \"domain\": \"law\"}\n").unwrap();
    let (corpus, domains) = (Corpus::at(&path), domains());
    let survey = |domain| {
        let selection = Selection { domains: &domains, domain: Some(domain), part: Part::All };
        corpus.survey(selection).map_err(|error| error.to_string())
    };
    assert_eq!(survey("law"), Ok(Survey { items: 1, bytes: 31 }));
    let all = Selection { domains: &domains, domain: None, part: Part::All };
    assert_eq!(corpus.labels(all).unwrap().into_iter().collect::<Vec<_>>(), ["law"]);
    assert!(survey("math").unwrap_err().ends_with("no item for the domain \"math\""));
    assert_eq!(corpus.name(), "c");
}
