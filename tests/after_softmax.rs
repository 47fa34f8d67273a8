//! Routers that do not renormalise, as OLMoE's, where it matters where a mask acts: both are had end to end, and each
//! computes what it says.

use std::fs;

use config::{Domain, Domains};
use engine::gguf::Gguf;
use engine::{ExpertMask, MaskFile, Masking, Model, Profile};
use specialists::Registry;
use surgery::corpus::Corpus;
use surgery::create::{Recipe, Texts, Workshop};
use surgery::cut::{self, CutError};
use surgery::mask::{self, Order, Request, Score, Target};
use surgery::tokens::Window;
use surgery::{Parent, verify};
use tests::tiny;

fn parent(folder: &tempfile::TempDir, name: &str) -> Parent {
    let path = folder.path().join("parent.gguf");
    tiny::all().into_iter().find(|file| file.name() == name).unwrap().write(&path);
    Parent::new(Model::load(Gguf::open(&path).unwrap()).unwrap())
}

fn window(parent: &Parent) -> Window {
    Window { tokens: (0..60).map(|id| id % parent.model.shape().vocab as u32).collect(), prompt: 0 }
}

/// Half of the experts, as a file that was written and read.
fn half(parent: &Parent, masking: Masking) -> MaskFile {
    let mut taps = Profile::new(parent.model.shape(), &parent.model.parent(), "law");
    parent.tap(&window(parent), &mut taps).unwrap();
    let request = Request { target: Target::Share(0.5), uniform: true };
    let order = Order { masking, force: true, ..Order::plain(Score::Gate, request) };
    let made = mask::make(&taps, &"0".repeat(64), &order).unwrap();
    MaskFile::parse(&made.file.to_json().unwrap()).unwrap()
}

/// All logits of the window, by their bits.
fn logits(parent: &Parent, mask: Option<&ExpertMask>) -> Vec<u32> {
    let mut all = Vec::new();
    let each = |_, logits: &[f32]| all.extend(logits.iter().map(|v| v.to_bits()));
    parent.read(&window(parent), mask, None, each).unwrap();
    all
}

#[test]
fn each_computes_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let parent = parent(&folder, "olmoe");
    let own = parent.model.parent();
    let [before, after] =
        [Masking::BeforeSoftmax, Masking::AfterSoftmax].map(|masking| half(&parent, masking));
    assert_eq!(before.kept, after.kept);
    assert_eq!((&before.format[..], &after.format[..]), ("collegium.mask/1", "collegium.mask/2"));
    let [first, second] =
        [&before, &after].map(|file| file.mask(parent.model.shape(), &own).unwrap());
    assert_ne!(logits(&parent, Some(&first)), logits(&parent, Some(&second)));
    // With all experts there is nothing that they could differ in.
    let all = ExpertMask::full(parent.model.shape()).acting(Masking::AfterSoftmax);
    assert_eq!(logits(&parent, Some(&all)), logits(&parent, None));

    // A file is cut of the one, and computes it; of the other there is none.
    let out = folder.path().join("s.gguf");
    let plan = |file| cut::plan(parent.model.gguf(), file, &"1".repeat(64), &Default::default());
    let refused = plan(&after).err().unwrap();
    assert!(matches!(refused, CutError::Masking { .. }), "{refused}");
    cut::write(parent.model.gguf(), &plan(&before).unwrap(), &out, &mut |_, _, _| ()).unwrap();
    let cut = Parent::new(Model::load(Gguf::open(&out).unwrap()).unwrap());
    assert_eq!(logits(&cut, None), logits(&parent, Some(&first)));
}

#[test]
fn verification_says_which_and_what_it_costs() {
    let folder = tempfile::tempdir().unwrap();
    let parent = parent(&folder, "olmoe");
    for (masking, want) in [
        (Masking::BeforeSoftmax, "it acts before the softmax"),
        (Masking::AfterSoftmax, "it acts after the softmax"),
    ] {
        let probes = verify::probes(parent.model.shape(), &[]);
        let file = half(&parent, masking);
        let report = verify::mask(&parent, &file, "m", &probes[..1], &mut |_, _, _| ()).unwrap();
        assert!(report.passed, "{report:?}");
        let detail = |name: &str| &report.checks.iter().find(|c| c.name == name).unwrap().detail;
        assert!(detail("parent").ends_with(want), "{}", detail("parent"));
        // Both are always told.
        let gates = detail("gates");
        assert!(gates.contains("masked before the softmax") && gates.contains("masked after it"));
    }
}

#[test]
fn a_specialist_that_acts_after_the_softmax_is_made_and_served_so() {
    let folder = tempfile::tempdir().unwrap();
    let parent = parent(&folder, "olmoe");
    let corpus = folder.path().join("law.jsonl");
    let item = |n| format!("{{\"text\": \"whereas the party of part {n} agrees\"}}\n");
    fs::write(&corpus, (0..40).map(item).collect::<String>()).unwrap();
    let corpus = Corpus::at(&corpus);
    let texts = Texts { corpus: &corpus, held_out: None, tokens: None, held_out_tokens: None };
    let domains = Domains::new(vec![Domain::new("law")]).unwrap();
    let home = folder.path().join("home");
    let shape = parent.model.shape();
    let registry = Registry::open(&home, shape, parent.model.parent(), &[]);
    let shop = Workshop { parent: &parent, registry: &registry, domains: &domains };
    let mut found = Vec::new();
    for masking in [Masking::BeforeSoftmax, Masking::AfterSoftmax] {
        let recipe = Recipe { masking, force: true, ..Recipe::usual(&home, "law") };
        let made = shop.create(&recipe, texts, &mut |_, _, _| ()).unwrap();
        let (entries, wrong) = registry.read();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(entries["law"].mask.masking(), masking);
        // What was measured is of it, and not of the other one that keeps the same.
        let table = made.evaluation.unwrap();
        let nats: Vec<f64> = table.rows.iter().flat_map(|row| row.nats.clone()).collect();
        found.push(nats);
    }
    assert_eq!(found[0][0], found[1][0], "the parent");
    assert_ne!(found[0][1], found[1][1], "the mask");
    assert_ne!(found[0][2], found[1][2], "its control");
}
