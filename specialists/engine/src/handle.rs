//! The engine as others hold it: [`Engine`] takes requests and starts the batcher's thread, [`Generation`] is an answer
//! being made.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::bank::Bank;
use crate::batcher::{Batcher, EngineOptions};
use crate::kv::KvStore;
use crate::lookup::{Guesses, Looked};
use crate::mask::Masking;
use crate::model::Model;
use crate::request::{EngineError, Event, Request};
use crate::sequence::{Job, Other};

/// The handle of a running engine; cheap to clone.  The thread ends when all handles and generations are gone.
#[derive(Clone)]
pub struct Engine {
    requests: Sender<Job>,
    vocab: usize,
    most: usize,
    kv: Arc<KvStore>,
    looked: Arc<Looked>,
    /// The device, where masks after the softmax are another function that it does not compute.
    before_only: Option<String>,
    thread: Arc<JoinHandle<()>>,
}

/// An answer being made.
#[must_use = "dropping a generation cancels it"]
pub struct Generation {
    events: UnboundedReceiver<Event>,
}

impl Generation {
    /// The next event; `None` after the last one, or if the engine has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same for who waits for several.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_recv(context)
    }

    /// The same for callers without a runtime.
    pub fn next_blocking(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}

impl Engine {
    /// Starts the engine's thread.
    ///
    /// # Errors
    ///
    /// When the system has no memory for keys and values, or no thread.
    pub fn start(
        model: Arc<Model>,
        bank: Arc<Bank>,
        options: EngineOptions,
    ) -> std::io::Result<Engine> {
        let kv = KvStore::of(&bank, &model.layout(options.kv_precision), options.kv_bytes)?;
        let (requests, jobs) = channel();
        let (vocab, most) = (model.shape().vocab, model.shape().context.min(kv.capacity()));
        let looked = Arc::new(Looked::default());
        let device = bank.device();
        let before_only =
            (!model.arch().renormalises && !device.masks_after_softmax()).then(|| device.name());
        let batcher = Batcher::new(model, bank, kv.clone(), options, looked.clone());
        let thread = std::thread::Builder::new().name("engine".to_owned());
        let thread = Arc::new(thread.spawn(move || batcher.run(jobs))?);
        Ok(Engine { requests, vocab, most, kv, looked, before_only, thread })
    }

    /// Whether its thread runs; where it does not, a defect ended it, and nothing will be answered any more.
    pub fn alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Tokens that prompt and answer together may have.
    pub fn context(&self) -> usize {
        self.most
    }

    /// Bytes set aside for keys and values.
    pub fn kv_bytes(&self) -> u64 {
        self.kv.bytes()
    }

    /// Bytes of keys and values in use now.
    pub fn kv_bytes_in_use(&self) -> u64 {
        self.kv.bytes_in_use()
    }

    /// Tokens that answers were guessed to go on with, since the start.
    pub fn guesses(&self) -> Guesses {
        self.looked.get()
    }

    /// Queues an answer.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when the request can never run; nothing is queued then.
    pub fn generate(&self, request: Request) -> Result<Generation, EngineError> {
        let (job, generation) = self.job(request)?;
        self.requests.send(job).map_err(|_| EngineError::Gone)?;
        Ok(generation)
    }

    /// Queues answers to one request, which is read once: the request's own, and one more for each of `seeds`.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`].
    pub fn generate_all(
        &self,
        request: Request,
        seeds: &[Option<u64>],
    ) -> Result<Vec<Generation>, EngineError> {
        let (mut job, first) = self.job(request)?;
        let mut all = vec![first];
        for &seed in seeds {
            let (sender, events) = unbounded_channel();
            job.others.push(Other { seed, events: sender });
            all.push(Generation { events });
        }
        self.requests.send(job).map_err(|_| EngineError::Gone)?;
        Ok(all)
    }

    fn job(&self, mut request: Request) -> Result<(Job, Generation), EngineError> {
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(EngineError::Empty);
        }
        // One token of answer must fit.
        if prompt >= self.most {
            return Err(EngineError::TooLong { prompt, most: self.most });
        }
        if let Some(&id) = request.prompt.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(EngineError::Token { id, vocab: self.vocab });
        }
        let after =
            request.mask.as_ref().is_some_and(|mask| mask.masking() == Masking::AfterSoftmax);
        if let Some(device) = self.before_only.as_ref().filter(|_| after) {
            return Err(EngineError::Masking { device: device.clone() });
        }
        request.max_tokens = request.max_tokens.clamp(1, self.most - prompt);
        let (sender, events) = unbounded_channel();
        Ok((Job { request, events: sender, others: Vec::new() }, Generation { events }))
    }
}
