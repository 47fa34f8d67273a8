//! `surgery compare`: what specialists share, what a pool of them costs, and how well overlap foretells transfer.

use std::fs;
use std::path::Path;

use engine::{ExpertMask, MaskFile, Profile, hash};
use surgery::compare::pool::Price;
use surgery::compare::table::{Correlations, Table};
use surgery::compare::{Item, compare};
use surgery::mask::{Request, Score, Target};

use super::{Bench, asked, failed, failed_at, writable};
use crate::cli::Cli;
use crate::cli::surgery::compare::CompareArgs;
use crate::commands::terminal::{Failure, result};

/// Runs the step.
pub fn run(cli: &Cli, args: &CompareArgs) -> Result<(), Failure> {
    if let Some(out) = &args.out {
        let inputs = args.files.iter().chain(&args.table);
        writable(out, &inputs.map(|path| path.as_path()).collect::<Vec<_>>())?;
    }
    if let Some(path) = &args.table {
        let all = correlations(path, args.without.as_deref())?;
        let text: Vec<String> = all.iter().map(Correlations::to_markdown).collect();
        let text = text.join("\n");
        write(args, &text)?;
        return result(cli, &all, |_| text);
    }
    let items = items(args)?;
    let bench = args.parent.as_ref().map(|parent| Bench::new(cli, Some(parent))).transpose()?;
    if let Some(bench) = &bench {
        fits(bench, &items)?;
    }
    let price = bench.as_ref().map(|bench| |kept: &[Vec<u32>]| bytes(bench, kept));
    let price = price.as_ref().map(|price| -> Price { price });
    let report = compare(&items, price).map_err(failed("compare", "files"))?;
    let text = report.to_markdown();
    write(args, &text)?;
    result(cli, &report, |_| text)
}

fn write(args: &CompareArgs, text: &str) -> Result<(), Failure> {
    let Some(path) = &args.out else { return Ok(()) };
    engine::file::replace(path, text.as_bytes()).map_err(failed_at("io", "out", path))
}

/// Over all rows, and then without the visitor.
fn correlations(path: &Path, without: Option<&str>) -> Result<Vec<Correlations>, Failure> {
    let of = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|e| Failure::new("io", of(&e)).at("table"))?;
    let wrong = |field: &'static str| move |error| Failure::new("table", of(&error)).at(field);
    let table = Table::parse(&text).map_err(wrong("table"))?;
    let mut all = vec![table.correlations(None).map_err(wrong("table"))?];
    if without.is_some() {
        all.push(table.correlations(without).map_err(wrong("without"))?);
    }
    Ok(all)
}

/// The files in their order: masks know their profile if it is among the files.
fn items(args: &CompareArgs) -> Result<Vec<Item>, Failure> {
    let score = asked(args.score.as_deref())?;
    let target = Target::keep(&args.keep).map_err(|e| Failure::usage(e).at("keep"))?;
    let request = Request { target, uniform: true };
    let wrong = failed("compare", "files");
    let mut items: Vec<Option<Item>> = Vec::new();
    let mut profiles = Vec::new();
    for path in &args.files {
        if is_mask(path)? {
            let file = MaskFile::read(path).map_err(failed_at("mask", "files", path))?;
            items.push(Some(Item::of_mask(&name(path), &file)));
        } else {
            let profile = Profile::read(path).map_err(failed("profile", "files"))?;
            let sha256 = hash::file(path).map_err(failed("io", "files"))?;
            profiles.push((items.len(), path, profile, sha256));
            items.push(None);
        }
    }
    let score = score.unwrap_or_else(|| Score::best(profiles.iter().map(|(_, _, p, _)| p)));
    for (at, path, profile, sha256) in &profiles {
        let mut known = false;
        for item in items.iter_mut().flatten().filter(|item| item.profile == *sha256) {
            item.know(profile, score).map_err(&wrong)?;
            known = true;
        }
        if !known {
            let item = Item::of_profile(&name(path), profile, sha256, score, request);
            items[*at] = Some(item.map_err(&wrong)?);
        }
    }
    Ok(items.into_iter().flatten().collect())
}

/// What a file says about itself: a mask is JSON.
fn is_mask(path: &Path) -> Result<bool, Failure> {
    use std::io::Read;
    let wrong =
        |e: std::io::Error| Failure::new("io", format!("{}: {e}", path.display())).at("files");
    let mut start = Vec::new();
    fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut start)).map_err(wrong)?;
    Ok(start.trim_ascii_start().starts_with(b"{"))
}

/// A file's name without its endings; those of a specialist are in a folder of its name.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name);
    match (&*file, folder) {
        ("mask.json", Some(folder)) => folder.to_string_lossy().into_owned(),
        _ => file.trim_end_matches(".mask.json").trim_end_matches(".profile").to_owned(),
    }
}

/// Whether all are masks of this parent.
fn fits(bench: &Bench<'_>, items: &[Item]) -> Result<(), Failure> {
    let (shape, own) = (bench.parent.model.shape(), bench.parent.model.parent());
    for item in items {
        let wrong =
            |why: String| Failure::new("compare", format!("{}: {why}", item.name)).at("parent");
        if item.parent != own {
            let why = format!("it is of parent {:.12}…, this parent is {own:.12}…", item.parent);
            return Err(wrong(why));
        }
        ExpertMask::from_kept(shape, &item.kept).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(())
}

/// Unions of masks that fit are masks that fit.
fn bytes(bench: &Bench<'_>, kept: &[Vec<u32>]) -> u64 {
    let mask = ExpertMask::from_kept(bench.parent.model.shape(), kept);
    mask.map_or(0, |mask| bench.parent.bank.bytes(&mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        #[track_caller]
        fn check(path: &str, want: &str) {
            assert_eq!(name(Path::new(path)), want);
        }
        check("a/law.mask.json", "law");
        check("law.profile", "law");
        check("specialists/law/mask.json", "law");
        check("mask.json", "mask.json");
    }
}
