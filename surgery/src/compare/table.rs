//! How well an overlap foretells transfer: correlations in a table of pairs.
//!
//! The table is CSV without quotes.  Lines that begin with `#` are comments; the
//! first other line names the columns: `visitor`, `target` (words), `Y` (what
//! the visitor reaches on the target, over what the parent does), and any number
//! of predictors of it, such as `F` and `cosine` (see [`super::overlap`]).

use serde::Serialize;
use thiserror::Error;

/// Rows that a correlation needs at the least.
const ROWS: usize = 3;

/// A table of pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    predictors: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq)]
struct Row {
    visitor: String,
    y: f64,
    /// By predictor.
    values: Vec<f64>,
}

/// What a table says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Correlations {
    /// The visitor whose rows were left out.
    pub without: Option<String>,
    /// Rows.
    pub n: usize,
    /// Each predictor with `Y`, then the predictors with each other.
    pub pairs: Vec<Correlation>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Correlation {
    pub first: String,
    pub second: String,
    /// None where one of the two does not vary.
    pub pearson: Option<f64>,
    /// Of the ranks; equal values share the mean of theirs.
    pub spearman: Option<f64>,
}

#[derive(Debug, Error, PartialEq)]
pub enum TableError {
    #[error("the table is empty; its first line names the columns: visitor,target,Y,F,cosine")]
    Empty,
    #[error(
        "the column {name} is missing; the first line names visitor, target, Y and the predictors"
    )]
    Missing { name: &'static str },
    #[error("there is no predictor beside visitor, target and Y; add a column such as F")]
    NoPredictor,
    #[error("the column {name} is there twice")]
    Twice { name: String },
    #[error("line {line}: {got} fields, the first line names {want}")]
    Fields { line: usize, got: usize, want: usize },
    #[error("line {line}: {column} is {text:?}, which is no finite number")]
    Number { line: usize, column: String, text: String },
    #[error("{rows} rows{}; a correlation needs {ROWS} at the least", without.as_ref().map(|v| format!(" without the visitor {v}")).unwrap_or_default())]
    Few { rows: usize, without: Option<String> },
    #[error("no row has the visitor {name}")]
    Visitor { name: String },
}

impl Table {
    /// # Errors
    ///
    /// [`TableError`] with the line.
    pub fn parse(text: &str) -> Result<Table, TableError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = (1..).zip(text.lines());
        let mut lines = lines.filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#'));
        let (_, head) = lines.next().ok_or(TableError::Empty)?;
        let names: Vec<&str> = head.split(',').map(str::trim).collect();
        let at = |name| names.iter().position(|n| *n == name).ok_or(TableError::Missing { name });
        let (visitor, target, y) = (at("visitor")?, at("target")?, at("Y")?);
        if let Some((_, name)) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
            return Err(TableError::Twice { name: (*name).to_owned() });
        }
        let columns = (0..names.len()).filter(|i| ![visitor, target, y].contains(i));
        let columns: Vec<usize> = columns.collect();
        if columns.is_empty() {
            return Err(TableError::NoPredictor);
        }
        let row = |(line, text): (usize, &str)| -> Result<Row, TableError> {
            let fields: Vec<&str> = text.split(',').map(str::trim).collect();
            if fields.len() != names.len() {
                return Err(TableError::Fields { line, got: fields.len(), want: names.len() });
            }
            let number = |i: usize| -> Result<f64, TableError> {
                let (column, text) = (names[i].to_owned(), fields[i].to_owned());
                match fields[i].parse::<f64>() {
                    Ok(value) if value.is_finite() => Ok(value),
                    _ => Err(TableError::Number { line, column, text }),
                }
            };
            let values = columns.iter().map(|i| number(*i)).collect::<Result<_, _>>()?;
            Ok(Row { visitor: fields[visitor].to_owned(), y: number(y)?, values })
        };
        let rows = lines.map(row).collect::<Result<_, _>>()?;
        Ok(Table { predictors: columns.iter().map(|i| names[*i].to_owned()).collect(), rows })
    }

    /// Correlations over all rows, or over those of other visitors.
    ///
    /// # Errors
    ///
    /// [`TableError`] if there are too few rows, or none of the visitor.
    pub fn correlations(&self, without: Option<&str>) -> Result<Correlations, TableError> {
        let rows = self.rows.iter().filter(|row| Some(&row.visitor[..]) != without);
        let rows: Vec<&Row> = rows.collect();
        let n = rows.len();
        let without = without.map(str::to_owned);
        if let Some(name) = without.clone().filter(|_| n == self.rows.len()) {
            return Err(TableError::Visitor { name });
        }
        if n < ROWS {
            return Err(TableError::Few { rows: n, without });
        }
        let column = |i: usize| -> (String, Vec<f64>) {
            (self.predictors[i].clone(), rows.iter().map(|row| row.values[i]).collect())
        };
        let predictors: Vec<_> = (0..self.predictors.len()).map(column).collect();
        let y = ("Y".to_owned(), rows.iter().map(|row| row.y).collect());
        let between = |(first, a): &(String, Vec<f64>), (second, b): &(String, Vec<f64>)| {
            let (pearson, spearman) = (pearson(a, b), spearman(a, b));
            Correlation { first: first.clone(), second: second.clone(), pearson, spearman }
        };
        let mut pairs: Vec<Correlation> = predictors.iter().map(|p| between(p, &y)).collect();
        for (i, one) in predictors.iter().enumerate() {
            pairs.extend(predictors[..i].iter().map(|before| between(before, one)));
        }
        Ok(Correlations { without, n, pairs })
    }
}

/// Pearson's correlation of two lists of one length; none if one of them does not vary.
pub fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let centred = |values: &[f64]| -> Option<Vec<f64>> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let from: Vec<f64> = values.iter().map(|value| value - mean).collect();
        // By the largest, so that no square leaves the range; rounding of the mean is no variation.
        let most = from.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        let large = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        (most.is_finite() && most > large * 1e-14)
            .then(|| from.iter().map(|value| value / most).collect())
    };
    let (a, b) = (centred(a)?, centred(b)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Some((dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).clamp(-1.0, 1.0))
}

/// Spearman's: Pearson's of the ranks, equal values sharing the mean of theirs.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    pearson(&ranks(a), &ranks(b))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mean = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(mean).collect()
}
