//! A text as hashed words, pairs and pieces, for comparing texts with each other.
//!
//! Apart from `features.rs` on purpose: that is part of the shipped weights'
//! meaning, and this may change with whatever is fitted on it.

use crate::features::hash;
use crate::text::Normal;

/// Letters of a piece.
const PIECE: usize = 4;

/// Separate spaces of hashes.
const WORDS: u64 = 0x2545_F491_4F6C_DD1D;
const PAIRS: u64 = 0xD6E8_FEB8_6659_FD93;
const PIECES: u64 = 0xA076_1D64_78BD_642F;

/// (bucket, count), by bucket; `buckets` is a power of two.
pub(crate) fn grams(text: &str, buckets: u32) -> Vec<(u32, f32)> {
    let normal = Normal::new(text);
    let mut all = Vec::new();
    let mut push = |hash: u64| all.push((hash >> 32) as u32 & (buckets - 1));
    let mut last: Option<u64> = None;
    for token in normal.tokens.iter().filter(|token| token.word) {
        let word = normal.get(token);
        let own = hash(WORDS, word.as_bytes());
        push(own);
        if let Some(before) = last.replace(own) {
            push(hash(PAIRS ^ before, word.as_bytes()));
        }
        // At each letter, so that a piece starts where a letter does.
        let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).collect();
        for (place, start) in starts.iter().enumerate() {
            if place + PIECE > starts.len() {
                break;
            }
            let end = starts.get(place + PIECE).copied().unwrap_or(word.len());
            push(hash(PIECES, &word.as_bytes()[*start..end]));
        }
    }
    all.sort_unstable();
    all.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as f32)).collect()
}

/// To length 1; all zero stays so.
pub(crate) fn unit(grams: &mut [(u32, f32)]) {
    let length = grams.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        grams.iter_mut().for_each(|(_, value)| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_what_is_there() {
        #[track_caller]
        fn check(text: &str, want: usize) {
            let found = grams(text, 1 << 20);
            assert_eq!(found.iter().map(|(_, n)| *n as usize).sum::<usize>(), want, "{text}");
        }
        check("", 0);
        check("?!", 0);
        check("law", 1);
        // A word, and its piece.
        check("laws", 2);
        check("naïve", 3);
        check("law law", 3);
        // Twice the word, once the pair.
        assert_eq!(grams("law law", 1 << 20).len(), 2);
        let mut two = grams("law of torts", 1 << 20);
        unit(&mut two);
        assert!((two.iter().map(|(_, v)| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_grams(text in "\\PC{0,300}") {
            assert!(grams(&text, 1 << 8).iter().all(|(bucket, n)| *bucket < 1 << 8 && *n > 0.0));
        }
    }
}
