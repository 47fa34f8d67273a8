//! What is logged.

use super::*;

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
