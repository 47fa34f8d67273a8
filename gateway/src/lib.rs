//! The gateway: HTTP in, tokens out; and the binary that wires everything.
//!
//! In come OpenAI's requests, or a line on the terminal; out come answers of the
//! specialist that knows the matter, and why it was chosen.
//!
//! * [`app`]: the routes.  `wire` and `fields` read bodies, `shape`, `scores` and `sse` write answers, `errors` refuses.
//! * [`ask`] → `dispatch` → `path` → `answering`: the one path of a request, without HTTP; `decide` says who answers.
//! * `conversation`: whether the next turn stays where the last one went.
//! * [`college`]: everything that is needed to answer, wired; `start` opens it.
//! * `autopilot`, `traffic`, `plan`, `make`: out of a domain's own traffic, a specialist; `record` keeps texts if asked to.
//! * [`routing`]: the domains and their supervisor; `watch` replaces it when a domain's file changes.
//! * [`meter`]: every metric; `audit` holds memory against the ledger.  [`cli`] and `commands`: the command line.
//!
//! The rule nobody may break: there is one path of a request.  A new protocol is
//! a new pair of parser and shape around [`ask::Ask`].
//!
//! Absent: an HTTP status outside `errors`, a metric's name outside `meter`, the
//! text of a request in any log, and any state of the pool (it is asked).

mod answering;
pub mod app;
pub mod ask;
mod audit;
mod autopilot;
pub mod cli;
pub mod college;
pub mod commands;
mod conversation;
mod decide;
mod decisions;
mod defaults;
mod dispatch;
mod errors;
mod feedback;
mod fields;
mod make;
pub mod meter;
mod path;
mod plan;
mod record;
pub mod routing;
mod scores;
mod shape;
mod sse;
mod start;
mod traffic;
mod watch;
mod wire;

pub use errors::Refusal;
