//! `surgery evaluate`: what masks cost, beside the parent and controls.

use std::path::Path;

use engine::{Profile, hash};
use serde::Serialize;
use surgery::corpus::Corpus;
use surgery::evaluate::document::{By, Source};
use surgery::evaluate::questions::{Asking, sets};
use surgery::evaluate::{Column, Controls, Found, Given, Parts, Study, Table, columns};
use surgery::report;

use super::{Bench, failed, failed_at, read_mask};
use crate::cli::surgery::evaluate::{EvaluateArgs, Way};
use crate::commands::terminal::{Bar, Failure, result};

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &EvaluateArgs) -> Result<(), Failure> {
    if !(0.0..=10.0).contains(&args.temperature) {
        return Err(Failure::usage("a temperature is between 0 and 10").at("temperature"));
    }
    let given: Vec<Given> = args.mask.iter().map(|path| mask(path)).collect::<Result<_, _>>()?;
    let profiles: Vec<(Profile, String)> =
        args.profile.iter().map(|path| profile(path)).collect::<Result<_, _>>()?;
    fits(&given, &profiles)?;
    let mut files = Vec::new();
    let mut texts: Vec<Column> = Vec::new();
    for path in &args.corpus {
        let corpus = Corpus::at(path);
        let new = columns(&bench.parent.model, bench.reading(&corpus, None, args.tokens))
            .map_err(failed("corpus", "corpus"))?;
        if let Some(twice) = new.iter().find(|c| texts.iter().any(|own| own.name == c.name)) {
            let message = format!("{:?} is in two files; put a domain's text into one", twice.name);
            return Err(Failure::usage(message).at("corpus"));
        }
        texts.extend(new);
        files.push(source("corpus", path)?);
    }
    let mut asked = Vec::new();
    if let Some(path) = &args.questions {
        asked = sets(&Corpus::at(path), &bench.loaded.domains, args.items)
            .map_err(failed("corpus", "questions"))?;
        if asked.is_empty() {
            let message = format!("{}: no question with options", path.display());
            return Err(Failure::new("corpus", message).at("questions"));
        }
        files.push(source("questions", path)?);
    }
    for path in &args.profile {
        files.push(source("profile", path)?);
    }
    let parts = match &args.out {
        Some(folder) => Parts::at(&folder.join("parts")).map_err(failed_at("io", "out", folder))?,
        None => Parts::none(),
    };
    let controls = Controls { draws: args.random, seed: args.seed };
    let of: Vec<Profile> = profiles.iter().map(|(profile, _)| profile.clone()).collect();
    let study = Study::new(&bench.parent, &given, &of, controls, &parts)
        .map_err(failed("evaluate", "mask"))?;
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let mut progress = |done, total, what: &str| bar.show(done, total, what);
    let mut found = Found::default();
    if !texts.is_empty() {
        let text = study.text(&texts, &mut progress).map_err(failed("evaluate", "corpus"))?;
        found.text = Some(text);
    }
    if !asked.is_empty() {
        let by = match args.by {
            Way::Answer => By::Answer,
            Way::Likelihood => By::Likelihood,
        };
        let (temperature, max_tokens) = (args.temperature, args.max_tokens.max(1));
        let asking = Asking { by, temperature, max_tokens, seed: args.seed };
        let questions = study.questions(&asked, asking, &mut progress);
        found.questions = Some(questions.map_err(failed("evaluate", "questions"))?);
    }
    drop(bar);
    let table = found
        .text
        .as_ref()
        .map(|text| Table::new(&study.subjects, text, bench.parent.model.parent()));
    let command: Vec<String> = std::env::args().collect();
    let evaluation = study.document(found, &profiles, files, command.join(" "));
    if let Some(folder) = &args.out {
        let page = report::html(&evaluation).map_err(failed("internal", "out"))?;
        let mut all = vec![
            ("evaluation.json", json(&evaluation)?),
            ("evaluation.md", report::markdown(&evaluation)),
            ("evaluation.html", page),
        ];
        if let Some(table) = &table {
            all.push(("table.json", json(table)?));
        }
        for (name, text) in all {
            let path = folder.join(name);
            engine::file::replace(&path, text.as_bytes()).map_err(failed_at("io", "out", &path))?;
        }
    }
    result(bench.cli, &evaluation, report::markdown)
}

/// A profile of a mask's domain is the one that the mask was made from: a control of another one would tell nothing.
fn fits(given: &[Given], profiles: &[(Profile, String)]) -> Result<(), Failure> {
    for (profile, sha256) in profiles {
        let own = given.iter().map(|given| &given.file).filter(|f| f.domain == profile.domain);
        let made: Vec<&String> = own.map(|file| &file.profile).collect();
        if let Some(made) = made.first().filter(|_| !made.contains(&sha256)) {
            let domain = &profile.domain;
            let message = format!(
                "the mask of {domain} was made from the profile {made:.12}…, the one that is given is {sha256:.12}…; \
                 give the former, or none"
            );
            return Err(Failure::new("evaluate", message).at("profile"));
        }
    }
    Ok(())
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value).map_err(failed("internal", "out"))? + "\n")
}

fn mask(path: &Path) -> Result<Given, Failure> {
    let (file, sha256) = read_mask(path)?;
    Ok(Given { file, sha256 })
}

fn profile(path: &Path) -> Result<(Profile, String), Failure> {
    let profile = Profile::read(path).map_err(failed("profile", "profile"))?;
    Ok((profile, hash::file(path).map_err(failed("io", "profile"))?))
}

fn source(role: &'static str, path: &Path) -> Result<Source, Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = hash::file(path).map_err(failed("io", role))?;
    Ok(Source { role: role.to_owned(), name, sha256 })
}

#[cfg(test)]
mod tests {
    use engine::{MASK_FORMAT, MaskFile, Shape};

    use super::*;

    #[test]
    fn a_profile_is_the_one_that_the_mask_was_made_from() {
        let shape = Shape::of_experts(1, 2, 1);
        let given = |domain: &str, profile: &str| Given {
            file: MaskFile {
                format: MASK_FORMAT.to_owned(),
                parent: "p".to_owned(),
                domain: domain.to_owned(),
                score: "gate".to_owned(),
                experts: vec![1],
                kept: vec![vec![0]],
                coverage: vec![0.5],
                profile: profile.to_owned(),
                sources: Vec::new(),
                masking: Default::default(),
                passes: Vec::new(),
            },
            sha256: "m".to_owned(),
        };
        let given = [given("law", "abc"), given("law", "def"), given("math", "ghi")];
        #[track_caller]
        fn check(given: &[Given], shape: &Shape, domain: &str, sha256: &str, want: Option<&str>) {
            let profiles = [(Profile::new(shape, "p", domain), sha256.to_owned())];
            let got = fits(given, &profiles).err().map(|failure| failure.message);
            assert!(got.as_deref().map(|m| m.split(';').next().unwrap()) == want, "{got:?}");
        }
        check(&given, &shape, "law", "abc", None);
        check(&given, &shape, "law", "def", None);
        // Of no mask's domain: it is for the page.
        check(&given, &shape, "tools", "xyz", None);
        let other =
            "the mask of math was made from the profile ghi…, the one that is given is abc…";
        check(&given, &shape, "math", "abc", Some(other));
    }
}
