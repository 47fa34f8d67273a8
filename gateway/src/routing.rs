//! What a question's way is decided by: the domains, and the supervisor that knows them.
//!
//! One [`Routing`] is made at the start and another whenever a domain's file has
//! changed (`watch`); it is replaced as a whole.  Who decides takes one and keeps
//! it until the answer is on its way, so that no decision mixes two of them.
//!
//! Absent: files.  What the operator wrote is read and checked by `config`.

use std::path::Path;

use config::Domains;
use router_model::lint::faults;
use router_model::{Supervisor, SupervisorError};

use crate::start::{self, StartError};

/// Domains, supervisor and fallback that belong together.
pub struct Routing {
    pub domains: Domains,
    pub supervisor: Supervisor,
    /// Domain that answers for an abstention.
    pub fallback: Option<String>,
}

impl Routing {
    /// The weights in use under `home` for these domains.
    ///
    /// # Errors
    /// [`StartError`], with the domain or the file and what to do.
    pub fn new(
        home: &Path,
        domains: Domains,
        settings: &config::Supervisor,
    ) -> Result<Routing, StartError> {
        let supervisor = start::supervisor(home, &domains, settings)?;
        let fallback = settings.fallback.clone();
        let labels = &supervisor.weights().header().labels;
        match faults(domains.iter(), labels).into_iter().next() {
            Some(fault) => Err(StartError::Domain(fault)),
            None => Ok(Routing { domains, supervisor, fallback }),
        }
    }

    /// Whether [`Routing::with`] would have a sound set in `domains`; else why not.
    pub fn sound(&self, domains: &Domains) -> Result<(), String> {
        let served = |id: &str| domains.get(id).is_some_and(|domain| domain.enabled);
        if let Some(id) = self.fallback.as_deref().filter(|id| !served(id)) {
            return Err(format!("supervisor.fallback is \"{id}\": it cannot be taken away"));
        }
        let labels = &self.supervisor.weights().header().labels;
        let fault = faults(domains.iter(), labels).into_iter().next();
        fault.map_or(Ok(()), |fault| Err(fault.to_string()))
    }

    /// The same weights, encoder, threshold and fallback for other domains; their heads are
    /// fitted here, which takes some milliseconds each.
    ///
    /// # Errors
    /// [`SupervisorError`] for what [`Routing::sound`] would have refused.
    pub fn with(&self, domains: Domains) -> Result<Routing, SupervisorError> {
        let supervisor = self.supervisor.for_domains(&domains)?;
        Ok(Routing { domains, supervisor, fallback: self.fallback.clone() })
    }
}
