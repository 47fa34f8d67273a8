//! The one path of a request: admit, lease, generate, record.
//!
//! [`College::admit`] checks everything that can be checked before any work:
//! model, decision, template, length, room in the queue.  [`College::start`]
//! waits for the lease and hands the sequences to the engine.  What comes of them
//! is in `answering`.
//!
//! Whatever is held (a place in the queue, a lease, a sequence) is given back by
//! `Drop`, so a client may leave at any await.  No HTTP here.

use std::time::Duration;

use config::{Circles, Domain};
use engine::{Request, SamplingParams, TemplateMessage, Thinking};
use router_model::{Role, Turn};
use specialists::{GENERALIST, Lease, PoolError};
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use crate::answering::{Answering, Held, Told, refused, seed};
use crate::ask::{self, Ask, Input};
use crate::college::College;
use crate::decide::Decided;
use crate::defaults::{circles, defaults, fill, think};
use crate::errors::Refusal;
use crate::meter::{self, Outcome};
use crate::record::role;

/// After this, someone whose request was refused may find room.
const RETRY: Duration = Duration::from_secs(1);

/// What a chat is sampled with if neither request, specialist nor domain says: OpenAI's own.
pub(crate) const TEMPERATURE: f32 = 1.0;

/// A request that is worth working on.
pub struct Admitted {
    pub decided: Decided,
    /// Kept only if texts are recorded.
    input: Option<Input>,
    order: Order,
    trace: meter::Request,
}

/// What the engine is to make.
struct Order {
    request: Request,
    /// How many answers.
    answers: usize,
    /// One that goes round in circles may be made again.
    retry: bool,
    /// In the queue, one for each answer as far as it is that long.
    places: OwnedSemaphorePermit,
}

/// How the answers leave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// How long the lease may take; `None` waits.
    pub patience: Option<Duration>,
    /// Nothing leaves before the end, so that an answer may still be made again.
    pub whole: bool,
}

impl College {
    /// Decides and checks; nothing is waited for but the pool's word on what exists.
    ///
    /// # Errors
    /// [`Refusal`], counted as refused.
    pub async fn admit(&self, ask: Ask) -> Result<Admitted, Refusal> {
        let mut trace = self.meter.request();
        let input = self.record.then(|| ask.input.clone());
        match self.check(ask).await {
            Ok((decided, order)) => {
                trace.specialist(&decided.specialist);
                Ok(Admitted { decided, input, order, trace })
            }
            Err(refusal) => {
                trace.end(Outcome::Refused);
                Err(refusal)
            }
        }
    }

    async fn check(&self, ask: Ask) -> Result<(Decided, Order), Refusal> {
        self.intact()?;
        let (decided, kept) = self.follow(&ask).await?;
        // More answers than the queue has places get all of them, not none for ever.
        let places = u32::try_from(ask.answers.min(self.max_waiting)).unwrap_or(u32::MAX);
        let places = self.waiting.clone().try_acquire_many_owned(places).map_err(|_| {
            Refusal::QueueFull {
                waiting: self.max_waiting - self.waiting.available_permits().min(self.max_waiting),
                retry: RETRY,
            }
        })?;
        let snapshot = self.snapshot().await?;
        let status = snapshot.specialists.iter().find(|s| s.id == decided.specialist);
        let routing = self.routing();
        let domain = decided.word.domain.as_deref().and_then(|id| routing.domains.get(id));
        let said = [status.map(|s| s.manifest.think), domain.map(|d| d.think)];
        let think = think(ask.thinking.think, &said);
        let prompt = self.prompt(&ask.input, domain, Thinking { think, ..ask.thinking })?;
        let most = self.engine.context();
        if prompt.len() >= most {
            let field = if matches!(ask.input, Input::Chat(_)) { "messages" } else { "prompt" };
            return Err(Refusal::TooLong { field, prompt: prompt.len(), context: most });
        }
        if let Some(chore) = decided.background {
            self.meter.background(chore);
        }
        if let Some(kept) = kept {
            self.keep(kept, prompt.len());
        }
        let mut sampling = ask.sampling;
        // A raw prompt, or a request for the likeliest tokens, gets exactly what it sent.
        if matches!(ask.input, Input::Chat(_)) && sampling.temperature != Some(0.0) {
            fill(&mut sampling, Some(&defaults(domain, status, self.model.sampling())));
        }
        let plain = SamplingParams::default();
        // Who wants every token wants the same ones over and over, too.
        let asked = ask.circles.or(ask.ignore_eos.then_some(Circles::Off));
        let circles = circles(asked, domain, self.circles);
        let request = Request {
            max_tokens: sampling.max_tokens.unwrap_or(most).min(most - prompt.len()),
            prompt,
            mask: None,
            missing: Default::default(),
            sampling: SamplingParams {
                temperature: sampling.temperature.unwrap_or(TEMPERATURE),
                top_k: sampling.top_k.unwrap_or(plain.top_k),
                top_p: sampling.top_p.unwrap_or(plain.top_p),
                min_p: sampling.min_p.unwrap_or(plain.min_p),
                typical_p: ask.bending.typical_p.unwrap_or(plain.typical_p),
                xtc_probability: ask.bending.xtc_probability,
                xtc_threshold: ask.bending.xtc_threshold.unwrap_or(plain.xtc_threshold),
                repetition_penalty: sampling.repetition_penalty.unwrap_or(plain.repetition_penalty),
                frequency_penalty: ask.bending.frequency_penalty,
                presence_penalty: ask.bending.presence_penalty,
                penalty_window: ask.bending.penalty_window.unwrap_or(plain.penalty_window),
                top_n_sigma: ask.bending.top_n_sigma,
                dry: ask.bending.dry.map(|dry| self.dry(dry)),
                logit_bias: ask.bending.logit_bias,
                seed: ask.seed,
            },
            stop: ask.stop,
            ignore_eos: ask.ignore_eos,
            scores: ask.scores,
            stop_circles: circles != Circles::Off,
            constraint: None,
        };
        // The likeliest tokens are the same ones again, whatever the seed.
        let drawn = {
            let s = &request.sampling;
            s.temperature > 0.0 && s.top_k != 1 && s.top_p > 0.0 && s.min_p < 1.0
        };
        let retry = circles == Circles::Retry && drawn;
        Ok((decided, Order { request, answers: ask.answers, retry, places }))
    }

    /// With texts as the tokens that hold one.
    fn dry(&self, dry: ask::Dry) -> engine::Dry {
        engine::Dry {
            multiplier: dry.multiplier,
            base: dry.base,
            allowed_length: dry.allowed_length,
            window: dry.window,
            breakers: self.model.tokenizer().holding(&dry.breakers).into(),
        }
    }

    /// What the model reads.
    fn prompt(
        &self,
        input: &Input,
        domain: Option<&Domain>,
        thinking: Thinking,
    ) -> Result<Vec<u32>, Refusal> {
        let tokenizer = self.model.tokenizer();
        match input {
            Input::Text(text) => Ok(tokenizer.encode_prompt(text, true)),
            Input::Tokens(ids) => {
                let vocab = tokenizer.len();
                match ids.iter().find(|id| **id as usize >= vocab) {
                    Some(id) => Err(Refusal::field(
                        "prompt",
                        format!("token {id} does not exist; the vocabulary has {vocab}"),
                    )),
                    None => Ok(ids.clone()),
                }
            }
            Input::Chat(turns) => {
                // The domain's own words, unless the request has some.
                let own = turns.iter().any(|t| t.role == Role::System);
                let system = domain.filter(|_| !own).and_then(|d| d.system_prompt.as_deref());
                let text = self
                    .model
                    .render_open(&messages(turns, system), thinking)
                    .map_err(|e| Refusal::Template { message: e.to_string() })?;
                Ok(tokenizer.encode_chat(&text))
            }
        }
    }

    /// Waits for the specialist, and hands the sequences to the engine.
    ///
    /// A specialist that cannot be had is replaced by the generalist, which always
    /// can.  Dropping the future takes everything back.
    ///
    /// # Errors
    /// [`Refusal`] when nobody can answer, or the patience is over.
    pub async fn start(&self, admitted: Admitted, manner: Manner) -> Result<Answering, Refusal> {
        let Admitted { decided, input, order, mut trace } = admitted;
        let Order { mut request, answers, retry, places } = order;
        let lease = match manner.patience {
            None => self.lease(&decided.specialist).await,
            Some(patience) => {
                let waited = tokio::time::timeout(patience, self.lease(&decided.specialist)).await;
                waited.unwrap_or(Err(Refusal::Loading {
                    specialist: decided.specialist.clone(),
                    retry: RETRY,
                }))
            }
        };
        let lease = lease.inspect_err(|_| trace.end(Outcome::Refused))?;
        trace.specialist(lease.specialist());
        (request.mask, request.missing) = (lease.mask(), lease.missing());
        let prompt = request.prompt.len();
        let scored = request.scores.is_some();
        let again = (retry && manner.whole).then(|| (self.engine.clone(), request.clone()));
        let first = request.sampling.seed;
        let seeds: Vec<Option<u64>> = (1..answers).map(|i| seed(first, i, false)).collect();
        let generations = self.engine.generate_all(request, &seeds).map_err(|error| {
            trace.end(Outcome::Failed);
            refused(error)
        })?;
        trace.generating(prompt, answers);
        let held = Held { lease, trace, places };
        let told = Told {
            model: self.model.clone(),
            meter: self.meter.clone(),
            finished: self.finished.clone(),
            // What a client does for itself says nothing of the domain.
            domain: decided.word.domain.filter(|_| decided.background.is_none()),
            input,
        };
        Ok(Answering::new(generations, scored, again, held, told))
    }

    async fn lease(&self, specialist: &str) -> Result<Lease, Refusal> {
        let error = match self.pool.lease(specialist).await {
            Ok(lease) => return Ok(lease),
            Err(PoolError::Gone) => return Err(Refusal::Stopping),
            Err(error) => error,
        };
        warn!(specialist, %error, "the generalist answers instead");
        self.pool.lease(GENERALIST).await.map_err(|error| match error {
            PoolError::Gone => Refusal::Stopping,
            error => Refusal::Unservable {
                specialist: specialist.to_owned(),
                message: error.to_string(),
            },
        })
    }
}

fn messages(turns: &[Turn], system: Option<&str>) -> Vec<TemplateMessage> {
    let message = |role: &str, content: &str| TemplateMessage {
        role: role.to_owned(),
        content: content.to_owned(),
    };
    let first = system.map(|text| message("system", text));
    let turns = turns.iter().map(|turn| message(role(turn.role), &turn.text));
    first.into_iter().chain(turns).collect()
}

#[cfg(test)]
mod tests {
    use config::{Domains, Think};
    use engine::gguf::write::{Entry, Layout};
    use engine::gguf::{Gguf, Value};

    use super::*;
    use crate::ask::Ask;

    /// The embedded parent with another template, in a file; one that begins every text with BOS, or not.
    fn parent(home: &std::path::Path, template: &str, adds_bos: bool) -> std::path::PathBuf {
        let nano = Gguf::nano().expect("the embedded parent");
        let mut keys = nano.metadata().to_vec();
        let changed = [
            ("tokenizer.chat_template", Value::Text(template.to_owned())),
            ("tokenizer.ggml.add_bos_token", Value::Bool(adds_bos)),
        ];
        for (key, value) in changed {
            keys.retain(|(k, _)| k != key);
            keys.push((key.to_owned(), value));
        }
        let of = |t: &engine::gguf::Tensor| Entry {
            name: t.name.clone(),
            dims: t.dims.clone(),
            kind: t.kind,
        };
        let entries: Vec<Entry> = nano.tensors().iter().map(of).collect();
        let mut bytes = Vec::new();
        let layout = Layout::plan(&keys, &entries).expect("a plan");
        layout.write(&mut bytes, |i, sink| sink(nano.data(&nano.tensors()[i]))).expect("written");
        let path = home.join("parent.gguf");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// What the model reads when `law` is asked `q`, control tokens by their names; `domain` is
    /// what law's file says of thinking.
    async fn prompt(template: &str, adds_bos: bool, domain: Think, asked: Think) -> String {
        let home = tempfile::tempdir().expect("a folder");
        let mut loaded = config::shipped().expect("the shipped settings");
        loaded.config.parent.path = Some(parent(home.path(), template, adds_bos));
        let mut law = Domain::new("law");
        law.think = domain;
        loaded.domains = Domains::new(vec![law]).expect("a domain");
        let college = College::open(loaded, home.path(), None).expect("a college");
        let mut ask = Ask::text("law", "q");
        ask.thinking.think = asked;
        let admitted = college.admit(ask).await.expect("admitted");
        let tokenizer = college.model.tokenizer();
        let text = |id: &u32| match tokenizer.name(*id) {
            Some(name) => name.to_owned(),
            None => String::from_utf8_lossy(tokenizer.bytes(*id)).into_owned(),
        };
        admitted.order.request.prompt.iter().map(text).collect()
    }

    #[tokio::test]
    async fn a_conversation_begins_with_bos_once() {
        let bos = {
            let nano = engine::Model::load(Gguf::nano().expect("nano")).expect("a model");
            let id = nano.tokenizer().bos().expect("a first token");
            nano.tokenizer().name(id).expect("a name").to_owned()
        };
        let (with, without) =
            ("{{ bos_token }}{{ messages[0].content }}:", "{{ messages[0].content }}:");
        for (template, adds, want) in [
            (with, true, format!("{bos}q:")),
            (without, true, format!("{bos}q:")),
            (with, false, format!("{bos}q:")),
            (without, false, "q:".to_owned()),
        ] {
            let got = prompt(template, adds, Think::Auto, Think::Auto).await;
            assert_eq!(got, want, "{template}, {adds}");
        }
    }

    #[tokio::test]
    async fn a_request_has_the_last_word_on_thinking() {
        let flag = "{{ messages[0].content }}:{% if enable_thinking is defined %}{{ 'on' if enable_thinking else 'off' }}{% endif %}";
        let tags = "{{ messages[0].content }}:{{ '<think>\n' }}";
        for (template, domain, asked, want) in [
            (flag, Think::Auto, Think::Auto, "q:"),
            (flag, Think::Off, Think::Auto, "q:off"),
            (flag, Think::On, Think::Auto, "q:on"),
            (flag, Think::Off, Think::On, "q:on"),
            (flag, Think::On, Think::Off, "q:off"),
            (tags, Think::Auto, Think::Auto, "q:<think>\n"),
            (tags, Think::Off, Think::Auto, "q:<think>\n\n</think>\n\n"),
        ] {
            assert_eq!(prompt(template, false, domain, asked).await, want, "{domain:?} {asked:?}");
        }
    }
}
