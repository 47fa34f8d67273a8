//! The engine against llama.cpp, on every tiny file of an architecture that the engine knows.
//!
//! `cargo test -p tests --features oracle parity -- --nocapture` prints the tables.  The rule is in
//! [`tests::agreement`].  Each file is read in four ways (at once, in pieces, token by token, and all prompts in one
//! batch), which must be equal bit for bit, so that one comparison stands for all of them.

use std::path::Path;
use std::sync::Arc;

use engine::arch;
use engine::gguf::{Array, Gguf, Value};
use engine::kv::{KvStore, Precision};
use engine::{Bank, ExpertMask, Missing, Model, Segment, Session, Want, forward};
use surgery::Parent;
use tests::agreement::Agreement;
use tests::oracle::{Reference, Settings, quantise};
use tests::split;
use tests::tiny::{self, File, VOCAB};

use crate::cutting;

/// Lengths of prompts: one token, two, less than a page of keys and values, more, and past windows and two pages.
const LENGTHS: [usize; 5] = [1, 2, 7, 33, 70];
const LONGEST: usize = 70;

fn prompts() -> Vec<Vec<u32>> {
    let mut random = fastrand::Rng::with_seed(7);
    LENGTHS.map(|n| (0..n).map(|_| random.u32(2..VOCAB as u32)).collect()).into()
}

fn known(file: &File) -> bool {
    arch::ARCHITECTURES.iter().any(|arch| arch.name == file.architecture)
}

/// The engine with one file.
struct Ours {
    model: Arc<Model>,
    bank: Arc<Bank>,
}

impl Ours {
    fn open(path: &Path) -> Ours {
        let model = Model::load(Gguf::open(path).unwrap()).unwrap();
        Ours { bank: Bank::new(model.clone()), model }
    }

    /// Logits at each position, read in pieces of these lengths, over and over.
    fn read(&self, tokens: &[u32], mask: Option<&ExpertMask>, pieces: &[usize]) -> Vec<f32> {
        let mut session = Session::new(&self.model, &self.bank, tokens.len()).unwrap();
        let (mut all, mut rest) = (Vec::new(), tokens);
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, then) = rest.split_at(rest.len().min(*piece));
            all.extend(session.logits(now, mask));
            rest = then;
        }
        all
    }

    /// All prompts at once: a part of each in one batch, the rest in another.
    fn ragged(&self, prompts: &[Vec<u32>], mask: Option<&ExpertMask>) -> Vec<Vec<f32>> {
        let layout = self.model.layout(Precision::F32);
        let bytes = prompts.iter().map(|p| layout.bytes_at_once(p.len())).sum();
        let store = KvStore::new(&layout, bytes).unwrap();
        let mut pages: Vec<_> = prompts.iter().map(|p| store.reserve(p.len()).unwrap()).collect();
        let mut all = vec![Vec::new(); prompts.len()];
        let first = |prompt: &[u32]| prompt.len().div_ceil(3);
        for round in 0..2 {
            let parts = prompts.iter().map(|p| match round {
                0 => &p[..first(p)],
                _ => &p[first(p)..],
            });
            let mut rows: Vec<usize> = Vec::new();
            let mut segments = Vec::new();
            for (row, (tokens, pages)) in parts.zip(&mut pages).enumerate() {
                if !tokens.is_empty() {
                    rows.push(row);
                    let (missing, taps, prompt, want) = (Missing::Map, None, true, Want::All);
                    segments.push(Segment { tokens, pages, mask, missing, taps, prompt, want });
                }
            }
            let outputs = forward(&self.model, &self.bank, &mut segments);
            for (row, output) in rows.into_iter().zip(outputs) {
                all[row].extend(output.logits);
            }
        }
        all
    }

    /// Logits of each prompt; that all ways of reading it are one is asserted.
    #[track_caller]
    fn logits(&self, name: &str, prompts: &[Vec<u32>], mask: Option<&ExpertMask>) -> Vec<Vec<f32>> {
        let whole: Vec<Vec<f32>> = prompts.iter().map(|p| self.read(p, mask, &[p.len()])).collect();
        let bits = |logits: &[f32]| logits.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        let ragged = self.ragged(prompts, mask);
        for ((prompt, whole), ragged) in prompts.iter().zip(&whole).zip(&ragged) {
            let n = prompt.len();
            let same = |other: &[f32], how| {
                assert!(bits(whole) == bits(other), "{name}: {n} tokens read {how} differ");
            };
            same(&self.read(prompt, mask, &[1]), "token by token");
            same(&self.read(prompt, mask, &[5, 13, 1]), "in pieces");
            same(ragged, "beside others");
        }
        whole
    }
}

/// Logits of each prompt by llama.cpp, computed this many tokens at once.
fn theirs(
    reference: &Reference,
    prompts: &[Vec<u32>],
    ubatch: usize,
    mask: Option<&ExpertMask>,
) -> Vec<Vec<f32>> {
    let settings = Settings { tokens: LONGEST, ubatch, threads: 1, mask: mask.cloned() };
    let one = |prompt: &Vec<u32>| {
        let mut run = reference.run(&settings).unwrap();
        let logits = run.read(prompt).unwrap();
        assert_eq!(run.masked() > 0, mask.is_some(), "the mask took effect");
        logits
    };
    prompts.iter().map(one).collect()
}

fn agreement(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> Agreement {
    let mut agreement = Agreement::default();
    for (ours, theirs) in ours.iter().zip(theirs) {
        agreement.add(ours, theirs, VOCAB as usize);
    }
    agreement
}

/// A table on standard output, and what does not hold.
struct Table {
    wrong: Vec<String>,
}

impl Table {
    fn new(title: &str) -> Table {
        println!("\n{title}");
        println!(
            "{:<28} {:>9} {:>12} {:>12} {:>12} {:>6} {:>6}",
            "file", "positions", "llama.cpp", "engine", "in the mean", "ties", "wrong"
        );
        Table { wrong: Vec::new() }
    }

    /// llama.cpp against itself, then the engine against it.
    fn row(&mut self, name: &str, blocks: bool, itself: &Agreement, ours: &Agreement) {
        println!(
            "{name:<28} {:>9} {:>12.1e} {:>12.1e} {:>12.1e} {:>6} {:>6}",
            ours.positions,
            itself.worst,
            ours.worst,
            ours.mean(),
            ours.ties,
            ours.wrong
        );
        if !(if blocks { ours.holds_in_blocks() } else { ours.holds() }) {
            self.wrong.push(format!("{name}: {ours:?}"));
        }
    }

    #[track_caller]
    fn done(self) {
        assert!(self.wrong.is_empty(), "not equal to llama.cpp:\n{}", self.wrong.join("\n"));
    }
}

#[test]
fn the_engine_equals_llama_cpp() {
    let (folder, prompts) = (tempfile::tempdir().unwrap(), prompts());
    let mut table =
        Table::new("largest difference of a logit, as a share of the position's largest");
    for file in tiny::all() {
        let path = folder.path().join(file.name());
        file.write(&path);
        let reference = Reference::open(&path).unwrap();
        let whole = theirs(&reference, &prompts, LONGEST, None);
        let itself = agreement(&theirs(&reference, &prompts, 1, None), &whole);
        if known(&file) {
            let ours = Ours::open(&path).logits(&file.name(), &prompts, None);
            table.row(&file.name(), file.in_blocks(), &itself, &agreement(&ours, &whole));
        } else {
            println!("{:<28} {:>9} {:>12.1e}   unknown here", file.name(), "", itself.worst);
        }
    }
    table.done();
}

/// Number formats that only llama.cpp writes, on a parent whose rows are whole blocks of 256.
#[test]
fn quantised_files_equal_llama_cpp() {
    let (folder, prompts) = (tempfile::tempdir().unwrap(), prompts());
    let plain = folder.path().join("f32");
    // All experts run, so that rounding does not turn into another choice of experts.
    tests::Tiny { dim: 256, experts: 4, top_k: 4, ..Default::default() }.write(&plain);
    let mut table = Table::new("the same, by number format of a qwen3moe");
    for kind in quantise::mixtures() {
        let path = folder.path().join(kind);
        quantise::quantise(&plain, kind, &path).unwrap();
        let reference = Reference::open(&path).unwrap();
        let whole = theirs(&reference, &prompts, LONGEST, None);
        let itself = agreement(&theirs(&reference, &prompts, 1, None), &whole);
        match Model::load(Gguf::open(&path).unwrap()) {
            Ok(_) => {
                same_weights(kind, &path);
                let ours = Ours::open(&path).logits(kind, &prompts, None);
                table.row(kind, true, &itself, &agreement(&ours, &whole));
            }
            Err(error) => println!("{kind:<28} {:>9} {:>12.1e}   {error}", "", itself.worst),
        }
    }
    table.done();
}

/// What the blocks stand for, bit for bit.
#[track_caller]
fn same_weights(kind: &str, path: &Path) {
    let [ours, theirs] = ["ours", "theirs"].map(|who| path.with_extension(who));
    split::unpack(&Gguf::open(path).unwrap(), &ours).unwrap();
    quantise::quantise(path, "F32", &theirs).unwrap();
    let [ours, theirs] = [ours, theirs].map(|path| Gguf::open(&path).unwrap());
    for tensor in ours.tensors() {
        let other = theirs.tensor(&tensor.name).unwrap();
        assert!(ours.data(tensor) == theirs.data(other), "{kind}: {} differs", tensor.name);
    }
}

/// The parent with a mask in the engine, the same mask forced on llama.cpp, and the file that surgery cuts, which both
/// load and `surgery::verify` proves.
#[test]
fn masked_parents_and_cut_files_equal_llama_cpp() {
    let (folder, prompts) = (tempfile::tempdir().unwrap(), prompts());
    let mut table =
        Table::new("engine under a mask against llama.cpp under it, and on the cut file");
    let mut cut = Vec::new();
    for file in tiny::all().iter().filter(|file| known(file)) {
        let path = folder.path().join(file.name());
        file.write(&path);
        let ours = Ours::open(&path);
        let shape = ours.model.shape();
        if shape.experts == 0 {
            continue;
        }
        let parent = Parent { model: ours.model.clone(), bank: ours.bank.clone() };
        let kept = cutting::half(shape);
        let mask = ExpertMask::from_kept(shape, &kept).unwrap();
        let masked = ours.logits(&file.name(), &prompts, Some(&mask));

        let reference = Reference::open(&path).unwrap();
        let forced = theirs(&reference, &prompts, LONGEST, Some(&mask));
        let itself = agreement(&theirs(&reference, &prompts, 1, Some(&mask)), &forced);
        let name = format!("{} masked", file.name());
        table.row(&name, file.in_blocks(), &itself, &agreement(&masked, &forced));

        for (how, request) in cutting::requests(&ours.model) {
            let name = format!("{} {how}", file.name());
            let specialist =
                cutting::cut(&parent, &kept, &request, &folder.path().join("specialist.gguf"));
            cutting::prove(&name, &parent, &specialist);
            let reference = Reference::open(specialist.model.gguf().path()).unwrap();
            let theirs_cut = theirs(&reference, &prompts, LONGEST, None);
            let itself = agreement(&forced, &theirs_cut);
            let own = Ours { model: specialist.model, bank: specialist.bank };
            let ours_cut = own.logits(&name, &prompts, None);
            table.row(&name, file.in_blocks(), &itself, &agreement(&ours_cut, &theirs_cut));
        }
        cut.push(file.architecture);
    }
    cut.dedup();
    let with_experts =
        arch::ARCHITECTURES.iter().filter(|arch| !arch.sliced.is_empty()).map(|arch| arch.name);
    let not_cut: Vec<_> = with_experts.filter(|name| !cut.contains(name)).collect();
    assert!(not_cut.is_empty(), "no file of these was cut: {not_cut:?}");
    table.done();
}

/// A difference that the rule would see many times over.
const SEEN: f32 = 0.01;

// A file whose tensors do not matter proves nothing: llama.cpp says of each that others in its place are other logits.
#[test]
fn every_tensor_of_a_tiny_file_matters() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = prompts().split_off(LENGTHS.len() - 1);
    let mut silent = Vec::new();
    for file in tiny::all() {
        let path = folder.path().join("tiny");
        let logits = |other: &dyn Fn(&str) -> bool| {
            file.write_with(&path, other);
            theirs(&Reference::open(&path).unwrap(), &prompt, LONGEST, None)
        };
        let usual = logits(&|_| false);
        let trunk = |name: &str| match name.strip_prefix("blk.").and_then(|r| r.split_once('.')) {
            Some((layer, part)) => {
                (layer.parse::<u64>().unwrap() < file.layers()).then_some(part.to_owned())
            }
            None => Some(name.to_owned()),
        };
        let mut parts: Vec<String> = file.entries().iter().filter_map(|e| trunk(&e.name)).collect();
        parts.sort();
        parts.dedup();
        for part in parts {
            let other = logits(&|name| trunk(name).as_deref() == Some(part.as_str()));
            let change = agreement(&other, &usual).worst;
            if change < SEEN {
                silent.push(format!("{}: {part} changes logits by {change:.1e}", file.name()));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn every_key_of_a_tiny_file_matters() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = prompts().split_off(LENGTHS.len() - 1);
    let keys = [
        "attention.sliding_window",
        "expert_used_count",
        "final_logit_softcapping",
        "rope.dimension_count_swa",
        "rope.dimension_sections",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
    ];
    let mut silent = Vec::new();
    for file in tiny::all() {
        let path = folder.path().join("tiny");
        let logits = |file: &File| {
            file.write(&path);
            theirs(&Reference::open(&path).unwrap(), &prompt, LONGEST, None)
        };
        let usual = logits(&file);
        // Its sections leave no pair over, as in the real files.
        let dealt = file.architecture == "qwen35moe";
        for key in keys.into_iter().filter(|key| !(dealt && *key == "rope.dimension_sections")) {
            let other = match file.value(key) {
                Some(Value::U32(n)) => Value::U32(n / 2),
                Some(Value::F32(v)) => Value::F32(v / 16.0),
                Some(Value::Text(_)) => Value::Text("none".to_owned()),
                // Sections that leave no pair over.
                Some(Value::Array(Array::I32(_))) => Value::Array(Array::I32(vec![6, 5, 5, 0])),
                _ => continue,
            };
            let change = agreement(&logits(&file.clone().key(key, other)), &usual).worst;
            if change < SEEN {
                silent.push(format!("{}: {key} changes logits by {change:.1e}", file.name()));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
