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
//! * `answer`, `likelihood`: the two ways.
//!
//! [`answers`]: super::answers

mod answer;
mod likelihood;
#[cfg(test)]
mod tests;

use config::{Domains, Sampling, Think};
use engine::{ExpertMask, TemplateMessage, Thinking, hash};
use serde::{Deserialize, Serialize};

use super::document::{By, Heading, Paired, QuestionCell, Questions};
use super::statistics::{self, Ratio};
use super::transfer::Worth;
use super::{EvaluateError, Study};
use crate::corpus::{Corpus, CorpusError, Part, Question, Selection};
use crate::{Parent, Progress};

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
        By::Answer => answer::ask(parent, mask, set, asking, step),
        By::Likelihood => likelihood::choose(parent, mask, set, step),
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
