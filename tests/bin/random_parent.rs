//! Writes a parent of random weights: `cargo run --release -p tests --bin random_parent -- --out FILE [--experts 128 …]`.

use std::path::PathBuf;
use std::time::Instant;

use tests::random::{GEMMA4, LARGE, MANY, QWEN3_30B};

const USAGE: &str = "usage: random_parent --out FILE [--shape many|large|qwen3-30b-a3b] [--layers N] [--dim N] [--experts N] \
                     [--top-k N] [--ff N] [--heads N] [--seed N]\n       \
                     random_parent --out FILE --shape gemma4 [--layers N] [--seed N]";

fn main() -> Result<(), String> {
    let (mut shape, mut out) = (MANY, None);
    let (mut gemma4, mut is_gemma4) = (GEMMA4, false);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|e| format!("{flag} {value}: {e}\n{USAGE}"));
        match flag.as_str() {
            "--out" => out = Some(PathBuf::from(&value)),
            "--shape" if value == "many" => shape = MANY,
            "--shape" if value == "large" => shape = LARGE,
            "--shape" if value == "qwen3-30b-a3b" => shape = QWEN3_30B,
            "--shape" if value == "gemma4" => is_gemma4 = true,
            "--layers" => {
                gemma4.layers = number()? as u32;
                shape.layers = gemma4.layers;
            }
            "--dim" => shape.dim = number()?,
            "--experts" => shape.experts = number()? as u32,
            "--top-k" => shape.top_k = number()? as u32,
            "--ff" => shape.ff = number()?,
            "--heads" => shape.heads = number()?,
            "--seed" => {
                gemma4.seed = number()?;
                shape.seed = gemma4.seed;
            }
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (out, begun) = (out.ok_or(USAGE)?, Instant::now());
    let (written, what) = match is_gemma4 {
        true => (gemma4.write(&out), format!("{gemma4:?}")),
        false => (shape.write(&out), format!("{shape:?}")),
    };
    let bytes = written.map_err(|e| format!("{}: {e}", out.display()))?;
    println!("{}: {bytes} bytes in {:.1} s, {what}", out.display(), begun.elapsed().as_secs_f32());
    Ok(())
}
