//! Who answers a request: facts of the pool, of the domains and of the conversation are gathered here, and decided on
//! in `conversation` and `decide`, which touch nothing.
//!
//! In: an [`Ask`].  Out: a [`Decided`], and where its conversation is once the request is admitted ([`Kept`]); until then
//! nothing is remembered but the decision, for those who rate it.

use std::time::Instant;

use router_model::Decision;
use specialists::{GENERALIST, Snapshot};
use tracing::info;

use crate::ask::{Ask, Input};
use crate::college::College;
use crate::conversation::{CODE, Facts, Followed, Kind, Mark, Place, Reading, follow};
use crate::decide::{Decided, Serving, answerer, decide, named, serving};
use crate::errors::Refusal;
use crate::routing::Routing;

/// Where a conversation is once its request is admitted.
pub(crate) struct Kept {
    mark: Mark,
    place: Place,
    moved: bool,
}

impl College {
    /// Who would answer; no conversation is begun or moved by asking.
    ///
    /// # Errors
    /// [`Refusal::Model`], or [`Refusal::Stopping`].
    pub async fn decide(&self, ask: &Ask) -> Result<Decided, Refusal> {
        Ok(self.follow(ask).await?.0)
    }

    /// Who would answer, and where the conversation is once it does.
    pub(crate) async fn follow(&self, ask: &Ask) -> Result<(Decided, Option<Kept>), Refusal> {
        let snapshot = self.snapshot().await?;
        let serving = serving(snapshot.specialists.iter().map(|s| &s.manifest));
        let routing = self.routing();
        let Routing { domains, supervisor, fallback } = &*routing;
        let named = named(&ask.model, domains, &serving)?;
        let begun = Instant::now();
        let reading = self.reading(ask);
        let known = self.conversations.find(&reading, begun);
        let before = known.as_ref().map(|known| known.place.domain.clone());
        let enabled = |id: &str| domains.get(id).is_some_and(|domain| domain.enabled);
        let facts = Facts {
            judge: &|query| supervisor.decide(query),
            threshold: supervisor.threshold(),
            enabled: &enabled,
            code: domains.canonical(CODE).filter(|id| enabled(id)),
            rules: &self.conversations.rules,
            load: &|from, to| self.load(&routing, &snapshot, &serving, from, to),
        };
        let mut followed = None;
        let word = || {
            let Followed { word, weighed, place } = follow(&reading, known, &facts);
            followed = Some((weighed, place));
            let micros = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
            Decision { micros, ..word }
        };
        let mut decided = decide(named, domains, &serving, fallback.as_deref(), word);
        let (weighed, place) = followed.unwrap_or_default();
        decided.conversation = weighed;
        decided.background = match reading.kind {
            Kind::Chore(chore) => Some(chore.name()),
            _ => None,
        };
        self.meter.decided(decided.word.domain.as_deref(), decided.rule(), begun.elapsed());
        let said = self.record.then(|| reading.said.last().cloned()).flatten();
        self.decisions.remember(&decided, reading.own, said);
        let kept = reading.own.zip(place).map(|(mark, place)| Kept {
            moved: before.is_some_and(|before| before != place.domain),
            mark,
            place,
        });
        info!(
            decision = %decided.decision_id,
            domain = decided.domain(),
            specialist = %decided.specialist,
            confidence = format_args!("{:.3}", decided.word.confidence),
            rule = decided.rule(),
            background = decided.background,
            "decided"
        );
        Ok((decided, kept))
    }

    /// What a request says of its conversation.
    fn reading(&self, ask: &Ask) -> Reading {
        match &ask.input {
            Input::Chat(turns) => Reading::chat(turns, &ask.context),
            Input::Text(text) => Reading::raw(text, &ask.context),
            Input::Tokens(ids) => Reading::raw(&self.model.tokenizer().decode(ids), &ask.context),
        }
    }

    /// Bytes of experts that are not in memory and only needed to go from one domain to another; `None` if the same
    /// specialist serves both.
    fn load(
        &self,
        routing: &Routing,
        snapshot: &Snapshot,
        serving: &Serving,
        from: Option<&str>,
        to: &str,
    ) -> Option<u64> {
        let by = |domain: Option<&str>| match domain.or(routing.fallback.as_deref()) {
            Some(domain) => answerer(domain, &routing.domains, serving),
            None => GENERALIST.to_owned(),
        };
        let (old, new) = (by(from), by(Some(to)));
        let cold = |id: &str| {
            let status = snapshot.specialists.iter().find(|s| s.id == id);
            status.map_or(0, |s| (s.bytes as f64 * (1.0 - f64::from(s.completeness))) as u64)
        };
        (old != new).then(|| cold(&new).saturating_sub(cold(&old)))
    }

    /// The conversation is there from now on; its next turn finds it.
    pub(crate) fn keep(&self, kept: Kept, tokens: usize) {
        let Kept { mark, place, moved } = kept;
        if moved {
            self.meter.moved("topic");
        }
        self.conversations.keep(mark, Place { tokens, ..place }, Instant::now());
    }
}
