//! The gateway.
mod ask;
mod cli;
mod errors;
mod fields;
mod meter;
mod shape;
mod sse;
mod wire;
