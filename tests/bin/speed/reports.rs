//! What each kind of run prints.
//!
//! In: the command line and a [`Bench`].  Out: one JSON object.  Every kind warms up with work like that which it
//! measures.

use std::sync::Arc;

use engine::ExpertMask;
use serde_json::{Value, json};
use tests::random::masks;

use crate::Args;
use crate::machine;
use crate::measure::{Bench, Masks};

/// One context: prompt and generation.
pub fn alone(args: &Args, mut bench: Bench) -> Result<Value, String> {
    bench.warm(&[None]);
    // It warms up, and is what someone waits for who starts the program with a question.
    bench.prompt(args.prompt)?;
    let first_token = bench.seconds_since_start();
    let mut prompt = Vec::new();
    for _ in 0..args.repeat {
        prompt.push(args.prompt as f64 / bench.prompt(args.prompt)?);
    }
    bench.generate(&[None], args.generate.min(8))?;
    let (mut generate, mut held) = (Vec::new(), bench.held);
    for _ in 0..args.repeat {
        generate.push(args.generate as f64 / bench.generate(&[None], args.generate)?.seconds);
        held = held.max(bench.held);
    }
    Ok(json!({
        "load_s": bench.load_seconds,
        "first_token_s": first_token,
        "prompt_tokens": args.prompt,
        "prompt_per_s": prompt,
        "generate_tokens": args.generate,
        "generate_per_s": generate,
        "bytes_per_token": bench.bytes_per_token(),
        "rss_anon": held.anonymous,
        "kv_bytes": held.kv,
        "rss_file": machine::memory().file,
    }))
}

/// One context with taps and one without, a step each in turn; seconds of every step.
pub fn taps_cost(args: &Args, mut bench: Bench) -> Result<Value, String> {
    bench.warm(&[None]);
    bench.taps_in_turn(1, args.prompt, true)?;
    let (mut prompt, mut generate) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..args.repeat {
        let once = [
            bench.taps_in_turn(1, args.prompt, true)?,
            bench.taps_in_turn(args.generate, 1, false)?,
        ];
        for (all, got) in [&mut prompt, &mut generate].into_iter().zip(once) {
            all.iter_mut().zip(got).for_each(|(all, got)| all.extend(got));
        }
    }
    Ok(json!({
        "prompt_tokens": args.prompt,
        "prompt_s_with": prompt[0],
        "prompt_s_without": prompt[1],
        "generate_s_with": generate[0],
        "generate_s_without": generate[1],
    }))
}

/// Many contexts.
pub fn together(args: &Args, streams: usize, mut bench: Bench) -> Result<Value, String> {
    let shape = bench.shape();
    if args.specialists > 0 && !(0.25..=1.0).contains(&args.pool) {
        return Err(format!(
            "masks of a quarter cannot be drawn from {} of the experts",
            args.pool
        ));
    }
    if args.specialists > 0 && shape.experts / 4 < shape.top_k.max(1) {
        let (experts, k) = (shape.experts, shape.top_k);
        return Err(format!(
            "a quarter of {experts} experts is less than the {k} the router picks"
        ));
    }
    let all: Vec<Arc<ExpertMask>> =
        masks(shape, args.specialists, 0.25, args.pool, 1).into_iter().map(Arc::new).collect();
    let mut union = ExpertMask::none(shape);
    all.iter().for_each(|mask| union.unite(mask));
    let union: usize = (0..shape.layers).map(|layer| union.count(layer)).sum();
    let each_layer = bench.routed_layers().max(1) as f64;
    let of = |stream: usize| (!all.is_empty()).then(|| all[stream % all.len()].clone());
    let masks: Masks = (0..streams).map(of).collect();
    bench.warm(&masks);
    let groups: Vec<&[_]> = masks.chunks(if args.serial { 1 } else { streams.max(1) }).collect();
    bench.generate(groups[0], args.generate.min(8))?;
    let (mut per_s, mut steps, mut uses) = (Vec::new(), 0, 0);
    for _ in 0..args.repeat {
        let mut seconds = 0.0;
        for group in &groups {
            let run = bench.generate(group, args.generate)?;
            seconds += run.seconds;
            steps += args.generate;
            uses += run.uses;
        }
        per_s.push((streams * args.generate) as f64 / seconds);
    }
    let uses_per_step = uses as f64 / steps.max(1) as f64;
    let memory = machine::memory();
    Ok(json!({
        "load_s": bench.load_seconds,
        "streams": streams,
        "specialists": args.specialists,
        "serial": args.serial,
        "generate_tokens": args.generate,
        "per_s": per_s,
        "experts_per_layer": uses_per_step / each_layer,
        // Zero for the generalist, which has no mask.
        "union_per_layer": union as f64 / each_layer,
        "bytes_per_step": bench.bytes_per_step(uses_per_step),
        "rss_anon": memory.anonymous,
        "rss_file": memory.file,
    }))
}
