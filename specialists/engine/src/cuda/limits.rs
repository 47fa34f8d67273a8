//! What kernels can do with a parent, seen before anything of it is on the device: a [`Run`] that computes nothing and
//! looks at every part it is given.

use crate::kernels::Matrix;
use crate::model::Model;
use crate::parts::{Attention, DeltaNet, Dense, Expert, Norm, Routed, Shared};
use crate::run::{Rows, Run};

/// Numbers of a head of attention.
const HEAD: usize = 512;
/// Experts of a layer, and of a row.
const EXPERTS: usize = 1024;
const CHOSEN: usize = 64;
/// Of a delta net: numbers of a head, which are whole warps, and taps.
const DELTA_HEAD: usize = 256;
const WARP: usize = 32;
const TAPS: usize = 8;
/// Matrices begin at multiples of it.
const ALIGN: usize = 16;

/// The first thing that is too much.
struct Look(Option<String>);

/// Whether kernels can run it.
///
/// # Errors
///
/// What they cannot, with its number and theirs.
pub(super) fn check(model: &Model) -> Result<(), String> {
    let mut look = Look(None);
    for layer in &model.layers {
        layer.forward(&mut look, &Rows(0));
    }
    look.0.map_or(Ok(()), Err)
}

impl Look {
    fn most(&mut self, what: &str, is: usize, most: usize) {
        if is > most {
            self.0.get_or_insert_with(|| format!("{what} are {is}, kernels take {most}"));
        }
    }

    fn aligned(&mut self, expert: &Expert, matrix: &Matrix) {
        let at = matrix.bytes().as_ptr() as usize;
        let within = expert.slices.iter().map(|s| s.bytes().as_ptr_range());
        let within = within.filter(|s| (s.start as usize..s.end as usize).contains(&at));
        for slice in within {
            let offset = at - slice.start as usize;
            if !offset.is_multiple_of(ALIGN) {
                let said = || {
                    format!(
                        "an expert's matrix begins at byte {offset} of its tensor, kernels want multiples of {ALIGN}"
                    )
                };
                self.0.get_or_insert_with(said);
            }
        }
    }
}

impl Run for Look {
    fn norm(&mut self, _: &Norm, _: &Rows) -> Rows {
        Rows(0)
    }

    fn add(&mut self, _: &Rows, _: Rows) {}

    fn scale(&mut self, _: &Rows, _: f32) {}

    fn attention(&mut self, part: &Attention, _: Rows) -> Rows {
        self.most("numbers of a head", part.head_dim, HEAD);
        Rows(0)
    }

    fn delta(&mut self, part: &DeltaNet, _: usize, _: Rows) -> Rows {
        self.most("numbers of a delta net's head", part.head_dim, DELTA_HEAD);
        self.most("numbers of a delta net's head beyond whole warps", part.head_dim % WARP, 0);
        self.most("taps of a convolution", part.taps, TAPS);
        Rows(0)
    }

    fn dense(&mut self, _: &Dense, _: &Rows) -> Rows {
        Rows(0)
    }

    fn routed(&mut self, part: &Routed, _: usize, _: &Rows, _: &Rows) -> Rows {
        self.most("experts of a layer", part.experts.len(), EXPERTS);
        self.most("experts of a token", part.top_k, CHOSEN);
        if let Some(expert) = part.experts.first() {
            for matrix in [&expert.gate, &expert.up, &expert.down] {
                self.aligned(expert, matrix);
            }
        }
        Rows(0)
    }

    fn shared(&mut self, _: &Shared, _: &Rows) -> Rows {
        Rows(0)
    }

    fn give_back(&mut self, _: Rows) {}
}
