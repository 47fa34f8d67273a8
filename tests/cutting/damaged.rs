//! Masks, splits and provenance from outside: an error by name, and nothing written.

use super::*;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Array, Tensor, Value};

fn tiny(name: &str) -> File {
    tiny::all().into_iter().find(|file| file.name() == name).unwrap()
}

/// What a cut with a changed mask says; the folder has nothing more after it.
#[track_caller]
fn check_mask(name: &str, request: &Request, change: impl Fn(&mut MaskFile), want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let parent = written(&tiny(name), folder.path());
    let mut mask = mask(&parent.model, &half(parent.model.shape()));
    change(&mut mask);
    let text = mask.to_json().unwrap();
    let got = match MaskFile::parse(&text) {
        Err(error) => error.to_string(),
        Ok(mask) => {
            let sha256 = hash::hex(text.as_bytes());
            let plan = cut::plan(parent.model.gguf(), &mask, &sha256, request);
            plan.err().map_or("planned".to_owned(), |error| error.to_string())
        }
    };
    assert!(got.contains(want), "{got:?} does not say {want:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn masks() {
    let check = |change: &dyn Fn(&mut MaskFile), want: &str| {
        check_mask("qwen3moe", &Request::default(), change, want);
    };
    check(&|_| (), "planned");
    check(&|m| m.kept[0][0] = u32::MAX, "layer 0: kept ids are not sorted");
    let last = |m: &mut MaskFile| m.kept[0].len() - 1;
    check(
        &|m| {
            let at = last(m);
            m.kept[0][at] = 4_000_000_000
        },
        "expert 4000000000 does not exist",
    );
    check(
        &|m| {
            m.kept.pop();
        },
        "the parent has",
    );
    check(&|m| m.kept.push(vec![]), "the parent has");
    check(&|m| m.parent = "f".repeat(64), "for parent ffffffffffff");
    check(&|m| m.profile = "../../etc".to_owned(), "\"../../etc\" as the SHA-256 of its profile");
    check(&|m| m.coverage = vec![], "0 coverages");
    check(&|m| m.coverage[0] = 7.0, "a coverage of 7 in layer 0");
    check(&|m| m.format = "collegium.mask/9".to_owned(), "\"collegium.mask/9\" is not known");
}

#[test]
fn blocks_that_predict_further_tokens() {
    let check = |name: &str, ahead: Ahead, want: &str| {
        check_mask(name, &Request { ahead, ..Request::default() }, |_| (), want);
    };
    check("qwen35moe-mtp", Ahead::First, "planned");
    check("qwen35moe-mtp", Ahead::Ids(vec![0, 1]), "--mtp names 2 experts; 4 are needed");
    check("qwen35moe-mtp", Ahead::Ids(vec![3, 2, 1, 0]), "ascending");
    check("qwen35moe-mtp", Ahead::Ids(vec![0, 1, 2, 8]), "below 8");
    check("qwen35moe", Ahead::First, "the parent has no block that predicts further tokens");
}

/// A specialist with one of our keys changed: what is said when it is verified, and when it is cut again.
#[track_caller]
fn check_keys(change: impl Fn(&mut Vec<(String, Value)>), want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let parent = written(&tiny("qwen3moe"), folder.path());
    let good = cut(
        &parent,
        &half(parent.model.shape()),
        &Request::default(),
        &folder.path().join("s.gguf"),
    );
    let gguf = good.model.gguf();
    let mut keys = gguf.metadata().to_vec();
    change(&mut keys);
    let entry = |t: &Tensor| Entry { name: t.name.clone(), dims: t.dims.clone(), kind: t.kind };
    let entries: Vec<_> = gguf.tensors().iter().map(entry).collect();
    let path = folder.path().join("forged.gguf");
    let layout = Layout::plan(&keys, &entries).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    layout.write(&mut file, |at, sink| sink(gguf.data(&gguf.tensors()[at]))).unwrap();
    let model = match Model::load(Gguf::open(&path).unwrap()) {
        Ok(model) => model,
        Err(error) => {
            assert!(error.to_string().contains(want), "{error} does not say {want:?}");
            return;
        }
    };
    let forged = Parent::new(model);
    let probes = verify::probes(parent.model.shape(), &[]);
    let report = verify::specialist(&parent, &forged, &probes[..1], &mut |_, _, _| ());
    let verified = match report {
        Err(error) => error.to_string(),
        Ok(report) => {
            report.failure().map_or("passed".to_owned(), |c| format!("{}: {}", c.name, c.detail))
        }
    };
    assert!(verified.contains(want), "{verified:?} does not say {want:?}");
}

#[test]
fn forged_provenance() {
    fn set(keys: &mut [(String, Value)], key: &str, value: Value) {
        keys.iter_mut().find(|(k, _)| k == key).unwrap().1 = value;
    }
    let ids = |ids: &[u32]| Value::Array(Array::U32(ids.to_vec()));
    let kept = "collegium.kept.0";
    check_keys(|_| (), "passed");
    check_keys(|k| set(k, kept, ids(&[0, 1, 2, 9_000_000])), "expert 9000000 does not exist");
    check_keys(|k| set(k, kept, ids(&[3, 2, 1, 0])), "block 0: kept ids are not ascending");
    // One of 2^40 things is not in so small a file; a list that is too short is no list of its experts.
    check_keys(|k| set(k, kept, ids(&[0, 1, 2])), "ffn_gate_inp.weight");
    check_keys(|k| set(k, kept, ids(&[])), "collegium.kept.0 is 0");
    check_keys(
        |k| set(k, kept, Value::U64(u64::MAX)),
        "key \"collegium.kept.0\" is missing or of the wrong type",
    );
    check_keys(|k| k.retain(|(key, _)| key != kept), "key \"collegium.kept.0\" is missing");
    check_keys(
        |k| k.push(("collegium.kept.77".to_owned(), ids(&[0]))),
        "\"collegium.kept.77\" is not known",
    );
    check_keys(
        |k| k.push(("collegium.more".to_owned(), ids(&[0]))),
        "\"collegium.more\" is not known",
    );
    let text = |text: &str| Value::Text(text.to_owned());
    check_keys(|k| set(k, "collegium.parent.sha256", text("no hash")), "\"no hash\", no SHA-256");
    check_keys(
        |k| set(k, "collegium.parent.sha256", text(&"a".repeat(64))),
        "was cut from parent aaaaaaaaaaaa",
    );
    let nan = Value::Array(Array::F32(vec![f32::NAN; 2]));
    check_keys(|k| set(k, "collegium.coverage", nan.clone()), "holds NaN at 0");
    check_keys(
        |k| k.retain(|(key, _)| !key.starts_with("collegium.")),
        "it was not cut by `surgery cut`",
    );
    // The counts that the cut itself changes are not free.
    check_keys(
        |k| set(k, "qwen3moe.context_length", Value::U32(7)),
        "\"qwen3moe.context_length\" is not the parent's",
    );
}

/// A parent in parts, one of which `spoil` has its way with.
#[track_caller]
fn check_parts(spoil: impl Fn(&Path, &[std::path::PathBuf]), want: &str) {
    let folder = tempfile::tempdir().unwrap();
    let parent = written(&tiny("qwen3moe"), folder.path());
    let all = some(parent.model.shape(), |_| usize::MAX);
    let most = parent.model.gguf().bytes() / 2;
    let request = Request { split: Some(most), ..Request::default() };
    let parts = cut(&parent, &all, &request, &folder.path().join("p.gguf"));
    let paths: Vec<_> =
        parts.model.gguf().parts().iter().map(|part| part.path().to_owned()).collect();
    drop(parts);
    spoil(folder.path(), &paths);
    let got = match Gguf::open(&paths[0]) {
        Err(error) => error.to_string(),
        Ok(gguf) => Model::load(gguf).err().map_or("opened".to_owned(), |error| error.to_string()),
    };
    assert!(got.contains(want), "{got:?} does not say {want:?}");
}

#[test]
fn parts() {
    check_parts(|_, _| (), "opened");
    check_parts(|_, paths| fs::remove_file(&paths[1]).unwrap(), "part 2 of 3 cannot be opened");
    check_parts(
        |_, paths| {
            let bytes = fs::read(&paths[1]).unwrap();
            fs::write(&paths[1], &bytes[..bytes.len() - 40]).unwrap();
        },
        "truncated",
    );
    check_parts(
        |_, paths| {
            fs::copy(&paths[2], &paths[1]).unwrap();
        },
        "this is not part 2 of 3",
    );
    check_parts(
        |folder, paths| {
            fs::copy(folder.join("qwen3moe.gguf"), &paths[1]).unwrap();
        },
        "this is not part 2 of 3",
    );
    // Of another model, with as many parts.
    check_parts(
        |folder, paths| {
            let other = written(&tiny("olmoe"), folder);
            let request = |most| Request { split: Some(most), ..Request::default() };
            let all = some(other.model.shape(), |_| usize::MAX);
            let sizes = (1..40).map(|n| other.model.gguf().bytes() / 20 * n);
            let cut = sizes.filter_map(|most| {
                try_cut(&other, &all, &request(most), &folder.join("o.gguf")).ok()
            });
            let three = cut.map(|p| p.model.gguf().parts().to_vec()).find(|parts| parts.len() == 3);
            fs::copy(three.unwrap()[1].path(), &paths[1]).unwrap();
        },
        "this part is of another model",
    );
}

#[test]
fn numbers_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let parent = written(&tiny("qwen3moe"), folder.path());
    let gguf = parent.model.gguf();
    let kept = half(parent.model.shape());
    let (id, lost) = (kept[1][0], (0..).find(|id| !kept[1].contains(id)).unwrap());
    let spoil = |part: &str, at: u64, value: f32| {
        let tensor = gguf.tensor(part).unwrap();
        let mut bytes = fs::read(gguf.path()).unwrap();
        bytes[(tensor.offset + 4 * at) as usize..][..4].copy_from_slice(&value.to_le_bytes());
        let path = folder.path().join("spoilt.gguf");
        fs::write(&path, bytes).unwrap();
        open(&path)
    };
    let experts = gguf.tensor("blk.1.ffn_up_exps.weight").unwrap();
    let slice = experts.bytes / 4 / parent.model.shape().experts as u64;
    let out = folder.path().join("s.gguf");
    let check = |part: &str, at: u64, value: f32, want: &str| {
        let spoilt = spoil(part, at, value);
        let got = try_cut(&spoilt, &kept, &Request::default(), &out);
        let got = got.err().map_or("cut".to_owned(), |error| error.to_string());
        assert!(got.contains(want), "{got:?} does not say {want:?}");
        assert_eq!(out.exists(), want == "cut");
        // A mask of it says the same.
        let probes = verify::probes(spoilt.model.shape(), &[]);
        let mask = mask(&spoilt.model, &kept);
        let report = verify::mask(&spoilt, &mask, "m", &probes[..1], &mut |_, _, _| ()).unwrap();
        let weights = report.checks.iter().find(|c| c.name == "weights are finite").unwrap();
        assert_eq!(weights.passed, want == "cut", "{weights:?}");
    };
    let up = "blk.1.ffn_up_exps.weight";
    check(
        up,
        u64::from(id) * slice + 7,
        f32::NAN,
        &format!("\"{up}\": block {} is NaN", u64::from(id) * slice + 7),
    );
    check("output_norm.weight", 3, f32::INFINITY, "\"output_norm.weight\": block 3 is infinite");
    // What is cut away may hold anything.
    check(up, u64::from(lost) * slice, f32::NAN, "cut");
}
