//! Chooses the next token from logits.
//!
//! Order: repetition penalty, temperature, top-k, top-p, min-p, draw.  Temperature 0 is a plain argmax of what the
//! penalty left.  A seed makes the draw repeatable.

use crate::math;

/// How to choose.  The default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// 0 takes the best token.
    pub temperature: f32,
    /// Only the `top_k` best; 0 is all.
    pub top_k: usize,
    /// Only the fewest best whose probabilities reach this sum; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this share as probable as the best; 0 is all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen lately; 1 is none.
    pub repetition_penalty: f32,
    /// Drawn from the system when absent.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: None,
        }
    }
}

/// How far back the repetition penalty looks, tokens.  As llama.cpp's default.
const PENALTY_WINDOW: usize = 64;

/// The choice of one sequence's tokens.
pub struct Sampler {
    params: SamplingParams,
    rng: fastrand::Rng,
}

impl Sampler {
    pub fn new(params: SamplingParams) -> Sampler {
        let rng = params.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        Sampler { params, rng }
    }

    /// The next token; `logits` is [vocab], `seen` the tokens so far.
    pub fn next(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        let p = &self.params;
        if p.repetition_penalty != 1.0 {
            penalise(
                logits,
                &seen[seen.len().saturating_sub(PENALTY_WINDOW)..],
                p.repetition_penalty,
            );
        }
        if p.temperature <= 0.0 {
            return math::top_k(logits, 1).first().map_or(0, |&i| i as u32);
        }
        let mut order: Vec<usize> = match p.top_k {
            0 => (0..logits.len()).collect(),
            k => math::top_k(logits, k),
        };
        if p.top_k == 0 {
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        }
        let mut weights: Vec<f32> = order.iter().map(|&i| logits[i] / p.temperature).collect();
        math::softmax(&mut weights);
        let mut keep = weights.len();
        if p.top_p < 1.0 {
            let mut sum = 0.0;
            keep = weights
                .iter()
                .position(|w| {
                    sum += w;
                    sum >= p.top_p
                })
                .map_or(keep, |i| i + 1);
        }
        let least = weights.first().map_or(0.0, |best| best * p.min_p);
        keep = weights[..keep].iter().position(|w| *w < least).unwrap_or(keep).max(1);
        let total: f32 = weights[..keep].iter().sum();
        let mut left = self.rng.f32() * total;
        for (&i, w) in order.iter().zip(&weights[..keep]) {
            left -= w;
            if left <= 0.0 {
                return i as u32;
            }
        }
        order[keep - 1] as u32
    }
}

fn penalise(logits: &mut [f32], seen: &[u32], penalty: f32) {
    let mut done = seen.to_vec();
    done.sort_unstable();
    done.dedup();
    for id in done {
        if let Some(v) = logits.get_mut(id as usize) {
            *v = if *v > 0.0 { *v / penalty } else { *v * penalty };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws many times; `want` are the tokens that can come.
    #[track_caller]
    fn check(params: SamplingParams, seen: &[u32], want: &[u32]) {
        let mut got: Vec<u32> = (0..500)
            .map(|seed| {
                let params = SamplingParams { seed: Some(seed), ..params.clone() };
                Sampler::new(params).next(&mut [2.0, 1.0, 0.0, -1.0], seen)
            })
            .collect();
        got.sort_unstable();
        got.dedup();
        assert_eq!(got, want);
    }

    #[test]
    fn what_can_be_drawn() {
        let hot = SamplingParams { temperature: 1.0, ..Default::default() };
        check(SamplingParams::default(), &[], &[0]);
        check(hot.clone(), &[], &[0, 1, 2, 3]);
        check(SamplingParams { top_k: 2, ..hot.clone() }, &[], &[0, 1]);
        // Probabilities are 0.64, 0.24, 0.09, 0.03.
        check(SamplingParams { top_p: 0.5, ..hot.clone() }, &[], &[0]);
        check(SamplingParams { top_p: 0.7, ..hot.clone() }, &[], &[0, 1]);
        check(SamplingParams { min_p: 0.1, ..hot.clone() }, &[], &[0, 1, 2]);
        // The best token was seen: 2.0 becomes 0.5, and the next best wins.
        check(SamplingParams { repetition_penalty: 4.0, ..Default::default() }, &[0, 0], &[1]);
        // A penalty makes a negative logit more so.
        check(
            SamplingParams { repetition_penalty: 4.0, top_k: 3, ..hot.clone() },
            &[3],
            &[0, 1, 2],
        );
        // Ids that do not exist do no harm.
        check(SamplingParams { repetition_penalty: 4.0, ..Default::default() }, &[99], &[0]);
    }

    #[test]
    fn a_seed_repeats() {
        let draw = |seed| {
            let mut s = Sampler::new(SamplingParams {
                temperature: 1.0,
                seed: Some(seed),
                ..Default::default()
            });
            (0..50).map(|_| s.next(&mut [0.0; 16], &[])).collect::<Vec<u32>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }
}
