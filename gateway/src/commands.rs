//! Runs the commands of the command line.
//!
//! One file per command (surgery's steps share one).  A command returns a
//! [`Failure`] or nothing; results go to standard output, everything else to
//! standard error.  Exit codes: 0 done, 1 failed, 2 misused.

mod ask;
mod inspect;
mod route;
mod serve;
mod specialists;
mod supervisor;
mod surgery;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};
use terminal::Failure;

/// Parses and runs one command line.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let json = args.iter().any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return misused(&error, json),
    };
    terminal::log(&cli);
    let done = match &cli.command {
        Command::Serve(args) => serve::run(&cli, args),
        Command::Ask(args) => ask::run(&cli, args),
        Command::Route(args) => route::run(&cli, args),
        Command::Inspect(args) => inspect::run(&cli, args),
        Command::Surgery(step) => surgery::run(&cli, step),
        Command::Specialists(what) => specialists::run(&cli, what),
        Command::Supervisor(what) => supervisor::run(&cli, what),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(cli.json);
            ExitCode::from(failure.exit)
        }
    }
}

/// Help and version are no errors; all else is the caller's mistake.
fn misused(error: &clap::Error, json: bool) -> ExitCode {
    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if shown || !json {
        // A closed terminal has nobody to tell.
        let _ = error.print();
    } else {
        Failure::usage(error.render().to_string().trim()).print(true);
    }
    ExitCode::from(if shown { 0 } else { 2 })
}
