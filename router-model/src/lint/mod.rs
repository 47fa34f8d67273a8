//! What adding a domain would do, before it is enabled.
//!
//! In: a domain among all others, and the trained weights.  Out: a [`Lint`]: what
//! is wrong with its examples, where they would go if they had not been seen, what
//! it would take from other domains, and what to do about it.
//!
//! * `faults`: what makes a set of domains unusable; the gateway asks it too,
//!   before it takes over a changed file.
//! * `examples`: too few, the same twice, empty talk, what is also elsewhere.
//! * `folds`: parts of all examples are held out in turn, and asked.
//! * `alike`: how alike two texts are, by the rare n-grams they share.
//! * `advice`: sentences from numbers.
//!
//! The promise: the same files give the same answer, nothing is fitted on what it
//! is asked, and a domain the weights were trained on is said to be one, since its
//! examples were seen in training and its figures flatter.
//!
//! Absent: any change of a domain or of the weights.

mod advice;
mod alike;
mod examples;
mod faults;
mod folds;
#[cfg(test)]
mod tests;

use std::time::Instant;

use config::{Domain, Domains};
use serde::Serialize;

pub use faults::{DomainFault, faults};

use crate::{Supervisor, SupervisorError, Weights};

/// How a domain would fare.
#[derive(Clone, Debug, Serialize)]
pub struct Lint {
    pub domain: String,
    /// Examples in its file.
    pub examples: usize,
    /// The weights know it already: nothing is fitted, and what was held out here
    /// had been seen in training.
    pub trained: bool,
    /// Whether the file would be refused; `findings` says why.
    pub refused: bool,
    pub findings: Vec<Finding>,
    /// What became of its examples; absent if it is refused or has too few.
    pub held_out: Option<HeldOut>,
    pub suggestions: Vec<String>,
    /// All heads together, in milliseconds; 0 if it is refused.
    pub fit_ms: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The file is refused.
    Error,
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// For programs: `few_examples`, `contradiction`, `duplicate`, `near_duplicate`,
    /// `empty_talk`, `alike_elsewhere`, `confused`, `takes`.
    pub code: &'static str,
    pub message: String,
}

/// Where examples went that the fit had not seen.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    pub folds: usize,
    pub n: usize,
    /// Best guess is the domain itself, whether or not it abstained.
    pub right: usize,
    /// Not sure enough at the threshold, or a label that is not routed to.
    pub abstained: usize,
    /// Best guesses, most first; itself among them.
    pub guesses: Vec<Count>,
    /// Each example that went elsewhere, the surest first.
    pub confused: Vec<Confused>,
    /// Examples of other domains that came here, by domain, most first.
    pub takes: Vec<Taken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    pub domain: String,
    pub n: usize,
}

/// An example that would go elsewhere.
#[derive(Clone, Debug, Serialize)]
pub struct Confused {
    pub example: String,
    pub guess: String,
    pub probability: f32,
    /// Of the domain itself.
    pub own: f32,
    /// The most similar example of the domain it went to.
    pub nearest: Option<Nearest>,
    /// Words that spoke most for that domain.
    pub words: Vec<String>,
}

/// `likeness` is 0 (nothing in common) to 1 (the same n-grams).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nearest {
    pub domain: String,
    pub example: String,
    pub likeness: f32,
}

/// Another domain's examples that would come here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Taken {
    pub domain: String,
    /// Of so many asked.
    pub of: usize,
    /// At most a few are worth reading.
    pub examples: Vec<String>,
    pub n: usize,
}

/// Looks at the domain `id` of `domains` as if it were enabled.
///
/// # Errors
///
/// [`SupervisorError`] if the threshold or another domain cannot be used; what is
/// wrong with this one is in [`Lint::findings`].
pub fn lint(
    id: &str,
    domains: &Domains,
    weights: &Weights,
    threshold: f32,
) -> Result<Lint, SupervisorError> {
    let labels = &weights.header().labels;
    let mut all: Vec<Domain> = domains.iter().cloned().collect();
    all.iter_mut().filter(|domain| domain.id == id).for_each(|domain| domain.enabled = true);
    let own = all.iter().find(|domain| domain.id == id).cloned();
    let own = own.unwrap_or_else(|| Domain::new(id));
    let concerns = |fault: &DomainFault| fault.concerns(id);
    let faults: Vec<DomainFault> = faults(&all, labels).into_iter().filter(concerns).collect();
    let mut findings: Vec<Finding> = faults.iter().map(faults::finding).collect();
    findings.extend(examples::findings(&own, &all, &alike::Rarity::of(&all)));
    let mut lint = Lint {
        domain: id.to_owned(),
        examples: own.examples.len(),
        trained: labels.iter().any(|label| label == id),
        refused: !faults.is_empty(),
        findings,
        held_out: None,
        suggestions: Vec::new(),
        fit_ms: 0.0,
    };
    if !lint.refused {
        let start = Instant::now();
        let whole = folds::among(&all, |_, _| true);
        Supervisor::new(weights.clone(), &whole, threshold)?;
        lint.fit_ms = start.elapsed().as_secs_f64() * 1e3;
        lint.held_out = folds::held_out(&own, &all, weights, threshold)?;
    }
    advice::add(&mut lint, &own);
    Ok(lint)
}
