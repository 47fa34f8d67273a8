//! What is worth reading first.

use super::super::numbers::{p, percent, signed};
use super::super::{Block, Section};
use super::{asked, beside, home_at, masks, read, sizes};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{Kind, Measure, Predictor, QuestionCell, TextCell};
use crate::evaluate::statistics::{mcnemar, mean};

/// The few sentences that are worth reading first, a paragraph for each size of mask.
pub fn section(evaluation: &Evaluation) -> Option<Section> {
    let origin = &evaluation.origin;
    let mut blocks = vec![Block::Text(format!(
        "{} masks of a parent with {} layers of {} experts, of which the router picks {}.",
        masks(evaluation).count(),
        origin.layers,
        origin.experts,
        origin.top_k
    ))];
    for (total, members) in sizes(evaluation) {
        let whole = origin.layers * origin.experts;
        let words: Vec<String> = [
            read_by(evaluation, &members),
            asked_by(evaluation, &members),
            related_by(evaluation, &members),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !words.is_empty() {
            let share = percent(total as f64 / whole.max(1) as f64);
            let words = words.join(" ");
            blocks.push(Block::Text(format!("With {share} of the experts: {words}")));
        }
    }
    Some(Section { title: "In short".to_owned(), blocks })
}

/// Masks on held-out text of their own domains.
fn read_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let home = |at: usize| home_at(evaluation, Measure::Likelihood, at);
    let own: Vec<&TextCell> =
        members.iter().filter_map(|at| read(evaluation, *at, home(*at)?)).collect();
    if own.is_empty() {
        return None;
    }
    let of =
        |f: &dyn Fn(&TextCell) -> f64| mean(&own.iter().map(|cell| f(cell)).collect::<Vec<_>>());
    let control = |kind, name: &str| {
        let costs = |at: &usize| -> Vec<f64> {
            let cost = |c| Some(read(evaluation, c, home(*at)?)?.cost.value);
            beside(evaluation, *at, kind).filter_map(cost).collect()
        };
        let costs: Vec<f64> = members.iter().flat_map(costs).collect();
        if costs.is_empty() {
            String::new()
        } else {
            format!(", as many {name} {}", signed(mean(&costs), 3))
        }
    };
    Some(format!(
        "on held-out text of its own domain a mask costs {} nats a token{}{} (means over {} masks); its most probable token is the parent's {} of the time, and KL(parent || mask) is {:.3} nats.",
        signed(of(&|cell| cell.cost.value), 3),
        control(Kind::Frequency, "by frequency"),
        control(Kind::Random, "by lot"),
        own.len(),
        percent(of(&|cell| cell.agreement.value)),
        of(&|cell| cell.kl.value),
    ))
}

/// Masks on questions of their own domains.
fn asked_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let home = |at: usize| home_at(evaluation, Measure::Accuracy, at);
    let own: Vec<&QuestionCell> =
        members.iter().filter_map(|at| asked(evaluation, *at, home(*at)?)).collect();
    let sum = |f: &dyn Fn(&QuestionCell) -> usize| own.iter().map(|cell| f(cell)).sum::<usize>();
    let (gained, lost) =
        (sum(&|c| c.paired.map_or(0, |p| p.gained)), sum(&|c| c.paired.map_or(0, |p| p.lost)));
    (!own.is_empty()).then(|| {
        format!(
            "Of {} questions of their own domains the masks answer {} right; they lose {lost} that the parent has right, and gain {gained} (McNemar p {}).",
            sum(&|c| c.n),
            sum(&|c| c.right),
            p(mcnemar(gained, lost))
        )
    })
}

/// Overlap and worth, of the family that these masks are.
fn related_by(evaluation: &Evaluation, members: &[usize]) -> Option<String> {
    let name = &evaluation.subjects[*members.first()?].name;
    let families = evaluation.transfer.iter().flat_map(|t| &t.families);
    let family = families.into_iter().find(|family| family.masks.contains(name))?;
    let c = family.correlations.iter().find(|r| r.with == Predictor::F)?.correlation;
    Some(format!(
        "What a mask is worth on another's domain goes with the overlap of the two: r = {:.3} over {} pairs.",
        c.pearson, c.n
    ))
}
