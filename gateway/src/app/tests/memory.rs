//! Budgets, and a parent that changes.

use super::*;

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
        sources: vec![],
        masking: Default::default(),
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
