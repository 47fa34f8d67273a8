//! Finds what an encoder counts beside the lexical stage, and measures both.
//!
//! ```text
//! mix --data FILE … --encoder FILE|DIR [--weights FILE] [--test] > mix.json
//! ```
//!
//! The weight of the encoder's logits and the temperature of the sum are those of
//! the least loss on the tuning tenth; the bound above which the lexical stage is
//! believed alone is the lowest that makes the loss no more than three in a hundred
//! worse, as accuracy would be decided by two or three questions.  They are asked
//! without their options, once as they stand and once with typos.  The test tenth is
//! only looked at with `--test`.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use router_model::train::{self, Part, data};
use router_model::{Encoder, MiniLm, Mix, Query, Supervisor, Weights};

/// What both stages say of a question.
struct Both {
    /// Logarithms of the calibrated probabilities.
    lexical: Vec<f32>,
    encoder: Vec<f32>,
    truth: usize,
}

/// By how much of itself asking less often may raise the loss.
const LOSS: f64 = 0.03;

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = train::Options::default();
    let (mut encoder, mut weights, mut test) = (None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--data" => options.data.push(value()?.parse()?),
            "--encoder" => encoder = Some(PathBuf::from(value()?)),
            "--weights" => weights = Some(value()?),
            "--test" => test = true,
            _ => return Err(format!("{arg} is unknown").into()),
        }
    }
    let config::Loaded { domains, .. } = config::load(None)?;
    let weights = match weights {
        Some(path) => Weights::read(&fs::read(path)?)?,
        None => Weights::shipped()?,
    };
    let labels = weights.header().labels.clone();
    let encoder = MiniLm::open(&encoder.ok_or("--encoder is missing")?, &labels)?;
    let lexical = Supervisor::new(weights, &domains, 0.0)?;
    let items = data::read(&options.data, &domains, options.per_book, &mut |_, _, _| {})?;
    let parts = train::parts(&items);
    let ask = |part: Part, typos: f64| -> Vec<Both> {
        let mut rng = fastrand::Rng::with_seed(1);
        let all = items.iter().zip(&parts);
        let asked = all.filter(|(i, p)| **p == part && i.kind == data::Kind::Question);
        let both = asked.filter_map(|(item, _)| {
            let truth = labels.iter().position(|label| *label == item.domain)?;
            let text = swapped(&item.text, typos, &mut rng);
            let decision = lexical.decide(&Query::text(text.clone()));
            let of = |label: &String| {
                let found = decision.alternatives.iter().find(|a| a.domain == *label);
                found.map_or(0.0, |a| a.probability).max(1e-9).ln()
            };
            let lexical = labels.iter().map(of).collect();
            Some(Both { lexical, encoder: encoder.logits(&text), truth })
        });
        both.collect()
    };
    let tune = ask(Part::Tune, 0.0);
    let alone = Mix { weight: 0.0, temperature: 1.0, below: 2.0 };
    let mut mix = alone;
    let mut least = f64::INFINITY;
    for weight in (1..=30).map(|n| n as f32 * 0.1) {
        for temperature in (5..=30).map(|n| n as f32 * 0.1) {
            let tried = Mix { weight, temperature, below: 2.0 };
            let loss = loss(&tune, tried);
            if loss < least {
                (mix, least) = (tried, loss);
            }
        }
    }
    for below in (40..=100).map(|n| n as f32 / 100.0) {
        let tried = Mix { below, ..mix };
        if loss(&tune, tried) <= least * (1.0 + LOSS) {
            mix = tried;
            break;
        }
    }
    println!("{}", serde_json::to_string(&mix)?);
    let show = |name: &str, both: &[Both]| {
        for (stage, mix) in
            [("lexical", alone), ("both", mix), ("always both", Mix { below: 2.0, ..mix })]
        {
            let s = score(both, mix);
            eprintln!(
                "{name:>12} {stage:>12}: {} questions, accuracy {:.4}, at 90 % {:.4}, ece {:.4}, asked {:.3}",
                both.len(),
                s.accuracy,
                s.at_90,
                s.ece,
                s.asked
            );
        }
    };
    show("tune", &tune);
    show("tune, typos", &ask(Part::Tune, 0.2));
    if test {
        show("test", &ask(Part::Test, 0.0));
        show("test, typos", &ask(Part::Test, 0.2));
    }
    Ok(())
}

/// Probabilities of one question.
fn shares(both: &Both, mix: Mix) -> Vec<f32> {
    let sure = both.lexical.iter().copied().fold(f32::NEG_INFINITY, f32::max).exp();
    let pairs = both.lexical.iter().zip(&both.encoder);
    let sums: Vec<f32> = match sure < mix.below {
        true => pairs.map(|(a, b)| (a + mix.weight * b) / mix.temperature).collect(),
        false => both.lexical.clone(),
    };
    let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = sums.iter().map(|z| (z - most).exp()).collect();
    let all: f32 = powers.iter().sum();
    powers.iter().map(|p| (p / all).max(1e-9)).collect()
}

/// The negative log likelihood of all.
fn loss(all: &[Both], mix: Mix) -> f64 {
    all.iter().map(|both| -f64::from(shares(both, mix)[both.truth]).ln()).sum()
}

struct Score {
    accuracy: f64,
    at_90: f64,
    ece: f64,
    asked: f64,
}

fn score(all: &[Both], mix: Mix) -> Score {
    let mut asked = 0;
    let mut guesses: Vec<(f32, bool)> = Vec::new();
    for both in all {
        let sure = both.lexical.iter().copied().fold(f32::NEG_INFINITY, f32::max).exp();
        asked += usize::from(sure < mix.below);
        let shares = shares(both, mix);
        let best = (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b])).unwrap_or(0);
        guesses.push((shares[best], best == both.truth));
    }
    let right = |list: &[(f32, bool)]| {
        list.iter().filter(|g| g.1).count() as f64 / list.len().max(1) as f64
    };
    guesses.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut bins = [(0f64, 0f64); 15];
    for (share, hit) in &guesses {
        let bin = &mut bins[((share * 15.0) as usize).min(14)];
        *bin = (bin.0 + f64::from(*share), bin.1 + f64::from(u8::from(*hit)));
    }
    let off: f64 = bins.iter().map(|(share, hits)| (share - hits).abs()).sum();
    Score {
        accuracy: right(&guesses),
        at_90: right(&guesses[..guesses.len() * 9 / 10]),
        ece: off / guesses.len().max(1) as f64,
        asked: asked as f64 / all.len().max(1) as f64,
    }
}

/// Two neighbouring letters swapped in a share of the words longer than three.
fn swapped(text: &str, share: f64, rng: &mut fastrand::Rng) -> String {
    let word = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        if letters.len() > 3 && rng.f64() < share {
            let at = rng.usize(..letters.len() - 1);
            letters.swap(at, at + 1);
        }
        letters.into_iter().collect::<String>()
    };
    text.split(' ').map(word).collect::<Vec<String>>().join(" ")
}
