//! A text as a sparse vector: its words, pairs of words, and pieces of words.
//!
//! Each n-gram is looked up by its hash (`vocabulary.rs`); a word nobody has seen
//! still shares its pieces with words that were.  Rare n-grams count more, as in
//! TF-IDF (Spärck Jones, 1972), and repeats less and less.  The words' part and the
//! pieces' part each have length 1 / sqrt(2), so that a long text and a short one
//! reach the same range of scores.
//!
//! Part of the weights' meaning, like `text.rs`: a change needs new weights.

use crate::text::{Normal, Shape, Token};
use crate::vocabulary::{UNSEEN, Vocabulary};

/// Names this file's and `text.rs`'s rules; weights made by others are refused.
pub(crate) const SCHEME: &str = "words 1-2, pieces 3-5, by rarity, v2";

/// Letters and digits of a word that are cut into pieces; longer is no word.
const MAX_WORD: usize = 24;

/// Separate spaces of hashes, so that the word "<the" is not a piece.
const WORD: u64 = 0x9E37_79B9_7F4A_7C15;
const PAIR: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PIECE: u64 = 0x1656_67B1_9E37_79F9;
const SHAPE: u64 = 0x27D4_EB2F_1656_67C5;

/// One n-gram of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Feature {
    pub(crate) bucket: u32,
    pub(crate) value: f32,
    /// The entry of [`Features::units`] it belongs to.
    pub(crate) unit: u32,
}

/// What a feature is explained by: a word with its pieces, or a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    start: u32,
    end: u32,
}

/// A text's known features.  Two texts that are equal give equal features.
#[derive(Debug, Default)]
pub(crate) struct Features {
    pub(crate) list: Vec<Feature>,
    pub(crate) units: Vec<Unit>,
    /// Words that can say something: not symbols, not of one letter.
    pub(crate) words: usize,
    /// Share of the text, by rarity, that training has seen.
    pub(crate) known: f32,
    text: String,
}

impl Features {
    pub(crate) fn new(text: &str, vocabulary: Vocabulary<'_>) -> Features {
        let normal = Normal::new(text);
        let mut features = Features::default();
        let mut unknown = 0f32;
        words_of(&normal, &mut |raw| features.push(raw, vocabulary, &mut unknown));
        let split = features.list.len();
        pieces_of(&normal, &mut |raw| features.push(raw, vocabulary, &mut unknown));
        let known: f32 = features.list.iter().map(|f| f.value).sum();
        features.known = if known > 0.0 { known / (known + unknown) } else { 0.0 };
        scale(&mut features.list[..split]);
        scale(&mut features.list[split..]);
        features.words = normal.tokens.iter().filter(|t| t.word && t.end - t.start > 1).count();
        features.text = normal.text;
        features
    }

    /// The hashes of a text's n-grams, each once, for counting.
    pub(crate) fn hashes(text: &str) -> Vec<u64> {
        let normal = Normal::new(text);
        let mut hashes = Vec::new();
        words_of(&normal, &mut |raw| hashes.push(raw.hash));
        pieces_of(&normal, &mut |raw| hashes.push(raw.hash));
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// The text of a unit, for a reader.
    pub(crate) fn unit(&self, unit: u32) -> &str {
        let range = |u: &Unit| u.start as usize..u.end as usize;
        self.units.get(unit as usize).and_then(|u| self.text.get(range(u))).unwrap_or("")
    }

    fn push(&mut self, raw: Raw, vocabulary: Vocabulary<'_>, unknown: &mut f32) {
        let Some((bucket, rarity)) = vocabulary.find(raw.hash) else {
            *unknown += raw.count * UNSEEN;
            return;
        };
        // Pieces of a word come one after another, after their word or not.
        let unit = raw.unit;
        let last = self.units.last().is_some_and(|u| u.start == unit.start && u.end == unit.end);
        if !last {
            self.units.push(unit);
        }
        let unit = self.units.len() as u32 - 1;
        self.list.push(Feature { bucket, value: raw.count * rarity, unit });
    }
}

/// An n-gram as it is met.
struct Raw {
    hash: u64,
    /// Repeats count less and less.
    count: f32,
    unit: Unit,
}

fn words_of(normal: &Normal, push: &mut dyn FnMut(Raw)) {
    let tokens = &normal.tokens;
    let mut seen: Vec<(u64, Unit)> = Vec::with_capacity(2 * tokens.len());
    for (at, token) in tokens.iter().enumerate() {
        let word = hash(WORD, normal.get(token).as_bytes());
        seen.push((word, Unit { start: token.start, end: token.end }));
        match token.shape {
            Shape::Plain => {}
            shape => {
                let unit = Unit { start: token.start, end: token.end };
                seen.push((hash(SHAPE, &[shape as u8]), unit));
            }
        }
        // Stops and commas part a pair; symbols of code and formulas join.
        if let Some(next) = tokens[at + 1..].iter().find(|t| !is_stop(normal.get(t)))
            && !is_stop(normal.get(token))
        {
            let pair = hash(PAIR ^ word, normal.get(next).as_bytes());
            seen.push((pair, Unit { start: token.start, end: next.end }));
        }
    }
    // By hash and place, so that the first one of several explains them all.
    seen.sort_unstable_by_key(|(hash, unit)| (*hash, unit.start));
    for same in seen.chunk_by(|a, b| a.0 == b.0) {
        let (hash, unit) = same[0];
        push(Raw { hash, count: 1.0 + (same.len() as f32).ln(), unit });
    }
}

fn pieces_of(normal: &Normal, push: &mut dyn FnMut(Raw)) {
    let mut words: Vec<&Token> = normal.tokens.iter().filter(|t| t.word).collect();
    words.sort_unstable_by_key(|t| (normal.get(t), t.start));
    let mut padded: Vec<char> = Vec::with_capacity(MAX_WORD + 2);
    for same in words.chunk_by(|a, b| normal.get(a) == normal.get(b)) {
        let unit = Unit { start: same[0].start, end: same[0].end };
        let count = 1.0 + (same.len() as f32).ln();
        padded.clear();
        padded.push('<');
        padded.extend(normal.get(same[0]).chars().take(MAX_WORD));
        padded.push('>');
        for start in 0..padded.len() {
            let mut state = PIECE;
            for (length, c) in padded[start..].iter().take(5).enumerate() {
                state = step(state, u64::from(*c as u32));
                if length >= 2 {
                    push(Raw { hash: finish(state), count, unit });
                }
            }
        }
    }
}

/// To length 1 / sqrt(2); all zero stays so.
fn scale(list: &mut [Feature]) {
    let square: f32 = list.iter().map(|f| f.value * f.value).sum();
    if square > 0.0 {
        let by = (0.5 / square).sqrt();
        list.iter_mut().for_each(|f| f.value *= by);
    }
}

fn is_stop(token: &str) -> bool {
    matches!(token, "." | "," | ";" | ":" | "?" | "!" | "'" | "\"" | "’" | "“" | "”" | "..")
}

/// Our own, since the weights outlive any library's choice of a hash.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    finish(bytes.iter().fold(seed, |state, byte| step(state, u64::from(*byte))))
}

/// FNV-1a's step, on more than a byte.
fn step(state: u64, value: u64) -> u64 {
    (state ^ value).wrapping_mul(0x0000_0100_0000_01B3)
}

/// Spreads FNV's weak high bits (the finaliser of MurmurHash3).
fn finish(mut state: u64) -> u64 {
    state = (state ^ (state >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    state = (state ^ (state >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::{Met, choose};

    /// Counts and fingerprints for every n-gram of a text.
    fn with<T>(known: &str, then: impl FnOnce(Vocabulary<'_>) -> T) -> T {
        let met = Features::hashes(known).into_iter().map(|h| (h, Met { asked: 2, all: 2 }));
        let (prints, rarity) = choose(&met.collect(), 1 << 14, 100);
        then(Vocabulary { prints: &prints, rarity: &rarity })
    }

    #[track_caller]
    fn check(text: &str, want_units: &[&str]) {
        let features = with(text, |vocabulary| Features::new(text, vocabulary));
        let mut units: Vec<&str> =
            (0..features.units.len()).map(|u| features.unit(u as u32)).collect();
        units.sort_unstable();
        units.dedup();
        let mut want = want_units.to_vec();
        want.sort_unstable();
        assert_eq!(units, want);
    }

    #[test]
    fn words_and_pairs() {
        check("Tall trees, tall", &[",", "tall", "tall trees", "trees", "trees , tall"]);
        check("x = 1", &["0", "= 0", "=", "x", "x ="]);
        check("", &[]);
    }

    #[test]
    fn length_does_not_matter() {
        for text in ["law", "what is the law of torts in this country", "?", "naïve 🙂"] {
            let features = with(text, |vocabulary| Features::new(text, vocabulary));
            let square: f32 = features.list.iter().map(|f| f.value * f.value).sum();
            // A symbol has no pieces, so half of the length is missing.
            let want = if text == "?" { 0.5 } else { 1.0 };
            assert!((square - want).abs() < 1e-4, "{text}: {square}");
        }
    }

    /// The weights are only as good as the hash they were made with: these
    /// values may change only together with `SCHEME` and the weights.
    #[test]
    fn buckets_are_forever() {
        let hashes = Features::hashes("The law of torts, 1848!");
        let sum = hashes.iter().fold(0u64, |sum, h| sum * 31 % 1_000_003 + h % 1_000_003);
        assert_eq!((hashes.len(), sum), (47, 869_724));
    }

    /// What nobody has seen has no weight and is told.
    #[test]
    fn strange_words_are_unknown() {
        let known = |text: &str| with("the law of torts", |v| Features::new(text, v)).known;
        assert_eq!(known("law of torts"), 1.0);
        assert!(known("the law of zyxwv") < 0.8 && known("zyxwv qqjx") < 0.2);
        assert_eq!(known(""), 0.0);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_finite_vector(text in "\\PC{0,300}") {
            let features = with(&text, |vocabulary| Features::new(&text, vocabulary));
            for f in &features.list {
                assert!(f.bucket < 1 << 14 && f.value.is_finite() && !features.unit(f.unit).is_empty());
            }
        }
    }
}
