//! The short form: nats a token, subjects down, domains across.
//!
//! What `create` keeps beside a new specialist, and what other programs draw
//! from; an [`Evaluation`](super::Evaluation) has everything.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::document::{Heading, Kind, Subject, Text};
use super::statistics::mean;

/// Nats per token by subject and domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// SHA-256 of the parent's file.
    pub parent: String,
    pub columns: Vec<Heading>,
    /// The parent, then the masks as given, then the random masks.
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub kind: Kind,
    /// Mean negative log-likelihood of a token, by column; of the controls, the
    /// mean over the draws.
    pub nats: Vec<f64>,
    /// Of each random mask, by draw and column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draws: Vec<Vec<f64>>,
}

impl Table {
    /// Those subjects that read every column.
    pub fn new(subjects: &[Subject], text: &Text, parent: String) -> Table {
        let mut rows: Vec<Row> = Vec::new();
        for (subject, cells) in subjects.iter().zip(&text.cells) {
            let nats: Option<Vec<f64>> =
                cells.iter().map(|cell| Some(cell.as_ref()?.nats.value)).collect();
            let Some(nats) = nats.filter(|_| subject.kind != Kind::Frequency) else { continue };
            let name = subject.beside.as_ref().unwrap_or(&subject.name).clone();
            match rows.iter_mut().find(|row| row.kind == Kind::Random && row.name == name) {
                Some(row) => row.draws.push(nats),
                None => {
                    let draws = match subject.kind {
                        Kind::Random => vec![nats.clone()],
                        _ => Vec::new(),
                    };
                    rows.push(Row { name, kind: subject.kind, nats, draws });
                }
            }
        }
        for row in rows.iter_mut().filter(|row| !row.draws.is_empty()) {
            let of = |at: usize| mean(&row.draws.iter().map(|draw| draw[at]).collect::<Vec<_>>());
            row.nats = (0..row.nats.len()).map(of).collect();
        }
        Table { parent, columns: text.columns.clone(), rows }
    }

    /// Perplexities, as a Markdown table.
    pub fn to_markdown(&self) -> String {
        let mut text = "| perplexity |".to_owned();
        for column in &self.columns {
            let _ = write!(text, " {} |", column.name);
        }
        text += "\n| --- |";
        text += &" ---: |".repeat(self.columns.len());
        for row in &self.rows {
            let draws = match row.draws.len() {
                0 | 1 => String::new(),
                n => format!(" (mean of {n})"),
            };
            let _ = write!(text, "\n| {}{draws} |", row.name);
            for nats in &row.nats {
                let _ = write!(text, " {:.2} |", nats.exp());
            }
        }
        text + "\n"
    }

    /// The rows of one kind.
    pub fn rows(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_as_perplexities() {
        let row = |name: &str, kind, nats: &[f64], draws: usize| Row {
            name: name.to_owned(),
            kind,
            nats: nats.to_vec(),
            draws: vec![nats.to_vec(); draws],
        };
        let heading = |name: &str| Heading {
            name: name.to_owned(),
            tokens: 10,
            items: 2,
            sha256: String::new(),
        };
        let table = Table {
            parent: "p".to_owned(),
            columns: vec![heading("law"), heading("math")],
            rows: vec![
                row("parent", Kind::Parent, &[0.0, 1.0], 0),
                row("random 16", Kind::Random, &[1.0, 2.0], 3),
            ],
        };
        let want = "| perplexity | law | math |\n| --- | ---: | ---: |\n| parent | 1.00 | 2.72 |\n\
                    | random 16 (mean of 3) | 2.72 | 7.39 |\n";
        assert_eq!(table.to_markdown(), want);
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<Table>(&json).unwrap(), table);
    }
}
