//! Conversations over the routes, with the shipped supervisor.

use super::*;

const MATH: &str = "What is the derivative of x^3 + 2x with respect to x?";

/// A chat with these headers (`name: value` lines); every second text is the assistant's.
async fn chat(school: &School, headers: &str, texts: &[&str]) -> Answer {
    let role = |i: usize| if i.is_multiple_of(2) { "user" } else { "assistant" };
    let turn = |(i, text): (usize, &&str)| json!({ "role": role(i), "content": text });
    let messages: Vec<Value> = texts.iter().enumerate().map(turn).collect();
    let body = json!({ "messages": messages, "max_tokens": 1, "seed": 1 }).to_string();
    send_to(school, "/v1/chat/completions", headers, body).await
}

async fn send_to(school: &School, path: &str, headers: &str, body: String) -> Answer {
    let mut sent = request("POST", path).header("x-collegium-debug", "true");
    for line in headers.lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        sent = sent.header(name, value);
    }
    send(school, sent.body(Body::from(body)).expect("a request")).await
}

#[track_caller]
fn went(answer: &Answer, domain: &str, rule: &str) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = (answer.header("x-collegium-domain"), answer.header("x-collegium-rule"));
    assert_eq!(seen, (domain, rule));
}

#[tokio::test]
async fn one_stays_then_moves() {
    let school = school(|_| ());
    went(&chat(&school, "", &[LAW]).await, "law", "classifier");
    went(&chat(&school, "", &[LAW, "A breach.", "ok, thanks"]).await, "law", "classifier");
    let all = [LAW, "A breach.", "ok, thanks", "Yes.", MATH];
    went(&chat(&school, "", &all).await, "math", "classifier");
    let metrics = get(&school, "/metrics").await.body;
    for line in [r#"collegium_conversation_moves_total{by="topic"} 1"#, "collegium_conversations 3"]
    {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn an_id_says_which_conversation_it_is() {
    let school = school(|config| config.server.keys = vec!["a".into(), "b".into()]);
    let a = "x-session-id: 1\nauthorization: Bearer a";
    let b = "x-session-id: 1\nx-api-key: b";
    went(&chat(&school, a, &[LAW]).await, "law", "classifier");
    went(&chat(&school, a, &["ok"]).await, "law", "sticky");
    // The same id with another key is another conversation.
    went(&chat(&school, b, &["ok"]).await, "none", "abstained");
    went(&chat(&school, a, &["ok"]).await, "law", "sticky");
}

#[tokio::test]
async fn to_ask_for_a_route_moves_nothing() {
    let school = school(|_| ());
    let id = "x-session-id: 1";
    went(&chat(&school, id, &[LAW]).await, "law", "classifier");
    let ask = |text: &str| json!({ "text": text }).to_string();
    let decided = send_to(&school, "/v1/route", id, ask(MATH)).await.json();
    assert_eq!((&decided["domain"], &decided["rule"]), (&json!("math"), &json!("classifier")));
    // What was weighed is shown.
    assert_eq!(decided["conversation"]["at"], "law", "{decided}");
    assert!(decided["conversation"]["gain"].as_f64() > decided["conversation"]["needed"].as_f64());
    let decided = send_to(&school, "/v1/route", id, ask("ok")).await.json();
    assert_eq!((&decided["domain"], &decided["rule"]), (&json!("law"), &json!("sticky")));
    assert_eq!(decided["abstained"], false);
    // A loop is locked also for a server that has not seen it begin.
    let messages = json!([
        { "role": "user", "content": LAW },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "1" }] },
        { "role": "tool", "tool_call_id": "1", "content": MATH },
    ]);
    let body = json!({ "messages": messages }).to_string();
    let decided = post(&school, "/v1/route", &body).await.json();
    assert_eq!((&decided["domain"], &decided["rule"]), (&json!("law"), &json!("locked")));
    let gap = json!({ "prompt": "def f(", "suffix": "return 1" }).to_string();
    let decided = post(&school, "/v1/route", &gap).await.json();
    assert_eq!(
        (&decided["domain"], &decided["rule"]),
        (&json!("computer-science"), &json!("code"))
    );
    let metrics = get(&school, "/metrics").await.body;
    assert!(metrics.contains("collegium_conversations 1"), "{metrics}");
}

#[tokio::test]
async fn a_correction_moves_and_is_kept() {
    for record in [false, true] {
        let school = school(|config| config.traffic.record = record);
        let id = "x-session-id: 1";
        let answer = chat(&school, id, &[LAW]).await;
        went(&answer, "law", "classifier");
        let decision = answer.header("x-collegium-decision-id");
        let meant = json!({ "decision_id": decision, "domain": "business" }).to_string();
        assert_eq!(post(&school, "/v1/feedback", &meant).await.status, 200);
        went(&chat(&school, id, &["ok"]).await, "business", "sticky");
        went(&chat(&school, id, &[LAW]).await, "business", "sticky");
        let file = school._home.path().join("feedback").join("corrections.jsonl");
        match std::fs::read_to_string(&file) {
            Err(_) => assert!(!record, "no {}", file.display()),
            Ok(text) => {
                assert!(record, "{text}");
                let line: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
                assert_eq!(line, json!({ "prompt": LAW, "domain": "business", "decided": "law" }));
            }
        }
        let metrics = get(&school, "/metrics").await.body;
        let moved = r#"collegium_conversation_moves_total{by="correction"} 1"#;
        assert!(metrics.contains(moved), "{metrics}");
    }
}

#[tokio::test]
async fn background_calls_are_marked() {
    let school = school(|_| ());
    let title = json!({ "max_tokens": 1, "messages": [
        { "role": "system", "content": "You generate titles. Output one thread title, nothing else." },
        { "role": "user", "content": "Generate a title for this conversation:\n" },
        { "role": "user", "content": MATH },
    ] })
    .to_string();
    let id = "x-session-id: 1";
    let path = "/v1/chat/completions";
    let answer = send_to(&school, path, id, title.clone()).await;
    went(&answer, "none", "abstained");
    assert_eq!(answer.header("x-collegium-background"), "title");
    went(&chat(&school, id, &[LAW]).await, "law", "classifier");
    went(&send_to(&school, path, id, title).await, "law", "sticky");
    let metrics = get(&school, "/metrics").await.body;
    for line in [r#"collegium_background_total{kind="title"} 2"#, "collegium_conversations 1"] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

#[tokio::test]
async fn hostile_conversations() {
    let school = school(|_| ());
    let long = format!("x-session-id: {}", "x".repeat(2 << 20));
    went(&chat(&school, &long, &[LAW]).await, "law", "classifier");
    let many = vec!["tort"; 10_001];
    let answer = chat(&school, "x-session-id: 1", &many).await;
    // Far beyond the context; a refused request begins no conversation.
    refused(&answer, 400, "context_length_exceeded", Some("messages"));
    let messages: Vec<Value> =
        many.iter().map(|text| json!({ "role": "user", "content": text })).collect();
    let answer = post(&school, "/v1/route", &json!({ "messages": messages }).to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let metrics = get(&school, "/metrics").await.body;
    assert!(metrics.contains("collegium_conversations 1"), "{metrics}");
}
