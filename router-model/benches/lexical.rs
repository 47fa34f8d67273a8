//! The lexical stage runs before every request and a head is fitted whenever a
//! domain's file changes, on the gateway's own cores.  Bad would be: more than
//! 300 µs at 512 words, 3 ms at 8,000, a second for a head, or a time that grows
//! with the text.
//!
//! `cargo bench -p router-model --bench lexical` prints one JSON object.

use std::time::Instant;

use config::{Domain, Domains};
use router_model::{Query, Supervisor};

/// Words of a text: a question, a page, a long paste, a file.
const LENGTHS: &[usize] = &[16, 512, 8_000, 200_000];

/// Examples of a domain, as many as an operator is asked for.
const EXAMPLES: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let domains = config::shipped()?.domains;
    let supervisor = Supervisor::shipped(&domains, 0.5)?;
    let mut figures = serde_json::Map::new();
    for words in LENGTHS {
        let query = Query::text(text(*words));
        let times = times(200, || drop(supervisor.decide(&query)));
        figures.insert(format!("words_{words}_us"), serde_json::json!(times));
    }
    let mut added = Domain::new("gardening");
    added.examples = (0..EXAMPLES).map(|n| text(12 + n)).collect();
    let all = Domains::new(domains.iter().cloned().chain([added]).collect())?;
    let times = times(5, || drop(Supervisor::shipped(&all, 0.5)));
    figures.insert("supervisor_with_a_head_of_20_us".into(), serde_json::json!(times));
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

/// Words that differ, of the length of English ones; always the same.
fn text(words: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(words as u64);
    let word = |rng: &mut fastrand::Rng| -> String {
        (0..2 + rng.usize(..8)).map(|_| rng.lowercase()).collect()
    };
    (0..words).map(|_| word(&mut rng) + " ").collect()
}

/// Median and 99th percentile, in microseconds.
fn times(rounds: usize, mut run: impl FnMut()) -> [u128; 2] {
    let mut list: Vec<u128> = (0..rounds + 1)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_micros()
        })
        .skip(1)
        .collect();
    list.sort_unstable();
    [list[list.len() / 2], list[list.len() * 99 / 100]]
}
