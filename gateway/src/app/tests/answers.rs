//! Answers in one piece or several, and what is said of them.

use super::*;

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
