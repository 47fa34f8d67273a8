//! The code that Apple's GPUs run, on candle's processor, against the host: logits, what the router did, and the account.
//!
//! `cargo test -p tests candle -- --nocapture` prints how near they are.  The rule is that for
//! llama.cpp, [`tests::agreement`]: both multiply in another order than the host.

use std::path::Path;
use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::{KvStore, Precision};
use engine::{
    Bank, Candle, Engine, EngineOptions, Event, ExpertMask, Generation, Missing, Model, Profile,
    Request, SamplingParams, Segment, Session, Want, forward,
};
use tests::accounted;
use tests::agreement::Agreement;
use tests::random::{MANY, Random, masks};
use tests::tiny;

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../specialists/nano/nano.gguf");

fn open(path: &Path) -> Arc<Model> {
    Model::load(Gguf::open(path).unwrap()).unwrap()
}

/// The tiny file of this name, in `folder`.
fn tiny_model(folder: &Path, name: &str) -> Arc<Model> {
    let file = tiny::all().into_iter().find(|file| file.name() == name).expect(name);
    file.write(&folder.join(name));
    open(&folder.join(name))
}

fn on_candle(model: &Arc<Model>) -> Arc<Bank> {
    Bank::on(Arc::new(Candle::processor(model)), model)
}

/// Logits of every token, read in pieces of these lengths.
fn read(model: &Arc<Model>, bank: &Arc<Bank>, pieces: &[&[u32]]) -> Vec<f32> {
    let tokens = pieces.iter().map(|piece| piece.len()).sum();
    let mut session = Session::new(model, bank, tokens).unwrap();
    pieces.iter().flat_map(|piece| session.logits(piece, None)).collect()
}

fn tokens(model: &Model, n: usize, seed: u64) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| random.u32(3..model.shape().vocab as u32)).collect()
}

/// How near candle's logits have to be to the host's.
#[derive(Clone, Copy)]
enum Rule {
    Plain,
    InBlocks,
    /// The host takes GELU out of a table of F16, as llama.cpp does on a processor; candle computes it.
    Gelu,
}

impl Rule {
    fn of(file: &tiny::File) -> Rule {
        match file.in_blocks() {
            true => Rule::InBlocks,
            false if file.architecture.starts_with("gemma") => Rule::Gelu,
            false => Rule::Plain,
        }
    }

    #[track_caller]
    fn check(self, what: &str, model: &Model, got: &[f32], want: &[f32]) {
        let mut near = Agreement::default();
        near.add(got, want, model.shape().vocab);
        println!("{what}: worst {:.1e}, mean {:.1e}", near.worst, near.mean());
        let holds = match self {
            Rule::Plain => near.holds() && near.worst < 1e-4,
            Rule::InBlocks => near.holds_in_blocks(),
            Rule::Gelu => near.worst < 5e-3 && near.wrong == 0,
        };
        assert!(holds, "{what}: {near:?}");
    }
}

#[test]
fn logits_of_every_architecture_are_the_hosts() {
    let folder = tempfile::tempdir().unwrap();
    for file in tiny::all() {
        let path = folder.path().join(file.name());
        file.write(&path);
        let (model, rule) = (open(&path), Rule::of(&file));
        // Past every window, and not a whole number of pages.
        let text = tokens(&model, 75, 1);
        let want = read(&model, &Bank::new(model.clone()), &[&text]);
        let (first, rest) = text.split_at(40);
        let singly: Vec<&[u32]> = std::iter::once(first).chain(rest.chunks(1)).collect();
        let bank = on_candle(&model);
        for there in ["no experts", "all experts"] {
            let name = format!("{}, {there} there", file.name());
            rule.check(&name, &model, &read(&model, &bank, &[&text]), &want);
            rule.check(&format!("{name}, in pieces"), &model, &read(&model, &bank, &singly), &want);
            bank.warm(&ExpertMask::full(model.shape()));
        }
    }
}

/// A row of a batch: its mask and its policy.
type Row<'a> = (Option<&'a ExpertMask>, Missing);

/// What a row gave: logits, missing mass, and what the router did.
type Gave = (Vec<f32>, Vec<f32>, Profile);

/// All rows in one batch, a text of its own each: nine tokens, then one, then two.
fn together(model: &Arc<Model>, bank: &Arc<Bank>, rows: &[Row<'_>]) -> Vec<Gave> {
    const TOKENS: usize = 12;
    let layout = model.layout(Precision::F32);
    let bytes = layout.bytes_at_once(TOKENS) * rows.len() as u64;
    let store = KvStore::of(bank, &layout, bytes).unwrap();
    let texts: Vec<Vec<u32>> = (0..).zip(rows).map(|(i, _)| tokens(model, TOKENS, i)).collect();
    let mut pages: Vec<_> = rows.iter().map(|_| store.reserve(TOKENS).unwrap()).collect();
    let profile = || Profile::new(model.shape(), "", "");
    let mut gave: Vec<Gave> = rows.iter().map(|_| (vec![], vec![], profile())).collect();
    for piece in [0..9, 9..10, 10..12] {
        let mut segments = Vec::new();
        for (i, (pages, gave)) in pages.iter_mut().zip(&mut gave).enumerate() {
            let (mask, missing) = rows[i];
            segments.push(Segment {
                tokens: &texts[i][piece.clone()],
                pages,
                mask,
                missing,
                taps: Some(&mut gave.2),
                prompt: piece.start == 0,
                want: Want::All,
            });
        }
        let outputs = forward(model, bank, &mut segments);
        drop(segments);
        for (gave, output) in gave.iter_mut().zip(outputs) {
            gave.0.extend(output.logits);
            gave.1.extend(output.missing_mass);
        }
    }
    gave
}

#[track_caller]
fn near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{what}: {got} and {want}");
    }
}

// Specialists of one batch choose, lack and are counted as on the host, whatever is resident.
#[test]
fn specialists_in_one_batch() {
    let folder = tempfile::tempdir().unwrap();
    // In blocks a last bit may become another expert, and so few positions have no mean to speak of.
    let plain = |file: &tiny::File| file.value("expert_count").is_some() && !file.in_blocks();
    for file in tiny::all().into_iter().filter(plain) {
        let path = folder.path().join(file.name());
        file.write(&path);
        let (model, rule) = (open(&path), Rule::of(&file));
        let masks = masks(model.shape(), 3, 0.5, 1.0, 1);
        let host = Bank::new(model.clone());
        let bank = on_candle(&model);
        for warm in 0..3 {
            let missing =
                [Missing::Map, Missing::Renormalise, Missing::Fetch, Missing::Renormalise];
            let of = [None, Some(&masks[0]), Some(&masks[1]), Some(&masks[2])];
            let rows: Vec<Row<'_>> = of.into_iter().zip(missing).collect();
            let (got, want) = (together(&model, &bank, &rows), together(&model, &host, &rows));
            for (i, ((logits, missing, taps), want)) in got.iter().zip(&want).enumerate() {
                let what = format!("{}, {warm} warm, row {i}", file.name());
                rule.check(&what, &model, logits, &want.0);
                if let Rule::Plain = rule {
                    let wide = |numbers: &[f32]| -> Vec<f64> {
                        numbers.iter().copied().map(f64::from).collect()
                    };
                    near(&what, &wide(missing), &wide(&want.1));
                    for (got, want) in [(&taps.all, &want.2.all), (&taps.prompt, &want.2.prompt)] {
                        assert_eq!(got.counts, want.counts, "{what}");
                        near(&what, &got.gate_mass, &want.gate_mass);
                        near(&what, &got.output_norm, &want.output_norm);
                        near(&what, &got.gated_norm, &want.gated_norm);
                    }
                }
            }
            let misses = |bank: &Bank| bank.counts().iter().map(|c| c.misses).sum::<u64>();
            if let Rule::Plain = rule {
                assert_eq!(misses(&bank), misses(&host), "{}", file.name());
            }
            [&host, &bank].into_iter().for_each(|bank| _ = bank.warm(&masks[warm]));
        }
    }
}

// What is resident is what the device holds, and leaves with its last holder.
#[test]
fn the_account_is_what_the_device_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    Random { layers: 3, experts: 32, ..MANY }.write(&path).unwrap();
    let doubled = tiny_model(folder.path(), "gpt-oss-mxfp4");
    for model in [open(NANO.as_ref()), open(&path), doubled] {
        let bank = on_candle(&model);
        let masks = masks(model.shape(), 3, 0.5, 1.0, 2);
        assert!(bank.backbone_bytes() >= model.backbone_bytes());
        let check = |what: &str| {
            accounted(bank.reported_bytes().unwrap(), bank.resident_bytes(), what);
        };
        for (i, mask) in masks.iter().enumerate() {
            bank.warm(mask);
            assert_eq!(bank.resident_bytes(), bank.sizes().union(&masks[..=i]));
            check("warm");
        }
        together(&model, &bank, &[(None, Missing::Map), (Some(&masks[0]), Missing::Fetch)]);
        check("after a step");
        bank.set_room(bank.bytes(&ExpertMask::full(model.shape())) / 10);
        masks.iter().for_each(|mask| _ = bank.evict(mask));
        together(&model, &bank, &[(None, Missing::Fetch)]);
        assert!(bank.guest_bytes() > 0 && bank.guest_bytes() == bank.resident_bytes());
        check("with guests");
        bank.set_room(0);
        assert_eq!(bank.resident_bytes(), 0);
        check("nobody");
    }
}

// Specialists come and go while others read.
#[test]
fn coming_and_going_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let model = tiny_model(folder.path(), "qwen3moe");
    let (host, bank) = (Bank::new(model.clone()), on_candle(&model));
    let masks = masks(model.shape(), 3, 0.4, 1.0, 6);
    let rows = [(None, Missing::Fetch), (Some(&masks[0]), Missing::Map)];
    let want = together(&model, &host, &rows);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            for _ in 0..20 {
                for (got, want) in together(&model, &bank, &rows).iter().zip(&want) {
                    Rule::Plain.check("under load", &model, &got.0, &want.0);
                }
            }
        });
        let mut random = fastrand::Rng::with_seed(9);
        while !running.is_finished() {
            let mask = random.choice(&masks).unwrap();
            bank.warm(mask);
            bank.set_room((bank.bytes(mask) as f64 * random.f64()) as u64);
            bank.evict(mask);
        }
    });
    bank.set_room(0);
    assert_eq!((bank.resident_bytes(), bank.guest_bytes()), (0, 0));
}

// Requests of several specialists, in one batch, draw the tokens that they draw on the host.
#[test]
fn an_engine_answers() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["qwen3moe", "qwen35moe"] {
        let model = tiny_model(folder.path(), name);
        let masks = masks(model.shape(), 2, 0.5, 1.0, 3);
        let answers = |bank: Arc<Bank>| -> Vec<Vec<u32>> {
            let options = EngineOptions {
                kv_bytes: model.layout(Precision::F32).bytes_for(80) * 3,
                kv_precision: Precision::F32,
                max_rows: 8,
                prefill_chunk: 16,
                lookup: true,
            };
            bank.warm(&masks[0]);
            let engine = Engine::start(model.clone(), bank, options).unwrap();
            let ask = |(seed, mask): (u64, Option<&ExpertMask>)| {
                let sampling =
                    SamplingParams { temperature: 1.0, seed: Some(seed), ..Default::default() };
                let request = Request {
                    prompt: tokens(&model, 40, seed),
                    mask: mask.cloned().map(Arc::new),
                    sampling,
                    max_tokens: 24,
                    ignore_eos: true,
                    scores: Some(0),
                    ..Request::default()
                };
                engine.generate(request).unwrap()
            };
            let asked = [None, Some(&masks[0]), Some(&masks[1])];
            let running: Vec<Generation> = (0..).zip(asked).map(ask).collect();
            running.into_iter().map(drawn).collect()
        };
        assert_eq!(answers(on_candle(&model)), answers(Bank::new(model.clone())), "{name}");
    }
}

fn drawn(mut generation: Generation) -> Vec<u32> {
    let mut ids = Vec::new();
    loop {
        match generation.next_blocking().unwrap() {
            Event::Scored(scored) => ids.push(scored.id),
            Event::Text(_) => {}
            Event::Done(_) => return ids,
            Event::Failed(error) => panic!("{error}"),
        }
    }
}
