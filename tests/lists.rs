//! Lists that stand in two places: each test reads both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file below `folder` whose name ends in one of `ends`.
fn files(folder: &str, ends: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn the_readme_names_every_route() {
    let readme = read("README.md");
    for route in gateway::app::ROUTES {
        assert!(readme.contains(&format!(" {route}`")), "README.md does not name {route}");
    }
}

#[test]
fn the_readme_names_every_architecture() {
    let readme = read("README.md");
    let line = readme.lines().find(|line| line.starts_with("Architectures that run: "));
    let named: Vec<&str> = line.unwrap().split('`').skip(1).step_by(2).collect();
    let known: Vec<&str> = engine::arch::ARCHITECTURES.iter().map(|arch| arch.name).collect();
    assert_eq!(named, known);
}

/// What stands in `code` between each `before` and the next `after`.
fn between<'a>(code: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    code.split(before).skip(1).filter_map(move |rest| Some(rest.split_once(after)?.0))
}

/// The parser takes fields of a body from `fields` alone; the README has a row for each.
#[test]
fn the_readme_names_every_field_of_a_request() {
    let wire = read("gateway/src/wire.rs");
    let mut taken: BTreeSet<&str> = between(&wire, "const NOT_DONE: &[&str] =", ";")
        .flat_map(|list| list.split('"').skip(1).step_by(2))
        .collect();
    // Over line breaks, as in `fields\n.whole("n", 1)`.
    for call in wire.split("fields").skip(1) {
        let call = call.trim_start();
        let Some((method, rest)) = call.strip_prefix('.').and_then(|c| c.split_once('(')) else {
            continue;
        };
        let name = rest.strip_prefix('"').and_then(|name| name.split_once('"'));
        assert!(name.is_some() || !method.contains("whole"), "a field without a name: {call:.40}");
        taken.extend(name.filter(|_| method != "path").map(|(name, _)| name));
    }
    let readme = read("README.md");
    let table = between(&readme, "What a request may say:", "\n\nWhere").next().unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|first| first.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(named, taken);
}

#[test]
fn every_metric_that_is_shown_exists() {
    let known: Vec<&str> = gateway::meter::names().collect();
    let mut shown = files("deploy", &[".json", ".yaml", ".yml", ".md"]);
    shown.extend(files("tests", &[".py"]));
    shown.push(root().join("README.md"));
    for path in shown {
        let text = fs::read_to_string(&path).unwrap();
        for start in text.match_indices("collegium_").map(|(at, _)| at) {
            let name: String =
                text[start..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            // Parts of a name in prose and prefixes in programs end in "_".
            let fits = |known: &&str| match name.strip_suffix('_') {
                Some(_) => known.starts_with(&name),
                None => {
                    ["", "_bucket", "_sum", "_count"].iter().any(|s| name == format!("{known}{s}"))
                }
            };
            assert!(known.iter().any(fits), "{}: no metric {name}", path.display());
        }
    }
}

/// One file knows HTTP statuses, and one knows the names of metrics.
#[test]
fn statuses_and_metric_names_have_one_place() {
    for path in files("gateway/src", &[".rs"]) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with("_tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
        {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // Tests ask for what is shown.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let status = code.contains("StatusCode");
        assert!(!status || name == "errors.rs", "{name} knows HTTP statuses; see errors.rs");
        let metric = code.contains("\"collegium_");
        assert!(!metric || name == "meter.rs", "{name} names a metric; see meter.rs");
    }
}
