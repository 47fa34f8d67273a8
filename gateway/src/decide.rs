//! Who answers: the model's name, the supervisor's word and the specialists at
//! hand in, one [`Decided`] out.
//!
//! A pure function of facts.  A domain without a specialist of its own goes to
//! its fallback, and from there to the generalist, which always can answer; the
//! domain stays in the decision, so that its traffic is counted for it.
//!
//! Absent: anything about memory.  A decision names who should answer; whether
//! it is warm is the pool's affair.

use std::collections::BTreeMap;

use config::Domains;
use router_model::{Decision, Rule};
use serde::Serialize;
use specialists::{GENERALIST, Manifest, State};

use crate::ask::AUTO;
use crate::errors::{Refusal, nearest};
use crate::shape::fresh;

/// Who should answer, and why; in this form it is what `route` shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decided {
    pub decision_id: String,
    pub specialist: String,
    /// The supervisor's word, or what stands for it where the client named somebody.
    #[serde(flatten)]
    pub word: Decision,
}

impl Decided {
    /// The domain in headers and metrics.
    pub fn domain(&self) -> &str {
        self.word.domain.as_deref().unwrap_or("none")
    }

    /// The name of the rule that had the last word.
    pub fn rule(&self) -> &'static str {
        match self.word.rule {
            Rule::Classifier => "classifier",
            Rule::Abstained => "abstained",
            Rule::Sticky => "sticky",
            Rule::Locked => "locked",
            Rule::Fallback => "fallback",
            Rule::Pinned => "pinned",
            Rule::Code => "code",
        }
    }
}

/// What a model id means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Auto,
    Generalist,
    /// The id of a domain: enabled, or known by its specialist alone.
    Domain(String),
}

/// Which specialist serves a domain; domains that have none are absent.
pub type Serving = BTreeMap<String, String>;

/// Which specialist serves each domain: the one named like the domain, else the
/// newest; one that is still being tried out serves nobody yet.
pub fn serving<'a>(specialists: impl IntoIterator<Item = &'a Manifest>) -> Serving {
    let active = |m: &&Manifest| m.state == State::Active && m.id != GENERALIST;
    let mut ranked: Vec<&Manifest> = specialists.into_iter().filter(active).collect();
    ranked.sort_by_key(|m| (m.id == m.domain, m.created.time, &m.id));
    ranked.into_iter().map(|m| (m.domain.clone(), m.id.clone())).collect()
}

/// Reads a model id: `auto`, `generalist`, an enabled domain by id, name or alias, or
/// the domain of a specialist that no file describes yet.
///
/// # Errors
/// [`Refusal::Model`] with the nearest ids.
pub fn named(model: &str, domains: &Domains, serving: &Serving) -> Result<Named, Refusal> {
    if model.eq_ignore_ascii_case(AUTO) {
        return Ok(Named::Auto);
    }
    if model.eq_ignore_ascii_case(GENERALIST) {
        return Ok(Named::Generalist);
    }
    let domain = match domains.canonical(model).and_then(|id| domains.get(id)) {
        Some(domain) => domain.enabled.then_some(domain.id.as_str()),
        None => undescribed(domains, serving).find(|id| *id == model),
    };
    match domain {
        Some(id) => Ok(Named::Domain(id.to_owned())),
        None => Err(Refusal::Model {
            near: nearest(model, ids(domains, serving).iter().map(String::as_str)),
            // Enough to know it by.
            model: model.chars().take(100).collect(),
        }),
    }
}

/// Every model id, names and aliases aside.
pub fn ids(domains: &Domains, serving: &Serving) -> Vec<String> {
    let mut ids = vec![AUTO.to_owned(), GENERALIST.to_owned()];
    ids.extend(domains.enabled().map(|d| d.id.clone()));
    ids.extend(undescribed(domains, serving).map(str::to_owned));
    ids
}

/// Domains that have a specialist and no file: nothing is dispatched to them, but
/// they can be asked by name.  The name becomes part of paths and headers.
fn undescribed<'a>(domains: &'a Domains, serving: &'a Serving) -> impl Iterator<Item = &'a str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let unknown = |id: &&str| domains.canonical(id).is_none();
    serving.keys().map(String::as_str).filter(unknown).filter(move |id| id.bytes().all(plain))
}

/// Decides; `supervisor` is asked only if the client named nobody.
pub fn decide(
    named: Named,
    domains: &Domains,
    serving: &Serving,
    fallback: Option<&str>,
    supervisor: impl FnOnce() -> Decision,
) -> Decided {
    let (specialist, word) = match named {
        Named::Generalist => (GENERALIST.to_owned(), pinned(None)),
        Named::Domain(id) => (answerer(&id, domains, serving), pinned(Some(id))),
        Named::Auto => {
            let mut word = supervisor();
            let specialist = match (&word.domain, fallback) {
                (Some(id), _) => answerer(id, domains, serving),
                (None, Some(id)) => {
                    word.rule = Rule::Fallback;
                    answerer(id, domains, serving)
                }
                (None, None) => GENERALIST.to_owned(),
            };
            (specialist, word)
        }
    };
    Decided { decision_id: fresh("d"), specialist, word }
}

/// The word for a domain that the client named.
fn pinned(domain: Option<String>) -> Decision {
    Decision { domain, confidence: 1.0, rule: Rule::Pinned, ..Decision::default() }
}

/// The specialist for a domain: its own, else its fallback's, else the generalist.
fn answerer(domain: &str, domains: &Domains, serving: &Serving) -> String {
    let mut at = domain;
    // The configuration has no circles; the bound is for domains made in other ways.
    for _ in 0..=domains.iter().count() {
        if let Some(specialist) = serving.get(at) {
            return specialist.clone();
        }
        match domains.get(at).and_then(|d| d.fallback.as_deref()) {
            Some(next) => at = next,
            None => break,
        }
    }
    GENERALIST.to_owned()
}

#[cfg(test)]
mod tests {
    use config::Domain;

    use super::*;

    fn domains() -> Domains {
        let mut law = Domain::new("law");
        law.aliases = vec!["legal".into()];
        let mut tax = Domain::new("tax");
        tax.fallback = Some("law".into());
        let mut other = Domain::new("other");
        other.enabled = false;
        Domains::new(vec![law, tax, other, Domain::new("math")]).expect("sound domains")
    }

    fn word(domain: Option<&str>) -> Decision {
        let rule = if domain.is_some() { Rule::Classifier } else { Rule::Abstained };
        let domain = domain.map(str::to_owned);
        Decision { abstained: domain.is_none(), confidence: 0.75, rule, ..pinned(domain) }
    }

    /// `says` is the supervisor's word, `serving` the domains with a specialist.
    #[track_caller]
    fn check(model: &str, says: &str, serving: &str, fallback: Option<&str>, expect: &str) {
        let domains = domains();
        let serving: Serving =
            serving.split_whitespace().map(|d| (d.to_owned(), format!("{d}-1"))).collect();
        let says = Some(says).filter(|s| *s != "-");
        let seen = match named(model, &domains, &serving) {
            Err(refusal) => refusal.to_string(),
            Ok(named) => {
                let d = decide(named, &domains, &serving, fallback, || word(says));
                format!("{} {} {} {}", d.domain(), d.specialist, d.rule(), d.word.confidence)
            }
        };
        assert_eq!(seen, expect, "{model}, {says:?}");
    }

    #[test]
    fn the_supervisor_decides() {
        check("auto", "law", "law math", None, "law law-1 classifier 0.75");
        check("AUTO", "law", "law math", None, "law law-1 classifier 0.75");
        // No specialist yet: the generalist answers, and the domain is known.
        check("auto", "law", "math", None, "law generalist classifier 0.75");
        // The domain's own fallback comes before the generalist.
        check("auto", "tax", "law", None, "tax law-1 classifier 0.75");
        check("auto", "tax", "tax law", None, "tax tax-1 classifier 0.75");
        check("auto", "tax", "math", None, "tax generalist classifier 0.75");
    }

    #[test]
    fn doubt_goes_to_the_generalist_or_where_the_settings_say() {
        check("auto", "-", "law", None, "none generalist abstained 0.75");
        check("auto", "-", "law", Some("law"), "none law-1 fallback 0.75");
        check("auto", "-", "", Some("law"), "none generalist fallback 0.75");
    }

    #[test]
    fn a_name_is_obeyed() {
        check("law", "math", "law math", None, "law law-1 pinned 1");
        check("Legal", "math", "law math", None, "law law-1 pinned 1");
        check("law", "math", "", None, "law generalist pinned 1");
        check("generalist", "math", "law math", None, "none generalist pinned 1");
        check("other", "law", "", None, "the model `other` does not exist");
        // A disabled domain stays so, whatever is registered; a new one answers to its name.
        check("other", "law", "other", None, "the model `other` does not exist");
        check("cooking", "law", "cooking", None, "cooking cooking-1 pinned 1");
        check("cooking", "law", "law", None, "the model `cooking` does not exist");
        check("../etc", "law", "../etc", None, "the model `../etc` does not exist");
        check("lawe", "law", "", None, "the model `lawe` does not exist; near it: law");
    }
}
