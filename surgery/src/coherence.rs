//! Whether one mask can cover a domain, or which parts it falls into: asked before any surgery.
//!
//! In: a profile with items ([`engine::Signatures`]) and the number of experts that a mask keeps.  Out: a [`Report`].
//! Pure and the same for the same profile and seed: no files, no model, no clock.
//!
//! How it is found:
//! 1. Two items are as alike as the shares that they give each expert: the Bhattacharyya coefficient of a layer, its mean
//!    over layers (`alike`).
//! 2. Items are put into 2 to [`MOST_PARTS`] groups (kernel k-means, several starts); the number of groups is the one
//!    with the best silhouette (`groups`).
//! 3. Groups are found in anything.  So the same is done to items that cannot have parts: each layer of an item is taken
//!    from another item drawn at random, which keeps what layers look like and how noisy they are, and breaks what makes
//!    items of one kind.  Groups count only if their silhouette is better than all of these.
//! 4. What matters in the end is coverage.  Masks are made from every second item and tried on the others, one for all
//!    items and one for each group, all of the same size (`covered`); parts are proposed only if theirs keep
//!    [`LEAST_GAIN`] more of the gate mass.
//!
//! [`report`] has the text and the files for people.  To look for parts in another way: `groups`; to judge them in
//! another way: `judge`.

mod alike;
mod covered;
mod groups;
pub mod report;
#[cfg(test)]
mod tests;

use engine::Profile;
use serde::Serialize;
use thiserror::Error;

use crate::stability::{common, largest};
use alike::Items;
use covered::{Coverage, halves, masks_of};
use groups::Likeness;

/// Items below which nothing can be said.
pub const LEAST_ITEMS: usize = 24;

/// Parts that are looked for at most; more are no sub-domains but items.
pub const MOST_PARTS: usize = 8;

/// Gate mass that masks of parts must keep beyond what one mask keeps, mean over items.  Measured on the embedded parent,
/// 16 of 32 experts, 200 to 300 questions of MMLU-Pro: law and mathematics, each alone, gain less; health 0.021,
/// philosophy 0.025, computer science (programs and theory) 0.037; law mixed with computer science 0.052, with
/// mathematics 0.085.
pub const LEAST_GAIN: f64 = 0.02;

/// Of nine in ten items a mask should keep this share: at 0.8 every fifth choice of the router, by weight, is another one.
pub const LEAST_COVERAGE: f64 = 0.8;

/// A part has at least one in so many of the items, and six.
const SMALLEST_PART: usize = 20;
const FEWEST_OF_PART: usize = 6;

/// Draws of items that cannot have parts.
const DRAWS: usize = 5;

/// Experts and lines that are named of each part.
const NAMED: usize = 8;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Question {
    /// Experts of each layer that a mask keeps.
    pub keep: usize,
    pub seed: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// One mask will do.
    One,
    /// There are no parts, but a mask of this size leaves too much out of some items.
    Larger,
    /// Parts are better off with masks of their own.
    Split,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub domain: String,
    /// SHA-256 of the parent.
    pub parent: String,
    pub verdict: Verdict,
    /// Experts of each layer that every mask here keeps.
    pub keep: usize,
    pub experts: usize,
    /// Items that were looked at, and that were read for the profile.
    pub items: usize,
    pub seen: u64,
    /// Of all items, by one mask.
    pub one: Coverage,
    /// Of all items, by the mask of their part; what `one` is, if there are no parts.
    pub own: Coverage,
    /// Experts of a layer with which nine in ten items would keep [`LEAST_COVERAGE`].
    pub enough: usize,
    /// Of the best grouping, whether or not it is one worth proposing; 0 to 1.
    pub silhouette: f64,
    /// The best silhouette of items that cannot have parts.
    pub chance: f64,
    /// What masks of groups would keep beyond one mask, mean over items; at most 0 if there is nothing to gain.
    pub gain: f64,
    /// Largest first; empty unless the verdict is to split.
    pub parts: Vec<Part>,
    /// Jaccard index of the masks of parts, mean over layers and pairs.
    pub overlap: Option<f64>,
    /// Each item's line, part, and share that one mask and its part's mask keep of it.
    #[serde(skip)]
    pub each: Vec<Item>,
}

/// A part of a domain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    pub items: usize,
    /// Of the tokens of all items.
    pub share: f64,
    /// Of its items, by the mask of all and by its own, each made from other items.
    pub one: Coverage,
    pub own: Coverage,
    /// Used more in this part than in the others, the largest difference first.
    pub experts: Vec<Telling>,
    /// Lines of its most typical items.
    pub lines: Vec<i64>,
}

/// An expert that tells a part from the others; shares of the gate mass of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Telling {
    pub layer: usize,
    pub expert: usize,
    pub share: f64,
    pub elsewhere: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    pub line: i64,
    /// Index of its part; `None` if there are none.
    pub part: Option<usize>,
    pub one: f64,
    pub own: f64,
}

#[derive(Debug, Error, PartialEq)]
pub enum CoherenceError {
    #[error("the profile has no items: it was merged, or not made from a corpus; profile a corpus")]
    NoItems,
    #[error(
        "the profile has {items} items; {LEAST_ITEMS} are needed to see parts; give more lines"
    )]
    Few { items: usize },
    #[error("{keep} experts are to be kept; the router picks {top_k}, the parent has {experts}")]
    Keep { keep: usize, top_k: usize, experts: usize },
}

/// Looks for the parts of a domain.
///
/// # Errors
///
/// [`CoherenceError`] when the profile cannot say.
pub fn judge(profile: &Profile, question: Question) -> Result<Report, CoherenceError> {
    let Question { keep, seed } = question;
    let Profile { experts, top_k, .. } = *profile;
    if !(top_k.max(1)..=experts).contains(&keep) {
        return Err(CoherenceError::Keep { keep, top_k, experts });
    }
    let signatures = profile.signatures.as_ref().ok_or(CoherenceError::NoItems)?;
    let items = Items::of(signatures, profile.layers, experts);
    if items.len() < LEAST_ITEMS {
        return Err(CoherenceError::Few { items: items.len() });
    }
    let mut random = fastrand::Rng::with_seed(seed);
    let sample = items.sample();
    let likeness = Likeness::of(&items, &sample);
    let found = likeness.best(&likeness.mean(), smallest(sample.len()), &mut random);
    let chance = (0..DRAWS).map(|_| {
        let shuffled = likeness.shuffled(&mut random);
        likeness.best(&shuffled, smallest(sample.len()), &mut random).map_or(0.0, |g| g.silhouette)
    });
    let chance = chance.fold(0.0, f64::max);
    let silhouette = found.as_ref().map_or(0.0, |groups| groups.silhouette);
    let whole = vec![0; items.len()];
    let one = halves(&items, &whole, keep);
    let mut report = Report {
        domain: profile.domain.clone(),
        parent: profile.parent.clone(),
        verdict: Verdict::One,
        keep,
        experts,
        items: items.len(),
        seen: signatures.seen,
        one: Coverage::of(&one),
        own: Coverage::of(&one),
        enough: enough(&items, &whole, top_k, experts),
        silhouette,
        chance,
        gain: 0.0,
        parts: Vec::new(),
        overlap: None,
        each: Vec::new(),
    };
    let parted = found.filter(|_| silhouette > chance).map(|groups| {
        let part_of = by_size(&items.nearest(&sample, &groups.of));
        let own = halves(&items, &part_of, keep);
        (part_of, own)
    });
    if let Some((_, own)) = &parted {
        report.gain = Coverage::of(own).mean - report.one.mean;
    }
    match parted.filter(|_| report.gain >= LEAST_GAIN) {
        Some((part_of, own)) => {
            report.verdict = Verdict::Split;
            report.own = Coverage::of(&own);
            report.parts = parts(&items, &part_of, &one, &own);
            report.overlap = overlap(&items, &part_of, keep);
            report.each = each(&items, Some(&part_of), &one, &own);
        }
        None => {
            report.each = each(&items, None, &one, &one);
            if report.one.least < LEAST_COVERAGE {
                report.verdict = Verdict::Larger;
            }
        }
    }
    Ok(report)
}

fn smallest(items: usize) -> usize {
    items.div_ceil(SMALLEST_PART).max(FEWEST_OF_PART)
}

/// The same parts, the largest first.
fn by_size(part_of: &[usize]) -> Vec<usize> {
    let parts = part_of.iter().max().map_or(0, |most| most + 1);
    let size = |part: usize| part_of.iter().filter(|own| **own == part).count();
    let mut order: Vec<usize> = (0..parts).collect();
    order.sort_by_key(|part| (std::cmp::Reverse(size(*part)), *part));
    let place = |part: &usize| order.iter().position(|own| own == part).unwrap_or(0);
    part_of.iter().map(place).collect()
}

/// The fewest experts with which a mask covers nine in ten items well.
fn enough(items: &Items, whole: &[usize], top_k: usize, experts: usize) -> usize {
    let covers = |keep: usize| Coverage::of(&halves(items, whole, keep)).least >= LEAST_COVERAGE;
    let (mut low, mut high) = (top_k.max(1), experts);
    while low < high {
        let middle = (low + high) / 2;
        match covers(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

fn parts(items: &Items, part_of: &[usize], one: &[f64], own: &[f64]) -> Vec<Part> {
    let (count, all) = (part_of.iter().max().map_or(0, |most| most + 1), items.weight(|_| true));
    let typical = items.typical(part_of, count);
    let part = |part: usize| {
        let within = |item: usize| part_of[item] == part;
        let of = |values: &[f64]| -> Coverage {
            let values = values.iter().enumerate().filter(|(item, _)| within(*item));
            Coverage::of(&values.map(|(_, value)| *value).collect::<Vec<_>>())
        };
        Part {
            items: part_of.iter().filter(|own| **own == part).count(),
            share: items.weight(within) / all,
            one: of(one),
            own: of(own),
            experts: telling(items, &within),
            lines: typical[part].iter().take(NAMED).map(|item| items.line(*item)).collect(),
        }
    };
    (0..count).map(part).collect()
}

/// The experts with the largest difference of shares, within a part and outside of it.
fn telling(items: &Items, within: &dyn Fn(usize) -> bool) -> Vec<Telling> {
    let (inside, outside) = (items.shares(within), items.shares(|item| !within(item)));
    let experts = items.experts();
    let each = inside.iter().zip(&outside).enumerate();
    let mut all: Vec<Telling> = each
        .map(|(at, (share, elsewhere))| Telling {
            layer: at / experts,
            expert: at % experts,
            share: *share,
            elsewhere: *elsewhere,
        })
        .collect();
    all.sort_by(|a, b| (b.share - b.elsewhere).total_cmp(&(a.share - a.elsewhere)));
    all.truncate(NAMED);
    all
}

/// Mean Jaccard index of masks of parts.
fn overlap(items: &Items, part_of: &[usize], keep: usize) -> Option<f64> {
    let masks = masks_of(items, part_of, keep, |_| true);
    let pairs = (0..masks.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let each = pairs.flat_map(|(a, b)| masks[a].iter().zip(&masks[b])).map(|(a, b)| {
        let both = common(a, b);
        both as f64 / (a.len() + b.len() - both) as f64
    });
    crate::stability::mean(each)
}

fn each(items: &Items, part_of: Option<&[usize]>, one: &[f64], own: &[f64]) -> Vec<Item> {
    let item = |at: usize| Item {
        line: items.line(at),
        part: part_of.map(|part_of| part_of[at]),
        one: one[at],
        own: own[at],
    };
    (0..items.len()).map(item).collect()
}

/// A layer's mask.
fn mask(mass: &[f64], keep: usize) -> Vec<usize> {
    largest(mass, keep)
}
