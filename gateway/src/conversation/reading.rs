//! What a request says of its conversation: who it is, what its user said, and what kind of call it is.
//!
//! In: the turns and what came with them.  Out: a [`Reading`], which holds the user's own words (the newest turns of
//! them), whether a tool loop is open, and marks instead of everything else.

use router_model::{Query, Role, Turn};

use super::chore::{Chore, chore};
use super::code;
use super::identity::{Chain, Identity, Mark};
use super::words::{Lines, is_result, own};

/// Older turns of the user do not speak any more: the supervisor weighs fewer.
const NEWEST: usize = 8;

/// Beginnings that are looked up; clients add a few messages between two requests.
const LOOKED_UP: usize = 256;

/// What came with the text, and says which conversation it belongs to and what kind of call it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    pub identity: Identity,
    /// Fields of the body that may name the conversation, or its user.
    pub ids: Vec<(&'static str, String)>,
    /// Names of the tools that are offered.
    pub tools: Vec<String>,
    /// The assistant waits for the results of tools.
    pub open_calls: bool,
    /// There is a text after the one to be completed.
    pub suffix: bool,
}

impl Context {
    /// A field of [`Context::ids`].
    pub fn id(&self, name: &str) -> Option<&str> {
        self.ids.iter().find(|(other, _)| *other == name).map(|(_, id)| id.as_str())
    }
}

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A turn of a conversation.
    Turn,
    /// A client's own call; it moves nothing.
    Chore(Chore),
    /// A prompt without a conversation.
    Raw,
    /// Code to be completed.
    Code,
}

/// A request, read.
#[derive(Debug)]
pub struct Reading {
    pub kind: Kind,
    /// The user's own words in the newest turns, oldest first; what follows on itself is one turn.
    pub said: Vec<String>,
    /// Turns of the user, those that are not in `said` too.
    pub turns: usize,
    /// Those that an earlier request has brought: all of them if a tool had the last word.
    pub before: usize,
    /// In the middle of a tool loop.
    pub locked: bool,
    /// Names of an editor's tools, if they are offered.
    pub tools: Vec<String>,
    /// Under which a known conversation may be found, likeliest first, and how many turns of the user it had then;
    /// an id stands for all of them.
    pub known_by: Vec<(Mark, usize)>,
    /// Under which it is remembered.
    pub own: Option<Mark>,
}

/// Tools of programs that edit code, without case and joints.  One alone may be anybody's; two are an editor.
const EDITORS: &[&str] = &[
    "applydiff",
    "applypatch",
    "bash",
    "edit",
    "editfile",
    "editor",
    "execcommand",
    "executecommand",
    "glob",
    "grep",
    "multiedit",
    "read",
    "readfile",
    "readfiles",
    "replaceinfile",
    "runcommand",
    "runcommands",
    "runinterminal",
    "runterminalcmd",
    "searchcodebase",
    "searchfiles",
    "shell",
    "strreplaceeditor",
    "terminal",
    "write",
    "writefile",
    "writestdin",
    "writetofile",
];

/// What aider says when everything before it was an example.
const VOID: &str = "I switched to a new code base.";

impl Reading {
    /// Of a raw prompt.
    pub fn raw(text: &str, context: &Context) -> Self {
        let code = context.suffix || code::has_gap(text) || code::is_code(text);
        Self {
            kind: if code { Kind::Code } else { Kind::Raw },
            said: vec![text.to_owned()],
            turns: 1,
            before: 0,
            locked: false,
            tools: Vec::new(),
            known_by: Vec::new(),
            own: None,
        }
    }

    /// Of a conversation.
    pub fn chat(turns: &[Turn], context: &Context) -> Self {
        let mut system = Lines::default();
        turns.iter().filter(|t| t.role == Role::System).for_each(|t| system.add(&t.text));
        let mut chain = Chain::new(context.identity.scope);
        let (mut said, mut count): (Vec<String>, usize) = (Vec::new(), 0);
        // Turns of the user up to each message.
        let mut counts = Vec::new();
        // The last thing that counted was the user's.
        let mut going_on = false;
        let mut last = Role::System;
        let mut voids = 0;
        for (i, turn) in turns.iter().enumerate() {
            let words = match turn.role {
                Role::User if !is_result(&turn.text) => own(&turn.text, &system),
                _ => turn.text.as_str().into(),
            };
            let role = match turn.role {
                Role::User if is_result(&turn.text) => Role::Tool,
                role => role,
            };
            chain.add(role, &words);
            if role == Role::User && words.trim().is_empty() {
                counts.push(count);
                continue;
            }
            if role != Role::System {
                last = role;
            }
            match role {
                Role::User if words.trim_start().starts_with(VOID) => {
                    said.clear();
                    count = 0;
                    chain.void();
                    counts.clear();
                    voids += 1;
                    going_on = false;
                    continue;
                }
                // What is only acknowledged was no question: files and rules that clients hand over.
                Role::User if acknowledged(turns.get(i + 1)) => going_on = false,
                Role::User if going_on => {
                    if let Some(turn) = said.last_mut() {
                        turn.push('\n');
                        turn.push_str(words.trim());
                    }
                }
                Role::User => {
                    if said.len() == NEWEST {
                        said.remove(0);
                    }
                    said.push(words.trim().to_owned());
                    count += 1;
                    going_on = true;
                }
                Role::Assistant | Role::Tool => going_on = false,
                Role::System => {}
            }
            counts.push(count);
        }
        let gap = turns.iter().any(|turn| turn.role == Role::User && code::has_gap(&turn.text));
        // Examples before are no answers of ours.
        let chore = if voids == 0 { chore(turns, !context.tools.is_empty()) } else { None };
        let kind = match chore {
            Some(chore) => Kind::Chore(chore),
            None if gap => Kind::Code,
            None => Kind::Turn,
        };
        let session = context.identity.session;
        let marks = chain.marks();
        let own = session.or(marks.last().copied()).filter(|_| kind == Kind::Turn);
        let known_by = match session {
            Some(session) => vec![(session, usize::MAX)],
            None => marks.into_iter().zip(counts).rev().take(LOOKED_UP).collect(),
        };
        let locked = last == Role::Tool || context.open_calls;
        let tools = editors(&context.tools);
        let before = count - usize::from(last == Role::User && count > 0);
        Self { kind, said, turns: count, before, locked, tools, known_by, own }
    }

    /// What the supervisor reads when the user had said the first `turns` of it, or the last one of those `alone`.
    pub fn query(&self, turns: usize, alone: bool) -> Query {
        let end = turns.saturating_sub(self.oldest()).min(self.said.len());
        let start = if alone { end.saturating_sub(1) } else { 0 };
        let turn = |text: &String| Turn { role: Role::User, text: text.clone() };
        Query { turns: self.said[start..end].iter().map(turn).collect() }
    }

    /// Turns of the user that are not in `said`.
    pub fn oldest(&self) -> usize {
        self.turns - self.said.len()
    }
}

fn acknowledged(next: Option<&Turn>) -> bool {
    next.is_some_and(|next| next.role == Role::Assistant && next.text.trim() == "Ok.")
}

/// Tools of an editor, if there are two or more.
fn editors(tools: &[String]) -> Vec<String> {
    let is_editor = |name: &&String| {
        let plain = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
        EDITORS.binary_search(&plain.collect::<String>().as_str()).is_ok()
    };
    let found: Vec<String> = tools.iter().filter(is_editor).take(4).cloned().collect();
    if found.len() < 2 { Vec::new() } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_of_editors() {
        #[track_caller]
        fn check(tools: &[&str], expect: usize) {
            let tools: Vec<String> = tools.iter().map(|t| (*t).to_owned()).collect();
            assert_eq!(editors(&tools).len(), expect, "{tools:?}");
        }
        assert!(EDITORS.is_sorted());
        check(&["bash", "edit", "todowrite"], 2);
        check(&["read_file", "writeFile", "get_weather"], 2);
        check(&["exec_command", "write_stdin", "view_image"], 2);
        check(&["read", "get_weather"], 0);
        check(&[], 0);
    }

    /// `u: …` lines to what was said.
    #[track_caller]
    fn check(lines: &[&str], said: &[&str], locked: bool) {
        let reading = Reading::chat(&turns(lines), &Context::default());
        assert_eq!(reading.said, said);
        assert_eq!(reading.locked, locked, "{lines:?}");
    }

    fn turns(lines: &[&str]) -> Vec<Turn> {
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
        lines.iter().map(turn).collect()
    }

    #[test]
    fn only_what_the_user_says() {
        check(&["s: be brief", "u: q"], &["q"], false);
        check(&["u: q", "a: x", "u: r"], &["q", "r"], false);
        check(&["u: q", "a: ", "t: 42"], &["q"], true);
        check(&["u: q", "a: ", "t: 42", "a: so", "u: r"], &["q", "r"], false);
        check(&["u: q", "a: ", "t: 42", "s: remember"], &["q"], true);
        // codex sends the surroundings as the user, in a turn of their own.
        check(
            &["u: <environment_context>\n<cwd>/w</cwd>\n</environment_context>", "u: q"],
            &["q"],
            false,
        );
        check(&["u: part one", "u: part two", "a: x", "u: r"], &["part one\npart two", "r"], false);
        check(&["u: [read_file for 'a'] Result:\nfn"], &[], true);
        check(&["a: hi"], &[], false);
        // aider's example, and what it hands over.
        check(
            &[
                "s: rules\nreturn whole files",
                "u: Change it",
                "a: Ok, done",
                "u: I switched to a new code base. Forget it.",
                "a: Ok.",
                "u: No files yet.",
                "a: Ok.",
                "u: What is a tort?\n\nreturn whole files",
            ],
            &["What is a tort?"],
            false,
        );
    }

    #[test]
    fn ten_thousand_messages() {
        let line = |i: usize| if i.is_multiple_of(2) { "u: and then?" } else { "a: this" };
        let lines: Vec<&str> = (0..10_001).map(line).collect();
        let reading = Reading::chat(&turns(&lines), &Context::default());
        assert_eq!((reading.said.len(), reading.known_by.len()), (NEWEST, LOOKED_UP));
    }

    #[test]
    fn an_example_of_a_client_is_no_beginning() {
        let example = ["u: Change it", "a: Done", "u: I switched to a new code base.", "a: Ok."];
        let with = |last: &'static str| {
            let mut lines = example.to_vec();
            lines.push(last);
            Reading::chat(&turns(&lines), &Context::default())
        };
        let (one, other) = (with("u: What is a tort?"), with("u: What is an integral?"));
        // "Ok." after the example is all they share.
        let shared = one.known_by.iter().filter(|mark| other.known_by.contains(mark)).count();
        assert_eq!(shared, 1);
        assert!(other.known_by.iter().all(|(mark, _)| Some(*mark) != one.own));
    }
}
