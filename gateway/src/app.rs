//! The routes: HTTP in, HTTP out.
//!
//! [`app`] makes a router from a [`College`]; tests call it without a server.
//! Each handler parses, walks the one path of a request (`path`), and shapes the
//! answer; a refusal becomes a response in `errors`.  Every route is served below
//! `/v1` and without it, since clients append to whatever base their user typed.
//!
//! To add a route: a row in [`api`], and its line in [`ROUTES`].

use std::sync::Arc;
use std::time::Duration;

use async_openai::types::models::{ListModelResponse, Model};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::error;

use crate::answering::{All, Answering, Done, Step};
use crate::ask::Ask;
use crate::college::College;
use crate::conversation::Identity;
use crate::decide::{Decided, ids, named};
use crate::errors::{BODY_LIMIT, Refusal, nearest};
use crate::path::{Admitted, Manner};
use crate::shape::{Answer, Collegium, Form, Reason, Shape, line};
use crate::sse;
use crate::wire::{self, Delivery, Parse};

/// Every path, for messages and for the test that compares them with the README.
pub const ROUTES: &[&str] = &[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/route",
    "/v1/feedback",
    "/healthz",
    "/readyz",
    "/metrics",
];

/// A refusal that comes this fast is a proper HTTP error; after it the headers of
/// a stream have left, as clients and proxies need them early.
const HEADERS_WITHIN: Duration = Duration::from_millis(40);

/// An answer that is not streamed cannot show that it waits, so it waits less
/// than the shortest timeout of known clients.
const PATIENCE: Duration = Duration::from_secs(30);

/// A pool that does not answer within this is stuck.
const READY_WITHIN: Duration = Duration::from_secs(2);

/// The routes of a college.
pub fn app(college: Arc<College>) -> Router {
    // Outside the keys: probes have none.
    let open = Router::new().route("/healthz", get(health)).route("/readyz", get(ready));
    let closed = Router::new()
        .route("/metrics", get(metrics))
        .merge(api())
        .nest("/v1", api())
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(college.clone(), keys));
    closed.merge(open).layer(CatchPanicLayer::custom(panicked)).with_state(college)
}

fn api() -> Router<Arc<College>> {
    Router::new()
        .route("/chat/completions", post(chat))
        .route("/completions", post(completion))
        .route("/models", get(models))
        .route("/models/{id}", get(model))
        .route("/route", post(route))
        .route("/feedback", post(feedback))
}

/// A body, or why there is none.
type Read = Result<Bytes, BytesRejection>;

async fn chat(college: State<Arc<College>>, headers: HeaderMap, body: Read) -> Response {
    answer(college, &headers, body, Form::Chat, wire::chat).await
}

async fn completion(college: State<Arc<College>>, headers: HeaderMap, body: Read) -> Response {
    answer(college, &headers, body, Form::Completion, wire::completion).await
}

/// From a body to an answer, whichever of OpenAI's forms.
async fn answer(
    State(college): State<Arc<College>>,
    headers: &HeaderMap,
    body: Read,
    form: Form,
    parse: Parse,
) -> Response {
    let debug = wants_debug(headers);
    let asked = match body.map_err(Refusal::from).and_then(|bytes| parse(&bytes)) {
        Ok(asked) => asked,
        Err(refusal) => {
            college.meter.refused();
            return refusal.into_response();
        }
    };
    let (mut ask, delivery) = asked;
    identify(&mut ask, headers);
    let admitted = match college.admit(ask).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let decided = admitted.decided.clone();
    let reply = Reply { college, form, decided: decided.clone(), delivery };
    let (mut response, by) = match reply.delivery.stream {
        true => reply.stream(admitted).await,
        false => reply.whole(admitted).await,
    };
    explain(response.headers_mut(), &decided, by.as_ref(), debug);
    response
}

/// Who answers, as far as that is known when the headers leave.
struct By {
    specialist: String,
    /// Milliseconds in the queue, and of loading within them.
    waited: (u64, u64),
}

impl By {
    fn new(answering: &Answering) -> Self {
        Self { specialist: answering.specialist().to_owned(), waited: answering.waited() }
    }
}

/// One answer on its way out.
struct Reply {
    college: Arc<College>,
    form: Form,
    decided: Decided,
    delivery: Delivery,
}

impl Reply {
    /// The answer in one piece.
    async fn whole(self, admitted: Admitted) -> (Response, Option<By>) {
        let manner = Manner { patience: Some(PATIENCE), whole: true };
        let mut answering = match self.college.start(admitted, manner).await {
            Ok(answering) => answering,
            Err(refusal) => return (refusal.into_response(), None),
        };
        let by = Some(By::new(&answering));
        let text = self.delivery.echo.clone().unwrap_or_default();
        // Scores were asked for, also if there is nothing to score.
        let words = answering.scored().then(Vec::new);
        let empty = Answer { text, words, ..Answer::default() };
        let mut answers = vec![empty.clone(); answering.answers()];
        loop {
            match answering.next().await {
                Ok(Step::Piece(piece)) => {
                    let answer = &mut answers[piece.index];
                    answer.text.push_str(&piece.text);
                    if let Some(words) = piece.words {
                        answer.words.get_or_insert_default().extend(words);
                    }
                }
                Ok(Step::Again(index)) => answers[index] = empty.clone(),
                Ok(Step::Done(Done { index, reason, all })) => {
                    answers[index].reason = Some(reason);
                    if let Some(all) = all {
                        let said = self.said(&answering, Some(&all));
                        let body = self.shape(&answering).whole(answers, all.usage, &said);
                        return (json_response(body), by);
                    }
                }
                Err(refusal) => return (refusal.into_response(), by),
            }
        }
    }

    /// The answer as it comes.
    async fn stream(self, admitted: Admitted) -> (Response, Option<By>) {
        let college = self.college.clone();
        let mut start = Box::pin(async move { college.start(admitted, Manner::default()).await });
        let early = tokio::time::timeout(HEADERS_WITHIN, &mut start).await;
        let by = match &early {
            Ok(Ok(answering)) => Some(By::new(answering)),
            _ => None,
        };
        if let Ok(Err(refusal)) = early {
            return (refusal.into_response(), None);
        }
        let response = sse::stream(move |events| async move {
            let started = match early {
                Ok(started) => started,
                Err(_) => start.await,
            };
            match started {
                Ok(answering) => self.frames(answering, &events).await,
                // The headers are out: the error can only be a frame.
                Err(refusal) => events.data(&line(&refusal.body())).await,
            }
            events.done().await;
        });
        (response, by)
    }

    async fn frames(self, mut answering: Answering, events: &sse::Events) {
        let shape = self.shape(&answering);
        let mut open: Vec<usize> = (0..answering.answers()).collect();
        for index in &open {
            if let Some(first) = shape.first(*index, self.delivery.echo.as_deref()) {
                events.data(&first).await;
            }
        }
        let mut begun = false;
        loop {
            match answering.next().await {
                Ok(Step::Piece(piece)) => {
                    begun = true;
                    events.data(&shape.piece(&piece)).await;
                }
                // Only answers that leave whole begin anew.
                Ok(Step::Again(_)) => {}
                Ok(Step::Done(Done { index, reason, all })) => {
                    begun = true;
                    open.retain(|other| *other != index);
                    let said = all.as_ref().map(|all| self.said(&answering, Some(all)));
                    events.data(&shape.finish(index, reason, said.as_ref())).await;
                    let Some(all) = all else { continue };
                    if self.delivery.include_usage {
                        events.data(&shape.usage(all.usage)).await;
                    }
                    return;
                }
                // Clients answer an error frame by sending everything again, so a
                // text that has begun is cut off as if by its limit.
                Err(refusal) if begun => {
                    let failure = Some(refusal.to_string());
                    let said = Collegium { failure, ..self.said(&answering, None) };
                    let last = open.pop();
                    for index in open {
                        events.data(&shape.finish(index, Reason::Length, None)).await;
                    }
                    if let Some(last) = last {
                        events.data(&shape.finish(last, Reason::Length, Some(&said))).await;
                    }
                    return;
                }
                Err(refusal) => {
                    events.data(&line(&refusal.body())).await;
                    return;
                }
            }
        }
    }

    fn shape(&self, answering: &Answering) -> Shape {
        // Ids of specialists made from traffic are no model ids; the domain's is.
        let model = match &self.decided.word.domain {
            Some(domain) if answering.specialist() != specialists::GENERALIST => domain,
            _ => answering.specialist(),
        };
        Shape::new(self.form, model)
    }

    fn said(&self, answering: &Answering, all: Option<&All>) -> Collegium {
        let (queue_ms, load_ms) = answering.waited();
        Collegium {
            decision_id: self.decided.decision_id.clone(),
            specialist: answering.specialist().to_owned(),
            domain: self.decided.word.domain.clone(),
            missing_mass: all.map(|all| all.missing_mass),
            queue_ms,
            load_ms,
            circles: all.map(|all| all.circles.clone()).unwrap_or_default(),
            ignored: self.delivery.ignored.clone(),
            failure: None,
        }
    }
}

async fn models(State(college): State<Arc<College>>) -> Response {
    let serving = match college.serving().await {
        Ok(serving) => serving,
        Err(refusal) => return refusal.into_response(),
    };
    let ids = ids(&college.routing().domains, &serving).into_iter();
    let data = ids.map(|id| described(&college, id)).collect();
    json_response(line(&ListModelResponse { object: "list".to_owned(), data }))
}

async fn model(
    State(college): State<Arc<College>>,
    uri: Uri,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    // What is no text cannot be a name.
    let Ok(Path(id)) = id else { return unknown_path(uri).await.into_response() };
    let named = async { named(&id, &college.routing().domains, &college.serving().await?) };
    match named.await {
        Ok(_) => json_response(line(&described(&college, id))),
        Err(refusal) => refusal.into_response(),
    }
}

fn described(college: &College, id: String) -> Model {
    Model {
        id,
        object: "model".to_owned(),
        created: college.since,
        owned_by: "collegium".to_owned(),
        shutdown_date: None,
    }
}

async fn route(State(college): State<Arc<College>>, headers: HeaderMap, body: Read) -> Response {
    let decided = async {
        let mut ask = wire::route(&body?)?;
        identify(&mut ask, &headers);
        college.decide(&ask).await
    };
    match decided.await {
        Ok(decided) => {
            let mut response = json_response(line(&decided));
            explain(response.headers_mut(), &decided, None, false);
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn feedback(State(college): State<Arc<College>>, body: Read) -> Response {
    let taken = body.map_err(Refusal::from).and_then(|body| college.take_feedback(&body));
    match taken {
        Ok(id) => json_response(json!({ "decision_id": id, "recorded": true }).to_string()),
        Err(refusal) => refusal.into_response(),
    }
}

async fn health() -> Response {
    json_response(json!({ "status": "ok" }).to_string())
}

/// Ready is what the pool says, through its own queue: a process that runs and a
/// pool that answers are two things.  A parent whose file changed is not.
async fn ready(State(college): State<Arc<College>>) -> Response {
    if let Err(refusal) = college.intact() {
        return refusal.into_response();
    }
    if !college.engine.alive() {
        return Refusal::Stopping.into_response();
    }
    match tokio::time::timeout(READY_WITHIN, college.snapshot()).await {
        Ok(Ok(snapshot)) => {
            let warm: Vec<_> =
                snapshot.specialists.iter().filter(|s| s.warm).map(|s| &s.id).collect();
            let known = snapshot.specialists.len();
            json_response(
                json!({ "status": "ready", "specialists": known, "warm": warm }).to_string(),
            )
        }
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => Refusal::Loading { specialist: "the pool".to_owned(), retry: READY_WITHIN }
            .into_response(),
    }
}

async fn metrics(State(college): State<Arc<College>>) -> Response {
    if let Err(refusal) = college.measure().await {
        return refusal.into_response();
    }
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, text)], college.meter.render()).into_response()
}

async fn unknown_path(uri: Uri) -> Refusal {
    let path = uri.path().to_owned();
    Refusal::Path { near: nearest(&path, ROUTES.iter().copied()), path }
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::Method { method: method.to_string(), path: uri.path().to_owned() }
}

/// Lets in who has a key, if keys are asked for.
async fn keys(State(college): State<Arc<College>>, request: Request, next: Next) -> Response {
    match check_key(&college.keys, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check_key(keys: &[String], headers: &HeaderMap) -> Result<(), Refusal> {
    if keys.is_empty() {
        return Ok(());
    }
    let Some(sent) = key(headers) else { return Err(Refusal::Key { sent: false }) };
    // Every key is compared, whole, so that time tells nothing about any of them.
    let known = keys.iter().fold(false, |known, key| known | same(key.as_bytes(), sent));
    if known { Ok(()) } else { Err(Refusal::Key { sent: true }) }
}

/// The key that was sent.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = bearer.and_then(|v| v.strip_prefix(b"Bearer ").or(v.strip_prefix(b"bearer ")));
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// Whose request it is, and of which conversation.
fn identify(ask: &mut Ask, headers: &HeaderMap) {
    let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let identity = Identity::new(key(headers), header, |name| ask.context.id(name));
    ask.context.identity = identity;
}

/// Compares in a time that depends on the lengths alone.
fn same(key: &[u8], sent: &[u8]) -> bool {
    let mut differ = u8::from(key.len() != sent.len());
    for (i, byte) in sent.iter().enumerate() {
        let own = key.get(i % key.len().max(1)).copied().unwrap_or(0);
        differ |= std::hint::black_box(own ^ byte);
    }
    differ == 0
}

fn wants_debug(headers: &HeaderMap) -> bool {
    headers.get("x-collegium-debug").is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The decision, in headers.
fn explain(headers: &mut HeaderMap, decided: &Decided, by: Option<&By>, debug: bool) {
    let mut set = |name: &'static str, value: &str| {
        // Ids are ASCII by their own rules; anything else would not be sent.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-collegium-specialist", by.map_or(&decided.specialist, |by| &by.specialist));
    set("x-collegium-domain", decided.domain());
    set("x-collegium-confidence", &format!("{:.3}", decided.word.confidence));
    set("x-collegium-decision-id", &decided.decision_id);
    if !debug {
        return;
    }
    let alternatives: Vec<String> = decided
        .word
        .alternatives
        .iter()
        .map(|a| format!("{}={:.3}", a.domain, a.probability))
        .collect();
    set("x-collegium-alternatives", &alternatives.join(", "));
    set("x-collegium-rule", decided.rule());
    if let Some(kind) = decided.background {
        set("x-collegium-background", kind);
    }
    if let Some(By { waited: (queue_ms, load_ms), .. }) = by {
        set("x-collegium-queue-ms", &queue_ms.to_string());
        set("x-collegium-load-ms", &load_ms.to_string());
    }
}

fn json_response(body: String) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::from(body)).into_response()
}

/// A defect of ours ends one request, not the server.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    error!("a request hit a defect; its answer is an internal error");
    let message = "a defect in the server; the log has its place".to_owned();
    Refusal::Internal { message }.into_response()
}

#[cfg(test)]
mod tests;
