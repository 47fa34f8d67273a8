//! Teacher-forced runs: known tokens in, logits at every position out.  For surgery, evaluation and tests.

use std::sync::Arc;

use config::Missing;

use crate::bank::Bank;
use crate::forward::forward;
use crate::kv::{KvStore, Pages, Precision};
use crate::mask::ExpertMask;
use crate::model::Model;
use crate::profile::Profile;
use crate::step::{Segment, Want};

/// Tokens in one pass, so that logits of a long text do not take memory all at once.
const CHUNK: usize = 256;

/// One sequence of its own, apart from any that is being served.
pub struct Session {
    model: Arc<Model>,
    bank: Arc<Bank>,
    pages: Pages,
    missing: Missing,
}

impl Session {
    /// Room for `tokens` tokens, with keys and values as they were computed.
    ///
    /// # Errors
    ///
    /// When the system has no memory for the keys and values.
    pub fn new(model: &Arc<Model>, bank: &Arc<Bank>, tokens: usize) -> std::io::Result<Session> {
        // Not as the server is told to keep them: what surgery measures and proves is the model.
        Session::keeping(Precision::F32, model, bank, tokens)
    }

    /// The same with keys and values kept less exactly, to see what that costs.
    ///
    /// # Errors
    ///
    /// As [`Session::new`].
    pub fn keeping(
        precision: Precision,
        model: &Arc<Model>,
        bank: &Arc<Bank>,
        tokens: usize,
    ) -> std::io::Result<Session> {
        let layout = model.layout(precision);
        let store = KvStore::of(bank, &layout, layout.bytes_at_once(tokens.max(1)))?;
        let pages = store.reserve(tokens.max(1)).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Session { model: model.clone(), bank: bank.clone(), pages, missing: Missing::Map })
    }

    /// The same with another policy; as it is made it leaves alone which experts are resident.
    pub fn with(self, missing: Missing) -> Session {
        Session { missing, ..self }
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.pages.capacity()
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        // The store is this session's own, so that the room is still there.
        let _ = self.pages.clear();
    }

    /// Reads more tokens and hands the logits of each, [vocab], to `each` with its index in `tokens`; the first
    /// `prompt` of them count as prompt.  Tokens beyond the capacity are not read.
    pub fn read(
        &mut self,
        tokens: &[u32],
        mask: Option<&ExpertMask>,
        taps: Option<&mut Profile>,
        prompt: usize,
        each: impl FnMut(usize, &[f32]),
    ) {
        self.run(tokens, mask, taps, prompt, Want::All, each);
    }

    /// The same without logits, which profiling does not need and a large vocabulary makes dear.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        mask: Option<&ExpertMask>,
        taps: Option<&mut Profile>,
        prompt: usize,
    ) {
        self.run(tokens, mask, taps, prompt, Want::None, |_, _| {});
    }

    fn run(
        &mut self,
        tokens: &[u32],
        mask: Option<&ExpertMask>,
        mut taps: Option<&mut Profile>,
        prompt: usize,
        want: Want,
        mut each: impl FnMut(usize, &[f32]),
    ) {
        let vocab = self.model.shape().vocab;
        let room = self.pages.capacity() - self.pages.len();
        let tokens = &tokens[..tokens.len().min(room)];
        let mut at = 0;
        while at < tokens.len() {
            // A chunk is all prompt or all answer.
            let end =
                if at < prompt { prompt.min(tokens.len()) } else { tokens.len() }.min(at + CHUNK);
            let segment = Segment {
                tokens: &tokens[at..end],
                pages: &mut self.pages,
                mask,
                missing: self.missing,
                taps: taps.as_deref_mut(),
                prompt: at < prompt,
                want,
            };
            let outputs = forward(&self.model, &self.bank, &mut [segment]);
            for (i, logits) in outputs[0].logits.chunks_exact(vocab).enumerate() {
                each(at + i, logits);
            }
            at = end;
        }
    }

    /// Logits of all tokens, [tokens, vocab].
    pub fn logits(&mut self, tokens: &[u32], mask: Option<&ExpertMask>) -> Vec<f32> {
        let mut all = Vec::new();
        self.read(tokens, mask, None, tokens.len(), |_, logits| all.extend(logits));
        all
    }
}
