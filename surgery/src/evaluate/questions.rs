//! Multiple choice: asks parent and specialists the same questions.
//!
//! In: questions with options.  Out: for each subject and question whether it
//! was right, and whether the answer went round in circles.
//!
//! By answer, in the manner of MMLU-Pro (arXiv 2406.01574): the chat template
//! with thinking off, the options by letter, sampled at a temperature, and the
//! letter read from what was written ([`answers`]).  An answer that goes round
//! in circles, or does not end, is a loop: it is asked once more with another
//! seed, and counts as wrong if it loops again.  Seeds depend on the question
//! alone, so that subjects differ by their experts only.
//!
//! By likelihood, for models too small to be asked: the option whose text, as
//! the answer, costs the fewest nats a token.
//!
//! [`answers`]: super::answers

use std::io;

use config::{Domains, Sampling, Think};
use engine::kv::{KvStore, Pages};
use engine::{
    Engine, EngineOptions, Event, ExpertMask, Generation, Missing, Precision, Reason, Request,
    SamplingParams, Segment, TemplateMessage, Thinking, Want, forward, hash,
};
use serde::{Deserialize, Serialize};

use super::document::{By, Heading, Paired, QuestionCell, Questions};
use super::statistics::{self, Ratio};
use super::text::log_sum;
use super::transfer::Worth;
use super::{EvaluateError, Study, answers};
use crate::corpus::{Corpus, CorpusError, Part, Question, Selection, asked};
use crate::{Parent, Progress};

/// Answers that are made at once.
const AT_ONCE: usize = 8;
/// Logits held at once by likelihood, numbers: 64 MiB.
const LOGITS: usize = 16 << 20;
/// What the model is told, before the question.
const ASK: &str = "The following is a multiple choice question. Think step by step and then finish your answer with \
                   \"The answer is (X)\", where X is the letter of the right option.";

/// Questions of one domain.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: String,
    pub questions: Vec<Question>,
    /// What the domain samples with.
    pub sampling: Sampling,
}

/// How they are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub by: By,
    pub temperature: f32,
    /// Of an answer, at most.
    pub max_tokens: usize,
    pub seed: u64,
}

/// What became of each question, [questions].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcomes {
    pub right: Vec<bool>,
    /// The first answer looped.
    pub looped: Vec<bool>,
    /// The second answer, if there was one, did not.
    pub recovered: Vec<bool>,
    /// It ended, and names no option.
    pub unread: Vec<bool>,
}

/// The questions of a corpus by domain; `most` of each, spread over them.  Items that are no questions with options are
/// passed over.
///
/// # Errors
///
/// [`CorpusError`] with the bad line.
pub fn sets(
    corpus: &Corpus,
    domains: &Domains,
    most: Option<usize>,
) -> Result<Vec<Set>, CorpusError> {
    let mut sets: Vec<Set> = Vec::new();
    for item in corpus.items(Selection { domains, domain: None, part: Part::All })? {
        let item = item?;
        let Some(question) = item.question else { continue };
        let name = item.domain.unwrap_or_else(|| corpus.name());
        match sets.iter_mut().find(|set| set.name == name) {
            Some(set) => set.questions.push(question),
            None => {
                let sampling = domains.get(&name).map(|d| d.sampling.clone()).unwrap_or_default();
                sets.push(Set { name, questions: vec![question], sampling });
            }
        }
    }
    sets.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(most) = most {
        for set in &mut sets {
            let all = std::mem::take(&mut set.questions);
            let n = all.len();
            let due = |at: usize| n <= most || (at + 1) * most / n > at * most / n;
            set.questions =
                all.into_iter().enumerate().filter(|(at, _)| due(*at)).map(|q| q.1).collect();
        }
    }
    Ok(sets)
}

impl Study<'_> {
    /// Asks everybody everything.
    ///
    /// # Errors
    ///
    /// [`EvaluateError`]; what was answered before is kept.
    pub fn questions(
        &self,
        sets: &[Set],
        asking: Asking,
        progress: Progress,
    ) -> Result<Questions, EvaluateError> {
        let wanted = |set: &Set| self.wanted(&set.name);
        let total: u64 = sets.iter().map(|s| (s.questions.len() * wanted(s).len()) as u64).sum();
        let mut done = 0;
        let mut columns = Vec::new();
        let mut cells = vec![vec![None; sets.len()]; self.subjects.len()];
        for (at, set) in sets.iter().enumerate() {
            if set.questions.is_empty() {
                return Err(EvaluateError::NoQuestions { domain: set.name.clone() });
            }
            let name = format!("ask {}", set.name);
            let sha256 = hash::hex(format!("{:?}", set.questions).as_bytes());
            let mut parent = None;
            for subject in wanted(set) {
                let key = self.key(
                    "questions/1",
                    subject,
                    &format!("{sha256} {asking:?} {:?}", set.sampling),
                );
                let mut step = |n: u64| {
                    done += n;
                    progress(done, total, &name);
                };
                let outcomes = match self.parts.get::<Outcomes>(&key) {
                    Some(outcomes) => {
                        step(set.questions.len() as u64);
                        outcomes
                    }
                    None => {
                        let mask = self.masks[subject].as_ref();
                        let outcomes = ask(self.parent, mask, set, asking, &mut step)?;
                        self.parts.put(&key, &outcomes).map_err(EvaluateError::Keep)?;
                        outcomes
                    }
                };
                cells[subject][at] = Some(cell(&outcomes, parent.as_ref(), asking.seed));
                // The parent is the first.
                parent.get_or_insert(outcomes);
            }
            let n = set.questions.len() as u64;
            columns.push(Heading { name: set.name.clone(), tokens: n, items: n, sha256 });
        }
        let guess = |set: &Set| {
            let shares = set.questions.iter().map(|q| 1.0 / q.options.len().max(1) as f64);
            statistics::mean(&shares.collect::<Vec<_>>())
        };
        let by_answer = asking.by == By::Answer;
        Ok(Questions {
            by: asking.by,
            temperature: by_answer.then_some(asking.temperature),
            max_tokens: by_answer.then_some(asking.max_tokens),
            guessing: sets.iter().map(guess).collect(),
            columns,
            cells,
        })
    }
}

impl Questions {
    /// Accuracy as a ratio to the parent's, [subjects][columns].
    pub(super) fn worth(&self) -> Worth {
        let of = |cell: &Option<QuestionCell>| cell.as_ref()?.paired?.ratio;
        self.cells.iter().map(|row| row.iter().map(of).collect()).collect()
    }
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

/// Counts and tests of one subject beside the parent.
fn cell(own: &Outcomes, parent: Option<&Outcomes>, seed: u64) -> QuestionCell {
    let n = own.right.len();
    let paired = |parent: &Outcomes| {
        let both = || own.right.iter().zip(&parent.right);
        let gained = both().filter(|(own, parent)| **own && !**parent).count();
        let lost = both().filter(|(own, parent)| !**own && **parent).count();
        let number =
            |flags: &[bool]| flags.iter().map(|f| f64::from(u8::from(*f))).collect::<Vec<_>>();
        let ratio = Ratio::new(&number(&own.right), &number(&parent.right), seed);
        Paired {
            gained,
            lost,
            difference: statistics::difference(gained, lost, n),
            p: statistics::mcnemar(gained, lost),
            ratio: ratio.map(|ratio| ratio.estimate()),
        }
    };
    QuestionCell {
        n,
        right: count(&own.right),
        accuracy: statistics::share(count(&own.right), n),
        loops: count(&own.looped),
        recovered: count(&own.recovered),
        unread: count(&own.unread),
        paired: parent.map(paired),
    }
}

fn ask(
    parent: &Parent,
    mask: Option<&ExpertMask>,
    set: &Set,
    asking: Asking,
    step: &mut dyn FnMut(u64),
) -> Result<Outcomes, EvaluateError> {
    match asking.by {
        By::Answer => by_answer(parent, mask, set, asking, step),
        By::Likelihood => by_likelihood(parent, mask, set, step),
    }
}

/// The question's tokens, ready for the answer.
fn prompt(parent: &Parent, set: &Set, at: usize, text: String) -> Result<Vec<u32>, EvaluateError> {
    let message = TemplateMessage { role: "user".to_owned(), content: text };
    let off = Thinking { think: Think::Off, effort: None };
    let failed =
        |error| EvaluateError::Template { domain: set.name.clone(), question: at + 1, error };
    let text = parent.model.render_open(&[message], off).map_err(failed)?;
    Ok(parent.model.tokenizer().encode_chat(&text))
}

fn by_answer(
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
    let mask = mask.map(|mask| std::sync::Arc::new(mask.clone()));
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
fn answer(mut generation: Generation) -> Option<Result<Option<String>, engine::EngineError>> {
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

fn by_likelihood(
    parent: &Parent,
    mask: Option<&ExpertMask>,
    set: &Set,
    step: &mut dyn FnMut(u64),
) -> Result<Outcomes, EvaluateError> {
    let mut outcomes = Outcomes::default();
    for (at, question) in set.questions.iter().enumerate() {
        let text = asked(question.text.clone(), &question.options);
        let prompt = prompt(parent, set, at, text)?;
        let encode = |option: &String| parent.model.tokenizer().encode(option, false);
        let options: Vec<Vec<u32>> = question.options.iter().map(encode).collect();
        let nats = likelihoods(parent, mask, &prompt, &options).map_err(EvaluateError::Memory)?;
        let best = nats.iter().enumerate().filter(|(_, nats)| nats.is_finite());
        let best = best.min_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at);
        outcomes.right.push(best == Some(question.answer));
        outcomes.looped.push(false);
        outcomes.recovered.push(false);
        outcomes.unread.push(best.is_none());
        step(1);
    }
    Ok(outcomes)
}

/// Nats a token of each option after the prompt, which is read once; infinite for an option without a token.
fn likelihoods(
    parent: &Parent,
    mask: Option<&ExpertMask>,
    prompt: &[u32],
    options: &[Vec<u32>],
) -> io::Result<Vec<f64>> {
    let Some((last, before)) = prompt.split_last() else {
        return Ok(vec![f64::INFINITY; options.len()]);
    };
    let layout = parent.model.layout(Precision::F32);
    let longest = options.iter().map(Vec::len).max().unwrap_or(0);
    let vocab = parent.model.shape().vocab;
    let at_once = (LOGITS / (longest.max(1) * vocab)).clamp(1, options.len().max(1));
    // Those of the prompt are shared where layers allow it; room is there also where they do not.
    let bytes = layout.bytes_at_once(prompt.len() + longest) * (1 + at_once as u64);
    let store = KvStore::of(&parent.bank, &layout, bytes)?;
    let full = || io::Error::from(io::ErrorKind::OutOfMemory);
    let mut pages = store.reserve(before.len().max(1)).ok_or_else(full)?;
    for chunk in before.chunks(256) {
        forward(&parent.model, &parent.bank, &mut [segment(mask, chunk, &mut pages, Want::None)]);
    }
    let mut nats = Vec::with_capacity(options.len());
    for group in options.chunks(at_once) {
        // The prompt's last token predicts the option's first, and the option's last nothing.
        let feed = |option: &Vec<u32>| -> Vec<u32> {
            std::iter::once(*last).chain(option.iter().copied()).take(option.len().max(1)).collect()
        };
        let feeds: Vec<Vec<u32>> = group.iter().map(feed).collect();
        let fork = |feed: &Vec<u32>| {
            let mut own = pages.fork(before.len()).ok_or_else(full)?;
            own.grow(before.len() + feed.len()).then_some(own).ok_or_else(full)
        };
        let mut forks = feeds.iter().map(fork).collect::<io::Result<Vec<_>>>()?;
        let mut segments: Vec<Segment> = feeds
            .iter()
            .zip(&mut forks)
            .map(|(feed, pages)| segment(mask, feed, pages, Want::All))
            .collect();
        let outputs = forward(&parent.model, &parent.bank, &mut segments);
        for (option, output) in group.iter().zip(outputs) {
            let rows = output.logits.chunks_exact(vocab).zip(option);
            let sum: f64 =
                rows.map(|(row, id)| log_sum(row) - f64::from(row[*id as usize % vocab])).sum();
            nats.push(if option.is_empty() { f64::INFINITY } else { sum / option.len() as f64 });
        }
    }
    Ok(nats)
}

fn segment<'a>(
    mask: Option<&'a ExpertMask>,
    tokens: &'a [u32],
    pages: &'a mut Pages,
    want: Want,
) -> Segment<'a> {
    let prompt = want == Want::None;
    Segment { tokens, pages, mask, missing: Missing::Map, taps: None, prompt, want }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
