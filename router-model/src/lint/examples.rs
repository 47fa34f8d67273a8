//! What is wrong with examples on their own; nothing is fitted.

use std::collections::BTreeMap;

use config::Domain;

use super::alike::{Print, Rarity};
use super::faults::plain;
use super::{Finding, Level};
use crate::query::is_empty_talk;

/// Two examples above this teach what one does.  The same question with another
/// number or ending is at 0.8 to 0.95; two of one subject are below 0.5.
const NEAR: f32 = 0.8;

/// An example this much like another domain's is likely to be misplaced in one.
const ELSEWHERE: f32 = 0.6;

/// With fewer, what was held out says little and doubt is frequent.
const ENOUGH: usize = 10;

/// Examples compared pair by pair; of more, the first ones.
const MOST: usize = 2_000;

pub(super) fn findings(own: &Domain, all: &[Domain], rarity: &Rarity) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |code, message| found.push(Finding { level: Level::Warning, code, message });
    if own.examples.len() < ENOUGH {
        let n = own.examples.len();
        warn("few_examples", format!("{n} examples are few; about twenty are worth the while"));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut kept: Vec<(&String, Print)> = Vec::new();
    for (at, example) in own.examples.iter().enumerate() {
        if is_empty_talk(example) {
            warn(
                "empty_talk",
                format!("{example:?} says nothing to route by and teaches nothing; leave it out"),
            );
            continue;
        }
        match seen.get(&plain(example)) {
            Some(first) => warn(
                "duplicate",
                format!("{example:?} is there twice (examples {} and {})", first + 1, at + 1),
            ),
            None => {
                seen.insert(plain(example), at);
                if kept.len() < MOST {
                    kept.push((example, rarity.print(example)));
                }
            }
        }
    }
    for (at, (example, print)) in kept.iter().enumerate() {
        let near = kept[..at].iter().find(|(_, other)| print.likeness(other) > NEAR);
        if let Some((other, _)) = near {
            warn("near_duplicate", format!("{example:?} and {other:?} teach nearly the same"));
        }
    }
    for other in all.iter().filter(|other| other.id != own.id) {
        for theirs in other.examples.iter().take(MOST) {
            let print = rarity.print(theirs);
            // The same one is a contradiction, and said to be one elsewhere.
            let near = kept.iter().find(|(own, mine)| {
                mine.likeness(&print) > ELSEWHERE && plain(own) != plain(theirs)
            });
            if let Some((example, _)) = near {
                let domain = &other.id;
                warn(
                    "alike_elsewhere",
                    format!("{example:?} is much like {theirs:?} of domain \"{domain}\""),
                );
            }
        }
    }
    found
}
