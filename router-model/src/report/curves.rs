//! From answers to curves.  Pure: no supervisor, no clock, no files.

use std::collections::BTreeMap;

use serde::Serialize;

/// One text asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The right domain; of a text that belongs nowhere, its kind.
    pub truth: String,
    /// The likeliest label; empty where nothing was said.
    pub guess: String,
    /// Of the guess, 0 to 1.
    pub confidence: f32,
    pub abstained: bool,
    /// 0 (at home somewhere) to 1 (like nothing known).
    pub oddness: f32,
    pub micros: u64,
}

impl Asked {
    fn right(&self) -> bool {
        self.guess == self.truth
    }
}

/// Answers whose confidence is from `low` to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    pub n: usize,
    /// Means over the bin.
    pub confidence: f64,
    pub accuracy: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// How well texts of no domain are told from the others by their oddness.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejection {
    /// Items of routed domains, and texts of none.
    pub inside: usize,
    pub outside: usize,
    /// That a text of none is odder than an item, ties counted half.
    pub auc: f64,
    /// Share of items that are rejected where 95 % of the texts are.
    pub rejected_at_95: f64,
    /// Share of the texts that the supervisor abstains on, at its threshold.
    pub abstained: f64,
    /// By kind of text.
    pub kinds: BTreeMap<String, Kind>,
    /// Share of items rejected (`x`) against share of texts rejected (`y`).
    pub roc: Vec<Point>,
    /// Shares of items and of texts by oddness, in twenty equal bins.
    pub items_by_oddness: Vec<f64>,
    pub texts_by_oddness: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kind {
    pub n: usize,
    pub auc: f64,
    pub abstained: f64,
}

/// Of one decision, in microseconds, on the machine that made the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub most: u64,
    /// Share of decisions (`y`) that took at most so long (`x`).
    pub shares: Vec<Point>,
}

/// As many as the calibration error has.
const BINS: usize = 15;

/// Of the histogram of oddness.
const ODD_BINS: usize = 20;

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

fn share<'a>(of: impl Iterator<Item = &'a Asked>, is: impl Fn(&Asked) -> bool) -> f64 {
    mean(of.map(|one| f64::from(u8::from(is(one)))))
}

/// Where a number from 0 to 1 falls among `bins` equal ones.
fn bin(value: f32, bins: usize) -> usize {
    // A number that is none falls on 0.
    ((f64::from(value) * bins as f64) as usize).min(bins - 1)
}

pub(super) fn reliability(asked: &[Asked]) -> Vec<Bin> {
    let of = |at: usize| -> Option<Bin> {
        let inside = || asked.iter().filter(move |one| bin(one.confidence, BINS) == at);
        let n = inside().count();
        let edge = |at: usize| at as f64 / BINS as f64;
        (n > 0).then(|| Bin {
            low: edge(at),
            high: edge(at + 1),
            n,
            confidence: mean(inside().map(|one| f64::from(one.confidence))),
            accuracy: share(inside(), Asked::right),
        })
    };
    (0..BINS).filter_map(of).collect()
}

pub(super) fn coverage(asked: &[Asked]) -> Vec<Point> {
    let mut by: Vec<&Asked> = asked.iter().collect();
    by.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let point = |percent: usize| {
        // As `accuracy_at_90` counts.
        let keep = (by.len() * percent).div_ceil(100);
        let y = share(by[..keep].iter().copied(), Asked::right);
        Point { x: percent as f64 / 100.0, y }
    };
    if by.is_empty() { Vec::new() } else { (1..=100).map(point).collect() }
}

/// `None` if one of the two is empty.
pub(super) fn rejection(inside: &[&Asked], outside: &[Asked]) -> Option<Rejection> {
    if inside.is_empty() || outside.is_empty() {
        return None;
    }
    let odd = |one: &Asked| one.oddness;
    let items: Vec<f32> = inside.iter().map(|one| odd(one)).collect();
    let texts: Vec<f32> = outside.iter().map(odd).collect();
    let mut kinds = BTreeMap::<&str, Vec<&Asked>>::new();
    for one in outside {
        kinds.entry(&one.truth).or_default().push(one);
    }
    let kind = |(name, list): (&str, Vec<&Asked>)| {
        let odd: Vec<f32> = list.iter().map(|one| one.oddness).collect();
        let abstained = share(list.iter().copied(), |one| one.abstained);
        (name.to_owned(), Kind { n: list.len(), auc: auc(&items, &odd), abstained })
    };
    let roc = roc(&items, &texts);
    let rejected_at_95 = roc.iter().find(|p| p.y >= 0.95).map_or(1.0, |p| p.x);
    let histogram = |values: &[f32]| -> Vec<f64> {
        let n = |at: usize| values.iter().filter(|v| bin(**v, ODD_BINS) == at).count();
        (0..ODD_BINS).map(|at| n(at) as f64 / values.len() as f64).collect()
    };
    Some(Rejection {
        inside: items.len(),
        outside: texts.len(),
        auc: auc(&items, &texts),
        rejected_at_95,
        abstained: share(outside.iter(), |one| one.abstained),
        kinds: kinds.into_iter().map(kind).collect(),
        items_by_oddness: histogram(&items),
        texts_by_oddness: histogram(&texts),
        roc: thinned(roc),
    })
}

/// Enough points for a picture, the ends among them.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    const MOST: usize = 200;
    let last = points.len().saturating_sub(1);
    let every = points.len().div_ceil(MOST).max(1);
    let kept = |at: usize| at.is_multiple_of(every) || at == last;
    points.into_iter().enumerate().filter(|(at, _)| kept(*at)).map(|(_, point)| point).collect()
}

/// Thresholds from the oddest down: at each, the shares rejected of both.
fn roc(items: &[f32], texts: &[f32]) -> Vec<Point> {
    let all = items.iter().map(|v| (*v, false)).chain(texts.iter().map(|v| (*v, true)));
    let mut all: Vec<(f32, bool)> = all.collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut points = vec![Point { x: 0.0, y: 0.0 }];
    let (mut rejected_items, mut rejected_texts) = (0usize, 0usize);
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        rejected_texts += same.iter().filter(|one| one.1).count();
        rejected_items += same.iter().filter(|one| !one.1).count();
        let x = rejected_items as f64 / items.len() as f64;
        points.push(Point { x, y: rejected_texts as f64 / texts.len() as f64 });
    }
    points
}

/// Area under that curve, by trapezoids, which counts ties half.
fn auc(items: &[f32], texts: &[f32]) -> f64 {
    roc(items, texts).windows(2).map(|w| (w[1].x - w[0].x) * (w[0].y + w[1].y) / 2.0).sum()
}

pub(super) fn latencies(asked: &[Asked]) -> Latencies {
    let mut micros: Vec<u64> = asked.iter().map(|one| one.micros).collect();
    micros.sort_unstable();
    if micros.is_empty() {
        return Latencies::default();
    }
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    let point = |percent: u32| {
        let y = f64::from(percent) / 100.0;
        Point { x: at(y) as f64, y }
    };
    Latencies {
        mean: mean(micros.iter().map(|m| *m as f64)),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        most: at(1.0),
        shares: (0..=100).map(point).collect(),
    }
}
