//! The whole engine on the embedded parent: what it promises about bits, batches and memory.

use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::{KvStore, Precision};
use engine::{Bank, ExpertMask, Missing, Model, Profile, Segment, Session, Want, forward};

fn parent() -> (Arc<Model>, Arc<Bank>) {
    let model = Model::load(Gguf::nano().unwrap()).unwrap();
    let bank = Bank::new(model.clone());
    (model, bank)
}

/// A mask of half the experts, different for each `seed`.
fn half(model: &Model, seed: u64) -> ExpertMask {
    let (shape, mut rng) = (model.shape(), fastrand::Rng::with_seed(seed));
    let kept: Vec<Vec<u32>> = (0..shape.layers)
        .map(|_| rng.choose_multiple(0..shape.experts as u32, shape.experts / 2))
        .collect();
    ExpertMask::from_kept(shape, &kept).unwrap()
}

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| rng.u32(3..8000)).collect()
}

/// Logits of the last token of each text when all are read in one batch, cut into pieces of `piece` tokens.
fn together(
    model: &Model,
    bank: &Bank,
    texts: &[Vec<u32>],
    masks: &[Option<ExpertMask>],
    piece: usize,
) -> Vec<Vec<f32>> {
    let layout = model.layout(Precision::F32);
    let store = KvStore::new(&layout, layout.bytes_for(4096)).unwrap();
    let mut pages: Vec<_> = texts.iter().map(|t| store.reserve(t.len()).unwrap()).collect();
    let mut last = vec![Vec::new(); texts.len()];
    for step in 0.. {
        let mut which = Vec::new();
        let mut segments = Vec::new();
        for (i, (text, pages)) in texts.iter().zip(&mut pages).enumerate() {
            let (from, to) = ((step * piece).min(text.len()), ((step + 1) * piece).min(text.len()));
            if from < to {
                which.push(i);
                segments.push(Segment {
                    tokens: &text[from..to],
                    pages,
                    mask: masks[i].as_ref(),
                    missing: Missing::Map,
                    taps: None,
                    prompt: true,
                    want: Want::Last,
                });
            }
        }
        if segments.is_empty() {
            return last;
        }
        for (i, output) in which.into_iter().zip(forward(model, bank, &mut segments)) {
            last[i] = output.logits;
        }
    }
    unreachable!()
}

#[test]
fn a_row_depends_on_its_own_tokens_and_mask_alone() {
    let (model, bank) = parent();
    let texts: Vec<Vec<u32>> =
        [1, 37, 64, 5].iter().enumerate().map(|(i, &n)| tokens(n, i as u64)).collect();
    let masks = vec![None, Some(half(&model, 1)), Some(half(&model, 2)), Some(half(&model, 1))];
    let alone: Vec<Vec<f32>> = (0..texts.len())
        .map(|i| together(&model, &bank, &texts[i..=i], &masks[i..=i], 1000).remove(0))
        .collect();
    assert!(alone.iter().flatten().all(|v| v.is_finite()));
    assert_ne!(
        alone[1],
        together(&model, &bank, &texts[1..2], &[None], 1000)[0],
        "a mask must matter"
    );
    // One by one (decode), in odd pieces, and all at once (prefill), rows of three specialists together.
    for piece in [1, 7, 1000] {
        assert_eq!(together(&model, &bank, &texts, &masks, piece), alone, "pieces of {piece}");
    }
}

#[test]
fn a_mask_of_everything_is_no_mask() {
    let (model, bank) = parent();
    let text = tokens(40, 3);
    let mut session = Session::new(&model, &bank, 64).unwrap();
    let parent = session.logits(&text, None);
    session.clear();
    assert_eq!(parent, session.logits(&text, Some(&ExpertMask::full(model.shape()))));
}

#[test]
fn taps_count_what_the_full_router_would_choose() {
    let (model, bank) = parent();
    let shape = model.shape().clone();
    let text = tokens(50, 4);
    let mask = half(&model, 5);
    let mut whole = Profile::new(&shape, "p", "d");
    let mut masked = Profile::new(&shape, "p", "d");
    let mut session = Session::new(&model, &bank, 64).unwrap();
    session.read(&text, None, Some(&mut whole), 20, |_, _| {});
    session.clear();
    session.read(&text, Some(&mask), Some(&mut masked), 20, |_, _| {});
    for profile in [&whole, &masked] {
        assert_eq!((profile.tokens, profile.prompt_tokens), (50, 20));
        // Every token has one expert of each rank in each layer, and gates that sum to one.
        let per_layer = |v: &[i64]| {
            v.chunks(shape.experts * shape.top_k).map(|l| l.iter().sum()).collect::<Vec<i64>>()
        };
        assert_eq!(per_layer(&profile.all.counts), vec![50 * shape.top_k as i64; shape.layers]);
        assert_eq!(per_layer(&profile.prompt.counts), vec![20 * shape.top_k as i64; shape.layers]);
        for layer in 0..shape.layers {
            assert!((profile.layer_gate_mass(layer).iter().sum::<f64>() - 50.0).abs() < 1e-3);
        }
    }
    // The first layer sees the same states, so the full router's choices are the same there; what ran is not.
    let first = shape.experts * shape.top_k;
    assert_eq!(whole.all.counts[..first], masked.all.counts[..first]);
    for expert in (0..shape.experts).filter(|&e| !mask.contains(0, e)) {
        assert_eq!(masked.all.output_norm[expert], 0.0);
    }
    assert!(
        whole.all.output_norm.iter().sum::<f64>()
            > masked.all.output_norm.iter().sum::<f64>() * 0.1
    );
}

#[test]
fn experts_come_and_go_by_reference() {
    let (model, bank) = parent();
    let (a, b) = (half(&model, 1), half(&model, 2));
    let first = bank.warm(&a);
    assert_eq!((first.bytes, bank.resident_bytes()), (bank.bytes(&a), bank.bytes(&a)));
    // The second brings in only what the first has not.
    let second = bank.warm(&b);
    assert_eq!(bank.resident_bytes(), first.bytes + second.bytes);
    assert!(second.bytes > 0 && second.bytes < bank.bytes(&b));
    assert!(bank.completeness(&a).iter().all(|share| *share == 1.0));
    // Evicting it frees what the first does not need.
    assert_eq!(bank.evict(&b), second);
    assert_eq!(bank.resident_bytes(), first.bytes);
    assert!(bank.completeness(&a).iter().all(|share| *share == 1.0));
    bank.evict(&a);
    assert_eq!(bank.resident_bytes(), 0);
}

#[test]
fn computing_from_the_map_leaves_nothing_behind() {
    // A map of its own: the other tests share the embedded one.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../nano/nano.gguf");
    let model = Model::load(Gguf::open(file.as_ref()).unwrap()).unwrap();
    let bank = Bank::new(model.clone());
    let a = half(&model, 1);
    bank.warm(&a);
    let Some(before) = bank.reported_bytes() else { return };
    // No more than is accounted for; the system may take back what nobody touches.
    assert!(before > 0 && before <= bank.resident_bytes());
    // The generalist needs experts that are not resident.
    Session::new(&model, &bank, 64).unwrap().logits(&tokens(40, 6), None);
    assert!(bank.misses() > 0);
    let after = bank.reported_bytes().unwrap();
    assert!(after > 0 && after <= bank.resident_bytes(), "{after} of {}", bank.resident_bytes());
}
