//! Flags of the supervisor's commands that have a file of their own.

pub mod lint;
pub mod outcomes;
pub mod report;
