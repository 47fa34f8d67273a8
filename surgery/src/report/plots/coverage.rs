//! How much of a domain's gate mass how many experts carry.

use plotters::prelude::*;

use super::{Axes, Ink, LEVELS, axes, draw, failed, held, span};
use crate::report::{ReportError, numbers::short};

/// A line a layer, the first layers light, the last ones dark: the share of gate mass that the largest n experts
/// carry.  `kept` is how many a mask keeps of each layer, in the mean.
pub fn curves(title: &str, mass: &[Vec<f32>], kept: Option<f64>) -> Result<String, ReportError> {
    let layers = mass.len().max(1);
    let experts = mass.iter().map(Vec::len).max().unwrap_or(0).max(1);
    draw((380, 280), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: 0.0..experts as f64,
                y: 0.0..1.02,
                x_name: "experts of a layer, largest first",
                y_name: "",
                rows: 0,
                title: &short(title, 34),
            },
        )?;
        if let Some(kept) = kept {
            let line = [(held(kept), 0.0), (held(kept), 1.02)];
            chart
                .draw_series(LineSeries::new(line, Ink::Soft.rgb().stroke_width(2)))
                .map_err(failed)?;
        }
        for (layer, mass) in mass.iter().enumerate() {
            let depth = Ink::Kept(layer * LEVELS / layers);
            let mut shares: Vec<f64> = mass.iter().map(|v| held(f64::from(*v))).collect();
            shares.sort_by(|a, b| b.total_cmp(a));
            let mut sum = 0.0;
            let line =
                std::iter::once((0.0, 0.0)).chain(shares.iter().enumerate().map(|(i, share)| {
                    sum += share;
                    (i as f64 + 1.0, held(sum).min(1.0))
                }));
            chart
                .draw_series(LineSeries::new(line, depth.rgb().stroke_width(2)))
                .map_err(failed)?;
        }
        Ok(())
    })
}

/// The share that each mask keeps of its domain's gate mass, by layer.
pub fn layers(title: &str, lines: &[(Ink, &[f64])]) -> Result<String, ReportError> {
    let layers = lines.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
    let values = lines.iter().flat_map(|(_, values)| values.iter().copied());
    let y = span(values.chain([1.0]));
    draw((380, 300), |area| {
        let mut chart = axes(
            area,
            &Axes {
                x: -0.2..layers as f64 - 0.8,
                y: y.start.max(0.0)..1.0,
                x_name: "layer",
                y_name: "",
                rows: 0,
                title: &short(title, 40),
            },
        )?;
        for (ink, values) in lines {
            let points = values.iter().enumerate().map(|(l, v)| (l as f64, held(*v)));
            chart
                .draw_series(LineSeries::new(points.clone(), ink.rgb().stroke_width(2)))
                .map_err(failed)?;
            chart
                .draw_series(points.map(|p| Circle::new(p, 3, ink.rgb().filled())))
                .map_err(failed)?;
        }
        Ok(())
    })
}
