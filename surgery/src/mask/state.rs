//! A mask on its way through the passes, and what they share: to count, to order, to grow.

use super::Wishes;
use super::error::Warning;
use super::stats::Stats;

/// A mask on its way.
pub(super) struct State<'a> {
    pub stats: &'a Stats,
    pub wishes: &'a Wishes<'a>,
    /// `[layers][experts]`.
    pub keep: Vec<Vec<bool>>,
    /// `[layers][experts]`, forced in: part of `keep`, and no later pass takes it out.
    pub pinned: Vec<Vec<bool>>,
    pub warnings: Vec<Warning>,
}

/// Adds the heaviest dropped experts of a layer until it keeps `goal`.
pub(super) fn grow(score: &[f64], keep: &mut [bool], goal: usize) {
    let missing = goal.saturating_sub(count(keep));
    if missing > 0 {
        let order = heaviest_first(score);
        let add: Vec<usize> = order.into_iter().filter(|id| !keep[*id]).take(missing).collect();
        add.into_iter().for_each(|id| keep[id] = true);
    }
}

pub(super) fn count(row: &[bool]) -> usize {
    row.iter().filter(|keep| **keep).count()
}

/// Ids by falling weight; equal weights stay in id order (the sort is stable).
pub(super) fn heaviest_first(row: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
    order
}
