//! What the layers of a model keep of a sequence, and where: pages by class, and one state.

use config::Precision;

use crate::kernels::{PAGE, PageFormat};

/// What a layer keeps of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It reads what another layer stored.
    Nothing,
    /// Keys and values of each token, of so many heads; of the last `window` tokens only.
    Keys { heads: usize, head_dim: usize, window: Option<usize> },
    /// One state, whatever the length.
    State { floats: usize },
}

impl Kept {
    /// Keys and values of all tokens.
    pub fn keys(heads: usize, head_dim: usize) -> Kept {
        Kept::Keys { heads, head_dim, window: None }
    }
}

/// Layers whose tokens live equally long.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub window: Option<usize>,
    pub page_bytes: usize,
}

/// Where a layer's numbers lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Nowhere,
    /// In a page of `class`, so many bytes behind its start.
    Page {
        class: usize,
        offset: usize,
        format: PageFormat,
    },
    /// So many numbers behind the state's start.
    State {
        offset: usize,
        floats: usize,
    },
}

/// What all layers of a model keep.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) classes: Vec<Class>,
    state_floats: usize,
}

impl Layout {
    /// One entry a layer.  Where the numbers of a head do not come in whole blocks, [`Precision::F16`] stands in for
    /// [`Precision::Q8`].
    pub fn new(kept: Vec<Kept>, precision: Precision) -> Layout {
        let mut layout = Layout { places: Vec::new(), classes: Vec::new(), state_floats: 0 };
        for kept in kept {
            let place = match kept {
                Kept::Nothing => Place::Nowhere,
                Kept::State { floats } => {
                    layout.state_floats += floats;
                    Place::State { offset: layout.state_floats - floats, floats }
                }
                Kept::Keys { heads, head_dim, window } => {
                    let precision = match precision {
                        Precision::Q8 if !head_dim.is_multiple_of(32) => Precision::F16,
                        precision => precision,
                    };
                    let format = PageFormat { precision, dim: heads * head_dim };
                    let found = layout.classes.iter().position(|c| c.window == window);
                    let class = found.unwrap_or_else(|| {
                        layout.classes.push(Class { window, page_bytes: 0 });
                        layout.classes.len() - 1
                    });
                    let offset = layout.classes[class].page_bytes;
                    layout.classes[class].page_bytes += format.bytes();
                    Place::Page { class, offset, format }
                }
            };
            layout.places.push(place);
        }
        layout
    }

    /// Whether a sequence keeps a state, which cannot go back to fewer tokens.
    pub fn has_state(&self) -> bool {
        self.state_floats > 0
    }

    /// Bytes of a sequence's state.
    pub(super) fn state_bytes(&self) -> usize {
        self.state_floats * size_of::<f32>()
    }

    /// Bytes of a page of each class, and of a state at last, which may have none.
    pub fn unit_bytes(&self) -> Vec<usize> {
        self.classes.iter().map(|c| c.page_bytes).chain([self.state_bytes()]).collect()
    }

    /// Bytes that a sequence of so many tokens takes once it has been read; while a piece of it is read, its pages
    /// come on top in layers with a window.
    pub fn bytes_for(&self, tokens: usize) -> u64 {
        let pages = |class: &Class| {
            let all = tokens.div_ceil(PAGE);
            // A window that begins within a page touches one more.
            class.window.map_or(all, |w| all.min(w.div_ceil(PAGE) + 1))
        };
        let bytes: usize = self.classes.iter().map(|c| pages(c) * c.page_bytes).sum();
        (bytes + self.state_bytes()) as u64
    }

    /// Bytes that room for so many tokens takes when it is reserved at once.
    pub fn bytes_at_once(&self, tokens: usize) -> u64 {
        let page: usize = self.classes.iter().map(|c| c.page_bytes).sum();
        (tokens.div_ceil(PAGE) * page + self.state_bytes()) as u64
    }

    /// Tokens that one sequence may have within `bytes`.
    pub fn tokens_in(&self, bytes: u64) -> usize {
        // Pages, searched by halving, since bytes grow with tokens.
        let (mut least, mut most) = (0, (1 << 26) / PAGE);
        while least < most {
            let middle = (least + most).div_ceil(2);
            if self.bytes_for(middle * PAGE) <= bytes { least = middle } else { most = middle - 1 }
        }
        least * PAGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens that fit where 1,024 do in F32, and bytes of one page of 32 tokens.
    #[track_caller]
    fn check(kept: &[Kept], precision: Precision, tokens: usize, page: u64) {
        let layout = |precision| Layout::new(kept.to_vec(), precision);
        let bytes = layout(Precision::F32).bytes_for(1024);
        assert_eq!(layout(precision).tokens_in(bytes), tokens);
        assert_eq!(layout(precision).bytes_for(PAGE), page);
    }

    #[test]
    fn the_same_bytes_hold_more_tokens() {
        let two = &[Kept::keys(2, 64), Kept::keys(2, 64)];
        check(two, Precision::F32, 1024, 2 * 2 * 128 * 32 * 4);
        check(two, Precision::F16, 2048, 2 * 2 * 128 * 32 * 2);
        // 32 bytes and a scale of two.
        check(two, Precision::Q8, 1024 * 128 / 34 / 32 * 32, 2 * 2 * 128 * 34);
        // Heads that are not whole blocks are kept in F16, by themselves.
        let odd = &[Kept::keys(2, 48)];
        check(odd, Precision::Q8, 2048, 2 * 96 * 32 * 2);
        let mixed = &[Kept::keys(2, 48), Kept::keys(2, 64)];
        check(mixed, Precision::Q8, 2784, 2 * 96 * 32 * 2 + 2 * 128 * 34);
        // A state stays what it is.
        let state = &[Kept::keys(2, 64), Kept::State { floats: 1024 }];
        check(state, Precision::F16, 2048, 2 * 128 * 32 * 2 + 4096);
    }
}
