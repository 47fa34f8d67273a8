//! The routes on the embedded parent, without a server; and with one, where a
//! client has to hang up.

use std::time::Instant;

use async_openai::types::chat::CreateChatCompletionStreamResponse;
use axum::http::request::Builder;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::*;

/// A college on the embedded parent; its home goes with it.
struct School {
    college: Arc<College>,
    _home: TempDir,
}

fn school(change: impl FnOnce(&mut config::Config)) -> School {
    school_at(tempfile::tempdir().expect("a folder"), change)
}

fn school_at(home: TempDir, change: impl FnOnce(&mut config::Config)) -> School {
    let mut loaded = config::shipped().expect("the shipped settings");
    change(&mut loaded.config);
    let college = College::open(loaded, home.path(), None).expect("a college");
    School { college, _home: home }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("ASCII"))
    }
}

async fn send(school: &School, request: Request) -> Answer {
    let response = app(school.college.clone()).oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let body = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn request(method: &str, path: &str) -> Builder {
    Request::builder().method(method).uri(path)
}

async fn post(school: &School, path: &str, body: &str) -> Answer {
    let body = Body::from(body.to_owned());
    send(school, request("POST", path).body(body).expect("a request")).await
}

async fn get(school: &School, path: &str) -> Answer {
    send(school, request("GET", path).body(Body::empty()).expect("a request")).await
}

/// A refusal is an OpenAI error object, with its code and the field.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str, param: Option<&str>) {
    let error = &answer.json()["error"];
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(error["code"], code, "{}", answer.body);
    assert_eq!(error["param"].as_str(), param, "{}", answer.body);
    assert!(error["message"].is_string() && error["type"].is_string(), "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_and_the_server_goes_on() {
    let school = school(|_| ());
    let chat = "/v1/chat/completions";
    refused(&get(&school, "/v1/chat").await, 404, "unknown_url", None);
    assert!(get(&school, "/v1/complation").await.body.contains("/v1/completions"));
    refused(&get(&school, "/v1/models/%ff").await, 404, "unknown_url", None);
    refused(&get(&school, chat).await, 405, "method_not_allowed", None);
    refused(&post(&school, chat, "{").await, 400, "invalid_json", None);
    refused(&post(&school, chat, "{}").await, 400, "invalid_value", Some("messages"));
    let hot = r#"{"messages":[{"role":"user","content":"hi"}],"temperature":9}"#;
    refused(&post(&school, chat, hot).await, 400, "invalid_value", Some("temperature"));
    let unknown = r#"{"messages":[{"role":"user","content":"hi"}],"model":"mathe"}"#;
    let answer = post(&school, chat, unknown).await;
    refused(&answer, 404, "model_not_found", Some("model"));
    assert!(answer.body.contains("near it: math"), "{}", answer.body);
    refused(&get(&school, "/v1/models/mathe").await, 404, "model_not_found", Some("model"));
    let token = r#"{"prompt":[4000000000]}"#;
    refused(&post(&school, "/v1/completions", token).await, 400, "invalid_value", Some("prompt"));
    // Both numbers, so that a client knows how much to cut.
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "why ".repeat(9000));
    for body in [long.clone(), long.replacen('{', "{\"stream\":true,", 1)] {
        let answer = post(&school, chat, &body).await;
        refused(&answer, 400, "context_length_exceeded", Some("messages"));
        assert!(answer.body.contains("maximum context length is 2048"), "{}", answer.body);
    }
    let raw = json!({ "prompt": "why ".repeat(9000) }).to_string();
    let answer = post(&school, "/v1/completions", &raw).await;
    refused(&answer, 400, "context_length_exceeded", Some("prompt"));
    let huge = request("POST", chat).header("content-length", BODY_LIMIT + 1);
    let huge = huge.body(Body::from(vec![b' '; BODY_LIMIT + 1])).expect("a request");
    refused(&send(&school, huge).await, 413, "request_too_large", None);
    assert_eq!(get(&school, "/readyz").await.status, 200);
    let metrics = get(&school, "/metrics").await.body;
    let all = r#"collegium_requests_total{specialist="none",outcome="refused"} 9"#;
    assert!(metrics.contains(all), "{metrics}");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let school = school(|config| config.server.max_queue = 1);
    let place = school.college.waiting.clone().try_acquire_owned().expect("a place");
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":1}"#;
    let answer = post(&school, "/v1/chat/completions", body).await;
    refused(&answer, 429, "queue_full", None);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("retry-after-ms"), "1000");
    assert_eq!(answer.header("x-should-retry"), "true");
    drop(place);
    assert_eq!(post(&school, "/v1/chat/completions", body).await.status, 200);
    // The place was given back with the first token.
    assert_eq!(post(&school, "/v1/chat/completions", body).await.status, 200);
}

#[tokio::test]
async fn keys_are_asked_for() {
    let school = school(|config| config.server.keys = vec!["sesame".into(), "other".into()]);
    let asked = |name: &'static str, value: &'static str| {
        let request = request("GET", "/v1/models").header(name, value);
        request.body(Body::empty()).expect("a request")
    };
    refused(&get(&school, "/v1/models").await, 401, "invalid_api_key", None);
    // Who has no key learns nothing of what there is.
    refused(&get(&school, "/v1/nothing").await, 401, "invalid_api_key", None);
    refused(&get(&school, "/metrics").await, 401, "invalid_api_key", None);
    for wrong in ["Bearer ", "Bearer sesam", "Bearer sesame1", "Bearer sesamesesame", "sesame"] {
        refused(&send(&school, asked("authorization", wrong)).await, 401, "invalid_api_key", None);
    }
    for right in ["Bearer sesame", "Bearer other"] {
        assert_eq!(send(&school, asked("authorization", right)).await.status, 200);
    }
    assert_eq!(send(&school, asked("x-api-key", "sesame")).await.status, 200);
    assert_eq!(get(&school, "/healthz").await.status, 200);
    assert_eq!(get(&school, "/readyz").await.status, 200);
}

#[tokio::test]
async fn models_are_listed() {
    let school = school(|_| ());
    for path in ["/v1/models", "/models"] {
        let list = get(&school, path).await.json();
        let ids: Vec<&str> = list["data"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|m| m["id"].as_str())
            .collect();
        assert_eq!(ids[..2], ["auto", "generalist"]);
        assert!(ids.contains(&"law") && ids.contains(&"computer-science"));
        assert!(!ids.contains(&"other"), "a label for evaluation is no model");
    }
    for id in ["auto", "generalist", "law", "medicine"] {
        let model = get(&school, &format!("/v1/models/{id}")).await;
        assert_eq!(model.json()["id"], id);
        assert_eq!(model.json()["owned_by"], "collegium");
    }
}

const LAW: &str = "What must a plaintiff prove to win a claim for breach of contract?";

#[tokio::test]
async fn a_decision_can_be_asked_for_and_rated() {
    let school = school(|_| ());
    let body = json!({ "text": LAW }).to_string();
    let answer = post(&school, "/v1/route", &body).await;
    let decided = answer.json();
    assert_eq!(decided["domain"], "law", "{}", answer.body);
    assert_eq!(decided["rule"], "classifier");
    assert!(decided["alternatives"].as_array().is_some_and(|a| !a.is_empty()));
    let id = decided["decision_id"].as_str().expect("an id");
    assert_eq!(answer.header("x-collegium-decision-id"), id);
    let rated = json!({ "decision_id": id, "rating": 1 }).to_string();
    assert_eq!(post(&school, "/v1/feedback", &rated).await.status, 200);
    let meant = json!({ "decision_id": id, "domain": "Maths" }).to_string();
    assert_eq!(post(&school, "/v1/feedback", &meant).await.status, 200);
    let metrics = get(&school, "/metrics").await.body;
    assert!(metrics.contains(r#"collegium_feedback_total{rating="1"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"collegium_feedback_total{rating="-1"} 1"#), "{metrics}");
    let lost = r#"{"decision_id":"d-0","rating":1}"#;
    let answer = post(&school, "/v1/feedback", lost).await;
    refused(&answer, 404, "decision_not_found", Some("decision_id"));
    let odd = json!({ "decision_id": id, "rating": 5 }).to_string();
    refused(&post(&school, "/v1/feedback", &odd).await, 400, "invalid_value", Some("rating"));
}

#[tokio::test]
async fn a_whole_answer() {
    let school = school(|_| ());
    let body = json!({
        "model": "auto", "max_tokens": 8, "seed": 1, "ignore_eos": true, "tools": [{ "type": "function" }],
        "messages": [{ "role": "user", "content": LAW }],
    });
    let answer = post(&school, "/chat/completions", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.header("x-collegium-domain"), "law");
    assert_eq!(answer.header("x-collegium-confidence").len(), "0.123".len());
    assert!(answer.header("x-collegium-alternatives").is_empty());
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["usage"]["completion_tokens"], 8);
    assert_eq!(json["choices"][0]["finish_reason"], "length");
    let said = &json["collegium"];
    assert_eq!(said["specialist"], answer.header("x-collegium-specialist"));
    assert_eq!(said["ignored"], json!(["tools"]));
    assert!(said["missing_mass"].is_number());
    // The same seed, the same answer.
    let again = post(&school, "/v1/chat/completions", &body.to_string()).await.json();
    assert_eq!(again["choices"], json["choices"]);
}

/// What a stream says of each answer: its text, its words' bytes, and its reason.
fn streamed(body: &str) -> Vec<(String, Vec<u8>, String)> {
    let mut answers: Vec<(String, Vec<u8>, String)> = Vec::new();
    for data in body.lines().filter_map(|l| l.strip_prefix("data: ")).filter(|d| *d != "[DONE]") {
        let frame: Value = serde_json::from_str(data).expect("JSON");
        serde_json::from_str::<CreateChatCompletionStreamResponse>(data).expect(data);
        for choice in frame["choices"].as_array().expect("choices") {
            let index = choice["index"].as_u64().expect("an index") as usize;
            answers.resize(answers.len().max(index + 1), Default::default());
            let (text, words, reason) = &mut answers[index];
            assert!(reason.is_empty(), "nothing comes after the end: {data}");
            text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            words.extend(bytes(&choice["logprobs"]));
            reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
        }
    }
    answers
}

/// The bytes of all tokens in a chat's `logprobs`.
fn bytes(logprobs: &Value) -> Vec<u8> {
    let content = logprobs["content"].as_array().into_iter().flatten();
    let all = content.flat_map(|token| token["bytes"].as_array().into_iter().flatten());
    all.filter_map(|b| b.as_u64()?.try_into().ok()).collect()
}

#[tokio::test]
async fn tokens_are_scored() {
    let school = school(|_| ());
    let ask = |extra: Value| {
        let mut body = json!({
            "model": "law", "temperature": 0, "max_tokens": 10, "ignore_eos": true,
            "logprobs": true, "top_logprobs": 2, "messages": [{ "role": "user", "content": LAW }],
        });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        body.to_string()
    };
    let path = "/v1/chat/completions";
    let whole = post(&school, path, &ask(json!({}))).await.json();
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().expect("a text");
    let content = choice["logprobs"]["content"].as_array().expect("a list");
    assert_eq!((content.len(), bytes(&choice["logprobs"])), (10, text.as_bytes().to_vec()));
    for token in content {
        let top = token["top_logprobs"].as_array().expect("a list");
        // The likeliest was taken.
        assert_eq!((top.len(), &top[0]["token"]), (2, &token["token"]));
        assert_eq!(top[0]["logprob"], token["logprob"]);
        assert!(token["logprob"].as_f64().expect("a number") <= 0.0);
    }
    // A stream says the same of the same tokens.
    let stream = post(&school, path, &ask(json!({ "stream": true }))).await;
    let seen = streamed(&stream.body);
    assert_eq!(seen, [(text.to_owned(), text.as_bytes().to_vec(), "length".to_owned())]);
    // Of what a stop text cuts off nothing is told.
    let stop: String = text.chars().skip(5).take(6).collect();
    let cut = post(&school, path, &ask(json!({ "stop": stop }))).await.json();
    let before = text.split(&stop).next().expect("a start");
    let shown = bytes(&cut["choices"][0]["logprobs"]);
    assert_eq!(cut["choices"][0]["message"]["content"], before);
    assert!(shown.starts_with(before.as_bytes()) && shown.len() < text.len());
    let stream = post(&school, path, &ask(json!({ "stop": stop, "stream": true }))).await;
    assert_eq!(streamed(&stream.body), [(before.to_owned(), shown, "stop".to_owned())]);
    // Who did not ask is told nothing.
    let silent =
        post(&school, path, &ask(json!({ "logprobs": false, "top_logprobs": null }))).await;
    assert!(!silent.body.contains("logprobs"), "{}", silent.body);
    // The older form.
    let raw = json!({ "model": "law", "prompt": "The law of", "temperature": 0, "max_tokens": 6, "logprobs": 3 });
    let answer = post(&school, "/v1/completions", &raw.to_string()).await.json();
    let choice = &answer["choices"][0];
    let list = |key: &str| choice["logprobs"][key].as_array().expect(key).clone();
    let tokens: Vec<String> =
        list("tokens").iter().map(|t| t.as_str().expect("a text").to_owned()).collect();
    assert_eq!(tokens.concat(), choice["text"].as_str().expect("a text"));
    let mut at = 0;
    for (i, token) in tokens.iter().enumerate() {
        assert_eq!(list("text_offset")[i], at);
        assert_eq!(list("top_logprobs")[i][token], list("token_logprobs")[i]);
        at += token.chars().count();
    }
}

#[tokio::test]
async fn several_answers() {
    let school = school(|config| config.server.max_queue = 2);
    let ask = |n: u32, extra: Value| {
        let mut body = json!({
            "model": "law", "temperature": 1.6, "seed": 7, "n": n, "max_tokens": 20, "ignore_eos": true,
            "messages": [{ "role": "user", "content": LAW }],
        });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        body.to_string()
    };
    let path = "/v1/chat/completions";
    let one = post(&school, path, &ask(1, json!({}))).await.json();
    // More than the queue has places: they are answered all the same.
    let three = post(&school, path, &ask(3, json!({}))).await.json();
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().expect("choices");
        (0..).zip(choices).for_each(|(i, choice)| assert_eq!(choice["index"], i));
        let text = |c: &Value| c["message"]["content"].as_str().expect("a text").to_owned();
        choices.iter().map(text).collect()
    };
    let all = texts(&three);
    assert_eq!((all.len(), &all[0]), (3, &texts(&one)[0]));
    assert!(all[0] != all[1] && all[1] != all[2], "{all:?}");
    // The prompt once, the tokens of all.
    assert_eq!(three["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert_eq!(three["usage"]["completion_tokens"], 60);
    // The same seed, the same answers, streamed too.
    assert_eq!(texts(&post(&school, path, &ask(3, json!({}))).await.json()), all);
    let extra = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let stream = post(&school, path, &ask(3, extra)).await;
    let seen = streamed(&stream.body);
    assert_eq!(
        seen.iter().map(|(text, ..)| text).collect::<Vec<_>>(),
        all.iter().collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|(.., reason)| reason == "length"));
    assert!(stream.body.contains(r#""completion_tokens":60"#), "{}", stream.body);
    assert_eq!(stream.body.matches(r#""collegium":"#).count(), 1);
    // One after the other would be told apart by this: the answers come side by side.
    let order: Vec<&str> = stream.body.split(r#""index":"#).skip(1).map(|s| &s[..1]).collect();
    assert!(order.windows(2).filter(|pair| pair[0] != pair[1]).count() > 6, "{order:?}");
    // Raw prompts likewise, each with its echo.
    let raw = json!({ "model": "law", "prompt": "Once", "echo": true, "n": 2, "seed": 1, "max_tokens": 3, "temperature": 1.0 });
    let answer = post(&school, "/v1/completions", &raw.to_string()).await.json();
    for i in 0..2 {
        let text = answer["choices"][i]["text"].as_str().expect("a text");
        assert!(text.starts_with("Once"), "{text}");
    }
    // Without a seed they differ too, and nothing is left behind.
    let free = texts(&post(&school, path, &ask(2, json!({ "seed": null }))).await.json());
    assert_ne!(free[0], free[1]);
    let metrics = school.college.meter.render();
    assert!(metrics.contains("collegium_sequences 0"), "{metrics}");
    assert_eq!(school.college.waiting.available_permits(), 2);
}

/// Leaves one token only, whatever the seed.
const ROUND: &str = r#"{"500":100,"501":-100}"#;

#[tokio::test]
async fn answers_that_go_round_in_circles() {
    let school = school(|config| config.serving.circles = config::Circles::Retry);
    let ask = |extra: Value| {
        let mut body = json!({
            "model": "law", "temperature": 0.5, "seed": 7, "max_tokens": 200,
            "logit_bias": serde_json::from_str::<Value>(ROUND).expect("JSON"),
            "messages": [{ "role": "user", "content": LAW }],
        });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        body.to_string()
    };
    let path = "/v1/chat/completions";
    let ended = |index: u32| json!({ "index": index, "period": 1, "outcome": "ended" });
    let retried = |index: u32| json!({ "index": index, "period": 1, "outcome": "retried" });
    #[track_caller]
    fn check(answer: &Value, tokens: u32, circles: Value) {
        assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], tokens, "{answer}");
        assert_eq!(answer["collegium"]["circles"], circles, "{answer}");
    }
    // Once more, and no further; the answer that was thrown away is in neither text nor usage.
    let answer = post(&school, path, &ask(json!({ "logprobs": true }))).await.json();
    check(&answer, 64, json!([retried(0), ended(0)]));
    assert_eq!(answer["choices"][0]["logprobs"]["content"].as_array().map(Vec::len), Some(64));
    // With the likeliest token a seed changes nothing, so there is no other try.
    let answer = post(&school, path, &ask(json!({ "temperature": 0 }))).await.json();
    check(&answer, 64, json!([ended(0)]));
    // The request has the last word.
    let answer = post(&school, path, &ask(json!({ "circles": "end" }))).await.json();
    check(&answer, 64, json!([ended(0)]));
    let answer = post(&school, path, &ask(json!({ "circles": "off" }))).await.json();
    check(&answer, 200, Value::Null);
    let answer = post(&school, path, &ask(json!({ "ignore_eos": true }))).await.json();
    check(&answer, 200, Value::Null);
    // What was sent cannot be taken back.
    let stream = post(&school, path, &ask(json!({ "stream": true }))).await;
    let frames = frames(&stream.body);
    let end = frames.last().expect("an end");
    assert_eq!(end["choices"][0]["finish_reason"], "length");
    assert_eq!(end["collegium"]["circles"], json!([ended(0)]));
    // Each of several answers has its own try.
    let answer = post(&school, path, &ask(json!({ "n": 2 }))).await.json();
    let mut circles = answer["collegium"]["circles"].as_array().expect("a list").clone();
    circles.sort_by_key(|c| (c["index"].as_u64(), c["outcome"] == "ended"));
    assert_eq!(circles, [retried(0), ended(0), retried(1), ended(1)]);
    let metrics = get(&school, "/metrics").await.body;
    for line in [
        r#"collegium_circles_total{specialist="law",outcome="retried"} 3"#,
        r#"collegium_circles_total{specialist="law",outcome="ended"} 6"#,
        "collegium_sequences 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}

/// An answer that goes round by chance is saved by another seed.
#[tokio::test]
async fn another_try_can_go_well() {
    let school = school(|_| ());
    // Two tokens, of which one is nearly always drawn: some seeds never see the other.
    let ask = |circles: &str, (rare, seed): (u32, u32)| {
        json!({
            "model": "law", "temperature": 1.0, "seed": seed, "max_tokens": 70, "circles": circles,
            "logit_bias": { "500": 90, "501": rare }, "top_k": 2,
            "messages": [{ "role": "user", "content": LAW }],
        })
        .to_string()
    };
    let path = "/v1/chat/completions";
    let mut saved = None;
    // How much rarer depends on what the parent itself thinks of them.
    for case in (80..=100).flat_map(|rare| (0..30).map(move |seed| (rare, seed))) {
        let answer = post(&school, path, &ask("retry", case)).await.json();
        let circles = answer["collegium"]["circles"].as_array().cloned().unwrap_or_default();
        if circles.len() == 1 {
            saved = Some((case, answer));
            break;
        }
    }
    let (seed, answer) = saved.expect("a seed whose second try goes well");
    assert_eq!(answer["usage"]["completion_tokens"], 70);
    let ended = post(&school, path, &ask("end", seed)).await.json();
    assert_ne!(ended["choices"], answer["choices"]);
    // A request with a seed gives the same again, the second try too.
    let again = post(&school, path, &ask("retry", seed)).await.json();
    assert_eq!(again["choices"], answer["choices"]);
}

#[tokio::test]
async fn the_likeliest_tokens() {
    let school = school(|_| ());
    let complete = |extra: Value| {
        let mut body = json!({ "model": "generalist", "prompt": "The law of", "temperature": 0, "max_tokens": 12 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("one").clone());
        body.to_string()
    };
    let path = "/v1/completions";
    let plain = post(&school, path, &complete(json!({}))).await;
    assert_eq!(plain.status, 200, "{}", plain.body);
    assert_eq!(plain.header("x-collegium-specialist"), "generalist");
    assert_eq!(plain.header("x-collegium-domain"), "none");
    let text = plain.json()["choices"][0]["text"].as_str().expect("a text").to_owned();
    // Sampling settings change nothing once the likeliest is asked for.
    let seeded = post(&school, path, &complete(json!({ "seed": 9, "top_p": 0.2 }))).await.json();
    assert_eq!(seeded["choices"][0]["text"], text);
    let echoed = post(&school, path, &complete(json!({ "echo": true }))).await.json();
    assert_eq!(echoed["choices"][0]["text"], format!("The law of{text}"));
    // A stream is the same text in pieces.
    let stream = post(&school, path, &complete(json!({ "stream": true, "echo": true }))).await;
    let pieces: String = frames(&stream.body)
        .iter()
        .filter_map(|f| f["choices"][0]["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(pieces, format!("The law of{text}"));
    // A stop text is not part of the answer.
    let stop: String = text.chars().skip(3).take(4).collect();
    let stopped = post(&school, path, &complete(json!({ "stop": stop }))).await.json();
    let before = text.split(&stop).next().expect("a start");
    assert_eq!(stopped["choices"][0]["text"], before);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

/// Holds a body to the rules of a stream, and gives its data frames.
#[track_caller]
fn frames(body: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    let blocks: Vec<&str> =
        body.strip_suffix("\n\n").expect("whole frames").split("\n\n").collect();
    assert_eq!(blocks.last(), Some(&"data: [DONE]"));
    // The first thing that leaves.
    assert_eq!(blocks[0], ": keep-alive");
    for block in &blocks[..blocks.len() - 1] {
        if let Some(comment) = block.strip_prefix(':') {
            assert!(!comment.contains('\n') && !comment.trim().starts_with("ping"), "{block}");
            continue;
        }
        let data = block.strip_prefix("data: ").expect("data or a comment");
        assert!(!data.contains('\n'), "{block}");
        frames.push(serde_json::from_str::<Value>(data).expect("JSON"));
    }
    let same = |key: &str| frames.iter().all(|f| f[key] == frames[0][key] && !f[key].is_null());
    assert!(["id", "object", "created", "model"].iter().all(|key| same(key)), "{body}");
    assert!(frames.iter().all(|f| f.get("type").is_none()));
    let ends = frames.iter().filter(|f| f["choices"][0]["finish_reason"].is_string()).count();
    assert_eq!(ends, 1, "{body}");
    frames
}

#[tokio::test]
async fn a_stream_keeps_the_contract() {
    let school = school(|_| ());
    for usage in [true, false] {
        let body = json!({
            "stream": true, "max_tokens": 6, "ignore_eos": true, "stream_options": { "include_usage": usage },
            "messages": [{ "role": "user", "content": LAW }],
        });
        let request = request("POST", "/v1/chat/completions").header("x-collegium-debug", "true");
        let request = request.body(Body::from(body.to_string())).expect("a request");
        let answer = send(&school, request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert_eq!(answer.header("x-collegium-domain"), "law");
        assert!(answer.header("x-collegium-alternatives").contains("law="));
        let frames = frames(&answer.body);
        for frame in &frames {
            let text = frame.to_string();
            serde_json::from_str::<CreateChatCompletionStreamResponse>(&text).expect(&text);
        }
        let delta = &frames[0]["choices"][0]["delta"];
        assert_eq!(*delta, json!({ "role": "assistant", "content": "" }));
        let (last, rest) = frames.split_last().expect("frames");
        let end = if usage { rest.last().expect("an end") } else { last };
        assert_eq!(end["choices"][0]["finish_reason"], "length");
        assert_eq!(end["choices"][0]["delta"], json!({}));
        assert!(end["collegium"]["missing_mass"].is_number());
        // Usage only where it was asked for, and nowhere else.
        assert_eq!(frames.iter().filter(|f| f.get("usage").is_some()).count(), usize::from(usage));
        assert_eq!(frames.iter().filter(|f| f["choices"] == json!([])).count(), usize::from(usage));
        if usage {
            assert_eq!(last["usage"]["completion_tokens"], 6);
        }
    }
}

/// Registers a specialist with the first `experts` experts of each layer.
fn register(school: &School, domain: &str, experts: u32) {
    let model = &school.college.model;
    let shape = model.shape();
    let mask = engine::MaskFile {
        format: engine::MASK_FORMAT.into(),
        parent: model.parent(),
        domain: domain.into(),
        score: "gate".into(),
        experts: vec![experts as usize; shape.layers],
        kept: vec![(0..experts).collect(); shape.layers],
        coverage: vec![1.0; shape.layers],
        profile: "p".into(),
        passes: vec![],
    };
    let text = mask.to_json().expect("a mask");
    let manifest = specialists::Manifest {
        id: domain.into(),
        domain: domain.into(),
        parent: model.parent(),
        mask_sha256: engine::hash::hex(text.as_bytes()),
        state: specialists::State::Active,
        think: Default::default(),
        missing: Default::default(),
        sampling: Default::default(),
        evaluation: None,
        created: specialists::Created {
            profile_sha256: "p".into(),
            corpus_sha256: "c".into(),
            score: "gate".into(),
            coverage: 1.0,
            time: 0,
            version: "0".into(),
        },
    };
    let registry = specialists::Registry::open(&school.college.home, shape, model.parent(), &[]);
    registry.register(&manifest, &text).expect("registered");
}

/// Who does not fit answers all the same, streamed or not, and takes no more than
/// there is.
#[tokio::test]
async fn a_specialist_too_large_for_the_budget_answers() {
    let first = school(|_| ());
    // Domains without a shipped specialist, so that only these two have one.
    register(&first, "tea", 30);
    register(&first, "coffee", 4);
    let ledger = first.college.snapshot().await.expect("a pool").ledger;
    let kv = 1 << 20;
    // Room for the small one and half of the large one.
    let budget = ledger.backbone + ledger.workspace + kv + (7 << 20);
    let small = school_at(first._home, |config| {
        config.memory.kv = Some(config::Bytes(kv));
        config.memory.budget = Some(config::Bytes(budget));
    });
    for model in ["coffee", "tea"] {
        for stream in [true, false] {
            let body = json!({
                "model": model, "stream": stream, "max_tokens": 2,
                "messages": [{ "role": "user", "content": "hi" }],
            });
            let answer = post(&small, "/v1/chat/completions", &body.to_string()).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.header("x-collegium-specialist"), model);
            assert_eq!(answer.header("x-collegium-domain"), model);
            assert!(answer.body.contains(&format!(r#""specialist":"{model}""#)), "{}", answer.body);
        }
    }
    let ledger = small.college.snapshot().await.expect("a pool").ledger;
    assert!(ledger.peak <= budget);
}

/// What is set aside for conversations is reckoned with how they are kept, and the same bytes hold more of them.
#[tokio::test]
async fn less_exact_keys_and_values_make_room() {
    let kept = |kv: Option<u64>, kv_type| {
        school(|config| {
            config.memory.kv = kv.map(config::Bytes);
            config.memory.kv_type = kv_type;
        })
    };
    let [exact, half, quarter] = config::Precision::ALL;
    let set_aside = |school: &School| school.college.engine.kv_bytes();
    let whole = set_aside(&kept(None, exact));
    assert_eq!(set_aside(&kept(None, half)), whole / 2);
    // 32 bytes and a scale of two, in place of 128.
    assert_eq!(set_aside(&kept(None, quarter)), whole / 128 * 34);

    // A budget for 512 tokens of F32, in whole pages of 32.
    let bytes = kept(None, exact).college.model.layout(exact).bytes_for(512);
    for (kv_type, tokens) in [(exact, 512), (half, 1024), (quarter, 512 * 128 / 34 / 32 * 32)] {
        let school = kept(Some(bytes), kv_type);
        assert_eq!(school.college.engine.context(), tokens, "{kv_type}");
        let ledger = school.college.snapshot().await.expect("a pool").ledger;
        assert_eq!(ledger.kv, bytes, "{kv_type}");
        let shown = format!(r#"collegium_kv_type{{type="{kv_type}"}} 1"#);
        assert!(get(&school, "/metrics").await.body.contains(&shown), "{kv_type}");
        let body = r#"{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}"#;
        let answer = post(&school, "/v1/chat/completions", body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

/// Waits until nobody holds anything any more.
async fn all_given_back(college: &College) {
    let begun = Instant::now();
    loop {
        let snapshot = college.snapshot().await.expect("a pool");
        let metrics = college.meter.render();
        let idle =
            metrics.contains("collegium_sequences 0") && metrics.contains("collegium_waiting 0");
        if idle && snapshot.leases == 0 && college.engine.kv_bytes_in_use() == 0 {
            return;
        }
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(20), "{} leases after {waited:?}", snapshot.leases);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client that hangs up, streaming or not, leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_stops_its_generation() {
    let school = school(|_| ());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = axum::serve(listener, app(school.college.clone())).into_future();
    let server = tokio::spawn(server);
    for stream in [true, false] {
        let body = json!({
            "stream": stream, "ignore_eos": true, "max_tokens": 1900, "model": "law", "n": 3,
            "messages": [{ "role": "user", "content": LAW }],
        })
        .to_string();
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(head.as_bytes()).await.expect("sent");
        if stream {
            let mut some = [0; 512];
            assert!(client.read(&mut some).await.expect("a start") > 0);
        }
        let begun = Instant::now();
        while !school.college.meter.render().contains("collegium_sequences 3") {
            assert!(begun.elapsed() < Duration::from_secs(10), "no generation");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        all_given_back(&school.college).await;
    }
    let metrics = school.college.meter.render();
    let cancelled = r#"outcome="cancelled"} 2"#;
    assert!(metrics.contains(cancelled), "{metrics}");
    server.abort();
}

/// Every number that a request may send as large as it likes.
#[tokio::test]
async fn numbers_beyond_all_bounds_do_no_harm() {
    let school = school(|_| {});
    let most = i64::MAX;
    for field in [
        format!(r#""top_k":{most}"#),
        r#""top_k":1000000000000000"#.to_owned(),
        format!(r#""repeat_last_n":{most},"repetition_penalty":1.5"#),
        format!(r#""dry_multiplier":100,"dry_base":100,"dry_penalty_last_n":{most}"#),
        r#""logit_bias":{"4294967295":100,"4294967296":1}"#.to_owned(),
        r#""temperature":1e-45,"top_n_sigma":100,"min_p":1,"typical_p":0,"top_p":0"#.to_owned(),
        r#""top_logprobs":20,"logprobs":true,"n":8"#.to_owned(),
    ] {
        let chat = |more: &str| {
            format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":2{more}}}"#)
        };
        let spoiled = post(&school, "/v1/chat/completions", &chat(&format!(",{field}"))).await;
        assert!([200, 400].contains(&spoiled.status), "{field}: {}", spoiled.body);
        let after = post(&school, "/v1/chat/completions", &chat("")).await;
        assert_eq!(after.status, 200, "after {field}: {}", after.body);
    }
}

/// Whatever happens, at the most talkative level, no word of a request is logged.
#[tokio::test]
async fn logs_hold_no_text() {
    const WORD: &str = "xylophonist";
    let log = Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || Shared(writer.clone()))
        .finish();
    // For all threads: one that logs first with no subscriber of its own would switch the message off for everyone.
    tracing::subscriber::set_global_default(subscriber).expect("no other test takes the log");
    let school = school(|config| config.traffic.record = true);
    let said = format!("May a {WORD} sue?");
    let chat = json!({ "messages": [{ "role": "user", "content": said }], "max_tokens": 2 });
    for body in [
        chat.to_string(),
        json!({ "model": WORD, "messages": [] }).to_string(),
        json!({ "model": WORD, "messages": [{ "role": WORD, "content": "x" }] }).to_string(),
        json!({ "messages": [{ "role": "user", "content": "x" }], "model": WORD }).to_string(),
        format!("{{\"messages\": {WORD}"),
    ] {
        post(&school, "/v1/chat/completions", &body).await;
    }
    post(&school, "/v1/completions", &json!({ "prompt": said, "max_tokens": 2 }).to_string()).await;
    post(&school, "/v1/route", &json!({ "text": said }).to_string()).await;
    get(&school, &format!("/v1/{WORD}")).await;
    let text = String::from_utf8(log.lock().expect("a log").clone()).expect("UTF-8");
    assert!(text.contains("decided"), "nothing was logged");
    assert!(!text.contains(WORD), "{text}");
}

struct Shared(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_parent_that_changes_is_not_served() {
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("parent.gguf");
    let nano = engine::gguf::Gguf::nano().expect("the embedded parent");
    std::fs::write(&path, nano.parts()[0].mapping().bytes()).expect("a file");
    let file = std::fs::File::options().write(true).open(&path).expect("the file");
    let school = school_at(home, |config| config.parent.path = Some(path.clone()));
    let ask = r#"{"model":"generalist","prompt":"Why","max_tokens":1}"#;
    assert_eq!(get(&school, "/readyz").await.status, 200);
    assert_eq!(post(&school, "/v1/completions", ask).await.status, 200);
    // Removed, or replaced by a new file: what is mapped is still the parent.
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(get(&school, "/readyz").await.status, 200);
    assert_eq!(post(&school, "/v1/completions", ask).await.status, 200);
    // Written to in place: nobody knows what is mapped.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
    file.set_modified(later).expect("another time");
    let answers = [get(&school, "/readyz").await, post(&school, "/v1/completions", ask).await];
    for answer in answers {
        refused(&answer, 503, "unservable", None);
        assert!(answer.body.contains("parent.gguf: the file was changed"), "{}", answer.body);
    }
    assert_eq!(get(&school, "/healthz").await.status, 200);
}
