//! The autopilot: out of a domain's own traffic, a specialist.
//!
//! In: the counts of every finished answer ([`Finished`]), never its text.  Out:
//! profiles below `HOME/traffic`, written every [`TICK`] and at the end, so that a
//! process that is killed loses no more than that; and, for an enabled domain that has none, a
//! registered specialist, which the pool then serves without a restart.
//!
//! What to do is decided in `plan`, by pure functions of facts; one task owns the
//! traffic and acts.  Masks are made on a thread of their own, at
//! the lowest priority, one at a time.  Every step is logged and counted.
//!
//! The promise: it only ever adds.  Whatever fails here, answering goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::{Autopilot as Settings, Domain};
use engine::Profile;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::college::College;
use crate::decide::serving;
use crate::make::{self, Made, MakeError};
use crate::plan::{Facts, Plan, plan};
use crate::record::{Recorded, UNROUTED, append};
use crate::traffic::{Finished, Traffic, save};

/// How often traffic is written and the domains are looked at.
const TICK: Duration = Duration::from_secs(2);

/// Runs until `stop`, then writes what is left.
pub async fn run(
    college: Arc<College>,
    settings: Settings,
    mut finished: mpsc::UnboundedReceiver<Finished>,
    mut stop: oneshot::Receiver<()>,
) {
    let late = college.model.gguf().late_sha256();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Counts belong to a parent, which its hash names.
    let parent = loop {
        match late.get() {
            Some(sha256) => break sha256.to_owned(),
            None => tokio::select! {
                _ = tick.tick() => {}
                _ = &mut stop => return,
            },
        }
    };
    let empty = Profile::new(college.model.shape(), &parent, "");
    let mut pilot = Pilot {
        traffic: Traffic::open(&college.home, empty),
        texts: Vec::new(),
        refused: BTreeMap::new(),
        making: None,
        college,
        settings,
        parent,
    };
    pilot.publish_tokens();
    loop {
        tokio::select! {
            Some(one) = finished.recv() => pilot.take(one),
            (domain, made) = next_made(&mut pilot.making) => pilot.made(&domain, made).await,
            _ = tick.tick() => {
                pilot.save().await;
                pilot.look().await;
                pilot.college.meter.tidy();
            }
            _ = &mut stop => break,
        }
    }
    while let Ok(one) = finished.try_recv() {
        pilot.take(one);
    }
    pilot.save().await;
}

type Outcome = Result<Made, MakeError>;
type Making = Option<(String, oneshot::Receiver<Outcome>)>;

struct Pilot {
    college: Arc<College>,
    settings: Settings,
    /// Hash of the parent's file.
    parent: String,
    traffic: Traffic,
    /// Recorded, and not yet written.
    texts: Vec<Recorded>,
    /// Tokens at which a domain's mask was found wanting.
    refused: BTreeMap<String, u64>,
    making: Making,
}

/// What the thread made; never ready while there is none.
async fn next_made(making: &mut Making) -> (String, Outcome) {
    let Some((domain, outcome)) = making else { return std::future::pending().await };
    let outcome = outcome.await.unwrap_or(Err(MakeError::Gone));
    let domain = std::mem::take(domain);
    *making = None;
    (domain, outcome)
}

impl Pilot {
    fn take(&mut self, mut one: Finished) {
        self.texts.extend(one.texts);
        let domain = one.domain.unwrap_or_else(|| UNROUTED.to_owned());
        one.taps.parent.clone_from(&self.parent);
        match self.traffic.add(&domain, &one.taps) {
            Ok(()) => {
                let tokens = self.traffic.tokens(&domain);
                self.college.meter.autopilot_tokens(&domain, tokens);
            }
            Err(error) => warn!(%domain, %error, "traffic not counted"),
        }
    }

    fn publish_tokens(&self) {
        for domain in self.college.routing().domains.enabled() {
            let tokens = self.traffic.tokens(&domain.id);
            if tokens > 0 {
                self.college.meter.autopilot_tokens(&domain.id, tokens);
            }
        }
    }

    async fn save(&mut self) {
        let files = self.traffic.take_changed();
        let texts = std::mem::take(&mut self.texts);
        if files.is_empty() && texts.is_empty() {
            return;
        }
        let folder = self.college.home.join("traffic");
        let write = move || {
            if let Err(error) = save(&files) {
                warn!(%error, "traffic not written; it is counted on");
            }
            if let Err(error) = append(&folder, &texts) {
                warn!(%error, "texts not recorded");
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(write).await {
            warn!(%error, "traffic not written");
        }
    }

    /// Looks at every domain, and starts to make what is due first.
    async fn look(&mut self) {
        if self.making.is_some() || !self.settings.enabled {
            return;
        }
        let Ok(snapshot) = self.college.snapshot().await else { return };
        let serving = serving(snapshot.specialists.iter().map(|s| &s.manifest));
        let routing = self.college.routing();
        let due = routing.domains.enabled().find(|domain| {
            let served = domain.upstream.is_some() || serving.contains_key(&domain.id);
            plan(&self.facts(domain, served), &self.settings) == Plan::Make
        });
        let Some(domain) = due.map(|d| d.id.clone()) else { return };
        let Some(tally) = self.traffic.get(&domain).cloned() else { return };
        self.step(&domain, "make", "enough traffic: a mask is made");
        let id = make::free_id(&domain, |id| {
            snapshot.specialists.iter().any(|s| s.id == id)
                || self.college.disabled.iter().any(|disabled| disabled == id)
        });
        let job = make::Job {
            college: self.college.clone(),
            settings: self.settings.clone(),
            domain: domain.clone(),
            id,
            seen: tally.seen,
            held: tally.held,
        };
        match make::start(job) {
            Ok(outcome) => self.making = Some((domain, outcome)),
            Err(error) => self.failed(&domain, &error),
        }
    }

    fn facts(&self, domain: &Domain, served: bool) -> Facts {
        let tally = self.traffic.get(&domain.id);
        Facts {
            enabled: domain.enabled,
            served,
            seen: tally.map_or(0, |t| t.seen.tokens),
            held: tally.map_or(0, |t| t.held.tokens),
            refused_at: self.refused.get(&domain.id).copied(),
        }
    }

    /// The thread is done with a domain.
    async fn made(&mut self, domain: &str, outcome: Outcome) {
        let made = match outcome {
            Ok(made) => made,
            Err(error) => return self.failed(domain, &error),
        };
        info!(
            domain,
            specialist = %made.id,
            tokens = made.tokens,
            coverage = made.coverage,
            held_back_coverage = made.held_coverage,
            checks = made.checks,
            "autopilot: what the traffic says of the mask"
        );
        self.step(domain, "judge", "it covers held-back traffic well enough");
        self.step(domain, "verify", "all checks passed");
        self.step(domain, "register", "registered");
        if self.college.pool.rescan().await.is_ok() {
            info!(domain, specialist = %made.id, "autopilot: serving");
            self.college.meter.autopilot_step(domain, "serve");
        }
    }

    fn failed(&mut self, domain: &str, error: &MakeError) {
        self.refused.insert(domain.to_owned(), self.traffic.tokens(domain));
        warn!(domain, %error, "autopilot: no specialist was made; it is tried again with twice the traffic");
        let wanting = matches!(error, MakeError::Coverage { .. });
        self.college.meter.autopilot_step(domain, if wanting { "refuse" } else { "fail" });
    }

    fn step(&self, domain: &str, step: &'static str, says: &str) {
        info!(domain, step, "autopilot: {says}");
        self.college.meter.autopilot_step(domain, step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answering::Step;
    use crate::ask::Ask;
    use crate::path::Manner;

    /// Asks `model` something, and gives the specialist that answered.
    async fn ask(college: &College, model: &str) -> String {
        let mut ask = Ask::text(model, "What must a plaintiff prove to win a negligence claim?");
        ask.sampling.max_tokens = Some(16);
        ask.ignore_eos = true;
        let admitted = college.admit(ask).await.expect("admitted");
        let mut answering = college.start(admitted, Manner::default()).await.expect("started");
        while matches!(answering.next().await, Ok(Step::Piece(_))) {}
        answering.specialist().to_owned()
    }

    /// A domain whose specialist is switched off gets one from its traffic alone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn traffic_becomes_a_specialist() {
        let home = tempfile::tempdir().expect("a folder");
        let mut loaded = config::shipped().expect("the shipped settings");
        loaded.config.specialists.disabled = vec!["law".into()];
        loaded.config.traffic.record = true;
        let settings = Settings { tokens: 150, coverage: 0.1, ..loaded.config.autopilot.clone() };
        let (finished, inbox) = mpsc::unbounded_channel();
        let college = College::open(loaded, home.path(), Some(finished)).expect("a college");
        let (land, landing) = oneshot::channel();
        let pilot = tokio::spawn(run(college.clone(), settings, inbox, landing));

        assert_eq!(ask(&college, "law").await, "generalist");
        let begun = std::time::Instant::now();
        let specialist = loop {
            let specialist = ask(&college, "law").await;
            if specialist != "generalist" {
                break specialist;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", college.meter.render());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(specialist, "law-traffic");
        let metrics = college.meter.render();
        for step in ["make", "judge", "verify", "register", "serve"] {
            let line =
                format!("collegium_autopilot_steps_total{{domain=\"law\",step=\"{step}\"}} 1");
            assert!(metrics.contains(&line), "{metrics}");
        }
        land.send(()).expect("it listens");
        pilot.await.expect("it lands");
        let folder = home.path().join("traffic");
        let counts = Profile::read(&folder.join("law.profile")).expect("counts");
        assert!(counts.tokens >= 150 && counts.domain == "law");
        // Recording was on: the texts are a corpus.
        let texts = std::fs::read_to_string(folder.join("law.jsonl")).expect("texts");
        assert!(texts.lines().all(|l| l.contains("negligence") && l.contains(r#""domain":"law""#)));
    }

    /// Asks `model` something in a new conversation; tokens of the question, and all that were read.
    async fn read(college: &College, model: &str, question: &str) -> (u64, u64) {
        let mut ask = Ask::text(model, question);
        ask.sampling.max_tokens = Some(8);
        ask.ignore_eos = true;
        let admitted = college.admit(ask).await.expect("admitted");
        let mut answering = college.start(admitted, Manner::default()).await.expect("started");
        loop {
            if let Step::Done(done) = answering.next().await.expect("an answer") {
                let usage = done.all.expect("the only one").usage;
                // The last token is not read again.
                let all = usage.prompt - usage.cached + usage.completion - 1;
                return ((usage.prompt - usage.cached) as u64, all as u64);
            }
        }
    }

    /// A process that is killed gets no word to write anything; what was written before is whole, and
    /// the next one goes on from it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn counts_survive_an_end_without_warning() {
        let home = tempfile::tempdir().expect("a folder");
        let (mut prompt, mut all, mut others) = (0, 0, 0);
        for (question, sequences) in [("What is a tort?", 1), ("When is a contract void?", 2)] {
            let loaded = config::shipped().expect("the shipped settings");
            let settings = loaded.config.autopilot.clone();
            let (finished, inbox) = mpsc::unbounded_channel();
            let college = College::open(loaded, home.path(), Some(finished)).expect("a college");
            let (_land, landing) = oneshot::channel();
            let pilot = tokio::spawn(run(college.clone(), settings, inbox, landing));
            let (p, a) = read(&college, "law", question).await;
            (prompt, all) = (prompt + p, all + a);
            others += read(&college, "generalist", question).await.1;
            // While serving: nobody has told it to stop.
            let file = |name: &str| home.path().join("traffic").join(format!("{name}.profile"));
            let begun = std::time::Instant::now();
            let counts = loop {
                match (Profile::read(&file("law")), Profile::read(&file(UNROUTED))) {
                    (Ok(law), Ok(rest)) if law.tokens >= all && rest.tokens >= others => break law,
                    _ => tokio::time::sleep(Duration::from_millis(20)).await,
                }
                assert!(begun.elapsed() < Duration::from_secs(20), "nothing is written");
            };
            pilot.abort();
            let _ = pilot.await;
            assert_eq!((counts.prompt_tokens, counts.tokens), (prompt, all), "{sequences} in all");
            let sum = |taps: &engine::Taps| taps.counts.iter().sum::<i64>().unsigned_abs();
            let choices = (counts.top_k * counts.layers) as u64;
            // Of the question and of everything, apart: each token chose its experts in each layer.
            assert_eq!((sum(&counts.prompt), sum(&counts.all)), (prompt * choices, all * choices));
        }
    }

    /// Without being told to, nobody keeps a text.
    #[tokio::test]
    async fn counts_are_told_and_no_text() {
        let home = tempfile::tempdir().expect("a folder");
        let loaded = config::shipped().expect("the shipped settings");
        let (finished, mut inbox) = mpsc::unbounded_channel();
        let college = College::open(loaded, home.path(), Some(finished)).expect("a college");
        ask(&college, "law").await;
        let told = inbox.recv().await.expect("a word");
        assert_eq!(told.domain.as_deref(), Some("law"));
        assert!(told.taps.tokens > 16 && told.texts.is_empty());
        ask(&college, "generalist").await;
        assert_eq!(inbox.recv().await.expect("a word").domain, None);
    }
}
