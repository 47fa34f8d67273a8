//! SVG by plotters, in colours that a page can exchange.
//!
//! A plot is drawn on nothing, so that the page's paper shows, with the colours
//! of [`Ink`]; the page's style exchanges them in the dark.  Text is the
//! reader's own sans-serif: nothing is measured here by a font file.
//!
//! Numbers that are none are left out, and axes are bounded, so that a strange
//! file gives a strange plot and not an endless one.

pub mod coverage;
pub mod experts;
pub mod home;
pub mod scatter;
pub mod sizes;

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::ReportError;

/// What a plot is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Words and axes.
    Text,
    /// What is only to be compared with.
    Soft,
    /// The grid.
    Line,
    /// One of [`SERIES`] kinds, for things that are not ordered.
    Series(usize),
    /// Kept and how much used, 0 to [`LEVELS`] - 1.
    Kept(usize),
    /// Dropped and how much used, 0 to [`LEVELS`] - 1.
    Dropped(usize),
}

pub const LEVELS: usize = 5;
/// As many as domains ship.
pub const SERIES: usize = 14;

/// Light and dark.
const SERIES_COLOURS: [(u32, u32); SERIES] = [
    (0x4e79a7, 0x7fabd9),
    (0xe07b39, 0xf29e63),
    (0x2f8f4e, 0x63c07f),
    (0xc0414f, 0xee7b86),
    (0x7b5ea7, 0xb196de),
    (0x8a5a44, 0xc4917a),
    (0xc45a9d, 0xe693c6),
    (0x6f7780, 0xa3abb3),
    (0x9a8a1c, 0xd2c04d),
    (0x1f93a3, 0x58c6d5),
    (0x24436b, 0x9db8e6),
    (0xe3a008, 0xf5d067),
    (0x5b9c12, 0x9ad957),
    (0x8b1e5f, 0xd678ad),
];
const KEPT_COLOURS: [(u32, u32); LEVELS] = [
    (0xd3e2f1, 0x1d3247),
    (0xa8c6e3, 0x28507a),
    (0x76a3cf, 0x3d77b0),
    (0x437db3, 0x6aa3da),
    (0x1d5687, 0xa9cff3),
];
const DROPPED_COLOURS: [(u32, u32); LEVELS] = [
    (0xf5f1ee, 0x1c1e21),
    (0xf9dfc8, 0x40291a),
    (0xf3b987, 0x744322),
    (0xe28a42, 0xb5662b),
    (0xb85c14, 0xf09a55),
];

impl Ink {
    /// In the light and in the dark, as 0xRRGGBB.
    pub fn colours(self) -> (u32, u32) {
        match self {
            Ink::Text => (0x1b1f24, 0xe4e8ec),
            Ink::Soft => (0x8b949e, 0x7d8791),
            Ink::Line => (0xdde2e7, 0x30373f),
            Ink::Series(n) => SERIES_COLOURS[n % SERIES],
            Ink::Kept(n) => KEPT_COLOURS[n.min(LEVELS - 1)],
            Ink::Dropped(n) => DROPPED_COLOURS[n.min(LEVELS - 1)],
        }
    }

    pub fn all() -> Vec<Ink> {
        let mut all = vec![Ink::Text, Ink::Soft, Ink::Line];
        all.extend((0..SERIES).map(Ink::Series));
        all.extend((0..LEVELS).flat_map(|n| [Ink::Kept(n), Ink::Dropped(n)]));
        all
    }

    /// As plotters writes it.
    pub fn hex(colour: u32) -> String {
        format!("#{colour:06X}")
    }

    fn rgb(self) -> RGBColor {
        let [_, r, g, b] = self.colours().0.to_be_bytes();
        RGBColor(r, g, b)
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn failed(error: impl std::fmt::Display) -> ReportError {
    ReportError::Plot(error.to_string())
}

/// An SVG of this size, in its own pixels.
fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&Area<'_>) -> Result<(), ReportError>,
) -> Result<String, ReportError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        paint(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(text)
}

/// What the axes of a plot are.
struct Axes<'a> {
    x: Range<f64>,
    y: Range<f64>,
    x_name: &'a str,
    y_name: &'a str,
    /// Pixels left for the names of rows; the y axis has no numbers then.
    rows: u32,
    title: &'a str,
}

/// Axes, grid and their names.
fn axes<'a, 'b>(area: &'a Area<'b>, axes: &Axes<'_>) -> Result<Chart<'a, 'b>, ReportError> {
    let style = |size: i32| ("sans-serif", size).into_font().color(&Ink::Text.rgb());
    let mut builder = ChartBuilder::on(area);
    builder.margin(10).x_label_area_size(if axes.x_name.is_empty() { 26 } else { 46 });
    builder.y_label_area_size(if axes.rows > 0 { axes.rows } else { 60 });
    if !axes.title.is_empty() {
        builder.caption(axes.title, style(15));
    }
    let mut chart = builder.build_cartesian_2d(axes.x.clone(), axes.y.clone()).map_err(failed)?;
    let label = |value: &f64| tick(*value);
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(Ink::Line.rgb())
        .light_line_style(TRANSPARENT)
        .axis_style(Ink::Soft.rgb())
        .label_style(style(13))
        .axis_desc_style(style(14))
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .x_labels(6)
        .y_labels(if axes.rows > 0 { 0 } else { 6 })
        .x_desc(axes.x_name)
        .y_desc(axes.y_name);
    if axes.rows > 0 {
        mesh.disable_y_mesh();
    }
    mesh.draw().map_err(failed)?;
    Ok(chart)
}

/// As few digits as it takes.
fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A word beside a point of the chart, its right end there.
fn beside(
    area: &Area<'_>,
    chart: &Chart<'_, '_>,
    at: (f64, f64),
    word: &str,
    ink: Ink,
) -> Result<(), ReportError> {
    let (x, y) = chart.backend_coord(&at);
    let style =
        ("sans-serif", 13).into_font().color(&ink.rgb()).pos(Pos::new(HPos::Right, VPos::Center));
    area.draw(&Text::new(word.to_owned(), (x - 8, y), style)).map_err(failed)
}

/// From the least to the most with some room, within bounds that an axis can have.
fn span(values: impl IntoIterator<Item = f64>) -> Range<f64> {
    let values = values.into_iter().filter(|v| v.is_finite()).map(|v| v.clamp(-1e6, 1e6));
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let room = ((high - low) * 0.06).max(high.abs().max(low.abs()) * 0.01).max(1e-3);
    low - room..high + room
}

/// Bounded as axes are, for what is drawn.
fn held(value: f64) -> f64 {
    if value.is_finite() { value.clamp(-1e6, 1e6) } else { 0.0 }
}
