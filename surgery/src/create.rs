//! Makes a specialist: profile, coherence, mask, verify, evaluate, register.
//!
//! In: a parent, and a corpus of one domain or a profile of its traffic.  Out: a
//! registered specialist and a [`Report`].  Each step leaves its file in the
//! work folder and names there what it was made from; a step whose file is
//! there and was made from the same things is not done again, so that an
//! interrupted run goes on where it stopped.  A work folder is one process's at a
//! time, and what a killed one left half-written is swept away.
//!
//! * `folder`: the lock, and files written whole; `steps`: what is done from the
//!   mask on; `error`: why nothing was made.
//!
//! Nothing is registered that was not verified.  What coherence and evaluation
//! say is reported, not judged: the page in the work folder shows it.

mod error;
mod folder;
mod steps;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Domain, Domains};
use engine::{Masking, Profile, hash};
use serde::Serialize;
use specialists::{Created, Manifest, Registry, State, valid_id};

pub use error::CreateError;
use folder::{Work, io};
use steps::{Masked, at_home, coherent};

use crate::coherence::{self, Verdict};
use crate::corpus::{Corpus, CorpusError, Part};
use crate::evaluate::{Controls, Table};
use crate::mask::{self, Made as Chosen, Order, Request, Score, Target, Warning};
use crate::profile::{self, Checkpoint, Plan};
use crate::stability::Settle;
use crate::tokens::{Reading, TokensError};
use crate::verify;
use crate::{Parent, Progress};

/// Random masks that a new specialist is compared with.
const CONTROLS: Controls = Controls { draws: 3, seed: 1 };

/// Tokens of the corpus that probes are taken from.
const PROBED: u64 = 2048;

/// Time between two checkpoints of the profile: what a kill costs at most.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

/// What specialists are made with.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    pub parent: &'a Parent,
    pub registry: &'a Registry,
    pub domains: &'a Domains,
}

/// What is to be made, and where its files go.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Name in the registry; usually the domain's.
    pub id: String,
    /// Id, name or alias of an enabled domain.
    pub domain: String,
    /// `None` is the best that the profile has the numbers for.
    pub score: Option<Score>,
    pub request: Request,
    /// Where in the router its mask acts.
    pub masking: Masking,
    /// When enough of the corpus was read; `None` reads all of it.
    pub settle: Option<Settle>,
    /// Go on with fewer than four tokens for each expert.
    pub force: bool,
    /// Profile, mask and reports.
    pub folder: PathBuf,
}

/// What it is made from.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    pub corpus: &'a Corpus,
    /// To test with; without it every 20th item of the corpus is held back.
    pub held_out: Option<&'a Corpus>,
    /// About so many tokens are profiled; `None` for all.
    pub tokens: Option<u64>,
    /// About so many held-out tokens are read; `None` for all.
    pub held_out_tokens: Option<u64>,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub id: String,
    pub domain: String,
    pub parent: String,
    /// Tokens profiled.
    pub tokens: u64,
    /// Kept experts by layer.
    pub experts: Vec<usize>,
    /// By layer, on the profile it was made from.
    pub coverage: Vec<f64>,
    pub mask_sha256: String,
    /// Whether one mask will do; `None` where there are too few items to say.
    pub coherence: Option<coherence::Report>,
    pub verification: verify::Report,
    pub evaluation: Option<Table>,
    /// What to know before it is relied on.
    pub warnings: Vec<String>,
    /// Where the files are.
    pub folder: PathBuf,
    /// Where it is registered.
    pub registered: PathBuf,
}

impl Recipe {
    /// Half of the experts by gate mass, in the usual folder below `home`.
    pub fn usual(home: &Path, domain: &str) -> Recipe {
        Recipe {
            id: domain.to_owned(),
            domain: domain.to_owned(),
            score: None,
            request: Request { target: Target::Share(0.5), uniform: true },
            masking: Masking::default(),
            settle: Some(Settle::default()),
            force: false,
            folder: home.join("work").join(domain),
        }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.id))
    }
}

impl Workshop<'_> {
    /// Makes a specialist from a corpus and registers it.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; the steps that were done stay in the work folder.
    pub fn create(
        self,
        recipe: &Recipe,
        texts: Texts,
        progress: Progress,
    ) -> Result<Report, CreateError> {
        let Workshop { parent, domains, .. } = self;
        let domain = servable(domains, recipe)?;
        let shape = parent.model.shape();
        recipe.request.target.check(shape.experts, shape.top_k)?;
        let own = Reading {
            corpus: texts.corpus,
            domains,
            domain: Some(&domain.id),
            part: if texts.held_out.is_some() { Part::All } else { Part::Training },
            tokens: texts.tokens,
        };
        let held_out = Reading {
            corpus: texts.held_out.unwrap_or(texts.corpus),
            part: if texts.held_out.is_some() { Part::All } else { Part::HeldBack },
            tokens: texts.held_out_tokens,
            ..own
        };
        // A corpus of fewer than twenty items has none to hold back, and its specialist no evaluation.
        let short = texts.held_out.is_none()
            && matches!(
                held_out.corpus.survey(held_out.selection()),
                Err(CorpusError::Empty { .. })
            );
        let held_out = (!short).then_some(held_out);
        let _work = self.work(recipe)?;
        let path = recipe.file("profile");
        let checkpoint = profile::checkpoint_of(&path);
        let plan = Plan {
            reading: own,
            pairs: false,
            signatures: true,
            settle: recipe.settle,
            force: recipe.force,
            checkpoint: Some(Checkpoint { path: &checkpoint, every: CHECKPOINT_EVERY }),
        };
        let of = |p: &Profile| (p.parent.clone(), p.domain.clone(), p.source.clone());
        let wanted = (parent.model.parent(), domain.id.clone(), plan.source()?);
        let before = Profile::read(&path).ok().filter(|profile| of(profile) == wanted);
        let profile = match before {
            Some(profile) => profile,
            None => {
                let profile = profile::run(parent, plan, progress)?.profile;
                profile.write(&path)?;
                profile
            }
        };
        // Also where an earlier run was killed just before it: what is left would stand in the way of another corpus.
        let _ = std::fs::remove_file(&checkpoint);
        let corpus_sha256 = texts.corpus.sha256().map_err(TokensError::from)?;
        let made =
            Made { profile: &profile, path: &path, corpus_sha256, texts: Some((own, held_out)) };
        self.finish(&domain, recipe, made, progress)
    }

    /// Makes a specialist from a profile that was collected elsewhere, such as from
    /// traffic, and registers it.  There is no text to evaluate it on.
    ///
    /// # Errors
    ///
    /// [`CreateError`]; the steps that were done stay in the work folder.
    pub fn from_profile(
        self,
        recipe: &Recipe,
        profile: &Profile,
        progress: Progress,
    ) -> Result<Report, CreateError> {
        let domain = servable(self.domains, recipe)?;
        let _work = self.work(recipe)?;
        let path = recipe.file("profile");
        profile.write(&path)?;
        let corpus_sha256 = "traffic".to_owned();
        let made = Made { profile, path: &path, corpus_sha256, texts: None };
        self.finish(&domain, recipe, made, progress)
    }

    /// The recipe's folder, for this process alone.
    fn work(self, recipe: &Recipe) -> Result<Work, CreateError> {
        Work::open(&recipe.folder, &self.registry.folder().join(&recipe.id))
    }

    /// From the mask on, the same for corpus and traffic.
    fn finish(
        self,
        domain: &Domain,
        recipe: &Recipe,
        made: Made,
        progress: Progress,
    ) -> Result<Report, CreateError> {
        let Workshop { parent, registry, .. } = self;
        let (own, profile) = (parent.model.parent(), made.profile);
        if profile.parent != own {
            return Err(CreateError::OtherParent { profile: profile.parent.clone(), parent: own });
        }
        if profile.domain != domain.id {
            let (profile, domain) = (profile.domain.clone(), domain.id.clone());
            return Err(CreateError::OtherDomain { profile, domain });
        }
        let profile_sha256 = hash::file(made.path).map_err(io(made.path))?;
        let mut warnings = profile::warnings(profile, parent.model.shape());
        let score = recipe.score.unwrap_or_else(|| Score::best([profile]));
        let order = Order {
            routed: Some(&parent.model.shape().routed),
            masking: recipe.masking,
            force: recipe.force,
            ..Order::plain(score, recipe.request)
        };
        let Chosen { file, warnings: more, .. } = mask::make(profile, &profile_sha256, &order)?;
        // That tokens are few was said.
        let more = more.iter().filter(|warning| !matches!(warning, Warning::FewTokens { .. }));
        warnings.extend(more.map(ToString::to_string));
        let text = file.to_json()?;
        let mask_sha256 = hash::hex(text.as_bytes());
        let path = recipe.file("mask.json");
        engine::file::replace(&path, text.as_bytes()).map_err(io(&path))?;
        let coherence = coherent(profile, &file, recipe, &made)?;
        if let Some(found) = coherence.as_ref().filter(|found| found.verdict != Verdict::One) {
            warnings.push(found.headline());
        }
        let (read, held_out) = made.texts.unzip();
        let held_out = held_out.flatten();
        let of = (profile, &profile_sha256[..]);
        let masked = Masked { parent, file: &file, sha256: &mask_sha256, profile: of, recipe };
        let verification = masked.verified(read, progress)?;
        let evaluation = held_out.map(|text| masked.evaluated(text, progress)).transpose()?;
        let manifest = Manifest {
            id: recipe.id.clone(),
            domain: domain.id.clone(),
            parent: own.clone(),
            mask_sha256: mask_sha256.clone(),
            state: State::Active,
            think: domain.think,
            missing: Default::default(),
            sampling: domain.sampling.clone(),
            evaluation: evaluation.as_ref().and_then(at_home),
            created: Created {
                profile_sha256,
                corpus_sha256: made.corpus_sha256,
                score: file.score.clone(),
                coverage: mean(&file.coverage),
                time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        };
        registry.register(&manifest, &text)?;
        Ok(Report {
            id: manifest.id,
            domain: manifest.domain,
            parent: own,
            tokens: profile.tokens,
            experts: file.experts,
            coverage: file.coverage,
            mask_sha256,
            coherence,
            verification,
            evaluation,
            warnings,
            folder: recipe.folder.clone(),
            registered: registry.folder().join(&recipe.id),
        })
    }
}

/// A profile and what it came from.
struct Made<'a> {
    profile: &'a Profile,
    path: &'a Path,
    corpus_sha256: String,
    /// Its own and the held-out text, where there is any.
    texts: Option<(Reading<'a>, Option<Reading<'a>>)>,
}

/// The domain of a recipe.  One that no file describes is a new one: its specialist answers to its name, and questions
/// are dispatched to it once there is a file.  A name close to one that exists is a slip.
fn servable(domains: &Domains, recipe: &Recipe) -> Result<Domain, CreateError> {
    // The registry refuses it too, but only after the work, and the id is part
    // of the names of files.
    if !valid_id(&recipe.id) {
        return Err(CreateError::Id { id: recipe.id.clone() });
    }
    let label = &recipe.domain;
    let domain = domains.canonical(label).and_then(|id| domains.get(id));
    match domain {
        Some(domain) if domain.enabled => Ok(domain.clone()),
        Some(domain) => Err(CreateError::Disabled { id: domain.id.clone() }),
        None if domains.nearest(label).is_none() && valid_id(label) => Ok(Domain::new(label)),
        None => Err(CreateError::Domain {
            label: label.to_owned(),
            nearest: domains.nearest(label).map(str::to_owned),
        }),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
