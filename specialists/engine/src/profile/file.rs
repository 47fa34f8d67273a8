//! A profile's file: safetensors, with everything that is text in its metadata.
//!
//! | tensor | |
//! | --- | --- |
//! | `counts` I64, `gate_mass` F64 | [layers, experts, top_k] |
//! | `output_norm`, `gated_norm` F64 | [layers, experts] |
//! | `prompt.` and one of these | the same of the prompt's tokens alone; may be missing |
//! | `pairs` I64 | [layers, experts, experts], symmetric, the diagonal is the sum of `counts`; may be missing |
//! | `signatures` F32, `items` I64 | [items, layers, experts] and [items]; may be missing, both |
//!
//! Metadata: `format`, `parent`, `architecture`, `domain`, `source`, `tokens`, `prompt_tokens`; where it is known
//! `agreement`; with items `items_seen` and `items_every`; `ranks`, `gates` or `norms` is `none` where that was not
//! measured, and beside the latter `norms_of` is `inputs` where `output_norm` has what goes into the output matrices.
//!
//! Files may come from anywhere.  What is read is what it says it is, or an error that names it: every number has its
//! bounds, so that sums of profiles are numbers too.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Known, Profile, ProfileError, Signatures, Taps};

/// The format's name and version.
pub const FORMAT: &str = "collegium.profile/1";

/// The longest file that is read, bytes.  One of 61 layers of 256 experts with all that is optional has 150 MB.
const LONGEST: u64 = 1 << 30;

/// More layers than any model has.
const MOST_LAYERS: usize = 1 << 16;

/// The most tokens or choices that are believed: a thousand times any training run, and sums of many stay numbers.
const MOST_COUNTED: i64 = 1 << 50;

/// The largest sum of gates or norms that is believed.
const LARGEST_SUM: f64 = 1e30;

impl Profile {
    /// The file's bytes.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Bad`] only if the numbers do not have the shape they claim.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProfileError> {
        let bad = |what: String| ProfileError::Bad { path: PathBuf::new(), what };
        let (l, e, k) = (self.layers, self.experts, self.top_k);
        let mut bytes: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let mut meta = HashMap::new();
        let mut say = |key: &str, text: String| drop(meta.insert(key.to_owned(), text));
        for (prefix, taps) in [("", &self.all), ("prompt.", &self.prompt)] {
            bytes.push((format!("{prefix}counts"), Dtype::I64, vec![l, e, k], le(&taps.counts)));
            for (name, values, shape) in [
                ("gate_mass", &taps.gate_mass, vec![l, e, k]),
                ("output_norm", &taps.output_norm, vec![l, e]),
                ("gated_norm", &taps.gated_norm, vec![l, e]),
            ] {
                let values = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                bytes.push((format!("{prefix}{name}"), Dtype::F64, shape, values));
            }
        }
        if let Some(pairs) = &self.pairs {
            bytes.push(("pairs".to_owned(), Dtype::I64, vec![l, e, e], le(pairs)));
        }
        if let Some(signatures) = &self.signatures {
            let items = signatures.items.len();
            bytes.push(("items".to_owned(), Dtype::I64, vec![items], le(&signatures.items)));
            let mass = signatures.mass.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes.push(("signatures".to_owned(), Dtype::F32, vec![items, l, e], mass));
            say("items_seen", signatures.seen.to_string());
            say("items_every", signatures.every.to_string());
        }
        if let Some(agreement) = self.agreement {
            say("agreement", agreement.to_string());
        }
        let Known { ranks, gates, norms, stand_in } = self.known;
        for (key, known) in [("ranks", ranks), ("gates", gates), ("norms", norms)] {
            if !known {
                say(key, "none".to_owned());
            }
        }
        if stand_in {
            say("norms_of", "inputs".to_owned());
        }
        say("format", FORMAT.to_owned());
        say("parent", self.parent.clone());
        say("architecture", self.architecture.clone());
        say("domain", self.domain.clone());
        say("tokens", self.tokens.to_string());
        say("prompt_tokens", self.prompt_tokens.to_string());
        say("source", self.source.clone());
        let views = bytes
            .iter()
            .map(|(name, kind, shape, data)| {
                Ok((name, TensorView::new(*kind, shape.clone(), data)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|e| bad(e.to_string()))?;
        let bytes = safetensors::serialize(views, Some(meta)).map_err(|e| bad(e.to_string()))?;
        sorted(&bytes).ok_or_else(|| bad("the header cannot be sorted".to_owned()))
    }

    /// Writes the file beside and renames it into place.
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        let io = |error| ProfileError::Io { path: path.to_owned(), error };
        crate::file::replace(path, &self.to_bytes()?).map_err(io)
    }

    /// Reads a file; what is optional may be missing, and is then zero or `None`.
    ///
    /// # Errors
    ///
    /// [`ProfileError`] when it is no profile, of another version, or its tensors do not agree.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        let io = |error| ProfileError::Io { path: path.to_owned(), error };
        let bad = |what| ProfileError::Bad { path: path.to_owned(), what };
        let mut bytes = Vec::new();
        File::open(path).map_err(io)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LONGEST {
            return Err(bad(format!("it is longer than {LONGEST} bytes")));
        }
        Profile::parse(&bytes).map_err(bad)
    }

    /// The same from bytes; the error says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Profile, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let meta = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| meta.get(key).cloned().ok_or(format!("{key:?} is missing"));
        let number = |key: &str| -> Result<u64, String> {
            let number = text(key)?.parse::<u64>().map_err(|e| format!("{key:?}: {e}"))?;
            match number > MOST_COUNTED.unsigned_abs() {
                true => Err(format!("{key:?} is {number}, more than can be")),
                false => Ok(number),
            }
        };
        if text("format")? != FORMAT {
            return Err(format!(
                "format {:?} is not known; this version reads {FORMAT:?}",
                text("format")?
            ));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let counts = file.tensor("counts").map_err(|e| e.to_string())?;
        let [layers, experts, top_k] = *counts.shape() else {
            return Err(format!(
                "counts has shape {:?}, not [layers, experts, top_k]",
                counts.shape()
            ));
        };
        // With one of them zero the tensor has no bytes, whatever the others claim; a dense model has no experts.
        let dense = experts == 0 && top_k == 0;
        if !(1..=MOST_LAYERS).contains(&layers) || !(dense || (1..=experts).contains(&top_k)) {
            let shape = [layers, experts, top_k];
            return Err(format!("counts has shape {shape:?}; that cannot be"));
        }
        let (all, prompt) =
            (taps(&file, "", counts.shape())?, taps(&file, "prompt.", counts.shape())?);
        let measured = |key: &str| match meta.get(key).map(String::as_str) {
            None => Ok(true),
            Some("none") => Ok(false),
            Some(other) => Err(format!("{key:?} is {other:?}; only \"none\" is known")),
        };
        let (norms, of) = (measured("norms")?, meta.get("norms_of").map(String::as_str));
        let stand_in = match (of, norms) {
            (None, _) => false,
            (Some("inputs"), false) => true,
            (Some(of), false) => {
                return Err(format!("\"norms_of\" is {of:?}; only \"inputs\" is known"));
            }
            (Some(of), true) => return Err(format!("\"norms_of\" is {of:?}, and norms are known")),
        };
        let mut profile = Profile {
            layers,
            experts,
            top_k,
            parent: text("parent")?,
            architecture: text("architecture")?,
            domain: text("domain")?,
            source: text("source").unwrap_or_default(),
            tokens: number("tokens")?,
            prompt_tokens: number("prompt_tokens")?,
            all,
            prompt,
            pairs: None,
            signatures: None,
            known: Known { ranks: measured("ranks")?, gates: measured("gates")?, norms, stand_in },
            agreement: None,
        };
        if meta.contains_key("agreement") {
            let agreement: f64 =
                text("agreement")?.parse().map_err(|e| format!("\"agreement\": {e}"))?;
            if !(0.0..=1.0).contains(&agreement) {
                return Err(format!("\"agreement\" is {agreement}, not 0 to 1"));
            }
            profile.agreement = Some(agreement);
        }
        if let Ok(view) = file.tensor("pairs") {
            profile.pairs = Some(pairs(&profile, &view)?);
        }
        if let (Ok(lines), Ok(mass)) = (file.tensor("items"), file.tensor("signatures")) {
            let (seen, every) = (number("items_seen")?, number("items_every")?);
            profile.signatures = Some(signatures(&profile, &lines, &mass, seen, every)?);
        } else if file.tensor("items").is_ok() || file.tensor("signatures").is_ok() {
            return Err("of items and signatures one is missing".to_owned());
        }
        Ok(profile)
    }
}

fn taps(file: &SafeTensors<'_>, prefix: &str, shape: &[usize]) -> Result<Taps, String> {
    let (experts, top_k) = (shape[1], shape[2]);
    let mut taps = Taps::new(shape[0], experts, top_k);
    let name = format!("{prefix}counts");
    if let Ok(view) = file.tensor(&name) {
        taps.counts = read(&name, &view, Dtype::I64, shape, i64::from_le_bytes)?;
        counted(&name, &taps.counts, experts * top_k, top_k)?;
    }
    for (name, shape, into) in [
        ("gate_mass", shape, &mut taps.gate_mass),
        ("output_norm", &shape[..2], &mut taps.output_norm),
        ("gated_norm", &shape[..2], &mut taps.gated_norm),
    ] {
        let name = format!("{prefix}{name}");
        let Ok(view) = file.tensor(&name) else { continue };
        *into = read(&name, &view, Dtype::F64, shape, f64::from_le_bytes)?;
        let each = shape.get(2).copied().unwrap_or(1);
        if let Some(at) = into.iter().position(|v| !(0.0..=LARGEST_SUM).contains(v)) {
            return Err(unusual(&name, into[at], at, experts * each, each));
        }
    }
    Ok(taps)
}

fn pairs(of: &Profile, view: &TensorView<'_>) -> Result<Vec<i64>, String> {
    let (l, e) = (of.layers, of.experts);
    let pairs = read("pairs", view, Dtype::I64, &[l, e, e], i64::from_le_bytes)?;
    counted("pairs", &pairs, e * e, e)?;
    for (layer, pairs) in pairs.chunks(e * e).enumerate() {
        for (a, &chosen) in of.layer_counts(layer).iter().enumerate() {
            if pairs[a * e + a] != chosen {
                let own = pairs[a * e + a];
                return Err(format!(
                    "pairs of layer {layer}: expert {a} with itself is {own}, its counts {chosen}"
                ));
            }
            if let Some(b) = (0..a).find(|b| pairs[a * e + b] != pairs[b * e + a]) {
                return Err(format!(
                    "pairs of layer {layer}: experts {a} and {b} are not {b} and {a}"
                ));
            }
        }
    }
    Ok(pairs)
}

fn signatures(
    of: &Profile,
    lines: &TensorView<'_>,
    mass: &TensorView<'_>,
    seen: u64,
    every: u64,
) -> Result<Signatures, String> {
    let [items] = *lines.shape() else {
        return Err(format!("items has shape {:?}, not [items]", lines.shape()));
    };
    if seen < items as u64 || every == 0 {
        return Err(format!("{items} items of {seen}, one in {every}: that cannot be"));
    }
    let lines = read("items", lines, Dtype::I64, &[items], i64::from_le_bytes)?;
    if let Some(at) = lines.iter().position(|line| *line < 1) {
        return Err(format!("item {at} is on line {}; lines count from 1", lines[at]));
    }
    let shape = [items, of.layers, of.experts];
    let mass = read("signatures", mass, Dtype::F32, &shape, f32::from_le_bytes)?;
    if let Some(at) = mass.iter().position(|v| !(0.0..=LARGEST_SUM as f32).contains(v)) {
        let (item, value) = (at / (of.layers * of.experts), mass[at]);
        return Err(format!("the signature of item {item} has {value}"));
    }
    Ok(Signatures { items: lines, mass, seen, every })
}

/// Counts are none below zero and none that could not be; `layer` and `expert` are how many numbers those have.
fn counted(name: &str, counts: &[i64], layer: usize, expert: usize) -> Result<(), String> {
    match counts.iter().position(|v| !(0..=MOST_COUNTED).contains(v)) {
        Some(at) => Err(unusual(name, counts[at], at, layer, expert)),
        None => Ok(()),
    }
}

fn unusual(
    name: &str,
    value: impl std::fmt::Display,
    at: usize,
    layer: usize,
    expert: usize,
) -> String {
    let (layer, expert) = (at / layer, at % layer / expert);
    format!("{name} of layer {layer}, expert {expert} is {value}; profile again")
}

fn le(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn read<T, const N: usize>(
    name: &str,
    view: &TensorView<'_>,
    kind: Dtype,
    shape: &[usize],
    read: fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    if view.dtype() != kind || view.shape() != shape {
        let (got, has) = (view.shape(), view.dtype());
        return Err(format!("{name} is {has:?} {got:?}; {kind:?} {shape:?} was expected"));
    }
    Ok(view.data().as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect())
}

/// The same file with the keys of its header in order: equal profiles are equal files, whatever order a map gave.
fn sorted(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) =
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    // serde_json's own map is sorted.
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let mut header = serde_json::to_vec(&header).ok()?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes(), &header[..], data].concat())
}
