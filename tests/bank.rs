//! What the bank promises whichever experts are in memory: the same bits, bounded memory, an account the system
//! agrees with.  On the embedded parent, whose slices are whole pages, and on a random one, whose slices are not.

use std::path::Path;
use std::sync::Arc;

use engine::gguf::Gguf;
use engine::kv::{KvStore, Precision};
use engine::{
    Arena, Bank, ExpertMask, Host, HostMemory, Missing, Model, Segment, Session, Want, forward,
    memory,
};
use tests::accounted;
use tests::random::{MANY, Random, masks};

const NANO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../specialists/nano/nano.gguf");
const POLICIES: [Missing; 3] = [Missing::Map, Missing::Fetch, Missing::Renormalise];

/// A map of its own: what one test gives back, another may be using.
fn open(path: &Path) -> Arc<Model> {
    Model::load(Gguf::open(path).unwrap()).unwrap()
}

/// Both parents, one after the other.
fn on_both(check: impl Fn(&Arc<Model>)) {
    check(&open(NANO.as_ref()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("random.gguf");
    Random { layers: 3, experts: 32, ..MANY }.write(&path).unwrap();
    check(&open(&path));
}

fn share(bank: &Bank, model: &Model, share: f64) -> u64 {
    (bank.bytes(&ExpertMask::full(model.shape())) as f64 * share) as u64
}

/// The account is what the system says, where it tells.
#[track_caller]
fn agreed(bank: &Bank) {
    if let Some(system) = bank.reported_bytes() {
        accounted(system, bank.resident_bytes(), "experts");
    }
}

/// A row of a batch: its mask and its policy.
type Row<'a> = (Option<&'a ExpertMask>, Missing);

/// Logits of all tokens of each row's text, all rows in one batch: five tokens of prompt, then one at a time.
fn together(model: &Model, bank: &Bank, rows: &[Row<'_>]) -> Vec<Vec<f32>> {
    const TOKENS: usize = 12;
    let layout = model.layout(Precision::F32);
    let store = KvStore::new(&layout, layout.bytes_for(4096)).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let mut text = || (0..TOKENS).map(|_| random.u32(3..8000)).collect::<Vec<_>>();
    let texts: Vec<Vec<u32>> = rows.iter().map(|_| text()).collect();
    let mut pages: Vec<_> = rows.iter().map(|_| store.reserve(TOKENS).unwrap()).collect();
    let mut logits = vec![Vec::new(); rows.len()];
    for (from, to) in [(0, 5)].into_iter().chain((5..TOKENS).map(|at| (at, at + 1))) {
        let mut segments: Vec<Segment<'_>> = pages
            .iter_mut()
            .zip(rows.iter().zip(&texts))
            .map(|(pages, (&(mask, missing), text))| Segment {
                tokens: &text[from..to],
                pages,
                mask,
                missing,
                taps: None,
                prompt: from < 5,
                want: Want::All,
            })
            .collect();
        for (all, output) in logits.iter_mut().zip(forward(model, bank, &mut segments)) {
            all.extend(output.logits);
        }
    }
    logits
}

#[test]
fn what_is_resident_changes_no_bit() {
    on_both(|model| {
        let masks = masks(model.shape(), 3, 0.5, 1.0, 1);
        let rows = |missing: [Missing; 4]| -> Vec<Row<'_>> {
            let masks = [None, Some(&masks[0]), Some(&masks[1]), Some(&masks[2])];
            masks.into_iter().zip(missing).collect()
        };
        let bank = Bank::new(model.clone());
        bank.warm(&ExpertMask::full(model.shape()));
        let want = together(model, &bank, &rows([Missing::Map; 4]));
        // With everything there no policy has a say.
        assert!(want == together(model, &bank, &rows([Missing::Renormalise; 4])));
        for room in [0.0, 0.05, 0.2, 0.4, 1.0] {
            for warm in [&masks[..0], &masks[..1]] {
                for (missing, exact) in [
                    ([Missing::Map; 4], 4),
                    ([Missing::Fetch; 4], 4),
                    ([Missing::Fetch, Missing::Map, Missing::Map, Missing::Fetch], 4),
                    // One that makes do with what there is changes nothing for the others.
                    ([Missing::Fetch, Missing::Map, Missing::Fetch, Missing::Renormalise], 3),
                ] {
                    let bank = Bank::new(model.clone());
                    warm.iter().for_each(|mask| _ = bank.warm(mask));
                    let (held, room) = (bank.resident_bytes(), share(&bank, model, room));
                    bank.set_room(room);
                    let got = together(model, &bank, &rows(missing));
                    assert!(got[..exact] == want[..exact], "{room} bytes, {missing:?}");
                    assert!(bank.guest_bytes() <= room);
                    assert_eq!(bank.resident_bytes(), held + bank.guest_bytes());
                    agreed(&bank);
                }
            }
        }
    });
}

// A row that makes do with what there is gets what a specialist of just those experts would.
#[test]
fn renormalised_away_is_masked_away() {
    on_both(|model| {
        let masks = masks(model.shape(), 2, 0.5, 1.0, 2);
        let bank = Bank::new(model.clone());
        bank.warm(&masks[0]);
        let masked = together(model, &bank, &[(Some(&masks[0]), Missing::Map)]);
        let misses = bank.misses();
        assert!(masked == together(model, &bank, &[(None, Missing::Renormalise)]));
        assert_eq!(bank.misses(), misses, "nothing was wanted that is not there");
        // With nothing resident a row has all its experts all the same.
        let whole = together(model, &bank, &[(None, Missing::Map)]);
        let empty = Bank::new(model.clone());
        assert!(whole == together(model, &empty, &[(None, Missing::Renormalise)]));
        // While there is room they are fetched, and once it is full they are what there is.
        empty.set_room(share(&empty, model, 0.5));
        for _ in 0..4 {
            together(model, &empty, &[(None, Missing::Renormalise)]);
        }
        let misses = empty.misses();
        assert!(empty.guest_bytes() > share(&empty, model, 0.4));
        together(model, &empty, &[(None, Missing::Renormalise)]);
        assert_eq!(empty.misses(), misses);
    });
}

#[test]
fn uses_are_counted_by_layer() {
    let model = open(NANO.as_ref());
    let (shape, mask) = (model.shape(), &masks(model.shape(), 1, 0.5, 1.0, 4)[0]);
    let bank = Bank::new(model.clone());
    assert_eq!(bank.completeness(mask), vec![0.0; shape.layers]);
    bank.warm(mask);
    assert_eq!(bank.completeness(mask), vec![1.0; shape.layers]);
    assert_eq!(bank.completeness(&ExpertMask::full(shape)), vec![0.5; shape.layers]);
    // One token of a warm specialist: as many uses as the router picks, all of them hits.
    let mut session = Session::new(&model, &bank, 8).unwrap();
    session.logits(&[5], Some(mask));
    for count in bank.counts() {
        assert_eq!((count.hits, count.misses, count.tokens), (shape.top_k as u64, 0, 1));
        assert!((0.0..=1.0).contains(&count.missing_mass));
    }
    assert!(bank.counts().iter().any(|count| count.missing_mass > 0.0));
    // The generalist's are the same number, whoever is there; it lacks nothing.
    let before = bank.counts();
    session.logits(&[6], None);
    for (count, before) in bank.counts().iter().zip(before) {
        assert_eq!(count.hits + count.misses, 2 * shape.top_k as u64);
        assert_eq!((count.tokens, count.missing_mass), (2, before.missing_mass));
    }
    assert!(bank.misses() > 0);
}

/// What happened to the bank at each moment of a day: bytes resident and of guests, and who is there.
fn day(model: &Arc<Model>, bank: &Arc<Bank>) -> Vec<(u64, u64, Vec<bool>)> {
    let shape = model.shape();
    let masks = masks(shape, 4, 0.4, 0.9, 5);
    let mut seen = Vec::new();
    let mut look = || {
        let all = (0..shape.layers).flat_map(|l| (0..shape.experts).map(move |e| (l, e)));
        let there = all.map(|(l, e)| bank.resident(l, e)).collect();
        seen.push((bank.resident_bytes(), bank.guest_bytes(), there));
    };
    let mut session = Session::new(model, bank, 512).unwrap().with(Missing::Fetch);
    let mut random = fastrand::Rng::with_seed(8);
    for doing in ["warm 0", "room 20", "say", "warm 1", "say", "evict 0", "room 5", "say", "warm 2"]
    {
        let number = || doing[doing.len() - 2..].trim().parse::<usize>().unwrap();
        match doing.split(' ').next().unwrap() {
            "warm" => _ = bank.warm(&masks[number()]),
            "evict" => _ = bank.evict(&masks[number()]),
            "room" => bank.set_room(share(bank, model, number() as f64 / 100.0)),
            _ => (0..10).for_each(|_| drop(session.logits(&[random.u32(3..8000)], None))),
        }
        look();
    }
    seen
}

// Who comes, who leaves and what is counted does not depend on where experts are; on the embedded parent a slot is as
// large as the pages of an expert.
#[test]
fn slots_of_a_device_are_the_same_bank() {
    let first = open(NANO.as_ref());
    let (model, mapped) = (&first, Bank::new(first.clone()));
    let all = mapped.bytes(&ExpertMask::full(model.shape()));
    // A map of its own, since both compute in the map here.
    let model = open(NANO.as_ref());
    let arena = Arc::new(Arena::new(&model, HostMemory::new(all as usize)));
    let slotted = Bank::at(Arc::new(Host), &model, arena.clone());
    assert_eq!(day(&first, &mapped), day(&model, &slotted));
    for bank in [&mapped, &slotted] {
        agreed(bank);
    }
    // Slots hold the bytes of their experts, and those that left are taken again.
    let shape = model.shape();
    for (layer, expert) in (0..shape.layers).flat_map(|l| (0..shape.experts).map(move |e| (l, e))) {
        let slot = arena.slot_of(layer, expert);
        assert_eq!(slot.is_some(), slotted.resident(layer, expert));
        let Some(slot) = slot else { continue };
        let gate = model.gguf().tensor(&format!("blk.{layer}.ffn_gate_exps.weight")).unwrap();
        let bytes = gate.bytes as usize / shape.experts;
        let want = &model.gguf().data(gate)[expert * bytes..][..bytes];
        assert!(arena.memory(|memory| memory.at(slot, bytes) == want), "{layer}, {expert}");
    }
    assert!(arena.memory(engine::DeviceMemory::reserved) < all);
}

#[test]
fn a_full_device_computes_the_rest_from_the_file() {
    let model = open(NANO.as_ref());
    let full = ExpertMask::full(model.shape());
    let bank =
        Bank::at(Arc::new(Host), &model, Arc::new(Arena::new(&model, HostMemory::new(1 << 20))));
    bank.warm(&full);
    assert!(bank.reported_bytes().unwrap() <= 1 << 20);
    let share = bank.completeness(&full);
    assert!(share.iter().any(|s| *s > 0.0) && share.iter().any(|s| *s < 1.0), "{share:?}");
    let whole = Bank::new(model.clone());
    let row = [(None, Missing::Fetch)];
    assert!(together(&model, &bank, &row) == together(&model, &whole, &row));
}

// What the system has mapped of the file is backbone and resident experts, to the page, though neighbours share pages.
#[test]
fn the_account_is_what_the_system_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.gguf");
    MANY.write(&path).unwrap();
    let model = open(&path);
    let bank = Bank::new(model.clone());
    let masks = masks(model.shape(), 8, 0.25, 0.6, 1);
    let check = |what: &str| {
        let Some(experts) = bank.reported_bytes() else { return };
        accounted(experts, bank.resident_bytes(), what);
        let smaps = memory::smaps_bytes(model.gguf().parts()[0].mapping().bytes()).unwrap();
        accounted(smaps, bank.backbone_bytes() + bank.resident_bytes(), what);
    };
    check("nothing is warm");
    for (i, mask) in masks.iter().enumerate() {
        let (before, moved) = (bank.resident_bytes(), bank.warm(mask));
        assert_eq!(bank.resident_bytes(), before + moved.bytes);
        assert_eq!(bank.resident_bytes(), bank.sizes().union(&masks[..=i]));
        check("warm");
    }
    for missing in POLICIES {
        together(&model, &bank, &[(None, missing), (Some(&masks[3]), missing)]);
        check("after a step");
    }
    bank.set_room(share(&bank, &model, 0.1));
    together(&model, &bank, &[(None, Missing::Fetch)]);
    assert!(bank.guest_bytes() > 0);
    check("with guests");
    bank.set_room(0);
    for (i, mask) in masks.iter().enumerate() {
        bank.evict(mask);
        assert_eq!(bank.resident_bytes(), bank.sizes().union(&masks[i + 1..]));
        check("evicted");
    }
    assert_eq!(bank.resident_bytes(), 0);
}

// Specialists come and go and the room changes while sequences run that fetch what they lack: no bit changes, and when
// all is quiet the account is what the system says.
#[test]
fn coming_and_going_under_load() {
    on_both(|model| {
        let masks = masks(model.shape(), 3, 0.4, 1.0, 6);
        let bank = Bank::new(model.clone());
        let rows = [(None, Missing::Fetch), (Some(&masks[0]), Missing::Map)];
        let want = together(model, &bank, &rows);
        let running = std::sync::atomic::AtomicUsize::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        assert!(together(model, &bank, &rows) == want);
                    }
                    running.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                });
            }
            let mut random = fastrand::Rng::with_seed(9);
            while running.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                let mask = random.choice(&masks).unwrap();
                bank.warm(mask);
                bank.set_room(share(&bank, model, 0.5 * random.f64()));
                bank.evict(mask);
            }
        });
        // What was touched while it left goes with the next step that lacks something.
        bank.set_room(0);
        together(model, &bank, &[(None, Missing::Map)]);
        assert_eq!((bank.resident_bytes(), bank.guest_bytes()), (0, 0));
        agreed(&bank);
    });
}
