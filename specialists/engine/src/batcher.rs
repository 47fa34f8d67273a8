//! The engine's one thread: takes requests, runs all sequences in one batch a step.
//!
//! In: [`Job`]s through a channel.  Out: events of each [`Sequence`].  A request is admitted when there are pages for its prompt, and goes on from what earlier ones have read already (`prefix`).
//! When pages run out later, what is kept of ended sequences goes first; then the sequence that came last steps back
//! and is read again when there is room: none fails, and the oldest never waits.  Dropping a generation cancels it at
//! the next step and gives its pages back.
//!
//! Each step decodes one token for every running sequence and reads at most `prefill_chunk` prompt tokens, in equal
//! shares ([`shares`]), so that a long prompt holds up neither the answers nor the short ones.  Where rows are to
//! spare, a step runs tokens that an answer is guessed to go on with (`lookup`), and the answer goes on by those that
//! came.  Several answers to one prompt go on from the same pages and the same first logits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tracing::error;

use crate::bank::Bank;
use crate::forward::forward;
use crate::gguf::GgufError;
use crate::kv::{KvStore, Precision};
use crate::lookup::{self, Looked};
use crate::model::Model;
use crate::prefix::Prefixes;
use crate::profile::Profile;
use crate::request::EngineError;
use crate::sequence::{Job, Other, Sequence};

/// What the engine may use.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// For keys and values, bytes.
    pub kv_bytes: u64,
    /// How exactly they are kept.
    pub kv_precision: Precision,
    /// Sequences that run at once.
    pub max_rows: usize,
    /// Prompt tokens a step.
    pub prefill_chunk: usize,
    /// Guess what comes next from what was said before; answers are the same tokens, in fewer steps.
    pub lookup: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            kv_bytes: 64 << 20,
            kv_precision: Precision::default(),
            max_rows: 16,
            prefill_chunk: 256,
            lookup: true,
        }
    }
}

impl EngineOptions {
    /// Bytes that a step's intermediate results take at most, the experts of one layer that are computed from the map
    /// without being resident, and profiles: of each row, and of as many answers that have just ended.
    pub fn workspace_bytes(&self, model: &Model) -> u64 {
        let s = model.shape();
        let rows = self.prefill_chunk + self.max_rows;
        let layer = model.layers.iter().map(|l| l.row_floats()).max().unwrap_or(0);
        let floats = rows * (6 * s.dim + layer + s.context) + self.max_rows * s.vocab;
        let layer = (0..s.layers).map(|l| model.expert_bytes(l..l + 1)).max().unwrap_or(0);
        (floats * size_of::<f32>()) as u64 + layer + 2 * self.max_rows as u64 * Profile::bytes(s)
    }
}

pub(crate) struct Batcher {
    /// A profile without counts, for a new sequence.
    empty: Arc<Profile>,
    model: Arc<Model>,
    bank: Arc<Bank>,
    kv: Arc<KvStore>,
    options: EngineOptions,
    prefixes: Prefixes,
    looked: Arc<Looked>,
    /// What a guess costs, in steps of one row; `None` if nothing is guessed.
    guess_cost: Option<f32>,
    /// Those that stepped back come before those that never ran.
    waiting: VecDeque<Sequence>,
    /// In the order in which they came.
    running: Vec<Sequence>,
}

/// Tokens that each of several sequences reads in a step, given how many each has left: equal shares of `budget`, and
/// what short ones leave goes to the others, the first of them first.
fn shares(left: &[usize], budget: usize) -> Vec<usize> {
    let mut given = vec![0; left.len()];
    let mut budget = budget;
    loop {
        let open: Vec<usize> = (0..left.len()).filter(|&i| given[i] < left[i]).collect();
        if open.is_empty() || budget == 0 {
            return given;
        }
        let share = (budget / open.len()).max(1);
        for i in open {
            let more = share.min(left[i] - given[i]).min(budget);
            given[i] += more;
            budget -= more;
        }
    }
}

impl Batcher {
    pub fn new(
        model: Arc<Model>,
        bank: Arc<Bank>,
        kv: Arc<KvStore>,
        options: EngineOptions,
        looked: Arc<Looked>,
    ) -> Batcher {
        let s = model.shape();
        let chosen = s.top_k as f32 / s.experts.max(1) as f32;
        let cost = lookup::cost(model.backbone_bytes(), model.expert_bytes(0..s.layers), chosen);
        Batcher {
            // A state does not go back to before a guess that was wrong.
            guess_cost: (options.lookup && !kv.layout().has_state()).then_some(cost),
            looked,
            empty: Arc::new(Profile::new(model.shape(), "", "")),
            model,
            bank,
            kv,
            options,
            prefixes: Prefixes::default(),
            waiting: VecDeque::new(),
            running: Vec::new(),
        }
    }

    /// Serves until all senders of jobs are gone.
    pub fn run(mut self, jobs: Receiver<Job>) {
        loop {
            // Nothing to do: sleep until a request comes, or everyone is gone.
            if self.running.is_empty() && self.waiting.is_empty() {
                match jobs.recv() {
                    Ok(job) => self.take_on(job),
                    Err(_) => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                self.take_on(job);
            }
            self.let_go();
            self.admit();
            self.step();
        }
    }

    fn take_on(&mut self, mut job: Job) {
        let tokens = std::mem::take(&mut job.request.prompt);
        let mut sequence = Sequence::new(job.request, job.events, tokens, self.empty.clone());
        sequence.others = job.others;
        self.waiting.push_back(sequence);
    }

    /// Begins the other answers to the request of a running sequence that has just read its prompt, from the same
    /// pages and logits.  Those for which there is no room wait, and read the prompt for themselves.
    fn begin_others(&mut self, i: usize, logits: &[f32]) {
        let others = std::mem::take(&mut self.running[i].others);
        let mut late = Vec::new();
        for Other { seed, events } in others {
            let first = &self.running[i];
            let mut request = first.request.clone();
            request.sampling.seed = seed;
            let prompt = first.prompt;
            let tokens = first.tokens[..prompt].to_vec();
            let mut s = Sequence::new(request, events, tokens, self.empty.clone());
            let room = self.running.len() < self.options.max_rows;
            let pages = first.pages.as_ref().filter(|_| room).and_then(|p| p.fork(prompt));
            // The prompt was counted once, for the first.
            s.counted = prompt;
            if pages.is_none() {
                late.push(s);
                continue;
            }
            (s.pages, s.cached) = (pages, prompt);
            s.choose(&mut logits.to_vec(), &self.model);
            self.running.push(s);
        }
        late.into_iter().rev().for_each(|s| self.waiting.push_front(s));
    }

    /// Ends what is finished or was cancelled; what it stored is kept for others.
    fn let_go(&mut self) {
        self.waiting.retain(|s| !s.abandoned());
        for mut s in self.running.extract_if(.., |s| s.finished || s.abandoned()) {
            if let Some(pages) = s.pages.take() {
                let exact = s.request.missing.exact();
                self.prefixes.keep(s.request.mask.clone(), exact, &s.tokens, pages);
            }
        }
    }

    /// First come, first served; a large request is not passed over by small ones.
    fn admit(&mut self) {
        while self.running.len() < self.options.max_rows {
            let Some(next) = self.waiting.front() else { return };
            let found =
                self.prefixes.find(&next.request.mask, next.request.missing.exact(), &next.tokens);
            let Some(pages) = found.or_else(|| self.kv.reserve(0)) else {
                // There is not even a state to be had.
                if self.prefixes.give_back() { continue } else { return }
            };
            let layout = self.kv.layout();
            // The prompt and one token of answer; what is shared is there already.
            let need = layout.bytes_for(next.tokens.len() + 1) - layout.bytes_for(pages.len());
            let alone = self.running.is_empty();
            while !alone && self.kv.bytes_in_use() + need > self.kv.bytes() {
                if !self.prefixes.give_back() {
                    return;
                }
            }
            let Some(mut s) = self.waiting.pop_front() else { return };
            if s.counted == 0 {
                s.cached = pages.len();
            }
            s.counted = s.counted.max(pages.len());
            s.pages = Some(pages);
            self.running.push(s);
        }
    }

    /// Room for `tokens` tokens of a running sequence, if need be from those that came later.  `false` if it was the
    /// last itself and stepped back.
    fn make_room(&mut self, i: usize, tokens: usize) -> bool {
        loop {
            let Some(pages) = &mut self.running[i].pages else { return false };
            if pages.grow(tokens) {
                return true;
            }
            if self.prefixes.give_back() {
                continue;
            }
            // The last one always steps back, unless it is alone; then nobody would ever make room.
            if self.running.len() == 1 {
                return false;
            }
            let last = self.running.len() - 1;
            if let Some(mut s) = self.running.pop() {
                s.pages = None;
                self.waiting.push_front(s);
            }
            if last == i {
                return false;
            }
        }
    }

    /// Tokens that each running sequence goes on by.
    fn plan(&self) -> Vec<usize> {
        let left: Vec<usize> = self.running.iter().map(Sequence::left).collect();
        // One token to decode is not a prompt to be read.
        let prompts: Vec<usize> = left.iter().map(|&n| if n > 1 { n } else { 0 }).collect();
        let given = shares(&prompts, self.options.prefill_chunk);
        left.iter().zip(given).map(|(&left, given)| if left > 1 { given } else { left }).collect()
    }

    /// Guesses what answers go on with, now that all have room for what they read up to `ends`.
    fn guess(&mut self, ends: &[usize]) {
        let Some(cost) = self.guess_cost else { return };
        let running = self.running.len();
        // While a prompt is read the step is as long as its rows are many.
        let reading = self.running.iter().zip(ends).any(|(s, end)| *end > s.read() + 1);
        let mut room = if reading { 0 } else { self.options.max_rows.saturating_sub(running) };
        for s in &mut self.running {
            room -= s.guess(cost, running, room);
        }
    }

    fn step(&mut self) {
        let plan = self.plan();
        let mut ends = Vec::new();
        for (i, n) in plan.into_iter().enumerate() {
            // Those that stepped back for an earlier one are gone.
            let Some(s) = self.running.get(i) else { break };
            let read = s.read();
            let mut end = s.cut(read, read + n);
            while !self.make_room(i, end) {
                let alone = self.running.len() == 1 && i == 0;
                if !alone {
                    break;
                }
                if end <= read + 1 {
                    self.running[0].fail(EngineError::NoRoom { tokens: end });
                    break;
                }
                end = read + (end - read) / 2;
            }
            ends.push(end);
        }
        self.guess(&ends);
        let mut segments = Vec::new();
        let mut which = Vec::new();
        for (i, (s, end)) in self.running.iter_mut().zip(ends).enumerate() {
            let read = s.read();
            if end == read || s.finished {
                continue;
            }
            let Some(segment) = s.segment(end) else { continue };
            segments.push(segment);
            which.push(i);
        }
        if segments.is_empty() {
            return;
        }
        let outputs = forward(&self.model, &self.bank, &mut segments);
        drop(segments);
        // Asked after the weights were read and before anything leaves: what was computed from a file that changes is
        // nobody's answer.
        if let Err(error @ GgufError::Changed { .. }) = self.model.gguf().intact() {
            error!(%error, "all answers under way end here");
            let why = EngineError::Changed { what: error.to_string() };
            self.running.iter_mut().chain(&mut self.waiting).for_each(|s| s.fail(why.clone()));
            self.waiting.clear();
            return;
        }
        for (i, output) in which.into_iter().zip(outputs) {
            let waited_for = !self.running[i].others.is_empty() && !output.logits.is_empty();
            let logits = waited_for.then(|| output.logits.clone());
            self.running[i].went_on(output, &self.model, &self.looked);
            if let Some(logits) = logits {
                self.begin_others(i, &logits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_read_in_equal_shares() {
        #[track_caller]
        fn check(left: &[usize], budget: usize, want: &[usize]) {
            assert_eq!(shares(left, budget), want);
        }
        check(&[], 10, &[]);
        check(&[1000], 256, &[256]);
        check(&[1000, 1000], 256, &[128, 128]);
        // What a short one leaves goes to the others.
        check(&[1000, 6, 1000], 256, &[125, 6, 125]);
        check(&[10, 20], 256, &[10, 20]);
        // More prompts than tokens: the first ones go on.
        check(&[5, 5, 5], 2, &[1, 1, 0]);
        check(&[0, 5, 0], 4, &[0, 4, 0]);
    }
}
