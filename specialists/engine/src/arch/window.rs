//! Layers that see a window of the last tokens, among layers that see everything.

use super::source::Heads;
use super::source::Source;
use crate::kv::Kept;
use crate::load::ModelError;

/// Which layers see a window, and how wide it is.
pub(crate) struct Windows {
    pub width: usize,
    /// [layers]
    pub sliding: Vec<bool>,
}

impl Windows {
    /// The window of a layer; `None` sees everything.
    pub fn of(&self, layer: usize) -> Option<usize> {
        self.sliding[layer].then_some(self.width)
    }

    /// What the layers keep.
    pub fn kept(&self, heads: &[Heads]) -> Vec<Kept> {
        let kept = |(layer, h): (usize, &Heads)| Kept::Keys {
            heads: h.kv_heads,
            head_dim: h.head_dim,
            window: self.of(layer),
        };
        heads.iter().enumerate().map(kept).collect()
    }
}

impl Source<'_> {
    /// The file's own pattern, or one layer in `every` that sees everything: the last of each such run.
    pub fn windows(&self, every: usize) -> Result<Windows, ModelError> {
        let wrong = |error| self.load.shape_error(error);
        let (layers, width) =
            (self.shape.layers, self.keys.any_count("attention.sliding_window").map_err(wrong)?);
        let pattern = "attention.sliding_window_pattern";
        let sliding = match self.keys.flags(pattern, layers).map_err(wrong)? {
            _ if width == 0 => vec![false; layers],
            Some(flags) => flags,
            None => {
                let every = self.keys.count_or(pattern, every).map_err(wrong)?;
                (0..layers).map(|layer| (layer + 1) % every != 0).collect()
            }
        };
        Ok(Windows { width, sliding })
    }
}
