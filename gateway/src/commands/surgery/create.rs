//! `surgery create`: all steps in one go.

use specialists::Registry;
use surgery::corpus::Corpus;
use surgery::create::{Recipe, Texts, Workshop};
use surgery::mask::{Request, Target};

use super::{Bench, asked, failed};
use crate::cli::surgery::create::CreateArgs;
use crate::commands::terminal::{Bar, Failure, result};

/// Runs the step.
pub fn run(bench: &Bench<'_>, args: &CreateArgs) -> Result<(), Failure> {
    let target = Target::keep(&args.keep).map_err(|e| Failure::usage(e).at("keep"))?;
    let score = asked(args.score.as_deref())?;
    let label = &args.domain;
    // Whether a label without a domain will do is for surgery to say.
    let domain = bench.loaded.domains.canonical(label).unwrap_or(label);
    let usual = Recipe::usual(&bench.home, args.id.as_deref().unwrap_or(domain));
    let recipe = Recipe {
        domain: domain.to_owned(),
        score,
        request: Request { target, uniform: !args.per_layer },
        masking: args.masking.into(),
        settle: usual.settle.filter(|_| !args.all),
        force: args.force,
        folder: args.out.clone().unwrap_or(usual.folder.clone()),
        ..usual
    };
    let (corpus, held_out) = (Corpus::at(&args.corpus), args.held_out.as_deref().map(Corpus::at));
    let texts = Texts {
        corpus: &corpus,
        held_out: held_out.as_ref(),
        tokens: args.tokens,
        held_out_tokens: args.held_out_tokens,
    };
    let model = &bench.parent.model;
    let disabled = &bench.loaded.config.specialists.disabled;
    let registry = Registry::open(&bench.home, model.shape(), model.parent(), disabled);
    let (parent, domains) = (&bench.parent, &bench.loaded.domains);
    let shop = Workshop { parent, registry: &registry, domains };
    bench.warm();
    let mut bar = Bar::new(bench.cli);
    let report = shop
        .create(&recipe, texts, &mut |d, t, w| bar.show(d, t, w))
        .map_err(failed("create", "corpus"))?;
    drop(bar);
    if disabled.contains(&report.id) {
        tracing::warn!(id = %report.id, "registered, but switched off by specialists.disabled");
    }
    result(bench.cli, &report, |report| {
        let table = report.evaluation.as_ref().map(|t| t.to_markdown()).unwrap_or_default();
        let warnings: String =
            report.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
        format!(
            "{} is registered at {}; a running server serves it within two seconds\n\
             {} tokens profiled, {} checks passed, files in {}\n{warnings}\n{table}",
            report.id,
            report.registered.display(),
            report.tokens,
            report.verification.checks.len(),
            report.folder.display()
        )
    })
}
