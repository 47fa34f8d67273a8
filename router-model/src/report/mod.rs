//! The evaluation report: figures, pictures, and a page of both.
//!
//! In: a supervisor, labelled items, texts of no domain.  Out: a [`Report`], which
//! is the report's JSON; [`pictures`] and [`markdown`] are made of it alone.
//!
//! * `ask`: asks, one [`Asked`] an item; the only file that knows the supervisor.
//! * `curves`: from those to reliability, coverage, rejection and latency; pure.
//! * `plot`: axes, ink and bars in SVG; `pictures`: the six pictures.
//!
//! The promise: accuracy and its like are [`Evaluation`]'s own, so that the report
//! and `--json` cannot differ; the same items give the same pictures, but for the
//! times.
//!
//! To add a picture: a curve with its field in [`Report`], and a row in `PICTURES`.

mod ask;
mod curves;
mod markdown;
mod pictures;
pub(crate) mod plot;
#[cfg(test)]
mod tests;

use serde::Serialize;
use thiserror::Error;

pub use ask::{Strange, strange};
pub use curves::{Asked, Bin, Kind, Latencies, Point, Rejection};
pub use markdown::markdown;
pub use pictures::pictures;

use crate::evaluate::{self, Evaluation};
use crate::item::Item;
use crate::{Supervisor, TrainError};

/// Rates of mistyping that the report asks at.
pub const TYPOS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4];

#[derive(Debug, Error)]
pub enum ReportError {
    /// The plotting library's words.
    #[error("a picture cannot be drawn: {0}")]
    Plot(String),
}

/// Everything the report shows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Confidence against accuracy, 15 equal bins; empty ones are left out.
    pub reliability: Vec<Bin>,
    /// Accuracy (`y`) of the surest share (`x`), in steps of one hundredth.
    pub coverage: Vec<Point>,
    pub typos: Vec<Mistyped>,
    /// Absent if no texts of no domain were given.
    pub ood: Option<Rejection>,
    pub latency: Latencies,
    /// What was asked and how, for a reader.
    pub command: String,
}

/// How it fares when so many are mistyped.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Mistyped {
    pub rate: f64,
    pub accuracy: f64,
    pub accuracy_at_90: f64,
    pub ece: f64,
    pub abstained: f64,
}

/// What is measured, and with what.
pub struct Measured<'a> {
    pub supervisor: &'a Supervisor,
    pub items: &'a [&'a Item],
    pub strange: &'a [Strange],
    /// Whether queries go to the domain of that id.
    pub routed: &'a dyn Fn(&str) -> bool,
    pub options: evaluate::Options,
    pub command: String,
}

/// Asks everything and adds it up.
///
/// `progress` is told (done, total, what).
///
/// # Errors
///
/// [`TrainError::NothingHeldOut`] if there are no items.
pub fn measure(
    measured: Measured<'_>,
    progress: &mut dyn FnMut(u64, u64, &str),
) -> Result<Report, TrainError> {
    let Measured { supervisor, items, strange, routed, options, command } = measured;
    let total = TYPOS.len() as u64 + 2;
    progress(0, total, "asking");
    let evaluation = evaluate::evaluate(supervisor, items, &options)?;
    let mut typos = Vec::new();
    for (done, rate) in TYPOS.iter().enumerate() {
        progress(done as u64 + 1, total, "mistyping");
        let options = evaluate::Options { typos: *rate, ..options };
        let e = evaluate::evaluate(supervisor, items, &options)?;
        let (accuracy, accuracy_at_90) = (e.accuracy, e.accuracy_at_90);
        let (rate, ece, abstained) = (*rate, e.ece, e.abstained);
        typos.push(Mistyped { rate, accuracy, accuracy_at_90, ece, abstained });
    }
    progress(total - 1, total, "asking what belongs nowhere");
    let asked = ask::items(supervisor, items, options.without_options, routed);
    let out = ask::strangers(supervisor, strange, routed);
    let inside: Vec<&Asked> = asked.iter().filter(|one| routed(&one.truth)).collect();
    Ok(Report {
        evaluation,
        reliability: curves::reliability(&asked),
        coverage: curves::coverage(&asked),
        typos,
        ood: curves::rejection(&inside, &out),
        latency: curves::latencies(&asked),
        command,
    })
}
