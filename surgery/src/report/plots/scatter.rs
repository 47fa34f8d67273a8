//! Overlap against Y: a point a visitor and target, with the line of least squares.

use plotters::prelude::*;

use super::{Axes, Ink, axes, draw, failed, held, span};
use crate::evaluate::statistics::{Correlation, Estimate};
use crate::report::ReportError;

pub struct Point {
    pub x: f64,
    pub y: Estimate,
    /// The mask on its own domain; not part of the fit.
    pub home: bool,
}

pub fn plot(
    points: &[Point],
    names: (&str, &str),
    fit: Option<&Correlation>,
) -> Result<String, ReportError> {
    let title = match fit {
        Some(c) => format!("r = {:.3}, rank {:.3}, n = {}", c.pearson, c.spearman, c.n),
        None => String::new(),
    };
    let ends = |p: &Point| {
        let sigma = p.y.spread.map_or(0.0, |s| s.sigma);
        [held(p.y.value - sigma), held(p.y.value + sigma)]
    };
    let x = span(points.iter().map(|p| p.x));
    draw((620, 440), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: x.clone(),
                y: span(points.iter().flat_map(ends)),
                x_name: names.0,
                y_name: names.1,
                rows: 0,
                title: &title,
            },
        )?;
        for point in points {
            let ink = if point.home { Ink::Series(1) } else { Ink::Series(0) }.rgb();
            let line = ends(point).map(|y| (held(point.x), y));
            chart.draw_series(LineSeries::new(line, ink.mix(0.45))).map_err(failed)?;
            let dot = Circle::new((held(point.x), held(point.y.value)), 4, ink.mix(0.8).filled());
            chart.draw_series([dot]).map_err(failed)?;
        }
        if let Some(fit) = fit {
            let away = points.iter().filter(|p| !p.home).map(|p| p.x);
            let ends = span(away);
            let line = [ends.start, ends.end].map(|x| (x, held(fit.intercept + fit.slope * x)));
            chart
                .draw_series(LineSeries::new(line, Ink::Text.rgb().stroke_width(2)))
                .map_err(failed)?;
        }
        Ok(())
    })
}
