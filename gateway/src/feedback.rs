//! A rating, or a correction, of a decision that is still remembered.

use std::time::Instant;

use serde_json::json;
use tracing::{info, warn};

use crate::college::College;
use crate::decisions::Remembered;
use crate::errors::Refusal;
use crate::fields::{self, Fields, wrong};
use crate::record::{Recorded, append};
use crate::shape::line;

/// The folder and the file of corrections, in the home folder: a corpus to train with.
pub const FEEDBACK: &str = "feedback";
pub const CORRECTIONS: &str = "corrections";

impl College {
    /// Takes a rating, or a correction, of a decision: `{"decision_id", "rating"?, "domain"?}`.
    ///
    /// It is counted, and logged with the domain it was decided for and the one that
    /// was meant.  A correction moves the conversation at once; where texts are recorded, what
    /// the user had said is kept with the domain that was meant.
    ///
    /// # Errors
    /// [`Refusal::Decision`] for an unknown id, [`Refusal::Field`] for anything else.
    pub fn take_feedback(&self, body: &[u8]) -> Result<String, Refusal> {
        let body = fields::json(body)?;
        let fields = Fields::top(&body)?;
        let id = fields
            .text("decision_id")?
            .ok_or_else(|| Refusal::field("decision_id", "the id of a decision is needed"))?;
        let rating = match fields.get("rating").map(|v| (v, v.as_i64())) {
            None => None,
            Some((_, Some(rating @ (-1 | 1)))) => Some(rating),
            Some((other, _)) => return Err(wrong("rating", "-1 or 1", other)),
        };
        let meant = fields.text("domain")?;
        let routing = self.routing();
        let domain = meant.map(|label| {
            let known = routing.domains.canonical(label);
            known.ok_or_else(|| Refusal::field("domain", "no such domain"))
        });
        let domain = domain.transpose()?;
        if rating.is_none() && domain.is_none() {
            return Err(Refusal::field("rating", "a rating of -1 or 1, or a domain, is needed"));
        }
        let decided = self.decisions.get(id).ok_or_else(|| Refusal::Decision { id: id.into() })?;
        // To name another domain is to say that the decision was wrong.
        let right = domain.is_none_or(|d| decided.domain.as_deref() == Some(d));
        let rating = rating.unwrap_or(if right { 1 } else { -1 });
        self.meter.feedback(rating);
        if let Some(meant) = domain {
            self.correct(decided.clone(), meant);
        }
        info!(
            decision = id,
            rating,
            specialist = %decided.specialist,
            domain = decided.domain.as_deref().unwrap_or("none"),
            meant = domain.unwrap_or("as decided"),
            "feedback"
        );
        Ok(id.to_owned())
    }

    /// `meant` is a known domain; one that is not served is the generalist's.
    fn correct(&self, decided: Remembered, meant: &str) {
        let Remembered { domain, mark, said, .. } = decided;
        if let Some(mark) = mark {
            if domain.as_deref() != Some(meant) {
                self.meter.moved("correction");
            }
            let served = self.routing().domains.get(meant).is_some_and(|domain| domain.enabled);
            let to = served.then(|| meant.to_owned());
            self.conversations.correct(mark, to, domain.clone(), Instant::now());
        }
        let Some(said) = said.filter(|_| self.record) else { return };
        let text = json!({ "prompt": said, "domain": meant, "decided": domain });
        let kept = Recorded { file: CORRECTIONS.to_owned(), line: line(&text) };
        if let Err(error) = append(&self.home.join(FEEDBACK), &[kept]) {
            warn!(%error, "a correction is not kept");
        }
    }
}
