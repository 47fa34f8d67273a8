//! Shows an item in another form each time.
//!
//! A benchmark's question comes with options, a book's sentence with its
//! neighbours; a user brings neither, cuts short, and mistypes.

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

/// One form of an item; `peers` are other topics of its domain, `typos` the
/// share of forms that are mistyped.
pub(super) fn view(item: &Item, peers: &[&str], typos: f32, rng: &mut Rng) -> String {
    let text = match item.kind {
        Kind::Question => question(item, rng),
        Kind::Topic | Kind::Heading => ask(&item.text, peers, rng),
        Kind::Passage | Kind::Answer => part(&item.text, rng),
        Kind::Said | Kind::Example | Kind::Exercise | Kind::Aside => item.text.clone(),
    };
    match rng.f32() < typos {
        true => mistype(&text, 0.2, rng),
        false => text,
    }
}

/// Alone most often, as it is asked.
fn question(item: &Item, rng: &mut Rng) -> String {
    match rng.u8(..100) {
        0..50 => item.text.clone(),
        50..75 => item.whole(),
        75..90 => {
            let some = item.options.iter().filter(|_| rng.bool());
            some.fold(item.text.clone(), |text, option| format!("{text}\n{option}"))
        }
        _ => part(&item.text, rng),
    }
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
    fn topics_are_asked_about() {
        let mut rng = Rng::with_seed(2);
        for _ in 0..200 {
            let text = ask("osmosis", &["mitosis"], &mut rng);
            assert!(text.contains("osmosis") && !text.contains('{'), "{text}");
        }
    }
}
