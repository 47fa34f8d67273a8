//! Calls that an editor or a chat page makes for itself: titles, summaries, commit messages, suggestions.
//!
//! They are told by their structure.  Either the whole request was made for the chore (its system prompt names it, no
//! tools, hardly any turns), or the last turn orders it, about "this conversation", with the form that a program needs.
//! A person who asks for a title or a summary in passing says neither, and even a mistake is small: the answer comes
//! from where the conversation is.

use router_model::{Role, Turn};

/// What is done in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chore {
    Title,
    /// Compaction too.
    Summary,
    Commit,
    /// Follow-up questions, tags.
    Suggestions,
    /// Whether a message begins a new topic.
    Topic,
}

impl Chore {
    /// The word in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Summary => "summary",
            Self::Commit => "commit",
            Self::Suggestions => "suggestions",
            Self::Topic => "topic",
        }
    }
}

/// What each is called, by whoever orders it; the first one that fits counts.
const NAMES: &[(Chore, &[&str])] = &[
    (Chore::Topic, &["new conversation topic", "new topic"]),
    (Chore::Commit, &["commit message", "git commit"]),
    (
        Chore::Suggestions,
        &[
            "follow-up question",
            "follow up question",
            "follow-up prompt",
            "follow-up suggestion",
            "broad tags",
            "autocompletion system",
        ],
    ),
    (Chore::Title, &["title"]),
    (Chore::Summary, &["summar", "compaction", "condens", "handoff"]),
];

/// What it is done to.
const OBJECTS: &[&str] = &[
    "this conversation",
    "our conversation",
    "the conversation",
    "a conversation",
    "conversation topic",
    "conversations",
    "coding conversation",
    "partial conversation",
    "conversation title",
    "this chat",
    "the chat",
    "chat history",
    "chat title",
    "chatbot",
    "this thread",
    "the thread",
    "thread title",
    "this session",
    "the session",
    "following request",
    "the diff",
    "diffs",
    "code changes",
    "git commit",
    "commit message",
    "autocompletion",
];

/// Programs say which form they need; people seldom do.
const FORMS: &[&str] = &[
    "only",
    "-word",
    " words",
    "word or",
    "characters",
    "json",
    "nothing else",
    "no explanation",
    "concise",
    "detailed",
    "handoff",
    "checkpoint",
    "continu",
    "brief title",
];

/// Bytes at the beginning of a turn that say what is ordered.
const ORDER: usize = 600;

/// The same of a system prompt: one that was written for a chore begins with it, others come to it in passing.
const PURPOSE: usize = 160;

/// Turns of a request that was made for a chore: the order, and what it is about.
const FEW: usize = 3;

/// The chore that a request is, from its messages and whether it offers tools.
pub fn chore(turns: &[Turn], tools: bool) -> Option<Chore> {
    let system = turns.iter().find(|turn| turn.role == Role::System).map(|turn| &*turn.text);
    let mut said = turns.iter().filter(|turn| turn.role != Role::System);
    let answered = turns.iter().any(|turn| turn.role == Role::Assistant);
    let short = !answered && said.clone().count() <= FEW;
    let last = turns.iter().rev().find(|turn| turn.role != Role::System)?;
    if short
        && !tools
        && let Some(chore) = system.and_then(|text| named(text, PURPOSE, &[OBJECTS]))
    {
        return Some(chore);
    }
    // To compact, all of the conversation is sent, with its tools; everything else needs none.
    let fits = |chore: &Chore| !tools || (*chore == Chore::Summary && answered);
    let order = |turn: &Turn| match turn.role {
        Role::User => named(&turn.text, ORDER, &[OBJECTS, FORMS]),
        _ => None,
    };
    let first = said.next().filter(|_| short);
    [Some(last), first].into_iter().flatten().find_map(order).filter(fits)
}

/// The chore that the first `bytes` of a text name, with a word of each list.
fn named(text: &str, bytes: usize, lists: &[&[&str]]) -> Option<Chore> {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at))?;
    let order = text[..end].to_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| order.contains(word));
    let (chore, _) = NAMES.iter().find(|(_, names)| any(names))?;
    lists.iter().all(|list| any(list)).then_some(*chore)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns as `s: …`, `u: …`, `a: …` lines, in the shape that clients send.
    #[track_caller]
    fn check(tools: bool, lines: &[&str], expect: Option<Chore>) {
        let turn = |line: &&str| {
            let (role, text) = line.split_once(": ").expect("a role");
            let role = match role {
                "s" => Role::System,
                "u" => Role::User,
                "a" => Role::Assistant,
                _ => Role::Tool,
            };
            Turn { role, text: text.to_owned() }
        };
        let turns: Vec<Turn> = lines.iter().map(turn).collect();
        assert_eq!(chore(&turns, tools), expect, "{lines:?}");
    }

    #[test]
    fn background_calls_of_clients() {
        use Chore::*;
        for (lines, expect) in [
            // opencode
            (
                &[
                    "s: You generate titles. Output one thread title, nothing else.",
                    "u: Generate a title for this conversation:\n",
                    "u: \"What is a tort?\"",
                ][..],
                Title,
            ),
            // Editors that order it in the turn itself
            (
                &[
                    "s: You are a helpful assistant.",
                    "u: What is a tort?",
                    "a: A wrong.",
                    "u: Generate a concise 3-7 word title for this conversation, without punctuation.",
                ],
                Title,
            ),
            (
                &[
                    "u: Provide a 5-word-or-less title for the conversation. Only return the title itself.\nUser: What is a tort?",
                ],
                Title,
            ),
            (
                &[
                    "s: You craft pithy titles for chatbot conversations.",
                    "u: Please write a brief title for the following request:\n\nWhat is a tort?",
                ],
                Title,
            ),
            // Chat pages
            (
                &[
                    "u: ### Task:\nGenerate a concise, 3-5 word title summarizing the chat history.\n### Output:\nJSON format\n<chat_history>\nUSER: What is a tort?\n</chat_history>",
                ],
                Title,
            ),
            (
                &[
                    "u: ### Task:\nSuggest 3-5 relevant follow-up questions that the user might ask next, based on the chat history. Answer in JSON.",
                ],
                Suggestions,
            ),
            (
                &[
                    "u: ### Task:\nGenerate 1-3 broad tags for the main themes of the chat history, as JSON.",
                ],
                Suggestions,
            ),
            // Agents
            (
                &[
                    "s: Analyze if this message indicates a new conversation topic. If it does, extract a title of 2-3 words.",
                    "u: What is a tort?",
                ],
                Topic,
            ),
            (
                &[
                    "s: You write one-line Git commit messages based on the provided diffs.",
                    "u: diff --git a/x b/x\n+1",
                ],
                Commit,
            ),
            (
                &[
                    "s: *Briefly* summarize this partial conversation about programming.",
                    "u: # USER\nWhat is a tort?",
                ],
                Summary,
            ),
        ] {
            check(false, lines, Some(expect));
        }
        // Compaction comes with the whole conversation and its tools.
        let compact = "u: Provide a detailed prompt for continuing our conversation above, a summary of what was done.";
        check(
            true,
            &["s: You are a coding agent.", "u: Fix it.", "a: Done.", compact],
            Some(Summary),
        );
        check(
            false,
            &["s: You summarize conversations.", "u: Fix it.", "a: Done.", compact],
            Some(Summary),
        );
    }

    #[test]
    fn what_people_ask_is_no_chore() {
        for lines in [
            &["u: Suggest a title for my essay on torts, at most ten words."][..],
            &["u: What is the title of the king of Spain? Only the title."],
            &["u: What is a tort?", "a: A wrong.", "u: Can you summarize that?"],
            &["u: How do I write a good commit message?"],
            &[
                "s: You summarize contracts for lawyers.",
                "u: Summarize this contract: The parties agree …",
            ],
            &[
                "s: You are a coding agent. Write commit messages in the imperative.",
                "u: Fix the bug.",
                "a: Done.",
                "u: Commit it.",
            ],
            &["u: What does title VII of the act say? Answer in 50 words."],
            &["u: How do I condense steam?"],
            &["t: a title for this conversation, only"],
            &[],
        ] {
            check(false, lines, None);
        }
        // An agent whose long instructions speak of conversations and titles is at work all the same.
        let agent =
            "s: You are a coding agent. Use a title for this conversation's commit messages.";
        check(true, &[agent, "u: Rename the struct."], None);
        check(
            true,
            &[agent, "u: Write a commit message for this conversation, only one line."],
            None,
        );
    }
}
