use std::fs;

use super::*;
use crate::evaluate::Kind;
use crate::mask::MaskError;
use crate::testing::Folder;
use crate::tokens::Window;
use engine::Model;

fn domains() -> Domains {
    let mut other = Domain::new("other");
    other.enabled = false;
    let mut law = Domain::new("law");
    law.aliases = vec!["legal".to_owned()];
    Domains::new(vec![law, other]).unwrap()
}

/// A home with a parent in it, and a corpus of forty items.
fn stage() -> (Folder, Parent, PathBuf) {
    let folder = Folder::new();
    let parent = Parent::new(Model::load(folder.parent(1)).unwrap());
    let item =
        |n| format!("{{\"text\": \"whereas the party of part {n}\", \"domain\": \"law\"}}\n");
    let path = folder.path("law.jsonl");
    fs::write(&path, (0..40).map(item).collect::<String>()).unwrap();
    (folder, parent, path)
}

/// What a run worked on, without repeats.
fn run(
    stage: &(Folder, Parent, PathBuf),
    recipe: &Recipe,
) -> (Result<Report, CreateError>, Vec<String>) {
    let (folder, parent, path) = stage;
    let shape = parent.model.shape();
    let registry = Registry::open(&folder.path("home"), shape, parent.model.parent(), &[]);
    let domains = domains();
    let shop = Workshop { parent, registry: &registry, domains: &domains };
    let corpus = Corpus::at(path);
    let texts = Texts { corpus: &corpus, held_out: None, tokens: None, held_out_tokens: None };
    let mut worked: Vec<String> = Vec::new();
    let made = shop.create(recipe, texts, &mut |_, _, what| {
        if worked.last().is_none_or(|last| last != what) {
            worked.push(what.to_owned());
        }
    });
    if made.is_ok() {
        assert!(registry.read().0.contains_key(&recipe.id));
    }
    (made, worked)
}

#[test]
fn a_corpus_becomes_a_registered_specialist() {
    let stage = stage();
    let recipe = Recipe::usual(&stage.0.path("home"), "law");
    let (made, worked) = run(&stage, &recipe);
    let made = made.unwrap();
    assert_eq!(worked, ["law", "verify", "evaluate law"]);
    assert_eq!(made.experts, [2, 2]);
    assert!(made.verification.passed && made.coverage.iter().all(|share| *share >= 0.5));
    let table = made.evaluation.unwrap();
    assert_eq!(
        table.rows.iter().map(|row| row.kind).collect::<Vec<_>>(),
        [Kind::Parent, Kind::Mask, Kind::Random]
    );
    let text = fs::read_to_string(made.registered.join("manifest.toml")).unwrap();
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.evaluation, at_home(&table));
    assert_eq!(manifest.mask_sha256, made.mask_sha256);
    let corpus = Corpus::at(&stage.2).sha256().unwrap();
    assert_eq!(manifest.created.corpus_sha256, corpus);
    // Two items in forty are held back.
    let profile = Profile::read(&made.folder.join("law.profile")).unwrap();
    let source = format!("corpus {corpus}, 19 of 20 items, until halves agree by 0.95");
    assert_eq!(profile.source, source);
    assert!(made.folder.join("evaluation/evaluation.html").exists());
    assert_eq!(made.coherence.map(|c| c.items), Some(profile.signatures.unwrap().items.len()));
}

#[test]
fn what_was_done_is_not_done_again() {
    let stage = stage();
    let recipe = Recipe::usual(&stage.0.path("home"), "law");
    run(&stage, &recipe).0.unwrap();
    assert_eq!(run(&stage, &recipe).1, [""; 0]);
    // Another mask of the same profile: it is verified and measured anew.
    let request = Request { target: Target::Count(3), uniform: true };
    let wider = Recipe { request, ..recipe.clone() };
    assert_eq!(run(&stage, &wider).1, ["verify", "evaluate law"]);
    // Interrupted while writing: what cannot be read was not done.
    fs::write(recipe.folder.join("evaluation/made.json"), "{").unwrap();
    fs::remove_dir_all(recipe.folder.join("evaluation/parts")).unwrap();
    assert_eq!(run(&stage, &wider).1, ["evaluate law"]);
    // Another corpus of the same name: all of it.
    let more = fs::read_to_string(&stage.2).unwrap() + "{\"text\": \"hereby\"}\n";
    fs::write(&stage.2, more).unwrap();
    assert_eq!(run(&stage, &wider).1[0], "law");
}

#[test]
fn refused_before_the_work() {
    let stage = stage();
    #[track_caller]
    fn check(stage: &(Folder, Parent, PathBuf), id: &str, domain: &str, want: &str) {
        let usual = Recipe::usual(&stage.0.path("home"), "law");
        let (made, worked) = run(stage, &Recipe { id: id.into(), domain: domain.into(), ..usual });
        assert_eq!(worked, [""; 0]);
        let got = made.unwrap_err().to_string();
        assert!(got.contains(want), "{got}");
    }
    check(&stage, "law", "lwa", "names no domain (nearest is \"law\")");
    check(&stage, "law", "other", "not enabled");
    check(&stage, "../law", "law", "must be lowercase letters");
    fs::write(&stage.2, "{\"text\": \"a\"}\n{\"text\": 1}\n").unwrap();
    check(&stage, "law", "law", "law.jsonl:2: ");
    fs::write(&stage.2, "\n").unwrap();
    check(&stage, "law", "law", "no item");
}

#[test]
fn a_few_lines_of_a_new_domain_are_enough() {
    let stage = stage();
    // One item, and it is not the twentieth: nothing is held back, so nothing is evaluated.
    for line in ["{\"text\": \"abc\"}\n", "{\"text\": \"abcd\", \"domain\": \"gardening\"}\n"] {
        fs::write(&stage.2, line).unwrap();
        let recipe = Recipe::usual(&stage.0.path("home"), "gardening");
        let few = run(&stage, &recipe).0.unwrap_err().to_string();
        assert!(few.contains("more are needed for four each"), "{few}");
        let made = run(&stage, &Recipe { force: true, ..recipe }).0.unwrap();
        assert!(made.warnings.iter().any(|w| w.contains("tokens")), "{:?}", made.warnings);
        assert!(made.verification.passed && made.evaluation.is_none());
        assert_eq!((made.id.as_str(), made.domain.as_str()), ("gardening", "gardening"));
    }
}

#[test]
fn a_profile_of_traffic_is_enough() {
    let (folder, parent, _) = stage();
    let (shape, own, domains) = (parent.model.shape(), parent.model.parent(), domains());
    let registry = Registry::open(&folder.path("home"), shape, &own, &[]);
    let shop = Workshop { parent: &parent, registry: &registry, domains: &domains };
    let recipe = Recipe::usual(&folder.path("home"), "law");
    let make = |profile: &Profile| shop.from_profile(&recipe, profile, &mut |_, _, _| ());
    let mut seen = Profile::new(shape, &own, "law");
    // Nothing was seen, so nothing can be chosen.
    assert!(matches!(make(&seen), Err(CreateError::Mask(MaskError::Empty))));
    let window = Window { tokens: (0..60).collect(), prompt: 60 };
    parent.tap(&window, &mut seen).unwrap();
    let made = make(&seen).unwrap();
    assert!(made.verification.passed && made.evaluation.is_none());
    assert_eq!(registry.read().0["law"].manifest.created.corpus_sha256, "traffic");
    // Of another domain or parent.
    let stray = Profile { domain: "math".to_owned(), ..seen.clone() };
    assert!(matches!(make(&stray), Err(CreateError::OtherDomain { .. })));
    let stray = Profile { parent: "p".to_owned(), ..seen };
    assert!(matches!(make(&stray), Err(CreateError::OtherParent { .. })));
}
