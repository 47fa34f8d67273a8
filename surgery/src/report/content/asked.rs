//! Multiple choice, beside the parent.

use super::super::numbers::{p, percent, signed_interval};
use super::super::{Block, Cell, Section};
use super::{asked, cells, home_at, masks, table};
use crate::evaluate::Evaluation;
use crate::evaluate::document::{By, Heading, Measure};
use crate::evaluate::statistics::{Estimate, Spread};

/// `None` where nothing was asked.
pub fn section(evaluation: &Evaluation) -> Option<Section> {
    let asked_all = evaluation.questions.as_ref()?;
    let how = match asked_all.by {
        By::Answer => format!(
            "Answers are written with thinking off at temperature {}, at most {} tokens, and the letter is read from them; an answer that goes round in circles or does not end is asked once more with another seed, and is wrong if it loops again.",
            asked_all.temperature.unwrap_or_default(),
            asked_all.max_tokens.unwrap_or_default()
        ),
        By::Likelihood => "The choice is the option whose text costs the fewest nats a token after the question; nothing is generated, so nothing can loop.".to_owned(),
    };
    let row = |subject: usize, column: usize| {
        let cell = asked(evaluation, subject, column)?;
        let parent = asked(evaluation, 0, column)?;
        let pair = cell.paired?;
        Some(cells(vec![
            evaluation.subjects[subject].name.clone(),
            asked_all.columns[column].name.clone(),
            cell.n.to_string(),
            percent(asked_all.guessing.get(column).copied().unwrap_or_default()),
            percent(parent.accuracy.value),
            interval(&cell.accuracy),
            percentage_points(&pair.difference),
            format!("{} / {}", pair.gained, pair.lost),
            p(pair.p),
            format!("{} ({} recovered)", cell.loops, cell.recovered),
            cell.unread.to_string(),
        ]))
    };
    let head = [
        "subject",
        "questions of",
        "n",
        "guessing",
        "parent",
        "accuracy (95\u{a0}%)",
        "difference (95\u{a0}%)",
        "gained / lost",
        "McNemar p",
        "loops",
        "unread",
    ];
    let at_home: Vec<Vec<Cell>> = masks(evaluation)
        .filter_map(|(at, _)| row(at, home_at(evaluation, Measure::Accuracy, at)?))
        .collect();
    let parent = |(column, heading): (usize, &Heading)| {
        let cell = asked(evaluation, 0, column)?;
        Some(cells(vec![
            heading.name.clone(),
            cell.n.to_string(),
            interval(&cell.accuracy),
            percent(asked_all.guessing.get(column).copied().unwrap_or_default()),
            format!("{} ({} recovered)", cell.loops, cell.recovered),
            cell.unread.to_string(),
        ]))
    };
    let parents = asked_all.columns.iter().enumerate().filter_map(parent).collect();
    let columns = 0..asked_all.columns.len();
    let all = (1..evaluation.subjects.len())
        .flat_map(|at| columns.clone().map(move |column| (at, column)))
        .filter_map(|(at, column)| row(at, column))
        .collect();
    let words = format!(
        "{how} Parent and subject answer the same questions: gained and lost count those that one alone has right, McNemar's p is the exact binomial of that split, and the difference is in percentage points with Agresti and Min's interval."
    );
    let mut blocks = vec![Block::Text(words)];
    if !asked_all.beats_guessing() {
        let words = "The parent is not clearly better than a guess, so that right answers are luck: nothing else here is made of them where there is text.";
        blocks.push(Block::Text(words.to_owned()));
    }
    if !at_home.is_empty() {
        blocks.push(table("Each mask on its own questions", &head, at_home, false));
    }
    blocks.push(table(
        "The parent",
        &["questions of", "n", "accuracy (95\u{a0}%)", "guessing", "loops", "unread"],
        parents,
        true,
    ));
    blocks.push(table("Everybody on everything", &head, all, true));
    Some(Section { title: "Multiple choice".to_owned(), blocks })
}

fn interval(share: &Estimate) -> String {
    match share.spread {
        Some(s) => {
            format!("{} ({:.1} to {:.1})", percent(share.value), s.low * 100.0, s.high * 100.0)
        }
        None => percent(share.value),
    }
}

fn percentage_points(difference: &Estimate) -> String {
    let hundred = |value: f64| value * 100.0;
    let spread = difference.spread.map(|s| Spread {
        sigma: hundred(s.sigma),
        low: hundred(s.low),
        high: hundred(s.high),
    });
    signed_interval(&Estimate { value: hundred(difference.value), spread }, 1)
}
