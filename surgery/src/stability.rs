//! Whether a profile has seen enough: would a mask made from it be another one with other items, or with more.
//!
//! In: gate mass by layer and expert.  Out: numbers between 0 and 1.  Pure.
//!
//! * [`agreement`]: the mean over layers of the Jaccard index of two masks, one from every odd item and one from every
//!   even one, each of half of the experts by gate mass.  Masks drawn at random have 1/3.
//! * [`change`]: the share of a mask's experts that it did not have before.
//!
//! [`Settle`] says what is enough of both.  A mask from half of the items is less certain than one from all, so that
//! agreement is a lower bound of what is asked.

/// A mask is made of half of a layer's experts to see whether it is stable: the size of most specialists, and where the
/// border is hardest to find.
fn half_of(experts: usize) -> usize {
    (experts / 2).max(1)
}

/// Agreement below which a profile is warned of.
pub const LEAST_AGREEMENT: f64 = 0.95;

/// When a mask has settled, and no more needs to be read: both, after a doubling of the items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settle {
    /// Halves agree at least so well.
    pub agreement: f64,
    /// The last doubling changed less than this share of the mask.
    pub change: f64,
}

impl Default for Settle {
    fn default() -> Self {
        Settle { agreement: LEAST_AGREEMENT, change: 0.01 }
    }
}

/// Ids of the `count` largest of a layer, ascending; of equal ones the lower id.
pub fn largest(mass: &[f64], count: usize) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..mass.len()).collect();
    ids.sort_by(|&a, &b| mass[b].total_cmp(&mass[a]).then(a.cmp(&b)));
    ids.truncate(count);
    ids.sort_unstable();
    ids
}

/// Size of the intersection of two ascending lists.
pub fn common(a: &[usize], b: &[usize]) -> usize {
    a.iter().filter(|id| b.binary_search(id).is_ok()).count()
}

/// Split-half agreement of two [layers, experts]; layers in which a half has nothing are passed over, and with no
/// other layer there is none.
pub fn agreement(halves: [&[f64]; 2], experts: usize) -> Option<f64> {
    let layers = halves[0].chunks(experts.max(1)).zip(halves[1].chunks(experts.max(1)));
    let each = layers.filter(|(a, b)| reached(a) && reached(b)).map(|(a, b)| {
        let (a, b) = (largest(a, half_of(experts)), largest(b, half_of(experts)));
        let both = common(&a, &b);
        both as f64 / (a.len() + b.len() - both) as f64
    });
    mean(each)
}

/// Share of the experts in the mask of `after` that are not in that of `before`, both [layers, experts].
pub fn change(before: &[f64], after: &[f64], experts: usize) -> Option<f64> {
    let layers = before.chunks(experts.max(1)).zip(after.chunks(experts.max(1)));
    let each = layers.filter(|(_, after)| reached(after)).map(|(before, after)| {
        let kept = half_of(experts);
        let same = common(&largest(before, kept), &largest(after, kept));
        (kept - same) as f64 / kept as f64
    });
    mean(each)
}

fn reached(layer: &[f64]) -> bool {
    layer.iter().any(|mass| *mass > 0.0)
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two layers of four experts, half of which are kept.
    #[test]
    fn halves_and_doublings() {
        #[track_caller]
        fn check(a: [f64; 8], b: [f64; 8], agrees: Option<f64>, changes: Option<f64>) {
            assert_eq!(agreement([&a, &b], 4), agrees);
            assert_eq!(change(&a, &b, 4), changes);
        }
        let a = [4., 3., 2., 1., 1., 2., 3., 4.];
        check(a, a, Some(1.0), Some(0.0));
        // How much more does not matter, which are kept does.
        check(a, [9., 8., 0., 1., 0., 0., 1., 1.], Some(1.0), Some(0.0));
        // One of two is another one in the first layer: 1 of 3, and 1 of 2.
        check(a, [4., 2., 3., 1., 1., 2., 3., 4.], Some((1.0 / 3.0 + 1.0) / 2.0), Some(0.25));
        check(a, [1., 2., 3., 4., 4., 3., 2., 1.], Some(0.0), Some(1.0));
        // A dense layer says nothing.
        check(
            [0., 0., 0., 0., 1., 2., 3., 4.],
            [0., 0., 0., 0., 4., 3., 2., 1.],
            Some(0.0),
            Some(1.0),
        );
        check([0.0; 8], [0.0; 8], None, None);
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        assert_eq!(largest(&[1., 2., 2., 2.], 2), [1, 2]);
        assert_eq!(largest(&[1., 2.], 5), [0, 1]);
    }
}
