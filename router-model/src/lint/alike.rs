//! How alike two texts are, by the rare n-grams they share.

use crate::Weights;
use crate::features::Features;

/// A text as buckets with values, sorted by bucket; of length 1.
pub(super) struct Print(Vec<(u32, f32)>);

impl Print {
    /// Rare n-grams count more, as they do where a domain is learnt.
    pub(super) fn new(text: &str, weights: &Weights) -> Print {
        let features = Features::new(text, weights.header().buckets);
        let value = |f: &crate::features::Feature| f.value * weights.rarity(f.bucket);
        let mut all: Vec<(u32, f32)> = features.list.iter().map(|f| (f.bucket, value(f))).collect();
        all.sort_by_key(|(bucket, _)| *bucket);
        let mut print: Vec<(u32, f32)> = Vec::with_capacity(all.len());
        for (bucket, value) in all {
            match print.last_mut().filter(|last| last.0 == bucket) {
                Some(last) => last.1 += value,
                None => print.push((bucket, value)),
            }
        }
        let length = print.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            print.iter_mut().for_each(|(_, value)| *value /= length);
        }
        Print(print)
    }

    /// 0 (nothing in common) to 1 (the same).
    pub(super) fn likeness(&self, other: &Print) -> f32 {
        let (mut a, mut b, mut sum) = (0, 0, 0f32);
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            match x.0.cmp(&y.0) {
                std::cmp::Ordering::Less => a += 1,
                std::cmp::Ordering::Greater => b += 1,
                std::cmp::Ordering::Equal => {
                    sum += x.1 * y.1;
                    (a, b) = (a + 1, b + 1);
                }
            }
        }
        sum.clamp(0.0, 1.0)
    }
}
