//! The batcher on every architecture: an answer is the same tokens alone, among others, from a beginning that was read
//! before, as one of several to a prompt, after it stepped back for others, and whether or not it was guessed how it goes
//! on; however keys and values are kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::Precision;
use engine::{
    Engine, EngineOptions, Event, Finish, Generation, Model, Request, SamplingParams, Session,
};
use tests::agreement::Agreement;
use tests::tiny::{self, VOCAB};

/// Tokens of an answer.
const ANSWER: usize = 40;
/// Past every window, and not a whole number of pages.
const PROMPT: usize = 75;

/// An engine whose store holds `sequences` prompts with their answers, and that guesses.
fn engine(model: &Arc<Model>, precision: Precision, sequences: f64) -> Engine {
    engine_that(model, precision, sequences, true)
}

fn engine_that(
    model: &Arc<Model>,
    kv_precision: Precision,
    sequences: f64,
    lookup: bool,
) -> Engine {
    let kv_bytes = model.layout(kv_precision).bytes_for(PROMPT + ANSWER) as f64 * sequences;
    let options = EngineOptions {
        kv_bytes: kv_bytes as u64,
        kv_precision,
        max_rows: 8,
        prefill_chunk: 16,
        lookup,
    };
    Engine::start(model.clone(), tests::bank(model), options).unwrap()
}

/// What is asked for in the same way with several seeds.
type Way = fn(seed: u64) -> SamplingParams;

/// Nothing of it was said before.
fn wild(seed: u64) -> SamplingParams {
    SamplingParams { temperature: 1.0, seed: Some(seed), ..Default::default() }
}

/// Of two tokens, whatever the model says, so that guesses come true about every other time.
fn narrow(seed: u64) -> SamplingParams {
    let logit_bias = vec![(5, 2000.0), (9, 2000.0)];
    SamplingParams { temperature: 20.0, logit_bias, ..wild(seed) }
}

/// The best token, until it was said too often; where it goes round in circles guesses come true.
fn greedy(_: u64) -> SamplingParams {
    SamplingParams { frequency_penalty: 0.01, repetition_penalty: 1.01, ..Default::default() }
}

fn request(prompt: &[u32], sampling: SamplingParams) -> Request {
    Request {
        prompt: prompt.to_vec(),
        sampling,
        max_tokens: ANSWER,
        ignore_eos: true,
        // So that tokens can be told by their ids: random bytes are no text.
        scores: Some(0),
        ..Request::default()
    }
}

/// The tokens of an answer, and what it took.
fn finished(mut generation: Generation) -> (Vec<u32>, Box<Finish>) {
    let mut ids = Vec::new();
    loop {
        match generation.next_blocking().expect("the engine runs") {
            Event::Scored(scored) => ids.push(scored.id),
            Event::Text(_) => {}
            Event::Done(finish) => return (ids, finish),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

/// Guesses that were run, and that came true.
type Guessed = [u64; 2];

/// Answers asked for in one way are the same however they are made; what was guessed when one was alone.
fn check(model: &Arc<Model>, precision: Precision, way: Way) -> Guessed {
    let mut random = fastrand::Rng::with_seed(5);
    let mut prompt = || (0..PROMPT).map(|_| random.u32(2..VOCAB as u32)).collect::<Vec<u32>>();
    let prompts = [prompt(), prompt(), prompt()];
    let ask = |prompt: &[u32], seed: u64| request(prompt, way(seed));
    let mut guessed = [0; 2];
    // What guesses nothing says what is right, to the last count of what the router did.
    let mut alone = |prompt: &[u32], seed: u64| {
        let [plain, guessing] =
            [false, true].map(|lookup| engine_that(model, precision, 2.0, lookup));
        let (ids, finish) = finished(plain.generate(ask(prompt, seed)).unwrap());
        assert_eq!((ids.len(), finish.cached_tokens), (ANSWER, 0));
        let (again, same) = finished(guessing.generate(ask(prompt, seed)).unwrap());
        assert_eq!(again, ids);
        assert_eq!(same.taps, finish.taps);
        assert_eq!(same.missing_mass.to_bits(), finish.missing_mass.to_bits());
        assert_eq!(plain.guesses().proposed, 0);
        let guesses = guessing.guesses();
        guessed = [guessed[0] + guesses.proposed, guessed[1] + guesses.accepted];
        ids
    };
    let want: Vec<Vec<u32>> = (0..).zip(&prompts).map(|(seed, p)| alone(p, seed)).collect();

    // Room for all, and for one and a half: the others step back and read again.
    for room in [4.0, 1.5] {
        let engine = engine(model, precision, room);
        let start = |(seed, p): (u64, &Vec<u32>)| engine.generate(ask(p, seed)).unwrap();
        let running: Vec<Generation> = (0..).zip(&prompts).map(start).collect();
        let got: Vec<Vec<u32>> = running.into_iter().map(|g| finished(g).0).collect();
        assert_eq!(got, want, "room for {room}");
    }

    // A conversation goes on.
    let warm = engine(model, precision, 4.0);
    assert_eq!(finished(warm.generate(ask(&prompts[0], 0)).unwrap()).0, want[0]);
    let further: Vec<u32> =
        [&prompts[0][..], &want[0][..ANSWER - 1], &prompts[1][..9]].concat().to_vec();
    let (ids, finish) = finished(warm.generate(ask(&further, 7)).unwrap());
    assert!(finish.cached_tokens >= PROMPT, "{} tokens were there", finish.cached_tokens);
    let plain = engine_that(model, precision, 4.0, false);
    assert_eq!(ids, finished(plain.generate(ask(&further, 7)).unwrap()).0);

    // Several answers to one prompt.
    let seeds = [Some(11), Some(12)];
    let several = engine(model, precision, 6.0).generate_all(ask(&prompts[0], 0), &seeds).unwrap();
    let got: Vec<Vec<u32>> = several.into_iter().map(|g| finished(g).0).collect();
    assert_eq!(got, [want[0].clone(), alone(&prompts[0], 11), alone(&prompts[0], 12)]);
    guessed
}

#[test]
fn answers_of_every_architecture_are_the_same_however_they_are_made() {
    let folder = tempfile::tempdir().unwrap();
    for file in tiny::all() {
        let path = folder.path().join(file.name());
        file.write(&path);
        let model = Model::load(Gguf::open(&path).unwrap()).unwrap();
        let of = [wild, narrow, greedy].map(|way: Way| check(&model, Precision::F32, way));
        println!("{}: of guesses came true {of:?}", file.name());
        let [proposed, accepted] = of.into_iter().fold([0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
        if model.layout(Precision::F32).has_state() {
            assert_eq!(proposed, 0);
        } else {
            assert!(0 < accepted && accepted < proposed, "{accepted} of {proposed}");
        }
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
        let model = Model::load(Gguf::open(&path).unwrap()).unwrap();
        for precision in [Precision::F16, Precision::Q8] {
            check(&model, precision, greedy);
        }
    }
}

#[test]
fn each_precision_is_another_rounding() {
    let folder = tempfile::tempdir().unwrap();
    for (name, blocks) in KINDS.map(|name| (name, true)).into_iter().chain([("qwen3moe", false)]) {
        let model = Model::load(Gguf::open(&written(folder.path(), name)).unwrap()).unwrap();
        let bank = tests::bank(&model);
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
