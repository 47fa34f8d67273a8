//! A block's feed-forward layer, dense or routed.

use super::dense::Dense;
use super::routed::{Expert, Routed};
use crate::run::{Rows, Run};

pub(crate) enum Feed {
    Dense(Dense),
    Routed(Routed),
}

impl Feed {
    /// What the layer adds to the residual, of normed rows.
    pub fn run(&self, run: &mut dyn Run, layer: usize, normed: Rows) -> Rows {
        let out = match self {
            Feed::Dense(dense) => run.dense(dense, &normed),
            Feed::Routed(routed) => run.routed(routed, layer, &normed, &normed),
        };
        run.give_back(normed);
        out
    }

    /// Numbers for one row.
    pub fn row_floats(&self) -> usize {
        match self {
            Feed::Dense(dense) => dense.row_floats(),
            Feed::Routed(routed) => routed.row_floats(),
        }
    }

    pub fn experts(&self) -> &[Expert] {
        match self {
            Feed::Dense(_) => &[],
            Feed::Routed(routed) => &routed.experts,
        }
    }
}
