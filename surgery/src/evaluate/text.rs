//! Held-out text through the parent and its specialists at once.
//!
//! In: windows.  Out: for each subject and stretch of tokens, sums:
//! nats, how often the best token is the parent's, and KL(parent || subject).
//!
//! The parent and a few subjects read the same [`CHUNK`] of tokens one after
//! the other, so that the parent's logits are there when a subject's are
//! compared with them: the divergence is exact, over the whole vocabulary, and
//! what is held is two chunks of logits (and the parent's probabilities), not a
//! corpus of them.

use std::io;

use engine::{ExpertMask, Session};
use serde::{Deserialize, Serialize};

use super::Column;
use crate::Parent;
use crate::tokens::Window;

/// Tokens that are compared at once: 128 rows of a vocabulary of 262,144 are 134 MB.
const CHUNK: usize = 128;

/// Sums over each stretch of at most [`CHUNK`] scored tokens, [stretches].  Intervals are made of these: a window of
/// thousands of tokens tells more than one number would.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Tokens scored.
    pub tokens: Vec<u64>,
    /// Negative log-likelihood of the text, natural logarithm.
    pub nats: Vec<f64>,
    /// Tokens for which the most probable token is the parent's.
    pub agree: Vec<u64>,
    /// KL(parent || subject), nats.
    pub kl: Vec<f64>,
}

impl Sums {
    /// The first stretch with a number that is none.
    pub fn not_finite(&self) -> Option<usize> {
        self.nats.iter().zip(&self.kl).position(|(nats, kl)| !nats.is_finite() || !kl.is_finite())
    }
}

/// Index of the first token that is scored; there is nothing to predict the
/// very first from.
fn first_scored(window: &Window) -> usize {
    window.prompt.max(1)
}

/// Tokens of a column that are scored.
pub fn scored(column: &Column) -> u64 {
    let count = |w: &Window| w.tokens.len().saturating_sub(first_scored(w)) as u64;
    column.windows.iter().map(count).sum()
}

/// The parent's sums, then each mask's; windows without a scored token are left out.
///
/// # Errors
///
/// When the system has no memory for the keys and values of one window for each mask.
pub fn read(
    parent: &Parent,
    masks: &[&ExpertMask],
    column: &Column,
    step: &mut dyn FnMut(u64),
) -> io::Result<Vec<Sums>> {
    let mut all = vec![Sums::default(); 1 + masks.len()];
    for window in &column.windows {
        let count = window.tokens.len().saturating_sub(first_scored(window)) as u64;
        if count == 0 {
            continue;
        }
        window_sums(parent, masks, window, &mut all)?;
        step(count);
    }
    Ok(all)
}

/// Adds the stretches of one window.
fn window_sums(
    parent: &Parent,
    masks: &[&ExpertMask],
    window: &Window,
    all: &mut [Sums],
) -> io::Result<()> {
    let (tokens, before) = (&window.tokens, first_scored(window) - 1);
    let subjects: Vec<Option<&ExpertMask>> =
        std::iter::once(None).chain(masks.iter().map(|mask| Some(*mask))).collect();
    let open = |mask: &Option<&ExpertMask>| {
        let mut session = Session::new(&parent.model, &parent.bank, tokens.len())?;
        session.feed(&tokens[..before], *mask, None, before);
        Ok(session)
    };
    let mut sessions: Vec<Session> = subjects.iter().map(open).collect::<io::Result<_>>()?;
    let mut at = before;
    // The last token predicts nothing that is there.
    while at + 1 < tokens.len() {
        let end = (at + CHUNK).min(tokens.len() - 1);
        let next = |i: usize| tokens[at + i + 1];
        let mut rows: Vec<Row> = Vec::with_capacity(end - at);
        for ((session, mask), sums) in sessions.iter_mut().zip(&subjects).zip(all.iter_mut()) {
            let (mut nats, mut agree, mut kl) = (0.0, 0, 0.0);
            session.read(&tokens[at..end], *mask, None, 0, |i, logits| {
                if mask.is_none() {
                    rows.push(Row::new(logits));
                }
                let row = &rows[i];
                let total = if mask.is_none() { row.total } else { log_sum(logits) };
                let own = logits.get(next(i) as usize).copied().unwrap_or(f32::NEG_INFINITY);
                nats += total - f64::from(own);
                agree += u64::from(mask.is_none() || best(logits) == row.best);
                kl += if mask.is_none() { 0.0 } else { row.divergence(logits, total) };
            });
            sums.tokens.push((end - at) as u64);
            sums.nats.push(nats);
            sums.agree.push(agree);
            sums.kl.push(kl);
        }
        at = end;
    }
    Ok(())
}

/// What the parent says about one token, to compare others with.
struct Row {
    /// [vocab]
    logits: Vec<f32>,
    /// [vocab], probabilities.
    shares: Vec<f32>,
    /// Logarithm of the sum of exponentials.
    total: f64,
    best: usize,
}

impl Row {
    fn new(logits: &[f32]) -> Row {
        let total = log_sum(logits);
        let share = |v: &f32| (f64::from(*v) - total).exp() as f32;
        Row {
            shares: logits.iter().map(share).collect(),
            logits: logits.to_vec(),
            best: best(logits),
            total,
        }
    }

    /// KL(this || other), nats; exactly 0 for equal logits.
    fn divergence(&self, other: &[f32], total: f64) -> f64 {
        let of = |((p, a), b): ((&f32, &f32), &f32)| match *p > 0.0 {
            true => f64::from(*p) * (f64::from(*a) - f64::from(*b)),
            // Nothing, whatever the other thinks of it.
            false => 0.0,
        };
        let mean: f64 = self.shares.iter().zip(&self.logits).zip(other).map(of).sum();
        // Rounding can leave a trifle below nothing.
        (mean + total - self.total).max(0.0)
    }
}

/// Kullback-Leibler divergence of what `other` predicts from what `logits` do, nats.
pub(crate) fn divergence(logits: &[f32], other: &[f32]) -> f64 {
    Row::new(logits).divergence(other, log_sum(other))
}

/// Logarithm of the sum of exponentials; large logits do not overflow.
pub fn log_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|v| f64::from((v - most).exp())).sum();
    f64::from(most) + sum.ln()
}

/// The first of the largest.
pub(crate) fn best(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in logits.iter().enumerate() {
        if *v > logits[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surprise_is_in_nats() {
        #[track_caller]
        fn check(logits: &[f32], id: usize, want: f64) {
            let got = log_sum(logits) - f64::from(logits[id]);
            assert!((got - want).abs() < 1e-6, "{got}");
        }
        check(&[0.0, 0.0], 0, 2f64.ln());
        check(&[1.0, 0.0], 0, (1.0 + (-1f64).exp()).ln());
        check(&[1.0, 0.0], 1, 1.0 + (1.0 + (-1f64).exp()).ln());
        // Large logits do not overflow.
        check(&[1e4, 1e4 - 1.0], 1, 1.0 + (1.0 + (-1f64).exp()).ln());
    }

    #[test]
    fn divergence_by_hand() {
        #[track_caller]
        fn check(p: &[f64], q: &[f64], want: f64) {
            // A shift of all logits is no matter, so that each has its own.
            let logits =
                |p: &[f64], shift| p.iter().map(|p| p.ln() as f32 + shift).collect::<Vec<_>>();
            let (p, q) = (logits(p, 3.0), logits(q, -1.0));
            let got = Row::new(&p).divergence(&q, log_sum(&q));
            assert!((got - want).abs() < 1e-6, "{got}");
        }
        // 0.5 ln 2 + 0.5 ln (2 / 3).
        check(&[0.5, 0.5], &[0.25, 0.75], 0.5 * 2f64.ln() + 0.5 * (2f64 / 3.0).ln());
        check(&[0.9, 0.1], &[0.1, 0.9], 0.8 * 9f64.ln());
        // What the parent never says costs nothing.
        check(&[1.0, 0.0], &[0.5, 0.5], 2f64.ln());
        // The same logits are no divergence, to the bit; a shift of all changes nothing.
        let logits = [0.3f32, -2.0, 7.7, 1e-3];
        assert_eq!(Row::new(&logits).divergence(&logits, log_sum(&logits)), 0.0);
        let shifted = logits.map(|v| v + 2.0);
        assert!(Row::new(&logits).divergence(&shifted, log_sum(&shifted)) < 1e-6);
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!((best(&[1.0, 3.0, 3.0]), best(&[-1.0, -2.0]), best(&[])), (1, 0, 0));
    }

    #[test]
    fn what_is_scored() {
        #[track_caller]
        fn check(tokens: usize, prompt: usize, want: u64) {
            let windows = vec![Window { tokens: vec![0; tokens], prompt }];
            assert_eq!(scored(&Column { name: String::new(), windows }), want);
        }
        // Of a text all but the first; of a conversation the answer.
        check(5, 0, 4);
        check(5, 3, 2);
        check(5, 5, 0);
        check(1, 0, 0);
        check(0, 0, 0);
    }
}
