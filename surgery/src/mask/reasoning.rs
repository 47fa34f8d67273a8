//! Arbitrage with a profile of reasoning: its experts for the mask's weakest.
//!
//! The third pass of the College of Experts pipeline.  What its description
//! leaves open is fixed here: both utilities are the chosen score, each layer
//! normalised to a sum of one; the weakest member is the one of least utility,
//! of equals the one with the worst mean rank, then the higher id; the
//! candidates come by falling reasoning utility, of equals the lower id first.

use std::cmp::Ordering;

use super::state::{State, heaviest_first};
use super::stats::{Stats, unit};

/// Swaps of a layer at most, as in the pipeline.
pub const SWAPS: usize = 6;

/// Whose experts may come in, and how many of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Reasoning<'a> {
    pub stats: &'a Stats,
    pub swaps: usize,
}

/// A candidate comes in for the weakest member that reasoning needs less than
/// it, if reasoning uses the candidate more than the domain uses the member.
/// So neither the count nor the coverage of reasoning falls.  The whitelisted
/// stay, and so does what came in.
pub(super) fn pass(state: &mut State) {
    let State { stats, wishes, keep, pinned, .. } = state;
    let Some(Reasoning { stats: other, swaps }) = wishes.reasoning else { return };
    for layer in stats.routed() {
        let (own, theirs) = (unit(&stats.score[layer]), unit(&other.score[layer]));
        let rank = &stats.rank[layer];
        let weakest_first = |a: &usize, b: &usize| -> Ordering {
            let utility = own[*a].total_cmp(&own[*b]);
            utility.then(rank[*b].total_cmp(&rank[*a])).then(b.cmp(a))
        };
        let mut members: Vec<usize> =
            (0..own.len()).filter(|id| keep[layer][*id] && !pinned[layer][*id]).collect();
        members.sort_by(weakest_first);
        let wanted = heaviest_first(&theirs).into_iter().filter(|id| !keep[layer][*id]);
        let wanted: Vec<usize> = wanted.collect();
        let mut left = swaps;
        for id in wanted {
            if left == 0 {
                break;
            }
            let weaker = |out: &usize| theirs[id] > own[*out] && theirs[id] > theirs[*out];
            let Some(at) = members.iter().position(weaker) else { continue };
            keep[layer][members.remove(at)] = false;
            (keep[layer][id], pinned[layer][id]) = (true, true);
            left -= 1;
        }
    }
}
