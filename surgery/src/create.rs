//! Makes a specialist: profile, coherence, mask, verify, evaluate, register.
//!
//! In: a parent, and a corpus of one domain or a profile of its traffic.  Out: a
//! registered specialist and a [`Report`].  Each step leaves its file in the
//! work folder and names there what it was made from; a step whose file is
//! there and was made from the same things is not done again, so that an
//! interrupted run goes on where it stopped.
//!
//! Nothing is registered that was not verified.  What coherence and evaluation
//! say is reported, not judged: the page in the work folder shows it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Domain, Domains};
use engine::{MaskFile, MaskFileError, Profile, hash};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use specialists::{Created, Evaluation, Manifest, Registry, RegistryError, State, valid_id};
use thiserror::Error;

use crate::coherence::report::ReportError;
use crate::coherence::{self, Verdict};
use crate::corpus::{Corpus, CorpusError, Part};
use crate::evaluate::document::Source;
use crate::evaluate::{Column, Controls, EvaluateError, Found, Given, Kind, Parts, Study, Table};
use crate::mask::{self, Made as Chosen, MaskError, Order, Request, Score, Target, Warning};
use crate::profile::{self, Checkpoint, Plan, ProfileError};
use crate::report::{self, ReportError as PageError};
use crate::stability::Settle;
use crate::tokens::{self, Reading, TokensError, Window};
use crate::verify::{self, VerifyError};
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

#[derive(Debug, Error)]
pub enum CreateError {
    #[error("{label:?} names no domain{}; a new one is lowercase letters, digits and '-', and unlike the others",
        nearest.as_ref().map(|near| format!(" (nearest is {near:?})")).unwrap_or_default())]
    Domain { label: String, nearest: Option<String> },
    #[error("the id {id:?} must be lowercase letters, digits and '-', at most 64")]
    Id { id: String },
    #[error("the domain {id:?} is not enabled, so nothing would be routed to its specialist")]
    Disabled { id: String },
    /// Its mask would not be one of this parent.
    #[error(
        "the profile is of parent {profile:.12}…, this parent is {parent:.12}…; profile this parent"
    )]
    OtherParent { profile: String, parent: String },
    #[error("the profile is of the domain {profile:?}, not {domain:?}")]
    OtherDomain { profile: String, domain: String },
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
    Coherence(#[from] ReportError),
    #[error(transparent)]
    Page(#[from] PageError),
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
            score: None,
            request: Request { target: Target::Share(0.5), uniform: true },
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
        folder(&recipe.folder)?;
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
                // Short runs leave none.
                let _ = fs::remove_file(&checkpoint);
                profile
            }
        };
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
        folder(&recipe.folder)?;
        let path = recipe.file("profile");
        profile.write(&path)?;
        let corpus_sha256 = "traffic".to_owned();
        let made = Made { profile, path: &path, corpus_sha256, texts: None };
        self.finish(&domain, recipe, made, progress)
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

/// Whether one mask will do, where the profile can say; its files are in a folder of their own.
fn coherent(
    profile: &Profile,
    file: &MaskFile,
    recipe: &Recipe,
    made: &Made,
) -> Result<Option<coherence::Report>, CreateError> {
    let layers = file.experts.iter().filter(|kept| **kept > 0);
    let keep = layers.clone().sum::<usize>() / layers.count().max(1);
    let Ok(report) = coherence::judge(profile, coherence::Question { keep, seed: 1 }) else {
        // Profiles of traffic have no items, and short corpora too few.
        return Ok(None);
    };
    let corpus = made.texts.map(|(reading, _)| reading.corpus);
    report.write(&recipe.folder.join("coherence"), &profile.source, corpus)?;
    Ok(Some(report))
}

/// A mask on its way to be registered.
struct Masked<'a> {
    parent: &'a Parent,
    file: &'a MaskFile,
    sha256: &'a str,
    /// What it was made from, and the hash of its file.
    profile: (&'a Profile, &'a str),
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

    /// The table of an earlier run or a new one; the page is in a folder of its own.
    fn evaluated(&self, held_out: Reading, progress: Progress) -> Result<Table, CreateError> {
        let folder = self.recipe.folder.join("evaluation");
        let path = folder.join("made.json");
        let source = held_out.source()?;
        let same = |e: &Evaluated| e.mask_sha256 == self.sha256 && e.held_out == source;
        if let Some(before) = read::<Evaluated>(&path).filter(same) {
            return Ok(before.table);
        }
        let windows = tokens::collect(&self.parent.model, held_out)?;
        let columns = [Column { name: self.file.domain.clone(), windows }];
        let parts_folder = folder.join("parts");
        let parts = Parts::at(&parts_folder).map_err(io(&parts_folder))?;
        let given = [Given { file: self.file.clone(), sha256: self.sha256.to_owned() }];
        let (profile, profile_sha256) = self.profile;
        let profiles = [(profile.clone(), profile_sha256.to_owned())];
        let study =
            Study::new(self.parent, &given, std::slice::from_ref(profile), CONTROLS, &parts)?;
        let text = study.text(&columns, progress)?;
        let table = Table::new(&study.subjects, &text, self.parent.model.parent());
        let found = Found { text: Some(text), questions: None };
        let corpus = Source {
            role: "corpus".to_owned(),
            name: held_out.corpus.name(),
            sha256: held_out.corpus.sha256().map_err(TokensError::from)?,
        };
        let document = study.document(found, &profiles, vec![corpus], "surgery create".to_owned());
        write(&folder.join("evaluation.json"), &document)?;
        for (name, text) in [
            ("evaluation.md", report::markdown(&document)),
            ("evaluation.html", report::html(&document)?),
        ] {
            let path = folder.join(name);
            engine::file::replace(&path, text.as_bytes()).map_err(io(&path))?;
        }
        let evaluated = Evaluated { mask_sha256: self.sha256.to_owned(), held_out: source, table };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;
    use engine::Model;

    fn domains() -> Domains {
        let mut other = Domain::new("other");
        other.enabled = false;
        let mut law = Domain::new("law");
        law.aliases = vec!["legal".to_owned()];
        Domains::new(vec![law, other]).unwrap()
    }

    /// A home with a parent in it, and a corpus of forty items.
    fn stage() -> (Folder, Parent, PathBuf) {
        let folder = Folder::new();
        let parent = Parent::new(Model::load(folder.parent(1)).unwrap());
        let item =
            |n| format!("{{\"text\": \"whereas the party of part {n}\", \"domain\": \"law\"}}\n");
        let path = folder.path("law.jsonl");
        fs::write(&path, (0..40).map(item).collect::<String>()).unwrap();
        (folder, parent, path)
    }

    /// What a run worked on, without repeats.
    fn run(
        stage: &(Folder, Parent, PathBuf),
        recipe: &Recipe,
    ) -> (Result<Report, CreateError>, Vec<String>) {
        let (folder, parent, path) = stage;
        let shape = parent.model.shape();
        let registry = Registry::open(&folder.path("home"), shape, parent.model.parent(), &[]);
        let domains = domains();
        let shop = Workshop { parent, registry: &registry, domains: &domains };
        let corpus = Corpus::at(path);
        let texts = Texts { corpus: &corpus, held_out: None, tokens: None, held_out_tokens: None };
        let mut worked: Vec<String> = Vec::new();
        let made = shop.create(recipe, texts, &mut |_, _, what| {
            if worked.last().is_none_or(|last| last != what) {
                worked.push(what.to_owned());
            }
        });
        if made.is_ok() {
            assert!(registry.read().0.contains_key(&recipe.id));
        }
        (made, worked)
    }

    #[test]
    fn a_corpus_becomes_a_registered_specialist() {
        let stage = stage();
        let recipe = Recipe::usual(&stage.0.path("home"), "law");
        let (made, worked) = run(&stage, &recipe);
        let made = made.unwrap();
        assert_eq!(worked, ["law", "verify", "evaluate law"]);
        assert_eq!(made.experts, [2, 2]);
        assert!(made.verification.passed && made.coverage.iter().all(|share| *share >= 0.5));
        let table = made.evaluation.unwrap();
        assert_eq!(
            table.rows.iter().map(|row| row.kind).collect::<Vec<_>>(),
            [Kind::Parent, Kind::Mask, Kind::Random]
        );
        let text = fs::read_to_string(made.registered.join("manifest.toml")).unwrap();
        let manifest = Manifest::parse(&text).unwrap();
        assert_eq!(manifest.evaluation, at_home(&table));
        assert_eq!(manifest.mask_sha256, made.mask_sha256);
        let corpus = Corpus::at(&stage.2).sha256().unwrap();
        assert_eq!(manifest.created.corpus_sha256, corpus);
        // Two items in forty are held back.
        let profile = Profile::read(&made.folder.join("law.profile")).unwrap();
        let source = format!("corpus {corpus}, 19 of 20 items, until halves agree by 0.95");
        assert_eq!(profile.source, source);
        assert!(made.folder.join("evaluation/evaluation.html").exists());
        assert_eq!(made.coherence.map(|c| c.items), Some(profile.signatures.unwrap().items.len()));
    }

    #[test]
    fn what_was_done_is_not_done_again() {
        let stage = stage();
        let recipe = Recipe::usual(&stage.0.path("home"), "law");
        run(&stage, &recipe).0.unwrap();
        assert_eq!(run(&stage, &recipe).1, [""; 0]);
        // Another mask of the same profile: it is verified and measured anew.
        let request = Request { target: Target::Count(3), uniform: true };
        let wider = Recipe { request, ..recipe.clone() };
        assert_eq!(run(&stage, &wider).1, ["verify", "evaluate law"]);
        // Interrupted while writing: what cannot be read was not done.
        fs::write(recipe.folder.join("evaluation/made.json"), "{").unwrap();
        fs::remove_dir_all(recipe.folder.join("evaluation/parts")).unwrap();
        assert_eq!(run(&stage, &wider).1, ["evaluate law"]);
        // Another corpus of the same name: all of it.
        let more = fs::read_to_string(&stage.2).unwrap() + "{\"text\": \"hereby\"}\n";
        fs::write(&stage.2, more).unwrap();
        assert_eq!(run(&stage, &wider).1[0], "law");
    }

    #[test]
    fn refused_before_the_work() {
        let stage = stage();
        #[track_caller]
        fn check(stage: &(Folder, Parent, PathBuf), id: &str, domain: &str, want: &str) {
            let usual = Recipe::usual(&stage.0.path("home"), "law");
            let (made, worked) =
                run(stage, &Recipe { id: id.into(), domain: domain.into(), ..usual });
            assert_eq!(worked, [""; 0]);
            let got = made.unwrap_err().to_string();
            assert!(got.contains(want), "{got}");
        }
        check(&stage, "law", "lwa", "names no domain (nearest is \"law\")");
        check(&stage, "law", "other", "not enabled");
        check(&stage, "../law", "law", "must be lowercase letters");
        fs::write(&stage.2, "{\"text\": \"a\"}\n{\"text\": 1}\n").unwrap();
        check(&stage, "law", "law", "law.jsonl:2: ");
        fs::write(&stage.2, "\n").unwrap();
        check(&stage, "law", "law", "no item");
    }

    #[test]
    fn a_few_lines_of_a_new_domain_are_enough() {
        let stage = stage();
        // One item, and it is not the twentieth: nothing is held back, so nothing is evaluated.
        for line in ["{\"text\": \"abc\"}\n", "{\"text\": \"abcd\", \"domain\": \"gardening\"}\n"] {
            fs::write(&stage.2, line).unwrap();
            let recipe = Recipe::usual(&stage.0.path("home"), "gardening");
            let few = run(&stage, &recipe).0.unwrap_err().to_string();
            assert!(few.contains("more are needed for four each"), "{few}");
            let made = run(&stage, &Recipe { force: true, ..recipe }).0.unwrap();
            assert!(made.warnings.iter().any(|w| w.contains("tokens")), "{:?}", made.warnings);
            assert!(made.verification.passed && made.evaluation.is_none());
            assert_eq!((made.id.as_str(), made.domain.as_str()), ("gardening", "gardening"));
        }
    }

    #[test]
    fn a_profile_of_traffic_is_enough() {
        let (folder, parent, _) = stage();
        let (shape, own, domains) = (parent.model.shape(), parent.model.parent(), domains());
        let registry = Registry::open(&folder.path("home"), shape, &own, &[]);
        let shop = Workshop { parent: &parent, registry: &registry, domains: &domains };
        let recipe = Recipe::usual(&folder.path("home"), "law");
        let make = |profile: &Profile| shop.from_profile(&recipe, profile, &mut |_, _, _| ());
        let mut seen = Profile::new(shape, &own, "law");
        // Nothing was seen, so nothing can be chosen.
        assert!(matches!(make(&seen), Err(CreateError::Mask(MaskError::Empty))));
        let window = Window { tokens: (0..60).collect(), prompt: 60 };
        parent.tap(&window, &mut seen).unwrap();
        let made = make(&seen).unwrap();
        assert!(made.verification.passed && made.evaluation.is_none());
        assert_eq!(registry.read().0["law"].manifest.created.corpus_sha256, "traffic");
        // Of another domain or parent.
        let stray = Profile { domain: "math".to_owned(), ..seen.clone() };
        assert!(matches!(make(&stray), Err(CreateError::OtherDomain { .. })));
        let stray = Profile { parent: "p".to_owned(), ..seen };
        assert!(matches!(make(&stray), Err(CreateError::OtherParent { .. })));
    }
}
