use super::likelihood::likelihoods;
use super::*;
use crate::evaluate::text::log_sum;
use crate::testing::Folder;
use crate::tokens::Window;
use engine::Model;

#[test]
fn counts_and_pairs() {
    let outcomes = |right: &str, looped: &str| {
        let flags = |text: &str| text.chars().map(|c| c == '+').collect::<Vec<_>>();
        let none = vec![false; right.len()];
        Outcomes {
            right: flags(right),
            looped: flags(looped),
            recovered: none.clone(),
            unread: none,
        }
    };
    let parent = outcomes("++++-----+", "----------");
    let own = outcomes("+---+----+", "-+++------");
    let got = cell(&own, Some(&parent), 1);
    assert_eq!((got.n, got.right, got.loops), (10, 3, 3));
    let paired = got.paired.unwrap();
    assert_eq!((paired.gained, paired.lost), (1, 3));
    assert!((paired.p - 0.625).abs() < 1e-12, "{}", paired.p);
    assert!((paired.difference.value + 0.2).abs() < 1e-12);
    assert!((paired.ratio.unwrap().value - 0.6).abs() < 1e-12);
    assert_eq!(cell(&parent, None, 1).paired, None);
    // A parent that knows nothing gives no ratio.
    let none = outcomes("----------", "----------");
    assert_eq!(cell(&own, Some(&none), 1).paired.unwrap().ratio, None);
}

#[test]
fn questions_are_spread() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.jsonl");
    let line = |n| {
        format!(
            "{{\"question\": \"q{n}\", \"options\": [\"a\", \"b\"], \"answer\": {}, \"category\": \"law\"}}\n",
            n % 2
        )
    };
    let text: String =
        (0..10).map(line).chain(["{\"text\": \"no question\"}\n".to_owned()]).collect();
    std::fs::write(&path, text).unwrap();
    let domains = Domains::new(vec![config::Domain::new("law")]).unwrap();
    let corpus = Corpus::at(&path);
    let names = |most| {
        let sets = sets(&corpus, &domains, most).unwrap();
        sets.iter()
            .flat_map(|s| &s.questions)
            .map(|q| format!("{}{}", q.text, q.answer))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(None).len(), 10);
    assert_eq!(names(Some(3)), ["q31", "q60", "q91"]);
    assert_eq!(names(Some(99)).len(), 10);
}

/// What one pass over a shared prompt says is what reading each option whole says, bit for bit.
#[test]
fn likelihoods_are_those_of_the_whole_text() {
    let folder = Folder::new();
    let parent = Parent::new(Model::load(folder.parent(1)).unwrap());
    let mask = ExpertMask::from_kept(parent.model.shape(), &[vec![0, 2], vec![1, 3]]).unwrap();
    let prompt: Vec<u32> = (3..24).collect();
    let options = [vec![5, 9], vec![7], vec![], vec![1, 2, 3, 4, 5, 6, 7]];
    for mask in [None, Some(&mask)] {
        let got = likelihoods(&parent, mask, &prompt, &options).unwrap();
        for (option, got) in options.iter().zip(got) {
            let tokens: Vec<u32> = prompt.iter().chain(option).copied().collect();
            let window = Window { tokens: tokens.clone(), prompt: prompt.len() };
            let mut want = 0.0;
            let mut each = |at: usize, logits: &[f32]| {
                if at + 1 >= prompt.len() && at + 1 < tokens.len() {
                    want += log_sum(logits) - f64::from(logits[tokens[at + 1] as usize]);
                }
            };
            parent.read(&window, mask, None, &mut each).unwrap();
            match option.len() {
                0 => assert!(got.is_infinite()),
                n => assert_eq!(got, want / n as f64),
            }
        }
    }
}

/// A random parent answers noise that never ends: every answer loops, is asked again, and is wrong.
#[test]
fn loops_are_asked_again_and_wrong() {
    let folder = Folder::new();
    let parent = Parent::new(Model::load(folder.parent(1)).unwrap());
    let question = |answer| Question {
        text: "a".to_owned(),
        options: vec!["b".to_owned(), "c".to_owned()],
        answer,
    };
    let set = Set {
        name: "law".to_owned(),
        questions: vec![question(0), question(1)],
        sampling: Sampling::default(),
    };
    let asking = Asking { by: By::Answer, temperature: 0.6, max_tokens: 8, seed: 1 };
    // The tiny parent sees 64 tokens, and the words around a question take more.
    let error = ask(&parent, None, &set, asking, &mut |_| ()).unwrap_err();
    assert!(matches!(error, EvaluateError::Asked { question: 1, .. }), "{error}");
    let folder = Folder::new();
    let longer =
        folder.parent_with(1, &[("qwen3moe.context_length", engine::gguf::Value::U32(512))]);
    let parent = Parent::new(Model::load(longer).unwrap());
    let got = ask(&parent, None, &set, asking, &mut |_| ()).unwrap();
    assert_eq!((count(&got.right), count(&got.looped), count(&got.recovered)), (0, 2, 0));
}
