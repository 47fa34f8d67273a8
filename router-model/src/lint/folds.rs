//! Examples asked of a supervisor that has not seen them.
//!
//! Every domain's examples are dealt into the same number of folds.  For each
//! fold a supervisor is made of the others, and asked what the fold holds: the
//! domain's own examples, and everybody else's.

use std::collections::BTreeMap;

use config::{Domain, Domains};

use super::alike::Rarity;
use super::{Confused, Count, HeldOut, Nearest, Taken};
use crate::head::LEAST_EXAMPLES;
use crate::{Decision, Query, Supervisor, SupervisorError, Weights};

/// Each fold is one fit; more change little.
const MOST_FOLDS: usize = 10;

/// Pieces of evidence shown for a confusion.
const WORDS: usize = 4;

/// Two texts that share less have only common words in common.
const ALIKE: f32 = 0.1;

/// Examples of others that are shown, a domain.
const SHOWN: usize = 5;

/// The domains with those examples that `keep` (domain, place) says.
pub(super) fn among(all: &[Domain], keep: impl Fn(&Domain, usize) -> bool) -> Domains {
    let of = |domain: &Domain| {
        let kept = domain.examples.iter().enumerate().filter(|(at, _)| keep(domain, *at));
        let examples = kept.map(|(_, example)| example.clone()).collect();
        Domain { examples, ..domain.clone() }
    };
    // The same words as before, so nothing new can be wrong with them.
    Domains::new(all.iter().map(of).collect()).unwrap_or_default()
}

/// `None` if too few would be left to learn from.
pub(super) fn held_out(
    own: &Domain,
    all: &[Domain],
    weights: &Weights,
    threshold: f32,
) -> Result<Option<HeldOut>, SupervisorError> {
    let folds = own.examples.len().min(MOST_FOLDS);
    let left = |n: usize| n - n.div_ceil(folds.max(1));
    if left(own.examples.len()) < LEAST_EXAMPLES {
        return Ok(None);
    }
    // Others may be too small to be parted; they are asked all the same.
    let parted = |domain: &Domain| left(domain.examples.len()) >= LEAST_EXAMPLES;
    let mut tally = Tally::default();
    for fold in 0..folds {
        let out = |domain: &Domain, at: usize| at % folds == fold && parted(domain);
        let rest = among(all, |domain, at| !out(domain, at));
        let sup = Supervisor::new(weights.clone(), &rest, threshold)?;
        for domain in all {
            for (at, example) in domain.examples.iter().enumerate() {
                let asked = at % folds == fold;
                if asked && domain.id == own.id {
                    tally.own(&own.id, example, &sup.decide(&Query::text(example)));
                } else if asked {
                    tally.other(own, domain, example, &sup.decide(&Query::text(example)));
                }
            }
        }
    }
    Ok(Some(tally.done(folds, all)))
}

#[derive(Default)]
struct Tally {
    n: usize,
    right: usize,
    abstained: usize,
    guesses: BTreeMap<String, usize>,
    confused: Vec<Confused>,
    takes: BTreeMap<String, Taken>,
}

impl Tally {
    fn own(&mut self, id: &str, example: &str, decision: &Decision) {
        self.n += 1;
        self.abstained += usize::from(decision.abstained);
        // Empty talk has no guess.
        let Some(best) = decision.alternatives.first() else { return };
        *self.guesses.entry(best.domain.clone()).or_default() += 1;
        if best.domain == id {
            self.right += 1;
            return;
        }
        let own = decision.alternatives.iter().find(|a| a.domain == id);
        let words = decision.evidence.iter().filter(|e| e.weight > 0.0);
        self.confused.push(Confused {
            example: example.to_owned(),
            guess: best.domain.clone(),
            probability: best.probability,
            own: own.map_or(0.0, |a| a.probability),
            nearest: None,
            words: words.take(WORDS).map(|e| e.text.clone()).collect(),
        });
    }

    fn other(&mut self, own: &Domain, domain: &Domain, example: &str, decision: &Decision) {
        let (domain, of, n) = (domain.id.clone(), 0, 0);
        let empty = Taken { domain: domain.clone(), of, examples: Vec::new(), n };
        let taken = self.takes.entry(domain).or_insert(empty);
        taken.of += 1;
        if decision.alternatives.first().is_some_and(|best| best.domain == own.id) {
            taken.n += 1;
            if taken.examples.len() < SHOWN {
                taken.examples.push(example.to_owned());
            }
        }
    }

    fn done(mut self, folds: usize, all: &[Domain]) -> HeldOut {
        let rarity = Rarity::of(all);
        self.confused.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        for confused in &mut self.confused {
            let domain = all.iter().find(|domain| domain.id == confused.guess);
            confused.nearest = domain.and_then(|d| nearest(&confused.example, d, &rarity));
        }
        let mut guesses: Vec<Count> =
            self.guesses.into_iter().map(|(domain, n)| Count { domain, n }).collect();
        guesses.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.domain.cmp(&b.domain)));
        let mut takes: Vec<Taken> = self.takes.into_values().filter(|t| t.n > 0).collect();
        takes.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.domain.cmp(&b.domain)));
        let Tally { n, right, abstained, confused, .. } = self;
        HeldOut { folds, n, right, abstained, guesses, confused, takes }
    }
}

/// The example of `domain` that is most like the text, if any shares a rare word.
fn nearest(text: &str, domain: &Domain, rarity: &Rarity) -> Option<Nearest> {
    let print = rarity.print(text);
    let near = |example: &String| print.likeness(&rarity.print(example));
    let best = domain.examples.iter().map(|example| (near(example), example));
    let (likeness, example) = best.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let (domain, example) = (domain.id.clone(), example.clone());
    (likeness > ALIKE).then_some(Nearest { domain, example, likeness })
}
