//! Writes all items of the given data with the part each belongs to, a JSON line
//! each, so that a recipe in another language learns from the same ones and is
//! held back the same ones.
//!
//! ```text
//! items --data [DOMAIN=]FILE … > items.jsonl
//! ```

use std::error::Error;
use std::io::{self, BufWriter, Write};

use router_model::train::{self, data};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut options = train::Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--data" => options.data.push(args.next().ok_or("--data needs a file")?.parse()?),
            _ => return Err(format!("{arg} is unknown; say --data [DOMAIN=]FILE").into()),
        }
    }
    let config::Loaded { domains, .. } = config::load(None)?;
    let mut items = data::read(&options.data, &domains, options.per_book, &mut |_, _, _| {})?;
    items.extend(data::examples(&domains));
    let mut out = BufWriter::new(io::stdout().lock());
    for (item, part) in items.iter().zip(train::parts(&items)) {
        let line = json!({
            "kind": item.kind, "part": part, "domain": item.domain, "question": item.question, "own": item.own_label,
            "text": item.text, "options": item.options,
        });
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}
