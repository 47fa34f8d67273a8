use std::panic::{AssertUnwindSafe, catch_unwind};

use config::Domains;
use engine::gguf::Gguf;
use engine::{Model, Shape};

use super::*;
use crate::corpus::{Corpus, Part};
use crate::testing::Folder;

const EVERY_ITEM: Duration = Duration::ZERO;

/// A corpus, and a parent to read it.
struct Setting {
    folder: Folder,
    parent: Parent,
    corpus: Corpus,
    domains: Domains,
}

impl Setting {
    fn of(texts: impl IntoIterator<Item = String>) -> Setting {
        let folder = Folder::new();
        let parent = Parent::new(Model::load(folder.parent(3)).unwrap());
        let path = folder.path("corpus.jsonl");
        let line = |text: String| serde_json::json!({ "text": text }).to_string() + "\n";
        std::fs::write(&path, texts.into_iter().map(line).collect::<String>()).unwrap();
        let domains = Domains::new(vec![config::Domain::new("law")]).unwrap();
        Setting { folder, parent, corpus: Corpus::at(&path), domains }
    }

    fn plan(&self) -> Plan<'_> {
        let (corpus, domains) = (&self.corpus, &self.domains);
        let reading =
            Reading { corpus, domains, domain: Some("law"), part: Part::All, tokens: None };
        Plan { pairs: true, signatures: true, force: false, ..Plan::whole(reading) }
    }

    fn run(&self, plan: Plan) -> Result<Profiled, String> {
        run(&self.parent, plan, &mut |_, _, _| ()).map_err(|error| error.to_string())
    }

    /// As if the program were killed after so many items.
    fn killed(&self, plan: Plan, items: u32) {
        let mut left = items;
        let stop = &mut |_: u64, _: u64, _: &str| {
            assert!(left > 0, "killed");
            left -= 1;
        };
        let run = catch_unwind(AssertUnwindSafe(|| run(&self.parent, plan, stop)));
        assert!(run.is_err());
    }
}

fn different(items: u32) -> impl Iterator<Item = String> {
    (0..items).map(|i| format!("{} is the number of item {i:x}", u64::from(i).pow(5)))
}

#[test]
fn items_add_up_to_the_profile() {
    let setting = Setting::of(different(7));
    let Profiled { profile, items, .. } = setting.run(setting.plan()).unwrap();
    assert_eq!(items, 7);
    let signatures = profile.signatures.as_ref().unwrap();
    assert_eq!((&signatures.items[..], signatures.seen), (&[1, 2, 3, 4, 5, 6, 7][..], 7));
    for layer in 0..2 {
        for (expert, mass) in profile.layer_gate_mass(layer).into_iter().enumerate() {
            let items = signatures.mass.chunks(8).map(|item| f64::from(item[layer * 4 + expert]));
            assert!((items.sum::<f64>() - mass).abs() < 1e-3 * mass.max(1.0));
        }
        // Every token chose two of four.
        let pairs = &profile.pairs.as_ref().unwrap()[layer * 16..][..16];
        let tokens = i64::try_from(profile.tokens).unwrap();
        assert_eq!(pairs.iter().step_by(5).sum::<i64>(), 2 * tokens);
        assert_eq!(pairs.iter().sum::<i64>(), 4 * tokens);
        let own: Vec<i64> = pairs.iter().step_by(5).copied().collect();
        assert_eq!(profile.layer_counts(layer), own);
    }
    assert_eq!(Profile::parse(&profile.to_bytes().unwrap()).unwrap(), profile);
}

#[test]
fn reading_stops_when_the_mask_has_settled() {
    let whole = |setting: &Setting| setting.run(setting.plan()).unwrap();
    let settling = |setting: &Setting| {
        let settle = Some(Settle::default());
        setting.run(Plan { settle, ..setting.plan() }).unwrap()
    };
    // A round of one item in eight, and one more to see that nothing changes.
    let same = Setting::of((0..256).map(|_| "the same words".to_owned()));
    let (all, early) = (whole(&same), settling(&same));
    assert_eq!((all.items, early.items, early.rounds.len()), (256, 64, 2));
    assert!(early.settled && !all.settled && early.warnings.is_empty());
    assert_eq!(early.profile.agreement, Some(1.0));
    assert_eq!(early.profile.signatures.unwrap().items[..3], [1, 9, 17]);
    // Read to its end, it is the profile of a reading in order, but for the order of sums.
    let other = Setting::of(different(64));
    let never = Some(Settle { agreement: 2.0, change: 0.0 });
    let rounds = other.run(Plan { settle: never, ..other.plan() }).unwrap();
    assert_eq!(rounds.profile.signatures.as_ref().unwrap().items[..3], [1, 3, 5]);
    let all = whole(&other);
    assert_eq!((rounds.items, rounds.rounds.len(), rounds.settled), (64, 2, false));
    assert_eq!(all.profile.all.counts, rounds.profile.all.counts);
}

#[test]
fn tokens_are_a_bound() {
    let setting = Setting::of(different(400));
    let Plan { reading, .. } = setting.plan();
    let all = setting.run(setting.plan()).unwrap().profile.tokens;
    let reading = Reading { tokens: Some(all / 4), ..reading };
    let never = Some(Settle { agreement: 2.0, change: 0.0 });
    let part = setting.run(Plan { reading, settle: never, ..setting.plan() }).unwrap();
    assert!((all / 5..all / 3).contains(&part.profile.tokens), "{} of {all}", part.profile.tokens);
    assert!(part.rounds.len() > 1);
}

// As if it had not been: the same bits, of whatever was interrupted when.
#[test]
fn a_killed_run_goes_on() {
    let setting = Setting::of(different(80));
    let path = checkpoint_of(&setting.folder.path("law.profile"));
    assert!(path.ends_with("law.profile.checkpoint"));
    let checkpoint = Some(Checkpoint { path: &path, every: EVERY_ITEM });
    let never = Some(Settle { agreement: 2.0, change: 0.0 });
    let Plan { reading, .. } = setting.plan();
    // Of about 2,400 tokens, all or two thirds.
    for (settle, tokens) in [(None, None), (never, None), (never, Some(1600))] {
        let reading = Reading { tokens, ..reading };
        let plan = Plan { checkpoint, settle, reading, ..setting.plan() };
        let want = setting.run(Plan { checkpoint: None, ..plan }).unwrap();
        for items in [5, 0, 30, 30] {
            setting.killed(plan, items);
        }
        let got = setting.run(plan).unwrap();
        // The item at which it was killed had been kept already; one that is not due counts for nothing.
        let passed = 5 + 30 + 30 + 4;
        assert!(got.resumed == passed || (tokens.is_some() && got.resumed > passed / 2));
        assert_eq!(got.profile.to_bytes().unwrap(), want.profile.to_bytes().unwrap());
        assert_eq!((got.items, got.rounds), (want.items, want.rounds));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_checkpoint_of_something_else_is_not_gone_on_from() {
    let setting = Setting::of(different(40));
    let path = setting.folder.path("checkpoint");
    let checkpoint = Some(Checkpoint { path: &path, every: EVERY_ITEM });
    let plan = Plan { checkpoint, ..setting.plan() };
    setting.killed(plan, 10);
    let error = setting.run(Plan { pairs: false, ..plan }).unwrap_err();
    assert!(error.ends_with("finish that one, or remove the file"), "{error}");
    let good = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, good.len() - 1] {
        std::fs::write(&path, &good[..cut]).unwrap();
        let error = setting.run(plan).unwrap_err();
        assert!(error.contains("not a checkpoint"), "{error}");
    }
    std::fs::write(&path, good).unwrap();
    assert_eq!(setting.run(plan).unwrap().resumed, 11);
}

#[test]
fn too_few_tokens_are_an_error_or_a_warning() {
    let setting = Setting::of(["nine byte".to_owned(), "a".to_owned()]);
    let error = setting.run(setting.plan()).unwrap_err();
    let want = "10 tokens for 4 experts a layer: 6 more are needed for four each";
    assert!(error.starts_with(want), "{error}");
    let forced = setting.run(Plan { force: true, ..setting.plan() }).unwrap();
    assert!(forced.warnings[0].starts_with("10 tokens for 4 experts"), "{:?}", forced.warnings);
    // One item has no halves.
    let one = Setting::of(["long enough for four each".to_owned()]);
    let one = one.run(one.plan()).unwrap();
    assert_eq!(one.profile.agreement, None);
    assert!(one.warnings[0].starts_with("nothing says how stable"), "{:?}", one.warnings);
}

#[test]
fn a_parent_that_gives_no_numbers_is_named() {
    let mut setting = Setting::of(different(20));
    let gguf = Gguf::open(&setting.folder.path("parent-3-0.gguf")).unwrap();
    // All of expert 2 of the second layer: whatever chose it has a norm that is none.
    let tensor = gguf.tensor("blk.1.ffn_down_exps.weight").unwrap();
    let mut bytes = std::fs::read(gguf.path()).unwrap();
    let (start, each) = (tensor.offset as usize, tensor.bytes as usize / 4);
    for number in bytes[start + 2 * each..start + 3 * each].chunks_mut(4) {
        number.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    let broken = setting.folder.path("broken.gguf");
    std::fs::write(&broken, bytes).unwrap();
    setting.parent = Parent::new(Model::load(Gguf::open(&broken).unwrap()).unwrap());
    let error = setting.run(setting.plan()).unwrap_err();
    assert!(error.starts_with("layer 1, expert 2: output norm is NaN"), "{error}");
}

#[test]
fn what_a_mask_cannot_be_made_from_is_refused() {
    #[track_caller]
    fn check(profile: &Profile, shape: &Shape, want: &str) {
        let got = usable(profile, shape, "p", false).map_err(|error| error.to_string());
        assert_eq!(got.err().unwrap_or_default(), want);
    }
    let mut shape = Shape::of_experts(3, 4, 2);
    let mut good = Profile::new(&shape, "p", "law");
    good.tokens = 16;
    for layer in [0, 2] {
        good.all.counts[layer * 8] = 16;
    }
    check(&good, &shape, "layer 1 was never reached: no token chose any of its 4 experts");
    // A dense layer has none to reach.
    shape.routed[1] = false;
    check(&good, &shape, "");
    let other = Profile { parent: "q".to_owned(), ..good.clone() };
    check(&other, &shape, "the profile is of parent q…, this parent is p…");
    let wide = Shape::of_experts(3, 8, 2);
    let want = "the profile has [3, 4, 2] layers, experts and choices, the parent [3, 8, 2]";
    check(&good, &wide, want);
}
