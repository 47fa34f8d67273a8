//! The texts of a regression as sparse rows, and how far weights are from them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::features::Features;

/// Parts that threads compute; as many on every machine, so that sums are the same.
const PARTS: usize = 8;

/// Texts as rows of features, each with what it is and what it counts.
///
/// Weights for it are `[buckets][columns]`, then a bias for each column; a label
/// has a column, and the last one tells what is strange.
pub(super) struct Design {
    labels: usize,
    buckets: usize,
    /// Of all rows, one after another.
    list: Vec<(u32, f32)>,
    rows: Vec<Row>,
    /// What all rows count together.
    weight: f64,
}

struct Row {
    /// Where its features end.
    end: usize,
    /// `None`: it is of no label.
    truth: Option<usize>,
    weight: f32,
}

impl Design {
    pub(super) fn new(labels: usize, buckets: usize) -> Design {
        Design { labels, buckets, list: Vec::new(), rows: Vec::new(), weight: 0.0 }
    }

    pub(super) fn push(&mut self, features: &Features, truth: Option<usize>, weight: f32) {
        self.list.extend(features.list.iter().map(|f| (f.bucket, f.value)));
        self.rows.push(Row { end: self.list.len(), truth, weight });
        self.weight += f64::from(weight);
    }

    fn columns(&self) -> usize {
        self.labels + 1
    }

    /// Numbers that are to be found.
    pub(super) fn len(&self) -> usize {
        (self.buckets + 1) * self.columns()
    }

    /// The mean negative log likelihood of labels and of being strange, plus half of
    /// `penalty` times the sum of all squared weights, and its slope.
    pub(super) fn loss(&self, x: &[f32], slope: &mut [f32], penalty: f32) -> f64 {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= PARTS {
                    return done;
                }
                let mut own = vec![0f32; slope.len()];
                done.push((part, self.part(part, x, &mut own), own));
            }
        };
        let threads = thread::available_parallelism().map_or(1, |n| n.get()).min(PARTS);
        let mut parts: Vec<(usize, f64, Vec<f32>)> = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for other in others {
                all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        });
        parts.sort_unstable_by_key(|(part, ..)| *part);
        let weights = self.buckets * self.columns();
        let mut squares = 0f64;
        for (slope, x) in slope[..weights].iter_mut().zip(x) {
            *slope = penalty * x;
            squares += f64::from(*x) * f64::from(*x);
        }
        slope[weights..].fill(0.0);
        for (_, _, own) in &parts {
            slope.iter_mut().zip(own).for_each(|(slope, own)| *slope += own);
        }
        parts.iter().map(|(_, loss, _)| loss).sum::<f64>() + 0.5 * f64::from(penalty) * squares
    }

    /// The share of some rows in the loss and in its slope.
    fn part(&self, part: usize, x: &[f32], slope: &mut [f32]) -> f64 {
        let columns = self.columns();
        let (weights, biases) = x.split_at(self.buckets * columns);
        let (slopes, bias_slopes) = slope.split_at_mut(self.buckets * columns);
        let rows = self.rows.len() * part / PARTS..self.rows.len() * (part + 1) / PARTS;
        let mut start = if rows.start == 0 { 0 } else { self.rows[rows.start - 1].end };
        let of = |bucket: u32| bucket as usize * columns..(bucket as usize + 1) * columns;
        let mut sums = vec![0f32; columns];
        let mut loss = 0f64;
        for row in &self.rows[rows] {
            let features = &self.list[start..row.end];
            start = row.end;
            sums.copy_from_slice(biases);
            for (bucket, value) in features {
                let weights = &weights[of(*bucket)];
                sums.iter_mut().zip(weights).for_each(|(sum, w)| *sum += value * w);
            }
            let weight = f64::from(row.weight) / self.weight;
            loss += weight * to_slopes(&mut sums, row.truth);
            sums.iter_mut().for_each(|off| *off *= weight as f32);
            for (bucket, value) in features {
                let slopes = &mut slopes[of(*bucket)];
                slopes.iter_mut().zip(&sums).for_each(|(slope, off)| *slope += value * off);
            }
            bias_slopes.iter_mut().zip(&sums).for_each(|(slope, off)| *slope += off);
        }
        loss
    }
}

/// The loss of a row's sums, which become probabilities less truth.  What is of no
/// label says nothing about labels.
fn to_slopes(sums: &mut [f32], truth: Option<usize>) -> f64 {
    let Some((strange, labels)) = sums.split_last_mut() else { return 0.0 };
    // ln(1 + e^x), which does not overflow.
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let z = f64::from(*strange);
    let mut loss = if truth.is_some() { softplus(z) } else { softplus(-z) };
    let target = if truth.is_some() { 0.0 } else { 1.0 };
    *strange = (1.0 / (1.0 + (-z).exp()) - target) as f32;
    let Some(truth) = truth else {
        labels.fill(0.0);
        return loss;
    };
    let most = labels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let own = f64::from(labels[truth] - most);
    labels.iter_mut().for_each(|z| *z = (*z - most).exp());
    let all: f32 = labels.iter().sum();
    loss += f64::from(all).ln() - own;
    labels.iter_mut().for_each(|p| *p /= all);
    labels[truth] -= 1.0;
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Feature;

    fn design() -> Design {
        let mut design = Design::new(3, 5);
        let mut rng = fastrand::Rng::with_seed(1);
        for at in 0..40 {
            let feature = |_| Feature { bucket: rng.u32(..5), value: rng.f32(), unit: 0 };
            let mut features = Features::default();
            features.list = (0..3).map(feature).collect();
            design.push(&features, (at % 4 < 3).then_some(at % 4), 0.5 + rng.f32());
        }
        design
    }

    #[test]
    fn the_slope_is_the_losss() {
        let design = design();
        let mut rng = fastrand::Rng::with_seed(2);
        let x: Vec<f32> = (0..design.len()).map(|_| rng.f32() - 0.5).collect();
        let mut slope = vec![0f32; design.len()];
        design.loss(&x, &mut slope, 0.1);
        let mut other = vec![0f32; design.len()];
        for at in 0..design.len() {
            let mut moved = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                design.loss(&x, &mut other, 0.1)
            };
            let want = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(slope[at]) - want).abs() < 1e-4, "{at}: {}, not {want}", slope[at]);
        }
    }
}
