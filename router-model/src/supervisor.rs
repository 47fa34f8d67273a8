//! Reads a query and decides, the same way for every caller.

use std::sync::Arc;
use std::time::Instant;

use config::Domains;

use crate::calibrate::{self, Said, softmax};
use crate::decision::{Alternative, Decision, Evidence, Reason, Rule};
use crate::encoder::{self, EncoderError};
use crate::features::Features;
use crate::head::{Head, LEAST_EXAMPLES, Seen};
use crate::query::{Query, Say, shares};
use crate::stages::Asked;
use crate::{SupervisorError, Weights};

/// Pieces of evidence in a decision: what a person reads at a glance.
const MOST_EVIDENCE: usize = 6;

/// The classifier with its weights, ready to decide; share it behind an `Arc`.
#[derive(Debug)]
pub struct Supervisor {
    weights: Weights,
    /// Domains that were not there when the weights were trained.
    heads: Vec<Head>,
    /// Domains that may be chosen.
    enabled: Vec<String>,
    threshold: f32,
    /// The second stage, where there is one.
    encoder: Option<Arc<Asked>>,
}

/// One turn, read.
struct Read {
    seen: Seen,
    /// Calibrated: a softmax of them gives probabilities.
    logits: Vec<f32>,
    /// Of each head's domain, against all labels together.
    odds: Vec<f32>,
    familiarity: f32,
    /// What the weights' own logits were divided by.
    temperature: f32,
    share: f32,
}

impl Read {
    fn say(&self) -> Say {
        let most = |list: &[f32]| list.iter().copied().fold(0f32, f32::max);
        let all = 1.0 + self.odds.iter().sum::<f32>();
        let certainty = most(&self.seen.probabilities).max(most(&self.odds)) / all;
        Say { words: self.seen.features.words, certainty }
    }
}

impl Supervisor {
    /// The shipped weights, for the domains in use.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`] if the threshold is not a probability, or a domain has
    /// too few examples to be learnt.
    pub fn shipped(domains: &Domains, threshold: f32) -> Result<Supervisor, SupervisorError> {
        Supervisor::new(Weights::shipped()?, domains, threshold)
    }

    /// The shipped weights with the second stage that the configuration names.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::shipped`], and where the encoder cannot be used.
    pub fn configured(
        domains: &Domains,
        settings: &config::Supervisor,
    ) -> Result<Supervisor, SupervisorError> {
        Supervisor::shipped(domains, settings.threshold)?.with_configured(&settings.encoder)
    }

    /// Adds the second stage that the configuration names.
    ///
    /// # Errors
    ///
    /// [`SupervisorError::Encoder`] where it cannot be used.
    pub fn with_configured(self, which: &config::Encoder) -> Result<Supervisor, SupervisorError> {
        let header = self.weights.header();
        let shipped = *which == config::Encoder::Shipped;
        match encoder::open(which)? {
            Some(encoder) => match Asked::new(encoder, &header.labels, header.second.as_ref()) {
                // Weights of other labels, trained without it, do without it.
                Err(EncoderError::Labels { .. }) if shipped => Ok(self),
                asked => Ok(Supervisor { encoder: Some(Arc::new(asked?)), ..self }),
            },
            None => Ok(self),
        }
    }

    /// The same weights, encoder and threshold for other domains.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::shipped`].
    pub fn for_domains(&self, domains: &Domains) -> Result<Supervisor, SupervisorError> {
        let lexical = Supervisor::new(self.weights.clone(), domains, self.threshold)?;
        Ok(Supervisor { encoder: self.encoder.clone(), ..lexical })
    }

    /// As [`Supervisor::shipped`], with other weights.
    pub fn new(
        weights: Weights,
        domains: &Domains,
        threshold: f32,
    ) -> Result<Supervisor, SupervisorError> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(SupervisorError::Threshold { threshold });
        }
        let enabled: Vec<String> = domains.enabled().map(|d| d.id.clone()).collect();
        let mut sup = Supervisor { weights, heads: Vec::new(), enabled, threshold, encoder: None };
        let labels = &sup.weights.header().labels;
        let mut heads = Vec::new();
        for domain in domains.enabled().filter(|domain| !labels.contains(&domain.id)) {
            if domain.examples.len() < LEAST_EXAMPLES {
                return Err(SupervisorError::FewExamples {
                    domain: domain.id.clone(),
                    got: domain.examples.len(),
                    want: LEAST_EXAMPLES,
                });
            }
            let see = |text: &String| sup.read(text, 1.0).seen;
            let own: Vec<Seen> = domain.examples.iter().map(see).collect();
            let rest = domains.iter().filter(|other| other.id != domain.id);
            let others: Vec<Seen> = rest.flat_map(|other| other.examples.iter().map(see)).collect();
            heads.push(Head::learn(&domain.id, &own, &others, &sup.weights));
        }
        sup.heads = heads;
        Ok(sup)
    }

    /// Without the second stage.
    pub fn lexical(mut self) -> Supervisor {
        self.encoder = None;
        self
    }

    pub fn has_encoder(&self) -> bool {
        self.encoder.is_some()
    }

    /// Whether a label may be chosen; without any domain, as in training, all may.
    pub(crate) fn routes(&self, label: &str) -> bool {
        self.enabled.is_empty() || self.enabled.iter().any(|domain| domain == label)
    }

    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Chooses a domain, or abstains: below the threshold, where the likeliest
    /// label is not routed to, and where nothing was said.
    pub fn decide(&self, query: &Query) -> Decision {
        let start = Instant::now();
        let mut decision = self.judge(query);
        decision.micros = start.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        decision
    }

    fn judge(&self, query: &Query) -> Decision {
        let turns = self.turns(query);
        if turns.is_empty() {
            let reason = Some(Reason::Empty);
            return Decision { abstained: true, reason, ..Decision::default() };
        }
        let alternatives = self.alternatives(&turns);
        let best = &alternatives[0];
        let confidence = best.probability;
        let familiarity = familiarity(&turns);
        let least = self.weights.header().set_from;
        let in_set = alternatives.iter().take_while(|a| a.probability >= least);
        let set: Vec<String> = in_set.map(|a| a.domain.clone()).collect();
        let reason = self.reason(best, familiarity, set.len());
        Decision {
            domain: reason.is_none().then(|| best.domain.clone()),
            confidence,
            abstained: reason.is_some(),
            rule: if reason.is_none() { Rule::Classifier } else { Rule::Abstained },
            reason,
            margin: confidence - alternatives.get(1).map_or(0.0, |next| next.probability),
            set,
            familiarity,
            evidence: self.evidence(&turns, &best.domain),
            alternatives,
            micros: 0,
        }
    }

    /// Why not to choose the likeliest label; a threshold of zero has no doubts.
    fn reason(&self, best: &Alternative, familiarity: f32, in_set: usize) -> Option<Reason> {
        let header = self.weights.header();
        let doubts = self.threshold > 0.0;
        // What a head was taught is not strange because the weights never saw it.
        let learnt = !header.labels.contains(&best.domain);
        if doubts && familiarity < header.familiar_from && !learnt {
            Some(Reason::Unfamiliar)
        } else if best.probability < self.threshold {
            Some(Reason::Unsure)
        } else if doubts && in_set != 1 {
            Some(Reason::Ambiguous)
        } else if !self.enabled.contains(&best.domain) {
            Some(Reason::NotRouted)
        } else {
            None
        }
    }

    fn turns(&self, query: &Query) -> Vec<Read> {
        let mut turns: Vec<Read> = query.said().map(|text| self.read(text, 0.0)).collect();
        let says: Vec<Say> = turns.iter().map(Read::say).collect();
        turns.iter_mut().zip(shares(&says)).for_each(|(turn, share)| turn.share = share);
        turns
    }

    fn read(&self, text: &str, share: f32) -> Read {
        let header = self.weights.header();
        let features = Features::new(text, self.weights.vocabulary());
        let (mut logits, familiarity) = self.weights.judge(&features);
        let said = Said { words: features.words, known: features.known };
        let temperature = header.heat.at(said);
        logits.iter_mut().for_each(|z| *z /= temperature);
        let logits = match &self.encoder {
            Some(encoder) => encoder.answer(logits, text),
            None => logits,
        };
        let probabilities = softmax(&logits, 1.0);
        let seen = Seen { features, probabilities };
        let odds = self.heads.iter().map(|head| head.odds(&seen)).collect();
        Read { seen, logits, odds, familiarity, temperature, share }
    }

    /// Every label and its probability, likeliest first.
    fn alternatives(&self, turns: &[Read]) -> Vec<Alternative> {
        let header = self.weights.header();
        let mut logits = vec![0f32; header.labels.len()];
        for turn in turns {
            logits.iter_mut().zip(&turn.logits).for_each(|(sum, z)| *sum += turn.share * z);
        }
        let odds =
            |head: usize| -> f32 { turns.iter().map(|turn| turn.share * turn.odds[head]).sum() };
        let odds: Vec<f32> = (0..self.heads.len()).map(odds).collect();
        let all = 1.0 + odds.iter().sum::<f32>();
        let trained =
            header.labels.iter().zip(calibrate::probabilities(&logits, 1.0, familiarity(turns)));
        let learnt = self.heads.iter().map(|head| &head.domain).zip(odds);
        let alternative = |(domain, share): (&String, f32)| Alternative {
            domain: domain.clone(),
            probability: share / all,
        };
        let mut list: Vec<Alternative> = trained.chain(learnt).map(alternative).collect();
        list.sort_by(|a, b| {
            b.probability.total_cmp(&a.probability).then_with(|| a.domain.cmp(&b.domain))
        });
        list
    }

    /// The words that moved `domain` most, either way.
    fn evidence(&self, turns: &[Read], domain: &str) -> Vec<Evidence> {
        let header = self.weights.header();
        let label = header.labels.iter().position(|label| label == domain);
        let head = self.heads.iter().find(|head| head.domain == domain);
        let mut all: Vec<Evidence> = Vec::new();
        for turn in turns {
            let features = &turn.seen.features;
            // (unit, weight) of every n-gram; a word and its pieces share a text.
            let moves: Vec<(u32, f32)> = match (label, head) {
                (Some(label), _) => self.moves(turn, label),
                (None, Some(head)) => head.likeness(features).collect(),
                (None, None) => Vec::new(),
            };
            let mut by_text: Vec<(&str, f32)> =
                moves.iter().map(|(unit, w)| (features.unit(*unit), w * turn.share)).collect();
            by_text.sort_by(|a, b| a.0.cmp(b.0));
            for same in by_text.chunk_by(|a, b| a.0 == b.0) {
                let weight = same.iter().map(|(_, weight)| weight).sum();
                all.push(Evidence { text: same[0].0.to_owned(), weight });
            }
        }
        all.retain(|e| e.text.chars().any(char::is_alphanumeric));
        all.sort_by(|a, b| {
            b.weight.abs().total_cmp(&a.weight.abs()).then_with(|| a.text.cmp(&b.text))
        });
        all.truncate(MOST_EVIDENCE);
        all
    }

    fn moves(&self, turn: &Read, label: usize) -> Vec<(u32, f32)> {
        let features = &turn.seen.features;
        let direction = self.weights.direction(label);
        let weight = |bucket: u32| self.weights.along(bucket, &direction) / turn.temperature;
        features.list.iter().map(|f| (f.unit, weight(f.bucket) * f.value)).collect()
    }
}

/// How far what was said is like anything seen.
fn familiarity(turns: &[Read]) -> f32 {
    turns.iter().map(|turn| turn.share * turn.familiarity).sum::<f32>().clamp(0.0, 1.0)
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
