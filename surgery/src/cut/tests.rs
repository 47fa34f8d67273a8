use std::fs::File;

use super::*;
use crate::provenance::{self, Provenance};
use crate::testing::{Folder, MASK, mask};
use engine::MaskFile;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Array, Gguf, Tensor, Value};

/// For llama.cpp, in one file.
fn plan(parent: &Gguf, mask: &MaskFile) -> Result<Plan, CutError> {
    super::plan(parent, mask, MASK, &Request::default())
}

fn cut(folder: &Folder, parent: &Gguf, kept: &[&[u32]], name: &str) -> Gguf {
    let plan = plan(parent, &mask(parent, kept)).unwrap();
    let out = folder.path(name);
    write(parent, &plan, &out, &mut |_, _, _| ()).unwrap();
    let cut = Gguf::open(&out).unwrap();
    assert_eq!(cut.bytes(), plan.summary.bytes_out);
    cut
}

/// Every byte of the cut file, from the parent's by the definition: expert
/// `i` of the one is expert `kept[i]` of the other.
#[track_caller]
fn check_bytes(parent: &Gguf, cut: &Gguf, kept: &[&[u32]]) {
    let order = |gguf: &Gguf| gguf.tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>();
    assert_eq!(order(cut), order(parent));
    for (old, new) in parent.tensors().iter().zip(cut.tensors()) {
        assert!(new.offset.is_multiple_of(cut.alignment()), "{}", new.name);
        let ids = (0..2).find(|b| {
            let block = format!("blk.{b}.");
            old.name.starts_with(&block) && old.name.contains("exps")
                || old.name == format!("{block}ffn_gate_inp.weight")
        });
        let want = match ids {
            None => parent.data(old).to_vec(),
            Some(block) => {
                let size = parent.data(old).len() / 4;
                let slice = |id: &u32| &parent.data(old)[*id as usize * size..][..size];
                kept[block].iter().flat_map(slice).copied().collect()
            }
        };
        assert!(cut.data(new) == want, "{}", new.name);
    }
}

#[test]
fn kept_slices_and_everything_else_are_the_parents() {
    let folder = Folder::new();
    let parent = folder.parent(1);
    for kept in [[&[0, 3][..], &[1, 2]], [&[0, 1, 2], &[1, 2, 3]], [&[0, 1, 2, 3], &[0, 1, 2, 3]]] {
        let cut = cut(&folder, &parent, &kept, "s.gguf");
        check_bytes(&parent, &cut, &kept);
        assert_eq!(cut.int("qwen3moe.expert_count"), Some(kept[0].len() as u64));
        assert_eq!(cut.alignment(), 64);
        // The parent's keys stand, in their order; ours follow.
        let keys =
            |gguf: &Gguf| gguf.metadata().iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert!(keys(&cut).starts_with(&keys(&parent)));
    }
}

#[test]
fn provenance_is_inside() {
    let folder = Folder::new();
    let parent = folder.parent(1);
    let cut = cut(&folder, &parent, &[&[0, 3], &[1, 2]], "s.gguf");
    assert_eq!(cut.text("collegium.parent.sha256"), Some(parent.sha256().as_str()));
    assert_eq!(cut.text("collegium.parent.name"), Some("Tiny"));
    assert_eq!(cut.text("collegium.mask.sha256"), Some(MASK));
    assert_eq!(cut.meta("collegium.kept.1"), Some(&Value::Array(Array::U32(vec![1, 2]))));
    assert_eq!(cut.meta("collegium.coverage"), Some(&Value::Array(Array::F32(vec![0.75, 0.75]))));
    let read = Provenance::read(&cut, &[2, 2]).unwrap().unwrap();
    assert_eq!((read.kept, read.domain.as_str()), (vec![vec![0, 3], vec![1, 2]], "law"));
    assert_eq!(Provenance::read(&parent, &[4, 4]), Ok(None));
    // Read against counts that are not the file's.
    let want = ProvenanceError::Count { block: 0, got: 2, want: 3 };
    assert_eq!(Provenance::read(&cut, &[3, 2]), Err(want));
}

#[test]
fn cutting_again_is_cutting_once_by_the_composed_ids() {
    let folder = Folder::new();
    let parent = folder.parent(2);
    let mut random = fastrand::Rng::with_seed(3);
    let mut ids = |of: u32, count: usize| {
        let mut ids = random.choose_multiple(0..of, count);
        ids.sort_unstable();
        ids
    };
    for _ in 0..8 {
        let first = [ids(4, 3), ids(4, 3)];
        let second = [ids(3, 2), ids(3, 2)];
        let at = |block: usize| provenance::compose(&first[block], &second[block]).unwrap();
        let (a, b) = (at(0), at(1));
        let once = cut(&folder, &parent, &[&a, &b], "once.gguf");
        let half = cut(&folder, &parent, &[&first[0], &first[1]], "half.gguf");
        let twice = cut(&folder, &half, &[&second[0], &second[1]], "twice.gguf");
        check_bytes(&parent, &twice, &[&a, &b]);
        let provenance = |gguf| Provenance::read(gguf, &[2, 2]).unwrap().unwrap();
        assert_eq!(provenance(&once), provenance(&twice));
    }
}

#[test]
fn a_plan_refuses() {
    let folder = Folder::new();
    let parent = folder.parent(1);
    #[track_caller]
    fn check(parent: &Gguf, mask: &MaskFile, want: &str) {
        let got = plan(parent, mask).err().unwrap().to_string();
        assert!(got.contains(want), "{got}");
    }
    check(
        &parent,
        &mask(&parent, &[&[0, 1, 2], &[0, 1]]),
        "layer 1 keeps 2 experts, layer 0 keeps 3",
    );
    check(&parent, &mask(&parent, &[&[0, 1]]), "the mask has 1 layers");
    check(&parent, &mask(&parent, &[&[0], &[1]]), "the router picks 2");
    check(&parent, &mask(&parent, &[&[0, 4], &[0, 1]]), "expert 4 does not exist");
    check(&parent, &mask(&folder.parent(9), &[&[0, 1], &[0, 1]]), "for parent");
    // Keys of ours that do not hold together: not the work of `cut`.
    let forged = folder.parent_with(1, &[("collegium.domain", Value::U8(0)), ("a", Value::U8(0))]);
    check(&forged, &mask(&forged, &[&[0, 1], &[0, 1]]), "\"collegium.coverage\" is missing");
    // What a mask says beside its ids.
    let good = mask(&parent, &[&[0, 1], &[0, 1]]);
    let with = |change: &dyn Fn(&mut MaskFile)| {
        let mut mask = good.clone();
        change(&mut mask);
        mask
    };
    check(&parent, &with(&|m| m.coverage = vec![0.5]), "1 coverages, the parent has 2 layers");
    check(&parent, &with(&|m| m.coverage[1] = -0.1), "a coverage of -0.1 in layer 1");
    check(&parent, &with(&|m| m.coverage[0] = f64::NAN), "a coverage of NaN in layer 0");
    check(&parent, &with(&|m| m.profile = "q".to_owned()), "\"q\" as the SHA-256 of its profile");
}

#[test]
fn the_parent_is_never_written_over() {
    let folder = Folder::new();
    let parent = folder.parent(1);
    let plan = plan(&parent, &mask(&parent, &[&[0, 1], &[0, 1]])).unwrap();
    let over = write(&parent, &plan, parent.path(), &mut |_, _, _| ());
    assert!(matches!(over, Err(CutError::OverParent { .. })));
    let nowhere = write(&parent, &plan, &folder.path("no/such/s.gguf"), &mut |_, _, _| ());
    assert!(matches!(nowhere, Err(CutError::Io { .. })));
    // Nothing half-written stays behind.
    let left = std::fs::read_dir(folder.path("")).unwrap().count();
    assert_eq!(left, 1);
}

/// The parent's tensors in two files.
fn split(folder: &Folder, parent: &Gguf) -> Gguf {
    let path = |no: u16| folder.path(&format!("split-{:05}-of-00002.gguf", no + 1));
    let (first, second) = parent.tensors().split_at(parent.tensors().len() / 2);
    for (no, tensors) in [(0, first), (1, second)] {
        let mut keys = if no == 0 { parent.metadata().to_vec() } else { vec![] };
        keys.push(("split.no".to_owned(), Value::U16(no)));
        keys.push(("split.count".to_owned(), Value::U16(2)));
        let entry = |t: &Tensor| Entry { name: t.name.clone(), dims: t.dims.clone(), kind: t.kind };
        let entries: Vec<Entry> = tensors.iter().map(entry).collect();
        let layout = Layout::plan(&keys, &entries).unwrap();
        let mut file = File::create(path(no)).unwrap();
        layout.write(&mut file, |index, sink| sink(parent.data(&tensors[index]))).unwrap();
    }
    Gguf::open(&path(0)).unwrap()
}

#[test]
fn a_split_parent_gives_one_file() {
    let folder = Folder::new();
    let whole = folder.parent(1);
    let parts = split(&folder, &whole);
    let kept: [&[u32]; 2] = [&[0, 3], &[1, 2]];
    let specialist = cut(&folder, &parts, &kept, "s.gguf");
    check_bytes(&whole, &specialist, &kept);
    assert_eq!(specialist.meta("split.count"), None);
    assert_eq!(specialist.text("collegium.parent.sha256"), Some(parts.sha256().as_str()));
    // No part is written over.
    let plan = plan(&parts, &mask(&parts, &kept)).unwrap();
    for part in parts.parts() {
        let over = write(&parts, &plan, part.path(), &mut |_, _, _| ());
        assert!(matches!(over, Err(CutError::OverParent { .. })));
    }
}

#[test]
fn a_parent_that_changes_gives_no_file() {
    let folder = Folder::new();
    let parent = folder.parent(1);
    let plan = plan(&parent, &mask(&parent, &[&[0, 1], &[0, 1]])).unwrap();
    let out = folder.path("s.gguf");
    let touch = &mut |_, _, _: &str| {
        let file = File::options().write(true).open(parent.path()).unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        file.set_modified(later).unwrap();
    };
    let error = write(&parent, &plan, &out, touch).unwrap_err();
    assert!(matches!(error, CutError::Parent(GgufError::Changed { .. })), "{error}");
    assert!(!out.exists());
}
