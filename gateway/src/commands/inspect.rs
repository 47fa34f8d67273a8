//! `collegium inspect`: what a GGUF file is, and what surgery would touch.
//!
//! Works on any GGUF; what only known architectures have is left out for others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use engine::Shape;
use engine::arch::{Fate, find};
use engine::gguf::{Gguf, Tensor};
use engine::kernels;
use serde::Serialize;

use super::terminal::{Failure, result, size};
use crate::cli::{self, Cli};
use crate::start::{NANO, StartError};

/// What is shown of a file.
#[derive(Debug, Serialize)]
struct Inspected {
    file: String,
    gguf_version: u32,
    architecture: String,
    name: String,
    bytes: u64,
    /// The files of a split model, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Part>,
    tensors: usize,
    /// Bytes by number format.
    formats: BTreeMap<String, u64>,
    /// Those of them that can be cut, and not computed with.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    no_kernel: BTreeSet<String>,
    /// Absent if the engine does not know the architecture; then `unknown` says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Model>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
    /// What a cut file says of where it comes from.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    provenance: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Part {
    file: String,
    bytes: u64,
    tensors: usize,
}

#[derive(Debug, Serialize)]
struct Model {
    layers: usize,
    experts: usize,
    /// [layers], where a cut file has another number in some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experts_by_layer: Vec<usize>,
    experts_per_token: usize,
    /// Blocks that predict further tokens; they do not run here.
    #[serde(skip_serializing_if = "is_zero")]
    blocks_ahead: u64,
    context: usize,
    vocabulary: usize,
    /// Of one expert in one layer, in the mean.
    expert_bytes: u64,
    /// Of all experts that run, what a bank of them holds; without their routers.
    bank_bytes: u64,
    /// Bytes that surgery never touches.
    backbone_bytes: u64,
    /// Bytes of tensors that surgery slices by expert: routers and experts.
    sliced_bytes: u64,
    sliced_tensors: Vec<String>,
    /// The router renormalises, so that a cut file is the masked parent wherever in it the mask acts.
    exact: bool,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Shows a file.
pub fn run(cli: &Cli, args: &cli::Inspect) -> Result<(), Failure> {
    let gguf = match args.file.to_str() {
        Some(NANO) => Gguf::nano(),
        _ => Gguf::open(&args.file),
    };
    let gguf = gguf.map_err(|e| Failure::from(StartError::from(e)).at("FILE"))?;
    result(cli, &inspect(&gguf), show)
}

fn inspect(gguf: &Gguf) -> Inspected {
    let mut formats = BTreeMap::new();
    for tensor in gguf.tensors() {
        *formats.entry(tensor.kind.name().to_owned()).or_default() += tensor.bytes;
    }
    let no_kernel = gguf.tensors().iter().filter(|t| !kernels::runs(t.kind));
    let part = |(index, part): (usize, &engine::gguf::Part)| Part {
        file: part.path().display().to_string(),
        bytes: part.bytes(),
        tensors: gguf.tensors().iter().filter(|t| t.part == index).count(),
    };
    let parts = match gguf.parts() {
        [_] => vec![],
        parts => parts.iter().enumerate().map(part).collect(),
    };
    let (model, unknown) = match model(gguf) {
        Ok(model) => (Some(model), None),
        Err(why) => (None, Some(why)),
    };
    let own = gguf.metadata().iter().filter(|(key, _)| key.starts_with("collegium."));
    Inspected {
        file: gguf.path().display().to_string(),
        gguf_version: gguf.version(),
        architecture: gguf.text("general.architecture").unwrap_or("unknown").to_owned(),
        name: gguf.text("general.name").unwrap_or("unnamed").to_owned(),
        bytes: gguf.bytes(),
        parts,
        tensors: gguf.tensors().len(),
        formats,
        no_kernel: no_kernel.map(|t| t.kind.name().to_owned()).collect(),
        model,
        unknown,
        provenance: own.filter_map(|(k, v)| Some((k.clone(), v.text()?.to_owned()))).collect(),
    }
}

fn model(gguf: &Gguf) -> Result<Model, String> {
    let arch = find(gguf).map_err(|e| e.to_string())?;
    let shape = Shape::read(gguf).map_err(|e| e.to_string())?;
    let sliced = |name: &str| matches!(arch.fate(name), Fate::Slice { .. });
    let bytes_of = |slice: bool| {
        gguf.tensors().iter().filter(|t| sliced(&t.name) == slice).map(|t| t.bytes).sum::<u64>()
    };
    let counts: Vec<usize> = (0..shape.layers).map(|layer| shape.experts_in(layer)).collect();
    let differ = counts.iter().any(|n| *n > 0 && *n != shape.experts);
    // Everything of experts but what chooses them, in layers that run.
    let runs = |t: &&Tensor| match arch.fate(&t.name) {
        Fate::Slice { block } => block < shape.layers && arch.holds_experts(&t.name),
        Fate::Keep | Fate::Unknown => false,
    };
    let bank_bytes = gguf.tensors().iter().filter(runs).map(|t| t.bytes).sum();
    let is_there = |part: &&&str| {
        let of =
            |t: &Tensor| t.name.split_once('.').is_some_and(|(_, rest)| rest.ends_with(**part));
        gguf.tensors().iter().any(of)
    };
    Ok(Model {
        layers: shape.layers,
        experts: shape.experts,
        experts_by_layer: if differ { counts.clone() } else { Vec::new() },
        experts_per_token: shape.top_k,
        blocks_ahead: gguf.int(&arch.ahead_key()).unwrap_or(0),
        context: shape.context,
        vocabulary: shape.vocab,
        expert_bytes: bank_bytes / counts.iter().sum::<usize>().max(1) as u64,
        bank_bytes,
        backbone_bytes: bytes_of(false),
        sliced_bytes: bytes_of(true),
        sliced_tensors: match shape.experts {
            0 => Vec::new(),
            _ => {
                let parts = arch.sliced.iter().filter(is_there);
                parts.map(|part| format!("blk.*.{part}")).collect()
            }
        },
        exact: arch.renormalises,
    })
}

fn show(file: &Inspected) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:14} {value}");
    };
    row("file", format!("{}, {}, GGUF {}", file.file, size(file.bytes), file.gguf_version));
    for (no, Part { file, bytes, tensors }) in file.parts.iter().enumerate() {
        row(&format!("part {}", no + 1), format!("{file}, {}, {tensors} tensors", size(*bytes)));
    }
    row("architecture", file.architecture.clone());
    row("name", file.name.clone());
    let formats: Vec<String> =
        file.formats.iter().map(|(k, b)| format!("{k} {}", size(*b))).collect();
    row("tensors", format!("{} ({})", file.tensors, formats.join(", ")));
    if !file.no_kernel.is_empty() {
        let formats: Vec<&str> = file.no_kernel.iter().map(String::as_str).collect();
        row("no kernel", format!("{}: can be cut, not computed with", formats.join(", ")));
    }
    if let Some(model) = &file.model {
        let Model { layers, experts, experts_per_token, context, vocabulary, .. } = model;
        row("shape", format!("{layers} layers, context {context}, vocabulary {vocabulary}"));
        let each = size(model.expert_bytes);
        if *experts == 0 {
            row("experts", "none: a dense file is its own generalist, and is not cut".to_owned());
        } else {
            let least = model.experts_by_layer.iter().filter(|n| **n > 0).min();
            let count = least.map_or(experts.to_string(), |least| format!("{least} to {experts}"));
            let all = size(model.bank_bytes);
            row(
                "experts",
                format!(
                    "{count} a layer, {experts_per_token} for a token, {each} each, {all} together"
                ),
            );
            if model.blocks_ahead > 0 {
                let text =
                    format!("{} predicting further tokens, which do not run", model.blocks_ahead);
                row("blocks ahead", text);
            }
            row("kept whole", format!("{} (backbone)", size(model.backbone_bytes)));
            let sliced = model.sliced_tensors.join(", ");
            row("surgery slices", format!("{} ({sliced})", size(model.sliced_bytes)));
            let exact = match model.exact {
                true => "a cut file is the same function as the masked parent",
                false => {
                    "a cut file is the parent masked before the router's softmax; gates of kept experts grow"
                }
            };
            row("equivalence", exact.to_owned());
        }
    }
    if let Some(unknown) = &file.unknown {
        row("not served", unknown.clone());
    }
    for (key, value) in &file.provenance {
        row("provenance", format!("{key} = {value}"));
    }
    text
}
