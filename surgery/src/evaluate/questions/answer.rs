//! Asks for an answer, and reads the letter from it.

use std::sync::Arc;

use engine::{
    Engine, EngineError, EngineOptions, Event, ExpertMask, Generation, Missing, Precision, Reason,
    Request, SamplingParams,
};

use super::super::{EvaluateError, answers};
use super::{Asking, Outcomes, Set, prompt};
use crate::Parent;
use crate::corpus::{Question, asked};

/// Answers that are made at once.
const AT_ONCE: usize = 8;
/// What the model is told, before the question.
const ASK: &str = "The following is a multiple choice question. Think step by step and then finish your answer with \
                   \"The answer is (X)\", where X is the letter of the right option.";

/// What became of each question.
pub fn ask(
    parent: &Parent,
    mask: Option<&ExpertMask>,
    set: &Set,
    asking: Asking,
    step: &mut dyn FnMut(u64),
) -> Result<Outcomes, EvaluateError> {
    let text = |q: &Question| format!("{ASK}\n\n{}", asked(q.text.clone(), &q.options));
    let prompts = set.questions.iter().enumerate().map(|(at, q)| prompt(parent, set, at, text(q)));
    let prompts: Vec<Vec<u32>> = prompts.collect::<Result<_, _>>()?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    // As the model computes them: what is measured is the experts.
    let kv_precision = Precision::F32;
    let context = parent.model.shape().context.min(longest + asking.max_tokens);
    let kv_bytes = AT_ONCE as u64 * parent.model.layout(kv_precision).bytes_at_once(context);
    let options =
        EngineOptions { kv_bytes, kv_precision, max_rows: AT_ONCE, ..EngineOptions::default() };
    let engine = Engine::start(parent.model.clone(), parent.bank.clone(), options)
        .map_err(EvaluateError::Memory)?;
    let mask = mask.map(|mask| Arc::new(mask.clone()));
    let request = |at: usize, attempt: u64| Request {
        prompt: prompts[at].clone(),
        mask: mask.clone(),
        missing: Missing::Map,
        sampling: sampling(set, asking, seed(asking.seed, at, attempt)),
        max_tokens: asking.max_tokens,
        stop_circles: true,
        ..Request::default()
    };
    let start = |at: usize, attempt| {
        let failed =
            |error| EvaluateError::Asked { domain: set.name.clone(), question: at + 1, error };
        engine.generate(request(at, attempt)).map_err(failed)
    };
    let finish = |at: usize, generation: Generation| {
        let failed =
            |error| EvaluateError::Asked { domain: set.name.clone(), question: at + 1, error };
        answer(generation).ok_or(EvaluateError::Stopped)?.map_err(failed)
    };
    let mut outcomes = Outcomes::default();
    let all: Vec<usize> = (0..prompts.len()).collect();
    for group in all.chunks(AT_ONCE) {
        let first: Vec<Generation> =
            group.iter().map(|at| start(*at, 0)).collect::<Result<_, _>>()?;
        for (at, generation) in group.iter().zip(first) {
            let mut said = finish(*at, generation)?;
            let looped = said.is_none();
            if looped {
                said = finish(*at, start(*at, 1)?)?;
            }
            let question = &set.questions[*at];
            let choice = said.as_ref().map(|text| answers::read(text, question.options.len()));
            outcomes.right.push(choice.flatten() == Some(question.answer));
            outcomes.looped.push(looped);
            outcomes.recovered.push(looped && said.is_some());
            outcomes.unread.push(choice == Some(None));
            step(1);
        }
    }
    Ok(outcomes)
}

/// What was said, or nothing of an answer that looped.  `None` if the engine is gone.
fn answer(mut generation: Generation) -> Option<Result<Option<String>, EngineError>> {
    let mut said = String::new();
    loop {
        match generation.next_blocking()? {
            Event::Text(text) => said += &text,
            Event::Scored(_) => {}
            Event::Done(finish) => {
                return Some(Ok((finish.reason == Reason::Stop).then_some(said)));
            }
            Event::Failed(error) => return Some(Err(error)),
        }
    }
}

/// The domain's defaults, at one temperature.
fn sampling(set: &Set, asking: Asking, seed: u64) -> SamplingParams {
    let (usual, own) = (SamplingParams::default(), &set.sampling);
    SamplingParams {
        temperature: asking.temperature,
        top_k: own.top_k.unwrap_or(usual.top_k),
        top_p: own.top_p.unwrap_or(usual.top_p),
        min_p: own.min_p.unwrap_or(usual.min_p),
        repetition_penalty: own.repetition_penalty.unwrap_or(usual.repetition_penalty),
        seed: Some(seed),
        ..usual
    }
}

/// Another for each question and attempt, the same for each subject.
fn seed(base: u64, question: usize, attempt: u64) -> u64 {
    let mut random = fastrand::Rng::with_seed(base ^ ((question as u64) << 1 | attempt));
    random.u64(..)
}
