//! Which specialist a conversation's next turn goes to.
//!
//! In: a request ([`Reading`] tells what it is: `words` takes off what clients add, `chore` knows their own calls,
//! `code` what is no question), where the conversation is ([`Conversations`], marks of `identity` in a `ring`), and the
//! supervisor.  Out: its word as it is carried out ([`follow`]), and where the conversation is from now on.
//!
//! * A conversation stays unless the gain beats the margin and the cost of a move; a clear new topic moves (`policy`).
//! * In a tool loop nothing moves.  Doubt in a running conversation stays where it is.
//! * A client's own calls go where the conversation is, and neither begin nor move one.
//! * Code to be completed goes to the domain that is called `code`, without a look at it.
//! * What is not remembered (another server, a restart, too long ago, a history that the client has changed) is decided
//!   again from the turns themselves, so that memory is never needed: it saves work, and it holds corrections.
//!
//! The promise: everything but [`Conversations`] is a pure function, asking the same twice changes nothing, and one API
//! key never meets another's conversations.
//!
//! Absent: text in memory, stored answers (`previous_response_id` names one of those), a domain's id.
//!
//! To know another client: a row in `identity::SAID`, `words::TYPED` or `chore`'s lists, and its dialogue in `dialogue_tests`.

use std::time::{Duration, Instant};

use router_model::{Decision, Query, Rule};

mod chore;
mod code;
mod identity;
mod policy;
mod reading;
mod ring;
mod words;

#[cfg(test)]
mod dialogue_tests;

pub use identity::{Identity, Mark};
pub use policy::{Place, Weighed, ruled};
pub use reading::{Context, Kind, Reading};

use policy::Switch;
use ring::Ring;

/// The name by which the domain of code is found among the domains' ids, names and aliases.
pub const CODE: &str = "code";

/// Turns of the user that are decided again where nothing is remembered; each costs a look of the supervisor.
const REPLAYED: usize = 4;

/// Where the conversations are that have not been idle for long.
pub struct Conversations {
    ring: Ring,
    pub rules: config::Conversations,
}

impl Conversations {
    pub fn new(rules: config::Conversations) -> Self {
        Self { ring: Ring::new(rules.remembered, Duration::from_secs(rules.idle)), rules }
    }

    /// Where the conversation of a request was, if that is remembered, and how many turns of its user ago.
    pub fn find(&self, reading: &Reading, now: Instant) -> Option<Known> {
        let known = |(mark, turns): &(Mark, usize)| {
            self.ring.get(mark, now).map(|place| Known { place, turns: *turns })
        };
        reading.known_by.iter().find_map(known)
    }

    /// From now on the conversation is there.
    pub fn keep(&self, mark: Mark, place: Place, now: Instant) {
        self.ring.put(mark, place, now);
    }

    /// Somebody says that `wrong` was, and where the conversation belongs.
    pub fn correct(&self, mark: Mark, meant: Option<String>, wrong: Option<String>, now: Instant) {
        let before = self.ring.get(&mark, now).unwrap_or_default();
        let barred = wrong.filter(|wrong| meant.as_ref() != Some(wrong));
        self.ring.put(mark, Place { domain: meant, barred, ..before }, now);
    }

    /// How many turns are remembered.
    pub fn remembered(&self) -> usize {
        self.ring.remembered()
    }
}

/// Where a conversation was after the first `turns` of its user.
pub struct Known {
    pub place: Place,
    pub turns: usize,
}

/// What a decision depends on beside the conversation.
pub struct Facts<'a> {
    /// The supervisor.
    pub judge: &'a dyn Fn(&Query) -> Decision,
    /// Least probability at which it is sure.
    pub threshold: f32,
    /// Whether a domain may be chosen.
    pub enabled: &'a dyn Fn(&str) -> bool,
    /// The domain of code, if there is one.
    pub code: Option<&'a str>,
    pub rules: &'a config::Conversations,
    /// Bytes of experts that a move between two domains loads; `None` if the same specialist serves both.
    pub load: &'a dyn Fn(Option<&str>, &str) -> Option<u64>,
}

/// A decision on a turn.
#[derive(Debug)]
pub struct Followed {
    pub word: Decision,
    /// What was weighed, if the conversation was somewhere before.
    pub weighed: Option<Weighed>,
    /// Where the conversation is from now on; `None` if that is no affair of this request.
    pub place: Option<Place>,
}

/// Decides on a request whose conversation is `known` to be somewhere, or not.
pub fn follow(reading: &Reading, known: Option<Known>, facts: &Facts) -> Followed {
    let alone = |word| Followed { word, weighed: None, place: None };
    // Domains come and go.
    let enabled = |known: &Known| known.place.domain.as_deref().is_none_or(facts.enabled);
    let known = known.filter(enabled);
    let all = reading.turns;
    match reading.kind {
        Kind::Code => alone(ruled(Rule::Code, facts.code.map(str::to_owned), 1.0)),
        Kind::Raw => alone((facts.judge)(&reading.query(all, false))),
        Kind::Chore(_) => {
            let place = replayed(reading, known, facts);
            let domain = place.and_then(|place| place.domain);
            let rule = if domain.is_some() { Rule::Sticky } else { Rule::Abstained };
            alone(ruled(rule, domain, 0.0))
        }
        Kind::Turn => {
            let place = replayed(reading, known, facts);
            let word = judge(reading, all, place.as_ref(), facts);
            let (word, weighed, old) = match place {
                None => (word, None, Place::default()),
                Some(place) => {
                    let (word, weighed) = step(&place, reading.locked, word, facts);
                    (word, Some(weighed), place)
                }
            };
            let place = Place { domain: word.domain.clone(), ..old };
            Followed { word, weighed, place: Some(place) }
        }
    }
}

/// Where the conversation was before this request: from where it is known to have been, each turn that came since is
/// decided again.
fn replayed(reading: &Reading, known: Option<Known>, facts: &Facts) -> Option<Place> {
    let (mut place, since) = match known {
        Some(Known { place, turns }) => (Some(place), turns),
        None => (None, 0),
    };
    let newest = reading.before.saturating_sub(REPLAYED);
    let first = since.max(reading.oldest()).max(newest).saturating_add(1);
    for turns in first..=reading.before {
        let mut word = judge(reading, turns, place.as_ref(), facts);
        if let Some(place) = &place {
            word = step(place, false, word, facts).0;
        }
        place = Some(Place { domain: word.domain, ..place.unwrap_or_default() });
    }
    place
}

/// The supervisor's word after the first `turns` of the user, in a conversation that is at `place`.
fn judge(reading: &Reading, turns: usize, place: Option<&Place>, facts: &Facts) -> Decision {
    let mut word = (facts.judge)(&reading.query(turns, false));
    if place.is_some() && turns > 1 {
        let newest = (facts.judge)(&reading.query(turns, true));
        word = policy::mixed(word, newest, facts.threshold);
    }
    // A conversation that is somewhere has said more of itself than its tools do.
    let open = place.is_none_or(|place| place.domain.is_none());
    match facts.code {
        Some(code) if open && !reading.tools.is_empty() => {
            policy::with_tools(word, code, &reading.tools, facts.threshold)
        }
        _ => word,
    }
}

fn step(place: &Place, locked: bool, word: Decision, facts: &Facts) -> (Decision, Weighed) {
    let switch = |to: &str| match (facts.load)(place.domain.as_deref(), to) {
        Some(bytes) => Switch { tokens: place.tokens, bytes },
        None => Switch::default(),
    };
    policy::settle(place, locked, word, facts.threshold, facts.rules, switch)
}
