//! Placeholder.
use crate::cli::Cli;
use crate::cli::supervisor::outcomes::Outcomes;
use crate::commands::terminal::Failure;
pub fn run(_: &Cli, _: &Outcomes) -> Result<(), Failure> {
    Ok(())
}
