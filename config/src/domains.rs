//! All domains together: unique words, existing fallbacks, labels to ids.

use std::collections::BTreeMap;

use crate::reader::nearest;
use crate::{ConfigError, Domain, RESERVED};

/// The domains in use, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Domains {
    all: BTreeMap<String, Domain>,
    /// Every id, name and alias by [`key`], to the id it means.
    words: BTreeMap<String, String>,
}

/// A domain and the name of its file in messages.
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) domain: Domain,
}

impl Domains {
    /// # Errors
    ///
    /// [`ConfigError`] where two domains share an id, a name or an alias, where a
    /// fallback does not exist, or where fallbacks go in a circle.
    pub fn new(domains: Vec<Domain>) -> Result<Domains, ConfigError> {
        let file = |domain: &Domain| format!("domains/{}.toml", domain.id);
        let sources = domains.into_iter().map(|domain| Source { file: file(&domain), domain });
        Domains::from_sources(sources.collect())
    }

    pub(crate) fn from_sources(sources: Vec<Source>) -> Result<Domains, ConfigError> {
        let mut domains = Domains::default();
        let mut files = BTreeMap::new();
        for Source { file, domain } in sources {
            domains.name(&file, &domain)?;
            files.insert(domain.id.clone(), file);
            domains.all.insert(domain.id.clone(), domain);
        }
        let ids: Vec<String> = domains.all.keys().cloned().collect();
        for id in ids {
            let file = files.get(&id).map_or("", String::as_str);
            let Some(fallback) = domains.all[&id].fallback.clone() else { continue };
            let meant = domains.served(file, "fallback", &fallback)?;
            if let Some(domain) = domains.all.get_mut(&id) {
                domain.fallback = Some(meant);
            }
            domains.refuse_circle(file, &id)?;
        }
        Ok(domains)
    }

    /// Claims the words of one domain.
    fn name(&mut self, file: &str, domain: &Domain) -> Result<(), ConfigError> {
        let second = &domain.id;
        let mut own = vec![&domain.id, &domain.name];
        own.extend(&domain.aliases);
        if self.all.contains_key(second) {
            let (first, word) = (second.clone(), second.clone());
            return Err(ConfigError::Ambiguous {
                file: file.into(),
                word,
                first,
                second: second.clone(),
            });
        }
        for word in own {
            if RESERVED.contains(&key(word).as_str()) {
                return Err(ConfigError::BadValue {
                    file: file.into(),
                    key: "aliases".into(),
                    got: format!("{word:?}"),
                    want: format!("none of {RESERVED:?}, which are model ids of their own"),
                });
            }
            if let Some(first) = self.words.insert(key(word), second.clone())
                && first != *second
            {
                return Err(ConfigError::Ambiguous {
                    file: file.into(),
                    word: word.clone(),
                    first,
                    second: second.clone(),
                });
            }
        }
        Ok(())
    }

    /// The id of the enabled domain that `label` names, for the fallback in `file`.
    pub(crate) fn served(&self, file: &str, at: &str, label: &str) -> Result<String, ConfigError> {
        let id = self.canonical(label).filter(|id| self.all[*id].enabled);
        id.map(str::to_owned).ok_or_else(|| ConfigError::UnknownDomain {
            file: file.into(),
            key: at.into(),
            id: label.into(),
            nearest: nearest(label, self.enabled().map(|d| d.id.as_str())).map(str::to_owned),
        })
    }

    fn refuse_circle(&self, file: &str, start: &str) -> Result<(), ConfigError> {
        let mut path = vec![start.to_owned()];
        let mut at = start;
        // Longer than the number of domains, a path must repeat one.
        while let Some(next) = self.all.get(at).and_then(|d| d.fallback.as_deref()) {
            path.push(next.to_owned());
            if next == start {
                return Err(ConfigError::Circle { file: file.into(), path });
            }
            if path.len() > self.all.len() {
                break;
            }
            at = next;
        }
        Ok(())
    }

    /// All domains, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.all.values()
    }

    /// The domains that queries are routed to, by id.
    pub fn enabled(&self) -> impl Iterator<Item = &Domain> {
        self.iter().filter(|domain| domain.enabled)
    }

    pub fn get(&self, id: &str) -> Option<&Domain> {
        self.all.get(id)
    }

    /// The id that `label` means: an id, a name or an alias, in any case, with
    /// space, `_` and `-` alike.
    pub fn canonical(&self, label: &str) -> Option<&str> {
        self.words.get(&key(label)).map(String::as_str)
    }

    /// The word nearest to a label that means nothing, for an error message.
    pub fn nearest(&self, label: &str) -> Option<&str> {
        nearest(&key(label), self.words.keys().map(String::as_str))
    }
}

/// What is alike under [`Domains::canonical`].
fn key(label: &str) -> String {
    let lower = label.to_lowercase();
    let parts = lower.split(|c: char| c.is_whitespace() || c == '_' || c == '-');
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line reads `id|name|alias,alias|fallback`, with `!` if disabled.
    fn domains(text: &str) -> Result<Domains, ConfigError> {
        let domain = |line: &str| {
            let f: Vec<&str> = line.trim().split('|').collect();
            let mut domain = Domain::new(f[0].trim_end_matches('!'));
            domain.enabled = !f[0].ends_with('!');
            let get = |at: usize| f.get(at).filter(|s| !s.is_empty());
            domain.name = get(1).map_or(domain.id.clone(), |s| s.to_string());
            domain.aliases =
                get(2).map(|s| s.split(',').map(str::to_owned).collect()).unwrap_or_default();
            domain.fallback = get(3).map(|s| s.to_string());
            domain
        };
        Domains::new(text.split(';').map(domain).collect())
    }

    #[track_caller]
    fn check(text: &str, label: &str, want: &str) {
        let got = match domains(text) {
            Ok(domains) => domains.canonical(label).unwrap_or("-").to_owned(),
            Err(err) => err.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn labels() {
        let two = "computer-science|Computer science|code,Ruby on rails;law||legal matters";
        for label in ["computer-science", "COMPUTER_science", " computer  science ", "Code"] {
            check(two, label, "computer-science");
        }
        check(two, "ruby-on_Rails", "computer-science");
        check(two, "legal_matters", "law");
        check(two, "computerscience", "-");
        check(two, "", "-");
        // Saying one's own name twice is no conflict.
        check("law|Law|law,LAW", "law", "law");
        // A disabled domain is still a label.
        check("other!", "Other", "other");
    }

    #[test]
    fn one_word_means_one_domain() {
        let taken = |word: &str| {
            format!(
                "domains/b.toml: \"{word}\" already names the domain \"a\"; take another word for \
                 \"b\", or remove it there by a file domains/a.toml of your own"
            )
        };
        check("a||x;b||X", "", &taken("X"));
        check("a|B C;b|b_c", "", &taken("b_c"));
        check("a||b;b", "", &taken("b"));
        check(
            "a||Generalist",
            "",
            "domains/a.toml: \"aliases\" is \"Generalist\"; it must be none of \
             [\"auto\", \"generalist\", \"none\"], which are model ids of their own",
        );
    }

    #[test]
    fn fallbacks() {
        check("a|||b;b", "a", "a");
        assert_eq!(
            domains("a|||X y;b||x-y").unwrap().get("a").unwrap().fallback.as_deref(),
            Some("b")
        );
        let unknown = "domains/a.toml: \"fallback\" is \"lwa\", which is not an enabled domain";
        check("a|||lwa;law", "", &format!("{unknown}; did you mean \"law\"?"));
        check("a|||lwa;law!", "", unknown);
        check("a|||a", "", "domains/a.toml: fallbacks go in a circle: a -> a");
        check(
            "a|||b;b|||c;c|||a",
            "",
            "domains/a.toml: fallbacks go in a circle: a -> b -> c -> a",
        );
        // Reported for those in the circle, and no endless walk for the one outside.
        check("a|||b;b|||c;c|||b", "", "domains/b.toml: fallbacks go in a circle: b -> c -> b");
    }
}
