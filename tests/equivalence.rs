//! A cut file computes what its masked parent does, bit for bit; on the embedded parent.

use engine::gguf::Gguf;
use engine::{MaskFile, Model, Profile, hash};
use surgery::mask::{self, Request, Score, Target};
use surgery::tokens::Window;
use surgery::{Parent, cut, verify};

/// A map of its own: what a test gives back, another may be using.
fn nano() -> Parent {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../specialists/nano/nano.gguf");
    Parent::new(Model::load(Gguf::open(file.as_ref()).unwrap()).unwrap())
}

/// Text of each kind that specialists are made of, longer than one page of keys and values.
const TEXTS: &[&str] = &[
    "The Congress shall have power to lay and collect taxes, duties, imposts and excises, to pay the debts and \
     provide for the common defense and general welfare of the United States; but all duties shall be uniform.",
    "def gcd(a: int, b: int) -> int:\n    while b:\n        a, b = b, a % b\n    return abs(a)\n\n\
     assert gcd(12, 18) == 6\nassert gcd(-4, 6) == 2\n",
    "<|im_start|>user\nA train covers 120 km in 90 minutes. What is its mean speed?<|im_end|>\n<|im_start|>assistant\n\
     90 minutes are 1.5 hours, and 120 / 1.5 = 80, so the mean speed is 80 km/h.<|im_end|>\n",
];

fn windows(parent: &Parent) -> Vec<Window> {
    let window =
        |text: &&str| Window { tokens: parent.model.tokenizer().encode(text, true), prompt: 0 };
    TEXTS.iter().map(window).collect()
}

/// Keeps `target` of what the parent's router did on the texts.
fn masked(parent: &Parent, target: Target) -> MaskFile {
    let mut taps = Profile::new(parent.model.shape(), &parent.model.parent(), "law");
    for window in windows(parent) {
        parent.tap(&window, &mut taps).unwrap();
    }
    let sha256 = hash::hex(&taps.to_bytes().unwrap());
    mask::from_profile(&taps, &sha256, Score::Gate, Request { target, uniform: true }).unwrap()
}

/// Cuts a parent into the folder.
fn cut_out(parent: &Parent, mask: &MaskFile, folder: &tempfile::TempDir, name: &str) -> Parent {
    let sha256 = hash::hex(mask.to_json().unwrap().as_bytes());
    let plan = cut::plan(parent.model.gguf(), mask, &sha256, &Default::default()).unwrap();
    let out = folder.path().join(name);
    cut::write(parent.model.gguf(), &plan, &out, &mut |_, _, _| ()).unwrap();
    Parent::new(Model::load(Gguf::open(&out).unwrap()).unwrap())
}

/// The report on a specialist; every logit of every probe was compared.
#[track_caller]
fn check(parent: &Parent, specialist: &Parent) {
    let probes = verify::probes(parent.model.shape(), &windows(parent));
    let report = verify::specialist(parent, specialist, &probes, &mut |_, _, _| ()).unwrap();
    assert_eq!(report.failure(), None);
    let logits = report.tokens * parent.model.shape().vocab as u64;
    let want = format!("{logits} logits of 3 probes are equal bit for bit");
    assert!(report.checks.iter().any(|check| check.detail == want), "{report:?}");
}

#[test]
fn a_cut_file_equals_its_masked_parent() {
    let (folder, parent) = (tempfile::tempdir().unwrap(), nano());
    let (top_k, experts) = (parent.model.shape().top_k as u32, parent.model.shape().experts as u32);
    // The least that can be routed, the usual half, and everything.
    for target in [Target::Count(top_k), Target::Share(0.5), Target::Count(experts)] {
        let specialist = cut_out(&parent, &masked(&parent, target), &folder, "s.gguf");
        check(&parent, &specialist);
    }
}

#[test]
fn a_cut_of_a_cut_equals_the_first_parent_under_the_composed_mask() {
    let (folder, parent) = (tempfile::tempdir().unwrap(), nano());
    let half = cut_out(&parent, &masked(&parent, Target::Share(0.5)), &folder, "half.gguf");
    let quarter = cut_out(&half, &masked(&half, Target::Share(0.5)), &folder, "quarter.gguf");
    assert_eq!(quarter.model.shape().experts, parent.model.shape().experts / 4);
    check(&parent, &quarter);
}

// The slices of the embedded parent are whole pages, and stay so in what is cut from it: its experts can be given
// back to the system one by one too.
#[test]
fn a_cut_file_keeps_its_pages() {
    let (folder, parent) = (tempfile::tempdir().unwrap(), nano());
    let specialist = cut_out(&parent, &masked(&parent, Target::Share(0.5)), &folder, "s.gguf");
    let gguf = specialist.model.gguf();
    assert_eq!(gguf.alignment(), parent.model.gguf().alignment());
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset.is_multiple_of(gguf.alignment())));
}
