//! Lists that stand in two places: each test reads both.

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
        if name.ends_with("_tests.rs") {
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
