//! Findings and advice from what became of held-out examples.

use config::Domain;

use super::{Finding, HeldOut, Level, Lint};

/// A share of examples going to one other domain that is worth a word.
const CONFUSED: f64 = 0.15;

/// A share of another domain's examples coming here that is worth a word.
const TAKES: f64 = 0.1;

/// More doubt than this, and the domain is seldom chosen.
const DOUBT: f64 = 0.5;

/// Adds to `findings`, and says what to do about all of them.
pub(super) fn add(lint: &mut Lint, own: &Domain) {
    let mut advice = Vec::new();
    if let Some(held) = lint.held_out.take() {
        confusions(lint, &held, &mut advice);
        lint.held_out = Some(held);
    } else if !lint.refused {
        advice.push(format!(
            "with {} examples nothing can be held out; with five or more it is measured where they go",
            lint.examples
        ));
    }
    let has = |code: &str| lint.findings.iter().any(|f| f.code == code);
    if has("few_examples") {
        advice.push("add examples: about twenty, as users type them, short and long ones".into());
    }
    if has("duplicate") || has("near_duplicate") {
        advice.push("replace repeated examples by others: each one should add words".into());
    }
    if own.description.trim().is_empty() {
        advice.push("write a description; people and agents choose by it".into());
    }
    lint.suggestions = advice;
}

fn confusions(lint: &mut Lint, held: &HeldOut, advice: &mut Vec<String>) {
    let share = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    let mut warn =
        |code, message| lint.findings.push(Finding { level: Level::Warning, code, message });
    for guess in held.guesses.iter().filter(|guess| guess.domain != lint.domain) {
        if guess.n < 2 || share(guess.n, held.n) < CONFUSED {
            continue;
        }
        let (n, of, domain) = (guess.n, held.n, &guess.domain);
        warn("confused", format!("{n} of {of} examples would go to \"{domain}\""));
        let mut words: Vec<&str> = Vec::new();
        for confused in held.confused.iter().filter(|c| c.guess == guess.domain) {
            let new = confused.words.iter().map(String::as_str);
            words.extend(new.filter(|word| !word.contains(' ')).take(2));
        }
        words.sort_unstable();
        words.dedup();
        words.truncate(6);
        let by = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
        advice.push(format!(
            "\"{domain}\" is near: add examples with these words{by} that are meant for \"{}\", \
             or leave such questions to \"{domain}\" and remove the examples",
            lint.domain
        ));
    }
    for taken in &held.takes {
        if taken.n < 2 && share(taken.n, taken.of) < TAKES {
            continue;
        }
        let (n, of, domain) = (taken.n, taken.of, &taken.domain);
        warn("takes", format!("{n} of {of} examples of \"{domain}\" would come here"));
        let first = taken.examples.first().map(|e| format!(", such as {e:?}")).unwrap_or_default();
        advice
            .push(format!("questions of \"{domain}\"{first} would come here: narrow the examples"));
    }
    if share(held.abstained, held.n) > DOUBT {
        advice.push(format!(
            "{} of {} examples are left in doubt and would go to the generalist: add examples that \
             share words with each other",
            held.abstained, held.n
        ));
    }
}
