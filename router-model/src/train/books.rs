//! A book as items: its headings, the questions it asks, and passages.
//!
//! Made for plain text that was a textbook or a code of law: a line is a
//! paragraph or a piece of one, and some lines come back in every chapter.

use std::collections::HashMap;

use crate::item::{Item, Kind};

/// About four sentences.
const PASSAGE_BYTES: usize = 400;

/// A line that comes this often is the book's furniture ("Learning Objectives").
const FURNITURE: usize = 3;

/// The items of a book; passages are spread evenly over it, at most `most`, and
/// so are headings and exercises.
pub(super) fn items(text: &str, domain: &str, most: usize) -> Vec<Item> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for line in &lines {
        *count.entry(line).or_default() += 1;
    }
    let (mut passages, mut headings, mut exercises) = (Vec::new(), Vec::new(), Vec::new());
    let mut passage = String::new();
    for (at, line) in lines.iter().enumerate() {
        if count[line] >= FURNITURE {
            continue;
        }
        if is_heading(line) && lines.get(at + 1).is_some_and(|next| next.len() > 80) {
            headings.push((*line).to_owned());
        }
        let asked = sentences(line).into_iter().filter(|s| is_exercise(s));
        exercises.extend(asked.map(str::to_owned));
        passage.push_str(line);
        passage.push(' ');
        if passage.len() >= PASSAGE_BYTES {
            passages.push(std::mem::take(&mut passage));
        }
    }
    passages.push(passage);
    let lists = [(passages, Kind::Passage), (headings, Kind::Heading), (exercises, Kind::Exercise)];
    lists
        .into_iter()
        .flat_map(|(list, kind)| spread(list, most).into_iter().map(move |text| (text, kind)))
        .filter(|(text, _)| text.chars().any(char::is_alphabetic))
        .map(|(text, kind)| Item::new(&text, domain, kind))
        .collect()
}

/// At most `most` of a list, evenly.
fn spread<T>(list: Vec<T>, most: usize) -> Vec<T> {
    let (all, keep) = (list.len(), most.min(list.len()));
    let chosen = |at: usize| (at + 1) * keep / all > at * keep / all;
    list.into_iter().enumerate().filter(|(at, _)| chosen(*at)).map(|(_, t)| t).collect()
}

/// Splits at the end of sentences; good enough to cut a passage.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for at in 0..bytes.len() {
        let ends = matches!(bytes[at], b'.' | b'?' | b'!');
        if ends && bytes.get(at + 1).is_none_or(u8::is_ascii_whitespace) {
            parts.push(text[start..=at].trim());
            start = at + 1;
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn is_heading(line: &str) -> bool {
    let words = line.split_whitespace().count();
    let first = line.chars().next().is_some_and(char::is_uppercase);
    let plain = line.chars().all(|c| c.is_alphabetic() || " -’'".contains(c));
    (1..=6).contains(&words) && first && plain && line.len() > 3
}

fn is_exercise(sentence: &str) -> bool {
    let words = sentence.split_whitespace().count();
    sentence.ends_with('?') && (4..=50).contains(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_book() {
        let long = "A long paragraph about the sea, which goes on and on, and tells of tides and of fish and salt";
        let text = format!(
            "Objectives\n{long} one.\nThe Tides\n{long} two. Why do tides rise twice a day?\nObjectives\nObjectives\n"
        );
        let items = items(&text, "physics", 10);
        let of = |kind: Kind| -> Vec<&str> {
            items.iter().filter(|i| i.kind == kind).map(|i| i.text.as_str()).collect()
        };
        assert_eq!(of(Kind::Heading), ["The Tides"]);
        assert_eq!(of(Kind::Exercise), ["Why do tides rise twice a day?"]);
        assert_eq!(of(Kind::Passage).len(), 1);
        assert!(!of(Kind::Passage)[0].contains("Objectives"));
    }

    #[test]
    fn cuts() {
        assert_eq!(sentences("It is 3.5 m. Why? So!"), ["It is 3.5 m.", "Why?", "So!"]);
        assert_eq!(sentences(""), [""; 0]);
        assert_eq!(spread((0..10).collect(), 3), [3, 6, 9]);
        assert_eq!(spread((0..2).collect(), 3), [0, 1]);
        assert_eq!(spread(Vec::<u8>::new(), 3), [0; 0]);
    }
}
