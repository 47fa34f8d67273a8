//! Reads what models answered, and what they were asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::TrainError;
use crate::file;
use crate::item::{Item, Kind};

/// Columns in front of the models'.
const FIXED: &[&str] = &["question_id", "category", "answer"];

/// Letters that an answer can be.
const LETTERS: std::ops::RangeInclusive<u8> = b'A'..=b'Z';

/// Questions and who was right about them.
#[derive(Clone, Debug)]
pub struct Table {
    pub models: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub id: i64,
    /// As the table has it; for the report, never for the decision.
    pub category: String,
    pub(crate) item: Item,
    /// By model.  No letter is no answer, which is not right either.
    pub right: Vec<bool>,
}

/// Reads a CSV of answers and the lines of their questions.
///
/// # Errors
///
/// [`TrainError`] with the file, the line, and what was expected there.
pub fn read(answers: &Path, questions: &Path) -> Result<Table, TrainError> {
    let asked = read_questions(questions)?;
    let bad = |line: usize, why: String| TrainError::Line { path: answers.to_owned(), line, why };
    let text = read_text(answers)?;
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end()));
    let Some((_, head)) = lines.next() else {
        return Err(TrainError::Empty { path: answers.to_owned() });
    };
    let head: Vec<&str> = head.trim_start_matches('\u{feff}').split(',').map(str::trim).collect();
    if let Some((at, want)) =
        FIXED.iter().enumerate().find(|(at, want)| head.get(*at) != Some(*want))
    {
        let got = head.get(at).copied().unwrap_or_default();
        let why = format!(
            "column {} is {got:?}; it must be \"{want}\", and the columns question_id, category, \
             answer and one for each model",
            at + 1
        );
        return Err(bad(1, why));
    }
    let models: Vec<String> = head[FIXED.len()..].iter().map(|m| (*m).to_owned()).collect();
    let unique: BTreeSet<&String> = models.iter().collect();
    if models.len() < 2 || unique.len() < models.len() || models.iter().any(String::is_empty) {
        let why = "at least two models are needed, each with a name of its own".to_owned();
        return Err(bad(1, why));
    }
    let (mut rows, mut seen) = (Vec::new(), BTreeSet::new());
    for (line, text) in lines.filter(|(_, line)| !line.is_empty()) {
        let bad = |why: String| bad(line, why);
        if text.contains('"') {
            return Err(bad("quotes are not read; ids and letters need none".into()));
        }
        let cells: Vec<&str> = text.split(',').map(str::trim).collect();
        if cells.len() != head.len() {
            return Err(bad(format!("{} cells, the head has {}", cells.len(), head.len())));
        }
        let id: i64 = cells[0]
            .parse()
            .map_err(|_| bad(format!("question_id is {:?}; it must be a number", cells[0])))?;
        let Some(item) = asked.get(&id) else {
            return Err(bad(format!("question {id} is not among the questions")));
        };
        if !seen.insert(id) {
            return Err(bad(format!("question {id} is there twice")));
        }
        let options = item.options.len();
        for (cell, name) in cells.iter().zip(&head).skip(FIXED.len() - 1) {
            let (known, want) = match cell.as_bytes() {
                // The right answer is one of those offered.  A model's may be any
                // letter, since a wrong one may have been drawn, or none.
                _ if *name == "answer" && options > 0 => {
                    let offered = |letter: u8| usize::from(letter.wrapping_sub(b'A')) < options;
                    let one = matches!(cell.as_bytes(), [letter] if offered(*letter));
                    (one, format!("one of the {options} letters of its options"))
                }
                [] => (*name != "answer", "a letter".to_owned()),
                [letter] => (LETTERS.contains(letter), "a letter from A to Z".to_owned()),
                _ => (false, "one letter from A to Z, or nothing".to_owned()),
            };
            if !known {
                return Err(bad(format!("{name} is {cell:?}; it must be {want}")));
            }
        }
        let right = cells[FIXED.len()..].iter().map(|cell| *cell == cells[2]).collect();
        rows.push(Row { id, category: cells[1].to_owned(), item: item.clone(), right });
    }
    if rows.is_empty() {
        return Err(TrainError::Empty { path: answers.to_owned() });
    }
    Ok(Table { models, rows })
}

fn read_text(path: &Path) -> Result<String, TrainError> {
    file::text(path).map_err(|source| TrainError::Read { path: path.to_owned(), source })
}

fn read_questions(path: &Path) -> Result<BTreeMap<i64, Item>, TrainError> {
    let text = read_text(path)?;
    let mut all = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |why: &str| TrainError::Line {
            path: path.to_owned(),
            line: index + 1,
            why: why.to_owned(),
        };
        let value: Value =
            serde_json::from_str(line).map_err(|error| bad(&format!("not JSON: {error}")))?;
        let id =
            value["question_id"].as_i64().ok_or_else(|| bad("\"question_id\" is no number"))?;
        let text = value["question"].as_str().map(str::trim).filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| bad("\"question\" is no text"))?;
        let options = value["options"].as_array().into_iter().flatten();
        let options = options.filter_map(|o| o.as_str().map(str::to_owned)).collect();
        let domain = value["category"].as_str().unwrap_or_default();
        // Held-out parts are drawn from items that carry their own label.
        let own = Item::new(text, domain, Kind::Question);
        let item = Item { options, own_label: true, question: Some(id), ..own };
        if all.insert(id, item).is_some() {
            return Err(bad(&format!("question {id} is there twice")));
        }
    }
    if all.is_empty() {
        return Err(TrainError::Empty { path: path.to_owned() });
    }
    Ok(all)
}
