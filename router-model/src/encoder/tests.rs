//! Against PyTorch: `encoder/tiny.py` made the models and what is expected.

use std::path::{Path, PathBuf};

use engine::gguf::Gguf;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("encoder/tiny")
}

fn file() -> Vec<u8> {
    std::fs::read(tiny().join("tiny.gguf")).expect("it is in the repository")
}

fn labels() -> Vec<String> {
    ["law", "math", "physics"].map(str::to_owned).to_vec()
}

/// Its own classifier's, of these labels.
fn logits(model: &MiniLm, labels: &[String], text: &str) -> Vec<f32> {
    model.classifier(labels).expect("it knows them").logits(&model.embed(text))
}

#[track_caller]
fn agrees(model: &MiniLm, tolerance: f32) {
    let text = std::fs::read_to_string(tiny().join("cases.json")).expect("it is in the repository");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("it was written as such");
    assert!(cases.len() > 5);
    for case in cases {
        assert_eq!(model.ids(&case.text), case.ids, "{:?}", case.text);
        for (got, want) in logits(model, &labels(), &case.text).iter().zip(&case.logits) {
            assert!((got - want).abs() <= tolerance, "{:?}: {got}, not {want}", case.text);
        }
    }
}

#[test]
fn f32_is_pytorch() {
    agrees(&MiniLm::open(&tiny()).expect("a model"), 2e-5);
}

// A model of random weights has no slack: PyTorch itself, with weights rounded so,
// is up to 0.17 off, and activations are rounded too.
#[test]
fn int8_is_pytorch_but_for_rounding() {
    let model = MiniLm::open(&tiny().join("tiny.gguf")).expect("a model");
    agrees(&model, 0.3);
}

// The lexical weights say the order, whatever the file's own.
#[test]
fn labels_come_in_the_order_asked_for() {
    let model = MiniLm::open(&tiny()).expect("a model");
    let named = |names: &[&str]| -> Vec<String> { names.iter().map(|n| (*n).to_owned()).collect() };
    let all = logits(&model, &labels(), "law of motion");
    let some = logits(&model, &named(&["physics", "law"]), "law of motion");
    assert_eq!(some, [all[2], all[0]]);
    assert_eq!(model.classifier(&named(&["law", "cooking"])), None);
}

// A folder of a hub has no classifier of ours.
#[test]
fn a_folder_without_labels_has_no_classifier() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["model.safetensors", "config.json", "vocab.txt"] {
        std::fs::copy(tiny().join(name), folder.path().join(name)).expect("copied");
    }
    let (bare, whole) = (MiniLm::open(folder.path()), MiniLm::open(&tiny()));
    let (bare, whole) = (bare.expect("a model"), whole.expect("a model"));
    assert_eq!(bare.classifier(&labels()), None);
    assert_eq!(bare.embed("what is law"), whole.embed("what is law"));
    assert_eq!(bare.fingerprint(), whole.fingerprint());
    std::fs::write(folder.path().join("labels.json"), r#"["law"]"#).expect("written");
    let err = MiniLm::open(folder.path()).err().expect("refused").to_string();
    assert!(err.contains("labels.json has 1 labels"), "{err}");
    let err = MiniLm::open(Path::new("no-one/nothing")).err().expect("refused").to_string();
    assert!(err.contains("hf download no-one/nothing"), "{err}");
}

#[test]
fn any_text_is_answered() {
    let model = MiniLm::open(&tiny()).expect("a model");
    for text in ["", "\0", "水水水", "🙂", &"a".repeat(1 << 20), &"law ".repeat(1 << 18)] {
        let logits = logits(&model, &labels(), text);
        assert!(logits.len() == 3 && logits.iter().all(|z| z.is_finite()), "{logits:?}");
        assert!(model.tokens(text) <= 16);
    }
}

/// The file with every `from` made `to`, of the same length.
fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = file();
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from).expect("it is there");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[track_caller]
fn refused(bytes: Vec<u8>, why: &str) {
    let err = MiniLm::read(bytes).err().expect("refused").to_string();
    assert!(err.contains(why), "{err}");
}

#[test]
fn other_files_are_refused_by_name() {
    refused(vec![], "truncated");
    refused(b"{}".to_vec(), "truncated");
    refused(replaced(b"collegium.encoder/1", b"collegium.encoder/2"), "collegium.encoder/2");
    refused(replaced(b"blk.1.ffn_up.bias", b"blk.1.ffn_xx.bias"), "blk.1.ffn_up.bias\" is missing");
    refused(replaced(b"[UNK]", b"[UNQ]"), "[UNK]");
    let mut cut = file();
    cut.truncate(cut.len() - 100);
    assert!(MiniLm::read(cut).is_err());
}

/// The file with its tensor's first bytes changed, and the checksum made right
/// again, so that what is refused is the number itself.
fn with_number(tensor: &str, bytes: &[u8]) -> Vec<u8> {
    let mut whole = file();
    let read = Gguf::from_bytes("tiny", whole.clone()).expect("a GGUF");
    let at = read.tensor(tensor).expect("it is there").offset as usize;
    let old = file::checksum(&read).to_le_bytes();
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    let new = file::checksum(&Gguf::from_bytes("tiny", whole.clone()).expect("a GGUF"));
    let place = whole.windows(8).position(|w| w == old).expect("it is in the header");
    whole[place..place + 8].copy_from_slice(&new.to_le_bytes());
    whole
}

#[test]
fn what_is_no_number_is_refused() {
    refused(with_number("blk.0.attn_q.bias", &f32::NAN.to_le_bytes()), "attn_q.bias");
    refused(with_number("token_embd_norm.weight", &f32::INFINITY.to_le_bytes()), "norm.weight");
    // A scale of a block.
    refused(with_number("blk.1.ffn_down.weight", &[0x00, 0x7C]), "ffn_down.weight");
    // The change itself is no reason.
    let fine = with_number("blk.0.attn_q.bias", &0.5f32.to_le_bytes());
    assert!(MiniLm::read(fine).is_ok());
}

#[test]
fn folders_say_what_they_lack() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |name: &str| {
        std::fs::copy(tiny().join(name), folder.path().join(name)).expect("copied");
    };
    let why = || MiniLm::open(folder.path()).err().expect("refused").to_string();
    assert!(why().contains("model.safetensors"), "{}", why());
    copy("model.safetensors");
    assert!(why().contains("config.json"), "{}", why());
    ["config.json", "labels.json", "vocab.txt"].iter().for_each(|name| copy(name));
    assert!(MiniLm::open(folder.path()).is_ok());
    std::fs::write(folder.path().join("vocab.txt"), "[CLS]\n[SEP]\n[UNK]\n").expect("written");
    assert!(why().contains("3 tokens, 25 embeddings"), "{}", why());
    std::fs::write(folder.path().join("model.safetensors"), "no").expect("written");
    assert!(why().contains("not a model's safetensors"), "{}", why());
}

proptest! {
    /// One changed or missing byte of the tensors is noticed; elsewhere it may
    /// be harmless, but never a panic.
    #[test]
    fn no_damage_panics(at in 0usize..26_944, flip in 1u8.., cut in any::<bool>()) {
        let mut bytes = file();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        if let Ok(model) = MiniLm::read(bytes) {
            prop_assert_eq!(model.embed("what is law?").len(), 32);
        }
    }

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let model = MiniLm::open(&tiny()).expect("a model");
        prop_assert!(model.embed(&text).iter().all(|z| z.is_finite()));
    }
}
