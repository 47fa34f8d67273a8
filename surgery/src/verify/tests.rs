use super::*;
use crate::cut;
use crate::testing::{self, Folder};
use engine::Model;
use engine::ggml::Kind;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Gguf, Tensor, Value};

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

/// The tensors of a file but one, and one more.
fn rewritten(folder: &Folder, gguf: &Gguf, without: &str, more: Option<&str>) -> Gguf {
    let kept: Vec<&Tensor> = gguf.tensors().iter().filter(|t| t.name != without).collect();
    let entry = |t: &&Tensor| Entry { name: t.name.clone(), dims: t.dims.clone(), kind: t.kind };
    let mut entries: Vec<Entry> = kept.iter().map(entry).collect();
    let more = more.map(|name| Entry { name: name.to_owned(), dims: vec![4], kind: Kind::F32 });
    entries.extend(more);
    let path = folder.path("rewritten.gguf");
    let mut file = std::fs::File::create(&path).unwrap();
    let layout = Layout::plan(gguf.metadata(), &entries).unwrap();
    let bytes = |at: usize| kept.get(at).map_or(vec![0; 16], |t| gguf.data(t).to_vec());
    layout.write(&mut file, |at, sink| sink(&bytes(at))).unwrap();
    Gguf::open(&path).unwrap()
}

const ALL: [u32; 4] = [0, 1, 2, 3];

#[test]
fn nothing_is_missing_and_nothing_is_more() {
    let folder = Folder::new();
    let whole = folder.parent(5);
    let arch = engine::arch::find(&whole).unwrap();
    let kept = vec![ALL.to_vec(), ALL.to_vec()];
    let judge = |cut: &Gguf| {
        let pair = bytes::Pair { arch, whole: &whole, cut, kept: &kept, blocks: 2 };
        (pair.tensors(), pair.keys())
    };
    let (tensors, keys) = judge(&whole);
    assert!(tensors.is_ok() && keys.is_ok(), "{tensors:?} {keys:?}");
    let (tensors, _) = judge(&rewritten(&folder, &whole, "output_norm.weight", None));
    assert_eq!(tensors.unwrap_err(), "tensor \"output_norm.weight\" is missing");
    let (tensors, _) = judge(&rewritten(&folder, &whole, "", Some("more.weight")));
    let n = whole.tensors().len();
    let want = format!("{} tensors, the parent has {n} and 0 were left out", n + 1);
    assert_eq!(tensors.unwrap_err(), want);
    let more = folder.parent_with(5, &[("general.more", Value::U32(1))]);
    let keys = judge(&more).1.unwrap_err();
    assert!(keys.ends_with(&format!(" keys, the parent has {}", whole.metadata().len())), "{keys}");
}

#[test]
fn slices_are_of_the_same_shape() {
    let folder = Folder::new();
    let whole = folder.parent(5);
    let arch = engine::arch::find(&whole).unwrap();
    let kept = vec![ALL.to_vec(), ALL.to_vec()];
    let pair = bytes::Pair { arch, whole: &whole, cut: &whole, kept: &kept, blocks: 2 };
    let old = whole.tensor("blk.0.ffn_down_exps.weight").unwrap();
    assert_eq!(pair.slices(old, old, &ALL), Ok(()));
    // As many bytes, and another matrix.
    let other = Tensor { dims: vec![16, 64, 4], ..old.clone() };
    assert!(pair.slices(old, &other, &ALL).unwrap_err().starts_with("its shape is"));
    assert!(pair.slices(old, old, &ALL[..3]).unwrap_err().starts_with("its shape is"));
    // Not even the second of two.
    let swapped = pair.slices(old, old, &[0, 2, 2, 3]).unwrap_err();
    assert_eq!(swapped, "expert 1 is not the parent's expert 2");
}

#[test]
fn logits_are_the_same_bits_and_numbers() {
    use logits::same_bits;
    assert_eq!(same_bits(7, 0, 0, &[1.0, 2.0], &[1.0, 2.0]), Ok(9));
    let next = f32::from_bits(2.0f32.to_bits() + 1);
    let off = same_bits(0, 3, 4, &[1.0, 2.0], &[1.0, next]).unwrap_err();
    assert!(off.starts_with("probe 3, token 4: the logit of id 1 is 2.0000002"), "{off}");
    // Equal bits are not enough where they are no number, and zero has two.
    let nan = same_bits(0, 0, 4, &[1.0, f32::NAN], &[1.0, f32::NAN]).unwrap_err();
    assert_eq!(nan, "token 4 of a probe: the logit of id 1 is NaN");
    assert!(same_bits(0, 0, 0, &[0.0], &[-0.0]).is_err());
    assert!(same_bits(0, 0, 0, &[0.0], &[0.0, 1.0]).unwrap_err().starts_with("2 logits"));
}

#[test]
fn what_ran_is_what_was_kept() {
    let shape = Shape::of_experts(2, 4, 2);
    let mask = ExpertMask::from_kept(&shape, &[vec![0, 1], vec![2, 3]]).unwrap();
    let mut taps = Profile::new(&shape, "p", "law");
    taps.all.output_norm = vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    assert_eq!(only_kept(&taps, &mask), Ok("2 layers".to_owned()));
    assert_eq!(norms(&taps), Ok("4 experts ran".to_owned()));
    taps.all.output_norm[5] = 0.5;
    assert_eq!(only_kept(&taps, &mask), Err("layer 1: expert 1 ran and is not kept".to_owned()));
    taps.all.output_norm[6] = f64::NAN;
    assert_eq!(norms(&taps), Err("layer 1, expert 2: its outputs are not numbers".to_owned()));
}

#[test]
fn every_kept_slice_is_looked_through() {
    let folder = Folder::new();
    let whole = folder.parent(5);
    let arch = engine::arch::find(&whole).unwrap();
    let tensor = whole.tensor("blk.1.ffn_down_exps.weight").unwrap();
    let size = tensor.bytes / 4;
    for (expert, kept, want) in [
        (2, &[0, 2][..], Some("block 2048 is NaN")),
        (0, &[0, 2], Some("block 0 is NaN")),
        (1, &[0, 2], None),
    ] {
        let mut bytes = std::fs::read(whole.path()).unwrap();
        let at = (tensor.offset + expert * size) as usize;
        bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        let path = folder.path("spoilt.gguf");
        std::fs::write(&path, bytes).unwrap();
        let spoilt = Gguf::open(&path).unwrap();
        let kept = vec![ALL.to_vec(), kept.to_vec()];
        let found = weights::finite(&spoilt, arch, Some(&kept));
        match want {
            None => assert!(found.is_ok(), "{found:?}"),
            Some(want) => assert!(found.unwrap_err().ends_with(want)),
        }
    }
}
