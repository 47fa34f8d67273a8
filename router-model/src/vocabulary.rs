//! Which n-grams have weights, and where; how rare each one is.
//!
//! A table of slots, two bytes each: a fingerprint of the n-gram that lives there
//! and its rarity.  An n-gram lives in one of [`WINDOW`] neighbouring slots that
//! its hash names, so that a look-up reads one line of memory.  What is in no slot
//! has no weights: it is counted as unknown, and does not borrow another's.  An
//! n-gram that nobody has seen meets a stranger's fingerprint in 3 % of cases.
//!
//! Measured: a table of as many buckets that n-grams share without fingerprints
//! costs 0.8 points of accuracy on questions, and 1.3 with typos.

use std::collections::HashMap;

/// Slots an n-gram may live in.
const WINDOW: usize = 8;

/// The rarity of what was never seen, in the byte's unit.
pub(crate) const UNSEEN: f32 = 9.0;

/// Sixteenths of the inverse document frequency's logarithm.
const UNIT: f32 = 16.0;

/// How often an n-gram was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Met {
    /// In questions and requests, by which weights are best learnt.
    pub(crate) asked: u32,
    /// In all texts.
    pub(crate) all: u32,
}

/// Borrowed, since weights hold the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vocabulary<'a> {
    /// `[slots]`; 0 is an empty slot.
    pub(crate) prints: &'a [u8],
    /// `[slots]`.
    pub(crate) rarity: &'a [u8],
}

impl Vocabulary<'_> {
    /// The slot of an n-gram and its rarity.
    pub(crate) fn find(&self, hash: u64) -> Option<(u32, f32)> {
        let start = start(hash, self.prints.len());
        let print = print(hash);
        let window = self.prints.get(start..start + WINDOW)?;
        let slot = start + window.iter().position(|p| *p == print)?;
        Some((slot as u32, f32::from(*self.rarity.get(slot)?) / UNIT))
    }
}

/// Fills `slots` slots with the n-grams that are worth it: first those met most
/// often in questions.  Gives fingerprints and rarities; `texts` were read.
pub(crate) fn choose(met: &HashMap<u64, Met>, slots: usize, texts: usize) -> (Vec<u8>, Vec<u8>) {
    // Once is chance.
    let mut list: Vec<(u64, Met)> =
        met.iter().map(|(hash, met)| (*hash, *met)).filter(|(_, met)| met.all > 1).collect();
    // By hash at last, since a map has no order.
    list.sort_unstable_by_key(|(hash, met)| (u32::MAX - met.asked, u32::MAX - met.all, *hash));
    let (mut prints, mut rarity) = (vec![0u8; slots], vec![0u8; slots]);
    for (hash, met) in list {
        let start = start(hash, slots);
        let window = &prints[start..(start + WINDOW).min(slots)];
        // Its twin would answer for it.
        if window.contains(&print(hash)) {
            continue;
        }
        if let Some(at) = window.iter().position(|p| *p == 0) {
            prints[start + at] = print(hash);
            let idf = ((texts as f32 + 1.0) / (met.all as f32 + 1.0)).ln();
            rarity[start + at] = (idf * UNIT).round().clamp(1.0, 255.0) as u8;
        }
    }
    (prints, rarity)
}

fn start(hash: u64, slots: usize) -> usize {
    let starts = (slots.max(WINDOW) - WINDOW + 1) as u64;
    (((hash >> 32) * starts) >> 32) as usize
}

fn print(hash: u64) -> u8 {
    1 + (hash % 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::hash;

    fn met(names: &[(&str, u32)]) -> HashMap<u64, Met> {
        let one = |(name, n): &(&str, u32)| (hash(1, name.as_bytes()), Met { asked: *n, all: *n });
        names.iter().map(one).collect()
    }

    #[test]
    fn finds_what_was_chosen() {
        let (prints, rarity) = choose(&met(&[("law", 9), ("tort", 2), ("once", 1)]), 64, 9);
        let vocabulary = Vocabulary { prints: &prints, rarity: &rarity };
        let find = |name: &str| vocabulary.find(hash(1, name.as_bytes()));
        let (law, tort) = (find("law").unwrap(), find("tort").unwrap());
        // Everywhere is hardly rare; two in nine is rarer.
        assert!(law.0 != tort.0 && law.1 < 0.1 && (tort.1 - (10f32 / 3.0).ln()).abs() < 0.05);
        assert_eq!(find("once"), None);
    }

    /// The most frequent win where there is no room for all, and few strangers are
    /// taken for one of them.
    #[test]
    fn is_full_of_the_frequent() {
        let names: Vec<String> = (0..4_000).map(|n| format!("n{n}")).collect();
        let list: Vec<(&str, u32)> =
            names.iter().enumerate().map(|(n, name)| (name.as_str(), 5_000 - n as u32)).collect();
        let (prints, rarity) = choose(&met(&list), 2_000, 6_000);
        let vocabulary = Vocabulary { prints: &prints, rarity: &rarity };
        let share = |names: &[String]| {
            let known = names.iter().filter(|n| vocabulary.find(hash(1, n.as_bytes())).is_some());
            known.count() as f64 / names.len() as f64
        };
        assert!(share(&names[..1_000]) > 0.99, "{}", share(&names[..1_000]));
        let strangers: Vec<String> = (0..4_000).map(|n| format!("stranger {n}")).collect();
        assert!(share(&strangers) < 0.06, "{}", share(&strangers));
        assert!(prints.iter().filter(|p| **p == 0).count() < 100);
    }

    #[test]
    fn no_slots_no_panic() {
        for slots in [0, 1, 7, 8] {
            let (prints, rarity) = choose(&met(&[("law", 9)]), slots, 9);
            let _ = Vocabulary { prints: &prints, rarity: &rarity }.find(7);
        }
    }
}
