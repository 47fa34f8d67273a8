//! What each mask is worth on other domains, and whether overlap tells it.

use super::super::numbers::{count, sigma};
use super::super::{Block, Section};
use super::{TRANSFER, cells, table};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{Family, Measure, Pair, Predictor, Related, Subject, Transfer};

/// `None` where no two masks can be compared.
pub fn section(evaluation: &Evaluation) -> Option<Section> {
    if evaluation.transfer.is_empty() {
        return None;
    }
    let words = "Is a mask worth the more on another domain, the more of that domain's own mask it keeps? Masks of one size are compared. Overlap is pooled over layers; F is 2|A ∩ B| / (|A| + |B|) without the experts that every mask of the family keeps; two random halves have F 0.5 and Jaccard 0.333. The cosine is of gate masses, by layer, which weighs what the two masks keep there. Correlations leave out each mask on its own domain; pairs share masks and domains, so that their intervals are narrower than the truth.";
    let mut blocks = vec![Block::Text(words.to_owned())];
    for Transfer { measure, families } in &evaluation.transfer {
        for family in families {
            let what = match measure {
                Measure::Accuracy => "accuracy",
                Measure::Likelihood => "likelihood",
            };
            let size = evaluation.subjects.iter().find(|s| Some(&s.name) == family.masks.first());
            let size = size.map_or(0, Subject::total);
            let name = format!(
                "{} masks of {} experts, Y by {what}",
                family.masks.len(),
                count(size as u64)
            );
            blocks.push(related(&name, family));
            blocks.push(pairs(&name, family));
        }
    }
    Some(Section { title: TRANSFER.to_owned(), blocks })
}

fn related(name: &str, family: &Family) -> Block {
    let row = |r: &Related| {
        let c = r.correlation;
        let with = match r.with {
            Predictor::F => "F, without what all keep",
            Predictor::Jaccard => "Jaccard",
            Predictor::Cosine => "cosine of gate mass",
        };
        let interval = c.interval.map(|[low, high]| format!(" ({low:.3} to {high:.3})"));
        cells(vec![
            with.to_owned(),
            c.n.to_string(),
            format!("{:.3}{}", c.pearson, interval.unwrap_or_default()),
            format!("{:.3}", c.spearman),
            format!("{:.3} + {:.3} x", c.intercept, c.slope),
        ])
    };
    let rows = family.correlations.iter().map(row).collect();
    let head = ["Y with", "pairs", "Pearson r (95\u{a0}%)", "Spearman", "least squares"];
    let caption =
        format!("{name}: correlations; experts common to all: {}", count(family.common as u64));
    table(&caption, &head, rows, false)
}

fn pairs(name: &str, family: &Family) -> Block {
    let row = |pair: &Pair| {
        let o = pair.overlap;
        cells(vec![
            pair.visitor.clone(),
            pair.target.clone(),
            sigma(&pair.y, 3),
            format!("{:.3}", o.f),
            format!("{:.3}", o.jaccard),
            o.cosine.map_or("–".to_owned(), |c| format!("{c:.3}")),
        ])
    };
    let rows = family.pairs.iter().map(row).collect();
    let head = ["visitor", "on the items of", "Y ± σ", "F", "Jaccard", "cosine"];
    table(&format!("{name}: every pair"), &head, rows, true)
}
