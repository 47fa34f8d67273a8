//! Every number the gateway publishes; the only file with metric names.
//!
//! Events come in as method calls, Prometheus text goes out ([`Meter::render`]).
//! Each [`Meter`] has its own recorder, nothing is global, so that several
//! gateways can live in one process.  Labels are ids from our own lists
//! (specialists, domains, outcomes, steps), never text of a request.
//!
//! To add a metric: a row in [`METRICS`] and a method that writes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Precision;
use engine::{Guesses, LayerCounts};
use metrics::{Unit, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

const REQUESTS: &str = "collegium_requests_total";
const REQUEST_SECONDS: &str = "collegium_request_seconds";
const TTFT_SECONDS: &str = "collegium_ttft_seconds";
const TOKENS: &str = "collegium_tokens_total";
const DECISIONS: &str = "collegium_decisions_total";
const DECISION_SECONDS: &str = "collegium_decision_seconds";
const MISSING_MASS: &str = "collegium_missing_mass";
const FEEDBACK: &str = "collegium_feedback_total";
const CONVERSATIONS: &str = "collegium_conversations";
const MOVES: &str = "collegium_conversation_moves_total";
const BACKGROUND: &str = "collegium_background_total";
const DOMAIN_CHANGES: &str = "collegium_domain_changes_total";
const DOMAIN_REFUSED: &str = "collegium_domain_refused";
const SEQUENCES: &str = "collegium_sequences";
const WAITING: &str = "collegium_waiting";
const LEASES: &str = "collegium_leases";
const WARM: &str = "collegium_specialist_warm";
const COMPLETENESS: &str = "collegium_specialist_completeness";
const LEDGER: &str = "collegium_ledger_bytes";
const LEDGER_PEAK: &str = "collegium_ledger_peak_bytes";
const GUESTS: &str = "collegium_guest_bytes";
const REPORTED: &str = "collegium_expert_reported_bytes";
const HITS: &str = "collegium_expert_hits_total";
const MISSES: &str = "collegium_expert_misses_total";
const LAYER_TOKENS: &str = "collegium_layer_tokens_total";
const LAYER_MISSING_MASS: &str = "collegium_layer_missing_mass";
const DEVICE: &str = "collegium_device";
const KV_TYPE: &str = "collegium_kv_type";
const BUDGET: &str = "collegium_budget_bytes";
const RESIDENT: &str = "collegium_process_resident_bytes";
const CIRCLES: &str = "collegium_circles_total";
const EVICTIONS: &str = "collegium_evictions_total";
const LOOKUP_TOKENS: &str = "collegium_lookup_tokens_total";
const AUTOPILOT_STEPS: &str = "collegium_autopilot_steps_total";
const AUTOPILOT_TOKENS: &str = "collegium_autopilot_tokens";

enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

use Kind::{Counter, Gauge, Histogram};

/// From a cached short prompt to a long answer of a large model.
const SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10., 30., 60., 180., 600.];
/// A decision is to stay below a millisecond.
const SHORT: &[f64] = &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1];
const SHARES: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.];

/// Every metric: name, kind, what it says.
const METRICS: &[(&str, Kind, &str)] = &[
    (REQUESTS, Counter, "Requests by specialist and outcome: ok, refused, failed, cancelled."),
    (REQUEST_SECONDS, Histogram(SECONDS), "From the request's body to the last token."),
    (TTFT_SECONDS, Histogram(SECONDS), "From the request's body to the first text."),
    (TOKENS, Counter, "Tokens of prompts and completions."),
    (DECISIONS, Counter, "Decisions by domain and rule."),
    (DECISION_SECONDS, Histogram(SHORT), "Time to decide."),
    (
        MISSING_MASS,
        Histogram(SHARES),
        "Router probability on experts the specialist lacks, per answer.",
    ),
    (
        CIRCLES,
        Counter,
        "Answers that went round in circles, by specialist and outcome: ended, retried.",
    ),
    (FEEDBACK, Counter, "Ratings received."),
    (CONVERSATIONS, Gauge, "Turns of conversations whose place is remembered."),
    (
        MOVES,
        Counter,
        "Conversations that went to another domain, by what moved them: topic, correction.",
    ),
    (
        BACKGROUND,
        Counter,
        "Calls that clients make for themselves, by kind: title, summary, commit, suggestions, topic.",
    ),
    (
        DOMAIN_CHANGES,
        Counter,
        "Changes of domains' files while running, by outcome: used, refused.",
    ),
    (
        DOMAIN_REFUSED,
        Gauge,
        "1 while the file of that name is refused; what it said before is in use.",
    ),
    (SEQUENCES, Gauge, "Sequences being generated."),
    (WAITING, Gauge, "Requests without their first token."),
    (LEASES, Gauge, "Leases in use."),
    (WARM, Gauge, "1 if every expert of the specialist is resident."),
    (COMPLETENESS, Gauge, "Share of the specialist's experts in memory, mean over layers."),
    (LEDGER, Gauge, "Bytes in the ledger by kind: backbone, experts, kv, workspace."),
    (DEVICE, Gauge, "1 for what the parent is computed on: cpu, or the name of a device."),
    (KV_TYPE, Gauge, "1 for how exactly keys and values are kept: f32, f16 or q8."),
    (LEDGER_PEAK, Gauge, "The most bytes the ledger ever held."),
    (
        GUESTS,
        Gauge,
        "Bytes of experts in memory that no warm specialist has; in the ledger's experts.",
    ),
    (HITS, Counter, "Experts that were in memory when a step wanted them, by layer."),
    (MISSES, Counter, "Experts that were not, by layer."),
    (LAYER_TOKENS, Counter, "Tokens that went through a layer with routed experts."),
    (
        LAYER_MISSING_MASS,
        Gauge,
        "Sum over those of the router probability on experts the token could not have; only grows.",
    ),
    (REPORTED, Gauge, "Bytes of experts in memory, as the system counted at the last look."),
    (BUDGET, Gauge, "Bytes the ledger may hold."),
    (
        RESIDENT,
        Gauge,
        "Bytes of this process in memory, as the system counts: private or of files.",
    ),
    (EVICTIONS, Counter, "Specialists evicted."),
    (
        LOOKUP_TOKENS,
        Counter,
        "Tokens that answers were guessed to go on with, by outcome: proposed, and of those accepted.",
    ),
    (AUTOPILOT_STEPS, Counter, "Steps of the autopilot by domain."),
    (AUTOPILOT_TOKENS, Gauge, "Tokens of own traffic seen by domain."),
];

/// The bytes of the pool's ledger, as they are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    pub backbone: u64,
    pub experts: u64,
    /// Of the experts'.
    pub guests: u64,
    pub kv: u64,
    pub workspace: u64,
    pub peak: u64,
    pub budget: u64,
    pub evictions: u64,
    pub leases: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// With an error the client can act on.
    Refused,
    /// By a fault of ours.
    Failed,
    /// The client left.
    Cancelled,
}

/// The recorder of one gateway; clones are the same one.
#[derive(Clone)]
pub struct Meter(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// A recorder with nothing in it.
    pub fn new() -> Self {
        let mut builder = PrometheusBuilder::new();
        for (name, kind, _) in METRICS {
            if let Histogram(buckets) = kind {
                let matcher = Matcher::Full((*name).to_owned());
                // Refused only for an empty list, and none is.
                if let Ok(set) =
                    std::mem::take(&mut builder).set_buckets_for_metric(matcher, buckets)
                {
                    builder = set;
                }
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let meter = Self(Arc::new(Inner { recorder, handle }));
        meter.write(|| {
            for (name, kind, says) in METRICS {
                match kind {
                    Counter => metrics::describe_counter!(*name, Unit::Count, *says),
                    Gauge => metrics::describe_gauge!(*name, Unit::Count, *says),
                    Histogram(_) => metrics::describe_histogram!(*name, Unit::Count, *says),
                }
            }
            // So that a rate has a zero to start from.
            counter!(EVICTIONS).absolute(0);
            gauge!(SEQUENCES).set(0.0);
            gauge!(WAITING).set(0.0);
        });
        meter
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.handle.render()
    }

    /// Folds raw samples into buckets, so that memory stays small when nobody asks.
    pub fn tidy(&self) {
        self.0.handle.run_upkeep();
    }

    /// The supervisor has decided.
    pub fn decided(&self, domain: Option<&str>, rule: &str, took: Duration) {
        let domain = domain.unwrap_or("none").to_owned();
        let rule = rule.to_owned();
        self.write(|| {
            counter!(DECISIONS, "domain" => domain, "rule" => rule).increment(1);
            histogram!(DECISION_SECONDS).record(took);
        });
    }

    /// How many turns are remembered.
    pub fn conversations(&self, turns: usize) {
        self.write(|| gauge!(CONVERSATIONS).set(turns as f64));
    }

    /// A domain's file has changed; `outcome` is one of our own words.
    pub fn domain_change(&self, outcome: &'static str) {
        self.write(|| counter!(DOMAIN_CHANGES, "outcome" => outcome).increment(1));
    }

    /// Whether the file `domain` is refused now.
    pub fn domain_refused(&self, domain: &str, refused: bool) {
        let domain = domain.to_owned();
        let refused = f64::from(u8::from(refused));
        self.write(|| gauge!(DOMAIN_REFUSED, "domain" => domain).set(refused));
    }

    /// A conversation has moved; `by` is one of our own words.
    pub fn moved(&self, by: &'static str) {
        self.write(|| counter!(MOVES, "by" => by).increment(1));
    }

    /// A client's own call; `kind` is one of our own words.
    pub fn background(&self, kind: &'static str) {
        self.write(|| counter!(BACKGROUND, "kind" => kind).increment(1));
    }

    /// An answer went round in circles; `outcome` is one of our own words.
    pub fn circle(&self, specialist: &str, outcome: &'static str) {
        let specialist = specialist.to_owned();
        self.write(|| {
            counter!(CIRCLES, "specialist" => specialist, "outcome" => outcome).increment(1);
        });
    }

    /// A rating of a decision.
    pub fn feedback(&self, rating: i64) {
        let rating = if rating < 0 { "-1" } else { "1" };
        self.write(|| counter!(FEEDBACK, "rating" => rating).increment(1));
    }

    /// The pool's ledger as it is now.
    pub fn memory(&self, memory: Memory) {
        let kinds = [
            ("backbone", memory.backbone),
            ("experts", memory.experts),
            ("kv", memory.kv),
            ("workspace", memory.workspace),
        ];
        self.write(|| {
            for (kind, bytes) in kinds {
                gauge!(LEDGER, "kind" => kind).set(bytes as f64);
            }
            gauge!(LEDGER_PEAK).set(memory.peak as f64);
            gauge!(GUESTS).set(memory.guests as f64);
            gauge!(BUDGET).set(memory.budget as f64);
            gauge!(LEASES).set(memory.leases as f64);
            counter!(EVICTIONS).absolute(memory.evictions);
        });
    }

    /// What the parent is computed on, and how keys and values are kept, which what fits into the ledger's `kv`
    /// depends on.
    pub fn computes(&self, device: &str, precision: Precision) {
        self.write(|| {
            gauge!(DEVICE, "device" => device.to_owned()).set(1.0);
            gauge!(KV_TYPE, "type" => precision.word()).set(1.0);
        });
    }

    /// What the system said of experts when it was asked last.
    pub fn reported(&self, bytes: u64) {
        self.write(|| gauge!(REPORTED).set(bytes as f64));
    }

    /// What the system says this process takes; a system that does not say leaves it out.
    pub fn resident(&self, private: u64, file: u64) {
        self.write(|| {
            gauge!(RESIDENT, "kind" => "private").set(private as f64);
            gauge!(RESIDENT, "kind" => "file").set(file as f64);
        });
    }

    /// Whether a specialist is warm now, and which share of its experts is in memory.
    pub fn warm(&self, specialist: &str, warm: bool, completeness: f32) {
        let specialist = specialist.to_owned();
        self.write(|| {
            gauge!(COMPLETENESS, "specialist" => specialist.clone()).set(f64::from(completeness));
            gauge!(WARM, "specialist" => specialist).set(f64::from(u8::from(warm)));
        });
    }

    /// What happened in a layer since the start.
    pub fn layer(&self, layer: usize, counts: &LayerCounts) {
        let layer = layer.to_string();
        self.write(|| {
            counter!(HITS, "layer" => layer.clone()).absolute(counts.hits);
            counter!(MISSES, "layer" => layer.clone()).absolute(counts.misses);
            counter!(LAYER_TOKENS, "layer" => layer.clone()).absolute(counts.tokens);
            gauge!(LAYER_MISSING_MASS, "layer" => layer).set(counts.missing_mass);
        });
    }

    /// What was guessed since the start.
    pub fn guesses(&self, guesses: Guesses) {
        let outcomes = [("proposed", guesses.proposed), ("accepted", guesses.accepted)];
        self.write(|| {
            for (outcome, tokens) in outcomes {
                counter!(LOOKUP_TOKENS, "outcome" => outcome).absolute(tokens);
            }
        });
    }

    /// The autopilot did something, or decided against it.
    pub fn autopilot_step(&self, domain: &str, step: &'static str) {
        let domain = domain.to_owned();
        self.write(|| counter!(AUTOPILOT_STEPS, "domain" => domain, "step" => step).increment(1));
    }

    /// Tokens of its own traffic a domain has seen.
    pub fn autopilot_tokens(&self, domain: &str, tokens: u64) {
        let domain = domain.to_owned();
        self.write(|| gauge!(AUTOPILOT_TOKENS, "domain" => domain).set(tokens as f64));
    }

    /// A request has arrived; the guard tells how it goes on.
    pub fn request(&self) -> Request {
        self.write(|| gauge!(WAITING).increment(1.0));
        Request {
            meter: self.clone(),
            started: Instant::now(),
            specialist: "none".to_owned(),
            stage: Stage::Waiting,
            sequences: 0,
            prompt: 0,
            completion: 0,
        }
    }

    /// A request that was refused before it was understood.
    pub fn refused(&self) {
        self.request().end(Outcome::Refused);
    }

    fn write<T>(&self, f: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.0.recorder, f)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// The batcher has it, no token yet.
    Prefill,
    Generating,
    Ended,
}

/// One request's numbers; dropped before its end, the request was cancelled.
pub struct Request {
    meter: Meter,
    started: Instant,
    specialist: String,
    stage: Stage,
    /// Of its answers, those that are being generated.
    sequences: usize,
    /// Tokens, for an answer that is not finished: it cost them all the same.
    prompt: usize,
    completion: usize,
}

impl Request {
    /// Who will answer; a label of ours, checked before.
    pub fn specialist(&mut self, id: &str) {
        id.clone_into(&mut self.specialist);
    }

    /// The engine has it, with so many tokens of prompt and so many answers to make.
    pub fn generating(&mut self, prompt: usize, sequences: usize) {
        self.prompt = prompt;
        if self.stage == Stage::Waiting {
            self.stage = Stage::Prefill;
            self.sequences = sequences;
            self.meter.write(|| gauge!(SEQUENCES).increment(sequences as f64));
        }
    }

    /// One of its answers has ended.
    pub fn ended(&mut self) {
        if self.sequences > 0 {
            self.sequences -= 1;
            self.meter.write(|| gauge!(SEQUENCES).decrement(1.0));
        }
    }

    /// A token has come; the first one is timed.
    pub fn token(&mut self) {
        self.completion += 1;
        if self.stage != Stage::Prefill {
            return;
        }
        self.stage = Stage::Generating;
        let (specialist, took) = (self.specialist.clone(), self.started.elapsed());
        self.meter.write(|| {
            gauge!(WAITING).decrement(1.0);
            histogram!(TTFT_SECONDS, "specialist" => specialist).record(took);
        });
    }

    /// The engine is done with it.
    pub fn finished(&mut self, prompt: usize, completion: usize, missing_mass: f32) {
        let specialist = self.specialist.clone();
        (self.prompt, self.completion) = (prompt, completion);
        self.meter.write(|| {
            histogram!(MISSING_MASS, "specialist" => specialist).record(missing_mass);
        });
        self.end(Outcome::Ok);
    }

    /// The request is over; only the first end counts.
    pub fn end(&mut self, outcome: Outcome) {
        let was = std::mem::replace(&mut self.stage, Stage::Ended);
        if was == Stage::Ended {
            return;
        }
        let outcome = match outcome {
            Outcome::Ok => "ok",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        };
        let (specialist, took) = (self.specialist.clone(), self.started.elapsed());
        let (prompt, completion) = (self.prompt as u64, self.completion as u64);
        let sequences = std::mem::take(&mut self.sequences);
        self.meter.write(|| {
            if completion > 0 {
                counter!(TOKENS, "kind" => "prompt").increment(prompt);
                counter!(TOKENS, "kind" => "completion").increment(completion);
            }
            if was != Stage::Generating {
                gauge!(WAITING).decrement(1.0);
            }
            gauge!(SEQUENCES).decrement(sequences as f64);
            histogram!(REQUEST_SECONDS, "specialist" => specialist.clone()).record(took);
            counter!(REQUESTS, "specialist" => specialist, "outcome" => outcome).increment(1);
        });
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// The names of all metrics, for the tests that compare them with dashboards and README.
pub fn names() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|(name, ..)| *name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn everything(meter: &Meter) {
        meter.decided(Some("law"), "classifier", Duration::from_micros(40));
        meter.feedback(-1);
        meter.domain_change("used");
        meter.domain_refused("tea", true);
        meter.conversations(1);
        meter.moved("topic");
        meter.background("title");
        meter.memory(Memory { backbone: 5, evictions: 2, leases: 1, ..Default::default() });
        meter.warm("law", true, 1.0);
        meter.layer(3, &LayerCounts { hits: 7, missing_mass: 0.5, ..Default::default() });
        meter.guesses(Guesses { proposed: 9, accepted: 4 });
        meter.resident(1, 2);
        meter.reported(3);
        meter.computes("cpu", Precision::F16);
        meter.autopilot_step("law", "register");
        meter.autopilot_tokens("law", 900);
        let mut request = meter.request();
        request.specialist("law");
        meter.circle("law", "ended");
        request.generating(3, 2);
        request.token();
        request.ended();
        request.finished(3, 4, 0.1);
    }

    #[test]
    fn every_name_in_the_table_is_published_and_no_other() {
        let meter = Meter::new();
        everything(&meter);
        let text = meter.render();
        let shown: BTreeSet<&str> =
            text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(shown, names().collect::<BTreeSet<_>>());
    }

    #[track_caller]
    fn check(meter: &Meter, line: &str) {
        let text = meter.render();
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }

    #[test]
    fn a_request_is_counted_once_and_leaves_no_gauge_behind() {
        let meter = Meter::new();
        everything(&meter);
        check(&meter, r#"collegium_requests_total{specialist="law",outcome="ok"} 1"#);
        check(&meter, "collegium_sequences 0");
        check(&meter, "collegium_waiting 0");
        check(&meter, r#"collegium_tokens_total{kind="completion"} 4"#);
        check(&meter, r#"collegium_ledger_bytes{kind="backbone"} 5"#);
        check(&meter, r#"collegium_device{device="cpu"} 1"#);
        check(&meter, r#"collegium_kv_type{type="f16"} 1"#);
        check(&meter, "collegium_evictions_total 2");
        check(&meter, r#"collegium_expert_hits_total{layer="3"} 7"#);
        check(&meter, r#"collegium_layer_missing_mass{layer="3"} 0.5"#);
        check(&meter, r#"collegium_lookup_tokens_total{outcome="accepted"} 4"#);
        // Dropped while waiting, and dropped while generating.
        let waiting = meter.request();
        check(&meter, "collegium_waiting 1");
        drop(waiting);
        let mut running = meter.request();
        running.generating(5, 3);
        check(&meter, "collegium_sequences 3");
        running.ended();
        check(&meter, "collegium_sequences 2");
        running.token();
        check(&meter, "collegium_waiting 0");
        drop(running);
        check(&meter, "collegium_sequences 0");
        check(&meter, "collegium_waiting 0");
        check(&meter, r#"collegium_requests_total{specialist="none",outcome="cancelled"} 2"#);
        // What was read and said before the client left has cost as much as any.
        check(&meter, r#"collegium_tokens_total{kind="prompt"} 8"#);
        check(&meter, r#"collegium_tokens_total{kind="completion"} 5"#);
    }

    #[test]
    fn two_meters_share_nothing() {
        let (one, two) = (Meter::new(), Meter::new());
        one.feedback(1);
        assert!(!two.render().contains(r#"collegium_feedback_total{rating="1"} 1"#));
    }
}
