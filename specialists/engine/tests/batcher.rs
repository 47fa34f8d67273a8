//! The batcher on the embedded parent: what a request gets, alone, among others, and when memory runs out.

use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::Precision;
use engine::{
    Bank, Constraint, Dry, Engine, EngineError, EngineOptions, Event, ExpertMask, Finish, Model,
    Reason, Request, SamplingParams,
};

fn parent() -> Arc<Model> {
    Model::load(Gguf::nano().unwrap()).unwrap()
}

/// An engine whose store holds `tokens` tokens.
fn engine(model: &Arc<Model>, tokens: usize) -> Engine {
    let kv_bytes = model.layout(Precision::F32).bytes_for(tokens);
    let options =
        EngineOptions { kv_bytes, max_rows: 8, prefill_chunk: 16, ..EngineOptions::default() };
    Engine::start(model.clone(), Bank::new(model.clone()), options).unwrap()
}

fn half(model: &Model, seed: u64) -> ExpertMask {
    let (shape, mut rng) = (model.shape(), fastrand::Rng::with_seed(seed));
    let kept: Vec<Vec<u32>> = (0..shape.layers)
        .map(|_| rng.choose_multiple(0..shape.experts as u32, shape.experts / 2))
        .collect();
    ExpertMask::from_kept(shape, &kept).unwrap()
}

fn request(model: &Model, text: &str) -> Request {
    Request {
        prompt: model.tokenizer().encode_prompt(text, true),
        mask: None,
        sampling: SamplingParams::default(),
        stop: vec![],
        max_tokens: 12,
        ignore_eos: true,
        ..Request::default()
    }
}

fn run(engine: &Engine, request: Request) -> (String, Box<Finish>) {
    let mut generation = engine.generate(request).unwrap();
    let mut text = String::new();
    loop {
        match generation.next_blocking().expect("the engine runs") {
            Event::Text(piece) => text += &piece,
            Event::Scored(_) => {}
            Event::Done(finish) => return (text, finish),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

/// Runs requests at the same time.
fn all(engine: &Engine, requests: Vec<Request>) -> Vec<(String, Box<Finish>)> {
    let start = |r| {
        let engine = engine.clone();
        std::thread::spawn(move || run(&engine, r))
    };
    let running: Vec<_> = requests.into_iter().map(start).collect();
    running.into_iter().map(|t| t.join().unwrap()).collect()
}

#[test]
fn answers_do_not_depend_on_company() {
    let model = parent();
    let engine = engine(&model, 2048);
    let texts = [
        "The court held that",
        "def reverse(items):",
        "The derivative of x",
        "Symptoms of anemia include tiredness and",
    ];
    let alone: Vec<String> = texts.iter().map(|t| run(&engine, request(&model, t)).0).collect();
    let together = all(&engine, texts.iter().map(|t| request(&model, t)).collect());
    assert_eq!(together.into_iter().map(|(text, _)| text).collect::<Vec<_>>(), alone);
    assert!(alone.iter().all(|t| !t.is_empty()));
}

#[test]
fn answers_end_where_they_must() {
    let model = parent();
    let engine = engine(&model, 128);
    let (text, finish) = run(&engine, request(&model, "The law of"));
    assert_eq!((finish.reason, finish.completion_tokens), (Reason::Length, 12));
    assert_eq!(
        finish.taps.tokens as usize,
        finish.prompt_tokens + 11,
        "the last token is not read again"
    );
    // A stop string cuts the text before it.
    let stop: String = text.chars().skip(4).take(3).collect();
    let (cut, finish) =
        run(&engine, Request { stop: vec![stop.clone()], ..request(&model, "The law of") });
    assert_eq!(finish.reason, Reason::Stop);
    assert_eq!(cut, text[..text.find(&stop).unwrap()]);
    // The longest answer is cut to what the store holds.
    let (_, finish) =
        run(&engine, Request { max_tokens: usize::MAX, ..request(&model, "The law of") });
    assert_eq!(finish.prompt_tokens + finish.completion_tokens, 128);
    for (prompt, want) in [
        (vec![], EngineError::Empty),
        (vec![5; 128], EngineError::TooLong { prompt: 128, most: 128 }),
        (vec![5, 8192], EngineError::Token { id: 8192, vocab: 8192 }),
    ] {
        assert_eq!(engine.generate(Request { prompt, ..request(&model, "x") }).err(), Some(want));
    }
}

const LONG: &str = "In contract law, consideration is something of value that is given by both parties to a \
    contract, and that moves them to enter into the agreement. A promise without it is a gift. The courts do not ask";

#[test]
fn a_beginning_that_was_read_before_is_not_read_again() {
    let model = parent();
    let fresh = |text: &str, mask: Option<Arc<ExpertMask>>| {
        run(&engine(&model, 512), Request { mask, ..request(&model, text) })
    };
    let warm = engine(&model, 512);
    let mask = Some(Arc::new(half(&model, 1)));
    let check = |text: &str, mask: &Option<Arc<ExpertMask>>, cached: std::ops::Range<usize>| {
        let (answer, finish) = run(&warm, Request { mask: mask.clone(), ..request(&model, text) });
        assert!(
            cached.contains(&finish.cached_tokens),
            "{} of {} tokens of {text:?}",
            finish.cached_tokens,
            finish.prompt_tokens
        );
        assert_eq!(answer, fresh(text, mask.clone()).0, "other tokens than without a beginning");
        let read = finish.prompt_tokens - finish.cached_tokens + finish.completion_tokens - 1;
        assert_eq!(finish.taps.tokens as usize, read);
        LONG.to_owned() + &answer
    };
    let whole = check(LONG, &None, 0..1);
    // The same again: all but the last token, whose logits are wanted.
    check(LONG, &None, 32..200);
    // A conversation that goes on, and one that turns elsewhere in the middle of a page.
    check(&format!("{whole} whether"), &None, 40..300);
    check(&format!("{} whatever", &LONG[..180]), &None, 32..100);
    // What another specialist read is another function of the text.
    check(LONG, &mask, 0..1);
    check(LONG, &mask, 32..200);
}

#[test]
fn when_pages_run_out_the_last_one_steps_back() {
    let model = parent();
    let texts =
        ["The court held that", "def reverse(items):", "The derivative of x", "Symptoms of"];
    let long = |text: &&str| Request { max_tokens: 100, ..request(&model, text) };
    let ample: Vec<_> = texts.iter().map(|t| run(&engine(&model, 512), long(t)).0).collect();
    // Each needs more than a hundred tokens; there is room for two of them.
    let tight = engine(&model, 224);
    let got = all(&tight, texts.iter().map(long).collect());
    for ((text, finish), want) in got.iter().zip(&ample) {
        assert_eq!(text, want);
        assert_eq!(finish.completion_tokens, 100);
        let read = finish.prompt_tokens - finish.cached_tokens + 99;
        assert_eq!(finish.taps.tokens as usize, read, "what is read again is counted once");
    }
}

#[test]
fn a_dropped_generation_makes_room() {
    let model = parent();
    let engine = engine(&model, 1024);
    let long = |max_tokens| Request { max_tokens, ..request(&model, "Once upon a time") };
    let mut first = engine.generate(long(1000)).unwrap();
    assert!(matches!(first.next_blocking(), Some(Event::Text(_))));
    drop(first);
    // The next one needs nearly all pages.
    let (_, finish) = run(&engine, long(1000));
    assert_eq!(finish.completion_tokens, 1000);
    assert!(engine.kv_bytes_in_use() <= engine.kv_bytes());
}

#[test]
fn a_number_that_is_none_ends_only_its_own_answer() {
    let model = parent();
    let mask = Arc::new(half(&model, 1));
    let text = "The court held that";
    let specialist = || Request { mask: Some(mask.clone()), ..request(&model, text) };
    let (want, _) = run(&engine(&model, 256), specialist());
    // The same file, with the experts damaged that the specialist lacks.
    let gguf = Gguf::nano().unwrap();
    let down = gguf.tensor("blk.3.ffn_down_exps.weight").unwrap();
    let mut bytes =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../nano/nano.gguf")).unwrap();
    let experts = model.shape().experts;
    let slice = down.bytes as usize / experts;
    for e in (0..experts).filter(|&e| !mask.contains(3, e)) {
        let at = down.offset as usize + e * slice;
        bytes[at..at + slice].fill(0xff);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    std::fs::write(&path, bytes).unwrap();
    let damaged = Model::load(Gguf::open(&path).unwrap()).unwrap();
    let engine = engine(&damaged, 256);
    let mut generalist =
        engine.generate(Request { max_tokens: 50, ..request(&model, text) }).unwrap();
    assert_eq!(run(&engine, specialist()).0, want);
    loop {
        match generalist.next_blocking().expect("the engine runs") {
            Event::Text(_) | Event::Scored(_) => {}
            Event::Done(_) => panic!("the damage was not noticed"),
            Event::Failed(error) => {
                assert!(matches!(error, EngineError::NotFinite { .. }), "{error}");
                break;
            }
        }
    }
    // And the engine goes on.
    assert_eq!(run(&engine, specialist()).0, want);
}

#[test]
fn tokens_are_scored_on_request() {
    let model = parent();
    let engine = engine(&model, 256);
    let request = Request { scores: Some(3), ..request(&model, "The court held that") };
    let mut generation = engine.generate(request).unwrap();
    let (mut scored, mut texts) = (Vec::new(), 0);
    while let Some(event) = generation.next_blocking() {
        match event {
            // A token's score comes before its text.
            Event::Scored(s) => scored.push((*s, texts)),
            Event::Text(_) => texts += 1,
            Event::Done(_) => break,
            Event::Failed(error) => panic!("{error}"),
        }
    }
    assert_eq!(scored.len(), 12);
    for (i, (s, texts)) in scored.iter().enumerate() {
        assert_eq!(*texts, i);
        // Greedy: the best one was taken.
        assert_eq!(s.top[0], (s.id, s.logprob));
        assert!(s.top.len() == 3 && s.top.is_sorted_by(|a, b| a.1 >= b.1) && s.logprob < 0.0);
    }
}

/// The text of an answer, and the bytes of each token that was scored.
fn scored(engine: &Engine, model: &Model, request: Request) -> (String, Vec<Vec<u8>>) {
    let mut generation = engine.generate(request).unwrap();
    let (mut text, mut tokens) = (String::new(), Vec::<Vec<u8>>::new());
    loop {
        match generation.next_blocking().expect("the engine runs") {
            Event::Scored(s) => tokens.push(model.tokenizer().bytes(s.id).to_vec()),
            Event::Text(piece) => {
                text += &piece;
                // Whatever has gone out was scored before.
                assert!(tokens.concat().len() >= text.len(), "{text:?}");
            }
            Event::Done(_) => return (text, tokens),
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

#[test]
fn scores_are_of_the_text_that_was_sent() {
    let model = parent();
    let engine = engine(&model, 256);
    let request = |stop: &str| Request {
        scores: Some(0),
        stop: vec![stop.into()],
        ..request(&model, "The law of")
    };
    let (whole, tokens) = scored(&engine, &model, request(""));
    assert_eq!((whole.as_bytes(), tokens.len()), (&tokens.concat()[..], 12));
    // Wherever a stop string begins, within a token or across several, the tokens are those that the text needs.
    let stops: Vec<&str> = (1..whole.len()).filter_map(|at| whole.get(at..at + 8)).collect();
    assert!(stops.len() > 10);
    for stop in stops {
        let (text, tokens) = scored(&engine, &model, request(stop));
        assert_eq!(text, whole[..whole.find(stop).unwrap()]);
        assert!(tokens.concat().starts_with(text.as_bytes()));
        let (_, before) = tokens.split_last().expect("a text has tokens");
        assert!(before.concat().len() < text.len(), "a token more than {text:?} needs");
    }
}

#[test]
fn several_answers_read_their_prompt_once() {
    let model = parent();
    let seeds = [Some(1), Some(2), Some(3)];
    let ask = |seed| Request {
        sampling: SamplingParams { temperature: 1.0, seed, ..SamplingParams::default() },
        ..request(&model, LONG)
    };
    let alone: Vec<_> = seeds.iter().map(|&seed| run(&engine(&model, 512), ask(seed)).0).collect();
    assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    let finish = |mut generation: engine::Generation| {
        let mut text = String::new();
        loop {
            match generation.next_blocking().expect("the engine runs") {
                Event::Text(piece) => text += &piece,
                Event::Scored(_) => {}
                Event::Done(finish) => return (text, finish),
                Event::Failed(error) => panic!("{error}"),
            }
        }
    };
    let engine = engine(&model, 512);
    let all = engine.generate_all(ask(seeds[0]), &seeds[1..]).unwrap();
    let (texts, ends): (Vec<_>, Vec<_>) = all.into_iter().map(finish).unzip();
    assert_eq!(texts, alone);
    let prompt = ends[0].prompt_tokens;
    assert_eq!(ends.iter().map(|e| e.cached_tokens).collect::<Vec<_>>(), [0, prompt, prompt]);
    // What each has read: the first one all, the others only what they said.
    let read = |e: &Finish| e.taps.tokens as usize;
    assert_eq!(ends.iter().map(|e| read(e)).collect::<Vec<_>>(), [prompt + 11, 11, 11]);
    // The first one may be dropped before there is anything to go on from.
    let mut all = engine.generate_all(ask(seeds[0]), &seeds[1..]).unwrap();
    drop(all.remove(0));
    assert_eq!(all.into_iter().map(|g| finish(g).0).collect::<Vec<_>>(), alone[1..]);
    // There is room for eight: the others wait, and say the same.
    let all = engine.generate_all(ask(seeds[0]), &[seeds[1]; 11]).unwrap();
    let texts: Vec<_> = all.into_iter().map(|g| finish(g).0).collect();
    assert!(texts[0] == alone[0] && texts[1..].iter().all(|t| *t == alone[1]));
}

#[test]
fn an_answer_that_goes_round_in_circles_ends() {
    let model = parent();
    let engine = engine(&model, 1024);
    // A bias that leaves one token only.
    let bias = vec![(500, 1000.0)];
    let sampling = SamplingParams { logit_bias: bias, ..SamplingParams::default() };
    let same = |stop_circles| Request {
        sampling: sampling.clone(),
        max_tokens: 200,
        stop_circles,
        ..request(&model, "The court")
    };
    let (_, finish) = run(&engine, same(true));
    assert_eq!((finish.reason, finish.completion_tokens), (Reason::Circle(1), 64));
    let (_, finish) = run(&engine, same(false));
    assert_eq!((finish.reason, finish.completion_tokens), (Reason::Length, 200));
}

/// An engine that guesses, or not.
fn engine_that(model: &Arc<Model>, lookup: bool) -> Engine {
    let kv_bytes = model.layout(Precision::F32).bytes_for(1024);
    let options = EngineOptions { kv_bytes, lookup, ..EngineOptions::default() };
    Engine::start(model.clone(), Bank::new(model.clone()), options).unwrap()
}

/// All events of an answer, as they are shown.
fn events(engine: &Engine, request: &Request) -> Vec<String> {
    let mut generation = engine.generate(request.clone()).unwrap();
    let next = || generation.next_blocking().map(|event| format!("{event:?}"));
    std::iter::from_fn(next).collect()
}

/// Allows no token twice in a row.
#[derive(Clone, Default)]
struct NoDouble(Option<u32>);

impl Constraint for NoDouble {
    fn restrict(&mut self, logits: &mut [f32]) {
        self.0.iter().for_each(|id| logits[*id as usize] = f32::NEG_INFINITY);
    }
    fn accept(&mut self, id: u32) {
        self.0 = Some(id);
    }
    fn copy(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// Code that says the same again and again, and begins to do so once more.
fn again() -> String {
    let getter = |name: &str| format!("    def get_{name}(self):\n        return self.{name}\n\n");
    let names = ["width", "height", "depth", "weight", "width", "height"];
    names.map(getter).concat() + "    def get_"
}

#[test]
fn guesses_change_no_answer() {
    let model = parent();
    let [plain, guessing] = [false, true].map(|lookup| engine_that(&model, lookup));
    let base = Request { max_tokens: 90, ..request(&model, &again()) };
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    // Both know the same beginning from here on.
    let whole = [&plain, &guessing].map(|engine| run(engine, base.clone()).0);
    let stop: String = whole[0].chars().skip(60).take(4).collect();
    let breakers = [].into();
    let dry = Dry { multiplier: 0.8, base: 1.75, allowed_length: 6, window: 999, breakers };
    let mut requests = vec![
        base.clone(),
        with(&|r| r.stop = vec![stop.clone()]),
        with(&|r| r.ignore_eos = false),
        with(&|r| r.stop_circles = true),
        with(&|r| r.scores = Some(2)),
        with(&|r| r.sampling.repetition_penalty = 1.1),
        with(&|r| (r.sampling.frequency_penalty, r.sampling.presence_penalty) = (0.2, 0.3)),
        with(&|r| r.sampling.dry = Some(dry.clone())),
        with(&|r| r.constraint = Some(Box::new(NoDouble::default()))),
        with(&|r| r.mask = Some(Arc::new(half(&model, 3)))),
    ];
    requests.extend((1..5).map(|max_tokens| Request { max_tokens, ..base.clone() }));
    requests.extend((0..6).map(|seed| {
        with(&|r| {
            (r.sampling.temperature, r.sampling.seed) = (0.2 * (seed + 1) as f32, Some(seed));
            (r.sampling.xtc_probability, r.scores) = (0.1, Some(1));
        })
    }));
    for (i, request) in requests.iter().enumerate() {
        let before = guessing.guesses();
        // Every event: text in the same pieces, scores, and at the end what the router did, to the last bit.
        assert!(events(&plain, request) == events(&guessing, request), "request {i} differs");
        let now = guessing.guesses();
        assert!(now.accepted - before.accepted < request.max_tokens as u64);
    }
    assert_eq!(plain.guesses().proposed, 0);
    let guesses = guessing.guesses();
    assert!(0 < guesses.accepted && guesses.accepted < guesses.proposed, "{guesses:?}");
}

#[test]
fn an_answer_that_repeats_takes_fewer_steps() {
    let model = parent();
    let engine = engine_that(&model, true);
    // A bias that leaves one token only: every guess comes true, and the last one is not made in vain.
    let sampling = SamplingParams { logit_bias: vec![(500, 1000.0)], ..SamplingParams::default() };
    let (_, finish) = run(&engine, Request { sampling, max_tokens: 200, ..request(&model, "The") });
    let (guesses, made) = (engine.guesses(), finish.completion_tokens as u64);
    assert_eq!(guesses.accepted, guesses.proposed);
    assert!(guesses.accepted > made / 2, "{} steps for {made} tokens", made - guesses.accepted);
}
