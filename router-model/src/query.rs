//! What is asked: the turns of a conversation, and how much each one counts.
//!
//! Only the user's turns decide.  System prompts and tool results are often long
//! and about something else, and an answer repeats what was asked.

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub role: Role,
    pub text: String,
}

/// A conversation, oldest turn first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub turns: Vec<Turn>,
}

/// A turn counts this much against the one after it, if that is as sure.  Of 193 pairs
/// of questions of two domains in `data/check.jsonl`, each right alone, 171 end with the
/// second; of 138 with a follow-up such as "give me an example", 108 keep the first.  At
/// one half, and without certainty: 159 and 92.  Chosen by these pairs; a test counts them.
const DECAY: f32 = 0.2;

/// Older turns hardly weigh; reading them would only cost time.
const MOST_TURNS: usize = 4;

/// A turn with this many words has half of its say; one word alone says little.
const HALF_SAY_WORDS: f32 = 2.0;

impl Query {
    /// One question without a conversation.
    pub fn text(text: impl Into<String>) -> Query {
        Query { turns: vec![Turn { role: Role::User, text: text.into() }] }
    }

    /// The user's last turns that say something, newest first.
    pub(crate) fn said(&self) -> impl Iterator<Item = &str> {
        let user = self.turns.iter().rev().filter(|turn| turn.role == Role::User);
        user.map(|turn| turn.text.as_str()).filter(|text| !is_empty_talk(text)).take(MOST_TURNS)
    }
}

/// What gives a turn its say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Say {
    pub(crate) words: usize,
    /// The probability of its likeliest domain, were it alone; above 0.
    pub(crate) certainty: f32,
}

/// The share of each turn, newest first; they sum to 1.
pub(crate) fn shares(turns: &[Say]) -> Vec<f32> {
    let say = |turn: &Say| {
        let words = turn.words as f32;
        (words + 0.01) / (words + HALF_SAY_WORDS) * turn.certainty.powi(2)
    };
    let raw: Vec<f32> =
        turns.iter().enumerate().map(|(age, turn)| DECAY.powi(age as i32) * say(turn)).collect();
    let sum: f32 = raw.iter().sum();
    raw.iter().map(|share| share / sum).collect()
}

/// Words that carry on a conversation without saying what it is about.
const CARRYING_ON: &[&str] = &[
    "a",
    "again",
    "ah",
    "all",
    "alright",
    "amazing",
    "and",
    "awesome",
    "bye",
    "cheers",
    "continue",
    "cool",
    "correct",
    "day",
    "evening",
    "everyone",
    "exactly",
    "fine",
    "for",
    "go",
    "good",
    "goodbye",
    "got",
    "great",
    "haha",
    "hello",
    "hey",
    "hi",
    "hm",
    "hmm",
    "i",
    "is",
    "it",
    "k",
    "keep",
    "later",
    "lol",
    "lot",
    "makes",
    "maybe",
    "me",
    "more",
    "morning",
    "much",
    "nice",
    "no",
    "nope",
    "not",
    "now",
    "of",
    "oh",
    "ok",
    "okay",
    "on",
    "one",
    "perfect",
    "please",
    "pls",
    "really",
    "right",
    "see",
    "sense",
    "so",
    "sorry",
    "sure",
    "test",
    "testing",
    "thank",
    "thanks",
    "that",
    "thats",
    "the",
    "there",
    "thx",
    "to",
    "ty",
    "understood",
    "very",
    "wait",
    "well",
    "what",
    "wow",
    "yeah",
    "yep",
    "yes",
    "yo",
    "you",
    "your",
    "youre",
];

/// "hi", "ok, thanks a lot!", "???": nothing to route by.
pub(crate) fn is_empty_talk(text: &str) -> bool {
    /// Longer than any greeting; real questions of common words are longer too.
    const MOST_WORDS: usize = 6;
    let mut count = 0;
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’') {
        let word: String = word.chars().filter(|c| c.is_alphanumeric()).take(16).collect();
        if word.is_empty() {
            continue;
        }
        count += 1;
        if count > MOST_WORDS || CARRYING_ON.binary_search(&word.to_lowercase().as_str()).is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, empty: bool) {
        assert_eq!(is_empty_talk(text), empty, "{text:?}");
    }

    #[test]
    fn empty_talk() {
        for text in
            ["", "  \n\t", "?!…", "🙂", "hi", "Hi!", "hello there", "OK", "ok, thanks a lot!"]
        {
            check(text, true);
        }
        for text in ["Thank you very much.", "yes please", "go on", "That's great", "good morning"]
        {
            check(text, true);
        }
        for text in ["hi, what is torque", "2+2", "law", "thanks, now the integral", "why?", "ß"] {
            check(text, false);
        }
        // Only common words, but too many for a greeting.
        check("what is that one for you and me", false);
    }

    #[test]
    fn the_list_can_be_searched() {
        assert!(CARRYING_ON.is_sorted());
    }

    #[test]
    fn only_the_user_decides() {
        let turn = |role, text: &str| Turn { role, text: text.into() };
        let query = Query {
            turns: vec![
                turn(Role::System, "You are a lawyer."),
                turn(Role::User, "old"),
                turn(Role::Assistant, "An answer."),
                turn(Role::User, "thanks"),
                turn(Role::User, "new"),
                turn(Role::Tool, "{}"),
            ],
        };
        assert_eq!(query.said().collect::<Vec<_>>(), ["new", "old"]);
    }

    #[test]
    fn newer_turns_count_more() {
        #[track_caller]
        fn check(turns: &[(usize, f32)], want: &[f32]) {
            let say = |&(words, certainty): &(usize, f32)| Say { words, certainty };
            let got = shares(&turns.iter().map(say).collect::<Vec<_>>());
            let near = |(a, b): (&f32, &f32)| (a - b).abs() < 0.01;
            assert!(got.len() == want.len() && got.iter().zip(want).all(near), "{got:?}");
        }
        check(&[], &[]);
        check(&[(7, 0.5)], &[1.0]);
        check(&[(0, 0.1)], &[1.0]);
        check(&[(8, 0.9), (8, 0.9)], &[0.83, 0.17]);
        // "and why?" leaves the say to the question before it.
        check(&[(2, 0.2), (8, 0.9)], &[0.13, 0.87]);
        check(&[(0, 0.1), (8, 0.9)], &[0.0, 1.0]);
        check(&[(8, 0.9), (8, 0.9), (8, 0.9)], &[0.81, 0.16, 0.03]);
    }
}
