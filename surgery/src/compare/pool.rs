//! What specialists take in memory together: an expert that several need is loaded once.

use serde::Serialize;

use super::Item;

/// Bytes that sets of experts take, by layer; see [`engine::Sizes`] for why they do not add up.
pub type Price<'a> = &'a dyn Fn(&[Vec<u32>]) -> u64;

/// Several specialists at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pool {
    /// Distinct experts, by layer.
    pub distinct: Vec<usize>,
    /// Their sum over the layers.
    pub experts: usize,
    /// What they take, where the parent is known.
    pub bytes: Option<u64>,
    /// Experts of all specialists, each counted as often as it is needed, over the distinct ones.
    pub dedup: f64,
    /// What each adds to those before it.
    pub marginal: Vec<Marginal>,
}

/// What one specialist adds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Marginal {
    pub name: String,
    /// Its experts.
    pub experts: usize,
    /// Those that no specialist before it has.
    pub added: usize,
    pub added_bytes: Option<u64>,
}

impl Pool {
    /// In the order given.
    pub fn new(items: &[Item], price: Option<Price>) -> Pool {
        let layers = items.first().map_or(0, |item| item.kept.len());
        let mut union: Vec<Vec<u32>> = vec![Vec::new(); layers];
        let mut marginal = Vec::new();
        let mut bytes = price.map(|_| 0);
        for item in items {
            let new: Vec<usize> = union.iter_mut().zip(&item.kept).map(add).collect();
            let all = price.map(|price| price(&union));
            let before = std::mem::replace(&mut bytes, all);
            marginal.push(Marginal {
                name: item.name.clone(),
                experts: item.kept.iter().map(Vec::len).sum(),
                added: new.iter().sum(),
                added_bytes: all.zip(before).map(|(all, before)| all.saturating_sub(before)),
            });
        }
        let distinct: Vec<usize> = union.iter().map(Vec::len).collect();
        let experts: usize = distinct.iter().sum();
        let slots: usize = marginal.iter().map(|m| m.experts).sum();
        let dedup = slots as f64 / experts.max(1) as f64;
        Pool { bytes, distinct, experts, dedup, marginal }
    }
}

/// Adds ids to a sorted set; how many were new.
fn add((union, ids): (&mut Vec<u32>, &Vec<u32>)) -> usize {
    let before = union.len();
    union.extend_from_slice(ids);
    union.sort_unstable();
    union.dedup();
    union.len() - before
}
