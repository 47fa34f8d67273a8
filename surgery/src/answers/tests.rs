use engine::Model;
use engine::gguf::Gguf;

use super::*;

#[test]
fn questions_are_spread() {
    #[track_caller]
    fn check(items: u64, wanted: u64, want: &[u64]) {
        let got: Vec<u64> = (0..items).filter(|at| due(*at, items, wanted)).collect();
        assert_eq!(got, want);
    }
    check(6, 6, &[0, 1, 2, 3, 4, 5]);
    check(6, 3, &[1, 3, 5]);
    check(7, 2, &[3, 6]);
    check(5, 1, &[4]);
    let survey = Survey { items: 10, bytes: 4000 };
    assert_eq!(wanted(survey, None, 100), 10);
    assert_eq!(wanted(survey, Some(1000), 100), 5);
    assert_eq!(wanted(survey, Some(1), 100), 1);
    assert_eq!(wanted(survey, Some(1 << 40), 100), 10);
}

// The embedded parent, since answers need a chat template.
#[test]
fn answers_are_a_corpus_and_an_interrupted_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let questions = [
        r#"{"question": "What is 2 + 2?", "options": ["3", "4"]}"#,
        r#"{"question": "Who may sue?", "answer": "not this"}"#,
        r#"{"prompt": "Say a word.", "response": "nor this"}"#,
    ];
    fs::write(&path, questions.join("\n")).unwrap();
    let parent = Parent::new(Model::load(Gguf::nano().unwrap()).unwrap());
    let (corpus, domains, out) =
        (Corpus::at(&path), Domains::default(), folder.path().join("answers.jsonl"));
    let asking = Asking {
        corpus: &corpus,
        domains: &domains,
        domain: None,
        sampling: SamplingParams { temperature: 0.6, ..SamplingParams::default() },
        seed: 5,
        max_tokens: 12,
        tokens: None,
        out: &out,
    };
    let run = |asking: &Asking| answer(&parent, asking, &mut |_, _, _| ());
    let first = run(&asking).unwrap();
    assert_eq!((first.questions, first.before), (3, 0));
    assert!(first.tokens > 3 && first.tokens <= 36);
    let text = fs::read_to_string(&out).unwrap();
    let selection = Selection { domains: &domains, domain: None, part: Part::All };
    let made = Corpus::at(&out);
    let items = made.items(selection).unwrap();
    let items: Vec<Item> = items.collect::<Result<_, _>>().unwrap();
    let prompt = |item: &Item| match &item.content {
        Content::Chat(turns) => turns[0].content.clone(),
        other => panic!("{other:?}"),
    };
    let prompts: Vec<String> = items.iter().map(prompt).collect();
    assert_eq!(prompts, ["What is 2 + 2?\nA. 3\nB. 4", "Who may sue?", "Say a word."]);
    assert!(!text.contains("not this") && !text.contains("nor this"));
    // Killed within the second line, however much of it was there: the same file in the end.
    let end = text.find('\n').unwrap() + 9;
    fs::write(&out, text[..end].to_owned() + &"x".repeat(9999)).unwrap();
    let again = run(&asking).unwrap();
    assert_eq!((again.questions, again.before), (3, 1));
    assert_eq!(fs::read_to_string(&out).unwrap(), text);
    // With other flags they are not the same answers.
    let error = run(&Asking { seed: 6, ..asking.clone() }).unwrap_err();
    assert!(matches!(error, AnswersError::Other { line: 1, .. }), "{error}");
    fs::remove_file(&out).unwrap();
    run(&Asking { seed: 6, ..asking.clone() }).unwrap();
    assert_ne!(fs::read_to_string(&out).unwrap(), text);
    // What asks nothing is an error with its line.
    fs::write(&path, "{\"text\": \"no question\"}").unwrap();
    let error = run(&asking).unwrap_err().to_string();
    assert!(error.ends_with("q.jsonl:1: no \"question\" or \"prompt\" to answer"), "{error}");
}
