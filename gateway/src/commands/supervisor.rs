//! `collegium supervisor`: trains and measures the classifier; the other commands are in files of their own.

mod lint;
mod outcomes;
mod report;

use std::fs;
use std::path::Path;

use config::Domains;
use router_model::train::{self, data, data::Item};
use router_model::{Stage, Supervisor as Classifier, Weights, evaluate};

use super::terminal::{Bar, Failure, result};
use crate::cli::{Cli, JudgeArgs, Supervisor, TrainArgs};
use crate::start::{StartError, settings, supervisor};

/// Contradictions shown; all of them are in the report.
const MOST_TOLD: usize = 20;

/// Trains, measures, looks.
pub fn run(cli: &Cli, what: &Supervisor) -> Result<(), Failure> {
    match what {
        Supervisor::Train(args) => train(cli, args, &settings(cli)?.0),
        Supervisor::Improve(args) => super::improve::run(cli, args),
        Supervisor::Evaluate(args) => {
            let (loaded, _) = settings(cli)?;
            judge(cli, args, &loaded.domains, &loaded.config.supervisor)
        }
        Supervisor::Lint(args) => lint::run(cli, args),
        Supervisor::Outcomes(what) => outcomes::run(cli, what),
    }
}

fn train(cli: &Cli, args: &TrainArgs, loaded: &config::Loaded) -> Result<(), Failure> {
    let defaults = train::Options::default();
    let options = train::Options {
        data: args.data.clone(),
        seed: args.seed.unwrap_or(defaults.seed),
        steps: args.steps.unwrap_or(defaults.steps),
        penalty: args.penalty.unwrap_or(defaults.penalty),
        refit: !args.no_refit,
        leave_out: args.leave_out.clone(),
        encoder: loaded.config.supervisor.encoder.clone(),
        ..defaults
    };
    let mut bar = Bar::new(cli);
    let report = train::train(&options, &loaded.domains, &mut |d, t, what| bar.show(d, t, what))
        .map_err(|e| Failure::new("train", e))?;
    drop(bar);
    let io = |path: &Path, e: std::io::Error| {
        Failure::new("io", format!("{}: {e}", path.display())).at("out")
    };
    fs::create_dir_all(&args.out).map_err(|e| io(&args.out, e))?;
    let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::new("internal", e))?;
    for (name, bytes) in
        [("lexical.bin", report.weights.write()), ("report.json", json.into_bytes())]
    {
        let path = args.out.join(name);
        engine::file::replace(&path, &bytes).map_err(|e| io(&path, e))?;
    }
    for told in report.contradictions.iter().take(MOST_TOLD) {
        eprintln!("two labels, left out: {told}");
    }
    result(cli, &report, |report| {
        let both = report.tune_both.as_ref().zip(report.mix).map(|(both, mix)| {
            format!(
                "with the encoder, on the {} questions that found what it counts: accuracy {:.3} for {:.3}\n\
                 it is asked where the lexical stage is less sure than {}\n",
                both.n, both.accuracy, report.tune.accuracy, mix.below
            )
        });
        format!(
            "trained in {:.0} s; on {} held-out questions: accuracy {:.3}, calibration error {:.3}\n{}\
             {} texts carried two labels and were left out\n\
             weights and report are in {}\n",
            report.seconds,
            report.test.n,
            report.test.accuracy,
            report.test.ece,
            both.unwrap_or_default(),
            report.contradictions.len(),
            args.out.display()
        )
    })
}

/// The weights of a file, or those a server would use.
fn weights_in_use(cli: &Cli, path: Option<&Path>) -> Result<Weights, Failure> {
    if path.is_some() {
        return weights(path);
    }
    let home = config::home(cli.home.as_deref());
    let settings = config::Supervisor { encoder: config::Encoder::Off, ..Default::default() };
    Ok(supervisor(&home, &Domains::default(), &settings)?.weights().clone())
}

/// The weights of a file, or the shipped ones.
fn weights(path: Option<&Path>) -> Result<Weights, Failure> {
    let weights = match path {
        Some(path) => {
            let shown = path.display();
            let bytes = fs::read(path).map_err(|e| Failure::new("io", format!("{shown}: {e}")))?;
            Weights::read(&bytes)
        }
        None => Weights::shipped(),
    };
    weights.map_err(|e| Failure::new("weights", e).at("weights"))
}

fn judge(
    cli: &Cli,
    args: &JudgeArgs,
    domains: &Domains,
    settings: &config::Supervisor,
) -> Result<(), Failure> {
    let weights = weights(args.weights.as_deref())?;
    let classifier = Classifier::new(weights, domains, settings.threshold);
    let classifier = classifier.and_then(|c| c.with_configured(&settings.encoder));
    let mut classifier = classifier.map_err(StartError::from)?;
    match args.stage {
        Some(Stage::Lexical) => classifier = classifier.lexical(),
        Some(Stage::Both) if !classifier.has_encoder() => {
            let why = "this build ships the lexical stage alone; ask with --stage lexical";
            return Err(Failure::new("stage", why).at("stage"));
        }
        _ => {}
    }
    let mut bar = Bar::new(cli);
    let per_book = train::Options::default().per_book;
    let items = data::read(&args.data, domains, per_book, &mut |d, t, what| bar.show(d, t, what))
        .map_err(|e| Failure::new("data", e).at("data"))?;
    drop(bar);
    let mut items = match args.held_out {
        true => train::held_out_items(&items),
        false => items.iter().collect::<Vec<_>>(),
    };
    let options = evaluate::Options {
        seed: args.seed,
        typos: args.typos,
        without_options: args.without_options,
    };
    if let Some(out) = &args.report.out {
        return report::run(cli, (args, out), (&classifier, domains), &items, options);
    }
    let strange = report::strange(args)?;
    let strange: Vec<Item> = strange.iter().map(|one| Item::aside(&one.text)).collect();
    items.extend(&strange);
    let evaluation = evaluate::evaluate(&classifier, &items, &options)
        .map_err(|e| Failure::new("evaluate", e))?;
    result(cli, &evaluation, |e| {
        let mut text = format!(
            "{} questions: accuracy {:.3} ({:.3} on the surest nine tenths), calibration error {:.3}\n\
             abstained on {:.3}, accuracy on the rest {:.3}; {} µs at the median, {} µs at the 99th percentile\n",
            e.n,
            e.accuracy,
            e.accuracy_at_90,
            e.ece,
            e.abstained,
            e.accuracy_decided,
            e.latency_us.p50,
            e.latency_us.p99
        );
        if let (Some(auc), Some(share)) = (e.ood_auc, e.ood_abstained) {
            text += &format!(
                "texts of no domain: area under the curve {auc:.3}, abstained on {share:.3}\n"
            );
        }
        for (name, category) in &e.per_category {
            text += &format!("  {:.3}  {name} ({})\n", category.accuracy, category.n);
        }
        text
    })
}
