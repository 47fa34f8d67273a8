//! What an answer of each model costs, in any one unit.

use super::OutcomeError;

/// Billions of parameters that a token uses; see the file's own words.
const SHIPPED: &str = include_str!("../../data/model-costs.csv");

/// The cost of each of `models`, in their order: as `said`, else as the shipped
/// table has it.
///
/// # Errors
///
/// [`OutcomeError::NoModel`], [`OutcomeError::NoCost`] or [`OutcomeError::BadCost`],
/// with the model's name.
pub fn costs(models: &[String], said: &[(String, f64)]) -> Result<Vec<f64>, OutcomeError> {
    for (model, cost) in said {
        if !models.contains(model) {
            let near = |known: &&String| known.eq_ignore_ascii_case(model) || known.contains(model);
            let nearest = models.iter().find(near).cloned();
            return Err(OutcomeError::NoModel { model: model.clone(), nearest });
        }
        if !cost.is_finite() || *cost < 0.0 {
            return Err(OutcomeError::BadCost { model: model.clone(), cost: *cost });
        }
    }
    let one = |model: &String| -> Result<f64, OutcomeError> {
        // The last word counts, as on any command line.
        let said = said.iter().rev().find(|(name, _)| name == model).map(|(_, cost)| *cost);
        said.or_else(|| shipped(model)).ok_or(OutcomeError::NoCost { model: model.clone() })
    };
    models.iter().map(one).collect()
}

fn shipped(model: &str) -> Option<f64> {
    let rows = SHIPPED.lines().filter(|line| !line.starts_with('#'));
    let mut cells = rows.map(|line| line.split(','));
    cells
        .find_map(|mut row| if row.next() == Some(model) { row.next()?.parse().ok() } else { None })
}
