//! What is refused, and that the server goes on.

use super::*;

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
