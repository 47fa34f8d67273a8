//! What a report says: sections of sentences and tables.
//!
//! Pure functions of an [`Evaluation`]; a section whose numbers were not
//! measured is left out.  Titles are constants, since figures find their section
//! by them.
//!
//! * Here: what is read from the cells, and the tables of text.
//! * `summary`, `asked`, `near_far`: the other sections.

mod asked;
mod near_far;
mod summary;

use std::collections::BTreeMap;

use super::numbers::{bytes, count, percent, sigma, signed, signed_interval};
use super::{Block, Cell, Grid, Section};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{Heading, Kind, Measure, QuestionCell, Subject, TextCell};
use crate::evaluate::statistics::{Estimate, mean};

pub const AT_HOME: &str = "At home";
pub const SIZES: &str = "Size against quality";
pub const TRANSFER: &str = "Near and far";
pub const EXPERTS: &str = "Experts";

pub fn title(evaluation: &Evaluation) -> String {
    match evaluation.origin.name.is_empty() {
        true => "Evaluation of specialists".to_owned(),
        false => format!("Evaluation of specialists of {}", evaluation.origin.name),
    }
}

pub fn sections(evaluation: &Evaluation) -> Vec<Section> {
    [
        summary::section(evaluation),
        at_home(evaluation),
        asked::section(evaluation),
        everywhere(evaluation),
        near_far::section(evaluation),
        provenance(evaluation),
    ]
    .into_iter()
    .flatten()
    .flat_map(|section| match section.title == EVERYWHERE {
        // Its place for the plots that have no table.
        true => vec![section, plots(SIZES), plots(EXPERTS)],
        false => vec![section],
    })
    .collect()
}

const EVERYWHERE: &str = "All against all";

fn plots(title: &str) -> Section {
    Section { title: title.to_owned(), blocks: Vec::new() }
}

/// What Y is a ratio of.
pub fn measures(evaluation: &Evaluation) -> Vec<Measure> {
    let accuracy = evaluation.by_accuracy().then_some(Measure::Accuracy);
    let text = evaluation.text.as_ref().map(|_| Measure::Likelihood);
    accuracy.into_iter().chain(text).collect()
}

/// Names of the columns.
fn domains(evaluation: &Evaluation, measure: Measure) -> Vec<&str> {
    let columns = match measure {
        Measure::Accuracy => evaluation.questions.as_ref().map(|q| &q.columns),
        Measure::Likelihood => evaluation.text.as_ref().map(|t| &t.columns),
    };
    columns.into_iter().flatten().map(|column| column.name.as_str()).collect()
}

/// What a subject is worth on a column, the parent being 1.
fn worth(
    evaluation: &Evaluation,
    measure: Measure,
    subject: usize,
    column: usize,
) -> Option<Estimate> {
    match measure {
        Measure::Accuracy => asked(evaluation, subject, column)?.paired?.ratio,
        Measure::Likelihood => Some(read(evaluation, subject, column)?.ratio),
    }
}

fn asked(evaluation: &Evaluation, subject: usize, column: usize) -> Option<&QuestionCell> {
    evaluation.questions.as_ref()?.cells.get(subject)?.get(column)?.as_ref()
}

fn read(evaluation: &Evaluation, subject: usize, column: usize) -> Option<&TextCell> {
    evaluation.text.as_ref()?.cells.get(subject)?.get(column)?.as_ref()
}

/// The column of a subject's own domain.
fn home_at(evaluation: &Evaluation, measure: Measure, subject: usize) -> Option<usize> {
    let domain = evaluation.subjects.get(subject)?.domain.as_deref()?;
    domains(evaluation, measure).iter().position(|name| *name == domain)
}

/// What a mask is worth at home.
pub fn home(evaluation: &Evaluation, measure: Measure, subject: usize) -> Option<Estimate> {
    worth(evaluation, measure, subject, home_at(evaluation, measure, subject)?)
}

/// What the controls of a mask are worth at its home, by draw.
pub fn controls(evaluation: &Evaluation, measure: Measure, mask: usize, kind: Kind) -> Vec<f64> {
    let Some(column) = home_at(evaluation, measure, mask) else { return Vec::new() };
    let beside = beside(evaluation, mask, kind);
    beside.filter_map(|at| Some(worth(evaluation, measure, at, column)?.value)).collect()
}

/// Controls of a mask: of its sizes by layer, or of itself.
fn beside(evaluation: &Evaluation, mask: usize, kind: Kind) -> impl Iterator<Item = usize> {
    let own = &evaluation.subjects[mask];
    let sizes = |s: &Subject| s.kept.iter().map(Vec::len).collect::<Vec<_>>();
    let all = evaluation.subjects.iter().enumerate();
    all.filter(move |(_, s)| {
        s.kind == kind
            && match kind {
                Kind::Frequency => s.beside.as_ref() == Some(&own.name),
                _ => sizes(s) == sizes(own),
            }
    })
    .map(|(at, _)| at)
}

fn masks(evaluation: &Evaluation) -> impl Iterator<Item = (usize, &Subject)> {
    evaluation.subjects.iter().enumerate().filter(|(_, s)| s.kind == Kind::Mask)
}

fn table(caption: &str, head: &[&str], rows: Vec<Vec<Cell>>, folded: bool) -> Block {
    let head = head.iter().map(|name| name.to_string()).collect();
    Block::Table(Grid { caption: caption.to_owned(), head, rows, folded, prose: false })
}

fn cells(texts: Vec<String>) -> Vec<Cell> {
    texts.into_iter().map(Cell::from).collect()
}

/// Masks by how many experts they keep, the smallest first.
pub fn sizes(evaluation: &Evaluation) -> BTreeMap<usize, Vec<usize>> {
    let mut sizes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, subject) in masks(evaluation) {
        sizes.entry(subject.total()).or_default().push(at);
    }
    sizes
}

fn at_home(evaluation: &Evaluation) -> Option<Section> {
    evaluation.text.as_ref()?;
    let backbone = evaluation.origin.backbone_bytes;
    let row = |(at, subject): (usize, &Subject)| {
        let column = home_at(evaluation, Measure::Likelihood, at)?;
        let (cell, parent) = (read(evaluation, at, column)?, read(evaluation, 0, column)?);
        let heading = &evaluation.text.as_ref()?.columns[column];
        let control = |kind| {
            let costs: Vec<f64> = beside(evaluation, at, kind)
                .filter_map(|c| Some(read(evaluation, c, column)?.cost.value))
                .collect();
            if costs.is_empty() { "–".to_owned() } else { signed(mean(&costs), 3) }
        };
        Some(cells(vec![
            subject.name.clone(),
            signed_interval(&cell.cost, 3),
            sigma(&cell.ratio, 3),
            control(Kind::Frequency),
            control(Kind::Random),
            percent(cell.agreement.value),
            format!("{:.3}", cell.kl.value),
            format!("{:.2}", parent.nats.value.exp()),
            format!("{:.2}", cell.nats.value.exp()),
            format!(
                "{} of {}",
                subject.total(),
                evaluation.origin.layers * evaluation.origin.experts
            ),
            bytes(backbone + subject.expert_bytes),
            count(heading.tokens),
        ]))
    };
    let rows: Vec<Vec<Cell>> = masks(evaluation).filter_map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let head = [
        "mask",
        "cost, nats a token (95\u{a0}%)",
        "Y ± σ",
        "cost by frequency",
        "cost by lot",
        "top-1 agreement",
        "KL, nats",
        "parent's perplexity",
        "its own",
        "experts",
        "size",
        "tokens",
    ];
    let words = "Each mask on held-out text of the domain it was made for. Cost is nats a token above the parent on the same tokens, with the interval of a paired bootstrap over stretches of 128 tokens; neighbours are alike, so that it is a little narrow. Y is exp(-cost), the parent's perplexity by the mask's. Agreement is the share of tokens for which the most probable token is the parent's; KL is of the parent's distribution from the mask's, exact over the vocabulary.";
    let blocks =
        vec![Block::Text(words.to_owned()), table("Held-out text at home", &head, rows, false)];
    Some(Section { title: AT_HOME.to_owned(), blocks })
}

fn everywhere(evaluation: &Evaluation) -> Option<Section> {
    let mut blocks = Vec::new();
    for measure in measures(evaluation) {
        let names = domains(evaluation, measure);
        let mut head = vec!["subject"];
        head.extend(&names);
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        let mut past: Vec<&str> = Vec::new();
        for (at, subject) in evaluation.subjects.iter().enumerate() {
            let label = subject.beside.as_deref().unwrap_or(&subject.name);
            let group: Vec<usize> = match subject.kind {
                Kind::Mask => vec![at],
                Kind::Random if !past.contains(&label) => (0..evaluation.subjects.len())
                    .filter(|r| evaluation.subjects[*r].beside.as_deref() == Some(label))
                    .filter(|r| evaluation.subjects[*r].kind == Kind::Random)
                    .collect(),
                _ => continue,
            };
            past.push(label);
            let name = match group.len() {
                1 => label.to_owned(),
                n => format!("{label}, mean of {n}"),
            };
            let cell = |column: usize| {
                let values: Vec<Estimate> =
                    group.iter().filter_map(|at| worth(evaluation, measure, *at, column)).collect();
                if values.is_empty() {
                    return Cell::from("–".to_owned());
                }
                let value = mean(&values.iter().map(|v| v.value).collect::<Vec<_>>());
                let text = match &values[..] {
                    [one] => sigma(one, 2),
                    _ => format!("{value:.2}"),
                };
                let strong = home_at(evaluation, measure, at) == Some(column);
                // A half of the parent's worth is as bad as can be told apart.
                Cell { text, strong, shade: ((value - 1.0) * 2.0).clamp(-1.0, 1.0) }
            };
            rows.push(
                std::iter::once(Cell::from(name)).chain((0..names.len()).map(cell)).collect(),
            );
        }
        if rows.is_empty() || names.is_empty() {
            continue;
        }
        let caption = match measure {
            Measure::Accuracy => "Accuracy as a ratio to the parent's, ± one standard error",
            Measure::Likelihood => {
                "Likelihood a token as a ratio to the parent's, exp(-cost), ± one standard error"
            }
        };
        blocks.push(table(caption, &head, rows, false));
    }
    if blocks.is_empty() {
        return None;
    }
    let words = "Masks down, the items of every domain across; the parent is 1, and a mask on its own domain is bold.";
    blocks.insert(0, Block::Text(words.to_owned()));
    Some(Section { title: EVERYWHERE.to_owned(), blocks })
}

fn provenance(evaluation: &Evaluation) -> Option<Section> {
    let origin = &evaluation.origin;
    let row = |name: &str, value: String| cells(vec![name.to_owned(), value]);
    let mut rows = vec![
        row(
            "parent",
            format!("{} ({}), sha256 {}", origin.name, origin.architecture, origin.parent),
        ),
        row("version", origin.version.clone()),
        row("seed", origin.seed.to_string()),
    ];
    if !origin.command.is_empty() {
        rows.push(row("command", origin.command.clone()));
    }
    for file in &origin.files {
        rows.push(row(&file.role, format!("{}, sha256 {}", file.name, file.sha256)));
    }
    for (_, mask) in masks(evaluation) {
        let sha256 = mask.mask_sha256.as_deref().unwrap_or("–");
        let score = mask.score.as_deref().unwrap_or("–");
        rows.push(row(&format!("mask {}", mask.name), format!("score {score}, sha256 {sha256}")));
    }
    let items = |what: &str, columns: &[Heading]| {
        let row = |c: &Heading| {
            let size = match what {
                "text" => format!("{} tokens in {} stretches", count(c.tokens), count(c.items)),
                _ => format!("{} questions", count(c.items)),
            };
            row(&format!("{what} {}", c.name), format!("{size}, sha256 {}", c.sha256))
        };
        columns.iter().map(row).collect::<Vec<_>>()
    };
    rows.extend(evaluation.text.iter().flat_map(|t| items("text", &t.columns)));
    rows.extend(evaluation.questions.iter().flat_map(|q| items("questions", &q.columns)));
    let (caption, head) =
        ("What this was made from".to_owned(), ["what", "which"].map(str::to_owned));
    let grid = Grid { caption, head: head.to_vec(), rows, folded: false, prose: true };
    let blocks = vec![Block::Table(grid)];
    Some(Section { title: "Provenance".to_owned(), blocks })
}
