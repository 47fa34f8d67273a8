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

mod answers;
mod conversations;
mod logs;
mod memory;
mod refusals;
mod scores;
mod streams;

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

const LAW: &str = "What must a plaintiff prove to win a claim for breach of contract?";

/// Leaves one token only, whatever the seed.
const ROUND: &str = r#"{"500":100,"501":-100}"#;

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
