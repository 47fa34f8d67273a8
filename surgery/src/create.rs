//! Makes a specialist: profile, mask, verify, evaluate, register.
//!
//! In: a parent, and a corpus of one domain or a profile of its traffic.  Out: a
//! registered specialist and a [`Report`].  Each step leaves its file in the
//! work folder and names there what it was made from; a step whose file is
//! there and was made from the same things is not done again, so that an
//! interrupted run goes on where it stopped.
//!
//! Nothing is registered that was not verified.  What the evaluation says is
//! reported, not judged.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Domain, Domains};
use engine::{MaskFile, MaskFileError, Profile, hash};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use specialists::{Created, Evaluation, Manifest, Registry, RegistryError, State};
use thiserror::Error;

use crate::corpus::{Corpus, Part};
use crate::evaluate::{self, Column, Controls, EvaluateError, Kind, Table};
use crate::mask::{self, MaskError, Request, Score, Target};
use crate::profile::{self, ProfileError};
use crate::tokens::{self, Reading, TokensError, Window};
use crate::verify::{self, VerifyError};
use crate::{Parent, Progress};

/// Random masks that a new specialist is compared with.
const CONTROLS: Controls = Controls { draws: 3, seed: 1 };

/// Tokens of the corpus that probes are taken from.
const PROBED: u64 = 2048;

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
    pub score: Score,
    pub request: Request,
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
    pub verification: verify::Report,
    pub evaluation: Option<Table>,
    /// Where the files are.
    pub folder: PathBuf,
    /// Where it is registered.
    pub registered: PathBuf,
}

#[derive(Debug, Error)]
pub enum CreateError {
    #[error("{label:?} names no domain{}; write its file in domains/ first",
        nearest.as_ref().map(|near| format!(" (nearest is {near:?})")).unwrap_or_default())]
    Domain { label: String, nearest: Option<String> },
    #[error("the domain {id:?} is not enabled, so nothing would be routed to its specialist")]
    Disabled { id: String },
    /// Its mask would not be one of this parent.
    #[error(
        "the profile is of parent {profile:.12}…, this parent is {parent:.12}…; profile this parent"
    )]
    OtherParent { profile: String, parent: String },
    #[error(transparent)]
    Tokens(#[from] TokensError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    ProfileFile(#[from] engine::ProfileError),
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    MaskFile(#[from] MaskFileError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("not registered: the check {check:?} failed: {detail}")]
    Unverified { check: String, detail: String },
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Json { path: PathBuf, error: serde_json::Error },
}

impl Recipe {
    /// Half of the experts by gate mass, in the usual folder below `home`.
    pub fn usual(home: &Path, domain: &str) -> Recipe {
        Recipe {
            id: domain.to_owned(),
            domain: domain.to_owned(),
            score: Score::Gate,
            request: Request { target: Target::Share(0.5), uniform: true },
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
        let domain = servable(domains, &recipe.domain)?;
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
        folder(&recipe.folder)?;
        let path = recipe.file("profile");
        let source = own.source()?;
        let of = |p: &Profile| (p.parent.clone(), p.domain.clone(), p.source.clone());
        let wanted = (parent.model.parent(), domain.id.clone(), source);
        let before = Profile::read(&path).ok().filter(|profile| of(profile) == wanted);
        let profile = match before {
            Some(profile) => profile,
            None => {
                let profile = profile::profile(parent, own, progress)?;
                profile.write(&path)?;
                profile
            }
        };
        let corpus_sha256 = texts.corpus.sha256().map_err(TokensError::from)?;
        let made =
            Made { profile: &profile, path: &path, corpus_sha256, texts: Some((own, held_out)) };
        self.finish(domain, recipe, made, progress)
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
        let domain = servable(self.domains, &recipe.domain)?;
        folder(&recipe.folder)?;
        let path = recipe.file("profile");
        profile.write(&path)?;
        let corpus_sha256 = "traffic".to_owned();
        let made = Made { profile, path: &path, corpus_sha256, texts: None };
        self.finish(domain, recipe, made, progress)
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
        let profile_sha256 = hash::file(made.path).map_err(io(made.path))?;
        let file = mask::from_profile(profile, &profile_sha256, recipe.score, recipe.request)?;
        let text = file.to_json()?;
        let mask_sha256 = hash::hex(text.as_bytes());
        let path = recipe.file("mask.json");
        engine::file::replace(&path, text.as_bytes()).map_err(io(&path))?;
        let (read, held_out) = made.texts.unzip();
        let masked = Masked { parent, file: &file, sha256: &mask_sha256, recipe };
        let verification = masked.verified(read, progress)?;
        let evaluation = held_out.map(|text| masked.evaluated(text, progress)).transpose()?;
        let manifest = Manifest {
            id: recipe.id.clone(),
            domain: domain.id.clone(),
            parent: own.clone(),
            mask_sha256: mask_sha256.clone(),
            state: State::Active,
            think: domain.think,
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
            verification,
            evaluation,
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
    texts: Option<(Reading<'a>, Reading<'a>)>,
}

/// The domain that a label names, if queries are routed to it.
fn servable<'a>(domains: &'a Domains, label: &str) -> Result<&'a Domain, CreateError> {
    let domain = domains.canonical(label).and_then(|id| domains.get(id));
    match domain {
        Some(domain) if domain.enabled => Ok(domain),
        Some(domain) => Err(CreateError::Disabled { id: domain.id.clone() }),
        None => Err(CreateError::Domain {
            label: label.to_owned(),
            nearest: domains.nearest(label).map(str::to_owned),
        }),
    }
}

/// A mask on its way to be registered.
struct Masked<'a> {
    parent: &'a Parent,
    file: &'a MaskFile,
    sha256: &'a str,
    recipe: &'a Recipe,
}

/// An evaluation and what it was made from.
#[derive(Serialize, Deserialize)]
struct Evaluated {
    mask_sha256: String,
    held_out: String,
    table: Table,
}

impl Masked<'_> {
    /// The report of an earlier run or a new one; it passed.
    fn verified(
        &self,
        reading: Option<Reading>,
        progress: Progress,
    ) -> Result<verify::Report, CreateError> {
        let path = self.recipe.folder.join("report.json");
        let same = |r: &verify::Report| {
            r.passed && r.subject == self.sha256 && r.parent == self.file.parent
        };
        if let Some(report) = read::<verify::Report>(&path).filter(same) {
            return Ok(report);
        }
        let windows = probed(self.parent, reading)?;
        let probes = verify::probes(self.parent.model.shape(), &windows);
        let report = verify::mask(self.parent, self.file, self.sha256, &probes, progress)?;
        write(&path, &report)?;
        match report.failure() {
            None => Ok(report),
            Some(check) => {
                let (check, detail) = (check.name.clone(), check.detail.clone());
                Err(CreateError::Unverified { check, detail })
            }
        }
    }

    /// The table of an earlier run or a new one.
    fn evaluated(&self, held_out: Reading, progress: Progress) -> Result<Table, CreateError> {
        let path = self.recipe.folder.join("evaluation.json");
        let source = held_out.source()?;
        let same = |e: &Evaluated| e.mask_sha256 == self.sha256 && e.held_out == source;
        if let Some(before) = read::<Evaluated>(&path).filter(same) {
            return Ok(before.table);
        }
        let windows = tokens::collect(&self.parent.model, held_out)?;
        let column = Column { name: self.file.domain.clone(), windows };
        let masks = std::slice::from_ref(self.file);
        let table = evaluate::evaluate(self.parent, masks, &[column], CONTROLS, progress)?;
        let mask_sha256 = self.sha256.to_owned();
        let evaluated = Evaluated { mask_sha256, held_out: source, table };
        write(&path, &evaluated)?;
        Ok(evaluated.table)
    }
}

/// Some windows of the corpus, spread over it.
fn probed(parent: &Parent, reading: Option<Reading>) -> Result<Vec<Window>, CreateError> {
    let Some(reading) = reading else { return Ok(Vec::new()) };
    let reading = Reading { tokens: Some(PROBED), ..reading };
    Ok(tokens::collect(&parent.model, reading)?)
}

/// What the manifest says of a table with one column.
fn at_home(table: &Table) -> Option<Evaluation> {
    let nats = |kind| table.rows(kind).next()?.nats.first().copied();
    Some(Evaluation {
        tokens: table.columns.first()?.tokens,
        parent_nats: nats(Kind::Parent)?,
        specialist_nats: nats(Kind::Mask)?,
        random_nats: nats(Kind::Random)?,
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn folder(path: &Path) -> Result<(), CreateError> {
    fs::create_dir_all(path).map_err(io(path))
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> CreateError + use<> {
    let path = path.to_owned();
    move |error| CreateError::Io { path, error }
}

/// A file of an earlier run; one that cannot be read was not finished.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CreateError> {
    let json = |error| CreateError::Json { path: path.to_owned(), error };
    let text = serde_json::to_string_pretty(value).map_err(json)? + "\n";
    engine::file::replace(path, text.as_bytes()).map_err(io(path))
}
