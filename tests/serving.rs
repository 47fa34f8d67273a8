//! The batcher on every architecture: an answer is the same tokens alone, among others, from a beginning that was read
//! before, as one of several to a prompt, and after it stepped back for others; however keys and values are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::Precision;
use engine::{
    Bank, Engine, EngineOptions, Event, Generation, Model, Request, SamplingParams, Session,
};
use tests::agreement::Agreement;
use tests::tiny::{self, VOCAB};

/// Tokens of an answer.
const ANSWER: usize = 40;
/// Past every window, and not a whole number of pages.
const PROMPT: usize = 75;

/// An engine whose store holds `sequences` prompts with their answers.
fn engine(model: &Arc<Model>, kv_precision: Precision, sequences: f64) -> Engine {
    let kv_bytes = model.layout(kv_precision).bytes_for(PROMPT + ANSWER) as f64 * sequences;
    let options =
        EngineOptions { kv_bytes: kv_bytes as u64, kv_precision, max_rows: 8, prefill_chunk: 16 };
    Engine::start(model.clone(), Bank::new(model.clone()), options).unwrap()
}

fn request(prompt: &[u32], seed: u64) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling: SamplingParams { temperature: 1.0, seed: Some(seed), ..Default::default() },
        max_tokens: ANSWER,
        ignore_eos: true,
        // So that tokens can be told by their ids: random bytes are no text.
        scores: Some(0),
        ..Request::default()
    }
}

/// The tokens of an answer, and how many of its prompt's were read before.
fn finished(mut generation: Generation) -> (Vec<u32>, usize) {
    let mut ids = Vec::new();
    loop {
        match generation.next_blocking().expect("the engine runs") {
            Event::Scored(scored) => ids.push(scored.id),
            Event::Text(_) => {}
            Event::Done(finish) => return (ids, finish.cached_tokens),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn check(path: &Path, precision: Precision) {
    let model = Model::load(Gguf::open(path).unwrap()).unwrap();
    let engine = |sequences| engine(&model, precision, sequences);
    let mut random = fastrand::Rng::with_seed(5);
    let mut prompt = || (0..PROMPT).map(|_| random.u32(2..VOCAB as u32)).collect::<Vec<u32>>();
    let prompts = [prompt(), prompt(), prompt()];
    let alone = |prompt: &[u32], seed: u64| {
        let (ids, cached) = finished(engine(2.0).generate(request(prompt, seed)).unwrap());
        assert_eq!((ids.len(), cached), (ANSWER, 0));
        ids
    };
    let want: Vec<Vec<u32>> = (0..).zip(&prompts).map(|(seed, p)| alone(p, seed)).collect();

    // Room for all, and for one and a half: the others step back and read again.
    for room in [4.0, 1.5] {
        let engine = engine(room);
        let start = |(seed, p): (u64, &Vec<u32>)| engine.generate(request(p, seed)).unwrap();
        let running: Vec<Generation> = (0..).zip(&prompts).map(start).collect();
        let got: Vec<Vec<u32>> = running.into_iter().map(|g| finished(g).0).collect();
        assert_eq!(got, want, "room for {room}");
    }

    // A conversation goes on.
    let warm = engine(4.0);
    assert_eq!(finished(warm.generate(request(&prompts[0], 0)).unwrap()).0, want[0]);
    let further: Vec<u32> =
        [&prompts[0][..], &want[0][..ANSWER - 1], &prompts[1][..9]].concat().to_vec();
    let (ids, cached) = finished(warm.generate(request(&further, 7)).unwrap());
    assert!(cached >= PROMPT, "{cached} tokens were there");
    assert_eq!(ids, finished(engine(4.0).generate(request(&further, 7)).unwrap()).0);

    // Several answers to one prompt.
    let seeds = [Some(11), Some(12)];
    let several = engine(6.0).generate_all(request(&prompts[0], 0), &seeds).unwrap();
    let got: Vec<Vec<u32>> = several.into_iter().map(|g| finished(g).0).collect();
    assert_eq!(got, [want[0].clone(), alone(&prompts[0], 11), alone(&prompts[0], 12)]);
}

#[test]
fn answers_of_every_architecture_are_the_same_however_they_are_made() {
    let folder = tempfile::tempdir().unwrap();
    for file in tiny::all() {
        println!("{}", file.name());
        let path = folder.path().join(file.name());
        file.write(&path);
        check(&path, Precision::F32);
    }
}

/// The tiny file of this name, in `folder`.
fn written(folder: &Path, name: &str) -> PathBuf {
    let file = tiny::all().into_iter().find(|file| file.name() == name).expect(name);
    let path = folder.join(name);
    file.write(&path);
    path
}

/// Dense, with experts, and with a window beside layers that see all; heads are whole blocks.
const KINDS: [&str; 3] = ["qwen3", "qwen3vlmoe", "gemma3"];

#[test]
fn answers_are_the_same_however_they_are_made_in_every_precision() {
    let folder = tempfile::tempdir().unwrap();
    for name in KINDS {
        let path = written(folder.path(), name);
        for precision in [Precision::F16, Precision::Q8] {
            check(&path, precision);
        }
    }
}

#[test]
fn each_precision_is_another_rounding() {
    let folder = tempfile::tempdir().unwrap();
    for (name, blocks) in KINDS.map(|name| (name, true)).into_iter().chain([("qwen3moe", false)]) {
        let model = Model::load(Gguf::open(&written(folder.path(), name)).unwrap()).unwrap();
        let bank = Bank::new(model.clone());
        let mut random = fastrand::Rng::with_seed(9);
        let ids: Vec<u32> = (0..PROMPT).map(|_| random.u32(2..VOCAB as u32)).collect();
        let logits = |precision| {
            Session::keeping(precision, &model, &bank, PROMPT).unwrap().logits(&ids, None)
        };
        let [f32, f16, q8] = Precision::ALL.map(logits);
        // The mean over positions of the largest difference of a logit, as a share of the largest logit.
        let apart = |other: &[f32]| {
            let mut agreement = Agreement::default();
            agreement.add(other, &f32, VOCAB as usize);
            agreement.mean()
        };
        let (half, byte) = (apart(&f16), apart(&q8));
        println!("{name}: {half:.1e} {byte:.1e}");
        assert!(half > 0.0 && half < 1e-3, "{name} in F16: {half:.1e}");
        // Heads that are not whole blocks are kept in F16.
        assert_eq!(f16 != q8, blocks, "{name}");
        assert!(byte < 3e-2, "{name} in Q8: {byte:.1e}");
    }
}
