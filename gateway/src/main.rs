//! `collegium`, the one binary; see [`gateway::cli`] for what it understands.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::commands::run(std::env::args_os())
}
