//! One answer on its way: a request, what was read and made of it, and who waits for it.
//!
//! In: what a step gave for it ([`Sequence::went_on`]).  Out: events, to whoever holds the generation.  When it runs,
//! and with what memory, is the batcher's.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::kv::Pages;
use crate::lookup::{Looked, Lookup, worth};
use crate::model::Model;
use crate::profile::Profile;
use crate::repeat::Circles;
use crate::request::{EngineError, Event, Finish, Reason, Request};
use crate::sampler::{Sampler, Scored, score};
use crate::step::{Guess, Output, Segment, Want};
use crate::stop::StopWatch;
use crate::tokenizer::Utf8Stream;

/// A request for the batcher.
pub(crate) struct Job {
    pub request: Request,
    pub events: UnboundedSender<Event>,
    pub others: Vec<Other>,
}

/// A further answer to the same request, until there are logits to begin it with.
pub(crate) struct Other {
    pub seed: Option<u64>,
    pub events: UnboundedSender<Event>,
}

/// A request that was taken on: waiting without pages, or running with them.
pub(crate) struct Sequence {
    /// Its prompt was taken out.
    pub request: Request,
    events: UnboundedSender<Event>,
    /// Answers that begin when it has its first logits.
    pub others: Vec<Other>,
    pub pages: Option<Pages>,
    sampler: Sampler,
    lookup: Lookup,
    circles: Circles,
    stop: StopWatch,
    utf8: Utf8Stream,
    scores: Scores,
    /// What the router did; there from its first step on, since a profile is large and many may wait.
    taps: Option<Profile>,
    /// A profile without counts.
    empty: Arc<Profile>,
    /// Prompt, then what was generated.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were there when it was first admitted.
    pub cached: usize,
    /// Tokens whose routing was counted, or will not be: read again they are not counted twice.
    pub counted: usize,
    missing_sum: f64,
    pub finished: bool,
}

/// Scores of tokens whose text has not gone out.
#[derive(Default)]
struct Scores {
    /// Each with the place in the answer, bytes, where the token's text begins.
    held: VecDeque<(usize, Scored)>,
    /// Bytes of text that were made.
    made: usize,
    /// Bytes of text that went out.
    sent: usize,
}

impl Scores {
    /// The next token, which completed `bytes` bytes of text.
    fn push(&mut self, scored: Option<Scored>, bytes: usize) {
        self.held.extend(scored.map(|scored| (self.made, scored)));
        self.made += bytes;
    }

    /// The scores of the next `bytes` bytes that go out.
    fn of(&mut self, bytes: usize) -> Vec<Scored> {
        self.sent += bytes;
        let begun = self.held.iter().take_while(|(start, _)| *start < self.sent).count();
        self.held.drain(..begun).map(|(_, scored)| scored).collect()
    }

    fn rest(&mut self) -> Vec<Scored> {
        self.held.drain(..).map(|(_, scored)| scored).collect()
    }
}

impl Sequence {
    /// One that has read nothing; `request` is without its prompt.
    pub fn new(
        request: Request,
        events: UnboundedSender<Event>,
        prompt: Vec<u32>,
        empty: Arc<Profile>,
    ) -> Sequence {
        Sequence {
            pages: None,
            sampler: Sampler::new(request.sampling.clone(), request.constraint.clone()),
            lookup: Lookup::default(),
            circles: Circles::default(),
            stop: StopWatch::new(request.stop.clone()),
            utf8: Utf8Stream::default(),
            scores: Scores::default(),
            taps: None,
            empty,
            request,
            events,
            others: Vec::new(),
            prompt: prompt.len(),
            tokens: prompt,
            cached: 0,
            counted: 0,
            missing_sum: 0.0,
            finished: false,
        }
    }

    /// Nobody waits for it, nor for what begins with it.
    pub fn abandoned(&self) -> bool {
        self.events.is_closed() && self.others.iter().all(|other| other.events.is_closed())
    }

    /// Tokens that are stored.
    pub fn read(&self) -> usize {
        self.pages.as_ref().map_or(0, Pages::len)
    }

    /// Tokens that are not.
    pub fn left(&self) -> usize {
        self.tokens.len() - self.read()
    }

    /// Where a piece from `read` to `end` at most must end: it is all prompt or all answer, all counted or all not.
    pub fn cut(&self, read: usize, end: usize) -> usize {
        let borders = [self.prompt, self.counted].into_iter().filter(|b| *b > read);
        borders.fold(end, usize::min)
    }

    /// Guesses what comes after the one token that is left of its answer, to be run with it in the next step: `room` at
    /// most, as many as pay among `running` sequences where a row more costs `cost` ([`worth`]).  How many they are.
    pub fn guess(&mut self, cost: f32, running: usize, room: usize) -> usize {
        self.lookup.clear();
        let made = self.tokens.len() - self.prompt;
        if self.left() != 1 || made == 0 || self.finished {
            return 0;
        }
        let Some(pages) = &mut self.pages else { return 0 };
        // The last token of an answer is not read, so that no guess is of use after the one before it.
        let room = room.min(self.request.max_tokens.saturating_sub(made + 1));
        let tokens = &self.tokens;
        self.lookup.look(tokens, |rate| {
            let n = worth(rate, cost, running, room);
            // A page that is free may be had: it is the next one that it needs.
            if pages.grow(tokens.len() + n) {
                n
            } else {
                n.min(pages.capacity().saturating_sub(tokens.len()))
            }
        });
        self.lookup.rows().map_or(0, |rows| rows.len() - 1)
    }

    /// The next `end - read` tokens as a step wants them, and what was guessed; `None` if there are no pages.
    pub fn segment(&mut self, end: usize) -> Option<Segment<'_>> {
        let read = self.read();
        let taps = match read >= self.counted {
            true => Some(self.taps.get_or_insert_with(|| Profile::clone(&self.empty))),
            false => None,
        };
        let whole = end == self.tokens.len();
        let (tokens, want) = match self.lookup.rows() {
            Some(rows) if whole => (rows, Want::Guesses(rows.len() - 1)),
            _ => (&self.tokens[read..end], if whole { Want::Last } else { Want::None }),
        };
        Some(Segment {
            tokens,
            pages: self.pages.as_mut()?,
            mask: self.request.mask.as_deref(),
            missing: self.request.missing,
            taps,
            prompt: read < self.prompt,
            want,
        })
    }

    /// Takes what a step gave; guesses are counted before the events that come of them.
    pub fn went_on(&mut self, mut output: Output, model: &Model, looked: &Looked) {
        looked.proposed(output.guesses.len());
        let read = self.read();
        let (missing, guessed) =
            output.missing_mass.split_at(output.missing_mass.len() - output.guesses.len());
        if read > self.counted {
            self.counted = read;
            self.missing_sum += missing.iter().map(|m| f64::from(*m)).sum::<f64>();
        }
        let mut rows = output.logits.chunks_exact_mut(model.shape().vocab);
        let Some(logits) = rows.next() else { return };
        let mut right = self.draw(logits, model);
        let guesses = output.guesses.iter().zip(guessed);
        for (logits, (guess, missing)) in rows.zip(guesses) {
            // Further rows are of another text than this.
            if !right || self.finished {
                return;
            }
            looked.accepted();
            self.came(guess, *missing);
            right = self.draw(logits, model);
        }
    }

    /// A guess was what came: it is a token that was read like any other.
    fn came(&mut self, guess: &Guess, missing: f32) {
        if let Some(pages) = &mut self.pages {
            pages.advance(1);
        }
        if let Some(taps) = &mut self.taps {
            guess.count(taps);
        }
        self.counted = self.read();
        self.missing_sum += f64::from(missing);
    }

    /// Chooses the next token if the logits are numbers.  Whether it was guessed.
    fn draw(&mut self, logits: &mut [f32], model: &Model) -> bool {
        if logits.iter().any(|v| !v.is_finite()) {
            self.fail(EngineError::NotFinite { tokens: self.read() });
            return false;
        }
        let id = self.choose(logits, model);
        self.lookup.came(id)
    }

    /// Chooses the next token; `logits` is [vocab].
    pub fn choose(&mut self, logits: &mut [f32], model: &Model) -> u32 {
        let plain = self.request.scores.map(|top| (top, logits.to_vec()));
        let id = self.sampler.next(logits, &self.tokens, self.prompt);
        let scored = plain.map(|(top, logits)| score(&logits, id, top));
        self.take(id, scored, model);
        id
    }

    pub fn fail(&mut self, error: EngineError) {
        for other in self.others.drain(..) {
            let _ = other.events.send(Event::Failed(error.clone()));
        }
        let _ = self.events.send(Event::Failed(error));
        // What it stored may be damaged; nobody goes on from it.
        self.pages = None;
        self.finished = true;
    }

    /// Takes a new token: text goes out, and the answer may end.
    fn take(&mut self, id: u32, scored: Option<Scored>, model: &Model) {
        self.tokens.push(id);
        let made = self.tokens.len() - self.prompt;
        if model.tokenizer().ends(id) && !self.request.ignore_eos {
            return self.finish(Reason::Stop, made, true);
        }
        let text = self.utf8.push(model.tokenizer().bytes(id));
        self.scores.push(scored, text.len());
        let seen = self.stop.push(&text);
        self.send(seen.text);
        let circle = self.circles.push(id).filter(|_| self.request.stop_circles);
        if seen.stopped {
            self.finish(Reason::Stop, made, false);
        } else if let Some(period) = circle {
            self.finish(Reason::Circle(period), made, true);
        } else if made >= self.request.max_tokens {
            self.finish(Reason::Length, made, true);
        }
    }

    /// Sends text with the scores of the tokens that begin in it.
    fn send(&mut self, text: String) {
        for scored in self.scores.of(text.len()) {
            let _ = self.events.send(Event::Scored(Box::new(scored)));
        }
        // A closed channel is noticed before the next step.
        let _ = self.events.send(Event::Text(text));
    }

    fn finish(&mut self, reason: Reason, completion_tokens: usize, flush: bool) {
        if flush {
            let left = self.utf8.finish();
            let seen = self.stop.push(&left);
            let rest = if seen.stopped { seen.text } else { seen.text + &self.stop.finish() };
            if !rest.is_empty() {
                self.send(rest);
            }
            // Tokens without any text, after the last one that has some.
            for scored in if seen.stopped { Vec::new() } else { self.scores.rest() } {
                let _ = self.events.send(Event::Scored(Box::new(scored)));
            }
        }
        let taps = self.taps.take().unwrap_or_else(|| Profile::clone(&self.empty));
        let read = taps.tokens.max(1);
        let _ = self.events.send(Event::Done(Box::new(Finish {
            reason,
            prompt_tokens: self.prompt,
            cached_tokens: self.cached,
            completion_tokens,
            missing_mass: (self.missing_sum / read as f64) as f32,
            taps,
        })));
        self.finished = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens complete so many bytes of text; pieces go out.  Which tokens go with each piece.
    #[track_caller]
    fn scores(tokens: &[usize], pieces: &[usize], want: &[&[u32]]) {
        let mut scores = Scores::default();
        for (id, &bytes) in (0..).zip(tokens) {
            scores.push(Some(Scored { id, logprob: 0.0, top: vec![] }), bytes);
        }
        let of = |bytes: &usize| scores.of(*bytes).iter().map(|s| s.id).collect::<Vec<u32>>();
        assert_eq!(pieces.iter().map(of).collect::<Vec<_>>(), want);
    }

    #[test]
    fn scores_go_with_the_text_that_goes_out() {
        scores(&[3, 4, 2], &[3, 4, 2], &[&[0], &[1], &[2]]);
        // A part of the second token is held back, then goes; or never does.
        scores(&[3, 4, 2], &[5, 4], &[&[0, 1], &[2]]);
        scores(&[3, 4, 2], &[3], &[&[0]]);
        scores(&[3, 4, 2], &[0, 2, 0], &[&[], &[0], &[]]);
        // Three tokens make one character.
        scores(&[1, 0, 0, 3, 1], &[1, 3], &[&[0], &[1, 2, 3]]);
    }
}
