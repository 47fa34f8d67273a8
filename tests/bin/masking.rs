//! Milliseconds of choosing a mask, files read and written, at the size of the largest parents:
//! `cargo run --release -p tests --bin masking`.
//!
//! A mask is made once per specialist, and again and again by who tries scores and guards: it should answer while one
//! still looks at the screen.  More than 50 ms would be bad.

use std::path::Path;
use std::time::Instant;

use clap::Parser;
use engine::{Profile, Shape, hash};
use surgery::mask::{Beside, Order, Request, Score, Target, Whitelist, make};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 61)]
    layers: usize,
    #[arg(long, default_value_t = 256)]
    experts: usize,
    #[arg(long, default_value_t = 8)]
    top_k: usize,
    /// Each row is the median of so many
    #[arg(long, default_value_t = 21)]
    runs: usize,
}

/// Experts as routers use them: few often, many seldom, the first ranks with the larger gates.
fn profile(args: &Args, domain: &str, seed: u64) -> Profile {
    let mut random = fastrand::Rng::with_seed(seed);
    let shape = Shape::of_experts(args.layers, args.experts, args.top_k);
    let mut profile = Profile::new(&shape, "parent", domain);
    profile.tokens = 100_000;
    for at in 0..args.layers * args.experts {
        let usage = -random.f64().max(1e-9).ln();
        for rank in 0..args.top_k {
            let count = (usage * 300.0 * random.f64()) as i64 + 1;
            let cell = at * args.top_k + rank;
            profile.all.counts[cell] = count;
            profile.all.gate_mass[cell] = count as f64 / (rank + 2) as f64;
            profile.all.output_norm[at] += count as f64 * (1.0 + random.f64());
        }
        profile.all.gated_norm[at] = profile.all.output_norm[at] / 4.0;
    }
    profile
}

/// Everything that `surgery mask` does with its files.
fn once(
    folder: &Path,
    order: &Order,
    guards: &[&str],
    reasoning: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let read = |name: &str| Profile::read(&folder.join(name));
    let own = read("own")?;
    let sha256 = hash::file(&folder.join("own"))?;
    let guards = guards
        .iter()
        .map(|name| Ok((read(name)?, hash::file(&folder.join(name))?)))
        .collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    let guards: Vec<_> =
        guards.iter().map(|(profile, sha256)| (Beside { profile, sha256 }, 0.9)).collect();
    let other = match reasoning {
        true => Some((read("reasoning")?, hash::file(&folder.join("reasoning"))?)),
        false => None,
    };
    let reasoning = other.as_ref().map(|(profile, sha256)| (Beside { profile, sha256 }, 6));
    let order = Order { guards: &guards, reasoning, ..order.clone() };
    let made = make(&own, &sha256, &order)?;
    engine::file::replace(&folder.join("mask.json"), made.file.to_json()?.as_bytes())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    for (seed, name) in (1..).zip(["own", "reasoning", "tools", "refusals"]) {
        profile(&args, name, seed).write(&folder.path().join(name))?;
    }
    let keep = |share| Request { target: Target::Share(share), uniform: true };
    let plain = Order::plain(Score::GateNorm, keep(0.5));
    let per_layer = Request { target: Target::Share(0.5), uniform: false };
    let coverage = Request { target: Target::Coverage(0.9), uniform: true };
    let whitelist = Some(Whitelist { rank: 2.0, count: 10 });
    let every = Order { whitelist, fused: true, ..plain.clone() };
    let guards = ["tools", "refusals"];
    let cases: [(&str, Order, &[&str], bool); 5] = [
        ("half", plain.clone(), &[], false),
        ("half, per layer", Order { request: per_layer, ..plain.clone() }, &[], false),
        ("half, two guards", plain.clone(), &guards, false),
        ("half, every pass, two guards", every, &guards, true),
        ("coverage, two guards", Order { request: coverage, ..plain.clone() }, &guards, false),
    ];
    println!(
        "{} layers x {} experts, top-{}; milliseconds, median of {}, least, most",
        args.layers, args.experts, args.top_k, args.runs
    );
    for (name, order, guards, reasoning) in cases {
        let mut took = Vec::new();
        for _ in 0..args.runs.max(1) {
            let begun = Instant::now();
            once(folder.path(), &order, guards, reasoning)?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        println!(
            "{name:<34} {:>6.1} {:>6.1} {:>6.1}",
            took[took.len() / 2],
            took[0],
            took[took.len() - 1]
        );
    }
    Ok(())
}
