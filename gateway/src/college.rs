//! Everything that is needed to answer, wired: parent, engine, pool, supervisor.
//!
//! In: settings and the home folder.  Out: a [`College`], shared by all requests
//! (over HTTP or from the terminal).  How a request goes through it is in `path`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, PoisonError, RwLock};

use config::{Circles, Loaded};
use engine::gguf::GgufError;
use engine::{Bank, Engine, EngineOptions, ExpertMask, Model, device};
use specialists::{LONGEST_WAIT, Pool, PoolOptions, Registry, Snapshot};
use tokio::sync::{Semaphore, mpsc};
use tracing::warn;

use crate::conversation::Conversations;
use crate::decide::{Serving, serving};
use crate::decisions::Decisions;
use crate::errors::Refusal;
use crate::meter::{Memory, Meter};
use crate::routing::Routing;
use crate::shape::now;
use crate::start::{self, Needs, StartError, share};
use crate::traffic::Finished;

/// What all requests share; of it only the routing is replaced while it runs.
pub struct College {
    pub model: Arc<Model>,
    pub engine: Engine,
    pub bank: Arc<Bank>,
    pub pool: Pool,
    pub meter: Meter,
    pub decisions: Decisions,
    pub conversations: Conversations,
    pub home: PathBuf,
    routing: RwLock<Arc<Routing>>,
    /// Where the operator's domains are; watched.
    pub(crate) folder: Option<PathBuf>,
    /// API keys; none lets everyone in.
    pub(crate) keys: Vec<String>,
    /// Specialists that are not served.
    pub(crate) disabled: Vec<String>,
    /// A permit for each answer without its first token.
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) max_waiting: usize,
    /// What happens to answers that go round in circles.
    pub(crate) circles: Circles,
    /// Whether texts are kept.
    pub(crate) record: bool,
    /// Seconds since 1970 at the start; models are as old as this.
    pub(crate) since: u32,
    /// Where finished answers' counts go; nowhere if nobody adds them up.
    pub(crate) finished: Option<mpsc::UnboundedSender<Finished>>,
    /// Said once: the parent's file was removed or replaced.
    gone: Once,
}

impl College {
    /// Opens the parent, starts engine and pool.
    ///
    /// Counts of finished answers go to `finished`; see `autopilot`.
    ///
    /// # Errors
    /// [`StartError`]: a file, a key, or too small a budget.
    pub fn open(
        loaded: Loaded,
        home: &Path,
        finished: Option<mpsc::UnboundedSender<Finished>>,
    ) -> Result<Arc<Self>, StartError> {
        let folder = loaded.folder();
        let Loaded { config, domains, .. } = loaded;
        let model = start::model_at_once(config.parent.path.as_deref(), home)?;
        let pinned = domains.enabled().filter(|d| d.pin).map(|d| d.id.clone()).collect();
        let routing = Routing::new(home, domains, &config.supervisor)?;
        let kv_precision = config.memory.kv_type;
        let mut options = EngineOptions {
            kv_precision,
            lookup: config.serving.lookup,
            ..EngineOptions::default()
        };
        let (device, missing) = device::open(config.memory.device, &model);
        if let Some(why) = missing {
            warn!("{why}; computing on {}", device.name());
        }
        let (shape, bank) = (model.shape(), Bank::on(device.clone(), &model));
        let needs = Needs {
            backbone: bank.backbone_bytes(),
            experts: bank.bytes(&ExpertMask::full(shape)),
            workspace: options.workspace_bytes(&model),
            conversation: model.layout(kv_precision).bytes_for(shape.context),
        };
        let said = &config.memory;
        let (budget, kv) = (said.budget.map(|b| b.0), said.kv.map(|b| b.0));
        let shares = share(needs, budget, kv, device.free_memory());
        options.kv_bytes = shares.kv;
        let disabled = &config.specialists.disabled;
        // The pool first: it refuses a budget before memory is taken.
        let pool = Pool::start(PoolOptions {
            model: model.clone(),
            bank: bank.clone(),
            registry: Registry::open(home, shape, model.gguf().late_sha256(), disabled),
            budget: shares.budget,
            kv_bytes: shares.kv,
            workspace: needs.workspace,
            pinned,
            missing: said.missing,
            longest_wait: LONGEST_WAIT,
        })?;
        let engine =
            Engine::start(model.clone(), bank.clone(), options).map_err(StartError::Engine)?;
        let meter = Meter::new();
        meter.computes(&device.name(), kv_precision);
        Ok(Arc::new(Self {
            model,
            engine,
            bank,
            pool,
            meter,
            decisions: Decisions::default(),
            conversations: Conversations::new(config.conversations),
            home: home.to_owned(),
            routing: RwLock::new(Arc::new(routing)),
            folder,
            keys: config.server.keys,
            disabled: config.specialists.disabled,
            waiting: Arc::new(Semaphore::new(config.server.max_queue)),
            max_waiting: config.server.max_queue,
            circles: config.serving.circles,
            record: config.traffic.record,
            since: now(),
            finished,
            gone: Once::new(),
        }))
    }

    /// The domains and the supervisor in use now; keep it for one decision.
    pub fn routing(&self) -> Arc<Routing> {
        // Replacing it is one assignment, so a panic leaves one of the two.
        self.routing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next decisions are made by this.
    pub(crate) fn take_over(&self, next: Routing) {
        *self.routing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
    }

    /// Whether the parent is still what was opened.
    ///
    /// # Errors
    /// [`Refusal::Unservable`] once its file was changed in place, until the next start.
    pub fn intact(&self) -> Result<(), Refusal> {
        match self.model.gguf().intact() {
            Ok(()) => Ok(()),
            Err(error @ GgufError::Changed { .. }) => Err(Refusal::changed(error.to_string())),
            // The system keeps a file without a name for who has it open.
            Err(gone) => {
                self.gone.call_once(|| warn!(%gone, "the parent's file"));
                Ok(())
            }
        }
    }

    /// The pool now; also the proof that it still answers.
    ///
    /// # Errors
    /// [`Refusal::Stopping`].
    pub async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        self.pool.snapshot().await.map_err(|_| Refusal::Stopping)
    }

    /// Which specialist serves each domain now.
    ///
    /// # Errors
    /// As [`College::snapshot`].
    pub(crate) async fn serving(&self) -> Result<Serving, Refusal> {
        Ok(serving(self.snapshot().await?.specialists.iter().map(|s| &s.manifest)))
    }

    /// Puts the pool's numbers into the meter.
    ///
    /// # Errors
    /// As [`College::snapshot`].
    pub async fn measure(&self) -> Result<(), Refusal> {
        let snapshot = self.snapshot().await?;
        let ledger = &snapshot.ledger;
        self.meter.memory(Memory {
            backbone: ledger.backbone,
            experts: ledger.experts,
            guests: ledger.guests,
            kv: ledger.kv,
            workspace: ledger.workspace,
            peak: ledger.peak,
            budget: ledger.budget,
            evictions: snapshot.evictions,
            leases: snapshot.leases as u64,
        });
        for specialist in &snapshot.specialists {
            self.meter.warm(&specialist.id, specialist.warm, specialist.completeness);
        }
        let routed = &self.model.shape().routed;
        let counts = self.bank.counts().into_iter().zip(routed).enumerate();
        for (layer, (counts, _)) in counts.filter(|(_, (_, routed))| **routed) {
            self.meter.layer(layer, &counts);
        }
        self.meter.guesses(self.engine.guesses());
        self.meter.conversations(self.conversations.remembered());
        if let Some((private, file)) = resident() {
            self.meter.resident(private, file);
        }
        Ok(())
    }
}

/// Bytes of this process in memory, private and of files, where the system tells.
fn resident() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((kib("RssAnon")? * 1024, kib("RssFile")? * 1024))
}
