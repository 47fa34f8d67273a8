//! What two specialists have in common.

use serde::Serialize;

use super::Item;

/// Two specialists.  All figures are symmetric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub first: String,
    pub second: String,
    /// Shared experts over the union's, all layers at once.
    pub jaccard: f64,
    /// Twice the shared over the sum of both sizes; 2J / (1 + J).
    pub f: f64,
    /// The same after the experts common to all items are taken out of both; needs three items or more, and
    /// experts that are not common.
    pub f_distinct: Option<f64>,
    /// Cosine of the two rows of utility, in the mean over layers, a layer weighing as many experts as the
    /// two keep in it in the mean; needs the profiles of both.
    pub cosine: Option<f64>,
    /// How much that differs between layers: its standard deviation by the same weights, over the mean.
    pub heterogeneity: Option<f64>,
}

impl Pair {
    /// `common` are the experts of all items, if there are enough of those to tell.
    pub fn new(a: &Item, b: &Item, common: Option<&[Vec<u32>]>) -> Pair {
        let counts = Counts::of(&a.kept, &b.kept);
        let f_distinct = common.map(|common| {
            let common: usize = common.iter().map(Vec::len).sum();
            counts.less(common).f()
        });
        let cosine = match (&a.utility, &b.utility) {
            (Some(one), Some(other)) => aggregate(one, other, &budgets(&a.kept, &b.kept)),
            _ => None,
        };
        Pair {
            first: a.name.clone(),
            second: b.name.clone(),
            jaccard: counts.jaccard().unwrap_or(0.0),
            f: counts.f().unwrap_or(0.0),
            f_distinct: f_distinct.flatten(),
            cosine: cosine.map(|(mean, _)| mean),
            heterogeneity: cosine.and_then(|(mean, spread)| (mean > 0.0).then(|| spread / mean)),
        }
    }
}

/// Sizes of two sets of experts and of what they share, over all layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counts {
    first: usize,
    second: usize,
    shared: usize,
}

impl Counts {
    pub fn of(a: &[Vec<u32>], b: &[Vec<u32>]) -> Counts {
        let size = |layers: &[Vec<u32>]| layers.iter().map(Vec::len).sum();
        let shared = a.iter().zip(b).map(|(a, b)| shared(a, b).count()).sum();
        Counts { first: size(a), second: size(b), shared }
    }

    /// Without so many that both have.
    pub fn less(self, common: usize) -> Counts {
        let Counts { first, second, shared } = self;
        Counts { first: first - common, second: second - common, shared: shared - common }
    }

    pub fn jaccard(self) -> Option<f64> {
        let union = self.first + self.second - self.shared;
        (union > 0).then(|| self.shared as f64 / union as f64)
    }

    pub fn f(self) -> Option<f64> {
        let both = self.first + self.second;
        (both > 0).then(|| 2.0 * self.shared as f64 / both as f64)
    }
}

/// What two sorted lists share, in order.
fn shared<'a>(a: &'a [u32], b: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    a.iter().copied().filter(|id| b.binary_search(id).is_ok())
}

/// The experts of each layer that all masks have.
pub(crate) fn common<'a>(mut kept: impl Iterator<Item = &'a [Vec<u32>]>) -> Vec<Vec<u32>> {
    let Some(first) = kept.next() else { return Vec::new() };
    kept.fold(first.to_vec(), |common, other| {
        common.iter().zip(other).map(|(a, b)| shared(a, b).collect()).collect()
    })
}

/// What each layer weighs: the mean of the two counts.
pub(crate) fn budgets(a: &[Vec<u32>], b: &[Vec<u32>]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| (a.len() + b.len()) as f64 / 2.0).collect()
}

/// Mean and standard deviation over layers of the cosine of two rows, by weight.  A layer that one of
/// them never uses has no angle and is left out; none if all are.
pub fn aggregate(a: &[Vec<f64>], b: &[Vec<f64>], weights: &[f64]) -> Option<(f64, f64)> {
    let layers = a.iter().zip(b).zip(weights);
    let cosines: Vec<(f64, f64)> =
        layers.filter_map(|((a, b), weight)| Some((cosine(a, b)?, *weight))).collect();
    let all: f64 = cosines.iter().map(|(_, weight)| weight).sum();
    if all <= 0.0 {
        return None;
    }
    let over = |of: &dyn Fn(f64) -> f64| cosines.iter().map(|(c, w)| of(*c) * w).sum::<f64>() / all;
    let mean = over(&|cosine| cosine);
    Some((mean, over(&|cosine| (cosine - mean).powi(2)).sqrt()))
}

/// Of two rows of one length; none if one is all zeros.
fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    // By the largest first: squares of large numbers leave the range.
    let scaled = |row: &[f64]| -> Option<Vec<f64>> {
        let most = row.iter().copied().fold(0.0, f64::max);
        (most > 0.0).then(|| row.iter().map(|value| value / most).collect())
    };
    let (a, b) = (scaled(a)?, scaled(b)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Some(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt())
}
