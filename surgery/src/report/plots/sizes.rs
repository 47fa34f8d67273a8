//! Size against quality: a point a mask, a line a domain.

use plotters::prelude::*;

use super::{Axes, Ink, SERIES, axes, draw, failed, held, span};
use crate::report::ReportError;

/// Masks of one domain, or of one kind of control.
pub struct Line {
    pub ink: Ink,
    /// Size as a share of the parent's, and quality.
    pub points: Vec<(f64, f64)>,
    /// A control, drawn as its points alone.
    pub control: bool,
}

pub fn plot(lines: &[Line], what: &str) -> Result<String, ReportError> {
    let points = || lines.iter().flat_map(|line| &line.points);
    draw((760, 420), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: span(points().map(|p| p.0).chain([1.0])),
                y: span(points().map(|p| p.1).chain([1.0])),
                x_name: "size, share of the parent's bytes",
                y_name: what,
                rows: 0,
                title: "",
            },
        )?;
        // The parent.
        chart
            .draw_series([Cross::new((1.0, 1.0), 6, Ink::Text.rgb().stroke_width(2))])
            .map_err(failed)?;
        for line in lines {
            let ink = line.ink.rgb();
            let mut points: Vec<(f64, f64)> =
                line.points.iter().map(|(x, y)| (held(*x), held(*y))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if !line.control {
                chart
                    .draw_series(LineSeries::new(points.clone(), ink.stroke_width(2)))
                    .map_err(failed)?;
            }
            let dots = points
                .iter()
                .map(|p| Circle::new(*p, if line.control { 3 } else { 5 }, ink.filled()));
            chart.draw_series(dots).map_err(failed)?;
        }
        Ok(())
    })
}

/// A colour for each of so many domains, until they come round again.
pub fn ink(at: usize) -> Ink {
    Ink::Series(at % SERIES)
}
