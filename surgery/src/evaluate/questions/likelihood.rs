//! Chooses the option whose text is the likeliest answer.

use std::io;

use engine::kv::{KvStore, Pages};
use engine::{ExpertMask, Missing, Precision, Segment, Want, forward};

use super::super::EvaluateError;
use super::super::text::log_sum;
use super::{Outcomes, Set, prompt};
use crate::Parent;
use crate::corpus::asked;

/// Logits held at once by likelihood, numbers: 64 MiB.
const LOGITS: usize = 16 << 20;

/// What became of each question.
pub fn choose(
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
pub(super) fn likelihoods(
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
