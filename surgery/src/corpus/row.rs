//! One line of a corpus: what its keys are, and what it becomes.

use serde::Deserialize;
use serde_json::Value;

use super::{Content, Message, Question};

/// The keys that mean something.
#[derive(Deserialize)]
pub(super) struct Row {
    text: Option<String>,
    prompt: Option<String>,
    response: Option<String>,
    messages: Option<Vec<Message>>,
    question: Option<String>,
    options: Option<Vec<String>>,
    answer: Option<Value>,
    pub domain: Option<String>,
    pub category: Option<String>,
}

/// serde counts lines from the start of what it was given, which is one line.
pub(super) fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{what} (column {})", error.column())
}

fn turn(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content }
}

/// What is asked, without an answer.
pub(super) fn asks(row: Row) -> Result<Content, String> {
    let asked = match row {
        Row { question: Some(question), options, .. } => {
            asked(question, &options.unwrap_or_default())
        }
        Row { prompt: Some(prompt), .. } => prompt,
        _ => return Err("no \"question\" or \"prompt\" to answer".to_owned()),
    };
    Ok(Content::Chat(vec![turn("user", asked)]))
}

pub(super) fn content(row: Row) -> Result<Content, String> {
    match row {
        Row { messages: Some(messages), .. } if messages.is_empty() => {
            Err("\"messages\" is empty".to_owned())
        }
        Row { messages: Some(messages), .. } => Ok(Content::Chat(messages)),
        Row { prompt: Some(prompt), response: Some(response), .. } => {
            Ok(Content::Chat(vec![turn("user", prompt), turn("assistant", response)]))
        }
        Row { prompt: Some(_), .. } => Err("\"prompt\" has no \"response\"".to_owned()),
        Row { question: Some(question), options, answer: Some(answer), .. } => {
            let options = options.unwrap_or_default();
            let answer = answered(&options, &answer)?;
            Ok(Content::Chat(vec![
                turn("user", asked(question, &options)),
                turn("assistant", answer),
            ]))
        }
        Row { question: Some(_), .. } => Err("\"question\" has no \"answer\"".to_owned()),
        Row { text: Some(text), .. } if text.is_empty() => Err("\"text\" is empty".to_owned()),
        Row { text: Some(text), .. } => Ok(Content::Text(text)),
        _ => Err("no item here: \"text\", \"prompt\" and \"response\", \"messages\", or \
                  \"question\" and \"answer\" are read"
            .to_owned()),
    }
}

/// The same line as a question with options, if it is one.
pub(super) fn choices(row: &Row) -> Option<Question> {
    let (text, options) = (row.question.clone()?, row.options.clone()?);
    let answer = chosen(&options, row.answer.as_ref()?).ok()?;
    Some(Question { text, options, answer })
}

/// The letters options are called by.
pub(crate) fn letters() -> impl Iterator<Item = char> {
    'A'..='Z'
}

/// The question as people put it: the options below it, by letter.
pub(crate) fn asked(question: String, options: &[String]) -> String {
    letters()
        .zip(options)
        .fold(question, |text, (letter, option)| format!("{text}\n{letter}. {option}"))
}

fn answered(options: &[String], answer: &Value) -> Result<String, String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err("\"answer\" is neither text nor a number".to_owned()),
    };
    if options.is_empty() {
        return Ok(text);
    }
    if options.len() == 1 {
        return Err("\"options\" has one; a question has two or more, or none".to_owned());
    }
    let chosen = chosen(options, answer)?;
    let (letter, option) = letters().zip(options).nth(chosen).unwrap_or((' ', &text));
    Ok(format!("{option} The answer is ({letter})."))
}

/// Index of the option that `answer` names: a letter, an option or its index.
fn chosen(options: &[String], answer: &Value) -> Result<usize, String> {
    let text = match answer {
        Value::String(text) => text.clone(),
        answer => answer.to_string(),
    };
    if options.len() > letters().count() {
        return Err(format!("{} options; there are letters for 26", options.len()));
    }
    let letter =
        |c: char| letters().take(options.len()).position(|own| own == c.to_ascii_uppercase());
    let mut chars = text.trim().chars();
    let by_letter = chars.next().filter(|_| chars.next().is_none()).and_then(letter);
    let by_text = || options.iter().position(|option| *option == text);
    let by_index = || answer.as_u64()?.try_into().ok().filter(|at| *at < options.len());
    by_letter.or_else(by_text).or_else(by_index).ok_or_else(|| {
        format!("\"answer\" is {text:?}: no letter, text or index of {} options", options.len())
    })
}
