//! The six pictures of a report.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::curves::Rejection;
use super::plot::{
    Axes, BLUE, GREEN, LINE, ORANGE, SOFT, TEXT, axes, dots, draw, failed, held, line, words,
};
use super::{Report, ReportError};

type Picture = fn(&Report) -> Result<Option<String>, ReportError>;

/// File names without their ending, and who draws them.
const PICTURES: &[(&str, Picture)] = &[
    ("confusion", confusion),
    ("reliability", reliability),
    ("coverage", coverage),
    ("typos", typos),
    ("ood", ood),
    ("latency", latency),
];

/// File names and SVGs; what was not measured has none.
///
/// # Errors
///
/// [`ReportError`] when the plotting library fails.
pub fn pictures(report: &Report) -> Result<Vec<(String, String)>, ReportError> {
    let mut all = Vec::new();
    for (name, picture) in PICTURES {
        if let Some(svg) = picture(report)? {
            all.push((format!("{name}.svg"), svg));
        }
    }
    Ok(all)
}

/// Rows are truths, columns guesses; the darker, the larger its share of the row.
fn confusion(report: &Report) -> Result<Option<String>, ReportError> {
    const CELL: i32 = 34;
    /// Pixels for the names on both sides.
    const NAMES: i32 = 140;
    /// More labels than that are unreadable, and a file may hold any number.
    const MOST: usize = 64;
    let confusion = &report.evaluation.confusion;
    let n = confusion.labels.len().min(MOST);
    let right = NAMES + CELL * n as i32;
    let size = (right as u32 + 20, right as u32 + 50);
    let svg = draw(size, |area| {
        let title = "Confusion: rows are right answers, columns guesses (%)";
        words(area, title, (size.0 as i32 / 2, 14), TEXT, (HPos::Center, VPos::Center), false)?;
        let top = 30;
        for (row, truth) in confusion.labels.iter().take(n).enumerate() {
            let counts = confusion.rows.get(row).map_or(&[][..], Vec::as_slice);
            let total: usize = counts.iter().sum();
            let y = top + CELL * row as i32;
            let name = if truth.is_empty() { "nothing said" } else { truth };
            let middle = (HPos::Right, VPos::Center);
            words(area, name, (NAMES - 8, y + CELL / 2), TEXT, middle, false)?;
            let under = (NAMES + CELL * row as i32 + CELL / 2, top + CELL * n as i32 + 8);
            words(area, name, under, TEXT, middle, true)?;
            for (column, count) in counts.iter().take(n).enumerate() {
                let x = NAMES + CELL * column as i32;
                let share = *count as f64 / total.max(1) as f64;
                // Errors are a few per cent each: a root shows them.
                let ink = if row == column { BLUE } else { ORANGE };
                let fill = ink.mix(share.sqrt());
                let corners = [(x, y), (x + CELL, y + CELL)];
                area.draw(&Rectangle::new(corners, fill.filled())).map_err(failed)?;
                area.draw(&Rectangle::new(corners, LINE)).map_err(failed)?;
                if share >= 0.005 {
                    let dark = share > 0.35;
                    let colour = if dark { WHITE } else { TEXT };
                    let text = format!("{:.0}", share * 100.0);
                    let centre = (x + CELL / 2, y + CELL / 2);
                    words(area, &text, centre, colour, (HPos::Center, VPos::Center), false)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

fn reliability(report: &Report) -> Result<Option<String>, ReportError> {
    let title = format!("Reliability: calibration error {:.3}", report.evaluation.ece);
    let total: usize = report.reliability.iter().map(|bin| bin.n).sum();
    let svg = draw((520, 420), |area| {
        let mut chart = axes(
            area,
            &Axes {
                title: &title,
                x: 0.0..1.0,
                y: 0.0..1.02,
                x_name: "confidence (bars: share of questions)",
                y_name: "accuracy",
                x_log: false,
            },
        )?;
        for bin in &report.reliability {
            let share = bin.n as f64 / total.max(1) as f64;
            let bar = [(held(bin.low), 0.0), (held(bin.high), held(share))];
            chart.draw_series([Rectangle::new(bar, SOFT.mix(0.35).filled())]).map_err(failed)?;
        }
        line(&mut chart, [(0.0, 0.0), (1.0, 1.0)], SOFT)?;
        let points = || report.reliability.iter().map(|bin| (bin.confidence, bin.accuracy));
        line(&mut chart, points(), BLUE)?;
        dots(&mut chart, points(), BLUE)
    })?;
    Ok(Some(svg))
}

fn coverage(report: &Report) -> Result<Option<String>, ReportError> {
    let least = report.coverage.iter().map(|p| p.y).fold(1.0, f64::min);
    let title = format!(
        "Coverage: {:.1} % of all, {:.1} % of the surest nine tenths",
        100.0 * report.evaluation.accuracy,
        100.0 * report.evaluation.accuracy_at_90
    );
    let svg = draw((520, 420), |area| {
        let mut chart = axes(
            area,
            &Axes {
                title: &title,
                x: 0.0..1.0,
                y: (held(least) - 0.05).max(0.0)..1.005,
                x_name: "share answered, the surest first",
                y_name: "accuracy",
                x_log: false,
            },
        )?;
        line(&mut chart, report.coverage.iter().map(|p| (p.x, p.y)), BLUE)?;
        let marked = |p: &&super::Point| (p.x - 0.9).abs() < 1e-9 || (p.x - 1.0).abs() < 1e-9;
        dots(&mut chart, report.coverage.iter().filter(marked).map(|p| (p.x, p.y)), BLUE)
    })?;
    Ok(Some(svg))
}

/// One of a row's numbers.
type Of = fn(&super::Mistyped) -> f64;

fn typos(report: &Report) -> Result<Option<String>, ReportError> {
    let most = report.typos.iter().map(|t| t.rate).fold(0.1, f64::max);
    let least = report.typos.iter().map(|t| t.accuracy).fold(1.0, f64::min);
    let svg = draw((520, 420), |area| {
        let mut chart = axes(
            area,
            &Axes {
                title: "Mistyped text: all (blue), surest nine tenths (green)",
                x: 0.0..held(most) * 1.03,
                y: (held(least) - 0.1).max(0.0)..1.0,
                x_name: "rate of mistyping",
                y_name: "accuracy",
                x_log: false,
            },
        )?;
        let both: [(RGBColor, Of); 2] = [(BLUE, |t| t.accuracy), (GREEN, |t| t.accuracy_at_90)];
        for (colour, of) in both {
            let points = || report.typos.iter().map(move |t| (t.rate, of(t)));
            line(&mut chart, points(), colour)?;
            dots(&mut chart, points(), colour)?;
        }
        Ok(())
    })?;
    Ok(Some(svg))
}

fn ood(report: &Report) -> Result<Option<String>, ReportError> {
    let Some(rejection) = &report.ood else { return Ok(None) };
    let svg = draw((1000, 420), |area| {
        let (left, right) = area.split_horizontally(480);
        roc(&left, rejection)?;
        histogram(&right, rejection)
    })?;
    Ok(Some(svg))
}

fn roc(area: &super::plot::Area<'_>, rejection: &Rejection) -> Result<(), ReportError> {
    let title = format!("Text of no domain: area under the curve {:.3}", rejection.auc);
    let mut chart = axes(
        area,
        &Axes {
            title: &title,
            x: 0.0..1.0,
            y: 0.0..1.01,
            x_name: "share of questions rejected",
            y_name: "share of such text rejected",
            x_log: false,
        },
    )?;
    line(&mut chart, [(0.0, 0.0), (1.0, 1.0)], SOFT)?;
    line(&mut chart, rejection.roc.iter().map(|p| (p.x, p.y)), BLUE)
}

fn histogram(area: &super::plot::Area<'_>, rejection: &Rejection) -> Result<(), ReportError> {
    let both = || [(BLUE, &rejection.items_by_oddness), (ORANGE, &rejection.texts_by_oddness)];
    let most = both().iter().flat_map(|(_, v)| v.iter().copied()).fold(0.05, f64::max);
    let mut chart = axes(
        area,
        &Axes {
            title: "Questions (blue), text of no domain (orange)",
            x: 0.0..1.0,
            y: 0.0..held(most) * 1.05,
            x_name: "oddness",
            y_name: "share",
            x_log: false,
        },
    )?;
    for (colour, values) in both() {
        let width = 1.0 / values.len().max(1) as f64;
        let bar = |(at, share): (usize, &f64)| {
            let low = at as f64 * width;
            Rectangle::new([(low, 0.0), (low + width, held(*share))], colour.mix(0.45).filled())
        };
        chart.draw_series(values.iter().enumerate().map(bar)).map_err(failed)?;
    }
    Ok(())
}

fn latency(report: &Report) -> Result<Option<String>, ReportError> {
    let latency = &report.latency;
    // The slowest of all is the machine's doing, and would press the rest together.
    let most = latency.p99.max(1) as f64 * 1.1;
    let title = format!("Time to decide: median {} µs, 99 % in {} µs", latency.p50, latency.p99);
    let svg = draw((520, 420), |area| {
        let mut chart = axes(
            area,
            &Axes {
                title: &title,
                x: 0.0..held(most),
                y: 0.0..1.01,
                x_name: "µs, on the machine that made this report",
                y_name: "share of decisions",
                x_log: false,
            },
        )?;
        let inside = latency.shares.iter().filter(|p| p.x <= most);
        line(&mut chart, inside.map(|p| (p.x, p.y)), BLUE)
    })?;
    Ok(Some(svg))
}
