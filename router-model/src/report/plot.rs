//! SVG by plotters: paper, ink, axes.
//!
//! Drawn on white, since a picture in a README has no page around it that knows
//! whether it is dark.  Text is the reader's own sans-serif.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ReportError;

pub(crate) const TEXT: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
/// What is only to be compared with.
pub(crate) const SOFT: RGBColor = RGBColor(0x8b, 0x94, 0x9e);
pub(crate) const LINE: RGBColor = RGBColor(0xdd, 0xe2, 0xe7);
pub(crate) const BLUE: RGBColor = RGBColor(0x4e, 0x79, 0xa7);
pub(crate) const ORANGE: RGBColor = RGBColor(0xe0, 0x7b, 0x39);
pub(crate) const GREEN: RGBColor = RGBColor(0x2f, 0x8f, 0x4e);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Chart<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(crate) fn failed(error: impl std::fmt::Display) -> ReportError {
    ReportError::Plot(error.to_string())
}

/// An SVG of this size, in its own pixels.
pub(crate) fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&Area<'_>) -> Result<(), ReportError>,
) -> Result<String, ReportError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        paint(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(text)
}

pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Range<f64>,
    pub(crate) y: Range<f64>,
    pub(crate) x_name: &'a str,
    pub(crate) y_name: &'a str,
    /// Numbers of the x axis are logarithms, to base 10, of what is shown.
    pub(crate) x_log: bool,
}

/// Axes, grid and their names.
pub(crate) fn axes<'a, 'b>(
    area: &'a Area<'b>,
    axes: &Axes<'_>,
) -> Result<Chart<'a, 'b>, ReportError> {
    let style = |size: i32| ("sans-serif", size).into_font().color(&TEXT);
    let mut builder = ChartBuilder::on(area);
    builder.margin(12).x_label_area_size(46).y_label_area_size(60);
    builder.caption(axes.title, style(16));
    let mut chart = builder.build_cartesian_2d(axes.x.clone(), axes.y.clone()).map_err(failed)?;
    let label = |value: &f64| tick(*value);
    let x_label = |value: &f64| match (axes.x_log, 10f64.powf(*value)) {
        (true, power) if power >= 10.0 => format!("{power:.0}"),
        (true, power) => tick((power * 100.0).round() / 100.0),
        (false, _) => tick(*value),
    };
    chart
        .configure_mesh()
        .bold_line_style(LINE)
        .light_line_style(TRANSPARENT)
        .axis_style(SOFT)
        .label_style(style(13))
        .axis_desc_style(style(14))
        .x_label_formatter(&x_label)
        .y_label_formatter(&label)
        .x_labels(6)
        .y_labels(6)
        .x_desc(axes.x_name)
        .y_desc(axes.y_name)
        .draw()
        .map_err(failed)?;
    Ok(chart)
}

/// As few digits as it takes.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Bounded as axes are; a strange number gives a strange picture, not an endless one.
pub(crate) fn held(value: f64) -> f64 {
    if value.is_finite() { value.clamp(-1e9, 1e9) } else { 0.0 }
}

pub(crate) fn line(
    chart: &mut Chart<'_, '_>,
    points: impl IntoIterator<Item = (f64, f64)>,
    colour: RGBColor,
) -> Result<(), ReportError> {
    let points = points.into_iter().map(|(x, y)| (held(x), held(y)));
    chart.draw_series(LineSeries::new(points, colour.stroke_width(2))).map_err(failed)?;
    Ok(())
}

pub(crate) fn dots(
    chart: &mut Chart<'_, '_>,
    points: impl IntoIterator<Item = (f64, f64)>,
    colour: RGBColor,
) -> Result<(), ReportError> {
    let dot = |(x, y)| Circle::new((held(x), held(y)), 4, colour.filled());
    chart.draw_series(points.into_iter().map(dot)).map_err(failed)?;
    Ok(())
}

/// Words, where their anchor is at `at` in pixels.
pub(crate) fn words(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    colour: RGBColor,
    anchor: (HPos, VPos),
    turned: bool,
) -> Result<(), ReportError> {
    let style = ("sans-serif", 13).into_font().color(&colour).pos(Pos::new(anchor.0, anchor.1));
    let style = if turned { style.transform(FontTransform::Rotate270) } else { style };
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(failed)
}
