//! A text as numbers that say who might be right about it.

use crate::grams::{grams, unit};
use crate::{Query, Supervisor};

/// Buckets of words and pieces; each has a weight for each model.
pub(super) const BUCKETS: u32 = 1 << 13;

/// Numbers beside the supervisor's probabilities: a constant, length, lines,
/// digits, symbols.
pub(super) const PLAIN: usize = 5;

/// What is seen of a text.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    /// [`PLAIN`] numbers, then a probability a label of the supervisor.
    pub(super) dense: Vec<f32>,
    /// (bucket, value); all together of length 1.
    pub(super) grams: Vec<(u32, f32)>,
}

impl Sight {
    pub(super) fn new(text: &str, supervisor: &Supervisor) -> Sight {
        let labels = &supervisor.weights().header().labels;
        let said = supervisor.decide(&Query::text(text)).alternatives;
        let (mut chars, mut digits, mut symbols) = (0u32, 0u32, 0u32);
        for c in text.chars() {
            chars += 1;
            digits += u32::from(c.is_numeric());
            symbols += u32::from(!c.is_alphanumeric() && !c.is_whitespace());
        }
        let share = |n: u32| n as f32 / chars.max(1) as f32;
        let lines = text.lines().count() as f32;
        let mut dense =
            vec![1.0, (1.0 + chars as f32).ln(), (1.0 + lines).ln(), share(digits), share(symbols)];
        let of = |label: &String| {
            let found = said.iter().find(|alternative| alternative.domain == *label);
            found.map_or(0.0, |alternative| alternative.probability)
        };
        dense.extend(labels.iter().map(of));
        let mut grams = grams(text, BUCKETS);
        // Repeats count less and less.
        grams.iter_mut().for_each(|(_, value)| *value = 1.0 + value.ln());
        unit(&mut grams);
        Sight { dense, grams }
    }
}
