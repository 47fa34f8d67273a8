//! Stay or move: pure functions of where a conversation is and what the supervisor says.
//!
//! The rule is that of switching costs: a conversation moves when the gain in probability is more than a margin plus
//! what the move costs.  No clock, no pool, no text in here.

use config::Conversations;
use router_model::{Alternative, Decision, Evidence, Rule};
use serde::Serialize;

/// What a move costs at most, so that a clear new topic moves however long the conversation is.
const DEAREST: f32 = 0.3;

/// Odds of code, times this, where an editor offers its tools.  People who code also ask about law, so it settles close
/// calls and no more: a probability of 0.4 becomes 0.57, one of 0.1 becomes 0.18.
const CODING: f32 = 2.0;

/// Where a conversation is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// `None` is the generalist, or the fallback.
    pub domain: Option<String>,
    /// Somebody said that this domain was wrong; only they can say otherwise.
    pub barred: Option<String>,
    /// Tokens of the last prompt: whoever comes next reads them again.
    pub tokens: usize,
}

/// What has to be done for a move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switch {
    /// Tokens to be read again.
    pub tokens: usize,
    /// Experts to be loaded, beyond those that staying would load.
    pub bytes: u64,
}

/// Why a conversation is where it is; shown by `route`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weighed {
    /// Where it was; `None` is the generalist.
    pub at: Option<String>,
    /// How much likelier the supervisor's choice is; negative if it is not.
    pub gain: f32,
    /// What the gain would have to exceed.
    pub needed: f32,
}

/// What a move must gain beyond the margin, as a probability.
pub fn price(rules: &Conversations, switch: Switch) -> f32 {
    let tokens = switch.tokens as f32 / 1000.0;
    let gib = switch.bytes as f32 / (1u64 << 30) as f32;
    (rules.reread * tokens + rules.reload * gib).min(DEAREST)
}

/// The supervisor's `word` on a conversation that is at `place`, as it is carried out.
///
/// `threshold` is what the supervisor needs to be sure; `switch` says what a move to a domain takes.
pub fn settle(
    place: &Place,
    locked: bool,
    word: Decision,
    threshold: f32,
    rules: &Conversations,
    switch: impl FnOnce(&str) -> Switch,
) -> (Decision, Weighed) {
    let at = place.domain.clone();
    let of = |domain: &str| {
        let found = word.alternatives.iter().find(|a| a.domain == domain);
        found.map_or(0.0, |a| a.probability)
    };
    // A generalist is as likely as it takes to leave it.
    let own = at.as_deref().map_or(threshold, of);
    let margin = if at.is_some() { rules.margin } else { 0.0 };
    let (gain, needed) = match word.domain.as_deref() {
        Some(best) if at.as_deref() == Some(best) => (0.0, 0.0),
        Some(best) => (of(best) - own, margin + price(rules, switch(best))),
        None => (word.confidence - own, margin),
    };
    let rule = match word.domain.as_deref() {
        // Half an answer cannot change hands.
        _ if locked => Rule::Locked,
        Some(best) if at.as_deref() == Some(best) => Rule::Classifier,
        Some(best) if place.barred.as_deref() == Some(best) => Rule::Sticky,
        Some(_) if gain > needed => Rule::Classifier,
        None if at.is_none() => Rule::Abstained,
        _ => Rule::Sticky,
    };
    let weighed = Weighed { at: at.clone(), gain, needed };
    if matches!(rule, Rule::Classifier | Rule::Abstained) {
        return (word, weighed);
    }
    (Decision { abstained: at.is_none(), domain: at, rule, ..word }, weighed)
}

/// The supervisor's word on a conversation that goes on: half of what the newest turn says by itself (`alone`), so that
/// a new topic is one, half of what all of it says (`whole`), so that a word in passing is none.
pub fn mixed(whole: Decision, alone: Decision, threshold: f32) -> Decision {
    if alone.alternatives.is_empty() || whole.alternatives.is_empty() {
        return whole;
    }
    let mut alternatives = whole.alternatives;
    for one in &mut alternatives {
        let other = alone.alternatives.iter().find(|a| a.domain == one.domain);
        one.probability = (one.probability + other.map_or(0.0, |a| a.probability)) / 2.0;
    }
    alternatives.sort_by(|a, b| {
        b.probability.total_cmp(&a.probability).then_with(|| a.domain.cmp(&b.domain))
    });
    let best = &alternatives[0];
    let by_alone = alone.domain.as_ref() == Some(&best.domain);
    let by_whole = whole.domain.as_ref() == Some(&best.domain);
    let sure = best.probability >= threshold && (by_alone || by_whole);
    Decision {
        domain: sure.then(|| best.domain.clone()),
        confidence: best.probability,
        abstained: !sure,
        rule: if sure { Rule::Classifier } else { Rule::Abstained },
        evidence: if by_alone { alone.evidence } else { whole.evidence },
        alternatives,
        ..whole
    }
}

/// The supervisor's word where an editor's tools are offered: `code` is the domain they speak for.
pub fn with_tools(word: Decision, code: &str, tools: &[String], threshold: f32) -> Decision {
    let Some(before) = word.alternatives.iter().find(|a| a.domain == code) else { return word };
    let before = before.probability;
    let all = 1.0 + before * (CODING - 1.0);
    let mut alternatives: Vec<Alternative> = word.alternatives.clone();
    for other in &mut alternatives {
        let times = if other.domain == code { CODING } else { 1.0 };
        other.probability *= times / all;
    }
    alternatives.sort_by(|a, b| {
        b.probability.total_cmp(&a.probability).then_with(|| a.domain.cmp(&b.domain))
    });
    let best = alternatives[0].clone();
    let after = before * CODING / all;
    // An abstention for another reason than a low probability stands.
    let domain = match word.domain {
        None if best.domain == code && before < threshold && after >= threshold => {
            Some(code.to_owned())
        }
        Some(_) if best.probability < threshold => None,
        Some(_) if best.domain == code => Some(code.to_owned()),
        as_before => as_before,
    };
    let mut evidence = word.evidence;
    evidence.push(Evidence { text: format!("tools: {}", tools.join(", ")), weight: CODING.ln() });
    Decision {
        rule: if domain.is_some() { Rule::Classifier } else { Rule::Abstained },
        abstained: domain.is_none(),
        domain,
        confidence: best.probability,
        alternatives,
        evidence,
        ..word
    }
}

/// The word of a rule that asks no supervisor.
pub fn ruled(rule: Rule, domain: Option<String>, confidence: f32) -> Decision {
    Decision { domain, confidence, abstained: rule == Rule::Abstained, rule, ..Decision::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `law=0.6 math=0.3`, likeliest first; below 0.5 the supervisor abstains.
    fn word(says: &str) -> Decision {
        let alternative = |pair: &str| {
            let (domain, p) = pair.split_once('=').expect("a pair");
            Alternative { domain: domain.into(), probability: p.parse().expect("a number") }
        };
        let alternatives: Vec<Alternative> = says.split_whitespace().map(alternative).collect();
        let best = alternatives.first().filter(|a| a.probability >= 0.5);
        Decision {
            domain: best.map(|a| a.domain.clone()),
            confidence: alternatives.first().map_or(0.0, |a| a.probability),
            abstained: best.is_none(),
            rule: if best.is_some() { Rule::Classifier } else { Rule::Abstained },
            alternatives,
            micros: 1,
            ..Decision::default()
        }
    }

    /// `at` is a domain, or `-`; `!d` after it bars d; `locked` after it locks.
    #[track_caller]
    fn check(at: &str, says: &str, switch: (usize, u64), expect: &str) {
        let mut words = at.split_whitespace();
        let domain = words.next().filter(|d| *d != "-").map(str::to_owned);
        let rest: Vec<&str> = words.collect();
        let barred = rest.iter().find_map(|w| w.strip_prefix('!')).map(str::to_owned);
        let place = Place { domain, barred, tokens: switch.0 };
        let locked = rest.contains(&"locked");
        let rules = Conversations::default();
        let switch = Switch { tokens: switch.0, bytes: switch.1 };
        let (word, _) = settle(&place, locked, word(says), 0.5, &rules, |_| switch);
        let seen = format!("{} {:?}", word.domain.as_deref().unwrap_or("-"), word.rule);
        assert_eq!(seen, expect, "{at}, {says}");
        assert_eq!(word.abstained, word.domain.is_none());
    }

    const FREE: (usize, u64) = (0, 0);
    const LONG: (usize, u64) = (10_000, 0);
    const HUGE: (usize, u64) = (1_000_000, 1 << 40);

    #[test]
    fn stay_or_move() {
        check("law", "law=0.9 math=0.1", FREE, "law Classifier");
        check("law", "math=0.9 law=0.1", FREE, "math Classifier");
        // Doubt stays, and so does a gain below the margin.
        check("law", "math=0.4 law=0.3", FREE, "law Sticky");
        check("law", "math=0.55 law=0.4", FREE, "law Sticky");
        check("law", "math=0.62 law=0.4", FREE, "math Classifier");
        // 10,000 tokens make the same gain too little.
        check("law", "math=0.62 law=0.3", FREE, "math Classifier");
        check("law", "math=0.62 law=0.3", LONG, "law Sticky");
        // Two GiB of experts cost a tenth.
        check("law", "math=0.62 law=0.35", (0, 2 << 30), "law Sticky");
        // A clear new topic moves whatever it costs.
        check("law", "math=0.8 law=0.1", HUGE, "math Classifier");
        // Nothing said at all.
        check("law", "", FREE, "law Sticky");
    }

    #[test]
    fn a_generalist_hands_over_to_who_is_sure() {
        check("-", "math=0.51 law=0.4", FREE, "math Classifier");
        check("-", "math=0.4 law=0.4", FREE, "- Abstained");
        // Nearly as good as the generalist is not worth reading everything again.
        check("-", "math=0.55 law=0.4", LONG, "- Sticky");
        check("-", "math=0.81 law=0.1", HUGE, "math Classifier");
    }

    #[test]
    fn locks_and_bars() {
        check("law locked", "math=0.99 law=0.01", FREE, "law Locked");
        check("- locked", "math=0.99 law=0.01", FREE, "- Locked");
        check("law !math", "math=0.99 law=0.01", FREE, "law Sticky");
        check("law !math", "physics=0.9 law=0.01", FREE, "physics Classifier");
    }

    #[test]
    fn tools_of_editors_settle_close_calls() {
        #[track_caller]
        fn check(says: &str, expect: &str) {
            let word = with_tools(word(says), "code", &["bash".to_owned()], 0.5);
            let sum: f32 = word.alternatives.iter().map(|a| a.probability).sum();
            assert!(word.alternatives.is_empty() || (sum - 1.0).abs() < 1e-5, "{sum}");
            let domain = word.domain.as_deref().unwrap_or("-");
            assert_eq!(format!("{domain} {:.2}", word.confidence), expect, "{says}");
            assert_eq!(word.abstained, word.domain.is_none());
        }
        check("code=0.40 law=0.6", "code 0.57");
        check("law=0.45 code=0.4 math=0.15", "code 0.57");
        check("law=0.9 code=0.1", "law 0.82");
        check("law=0.55 code=0.3 math=0.15", "- 0.46");
        // "hi" is no code, whatever the tools.
        check("", "- 0.00");
        check("law=1.0", "law 1.00");
    }

    #[test]
    fn a_new_topic_is_one_and_a_word_in_passing_is_none() {
        #[track_caller]
        fn check(whole: &str, alone: &str, expect: &str) {
            let word = mixed(word(whole), word(alone), 0.5);
            let domain = word.domain.as_deref().unwrap_or("-");
            assert_eq!(format!("{domain} {:.2}", word.confidence), expect, "{whole}, {alone}");
            assert_eq!(word.abstained, word.domain.is_none());
        }
        check("law=0.5 math=0.5", "math=0.98 law=0.02", "math 0.74");
        check("law=0.8 math=0.2", "math=0.6 law=0.4", "law 0.60");
        check("law=0.9 math=0.1", "law=0.34 math=0.33", "law 0.62");
        check("law=0.4 math=0.3", "math=0.4 law=0.3", "- 0.35");
        // Nothing to judge: "ok".
        check("law=0.9 math=0.1", "", "law 0.90");
        check("", "", "- 0.00");
    }

    #[test]
    fn what_a_move_costs() {
        let rules = Conversations::default();
        let of = |tokens, bytes| price(&rules, Switch { tokens, bytes });
        assert_eq!(of(0, 0), 0.0);
        assert!((of(5000, 0) - 0.1).abs() < 1e-6);
        assert!((of(1000, 1 << 30) - 0.07).abs() < 1e-6);
        assert_eq!(of(usize::MAX, u64::MAX), DEAREST);
    }
}
