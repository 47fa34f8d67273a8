//! The report as a page and its picture.

use std::fmt::Write;

use super::{OutcomeError, OutcomeReport};
use crate::report::plot::{Axes, BLUE, GREEN, ORANGE, SOFT, axes, dots, draw, line};

/// Accuracy against mean cost: the router's curve, single models, chance, oracle.
///
/// # Errors
///
/// [`OutcomeError::Plot`] when the plotting library fails.
pub fn curve(report: &OutcomeReport) -> Result<String, OutcomeError> {
    // A model that costs nothing has a place at the left end.
    let singles = || report.models.iter().map(|m| (m.cost, m.accuracy));
    let others = [&report.random, &report.oracle].map(|p| (p.cost, p.accuracy));
    let steps = || report.curve.iter().map(|s| (s.cost, s.accuracy));
    let costs = || singles().chain(others).chain(steps()).map(|(cost, _)| cost);
    let most = costs().fold(0.0, f64::max).max(1e-6);
    let least = costs().filter(|cost| *cost > 0.0).fold(most, f64::min).max(most * 1e-6);
    let at = |(cost, accuracy): (f64, f64)| (cost.max(least).log10(), accuracy);
    let lowest = singles().map(|(_, accuracy)| accuracy).fold(1.0, f64::min);
    let x = least.log10() - 0.05..most.log10() + 0.05;
    draw((760, 480), |area| {
        let mut chart = axes(
            area,
            &Axes {
                title: "Router (blue), single models (grey), oracle (green), chance (orange)",
                x: x.clone(),
                y: (lowest - 0.05).max(0.0)..1.0,
                x_name: "mean cost of an answer",
                y_name: "accuracy",
                x_log: true,
            },
        )?;
        let best = report.best_single.accuracy;
        line(&mut chart, [(x.start, best), (x.end, best)], SOFT)?;
        dots(&mut chart, singles().map(at), SOFT)?;
        line(&mut chart, steps().map(at), BLUE)?;
        dots(&mut chart, steps().take(1).map(at), BLUE)?;
        dots(&mut chart, [at(others[0])], ORANGE)?;
        dots(&mut chart, [at(others[1])], GREEN)
    })
    .map_err(|error| OutcomeError::Plot(error.to_string()))
}

/// The page, with the picture as `curve.svg` beside it.
pub fn markdown(report: &OutcomeReport) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let OutcomeReport { best_single: best, gain, random, oracle, .. } = report;
    let mut text = String::from("# Routing by outcome\n\n");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "Learnt from {} questions, chosen and calibrated on {}, reported on {} others. Words count \
         {} ({} passes). Calibration error {:.3}; loss {:.3}, of a constant a model {:.3}.\n",
        report.train,
        report.tune,
        report.test,
        report.gram,
        report.epochs,
        report.ece,
        report.loss,
        report.loss_constant
    );
    text += "![Accuracy against cost](curve.svg)\n\n";
    text += "| | accuracy | mean cost |\n| --- | ---: | ---: |\n";
    let mut row = |name: &str, accuracy: f64, cost: f64| {
        let _ = writeln!(text, "| {name} | {} | {cost:.1} |", percent(accuracy));
    };
    if let Some(first) = report.curve.first() {
        row("router, lambda 0", first.accuracy, first.cost);
    }
    if let Some(step) = &report.as_good {
        let name = format!("router, lambda {:.5}, as good on the second part", step.lambda);
        row(&name, step.accuracy, step.cost);
    }
    row(&format!("best single: {}", best.model), best.accuracy, best.cost);
    row("any, drawn evenly", random.accuracy, random.cost);
    row("oracle: the cheapest that is right", oracle.accuracy, oracle.cost);
    let sure = match (gain.low > 0.0, gain.high < 0.0) {
        (true, _) => "",
        (_, true) => ": it loses",
        _ => ": it may be none",
    };
    let _ = writeln!(
        text,
        "\nOver the best single model the router gains {:+.1} points (95 % interval {:+.1} to \
         {:+.1}){sure}. The oracle counts lucky guesses as right, of which many models have many.\n",
        100.0 * gain.value,
        100.0 * gain.low,
        100.0 * gain.high
    );
    text += "| lambda | accuracy | mean cost |\n| ---: | ---: | ---: |\n";
    for step in report.curve.iter().step_by(4) {
        let _ = writeln!(
            text,
            "| {:.5} | {} | {:.1} |",
            step.lambda,
            percent(step.accuracy),
            step.cost
        );
    }
    text += "\n| model | cost | accuracy | asked at lambda 0 |\n| --- | ---: | ---: | ---: |\n";
    for single in &report.models {
        let name = single.model.replace(['|', '`', '<'], " ");
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            single.cost,
            percent(single.accuracy),
            percent(single.asked)
        );
    }
    text
}
