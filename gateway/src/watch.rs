//! Watches the domains' folder: what an operator writes there is used at once.
//!
//! In: a folder that changes.  Out: another [`Routing`](crate::routing::Routing) in
//! the college, some log lines, two metrics.  A file that cannot be used is named
//! in both, and what it said before stays; so does everything else.
//!
//! The folder's stamp is compared twice a second, which costs a few system calls;
//! files are read only when it differs.  Not taken over: `pin`, which the pool
//! knows from the start, and `collegium.toml`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{Refused, Stamp, reread};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::college::College;

/// A change is to be in use within two seconds.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of the folder.
struct Watch {
    folder: PathBuf,
    /// At the last look; `None` before the first, since the files may have changed
    /// after they were loaded.
    seen: Option<Stamp>,
    refused: Vec<Refused>,
}

/// Watches until it is dropped; nothing to watch ends it at once.
pub async fn run(college: Arc<College>) {
    let Some(folder) = college.folder.clone() else { return };
    let mut watch = Watch { folder, seen: None, refused: Vec::new() };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let college = college.clone();
        let look = move || {
            watch.look(&college);
            watch
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(after) => watch = after,
            Err(error) => {
                error!(%error, "domains are no longer watched");
                return;
            }
        }
    }
}

impl Watch {
    /// Takes over what has changed since the last look.
    fn look(&mut self, college: &College) {
        let stamp = Stamp::of(&self.folder);
        if self.seen.as_ref() == Some(&stamp) {
            return;
        }
        self.seen = Some(stamp);
        let running = college.routing();
        let read = match reread(&self.folder, &running.domains, &|all| running.sound(all)) {
            Ok(read) => read,
            Err(error) => {
                warn!(%error, "the domains' folder cannot be read; the domains stay");
                return;
            }
        };
        if !read.changed.is_empty() {
            let begun = Instant::now();
            match running.with(read.domains) {
                Ok(next) => {
                    college.take_over(next);
                    let fit_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    info!(domains = read.changed.join(" "), fit_ms, "domains changed");
                    read.changed.iter().for_each(|_| college.meter.domain_change("used"));
                }
                Err(error) => warn!(%error, "the domains cannot be learnt; they stay as they were"),
            }
        }
        for old in self.refused.iter().filter(|old| read.refused.iter().all(|r| r.id != old.id)) {
            college.meter.domain_refused(&old.id, false);
        }
        for refused in read.refused.iter().filter(|refused| !self.refused.contains(refused)) {
            let Refused { id, why } = refused;
            warn!(domain = %id, %why, "a domain's file is refused; what was in use stays");
            college.meter.domain_refused(id, true);
            college.meter.domain_change("refused");
        }
        self.refused = read.refused;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use router_model::Query;
    use tempfile::TempDir;

    use super::*;

    const ASKED: &str = "When should I prune my old rose bushes?";

    fn gardening(name: &str) -> String {
        let examples = [
            "When should I prune my roses?",
            "Why are the leaves of my tomato plants turning yellow?",
            "How do I get rid of slugs in the vegetable bed?",
            "Can I plant tulip bulbs in pots on a balcony?",
            "How do I prune an old apple tree?",
            "Which roses grow well in the shade of a hedge?",
            "My rose bushes have black spots on the leaves, what should I do?",
            "Should I mulch the flower beds before winter?",
        ];
        format!("name = {name:?}\nexamples = {examples:?}")
    }

    struct Place {
        folder: TempDir,
        college: Arc<College>,
        watch: Watch,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = folder.path().join("collegium.toml");
        let domains = folder.path().join("domains");
        fs::create_dir(&domains).expect("a folder");
        fs::write(&settings, "[supervisor]\nfallback = 'math'").expect("written");
        let loaded = config::load(Some(&settings)).expect("settings");
        let college = College::open(loaded, folder.path(), None).expect("a college");
        let watch = Watch { folder: domains, seen: None, refused: Vec::new() };
        Place { folder, college, watch }
    }

    impl Place {
        fn write(&self, file: &str, text: &str) {
            let path: &Path = &self.folder.path().join("domains").join(file);
            match text {
                "-" => fs::remove_file(path).expect("removed"),
                text => fs::write(path, text).expect("written"),
            }
        }

        /// After `file` says `text` (`-` removes it): the name gardening goes by, where
        /// a question on roses goes first, and what is refused.
        #[track_caller]
        fn check(&mut self, file: &str, text: &str, name: &str, refused: &str) {
            self.write(file, text);
            self.watch.look(&self.college);
            let routing = self.college.routing();
            let domain = routing.domains.get("gardening");
            assert_eq!(domain.map_or("-", |d| &d.name), name, "{file}");
            let decision = routing.supervisor.decide(&Query::text(ASKED));
            let there = decision.alternatives[0].domain == "gardening";
            assert_eq!(there, domain.is_some(), "{:?}", decision.alternatives);
            let why: Vec<&str> = self.watch.refused.iter().map(|r| r.why.as_str()).collect();
            assert!(why.concat().contains(refused), "{why:?}");
            assert_eq!(why.is_empty(), refused.is_empty(), "{why:?}");
            for Refused { id, .. } in &self.watch.refused {
                let line = format!("collegium_domain_refused{{domain=\"{id}\"}} 1");
                assert!(self.college.meter.render().contains(&line), "{line}");
            }
        }
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let mut place = place();
        place.check("gardening.toml", &gardening("Gardening"), "Gardening", "");
        place.check("gardening.toml", &gardening("Horticulture"), "Horticulture", "");
        place.check("gardening.toml", "-", "-", "");
        let used = r#"collegium_domain_changes_total{outcome="used"} 3"#;
        assert!(place.college.meter.render().contains(used));
    }

    #[tokio::test]
    async fn a_bad_file_is_named_and_nothing_else_changes() {
        let mut place = place();
        place.check("gardening.toml", &gardening("Gardening"), "Gardening", "");
        place.check("gardening.toml", "name = ", "Gardening", "domains/gardening.toml:1: ");
        place.check("gardening.toml", "name = 'G'", "Gardening", "has 0 examples");
        let contrary = gardening("G").replace(
            "How do I prune an old apple tree?",
            // As the shipped law has it.
            "How do I contest a will?",
        );
        place.check(
            "gardening.toml",
            &contrary,
            "Gardening",
            "\"gardening\" and \"law\" both have",
        );
        // Another file is used all the same, and one of it that contradicts is not.
        let taken = gardening("Roses");
        place.check("roses.toml", &taken, "Gardening", "\"gardening\" and \"roses\" both have");
        place.check("gardening.toml", &gardening("New"), "New", "\"roses\" both have");
        place.check("roses.toml", "-", "New", "");
        let text = place.college.meter.render();
        assert!(text.contains(r#"collegium_domain_refused{domain="gardening"} 0"#), "{text}");
        // The fallback of abstentions stays.
        place.check("math.toml", "enabled = false", "New", "supervisor.fallback is \"math\"");
    }

    /// The task itself, by the clock.
    #[tokio::test]
    async fn a_file_is_in_use_within_two_seconds() {
        let place = place();
        let task = tokio::spawn(run(place.college.clone()));
        tokio::time::sleep(Duration::from_millis(600)).await;
        let begun = Instant::now();
        place.write("gardening.toml", &gardening("Gardening"));
        while place.college.routing().domains.get("gardening").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(2), "not in use");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        task.abort();
    }
}
