//! Trains and measures the supervisor from the command line.
//!
//! ```text
//! supervisor train    --data [DOMAIN=]FILE … --out DIR [--seed N] [--epochs N]
//! supervisor evaluate --data [DOMAIN=]FILE … [--weights FILE] [--held-out] [--without-options] [--typos RATE]
//! supervisor route    [--weights FILE] TEXT…
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;

use router_model::train::{self, data};
use router_model::{Query, Supervisor, Weights, evaluate};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let mut train = train::Options::default();
    let mut eval = evaluate::Options::default();
    let (mut out, mut weights, mut held_out, mut texts) = (None, None, false, Vec::new());
    let mut threshold = None;
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--data" => train.data.push(value()?.parse()?),
            "--out" => out = Some(value()?),
            "--weights" => weights = Some(value()?),
            "--threshold" => threshold = Some(value()?.parse()?),
            "--seed" => train.seed = value()?.parse()?,
            "--epochs" => train.epochs = value()?.parse()?,
            "--typos" => eval.typos = value()?.parse()?,
            "--held-out" => held_out = true,
            "--without-options" => eval.without_options = true,
            _ => texts.push(arg),
        }
    }
    let config::Loaded { config, domains, .. } = config::load(None)?;
    let mut progress = |done: u64, total: u64, what: &str| eprint!("\r{what} {done} of {total}   ");
    if command == "train" {
        let env = |name: &str, to: &mut f32| {
            if let Some(x) = std::env::var(name).ok().and_then(|x| x.parse().ok()) {
                *to = x;
            }
        };
        let set = &mut train.settings;
        env("RATE", &mut set.rate);
        env("ARATE", &mut set.output_rate);
        env("DECAY", &mut set.decay);
        env("SMOOTH", &mut set.smoothing);
        env("TYPO", &mut set.typos);
        let (mut coll, mut own, mut extra, mut fast) = (40.0, 0.0, 4.0, 0.0);
        env("COLL", &mut coll);
        env("OWN", &mut own);
        env("EXTRA", &mut extra);
        env("FAST", &mut fast);
        (set.collection, set.own_columns, set.extra_columns) =
            (coll as usize, own > 0.0, extra as usize);
        train.refit = fast == 0.0;
        let report = train::train(&train, &domains, &mut progress)?;
        let h = report.weights.header();
        eprintln!(
            "\nDEV n {} alone {:.4}/{:.4} ece {:.3} typos {:.4} ood {:?} | {:?} set {} fam {} cols {} outs {} {:.0}s",
            report.tune.n,
            report.tune.accuracy,
            report.tune.accuracy_at_90,
            report.tune.ece,
            report.tune_typos.accuracy,
            report.tune.ood_auc,
            h.heat,
            h.set_from,
            h.familiar_from,
            h.scales.len(),
            h.outputs.len(),
            report.seconds
        );
        let j5 = Supervisor::new(report.weights.clone(), &domains, 0.5)?;
        eprintln!("threshold {}", j5.threshold());
        let out = out.ok_or("--out is missing")?;
        fs::create_dir_all(&out)?;
        fs::write(Path::new(&out).join("lexical.bin"), report.weights.write())?;
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(Path::new(&out).join("report.json"), &json)?;
        println!("{json}");
        return Ok(());
    }
    let weights = match weights {
        Some(path) => Weights::read(&fs::read(path)?)?,
        None => Weights::shipped()?,
    };
    let sup = Supervisor::new(weights, &domains, threshold.unwrap_or(config.supervisor.threshold))?;
    match command.as_str() {
        "evaluate" => {
            let items = data::read(&train.data, &domains, train.per_book, &mut progress)?;
            let items =
                if held_out { train::held_out_items(&items) } else { items.iter().collect() };
            eprintln!();
            println!(
                "{}",
                serde_json::to_string_pretty(&evaluate::evaluate(&sup, &items, &eval)?)?
            );
        }
        "route" => {
            for text in texts {
                println!("{}", serde_json::to_string(&sup.decide(&Query::text(text)))?);
            }
        }
        _ => return Err("say train, evaluate or route".into()),
    }
    Ok(())
}
