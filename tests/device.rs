//! The device of COLLEGIUM_DEVICE computes what the processor does, on every architecture: with all experts in memory and
//! with none, in one piece, token by token, and for rows of different masks in one batch.  Other tests run on it too.

use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::{KvStore, Precision};
use engine::{Bank, ExpertMask, Missing, Model, Profile, Segment, Session, Want, forward};
use tests::agreement::Agreement;
use tests::random::masks;
use tests::tiny::{self, VOCAB};

/// Past every window, and not a whole number of pages.
const TOKENS: usize = 75;

/// One tiny file.
struct Case {
    name: String,
    model: Arc<Model>,
    /// Its weights are in blocks.
    blocks: bool,
}

impl Case {
    /// By the rule for two engines.
    #[track_caller]
    fn agree(&self, what: &str, got: &[f32], want: &[f32]) {
        let mut agreement = Agreement::default();
        agreement.add(got, want, VOCAB as usize);
        let holds = if self.blocks { agreement.holds_in_blocks() } else { agreement.holds() };
        assert!(holds, "{}, {what}: {agreement:?}", self.name);
    }
}

fn cases(folder: &std::path::Path) -> impl Iterator<Item = Case> {
    tiny::all().into_iter().filter_map(move |file| {
        let (path, name) = (folder.join(file.name()), file.name());
        file.write(&path);
        let model = Model::load(Gguf::open(&path).unwrap()).ok()?;
        Some(Case { name, model, blocks: file.in_blocks() })
    })
}

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| random.u32(0..VOCAB as u32)).collect()
}

/// Logits of all tokens, and what the router did, read in pieces of these lengths.
fn read(
    case: &Case,
    bank: &Arc<Bank>,
    mask: Option<&ExpertMask>,
    piece: usize,
) -> (Vec<f32>, Profile) {
    let (model, all) = (&case.model, tokens(TOKENS, 1));
    let mut profile = Profile::new(model.shape(), "", "");
    let mut session = Session::new(model, bank, TOKENS).unwrap();
    let mut logits = Vec::new();
    for tokens in all.chunks(piece) {
        session.read(tokens, mask, Some(&mut profile), 0, |_, l| logits.extend_from_slice(l));
    }
    (logits, profile)
}

#[test]
fn every_architecture() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases(folder.path()) {
        let (host, device) = (Bank::new(case.model.clone()), tests::bank(&case.model));
        let everyone = ExpertMask::full(case.model.shape());
        let some = masks(case.model.shape(), 1, 0.5, 1.0, 3).pop();
        let routed = case.model.shape().experts > 0;
        for mask in [None, some.filter(|_| routed)] {
            let (want, taps) = read(&case, &host, mask.as_ref(), TOKENS);
            let cold = read(&case, &device, mask.as_ref(), TOKENS);
            case.agree("no expert in memory", &cold.0, &want);
            let moved = device.warm(&everyone);
            assert_eq!(moved.experts > 0, routed, "{}", case.name);
            let warm = read(&case, &device, mask.as_ref(), TOKENS);
            assert_eq!(bits(&warm.0), bits(&cold.0), "{}: residency is no number", case.name);
            let single = read(&case, &device, mask.as_ref(), 1);
            assert_eq!(bits(&single.0), bits(&warm.0), "{}: token by token", case.name);
            if !case.blocks {
                // Routers of gemma4 are as far from themselves as engines are from each other: a few choices fall otherwise.
                let counts = single.1.all.counts.iter().zip(&taps.all.counts);
                let other: u64 = counts.map(|(got, want)| got.abs_diff(*want)).sum();
                let chosen: i64 = taps.all.counts.iter().sum();
                assert!(50 * other <= chosen as u64, "{}: {other} of {chosen}", case.name);
                let total = |p: &Profile| p.all.gated_norm.iter().sum::<f64>();
                let (got, want) = (total(&single.1), total(&taps));
                assert!((got - want).abs() <= 1e-3 * want.abs(), "{}: {got} {want}", case.name);
            }
            device.evict(&everyone);
            assert_eq!(device.resident_bytes(), 0);
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Sequences of different masks and lengths in one batch have the bits that they have alone.
#[test]
fn one_batch_of_many() {
    let folder = tempfile::tempdir().unwrap();
    for case in cases(folder.path()) {
        let (model, device) = (&case.model, tests::bank(&case.model));
        device.warm(&ExpertMask::full(model.shape()));
        let routed = model.shape().experts > 0;
        let mut all = if routed { masks(model.shape(), 3, 0.5, 1.0, 5) } else { Vec::new() };
        let all: Vec<Option<ExpertMask>> =
            (0..4).map(|i| if i == 0 { None } else { all.pop() }).collect();
        let texts: Vec<Vec<u32>> = (0..4).map(|i| tokens(9 + 7 * i, i as u64)).collect();
        for precision in Precision::ALL {
            let layout = model.layout(precision);
            let store = KvStore::of(&device, &layout, 5 * layout.bytes_at_once(64)).unwrap();
            let run = |which: &[usize], steps: usize| -> Vec<Vec<u32>> {
                let mut pages: Vec<_> = which.iter().map(|_| store.reserve(64).unwrap()).collect();
                let mut got = vec![Vec::new(); which.len()];
                // A prompt in one piece, then a token at a time.
                for step in 0..=steps {
                    let sequences = which.iter().zip(&mut pages);
                    let mut segments: Vec<Segment<'_>> = sequences
                        .map(|(&i, pages)| {
                            let begun = texts[i].len() - steps;
                            let range =
                                if step == 0 { 0..begun } else { begun + step - 1..begun + step };
                            Segment {
                                tokens: &texts[i][range],
                                pages,
                                mask: all[i].as_ref(),
                                missing: Missing::Map,
                                taps: None,
                                prompt: step == 0,
                                want: Want::All,
                            }
                        })
                        .collect();
                    for (got, output) in got.iter_mut().zip(forward(model, &device, &mut segments))
                    {
                        got.extend(bits(&output.logits));
                    }
                }
                got
            };
            let together = run(&[0, 1, 2, 3], 4);
            for (i, together) in together.iter().enumerate() {
                assert_eq!(run(&[i], 4)[0], *together, "{} {precision} {i}", case.name);
                let whole = &run(&[i], 0)[0];
                assert_eq!(whole, together, "{} {precision} {i} in one piece", case.name);
            }
        }
    }
}
