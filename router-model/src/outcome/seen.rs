//! Questions as the regression sees them, and how far off it is.

use super::model::Outcomes;
use super::sight::Sight;
use super::table::Row;

/// One question, seen.
pub(super) struct Seen<'a> {
    pub(super) sight: Sight,
    pub(super) row: &'a Row,
}

pub(super) fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

/// Mean negative log likelihood over questions and models.
pub(super) fn loss(outcomes: &Outcomes, seen: &[Seen<'_>]) -> f64 {
    let (mut sum, mut n) = (0f64, 0usize);
    for one in seen {
        for (z, right) in outcomes.calibrated(&one.sight).iter().zip(&one.row.right) {
            let p = f64::from(sigmoid(*z)).clamp(1e-6, 1.0 - 1e-6);
            sum -= if *right { p.ln() } else { (1.0 - p).ln() };
            n += 1;
        }
    }
    sum / n.max(1) as f64
}
