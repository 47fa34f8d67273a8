use super::document::Evaluation;
use super::*;
use crate::testing::{self, Folder};

/// Two domains, two masks with controls, on a tiny parent.
fn stage(folder: &Folder) -> (Parent, Vec<Given>, Vec<Column>) {
    let gguf = folder.parent(1);
    let given = |domain: &str, kept: &[&[u32]]| {
        let file = MaskFile { domain: domain.to_owned(), ..testing::mask(&gguf, kept) };
        Given { sha256: hash::hex(domain.as_bytes()), file }
    };
    let masks = vec![given("law", &[&[0, 1], &[2, 3]]), given("math", &[&[1, 2], &[0, 3]])];
    let window = |seed: u32, prompt| {
        let tokens = (0..40).map(|i| (i * 7 + seed * 13) % 250).collect();
        Window { tokens, prompt }
    };
    let column = |name: &str, first: u32| Column {
        name: name.to_owned(),
        windows: (first..first + 4).map(|seed| window(seed, (seed % 3 * 9) as usize)).collect(),
    };
    let parent = Parent::new(Model::load(gguf).unwrap());
    (parent, masks, vec![column("law", 1), column("math", 50)])
}

/// To nine digits: a number that was written as JSON may come back one bit off.
#[track_caller]
fn same<T: std::fmt::Debug>(a: &T, b: &T) {
    assert_eq!(format!("{a:.9?}"), format!("{b:.9?}"));
}

const CONTROLS: Controls = Controls { draws: 2, seed: 3 };

#[test]
fn parent_masks_and_controls() {
    let folder = Folder::new();
    let (parent, given, columns) = stage(&folder);
    let mut profile = Profile::new(parent.model.shape(), &parent.model.parent(), "law");
    parent.tap(&columns[0].windows[0], &mut profile).unwrap();
    let parts = Parts::none();
    let profiles = [profile.clone()];
    let study = Study::new(&parent, &given, &profiles, CONTROLS, &parts).unwrap();
    let mut last = (0, 0);
    let text = study.text(&columns, &mut |done, total, _| last = (done, total)).unwrap();
    assert_eq!(last.0, last.1);
    // 4 x 39 tokens, less the prompts: 9, 18, 0 and 9, of which the first token of a text has no guess.
    let counted: Vec<u64> = text.columns.iter().map(|c| c.tokens).collect();
    assert_eq!(counted, columns.iter().map(text::scored).collect::<Vec<_>>());
    // What each window says is what it says alone.
    for (at, column) in columns.iter().enumerate() {
        for (subject, mask) in study.masks.iter().enumerate() {
            let Some(cell) = &text.cells[subject][at] else { continue };
            let (mut nats, mut count) = (0.0, 0);
            for window in &column.windows {
                let first = window.prompt.max(1);
                let each = |i: usize, logits: &[f32]| {
                    if let Some(next) = window.tokens.get(i + 1).filter(|_| i + 1 >= first) {
                        nats += text::log_sum(logits) - f64::from(logits[*next as usize]);
                        count += 1;
                    }
                };
                parent.read(window, mask.as_ref(), None, each).unwrap();
            }
            assert!((cell.nats.value - nats / f64::from(count)).abs() < 1e-9);
            assert!((cell.ratio.value - (-cell.cost.value).exp()).abs() < 1e-12);
            // The parent is itself; a mask is not.
            let own = study.subjects[subject].kind == Kind::Parent;
            assert_eq!(cell.kl.value == 0.0, own, "{}", cell.kl.value);
            assert_eq!(cell.agreement.value == 1.0 && cell.cost.value == 0.0, own);
        }
    }
    // By frequency at home alone.
    let names: Vec<&str> = study.subjects.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names[3..], ["random 2, draw 1", "random 2, draw 2", "frequency law"]);
    assert!(text.cells[5][0].is_some() && text.cells[5][1].is_none());
    let table = Table::new(&study.subjects, &text, "p".to_owned());
    assert_eq!(table.rows.len(), 4);
    assert_eq!((table.rows[3].name.as_str(), table.rows[3].draws.len()), ("random 2", 2));
    let mean = (table.rows[3].draws[0][1] + table.rows[3].draws[1][1]) / 2.0;
    assert!((table.rows[3].nats[1] - mean).abs() < 1e-12);
    // All of it, through its file.
    let found = Found { text: Some(text), questions: None };
    let document = study.document(found, &[(profile, "f".repeat(64))], Vec::new(), String::new());
    let json = serde_json::to_string(&document).unwrap();
    same(&serde_json::from_str::<Evaluation>(&json).unwrap(), &document);
    assert_eq!(document.transfer[0].families[0].pairs.len(), 4);
}

#[test]
fn a_run_goes_on() {
    let folder = Folder::new();
    let (parent, given, columns) = stage(&folder);
    let parts = Parts::at(&folder.path("parts")).unwrap();
    let files = || std::fs::read_dir(folder.path("parts")).unwrap().count();
    let run = |given: &[Given]| {
        let study = Study::new(&parent, given, &[], CONTROLS, &parts).unwrap();
        let mut calls = 0;
        let text = study.text(&columns, &mut |_, _, _| calls += 1).unwrap();
        (text, calls)
    };
    let (first, calls) = run(&given[..1]);
    // Parent, mask and two controls, on two domains.
    assert_eq!((files(), calls > 2), (8, true));
    let (again, calls) = run(&given[..1]);
    // Once a domain, for what was there.
    assert_eq!((files(), calls), (8, 2));
    same(&again, &first);
    // One mask more: it alone is measured, and gives what it gives among others.
    let (more, _) = run(&given);
    assert_eq!(files(), 10);
    let parts = Parts::none();
    let fresh = Study::new(&parent, &given, &[], CONTROLS, &parts).unwrap();
    same(&fresh.text(&columns, &mut |_, _, _| ()).unwrap(), &more);
}

#[test]
fn what_is_refused() {
    let folder = Folder::new();
    let (parent, given, mut columns) = stage(&folder);
    let parts = Parts::none();
    #[track_caller]
    fn check<T>(got: Result<T, EvaluateError>, want: &str) {
        let error = got.err().unwrap().to_string();
        assert!(error.contains(want), "{error}");
    }
    let mut stray = given.clone();
    stray[0].file.parent = "q".repeat(64);
    check(Study::new(&parent, &stray, &[], CONTROLS, &parts), "the mask is for parent qqq");
    let profile = Profile::new(parent.model.shape(), &"q".repeat(64), "law");
    check(Study::new(&parent, &given, &[profile], CONTROLS, &parts), "the profile of \"law\"");
    let study = Study::new(&parent, &given, &[], CONTROLS, &parts).unwrap();
    columns[1].windows.truncate(0);
    check(study.text(&columns, &mut |_, _, _| ()), "math: no token to score");
}
