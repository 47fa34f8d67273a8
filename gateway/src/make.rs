//! Makes one specialist out of traffic: judged on held-back traffic first, then
//! masked, verified and registered by `surgery`.
//!
//! Runs on a thread of its own at the lowest priority, away from the request
//! path; the specialist exists when its manifest does.  Its files stay below
//! `HOME/traffic/made`.

use std::sync::Arc;

use config::Autopilot as Settings;
use engine::Profile;
use rustix::process::nice;
use specialists::Registry;
use surgery::Parent;
use surgery::create::{CreateError, Recipe, Workshop};
use surgery::mask::{self, MaskError, Request, Score, Target};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::college::College;
use crate::plan::judge;

/// What the thread needs.
pub struct Job {
    pub college: Arc<College>,
    pub settings: Settings,
    pub domain: String,
    /// Its own, unlike the domain's if that is taken.
    pub id: String,
    pub seen: Profile,
    pub held: Profile,
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    pub id: String,
    /// Mean over layers, of the traffic it was made from.
    pub coverage: f64,
    /// The same, of held-back traffic.
    pub held_coverage: f64,
    /// Of the traffic it was made from.
    pub tokens: u64,
    /// Checks of the verification, all passed.
    pub checks: usize,
}

/// Why there is no new specialist.
#[derive(Debug, Error)]
pub enum MakeError {
    #[error("the mask covers {coverage:.3} of held-back traffic, {least:.3} are needed")]
    Coverage { coverage: f64, least: f32 },
    #[error(transparent)]
    Mask(#[from] MaskError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("the thread ended without a word")]
    Gone,
}

/// Added to the thread's niceness: anything else on the machine goes first.
const NICE: i32 = 19;

/// Starts the thread; what it made comes through the channel.
///
/// # Errors
/// [`MakeError::Thread`].
pub fn start(job: Job) -> Result<oneshot::Receiver<Result<Made, MakeError>>, MakeError> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        // On Linux niceness is the thread's own; elsewhere it would slow the server.
        if cfg!(target_os = "linux") {
            let _ = nice(NICE);
        }
        // Nobody waits any more: the server is stopping.
        let _ = sender.send(make(&job));
    };
    let thread = std::thread::Builder::new().name("autopilot".to_owned()).spawn(work);
    thread.map_err(MakeError::Thread)?;
    Ok(receiver)
}

/// Traffic in, a registered specialist out.
fn make(job: &Job) -> Result<Made, MakeError> {
    let Job { college, settings, domain, id, seen, held } = job;
    // One count for all layers, so that the specialist can be cut for any runtime.
    let target = Target::Share(settings.keep.into());
    let request = Request { target, uniform: true };
    let score = Score::best([seen]);
    let file = mask::from_profile(seen, "", score, request)?;
    let coverage = mean(&mask::coverage(held, &file.kept)?);
    if !judge(coverage, settings.coverage) {
        return Err(MakeError::Coverage { coverage, least: settings.coverage });
    }
    let model = &college.model;
    let registry = Registry::open(&college.home, model.shape(), model.parent(), &college.disabled);
    let parent = Parent { model: model.clone(), bank: college.bank.clone() };
    let shop = Workshop { parent: &parent, registry: &registry, domains: &college.domains };
    let recipe = Recipe {
        id: id.clone(),
        domain: domain.clone(),
        score: Some(score),
        request,
        masking: Default::default(),
        settle: None,
        // How much traffic is enough the settings say.
        force: true,
        folder: college.home.join("traffic").join("made").join(id),
    };
    let report = shop.from_profile(&recipe, seen, &mut |_, _, _| ())?;
    Ok(Made {
        id: report.id,
        coverage: mean(&report.coverage),
        held_coverage: coverage,
        tokens: report.tokens,
        checks: report.verification.checks.len(),
    })
}

/// The domain's id, unless it is in use or switched off: then it says where it comes from.
pub fn free_id(domain: &str, in_use: impl Fn(&str) -> bool) -> String {
    let traffic = format!("{domain}-traffic");
    let numbered = (2..).map(|n| format!("{domain}-traffic-{n}"));
    let names = [domain.to_owned(), traffic].into_iter().chain(numbered);
    // An endless list has a free one.
    names.into_iter().find(|id| !in_use(id)).unwrap_or_default()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_free() {
        #[track_caller]
        fn check(in_use: &[&str], expect: &str) {
            assert_eq!(free_id("law", |id| in_use.contains(&id)), expect);
        }
        check(&[], "law");
        check(&["math"], "law");
        check(&["law"], "law-traffic");
        check(&["law", "law-traffic", "law-traffic-2"], "law-traffic-3");
    }
}
