//! What makes a set of domains unusable, so that a file is refused.

use std::collections::BTreeMap;

use config::Domain;
use thiserror::Error;

use super::{Finding, Level};
use crate::head::LEAST_EXAMPLES;
use crate::query::is_empty_talk;

/// Why a domain's file is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DomainFault {
    /// Nothing to learn it from.
    #[error(
        "domain \"{domain}\" has {got} examples that differ and say something, and the supervisor \
         was not trained on it; give it at least {want}, better twenty, worded as users ask"
    )]
    FewExamples { domain: String, got: usize, want: usize },
    /// Whatever is learnt from one of the two is wrong for the other.
    #[error(
        "domains \"{first}\" and \"{second}\" both have the example {example:?}; a question can only \
         go to one of them: remove it from the other"
    )]
    Contradiction { first: String, second: String, example: String },
}

impl DomainFault {
    /// Whether it is about this domain.
    pub fn concerns(&self, id: &str) -> bool {
        match self {
            DomainFault::FewExamples { domain, .. } => domain == id,
            DomainFault::Contradiction { first, second, .. } => first == id || second == id,
        }
    }
}

pub(super) fn finding(fault: &DomainFault) -> Finding {
    let code = match fault {
        DomainFault::FewExamples { .. } => "few_examples",
        DomainFault::Contradiction { .. } => "contradiction",
    };
    Finding { level: Level::Error, code, message: fault.to_string() }
}

/// Everything that is wrong with `domains` for weights that know `labels`.
///
/// Only enabled domains count; of two that `labels` has, neither is learnt from
/// its examples, so they cannot contradict each other.
pub fn faults<'a>(
    domains: impl IntoIterator<Item = &'a Domain>,
    labels: &[String],
) -> Vec<DomainFault> {
    let (mut faults, mut seen) = (Vec::new(), BTreeMap::<String, &Domain>::new());
    for domain in domains {
        let learnt = domain.enabled && !labels.contains(&domain.id);
        let mut own = BTreeMap::new();
        for example in domain.examples.iter().filter(|example| !is_empty_talk(example)) {
            own.entry(plain(example)).or_insert(example);
        }
        if learnt && own.len() < LEAST_EXAMPLES {
            let (domain, got) = (domain.id.clone(), own.len());
            faults.push(DomainFault::FewExamples { domain, got, want: LEAST_EXAMPLES });
        }
        for (key, example) in own {
            match seen.get(&key) {
                Some(first) if learnt || (first.enabled && !labels.contains(&first.id)) => {
                    let (first, second) = (first.id.clone(), domain.id.clone());
                    let example = example.clone();
                    faults.push(DomainFault::Contradiction { first, second, example });
                }
                Some(_) => {}
                None => drop(seen.insert(key, domain)),
            }
        }
    }
    faults
}

/// What is the same question, however it is typed: words in lower case.
pub(super) fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split_whitespace().map(|word| word.trim_matches(['.', ',', '!', '?']));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
