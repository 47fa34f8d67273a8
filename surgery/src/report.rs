//! Shows an evaluation: Markdown, and one page that needs nothing else.
//!
//! In: an [`Evaluation`].  Out: text.  Pure: no files, no clock, no models, so
//! that a page can be made again from its JSON.
//!
//! What is said is put together once, as [`Section`]s of sentences, tables and
//! figures (`content`); [`markdown`] and [`html`] are two ways to write them.
//! Everything that may come from a file (names of domains, masks, files, the
//! command) is plain text until one of the two writes it, and both escape all
//! text; a figure is SVG, and the plotting library escapes there.
//!
//! * `content`: sections from an evaluation; `figures`: those with plots.
//! * `plots`: SVG by plotters; `page`: HTML with its style; `markdown`.
//!
//! The page has no script, loads nothing, follows the reader's light or dark
//! setting and fits a phone: tables and plots scroll on their own.
//!
//! To show another number: a table in `content`.  Another plot: a file in
//! `plots` and its figure in `figures`.

mod content;
mod figures;
mod markdown;
mod numbers;
mod page;
mod plots;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::evaluate::Evaluation;

#[derive(Debug, Error)]
pub enum ReportError {
    /// The plotting library's words.
    #[error("a plot cannot be drawn: {0}")]
    Plot(String),
}

/// A headed part of a report.
struct Section {
    title: String,
    /// Without one it is not written.
    blocks: Vec<Block>,
}

enum Block {
    /// One paragraph.
    Text(String),
    Table(Grid),
    /// Plots side by side, with one caption; the page alone has them.
    Figure(Figure),
}

struct Grid {
    caption: String,
    /// The first column names its row.
    head: Vec<String>,
    rows: Vec<Vec<Cell>>,
    /// Hidden until asked for.
    folded: bool,
    /// Words, not numbers: they may break lines.
    prose: bool,
}

#[derive(Default)]
struct Cell {
    text: String,
    strong: bool,
    /// How good, -1 to 1; 0 is not coloured.
    shade: f64,
}

struct Figure {
    svgs: Vec<String>,
    caption: String,
    /// Class of the page's style, and what it stands for.
    legend: Vec<(plots::Ink, String)>,
    /// Several small ones.
    small: bool,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, ..Cell::default() }
    }
}

/// The tables, for a repository or a terminal.
pub fn markdown(evaluation: &Evaluation) -> String {
    markdown::write(&content::title(evaluation), &content::sections(evaluation))
}

/// The page.
///
/// # Errors
///
/// [`ReportError`] when the plotting library fails.
pub fn html(evaluation: &Evaluation) -> Result<String, ReportError> {
    let mut sections = content::sections(evaluation);
    figures::add(evaluation, &mut sections)?;
    Ok(page::write(&content::title(evaluation), &sections))
}
