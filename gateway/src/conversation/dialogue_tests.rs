//! Conversations as short dialogues: who says what, and where it goes.
//!
//! A line is `what: text` and what is expected of it, `domain rule`, with `-` for the generalist:
//!
//! * `u` the user says it, and is answered; `t` the assistant called a tool and this is its result; `o` the user says
//!   it while calls are open; `ask` as `u`, by `POST /v1/route`; `again` the same request once more
//! * `body` a request of its own in JSON, beside the conversation; `fim` a prompt to be completed, with a suffix
//! * `header`, `key`, `tools`, `system` hold from here on; `new` begins another conversation; `prune` changes the first
//!   answer in the client's history
//! * `meant` corrects the last decision; `idle` so many seconds pass; `restart` the server forgets everything

use std::time::{Duration, Instant};

use router_model::{Alternative, Decision, Evidence, Query, Rule};
use serde_json::{Value, json};

use super::*;
use crate::ask::Input;
use crate::wire;

/// Words that the supervisor of these tests knows; more of them make it surer.
const WORDS: &[(&str, &[&str])] = &[
    ("law", &["tort", "landlord", "contract", "court", "appeal"]),
    ("math", &["integral", "derivative", "matrix", "prime", "proof"]),
    ("code", &["python", "bug", "compile", "struct", "loop"]),
];

/// The newest turn says most, as with the real one; one word is 0.67 sure, two are 0.89.
fn judge(query: &Query) -> Decision {
    let mut scores = [0f32; 3];
    for (age, turn) in query.turns.iter().rev().take(4).enumerate() {
        let text = turn.text.to_lowercase();
        for (score, (_, words)) in scores.iter_mut().zip(WORDS) {
            let said = words.iter().filter(|word| text.contains(**word)).count();
            *score += said as f32 * 1.4 * 0.25f32.powi(age as i32);
        }
    }
    let all: f32 = scores.iter().map(|s| s.exp()).sum();
    let alternative = |((domain, _), score): (&(&str, &[&str]), f32)| Alternative {
        domain: (*domain).to_owned(),
        probability: score.exp() / all,
    };
    let mut alternatives: Vec<Alternative> = WORDS.iter().zip(scores).map(alternative).collect();
    alternatives.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let best = alternatives.first().filter(|a| a.probability >= 0.5).cloned();
    Decision {
        confidence: alternatives[0].probability,
        abstained: best.is_none(),
        rule: if best.is_some() { Rule::Classifier } else { Rule::Abstained },
        domain: best.map(|a| a.domain),
        alternatives,
        evidence: vec![Evidence { text: "a word".into(), weight: 1.0 }],
        micros: 1,
        ..Decision::default()
    }
}

struct Talk {
    rooms: Conversations,
    now: Instant,
    key: String,
    headers: Vec<(String, String)>,
    tools: Vec<String>,
    messages: Vec<Value>,
    last: String,
    decided: Option<(Option<Mark>, Option<String>)>,
}

impl Talk {
    fn send(&mut self, path: &str, body: &str, kept: bool) -> String {
        let parsed = match path {
            "completions" => wire::completion(body.as_bytes()).map(|(ask, _)| ask),
            _ => wire::chat(body.as_bytes()).map(|(ask, _)| ask),
        };
        let mut ask = parsed.expect("a sound body");
        let header = |name: &str| {
            let found = self.headers.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_bytes())
        };
        let key = Some(self.key.as_bytes());
        ask.context.identity = Identity::new(key, header, |name| ask.context.id(name));
        let reading = match &ask.input {
            Input::Chat(turns) => Reading::chat(turns, &ask.context),
            Input::Text(text) => Reading::raw(text, &ask.context),
            Input::Tokens(_) => unreachable!("no tokens are sent"),
        };
        let facts = Facts {
            judge: &judge,
            threshold: 0.5,
            enabled: &|_| true,
            code: Some("code"),
            rules: &self.rooms.rules,
            load: &|_, _| Some(0),
        };
        let known = self.rooms.find(&reading, self.now);
        let followed = follow(&reading, known, &facts);
        if let Some((mark, place)) = reading.own.zip(followed.place).filter(|_| kept) {
            self.rooms.keep(mark, place, self.now);
        }
        let Decision { domain, rule, abstained, .. } = followed.word;
        assert_eq!(abstained, domain.is_none(), "{body}");
        self.decided = Some((reading.own, domain.clone()));
        let rule = format!("{rule:?}").to_lowercase();
        let background = match reading.kind {
            Kind::Chore(chore) => format!(" {}", chore.name()),
            _ => String::new(),
        };
        format!("{} {rule}{background}", domain.as_deref().unwrap_or("-"))
    }

    fn line(&mut self, what: &str, text: &str) -> String {
        let said = |role: &str| json!({ "role": role, "content": text });
        let calls = |n: usize| json!({ "role": "assistant", "tool_calls": vec![json!({}); n] });
        match what {
            "u" => self.messages.push(said("user")),
            "t" => {
                self.messages.pop();
                self.messages.extend([calls(1), said("tool")]);
            }
            "o" => {
                self.messages.pop();
                self.messages.extend([calls(2), said("tool"), said("user")]);
            }
            "ask" => {
                let mut messages = self.messages.clone();
                messages.push(said("user"));
                return self.send("chat", &self.body(&messages), false);
            }
            "again" => return self.send("chat", &self.last.clone(), true),
            "body" => return self.send("chat", text, true),
            "fim" => {
                let body = json!({ "prompt": text, "suffix": "}" }).to_string();
                return self.send("completions", &body, true);
            }
            "header" => {
                let (name, value) = text.split_once(": ").expect("a header");
                self.headers.retain(|(n, _)| n != name);
                self.headers.push((name.to_owned(), value.to_owned()));
            }
            "key" => text.clone_into(&mut self.key),
            "tools" => self.tools = text.split_whitespace().map(str::to_owned).collect(),
            "system" => self.messages.push(said("system")),
            "new" => self.messages.clear(),
            "prune" => self.messages[1]["content"] = text.into(),
            "meant" => {
                let (mark, wrong) = self.decided.clone().expect("a decision");
                let mark = mark.expect("a turn of a conversation");
                self.rooms.correct(mark, Some(text.to_owned()), wrong, self.now);
            }
            "idle" => self.now += Duration::from_secs(text.parse().expect("seconds")),
            "restart" => self.rooms = Conversations::new(self.rooms.rules),
            _ => panic!("{what} is no line"),
        }
        if !matches!(what, "u" | "t" | "o") {
            return String::new();
        }
        self.last = self.body(&self.messages);
        let seen = self.send("chat", &self.last.clone(), true);
        self.messages.push(json!({ "role": "assistant", "content": "An answer." }));
        seen
    }

    fn body(&self, messages: &[Value]) -> String {
        let tool = |name: &String| json!({ "type": "function", "function": { "name": name } });
        let tools: Vec<Value> = self.tools.iter().map(tool).collect();
        json!({ "messages": messages, "tools": tools }).to_string()
    }
}

#[track_caller]
fn check(lines: &[(&str, &str)]) {
    let mut talk = Talk {
        rooms: Conversations::new(config::Conversations::default()),
        now: Instant::now(),
        key: "key".to_owned(),
        headers: Vec::new(),
        tools: Vec::new(),
        messages: Vec::new(),
        last: String::new(),
        decided: None,
    };
    for (i, (line, expect)) in lines.iter().enumerate() {
        let (what, text) = line.split_once(": ").unwrap_or((line, ""));
        assert_eq!(talk.line(what, text), *expect, "line {}: {line:.200}", i + 1);
    }
}

#[test]
fn a_conversation_stays_and_a_new_topic_moves_it() {
    check(&[
        ("u: What is a tort?", "law classifier"),
        ("u: Thanks! And why is that?", "law sticky"),
        ("u: Give me an example.", "law sticky"),
        // A word of another domain is not yet another topic.
        ("u: Is there a proof that a court would want?", "law sticky"),
        ("u: Now the derivative of a matrix, please.", "math classifier"),
        ("u: And the other one?", "math sticky"),
    ]);
}

#[test]
fn the_generalist_hands_over() {
    check(&[
        ("u: hello there", "- abstained"),
        ("u: how are you?", "- abstained"),
        ("u: Can my landlord break the contract?", "law classifier"),
        ("u: hm", "law sticky"),
        ("u: and then?", "law sticky"),
    ]);
}

#[test]
fn a_tool_loop_is_locked() {
    check(&[
        ("u: What is a tort?", "law classifier"),
        ("t: python bug compile struct loop", "law locked"),
        ("t: more of it", "law locked"),
        // The user speaks while one of two calls is open.
        ("o: Now the derivative of a matrix.", "law locked"),
        ("u: Now the derivative of a matrix, I said.", "math classifier"),
        ("t: 42", "math locked"),
        // Results that clients send in the user's name.
        ("u: [read_file for 'a.py'] Result:\npython bug", "math locked"),
    ]);
    check(&[("u: hello", "- abstained"), ("t: tort contract", "- locked")]);
}

#[test]
fn asking_changes_nothing() {
    check(&[
        ("u: What is a tort?", "law classifier"),
        ("ask: The derivative of a matrix?", "math classifier"),
        ("ask: The derivative of a matrix?", "math classifier"),
        ("u: Go on.", "law sticky"),
    ]);
    // The same with an id, where a conversation needs no history to be found.
    check(&[
        ("header: x-session-id: 1", ""),
        ("ask: The derivative of a matrix?", "math classifier"),
        ("u: Go on.", "- abstained"),
        ("again", "- abstained"),
    ]);
}

#[test]
fn who_sends_an_id_is_known_by_it() {
    for id in [
        "x-session-id",
        "x-session-affinity",
        "session-id",
        "thread-id",
        "x-claude-code-session-id",
        "x-conversation-id",
    ] {
        check(&[
            (&format!("header: {id}: 1"), ""),
            ("u: What is a tort?", "law classifier"),
            // The client starts its history anew, as after a compaction.
            ("new", ""),
            ("u: Go on with it.", "law sticky"),
            // Another session of the same client.
            ("new", ""),
            (&format!("header: {id}: 2"), ""),
            ("u: Go on with it.", "- abstained"),
        ]);
    }
    let named = |field: &str, text: &str| {
        format!(r#"body: {{"messages":[{{"role":"user","content":"{text}"}}],{field}}}"#)
    };
    for field in [r#""prompt_cache_key":"1""#, r#""metadata":{"user_id":"1"}"#] {
        check(&[
            (&named(field, "What is a tort?"), "law classifier"),
            (&named(field, "Go on."), "law sticky"),
        ]);
    }
    // A user has many conversations.
    let user = r#""user":"1""#;
    check(&[
        (&named(user, "What is a tort?"), "law classifier"),
        (&named(user, "Go on."), "- abstained"),
    ]);
}

#[test]
fn keys_do_not_meet() {
    check(&[
        ("header: x-session-id: 1", ""),
        ("u: What is a tort?", "law classifier"),
        ("key: another", ""),
        ("new", ""),
        ("u: Go on.", "- abstained"),
        ("key: key", ""),
        ("new", ""),
        ("u: Go on.", "law sticky"),
    ]);
    // Without an id it is the same: a correction is for those alone who made it.
    check(&[
        ("u: hello", "- abstained"),
        ("meant: law", ""),
        ("again", "law sticky"),
        ("key: another", ""),
        ("again", "- abstained"),
    ]);
}

#[test]
fn what_is_forgotten_is_decided_again() {
    for forget in ["restart", "idle: 3600"] {
        check(&[
            ("u: What is a tort?", "law classifier"),
            ("u: Give me another example.", "law sticky"),
            (forget, ""),
            ("u: And one more.", "law sticky"),
            ("t: python bug", "law locked"),
            (forget, ""),
            ("t: python bug", "law locked"),
        ]);
        check(&[
            ("header: x-session-id: 1", ""),
            ("u: What is a tort?", "law classifier"),
            (forget, ""),
            ("new", ""),
            ("u: Go on.", "- abstained"),
        ]);
    }
    // A client that changes its history: the turns since are decided again.
    check(&[
        ("u: What is a tort?", "law classifier"),
        ("u: Now the derivative of a matrix, please.", "math classifier"),
        ("u: Go on.", "math sticky"),
        ("prune: (left out)", ""),
        ("u: Go on.", "math sticky"),
    ]);
    check(&[
        ("u: What is a tort?", "law classifier"),
        ("idle: 3599", ""),
        ("u: Go on.", "law sticky"),
    ]);
}

#[test]
fn a_correction_moves_at_once_and_holds() {
    check(&[
        ("u: Is the proof of a contract a matrix?", "math classifier"),
        ("meant: law", ""),
        // The supervisor has not changed its mind, and is not asked.
        ("u: Then which integral and derivative of the matrix?", "law sticky"),
        ("u: And why?", "law sticky"),
        // To a third domain it may go.
        ("u: Write a Python loop that has no bug.", "code classifier"),
    ]);
}

#[test]
fn code_needs_no_classification() {
    check(&[
        ("fim: Can my landlord break the contract", "code code"),
        ("header: x-session-id: 1", ""),
        ("u: What is a tort?", "law classifier"),
        ("fim: def f(", "code code"),
        ("new", ""),
        // Completions move no conversation.
        ("u: Go on.", "law sticky"),
        ("u: <|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "code code"),
    ]);
}

#[test]
fn tools_of_an_editor_speak_for_code() {
    check(&[
        ("tools: bash edit read", ""),
        // Three domains are equally likely; with the tools code is half of it.
        ("u: Fix the bug in the proof, please.", "code classifier"),
        ("u: Go on.", "code sticky"),
        // A clear topic is what it is, whatever the tools.
        ("new", ""),
        ("u: What does the contract say of torts?", "law classifier"),
    ]);
    check(&[("u: Fix the bug in the proof, please.", "- abstained")]);
    check(&[
        ("tools: get_weather get_news", ""),
        ("u: Fix the bug in the proof, please.", "- abstained"),
    ]);
}

const TITLE: &str = r#"body: {"messages":[
    {"role":"system","content":"You generate titles. Output one thread title and nothing else."},
    {"role":"user","content":"Generate a title for this conversation:\n"},
    {"role":"user","content":"\"the derivative of a matrix\""}]}"#;

#[test]
fn calls_of_the_client_itself_move_nothing() {
    // opencode asks for a title first, in the same session.
    check(&[
        ("header: x-session-id: 1", ""),
        (TITLE, "- abstained title"),
        ("u: What is a tort?", "law classifier"),
        (TITLE, "law sticky title"),
        ("new", ""),
        ("u: Go on.", "law sticky"),
    ]);
    // Without an id only a call that brings the conversation knows where it is.
    let compact = "u: Provide a detailed prompt for continuing our conversation above, a summary of what was done.";
    check(&[
        ("tools: bash edit", ""),
        ("u: What is a tort in court?", "law classifier"),
        (TITLE, "- abstained title"),
        (compact, "law sticky summary"),
        ("restart", ""),
        (compact, "law sticky summary"),
    ]);
}

/// The shapes of real clients' requests, in words of our own.
#[test]
fn requests_of_real_clients() {
    let codex = |said: &str| {
        let messages = json!([
            { "role": "developer", "content": "You are a coding agent. Python, bugs and loops are your work." },
            { "role": "user", "content": [{ "type": "text", "text": "<environment_context>\n  <cwd>/python/bug</cwd>\n</environment_context>" }] },
            { "role": "user", "content": [{ "type": "text", "text": said }] },
        ]);
        format!(
            "body: {}",
            json!({ "messages": messages, "prompt_cache_key": "1", "tools": [
            { "type": "function", "name": "exec_command" }, { "type": "function", "name": "write_stdin" },
            { "type": "web_search" }, { "type": "namespace", "tools": [] }] })
        )
    };
    check(&[
        (&codex("What does my contract say of the court?"), "law classifier"),
        (&codex("hm"), "law sticky"),
    ]);
    let aider = |said: &str| {
        let rules = "To change a file return a python loop.\nEnd it with a struct.";
        let messages = json!([
            { "role": "system", "content": format!("Act as a developer.\n{rules}") },
            { "role": "user", "content": "Fix the python bug" },
            { "role": "assistant", "content": "Ok, here is the loop" },
            { "role": "user", "content": "I switched to a new code base. Do not edit the above." },
            { "role": "assistant", "content": "Ok." },
            { "role": "user", "content": "No python files are shared yet." },
            { "role": "assistant", "content": "Ok." },
            { "role": "user", "content": format!("{said}\n\n{rules}") },
        ]);
        format!("body: {}", json!({ "messages": messages }))
    };
    check(&[
        (&aider("What is a tort?"), "law classifier"),
        // Another conversation with the same beginning.
        (&aider("What is an integral?"), "math classifier"),
        (&aider("hm"), "- abstained"),
    ]);
    let cline = r#"body: {"messages":[{"role":"system","content":"You are a coding agent for python."},
        {"role":"user","content":"<task>\nWhat is a tort in court?\n</task>\n<environment_details>\nbug.py python loop\n</environment_details>"}],
        "tools":[{"type":"function","function":{"name":"read_files"}},{"type":"function","function":{"name":"editor"}}]}"#;
    check(&[(cline, "law classifier")]);
}

#[test]
fn hostile_requests() {
    let long = format!("header: x-session-id: {}", "x".repeat(4 << 20));
    check(&[
        // An id of megabytes is none.
        (&long, ""),
        ("u: What is a tort?", "law classifier"),
        ("new", ""),
        ("u: Go on.", "- abstained"),
    ]);
    let turn = |i: usize| match i % 2 {
        0 => json!({ "role": "user", "content": format!("tort {i}") }),
        _ => json!({ "role": "assistant", "content": null, "tool_calls": [{}, null, 7] }),
    };
    let messages: Vec<Value> = (0..10_001).map(turn).collect();
    let many = format!("body: {}", json!({ "messages": messages }));
    check(&[(&many, "law locked"), (&many, "law locked")]);
    // Fields of types that nobody expects name nothing.
    let odd = r#"body: {"messages":[{"role":"user","content":"tort"}],"prompt_cache_key":7,"metadata":[1],"user":{},"tools":[{"function":{"name":5}},null,{"name":"bash"}]}"#;
    check(&[(odd, "law classifier")]);
    let empty = r#"body: {"messages":[{"role":"assistant","content":""}]}"#;
    check(&[(empty, "- abstained")]);
}
