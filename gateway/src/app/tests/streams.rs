//! What a stream holds to, and what is given back when nobody reads it.

use super::*;

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
