//! One step: tokens of several sequences in, logits out.
//!
//! A batch is a list of [`Segment`]s, each some consecutive tokens of one sequence with its own memory, mask and taps.
//! Prefill, decode and any mix of the two are the same code, and a row's numbers do not depend on what else is in the
//! batch.  What the layers do is the architecture's (`arch`), put together from `parts`, and a [`Device`] computes it;
//! they see the batch as a `Step`.
//!
//! [`Device`]: crate::device::Device

use std::ops::Range;

use crate::bank::Bank;
use crate::model::Model;
use crate::rope::Rope;
use crate::step::{Guess, Output, Segment, Step, Want};

/// Runs a batch and stores what the sequences need to go on.
///
/// # Panics
///
/// When a segment's pages have no room for its tokens: the caller reserves it.
pub fn forward(model: &Model, bank: &Bank, segments: &mut [Segment<'_>]) -> Vec<Output> {
    let shape = model.shape();
    let mut places = Vec::new();
    for (s, segment) in segments.iter().enumerate() {
        let (len, tokens) = (segment.pages.len(), segment.tokens.len());
        assert!(len + tokens <= segment.pages.capacity(), "no room was reserved");
        places.extend((len..len + tokens).map(|position| (s, position)));
    }
    let rows = places.len();
    let tokens: Vec<u32> = segments.iter().flat_map(|s| s.tokens).copied().collect();
    let turn = |rope: &Rope| places.iter().map(|&(_, p)| rope.at(p)).collect();
    let rotations = model.ropes.iter().map(turn).collect();
    let misses = bank.misses();
    bank.begin();
    let missing = vec![0f32; rows];
    let guesses = (0..rows).map(|_| Guess::default()).collect();
    let mut step = Step { experts: bank, segments, places, rotations, missing, guesses };
    let wanted = wanted(step.segments);
    let all: Vec<usize> = wanted.iter().cloned().flatten().collect();
    let mut logits = bank.device().run(model, &mut step, &tokens, &all);
    let Step { missing, segments, guesses, .. } = step;
    if bank.misses() != misses {
        bank.settle();
    }

    let routed = shape.routed.iter().filter(|r| **r).count().max(1) as f32;
    let missing: Vec<f32> = missing.into_iter().map(|m| m / routed).collect();
    let mut outputs = Vec::with_capacity(segments.len());
    let mut guesses = guesses.into_iter();
    let mut row = 0;
    for (segment, wanted) in segments.iter_mut().zip(wanted) {
        let (n, sure) = (segment.tokens.len(), segment.sure());
        outputs.push(Output {
            logits: first(&mut logits, wanted.len() * shape.vocab),
            missing_mass: missing[row..row + n].to_vec(),
            guesses: guesses.by_ref().take(n).skip(sure).collect(),
        });
        if let Some(taps) = &mut segment.taps {
            taps.tokens += sure as u64;
            taps.prompt_tokens += if segment.prompt { sure as u64 } else { 0 };
        }
        // What a guess stored is written over by what comes instead.
        segment.pages.advance(sure);
        row += n;
    }
    outputs
}

/// The rows of each segment whose logits are wanted.
fn wanted(segments: &[Segment<'_>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let wanted = segments.iter().map(|segment| {
        let first = end;
        end += segment.tokens.len();
        match segment.want {
            Want::None => end..end,
            Want::Last => end - 1..end,
            Want::All | Want::Guesses(_) => first..end,
        }
    });
    wanted.collect()
}

/// Takes the first `n` numbers away.
fn first(numbers: &mut Vec<f32>, n: usize) -> Vec<f32> {
    let rest = numbers.split_off(n);
    std::mem::replace(numbers, rest)
}
