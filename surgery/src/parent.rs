//! A parent ready to read known tokens.

use std::io;
use std::sync::Arc;

use engine::kv::{KvStore, PAGE, bytes_per_token};
use engine::{Bank, ExpertMask, Model, Profile, Segment, Session, Want, forward};

use crate::tokens::Window;

/// Tokens in one pass: enough that each expert is read once for many of them.
const CHUNK: usize = 256;

/// A model and the bank of its experts; clones share both.
///
/// Where the parent is also being served this is the server's own bank, so that
/// experts read here are in its account.
#[derive(Clone)]
pub struct Parent {
    pub model: Arc<Model>,
    pub bank: Arc<Bank>,
}

impl Parent {
    /// With a bank of its own, for work apart from any server.
    pub fn new(model: Arc<Model>) -> Parent {
        Parent { bank: Bank::new(model.clone()), model }
    }

    /// Reads windows and adds what the router did to `taps`; nothing is
    /// predicted, so the output matrix is not touched.
    ///
    /// # Errors
    ///
    /// When the system has no memory for the keys and values.
    pub fn tap(
        &self,
        window: &Window,
        mask: Option<&ExpertMask>,
        taps: &mut Profile,
    ) -> io::Result<()> {
        let room = window.tokens.len().next_multiple_of(PAGE);
        let bytes = bytes_per_token(self.model.shape()) * room as u64;
        let store = KvStore::new(self.model.shape(), bytes)?;
        let mut pages = store.reserve(room).ok_or(io::ErrorKind::OutOfMemory)?;
        let (asked, answer) = window.tokens.split_at(window.prompt.min(window.tokens.len()));
        for (part, prompt) in [(asked, true), (answer, false)] {
            for tokens in part.chunks(CHUNK) {
                let taps = Some(&mut *taps);
                let pages = &mut pages;
                let segment = Segment { tokens, pages, mask, taps, prompt, want: Want::None };
                forward(&self.model, &self.bank, &mut [segment]);
            }
        }
        Ok(())
    }

    /// Reads a window and hands the logits of each token to `each`, with its
    /// index; what the router did is added to `taps`.
    ///
    /// # Errors
    ///
    /// When the system has no memory for the keys and values.
    pub fn read(
        &self,
        window: &Window,
        mask: Option<&ExpertMask>,
        taps: Option<&mut Profile>,
        each: impl FnMut(usize, &[f32]),
    ) -> io::Result<()> {
        let mut session = Session::new(&self.model, &self.bank, window.tokens.len())?;
        session.read(&window.tokens, mask, taps, window.prompt, each);
        Ok(())
    }
}
