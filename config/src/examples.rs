//! Reads a domain's `examples_file`: one example a line, or `.jsonl`.

use std::path::Path;

use serde_json::Value;

use crate::ConfigError;
use crate::reader::read_file;

/// All examples of the file, in order; blank lines hold none.
pub(crate) fn read(path: &Path) -> Result<Vec<String>, ConfigError> {
    let text = read_file(path)?;
    let json = path.extension().is_some_and(|e| e == "jsonl");
    let mut all = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let example = if json { from_json(line) } else { Ok(line.to_owned()) };
        all.push(example.map_err(|reason| ConfigError::Example {
            file: path.to_owned(),
            line: index + 1,
            reason,
        })?);
    }
    Ok(all)
}

/// What the user said in one line of a corpus.
fn from_json(line: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(line).map_err(|err| format!("not JSON: {err}"))?;
    let said = match &value {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) => {
            let field = ["text", "prompt", "question"].iter().find_map(|key| value[*key].as_str());
            field.map(str::to_owned).or_else(|| user_turns(&value))
        }
        _ => None,
    };
    said.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).ok_or_else(|| {
        "no example here; write a text, or an object with \"text\", \"prompt\", \"question\" or \
         \"messages\""
            .into()
    })
}

fn user_turns(value: &Value) -> Option<String> {
    let messages = value["messages"].as_array()?;
    let user = messages.iter().filter(|m| m["role"] == "user");
    let texts: Vec<&str> = user.filter_map(|m| m["content"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, want: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        match (read(&path), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(err), Err(want)) => assert!(err.to_string().contains(want), "{err}"),
            (got, want) => panic!("got {got:?}, want {want:?}"),
        }
    }

    #[test]
    fn reads_lines_and_json() {
        check("a.txt", "one\n\n two \r\n", Ok(&["one", "two"]));
        // A brace is no JSON outside a .jsonl file: users paste code.
        check("a.txt", "{ let x", Ok(&["{ let x"]));
        check("a.jsonl", r#"{"text": "a", "domain": "x"}"#, Ok(&["a"]));
        check("a.jsonl", "\"a\"\n{\"prompt\": \"b\"}\n{\"question\": \"c\"}", Ok(&["a", "b", "c"]));
        let talk = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}"#;
        check("a.jsonl", talk, Ok(&["u"]));
        check("a.jsonl", "\"a\"\n{", Err("a.jsonl:2: not JSON"));
        check("a.jsonl", "\n3", Err("a.jsonl:2: no example here"));
        check("a.jsonl", r#"{"messages": []}"#, Err("a.jsonl:1: no example here"));
    }
}
