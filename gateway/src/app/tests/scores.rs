//! Log-probabilities, of answers and of given texts.

use super::*;

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
