//! The pool on the embedded parent: leases, loads, evictions, and the account of memory.

use std::sync::Arc;
use std::time::Duration;

use engine::gguf::Gguf;
use engine::{Bank, ExpertMask, MASK_FORMAT, MaskFile, Missing, Model, Session, hash};
use specialists::{Created, Manifest, Pool, PoolError, PoolOptions, Registry, Snapshot, State};
use tests::accounted;

const WORKSPACE: u64 = 1 << 20;
const KV: u64 = 1 << 20;

struct Scene {
    home: tempfile::TempDir,
    model: Arc<Model>,
    bank: Arc<Bank>,
}

impl Scene {
    /// Four specialists of half the experts: a and b share nothing, c and d overlap both.
    fn new() -> Scene {
        // A map of its own: what one scene gives back, another may be using.
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../specialists/nano/nano.gguf");
        let model = Model::load(Gguf::open(file.as_ref()).unwrap()).unwrap();
        let scene =
            Scene { home: tempfile::tempdir().unwrap(), bank: Bank::new(model.clone()), model };
        let half = scene.model.shape().experts as u32 / 2;
        for (id, first) in [("a", 0), ("b", half), ("c", half / 2), ("d", half / 4)] {
            scene.register(id, first);
        }
        scene
    }

    fn register(&self, id: &str, first: u32) {
        self.register_with(id, first, self.model.shape().experts as u32 / 2, Missing::Fetch);
    }

    /// A specialist of `n` experts a layer.
    fn register_with(&self, id: &str, first: u32, n: u32, missing: Missing) {
        let shape = self.model.shape();
        let kept = vec![(first..first + n).collect(); shape.layers];
        let mask = MaskFile {
            format: MASK_FORMAT.into(),
            parent: self.model.parent(),
            domain: id.into(),
            score: "gate".into(),
            experts: vec![n as usize; shape.layers],
            kept,
            coverage: vec![1.0; shape.layers],
            profile: "p".into(),
            sources: vec![],
            masking: Default::default(),
            passes: vec![],
        }
        .to_json()
        .unwrap();
        let manifest = Manifest {
            id: id.into(),
            domain: id.into(),
            parent: self.model.parent(),
            mask_sha256: hash::hex(mask.as_bytes()),
            state: State::Active,
            think: Default::default(),
            missing,
            sampling: Default::default(),
            evaluation: None,
            created: Created {
                profile_sha256: "p".into(),
                corpus_sha256: "c".into(),
                score: "gate".into(),
                coverage: 1.0,
                time: 0,
                version: "0".into(),
            },
        };
        self.registry().register(&manifest, &mask).unwrap();
    }

    fn registry(&self) -> Registry {
        let shipped: Vec<String> =
            config::load(None).unwrap().domains.iter().map(|d| d.id.clone()).collect();
        Registry::open(self.home.path(), self.model.shape(), self.model.parent(), &shipped)
    }

    fn specialist_bytes(&self) -> u64 {
        self.bank.bytes(&ExpertMask::full(self.model.shape())) / 2
    }

    /// A budget that leaves room for `specialists` times the experts of one.
    fn budget(&self, specialists: f64) -> u64 {
        let room = (self.specialist_bytes() as f64 * specialists) as u64;
        self.bank.backbone_bytes() + KV + WORKSPACE + room
    }

    fn start(&self, budget: u64) -> Result<Pool, PoolError> {
        Pool::start(PoolOptions {
            model: self.model.clone(),
            bank: self.bank.clone(),
            registry: self.registry(),
            budget,
            kv_bytes: KV,
            workspace: WORKSPACE,
            pinned: vec![],
            missing: Missing::Fetch,
            longest_wait: Duration::from_millis(300),
        })
    }
}

async fn warm(pool: &Pool) -> String {
    let snapshot = pool.snapshot().await.unwrap();
    assert!(
        snapshot.ledger.total() <= snapshot.ledger.budget
            && snapshot.ledger.peak <= snapshot.ledger.budget
    );
    let warm: Vec<String> =
        snapshot.specialists.into_iter().filter(|s| s.warm).map(|s| s.id).collect();
    warm.join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn evicts_by_expert_and_never_exceeds_the_budget() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.0)).unwrap();
    for id in ["a", "b", "a", "c", "d"] {
        let lease = pool.lease(id).await.unwrap();
        assert_eq!(lease.specialist(), id);
        assert_eq!(lease.mask().unwrap().count(0), 16);
        assert_eq!(warm(&pool).await, id);
        assert_eq!(scene.bank.resident_bytes(), scene.specialist_bytes());
    }
    assert_eq!(pool.snapshot().await.unwrap().evictions, 4);
    // One and a half: c needs only half of what a has not.
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.5)).unwrap();
    drop((pool.lease("a").await.unwrap(), pool.lease("c").await.unwrap()));
    assert_eq!(warm(&pool).await, "a c");
    assert_eq!(scene.bank.resident_bytes(), scene.specialist_bytes() * 3 / 2);
    drop(pool.lease("d").await.unwrap());
    assert_eq!(warm(&pool).await, "a c d");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_protects_and_a_waiter_gets_its_turn() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.0)).unwrap();
    let held = pool.lease("a").await.unwrap();
    let mut waiting = Box::pin(pool.lease("b"));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err(),
        "a is leased"
    );
    // A warm one does not wait behind it.
    drop(pool.lease("a").await.unwrap());
    // Nobody waits for ever: after a while it runs with what there is.
    let begun = std::time::Instant::now();
    let patient = pool.lease("c").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!((patient.specialist(), patient.mask().unwrap().count(0)), ("c", 16));
    assert_eq!(warm(&pool).await, "a");
    drop((waiting.await.unwrap(), patient));
    let mut waiting = Box::pin(pool.lease("b"));
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    // A request whose sender goes causes nothing.
    let mut gone = Box::pin(pool.lease("d"));
    assert!(tokio::time::timeout(Duration::from_millis(20), &mut gone).await.is_err());
    drop(gone);
    drop(held);
    drop(waiting.await.unwrap());
    assert_eq!(warm(&pool).await, "b");
    assert_eq!(
        pool.snapshot().await.unwrap().evictions,
        1,
        "d asked and left; nothing was loaded for it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generalist_evicts_nobody() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.0)).unwrap();
    drop(pool.lease("a").await.unwrap());
    let lease = pool.lease("generalist").await.unwrap();
    assert!(lease.mask().is_none());
    assert_eq!(warm(&pool).await, "a");
    // With room for everything it is warm like any other, and all the rest cost nothing.
    let scene = Scene::new();
    let pool = scene.start(scene.budget(2.0)).unwrap();
    drop(pool.lease("generalist").await.unwrap());
    drop((pool.lease("a").await.unwrap(), pool.lease("b").await.unwrap()));
    assert_eq!(warm(&pool).await, "a b generalist");
    assert_eq!(scene.bank.resident_bytes(), scene.specialist_bytes() * 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_carry_their_numbers() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.0)).unwrap();
    assert!(
        matches!(pool.lease("poetry").await.map(drop), Err(PoolError::Unknown { id }) if id == "poetry")
    );
    let budget = scene.budget(0.0) - 1;
    match scene.start(budget).map(drop) {
        Err(PoolError::BudgetTooSmall { budget: b, need, .. }) => {
            assert_eq!((b, need), (budget, budget + 1))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_runs_incomplete_and_evicts_nobody() {
    let scene = Scene::new();
    scene.register_with("small", 0, 8, Missing::Map);
    let pool = scene.start(scene.budget(0.9)).unwrap();
    drop(pool.lease("small").await.unwrap());
    // Its mask and its policy are all it needs.
    let lease = pool.lease("b").await.unwrap();
    assert_eq!((lease.mask().unwrap().count(0), lease.missing()), (16, Missing::Fetch));
    assert_eq!(warm(&pool).await, "small");
    let status = |snapshot: &Snapshot, id: &str| {
        snapshot.specialists.iter().find(|s| s.id == id).unwrap().clone()
    };
    let snapshot = pool.snapshot().await.unwrap();
    assert_eq!((snapshot.ledger.guests, snapshot.evictions), (0, 0));
    assert_eq!(status(&snapshot, "small").completeness, 1.0);
    assert_eq!(status(&snapshot, "b").completeness, 0.0);
    // What it fetches lives in what the warm one leaves, and counts.
    let mut session = Session::new(&scene.model, &scene.bank, 64).unwrap().with(lease.missing());
    session.logits(&(100..140).collect::<Vec<u32>>(), lease.mask().as_deref());
    let snapshot = pool.snapshot().await.unwrap();
    let ledger = snapshot.ledger;
    assert!(ledger.guests > 0 && ledger.total() <= ledger.budget, "{ledger:?}");
    assert_eq!(ledger.experts, scene.bank.resident_bytes());
    assert!(status(&snapshot, "b").completeness > 0.1);
    assert_eq!(status(&snapshot, "b").completeness_by_layer.len(), scene.model.shape().layers);
    // Guests leave for what is warmed.
    scene.register_with("third", 16, 4, Missing::Renormalise);
    pool.rescan().await.unwrap();
    let third = pool.lease("third").await.unwrap();
    assert_eq!(third.missing(), Missing::Renormalise);
    assert_eq!(warm(&pool).await, "small third");
    let ledger = pool.snapshot().await.unwrap().ledger;
    assert_eq!(ledger.experts, scene.bank.resident_bytes());
    assert!(scene.bank.guest_bytes() <= ledger.for_experts() - scene.specialist_bytes() * 3 / 4);
    if let Some(system) = scene.bank.reported_bytes() {
        accounted(system, ledger.experts, "experts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_while_it_runs_is_served() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(2.0)).unwrap();
    assert!(pool.lease("late").await.is_err());
    scene.register("late", 3);
    // Without being told.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(pool.lease("late").await.unwrap());
    // And what is removed is not.
    std::fs::remove_file(scene.registry().folder().join("late/manifest.toml")).unwrap();
    pool.rescan().await.unwrap();
    assert!(pool.lease("late").await.is_err());
    assert!(!warm(&pool).await.contains("late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_agrees_with_the_system() {
    let scene = Scene::new();
    let pool = scene.start(scene.budget(1.5)).unwrap();
    for id in ["a", "b", "c", "a"] {
        drop(pool.lease(id).await.unwrap());
        let (ledger, system) = (scene.bank.resident_bytes(), scene.bank.reported_bytes());
        let Some(system) = system else { return };
        accounted(system, ledger, id);
    }
}
