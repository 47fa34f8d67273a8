//! Experts that fire seldom but first: kept whatever their score.
//!
//! The second pass of the College of Experts pipeline, which found about one
//! expert a layer that the score alone would drop.  It is off unless asked for:
//! where the router picks one or two experts every mean rank is low, and the
//! rule says nothing.

use std::str::FromStr;

use super::error::{MaskError, Warning};
use super::state::{State, heaviest_first};

/// An expert is on it whose mean rank is below `rank` and whose count is above
/// `count`, both strictly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Whitelist {
    /// Of the ranks an expert was chosen at, 0 the best.
    pub rank: f64,
    /// Tokens that chose it.
    pub count: u64,
}

/// The pipeline's own, as `--whitelist` takes it.
pub const USUAL: &str = "2.0,10";

impl FromStr for Whitelist {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Whitelist, MaskError> {
        let bad = || MaskError::Whitelist { text: text.to_owned() };
        let (rank, count) = text.split_once(',').ok_or_else(bad)?;
        let rank: f64 = rank.trim().parse().map_err(|_| bad())?;
        let count = count.trim().parse().map_err(|_| bad())?;
        if rank.is_finite() && rank > 0.0 { Ok(Whitelist { rank, count }) } else { Err(bad()) }
    }
}

/// Swaps the whitelisted in, heaviest first, each for the kept expert of the
/// least score that is not whitelisted, of equals the higher id.  The count
/// stays; where more are whitelisted than kept, the heaviest are.
pub(super) fn pass(state: &mut State) {
    let State { stats, wishes, keep, pinned, warnings } = state;
    let Some(rule) = wishes.whitelist else { return };
    let (mut crowded, mut worst) = (0, (0, 0));
    for layer in stats.routed() {
        let (rank, count) = (&stats.rank[layer], &stats.count[layer]);
        let listed = |id: &usize| rank[*id] < rule.rank && count[*id] > rule.count as f64;
        let order = heaviest_first(&stats.score[layer]);
        let mut leaving: Vec<usize> =
            order.iter().copied().filter(|id| keep[layer][*id] && !listed(id)).collect();
        let mut left_out = 0;
        for &id in order.iter().filter(|id| listed(id)) {
            if !keep[layer][id] {
                let Some(out) = leaving.pop() else {
                    left_out += 1;
                    continue;
                };
                keep[layer][out] = false;
                keep[layer][id] = true;
            }
            pinned[layer][id] = true;
        }
        if left_out > 0 {
            crowded += 1;
            let listed = order.iter().filter(|id| listed(id)).count();
            if listed > worst.1 {
                worst = (layer, listed);
            }
        }
    }
    if crowded > 0 {
        let (layer, most) = worst;
        warnings.push(Warning::Whitelist { layers: crowded, layer, most });
    }
}
