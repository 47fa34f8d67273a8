//! One linear layer on what an encoder makes of a text.

use serde::{Deserialize, Serialize};

/// Scores of labels from an encoder's mean `[width]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Classifier {
    /// `[labels][width]`.
    pub weights: Vec<Vec<f32>>,
    /// `[labels]`.
    pub biases: Vec<f32>,
}

impl Classifier {
    /// Logits `[labels]`.
    pub(crate) fn logits(&self, mean: &[f32]) -> Vec<f32> {
        let z = |(row, bias): (&Vec<f32>, &f32)| {
            bias + row.iter().zip(mean).map(|(w, x)| w * x).sum::<f32>()
        };
        self.weights.iter().zip(&self.biases).map(z).collect()
    }

    /// Whether it scores so many labels, all from as many inputs, by numbers to count with.
    pub(crate) fn is_sound(&self, labels: usize) -> bool {
        let sane = |x: &f32| x.is_finite() && x.abs() < 1e6;
        let width = self.weights.first().map_or(0, Vec::len);
        self.weights.len() == labels
            && self.biases.len() == labels
            && self.biases.iter().all(sane)
            && self.weights.iter().all(|row| row.len() == width && row.iter().all(sane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_and_soundness() {
        let weights = vec![vec![1.0, 0.0], vec![0.5, 1.0]];
        let c = Classifier { weights, biases: vec![0.0, 1.0] };
        assert_eq!(c.logits(&[2.0, 3.0]), [2.0, 5.0]);
        assert!(c.is_sound(2) && !c.is_sound(1) && !c.is_sound(3));
        let short = Classifier { weights: vec![vec![1.0], vec![0.5, 1.0]], ..c.clone() };
        assert!(!short.is_sound(2));
        assert!(!Classifier { biases: vec![f32::NAN, 0.0], ..c.clone() }.is_sound(2));
        assert!(!Classifier { biases: vec![0.0], ..c }.is_sound(2));
    }
}
