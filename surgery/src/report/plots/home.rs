//! What each mask is worth at home, beside its controls: a row a mask.

use plotters::prelude::*;

use super::{Axes, Ink, axes, beside, draw, failed, held, span};
use crate::evaluate::statistics::Estimate;
use crate::report::{ReportError, numbers::short};

/// One row.
pub struct Row {
    pub name: String,
    pub own: Estimate,
    /// Of random masks of the same size, by draw.
    pub random: Vec<f64>,
    pub frequency: Option<f64>,
}

/// `what` names the axis; the parent is at 1.
pub fn plot(rows: &[Row], what: &str) -> Result<String, ReportError> {
    let ends = |e: &Estimate| e.spread.map_or([e.value; 2], |s| [s.low, s.high]);
    let values = rows.iter().flat_map(|row| {
        let own = ends(&row.own).into_iter().chain(row.random.iter().copied());
        own.chain(row.frequency).chain([1.0])
    });
    let height = 80 + 26 * rows.len() as u32;
    draw((760, height), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: span(values),
                y: -0.7..rows.len() as f64 - 0.3,
                x_name: what,
                y_name: "",
                rows: 170,
                title: "",
            },
        )?;
        let bottom = -0.7;
        let top = rows.len() as f64 - 0.3;
        let parent = [(1.0, bottom), (1.0, top)];
        chart
            .draw_series(LineSeries::new(parent, Ink::Soft.rgb().stroke_width(2)))
            .map_err(failed)?;
        for (at, row) in rows.iter().rev().enumerate() {
            let y = at as f64;
            let random =
                row.random.iter().map(|x| Circle::new((held(*x), y), 4, Ink::Soft.rgb().filled()));
            chart.draw_series(random).map_err(failed)?;
            let frequency = row
                .frequency
                .iter()
                .map(|x| TriangleMarker::new((held(*x), y), 6, Ink::Series(1).rgb().filled()));
            chart.draw_series(frequency).map_err(failed)?;
            let line = ends(&row.own).map(|x| (held(x), y));
            let own = Ink::Series(0).rgb();
            chart.draw_series(LineSeries::new(line, own.stroke_width(2))).map_err(failed)?;
            let point = Circle::new((held(row.own.value), y), 5, own.filled());
            chart.draw_series([point]).map_err(failed)?;
            let left = chart.x_range().start;
            beside(area, &chart, (left, y), &short(&row.name, 22), Ink::Text)?;
        }
        Ok(())
    })
}
