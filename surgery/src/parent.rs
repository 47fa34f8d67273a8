//! A parent ready to read known tokens.

use std::io;
use std::sync::Arc;

use engine::{Bank, ExpertMask, Model, Profile, Session};

use crate::tokens::Window;

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

    /// Reads a window and adds what the router did to `taps`; nothing is
    /// predicted, so the output matrix is not touched.
    ///
    /// # Errors
    ///
    /// When the system has no memory for the keys and values.
    pub fn tap(&self, window: &Window, taps: &mut Profile) -> io::Result<()> {
        self.session(window)?.feed(&window.tokens, None, Some(taps), window.prompt);
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
        self.session(window)?.read(&window.tokens, mask, taps, window.prompt, each);
        Ok(())
    }

    fn session(&self, window: &Window) -> io::Result<Session> {
        Session::new(&self.model, &self.bank, window.tokens.len())
    }
}
