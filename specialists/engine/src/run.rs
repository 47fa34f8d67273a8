//! What layers are made of: operations on rows, wherever they are computed.
//!
//! An architecture says which parts follow each other; a [`Run`] is one step of a batch on its way through them, on the
//! processor ([`host`](crate::host)) or a device.  Layers hold no numbers of a step: they hand [`Rows`] on.
//!
//! The promise of every operation: the numbers of a row depend on that row, its mask, and what its sequence stored.

use crate::parts::{Attention, DeltaNet, Dense, Norm, Routed, Shared};

/// Rows of numbers, one for each token of the step; where they are is the run's affair.  Whoever is given them may use
/// their room again.
#[must_use = "rows take room until they are handed on"]
pub(crate) struct Rows(pub(crate) usize);

/// One step of a batch.
pub(crate) trait Run {
    /// Normed rows beside the old ones.
    fn norm(&mut self, norm: &Norm, x: &Rows) -> Rows;

    /// `to += from`
    fn add(&mut self, to: &Rows, from: Rows);

    /// `x *= by`
    fn scale(&mut self, x: &Rows, by: f32);

    /// What attention adds to the residual, of normed rows.
    fn attention(&mut self, attention: &Attention, normed: Rows) -> Rows;

    /// What layer `layer`'s delta net adds to the residual, of normed rows.
    fn delta(&mut self, delta: &DeltaNet, layer: usize, normed: Rows) -> Rows;

    /// What a feed-forward layer adds to the residual, of normed rows.
    fn dense(&mut self, dense: &Dense, normed: &Rows) -> Rows;

    /// What the routed experts of a layer add to the residual: the router reads rows of its own.
    fn routed(&mut self, routed: &Routed, layer: usize, router: &Rows, normed: &Rows) -> Rows;

    /// What the expert that every token takes adds to the residual, of normed rows.
    fn shared(&mut self, shared: &Shared, normed: &Rows) -> Rows;

    /// They are needed no more.
    fn give_back(&mut self, rows: Rows);

    /// Normed rows in place of the old ones.
    fn normed(&mut self, norm: &Norm, x: Rows) -> Rows {
        let normed = self.norm(norm, &x);
        self.give_back(x);
        normed
    }

    /// `to += norm(from)`
    fn add_normed(&mut self, to: &Rows, norm: &Norm, from: Rows) {
        let from = self.normed(norm, from);
        self.add(to, from);
    }
}
