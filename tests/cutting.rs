//! A specialist of every architecture: cut, proven, cut again, in parts; refused by name where an input is damaged, and
//! never left half-written.

mod damaged;
mod ended;

use std::fs;
use std::path::Path;

use engine::gguf::Gguf;
use engine::{MASK_FORMAT, MaskFile, Model, Shape, hash};
use surgery::cut::{self, Ahead, CutError, Request, Runtime};
use surgery::{Parent, verify};
use tests::tiny::{self, File};

/// Half of the experts of each layer, another half in each.
pub fn half(shape: &Shape) -> Vec<Vec<u32>> {
    some(shape, |_| shape.experts / 2)
}

/// As many of a layer's experts as `count` says, drawn for each.
fn some(shape: &Shape, count: impl Fn(usize) -> usize) -> Vec<Vec<u32>> {
    let mut random = fastrand::Rng::with_seed(11);
    let one = |layer| {
        let experts = shape.experts_in(layer);
        let mut kept = random.choose_multiple(0..experts as u32, count(layer).min(experts));
        kept.sort_unstable();
        kept
    };
    (0..shape.layers).map(one).collect()
}

pub fn mask(parent: &Model, kept: &[Vec<u32>]) -> MaskFile {
    MaskFile {
        format: MASK_FORMAT.to_owned(),
        parent: parent.parent(),
        domain: "law".to_owned(),
        score: "gate".to_owned(),
        experts: kept.iter().map(Vec::len).collect(),
        kept: kept.to_vec(),
        coverage: vec![0.5; kept.len()],
        profile: "0".repeat(64),
        sources: Vec::new(),
        masking: Default::default(),
        passes: Vec::new(),
    }
}

/// The ways to cut a file that llama.cpp loads, each with a word for it.
pub fn requests(parent: &Model) -> Vec<(&'static str, Request)> {
    let mut all = vec![("cut", Request::default())];
    if ahead(parent.gguf()) > 0 {
        let ids = (0..parent.shape().experts as u32 / 2).map(|i| 2 * i + 1).collect();
        all.push(("cut, mtp first", Request { ahead: Ahead::First, ..Request::default() }));
        all.push(("cut, mtp ids", Request { ahead: Ahead::Ids(ids), ..Request::default() }));
    }
    all
}

fn ahead(gguf: &Gguf) -> u64 {
    let arch = engine::arch::find(gguf).unwrap();
    gguf.int(&arch.ahead_key()).unwrap_or(0)
}

/// Cuts and opens.
fn try_cut(
    parent: &Parent,
    kept: &[Vec<u32>],
    request: &Request,
    out: &Path,
) -> Result<Parent, CutError> {
    let gguf = parent.model.gguf();
    let mask = mask(&parent.model, kept);
    let sha256 = hash::hex(mask.to_json().unwrap().as_bytes());
    let plan = cut::plan(gguf, &mask, &sha256, request)?;
    let written = cut::write(gguf, &plan, out, &mut |_, _, _| ())?;
    let sizes: Vec<u64> = written.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert_eq!(sizes, plan.summary.parts);
    Ok(open(&written[0]))
}

#[track_caller]
pub fn cut(parent: &Parent, kept: &[Vec<u32>], request: &Request, out: &Path) -> Parent {
    try_cut(parent, kept, request, out).unwrap()
}

fn open(path: &Path) -> Parent {
    Parent::new(Model::load(Gguf::open(path).unwrap()).unwrap())
}

fn written(file: &File, folder: &Path) -> Parent {
    let path = folder.join(format!("{}.gguf", file.name()));
    file.write(&path);
    open(&path)
}

/// What `surgery::verify` says: all checks passed, and every logit was compared.
#[track_caller]
pub fn prove(name: &str, parent: &Parent, specialist: &Parent) {
    let shape = parent.model.shape();
    let probes = verify::probes(shape, &[]);
    let report = verify::specialist(parent, specialist, &probes, &mut |_, _, _| ()).unwrap();
    assert_eq!(report.failure(), None, "{name}");
    let logits = report.tokens * shape.vocab as u64;
    let want = format!("{logits} logits of {} probes are equal bit for bit", probes.len());
    assert!(report.checks.iter().any(|check| check.detail == want), "{name}: {report:?}");
    // The routers that do not renormalise are said to do so, in numbers.
    let told = report.checks.iter().any(|check| check.name == "gates");
    assert_eq!(told, !parent.model.arch().renormalises, "{name}");
}

/// Every tiny file with experts, of every architecture.
fn each(check: impl Fn(&str, &Parent, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for file in tiny::all() {
        let parent = written(&file, folder.path());
        if parent.model.shape().experts > 0 {
            check(&file.name(), &parent, folder.path());
            seen += 1;
        }
    }
    assert!(seen > 10);
}

#[test]
fn every_architecture_is_cut_and_proven() {
    each(|name, parent, folder| {
        let kept = half(parent.model.shape());
        for (how, request) in requests(&parent.model) {
            let name = format!("{name} {how}");
            let specialist = cut(parent, &kept, &request, &folder.join("specialist.gguf"));
            prove(&name, parent, &specialist);
            let left = if request.ahead == Ahead::Drop { 0 } else { ahead(parent.model.gguf()) };
            assert_eq!(ahead(specialist.model.gguf()), left, "{name}");
        }
    });
}

#[test]
fn a_count_for_each_layer_runs_here() {
    each(|name, parent, folder| {
        let shape = parent.model.shape();
        let kept = some(shape, |layer| shape.top_k + layer % 3);
        let out = folder.join("by-layer.gguf");
        let refused = try_cut(parent, &kept, &Request::default(), &out).err().unwrap();
        assert!(matches!(refused, CutError::NotUniform { .. }), "{name}: {refused}");
        let request = Request { runtime: Runtime::Collegium, ..Request::default() };
        let specialist = cut(parent, &kept, &request, &out);
        prove(name, parent, &specialist);
        let counts = |layer| specialist.model.shape().experts_in(layer);
        let got: Vec<usize> = (0..shape.layers).map(counts).collect();
        assert_eq!(got, kept.iter().map(Vec::len).collect::<Vec<_>>(), "{name}");
        // Cut again, to the same number everywhere.
        let least = some(specialist.model.shape(), |_| shape.top_k);
        let again = cut(&specialist, &least, &Request::default(), &folder.join("again.gguf"));
        prove(&format!("{name} again"), parent, &again);
    });
}

#[test]
fn what_was_cut_can_be_cut_again() {
    each(|name, parent, folder| {
        let shape = parent.model.shape();
        let first = some(shape, |_| shape.experts - 1);
        for (how, request) in requests(&parent.model) {
            let ids = (0..shape.experts as u32 - 1).collect();
            let request = match request.ahead {
                Ahead::Ids(_) => Request { ahead: Ahead::Ids(ids), ..request },
                _ => request,
            };
            let once = cut(parent, &first, &request, &folder.join("once.gguf"));
            // A block that was dropped is not there to be dropped again.
            let second = some(once.model.shape(), |_| shape.top_k);
            let twice = cut(&once, &second, &Request::default(), &folder.join("twice.gguf"));
            prove(&format!("{name} {how} twice"), parent, &twice);
        }
    });
}

#[test]
fn parts_are_the_file() {
    each(|name, parent, folder| {
        let kept = half(parent.model.shape());
        let whole = cut(parent, &kept, &Request::default(), &folder.join("whole.gguf"));
        let most = whole.model.gguf().bytes() / 3 + 10_000;
        let request = Request { split: Some(most), ..Request::default() };
        let parts = cut(parent, &kept, &request, &folder.join("s.gguf"));
        let (whole, gguf) = (whole.model.gguf(), parts.model.gguf());
        assert!(gguf.parts().len() > 2, "{name}: {} parts", gguf.parts().len());
        assert!(gguf.parts().iter().all(|part| part.bytes() <= most), "{name}");
        assert_eq!(gguf.metadata(), whole.metadata(), "{name}");
        for (a, b) in whole.tensors().iter().zip(gguf.tensors()) {
            assert!((&a.name, &a.dims) == (&b.name, &b.dims) && whole.data(a) == gguf.data(b));
        }
        prove(&format!("{name} in parts"), parent, &parts);
        // And in again.
        let kept = some(parts.model.shape(), |_| parts.model.shape().top_k);
        let again = cut(&parts, &kept, &Request::default(), &folder.join("again.gguf"));
        prove(&format!("{name} of parts"), parent, &again);
        // What is larger than a part is named.
        let request = Request { split: Some(30_000), ..Request::default() };
        let refused = try_cut(parent, &kept, &request, &folder.join("s.gguf")).err().unwrap();
        assert!(matches!(refused, CutError::PartTooSmall { .. }), "{name}: {refused}");
    });
}
