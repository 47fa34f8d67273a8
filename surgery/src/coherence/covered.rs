//! What masks keep of items that they were not made from.

use serde::Serialize;

use super::alike::Items;
use super::mask;

/// Shares of the gate mass that masks keep of items: a layer's, mean over layers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coverage {
    pub mean: f64,
    /// Nine in ten items have more.
    pub least: f64,
}

impl Coverage {
    pub(super) fn of(items: &[f64]) -> Coverage {
        let mut sorted = items.to_vec();
        sorted.sort_by(f64::total_cmp);
        let least = sorted.get(sorted.len().saturating_sub(1) / 10).copied().unwrap_or(0.0);
        Coverage { mean: sorted.iter().sum::<f64>() / sorted.len().max(1) as f64, least }
    }
}

/// For each part and layer that was reached the experts of the largest gate mass, made from some of its items.
pub(super) fn masks_of(
    items: &Items,
    part_of: &[usize],
    keep: usize,
    from: impl Fn(usize) -> bool,
) -> Vec<Vec<Vec<usize>>> {
    let parts = part_of.iter().max().map_or(0, |most| most + 1);
    let of = |part: usize| {
        let sums = items.sums(|item| part_of[item] == part && from(item));
        let each = items.layers().iter();
        each.map(|l| mask(&sums[l * items.experts()..][..items.experts()], keep)).collect()
    };
    (0..parts).map(of).collect()
}

/// Of each item the share that the mask of its part keeps, made from every second item of the part and tried on the
/// others, and the other way round.
pub(super) fn halves(items: &Items, part_of: &[usize], keep: usize) -> Vec<f64> {
    // Its turn within its part: parts may lie in the corpus in any order.
    let mut turns = vec![0usize; part_of.iter().max().map_or(0, |most| most + 1)];
    let turn = |part: &usize| {
        turns[*part] += 1;
        turns[*part] % 2
    };
    let turn: Vec<usize> = part_of.iter().map(turn).collect();
    let masks = [0, 1].map(|half| masks_of(items, part_of, keep, |item| turn[item] == half));
    let kept = |item: usize| {
        let masks = &masks[1 - turn[item]][part_of[item]];
        let layers = items.layers().iter().zip(masks).filter_map(|(layer, mask)| {
            let mass = items.layer(item, *layer);
            let all: f64 = mass.iter().map(|v| f64::from(*v)).sum();
            let kept: f64 = mask.iter().map(|expert| f64::from(mass[*expert])).sum();
            (all > 0.0).then_some(kept / all)
        });
        crate::stability::mean(layers).unwrap_or(0.0)
    };
    (0..items.len()).map(kept).collect()
}
