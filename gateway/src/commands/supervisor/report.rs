//! The report of `collegium supervisor evaluate --out DIR`.

use std::path::Path;

use config::Domains;
use router_model::Supervisor as Classifier;
use router_model::evaluate::Options;
use router_model::report::{Measured, Strange, markdown, measure, pictures};
use router_model::train::data::Item;

use crate::cli::{Cli, JudgeArgs};
use crate::commands::terminal::{Bar, Failure, result};

/// The texts of no domain that were given, if any.
pub(super) fn strange(args: &JudgeArgs) -> Result<Vec<Strange>, Failure> {
    let read = args.ood.as_deref().map(router_model::report::strange).transpose();
    Ok(read.map_err(|e| Failure::new("data", e).at("ood"))?.unwrap_or_default())
}

/// Measures, and writes the report into `out`; the JSON comes last, so that a
/// folder with one is whole.
pub fn run(
    cli: &Cli,
    (args, out): (&JudgeArgs, &Path),
    (classifier, domains): (&Classifier, &Domains),
    items: &[&Item],
    options: Options,
) -> Result<(), Failure> {
    let texts = strange(args)?;
    let mut bar = Bar::new(cli);
    let measured = Measured {
        supervisor: classifier,
        items,
        strange: &texts,
        routed: &|id| domains.get(id).is_some_and(|domain| domain.enabled),
        options,
        command: command(args),
    };
    let report = measure(measured, &mut |d, t, what| bar.show(d, t, what))
        .map_err(|e| Failure::new("evaluate", e))?;
    drop(bar);
    let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::new("internal", e))?;
    let mut files = pictures(&report).map_err(|e| Failure::new("internal", e))?;
    files.push(("report.md".to_owned(), markdown(&report)));
    files.push(("report.json".to_owned(), json + "\n"));
    write(out, &files)?;
    result(cli, &report, |r| {
        let e = &r.evaluation;
        format!(
            "{} questions: accuracy {:.3} ({:.3} on the surest nine tenths), calibration error {:.3}{}\n\
             the report is in {}\n",
            e.n,
            e.accuracy,
            e.accuracy_at_90,
            e.ece,
            r.ood.as_ref().map_or(String::new(), |o| format!(", rejection {:.3}", o.auc)),
            out.display()
        )
    })
}

/// Writes every file into the folder, which is made if it is not there.
pub(super) fn write(out: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let io = |path: &Path, e: std::io::Error| {
        Failure::new("io", format!("{}: {e}", path.display())).at("out")
    };
    std::fs::create_dir_all(out).map_err(|e| io(out, e))?;
    for (name, text) in files {
        let path = out.join(name);
        engine::file::replace(&path, text.as_bytes()).map_err(|e| io(&path, e))?;
    }
    Ok(())
}

/// The command without the folders of this machine.
fn command(args: &JudgeArgs) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = "collegium supervisor evaluate".to_owned();
    for source in &args.data {
        let domain = source.domain.as_ref().map(|d| format!("{d}=")).unwrap_or_default();
        text += &format!(" --data {domain}{}", name(&source.path));
    }
    if args.held_out {
        text += " --held-out";
    }
    if args.without_options {
        text += " --without-options";
    }
    if args.typos > 0.0 {
        text += &format!(" --typos {}", args.typos);
    }
    if let Some(path) = &args.ood {
        text += &format!(" --ood {}", name(path));
    }
    text + " --out DIR"
}
