//! A user's own words, without what clients put around them.
//!
//! Structural rules, not a list of clients: blocks in tags that nobody types (`<environment_context>…`) go, tags around
//! what was typed (`<user_query>…`) are taken off, and lines that the system prompt has too are format rules that are
//! repeated.  If nothing is left, the text was the user's own after all, unless it was blocks alone.

use std::borrow::Cow;
use std::collections::HashSet;

/// Tags around what somebody typed.
const TYPED: &[&str] =
    &["task", "feedback", "user_input", "user_message", "user_query", "userRequest", "prompt"];

/// Tags of one word around what nobody typed; those of several words always are.
const ADDED: &[&str] = &["attachment", "attachments", "context", "environment", "reminder"];

/// More blocks than any client sends; each costs a search.
const MOST_BLOCKS: usize = 64;

/// Longer is no tag.
const LONGEST_TAG: usize = 200;

/// Lines shorter than this say nothing of where they come from.
const SHORTEST_LINE: usize = 3;

/// Lines of the system prompts of a request.
#[derive(Default)]
pub struct Lines<'a>(HashSet<&'a str>);

impl<'a> Lines<'a> {
    pub fn add(&mut self, system: &'a str) {
        self.0.extend(system.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE));
    }
}

/// What the user typed of `text`; empty if nothing was.
pub fn own<'a>(text: &'a str, system: &Lines) -> Cow<'a, str> {
    let text = without_blocks(text);
    if system.0.is_empty() || text.trim().is_empty() {
        return text;
    }
    if !text.lines().any(|line| system.0.contains(line.trim())) {
        return text;
    }
    let kept: Vec<&str> = text.lines().filter(|line| !system.0.contains(line.trim())).collect();
    let kept = kept.join("\n");
    if kept.trim().is_empty() { text } else { Cow::Owned(kept) }
}

/// The result of a tool, in the words of clients that send it as the user: `[read_file for 'x'] Result:`.
pub fn is_result(text: &str) -> bool {
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.starts_with('[') && line.contains("] Result:")
}

/// Blocks that begin a line and end one, taken out or taken off.
fn without_blocks(text: &str) -> Cow<'_, str> {
    let (mut kept, mut done, mut searches) = (String::new(), 0, 0);
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let at = start + line.len() - line.trim_start().len();
        start += line.len();
        // Within a block that is done with.
        if at < done || searches == MOST_BLOCKS {
            continue;
        }
        let Some(block) = text.get(at..).and_then(Block::begin) else { continue };
        searches += 1;
        let Some(length) = block.inside.find(&block.end) else { continue };
        let after = &block.inside[length + block.end.len()..];
        let ends_line = after.split('\n').next().is_none_or(|rest| rest.trim().is_empty());
        if !block.typed && !ends_line {
            continue;
        }
        kept.push_str(&text[done..at]);
        if block.typed {
            kept.push_str(&block.inside[..length]);
            kept.push('\n');
        }
        done = text.len() - after.len();
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[done..]);
    Cow::Owned(kept)
}

/// What a client put into the text, or around what was typed.
struct Block<'a> {
    typed: bool,
    /// All that comes after the tag.
    inside: &'a str,
    /// The tag that ends it.
    end: String,
}

impl<'a> Block<'a> {
    /// The block that `text` begins with, by its tag.
    fn begin(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix('<')?;
        let close = rest.bytes().take(LONGEST_TAG).position(|b| b == b'>')?;
        let (whole, inside) = (&rest[..close], &rest[close + 1..]);
        let name = whole.split(' ').next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.bytes().all(plain) {
            return None;
        }
        let typed = TYPED.contains(&name);
        // Names of several words, joined or not: nobody types that around a question.
        let joined = name.contains(['_', '-']);
        let camel = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.contains(|c: char| c.is_ascii_uppercase());
        let spaced = whole != name && whole.bytes().all(|b| plain(b) || b == b' ');
        let name = match typed || joined || camel || ADDED.contains(&name) {
            true => name,
            false if spaced => whole,
            false => return None,
        };
        Some(Self { typed, inside, end: format!("</{name}>") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(system: &str, text: &str, expect: &str) {
        let mut lines = Lines::default();
        lines.add(system);
        assert_eq!(own(text, &lines).trim(), expect, "{text:?}");
    }

    #[test]
    fn blocks_of_clients() {
        check("", "Why?", "Why?");
        check("", "<environment_context>\n  <cwd>/w</cwd>\n</environment_context>", "");
        check(
            "",
            "<system-reminder>\nBe brief.\n</system-reminder>\nWhat is a tort?",
            "What is a tort?",
        );
        check(
            "",
            "What is a tort?\n\n<environment_details>\n# Files\na.rs\n</environment_details>",
            "What is a tort?",
        );
        check(
            "",
            "<task>\nWhat is a tort?\n</task>\n<environment_details>x</environment_details>",
            "What is a tort?",
        );
        check("", "<user_input mode=\"act\">\nWhat is a tort?\n</user_input>", "What is a tort?");
        check(
            "",
            "<context>\nToday is Monday.\n</context>\n<userRequest>\nWhat is a tort?\n</userRequest>",
            "What is a tort?",
        );
        check(
            "",
            "<permissions instructions>\nRead only.\n</permissions instructions>\nGo on.",
            "Go on.",
        );
        check("", "<attachment id=\"f.py\">\nx = 1\n</attachment>\nWhat is x?", "What is x?");
    }

    #[test]
    fn what_users_paste_stays() {
        for text in [
            "Why is <div>a</div> not centred?",
            "<div>\na\n</div>\nWhy is it not centred?",
            "Is a <user-card> element valid?",
            "vec<a_b> and x < y > z",
            "<a_b>\nnever closed",
            "<button disabled>\nsend\n</button>\nWhy can it not be pressed?",
            "if a <b_c> then </b_c> d",
            "<",
            "<>",
            "< a_b>",
            "a\n<é_b>x</é_b>",
        ] {
            check("", text, text);
        }
    }

    #[test]
    fn format_rules_that_the_system_prompt_has_too() {
        let rules =
            "To change a file, return all of it.\n\npath/to/file.js\n```\n// all of it\n```";
        let system = format!("Act as a developer.\n\n{rules}\n");
        check(&system, &format!("What is a tort?\n\n{rules}"), "What is a tort?");
        // Nothing else was said: it was meant.
        check("math\nlaw", "law", "law");
        check("", &format!("q\n{rules}"), &format!("q\n{rules}"));
    }

    #[test]
    fn results_of_tools_in_words() {
        assert!(is_result("[read_file for 'a.rs'] Result:\nfn main() {}"));
        assert!(!is_result("[1, 2] is a list. Result: what?"));
        assert!(!is_result("Result:"));
    }

    /// Each block costs a search, so that their number has to be bounded.
    #[test]
    fn no_text_is_slow() {
        let started = std::time::Instant::now();
        for piece in ["<a_b>\n", "<", "<a_b></a_b>\n", "<a_b c>\n", "\n<task>"] {
            let text = piece.repeat((4 << 20) / piece.len());
            let mut lines = Lines::default();
            lines.add(&text);
            drop(own(&text, &lines));
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
