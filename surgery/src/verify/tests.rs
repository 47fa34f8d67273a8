use super::*;
use crate::cut;
use crate::testing::{self, Folder};
use engine::Model;
use engine::gguf::Gguf;

fn load(gguf: Gguf) -> Parent {
    Parent::new(Model::load(gguf).unwrap())
}

/// Cuts a specialist, lets `tamper` have its way with the file's bytes, and
/// tells how it was judged.
#[track_caller]
fn check(tamper: impl Fn(&Gguf, &mut Vec<u8>), want: &str) {
    let folder = Folder::new();
    let whole = folder.parent(5);
    let mask = testing::mask(&whole, &[&[0, 3], &[1, 2]]);
    let plan = cut::plan(&whole, &mask, testing::MASK, &cut::Request::default()).unwrap();
    let out = folder.path("s.gguf");
    cut::write(&whole, &plan, &out, &mut |_, _, _| ()).unwrap();
    let mut bytes = std::fs::read(&out).unwrap();
    tamper(&Gguf::open(&out).unwrap(), &mut bytes);
    std::fs::write(&out, bytes).unwrap();
    let (parent, specialist) = (load(whole), load(Gguf::open(&out).unwrap()));
    let probes = probes(parent.model.shape(), &[]);
    let got = match super::specialist(&parent, &specialist, &probes, &mut |_, _, _| ()) {
        Err(error) => error.to_string(),
        Ok(report) => report.failure().map_or("passed".to_owned(), |check| {
            assert!(!report.passed);
            format!("{}: {}", check.name, check.detail)
        }),
    };
    assert!(got.starts_with(want), "{got}");
}

fn flip(gguf: &Gguf, bytes: &mut [u8], tensor: &str, at: u64) {
    let tensor = gguf.tensor(tensor).unwrap();
    bytes[(tensor.offset + at) as usize] ^= 1;
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

#[test]
fn a_cut_file_is_its_masked_parent_and_any_other_is_not() {
    check(|_, _| (), "passed");
    // One bit of a backbone tensor, of a router row, of an expert.
    let attention = "blk.1.attn_q.weight";
    check(
        |g, b| flip(g, b, attention, 8),
        "tensors: tensor \"blk.1.attn_q.weight\" is not the parent's",
    );
    let expert = |part: &str| {
        format!("tensors: tensor \"blk.0.{part}.weight\": expert 1 is not the parent's expert 3")
    };
    check(|g, b| flip(g, b, "blk.0.ffn_gate_inp.weight", 32 * 4), &expert("ffn_gate_inp"));
    check(|g, b| flip(g, b, "blk.0.ffn_up_exps.weight", 34 * 32 + 5), &expert("ffn_up_exps"));
    // A key.
    let arch = |b: &mut Vec<u8>| {
        let at = find(b, b"qwen3moe.context_length") + 23 + 4;
        b[at] ^= 1;
    };
    check(|_, b| arch(b), "keys: key \"qwen3moe.context_length\" is not the parent's");
    // Ids that are not those of the slices.
    let ids = |b: &mut Vec<u8>| {
        let at = find(b, b"collegium.kept.0") + 16 + 4 + 4 + 8;
        b[at] = 1;
    };
    check(
        |_, b| ids(b),
        "tensors: tensor \"blk.0.ffn_gate_inp.weight\": expert 0 is not the parent's expert 1",
    );
    // Another parent's.
    let hash = |b: &mut Vec<u8>| {
        let at = find(b, b"collegium.parent.sha256") + 23 + 4 + 8;
        b[at..at + 4].copy_from_slice(b"beef");
    };
    check(|_, b| hash(b), "the specialist was cut from parent beef");
}

#[test]
fn a_parent_was_not_cut() {
    let folder = Folder::new();
    let parent = load(folder.parent(5));
    let report = super::specialist(&parent, &parent, &[], &mut |_, _, _| ());
    assert!(matches!(report, Err(VerifyError::NotCut)));
}

#[test]
fn a_mask_restricts_its_parent() {
    let folder = Folder::new();
    let whole = folder.parent(5);
    let file = testing::mask(&whole, &[&[0, 3], &[1, 2]]);
    let parent = load(whole);
    let probes = probes(parent.model.shape(), &[]);
    let report = mask(&parent, &file, "m", &probes, &mut |_, _, _| ()).unwrap();
    assert!(report.passed, "{report:?}");
    assert_eq!((report.tokens, report.subject.as_str()), (256, "m"));
    assert_eq!(report.checks[2].detail, "4 experts ran");
    let stray = MaskFile { parent: "p".to_owned(), ..file };
    let refused = mask(&parent, &stray, "m", &probes, &mut |_, _, _| ());
    assert!(matches!(refused, Err(VerifyError::Mask(_))));
}

#[test]
fn probes_are_the_beginnings_of_windows() {
    let window = |len: u32, prompt| Window { tokens: (0..len).collect(), prompt };
    let shape = Shape::read(&Folder::new().parent(1)).unwrap();
    assert_eq!(probes(&shape, &[window(100, 80), window(9, 4)]), [window(64, 64), window(9, 4)]);
    assert_eq!(probes(&shape, &[]).len(), PROBES);
}
