//! `collegium supervisor outcomes`: which model will be right, and what that saves.

use std::fmt::Write;
use std::fs;

use router_model::outcome::{
    Judged, Options, Outcomes as Model, Trained, curve, markdown, pick, read, train,
};
use router_model::{Supervisor as Classifier, Weights};
use serde::Serialize;

use crate::cli::Cli;
use crate::cli::supervisor::outcomes::{Outcomes, RouteArgs, TrainArgs};
use crate::commands::supervisor::{report, weights_in_use};
use crate::commands::terminal::{Bar, Failure, result, text_of};
use crate::start::StartError;

/// Models worth a line on a terminal.
const SHOWN: usize = 8;

/// Trains, or shows whom a question would go to.
pub fn run(cli: &Cli, what: &Outcomes) -> Result<(), Failure> {
    match what {
        Outcomes::Train(args) => learn(cli, args),
        Outcomes::Route(args) => route(cli, args),
    }
}

fn learn(cli: &Cli, args: &TrainArgs) -> Result<(), Failure> {
    let table = read(&args.data, &args.questions).map_err(|e| Failure::new("data", e))?;
    let options = Options { costs: args.cost.clone(), seed: args.seed };
    let weights: Weights = weights_in_use(cli, None)?;
    let mut bar = Bar::new(cli);
    let trained = train(&table, &weights, &options, &mut |d, t, what| bar.show(d, t, what));
    drop(bar);
    let Trained { outcomes, report: found } = trained.map_err(|e| Failure::new("outcomes", e))?;
    let json = serde_json::to_string_pretty(&found).map_err(|e| Failure::new("internal", e))?;
    let svg = curve(&found).map_err(|e| Failure::new("internal", e))?;
    let files = [
        ("curve.svg".to_owned(), svg),
        ("report.md".to_owned(), markdown(&found)),
        ("report.json".to_owned(), json + "\n"),
    ];
    report::write(&args.out, &files)?;
    let path = args.out.join("outcomes.bin");
    engine::file::replace(&path, &outcomes.write())
        .map_err(|e| Failure::new("io", format!("{}: {e}", path.display())).at("out"))?;
    result(cli, &found, |r| {
        let (best, gain) = (&r.best_single, &r.gain);
        let mut text = format!("{} questions held out\n", r.test);
        // Writing to a string cannot fail.
        for (name, accuracy, cost) in [
            (
                "router, lambda 0",
                r.curve.first().map_or(0.0, |s| s.accuracy),
                r.curve.first().map_or(0.0, |s| s.cost),
            ),
            (best.model.as_str(), best.accuracy, best.cost),
            ("any, drawn evenly", r.random.accuracy, r.random.cost),
            ("oracle", r.oracle.accuracy, r.oracle.cost),
        ] {
            let _ = writeln!(text, "  accuracy {accuracy:.3} at {cost:6.1}  {name}");
        }
        if let Some(step) = &r.as_good {
            let (accuracy, cost, lambda) = (step.accuracy, step.cost, step.lambda);
            let name = format!("router, lambda {lambda:.5}, as good on the second part");
            let _ = writeln!(text, "  accuracy {accuracy:.3} at {cost:6.1}  {name}");
        }
        text + &format!(
            "gain over the best single model {:+.3} ({:+.3} to {:+.3}), calibration error {:.3}\n\
             the model and its report are in {}\n",
            gain.value,
            gain.low,
            gain.high,
            r.ece,
            args.out.display()
        )
    })
}

#[derive(Serialize)]
struct Routed {
    model: String,
    lambda: f64,
    /// Most worth first.
    models: Vec<Judged>,
}

fn route(cli: &Cli, args: &RouteArgs) -> Result<(), Failure> {
    if !args.lambda.is_finite() || args.lambda < 0.0 {
        return Err(Failure::usage("a number of at least 0 is needed").at("lambda"));
    }
    let text = text_of(&args.text)?;
    let shown = args.model.display();
    let bytes = fs::read(&args.model)
        .map_err(|e| Failure::new("io", format!("{shown}: {e}")).at("model"))?;
    let weights = weights_in_use(cli, None)?;
    let model = Model::read(&bytes, &args.model, &weights)
        .map_err(|e| Failure::new("outcomes", e).at("model"))?;
    let classifier =
        Classifier::new(weights, &config::Domains::default(), 0.0).map_err(StartError::from)?;
    let mut models = model.judge(&text, &classifier);
    let first = models[pick(&models, args.lambda)].model.clone();
    let worth = |j: &Judged| j.probability - args.lambda * j.cost;
    // Of equals the one that is asked stands first.
    models.sort_by(|a, b| {
        worth(b).total_cmp(&worth(a)).then_with(|| (b.model == first).cmp(&(a.model == first)))
    });
    let routed = Routed { model: first, lambda: args.lambda, models };
    result(cli, &routed, |routed| {
        let mut text = format!("{}\n", routed.model);
        for judged in routed.models.iter().take(SHOWN) {
            let (p, cost, model) = (judged.probability, judged.cost, &judged.model);
            let _ = writeln!(text, "  {p:.3}  at {cost:6.1}  {model}");
        }
        text
    })
}
