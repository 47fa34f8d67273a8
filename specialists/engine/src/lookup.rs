//! Guesses the next tokens of an answer from what was said before: prompt lookup (Saxena 2023,
//! github.com/apoorvumang/prompt-lookup-decoding).
//!
//! In: a sequence's tokens, and which of its guesses came true.  Out: the tokens that followed when its last few stood
//! somewhere before ([`Lookup::look`]), and how many of them are worth a row of the next step ([`worth`]).  A guess is
//! no more than that: the sequence draws each token from the logits before it, and a row whose guess is not what was
//! drawn is forgotten.
//!
//! The promise: what is guessed changes how many steps an answer takes, never its tokens.
//!
//! Absent: a model that drafts, and guesses where a layer keeps a state, which cannot be taken back.

use std::sync::atomic::{AtomicU64, Ordering};

/// Tokens at the end that must have been said before; three first, of which 57% are followed by the same again in code
/// and prose of this repository, of two 47%.  Over those and answers of the nano parent, both make 1.73 times as many
/// tokens at a cost of 0.2 a row, three alone 1.67, two alone 1.61; four or one beside them change less than a
/// hundredth.
const GRAMS: [usize; 2] = [3, 2];
/// Weight of the last guess in the share that comes true; half or twice as much is worse by a hundredth.
const WEIGHT: f32 = 0.125;
/// The share before anything is known.
const FIRST: f32 = 0.5;
/// What one more row costs in a step of one, where it needs no further weights: 383 MB of Q8_0 take 17 ms with one row
/// and 33 to 41 with eight, on two cores with AVX-512.
const ROW: f32 = 0.2;

/// The guesses of one sequence.
pub(crate) struct Lookup {
    /// The last token, the guesses that are run, and one more that is only looked at; empty without any.
    next: Vec<u32>,
    /// Of those, the next to come true or not.
    at: usize,
    /// Which of [`GRAMS`] they are from.
    gram: usize,
    /// Of each of [`GRAMS`], the share that came true lately.
    rates: [f32; GRAMS.len()],
}

impl Default for Lookup {
    fn default() -> Lookup {
        Lookup { next: Vec::new(), at: 0, gram: 0, rates: [FIRST; GRAMS.len()] }
    }
}

impl Lookup {
    /// Forgets the guesses, not what they were worth.
    pub fn clear(&mut self) {
        self.next.clear();
    }

    /// Guesses what follows `tokens`; `most` says how many are run, given the share that comes true.  One more is never
    /// run: it costs nothing to see whether it would have come true, so that nobody has to try where guesses failed.
    pub fn look(&mut self, tokens: &[u32], most: impl FnOnce(f32) -> usize) {
        self.clear();
        let mut found = GRAMS.iter().map(|n| find(tokens, *n)).enumerate();
        let Some((gram, Some(from))) = found.find(|(_, from)| from.is_some()) else { return };
        let n = 1 + most(self.rates[gram]);
        (self.gram, self.at) = (gram, 1);
        self.next.extend(tokens.last());
        // What would run past the end goes round.
        self.next.extend(tokens[from..].iter().cycle().take(n));
    }

    /// The last token and the guesses that are run, as rows of a step; `None` if there are none to run.
    pub fn rows(&self) -> Option<&[u32]> {
        let (_, run) = self.next.split_last()?;
        (run.len() > 1).then_some(run)
    }

    /// This token came next.  Whether that was the guess.
    pub fn came(&mut self, id: u32) -> bool {
        let Some(guess) = self.next.get(self.at) else { return false };
        let right = *guess == id;
        self.at += 1;
        let rate = &mut self.rates[self.gram];
        *rate += WEIGHT * (f32::from(u8::from(right)) - *rate);
        right
    }
}

/// What followed when the last `n` tokens stood before, the last time.
fn find(tokens: &[u32], n: usize) -> Option<usize> {
    let (before, gram) =
        (tokens.get(..tokens.len().checked_sub(1)?)?, tokens.len().checked_sub(n)?);
    let gram = &tokens[gram..];
    // One number is compared for most places: this runs once a step, over the whole sequence.
    let last = gram.last()?;
    before.windows(n).rposition(|w| w.last() == Some(last) && w == gram).map(|at| at + n)
}

/// How many guesses, of which the share `rate` comes true, make tokens faster in a step of `running` sequences; `cost`
/// is what a row more costs, in steps of one row.
pub(crate) fn worth(rate: f32, cost: f32, running: usize, most: usize) -> usize {
    let mut tokens = running as f32;
    let mut time = 1.0 + (tokens - 1.0) * cost;
    let mut chance = 1.0;
    for n in 0..most {
        // It is of use only if all before it came true.
        chance *= rate;
        if chance * time <= cost * tokens {
            return n;
        }
        tokens += chance;
        time += cost;
    }
    most
}

/// What a row more costs in a step, in steps of one row.  A step of one is as long as its weights take to be read: the
/// backbone's, which further rows share, and the experts' that its row chose, the share `chosen` of all, of which
/// another row has as many in common as chance has it.
pub(crate) fn cost(backbone: u64, experts: u64, chosen: f32) -> f32 {
    let active = experts as f32 * chosen;
    let routed = active / (backbone as f32 + active).max(1.0);
    ROW + (1.0 - ROW) * routed * (1.0 - chosen)
}

/// Guesses of all answers since the start.
#[derive(Default)]
pub(crate) struct Looked {
    proposed: AtomicU64,
    accepted: AtomicU64,
}

/// Guesses of all answers since the start, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guesses {
    /// That were run.
    pub proposed: u64,
    /// That saved a step.
    pub accepted: u64,
}

impl Looked {
    /// So many were run.
    pub fn proposed(&self, guesses: usize) {
        self.proposed.fetch_add(guesses as u64, Ordering::Relaxed);
    }

    /// One of them was what came.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> Guesses {
        // In this order no guess is accepted that was not proposed.
        let accepted = self.accepted.load(Ordering::Relaxed);
        Guesses { proposed: self.proposed.load(Ordering::Relaxed), accepted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text is of letters; the guesses that are run, of three at most.
    #[track_caller]
    fn check(text: &str, want: &str) {
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let mut lookup = Lookup::default();
        lookup.look(&tokens, |_| 3);
        let rows = lookup.rows().unwrap_or_default();
        assert!(rows.is_empty() || rows[0] == tokens[tokens.len() - 1]);
        let got: String = rows.iter().skip(1).map(|id| *id as u8 as char).collect();
        assert_eq!(got, want, "after {text:?}");
    }

    #[test]
    fn guesses_are_what_followed() {
        check("", "");
        check("a", "");
        check("ab", "");
        // One token in common is not enough, two are.
        check("abcdeb", "");
        check("abcdeab", "cde");
        // The last time counts, and three tokens before two.
        check("xab1--xab2--xab", "2--");
        check("xab1--yab2--xab", "1--");
        // What would run past the end goes round.
        check("aaa", "aaa");
        check("abab", "aba");
        check("xyzxyzxy", "zxy");
    }

    #[test]
    fn shares_follow_what_comes_true() {
        let mut lookup = Lookup::default();
        // Nothing is run, and yet it is seen what would have come true.
        for _ in 0..40 {
            lookup.look(&[1, 2, 3, 4, 1, 2, 3], |_| 0);
            assert!(lookup.rows().is_none() && lookup.came(4) && !lookup.came(1));
        }
        assert!(lookup.rates[0] > 0.95 && lookup.rates[1] == FIRST, "{:?}", lookup.rates);
        for _ in 0..40 {
            lookup.look(&[1, 2, 3, 4, 1, 2, 3], |_| 2);
            assert_eq!(lookup.rows(), Some(&[3, 4, 1][..]));
            assert!(lookup.came(4) && !lookup.came(5));
        }
        assert!((0.4..0.6).contains(&lookup.rates[0]), "{:?}", lookup.rates);
        lookup.clear();
        assert!(lookup.rows().is_none() && !lookup.came(4));
    }

    #[test]
    fn what_is_worth_a_row() {
        #[track_caller]
        fn check(rate: f32, cost: f32, running: usize, want: usize) {
            assert_eq!(worth(rate, cost, running, 15), want);
        }
        // What never comes true is worth nothing, and what costs nothing all.
        check(0.0, 0.1, 1, 0);
        check(0.5, 0.0, 1, 15);
        // The first one must come true more often than it costs.
        check(0.3, 0.31, 1, 0);
        check(0.3, 0.29, 1, 1);
        // The better they are the more.
        check(0.5, 0.3, 1, 1);
        check(0.8, 0.3, 1, 3);
        check(1.0, 0.3, 1, 15);
        // A row that costs a step is never worth it.
        check(1.0, 1.0, 1, 0);
        // In company a row is no cheaper than a token.
        check(0.8, 0.3, 4, 1);
        check(0.8, 0.3, 16, 0);
        assert_eq!(worth(1.0, 0.1, 1, 4), 4);
    }

    #[test]
    fn experts_make_rows_dear() {
        #[track_caller]
        fn check(backbone: u64, experts: u64, chosen: f32, want: f32) {
            let got = cost(backbone, experts, chosen);
            assert!((got - want).abs() < 0.01, "{got}");
        }
        // Dense.
        check(4 << 30, 0, 0.0, ROW);
        // Measured over eight rows: 0.72 of random tokens, which have no experts in common but by chance.
        check(53_000_000, 1_224_000_000, 0.125, 0.72);
        // And between 0.2 and 0.5 of text by the nano parent.
        check(3_700_000, 7_080_000, 0.25, 0.394);
        check(1 << 30, 16 << 30, 1.0 / 16.0, ROW + (1.0 - ROW) * 0.469);
        // All experts run for every row.
        check(1 << 30, 16 << 30, 1.0, ROW);
    }
}
