//! The second stage as the supervisor sees it: text in, a score for each label.

use crate::stages::Mix;

/// Reads meaning where the lexical stage reads words; slower, so it is asked
/// only where that one is unsure ([`Mix::below`]).
pub trait Encoder: Send + Sync {
    /// Logits per trained label, in the order of the lexical weights'
    /// `header().labels`; never fails: a text it cannot read is all zeros.
    fn logits(&self, text: &str) -> Vec<f32>;

    /// What its logits count beside the lexical ones.
    fn mix(&self) -> Mix {
        Mix::default()
    }
}

impl std::fmt::Debug for dyn Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}
