//! How alike two texts are, by the rare n-grams they share.

use std::collections::HashMap;

use config::Domain;

use crate::grams::{grams, unit};

/// So many that two n-grams seldom share one.
const BUCKETS: u32 = 1 << 20;

/// How rare n-grams are among all examples.
pub(super) struct Rarity {
    texts: f32,
    /// Texts that have an n-gram, by bucket.
    owners: HashMap<u32, f32>,
}

impl Rarity {
    pub(super) fn of(domains: &[Domain]) -> Rarity {
        let (mut texts, mut owners) = (0.0, HashMap::new());
        for example in domains.iter().flat_map(|domain| &domain.examples) {
            texts += 1.0;
            for (bucket, _) in grams(example, BUCKETS) {
                *owners.entry(bucket).or_insert(0.0) += 1.0;
            }
        }
        Rarity { texts, owners }
    }

    /// A text of length 1, rare n-grams counting more.  Source: Spärck Jones,
    /// inverse document frequency (1972).
    pub(super) fn print(&self, text: &str) -> Print {
        let mut print = grams(text, BUCKETS);
        for (bucket, value) in &mut print {
            let owners = self.owners.get(&*bucket).copied().unwrap_or(0.0);
            *value = (1.0 + value.ln()) * ((1.0 + self.texts) / (1.0 + owners)).ln();
        }
        unit(&mut print);
        Print(print)
    }
}

/// A text as buckets with values, by bucket; of length 1.
pub(super) struct Print(Vec<(u32, f32)>);

impl Print {
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
