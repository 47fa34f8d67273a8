//! Shows an item in several forms.
//!
//! A benchmark's question comes with options, a book's sentence with its
//! neighbours; a user brings neither, cuts short, and mistypes.  Questions are also
//! shown with every other word gone, so that no one word decides alone.

use fastrand::Rng;

use super::books::sentences;
use crate::item::{Item, Kind};
use crate::typo::mistype;

/// Ways to ask about a subject.  All domains share them, so that the words
/// around a subject come to say nothing.
const ASK: &[&str] = &[
    "What is {}?",
    "What are {}?",
    "What's {}?",
    "what is {}",
    "Explain {}.",
    "explain {} simply",
    "How does {} work?",
    "How do {} work?",
    "Why does {} happen?",
    "Why is {} important?",
    "Tell me about {}.",
    "I don't understand {}.",
    "Can you help me with {}?",
    "Give me an example of {}.",
    "What is the difference between {} and {2}?",
    "{} vs {2}",
    "How is {} related to {2}?",
    "What causes {}?",
    "{}",
    "{}?",
    "How do I use {}?",
    "How can I improve {}?",
    "What should I know about {}?",
    "Write a short text about {}.",
    "I have a question about {}.",
    "Describe {} in detail.",
    "How do you calculate {}?",
    "When do you need {}?",
    "Who discovered {}?",
    "My teacher asked about {} and I got it wrong.",
    "What are the types of {}?",
    "What are the pros and cons of {}?",
    "Help! I have a problem with {}.",
    "Is {} the same as {2}?",
    "Summarize {} in three sentences.",
    "Where can I find {}?",
    "Why do we need {}?",
    "Compare {} with {2}.",
    "What does {} mean?",
    "Show me how to do {}.",
    "What is the purpose of {}?",
    "How long does {} take?",
    "Are {} dangerous?",
];

/// Ways a subject is asked about, of all there are.
const ASKED: usize = 4;

/// Forms of a question with words gone; they bring what the card says.
const THINNED: usize = 4;

/// The forms of an item; `peers` are other topics of its domain.
pub(super) fn forms(item: &Item, peers: &[&str], rng: &mut Rng) -> Vec<String> {
    let twice = |text: String, rng: &mut Rng| {
        let mistyped = mistype(&text, 0.2, rng);
        vec![text, mistyped]
    };
    match item.kind {
        // Alone most often, as it is asked.
        Kind::Question => {
            let mut list = twice(item.text.clone(), rng);
            let mut some = part(&item.text, rng);
            for option in item.options.iter().filter(|_| rng.bool()) {
                some.push_str(&format!("\n{option}"));
            }
            list.extend([item.whole(), some]);
            list.extend((0..THINNED).map(|_| thinned(&item.text, rng)));
            list
        }
        Kind::Topic => (0..ASKED).map(|_| ask(&item.text, peers, rng)).collect(),
        Kind::Heading => vec![ask(&item.text, peers, rng)],
        Kind::Passage | Kind::Answer => vec![part(&item.text, rng)],
        Kind::Exercise => vec![item.text.clone()],
        Kind::Said | Kind::Example | Kind::Aside => twice(item.text.clone(), rng),
    }
}

/// Each word stays by the toss of a coin.  Source: Wager et al., Dropout Training as
/// Adaptive Regularization (arXiv 1307.1493).
fn thinned(text: &str, rng: &mut Rng) -> String {
    let kept: Vec<&str> = text.split_whitespace().filter(|_| rng.bool()).collect();
    kept.join(" ")
}

fn ask(topic: &str, peers: &[&str], rng: &mut Rng) -> String {
    let peer = rng.choice(peers).copied().unwrap_or(topic);
    let form = rng.choice(ASK).copied().unwrap_or("{}");
    form.replace("{2}", peer).replace("{}", topic)
}

/// One to four sentences in a row.
pub(super) fn part(text: &str, rng: &mut Rng) -> String {
    let all = sentences(text);
    if all.is_empty() {
        return text.to_owned();
    }
    let start = rng.usize(..all.len());
    let count = 1 + rng.usize(..4);
    all[start..(start + count).min(all.len())].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_word_stays() {
        let mut rng = Rng::with_seed(2);
        let words: Vec<String> = (0..100).map(|n| format!("w{n:02}")).collect();
        for _ in 0..20 {
            let text = thinned(&words.join(" "), &mut rng);
            let kept: Vec<&str> = text.split(' ').collect();
            assert!((25..75).contains(&kept.len()) && kept.is_sorted(), "{text}");
        }
        assert_eq!(thinned("", &mut rng), "");
    }

    #[test]
    fn topics_are_asked_about() {
        let mut rng = Rng::with_seed(2);
        for _ in 0..200 {
            let text = ask("osmosis", &["mitosis"], &mut rng);
            assert!(text.contains("osmosis") && !text.contains('{'), "{text}");
        }
    }
}
