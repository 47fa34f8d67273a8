//! Runs the commands of the command line.
//!
//! One file per command, and one per step of surgery.  A command returns a
//! [`Failure`] or nothing; results go to standard output, everything else to
//! standard error.  Exit codes: 0 done, 1 failed, 2 misused.

mod ask;
mod improve;
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
use clap::error::{ContextKind, ErrorKind};

use crate::cli::{Cli, Command};
use terminal::Failure;

/// Parses and runs one command line.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(exit(args))
}

fn exit(args: impl IntoIterator<Item = OsString>) -> u8 {
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
        Ok(()) => 0,
        Err(failure) => {
            failure.print(cli.json);
            failure.exit
        }
    }
}

/// Help and version are no errors; all else is the caller's mistake.
fn misused(error: &clap::Error, json: bool) -> u8 {
    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if shown || !json {
        // A closed terminal has nobody to tell.
        let _ = error.print();
    } else {
        let text = error.render().to_string();
        // What follows is the usage, for people.
        let message = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ");
        let failure = Failure::usage(message);
        // As `--budget <SIZE>`.
        let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string);
        match flag.as_deref().and_then(|f| f.split(' ').next()) {
            Some(flag) => failure.at(flag.trim_start_matches('-')).print(true),
            None => failure.print(true),
        }
    }
    if shown { 0 } else { 2 }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::path::Path;

    use super::*;

    /// `@` is a folder with an empty home, settings with a misspelt key, others
    /// with a bad value, and a GGUF that is cut off.
    #[track_caller]
    fn check(folder: &Path, line: &str, expect: u8) {
        let folder = folder.to_str().expect("UTF-8");
        let line = format!("collegium --json --home {folder}/home {}", line.replace('@', folder));
        assert_eq!(exit(line.split_whitespace().map(OsString::from)), expect, "{line}");
    }

    #[test]
    fn exit_codes() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        fs::write(folder.join("bad.toml"), "[memory]\nbudgt = 1").expect("written");
        fs::write(folder.join("worse.toml"), "memory.kv_type = 'int4'").expect("written");
        fs::write(folder.join("cut.gguf"), b"GGUF\x03\0\0\0").expect("written");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();

        check(folder, "--help", 0);
        check(folder, "route negligence", 0);
        check(folder, "specialists list", 0);
        check(folder, "inspect nano", 0);
        check(folder, "ask --max-tokens 2 negligence", 0);
        // Misused.
        check(folder, "sing", 2);
        check(folder, "serve --budget lots", 2);
        check(folder, "serve --kv-type int4", 2);
        check(folder, "serve --parent hf:a/b/c.gguf", 2);
        check(folder, "surgery mask --profile @/x --keep 0 --out @/y", 2);
        check(folder, "surgery profile --domain nowhere --corpus @/x --out @/y", 2);
        check(folder, "surgery profile --domain law --out @/y", 2);
        check(folder, "surgery profile --domain law --corpus @/x --traffic --out @/y", 2);
        check(folder, "surgery profile --domain law --corpus @/x --until 2 --out @/y", 2);
        // Failed.
        check(folder, "ask --model nobody negligence", 1);
        check(folder, "route --config @/bad.toml negligence", 1);
        check(folder, "serve --config @/worse.toml --listen 127.0.0.1:0", 1);
        check(folder, "inspect @/cut.gguf", 1);
        check(folder, "inspect @/none.gguf", 1);
        check(folder, "ask --parent @/cut.gguf negligence", 1);
        check(folder, "serve --listen 127.0.0.1:0 --budget 1MiB", 1);
        check(folder, &format!("serve --listen 127.0.0.1:{port}"), 1);
        check(folder, "surgery profile --domain law --traffic --out @/y", 1);
        check(folder, "surgery profile --domain law --imatrix @/cut.gguf --out @/y", 1);
        check(folder, "surgery profile --merge @/cut.gguf @/cut.gguf --out @/y", 1);
        check(folder, "surgery coherence --profile @/cut.gguf", 1);
        check(folder, "surgery cut --mask @/none.json --out @/y", 1);
        check(folder, "surgery create --domain law --corpus @/none.jsonl", 1);
        check(folder, "supervisor evaluate --data @/none.jsonl", 1);
        check(folder, "supervisor evaluate --data @/none.jsonl --ood @/ood.jsonl", 1);
        check(folder, "supervisor lint --domain @/none.toml", 1);
        check(folder, "supervisor lint", 2);
        let outcomes = "supervisor outcomes";
        check(folder, &format!("{outcomes} train --data @/none.csv --questions @/q --out @/y"), 1);
        check(folder, &format!("{outcomes} route --model @/cut.gguf Why?"), 1);
        check(folder, &format!("{outcomes} route --model @/cut.gguf --lambda -1 Why?"), 2);
        check(
            folder,
            &format!("{outcomes} train --data @/x --questions @/q --cost a --out @/y"),
            2,
        );
        check(folder, "supervisor improve --data @/none.jsonl", 1);
        check(folder, "supervisor improve --rollback", 1);
    }

    #[test]
    fn a_domain_is_looked_at_before_it_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let lint = |id: &str, text: &str, expect: u8| {
            fs::write(folder.join(format!("{id}.toml")), text).expect("written");
            check(folder, &format!("supervisor lint --domain @/{id}.toml"), expect);
        };
        let roses =
            "'When do I prune roses?', 'Which roses grow in the shade?', 'Do roses need mulch?'";
        lint(
            "roses",
            &format!("examples = [{roses}, 'Can roses grow in pots?', 'Who breeds roses?']"),
            0,
        );
        lint("roses", &format!("examples = [{roses}]"), 0);
        lint("roses", "examples = ['When do I prune roses?']", 1);
        lint("roses", &format!("exampels = [{roses}]"), 1);
        lint("roses", &format!("examples = [{roses}]\naliases = ['maths']"), 1);
        // The shipped law has it.
        lint("roses", &format!("examples = [{roses}, 'How do I contest a will?']"), 1);
        // One the weights know.
        lint("law", "name = 'Law'", 0);
    }

    #[test]
    fn a_report_is_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        fs::write(
            folder.join("q.jsonl"),
            "{\"question\": \"What is a tort?\", \"category\": \"law\"}",
        )
        .expect("written");
        fs::write(folder.join("ood.jsonl"), "{\"text\": \"hi\"}").expect("written");
        let report = "supervisor evaluate --data @/q.jsonl --out @/report";
        check(folder, report, 0);
        assert!(!folder.join("report/ood.svg").exists());
        check(folder, &format!("{report} --ood @/ood.jsonl"), 0);
        for name in ["report.json", "report.md", "confusion.svg", "ood.svg", "latency.svg"] {
            assert!(folder.join("report").join(name).exists(), "{name}");
        }
        check(folder, &format!("{report} --ood @/none.jsonl"), 1);
    }

    #[test]
    fn corrections_improve_the_supervisor_and_can_be_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let (feedback, weights) =
            (folder.join("home/feedback"), folder.join("home/supervisor/lexical.bin"));
        fs::create_dir_all(&feedback).expect("a folder");
        // Words that no weights know, so that only what was corrected can tell them.
        let words = ["zorgle", "quuxen", "frobb", "mibbly", "trandle", "wozzit", "klemp", "yarvin"];
        let said = |i: usize, key: &str, domain: &str, from: usize| {
            let letter = |n: usize| char::from(b'a' + (i * n % 26) as u8);
            let word = |n: usize| format!("{}{}", words[from + i * n % 4], letter(n + 2));
            let text = format!("{} {} {}", word(1), word(5), word(9));
            format!("{{\"{key}\": \"{text}\", \"domain\": \"{domain}\"}}\n")
        };
        let lines = |key: &str, domain: &str, from: usize| -> String {
            (0..150).map(|i| said(i, key, domain, from)).collect()
        };
        fs::write(folder.join("data.jsonl"), lines("question", "math", 0)).expect("written");
        fs::write(feedback.join("corrections.jsonl"), lines("prompt", "law", 4)).expect("written");
        let improve = "supervisor improve --steps 4 --data @/data.jsonl";
        check(folder, improve, 0);
        assert!(weights.exists(), "nothing was learnt");
        let learnt = fs::read(&weights).expect("weights");
        check(folder, "route klemp", 0);
        // The same again is no better, and stays what it is.
        check(folder, improve, 0);
        assert_eq!(fs::read(&weights).expect("weights"), learnt);
        // Weights that are cut off are never passed over in silence.
        fs::write(&weights, &learnt[..learnt.len() / 2]).expect("written");
        check(folder, "route klemp", 1);
        check(folder, "supervisor improve --rollback", 0);
        assert!(!weights.exists());
        check(folder, "route klemp", 0);
    }

    #[test]
    fn a_corpus_is_profiled_asked_about_and_added_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let line =
            |i| format!("{{\"text\": \"item {i}: a contract is void, not voidable, if\"}}\n");
        fs::write(folder.join("law.jsonl"), (0..30).map(line).collect::<String>())
            .expect("written");
        let profile = "surgery profile --domain law --corpus @/law.jsonl";
        check(folder, &format!("{profile} --pairs --out @/a.profile"), 0);
        check(folder, &format!("{profile} --tokens 40 --out @/b.profile"), 1);
        check(folder, &format!("{profile} --tokens 40 --force --out @/b.profile"), 0);
        check(folder, "surgery profile --merge @/a.profile @/b.profile --out @/c.profile", 0);
        check(
            folder,
            "surgery coherence --profile @/a.profile --corpus @/law.jsonl --out @/parts",
            0,
        );
        check(folder, "surgery coherence --profile @/a.profile --keep 1", 1);
        check(folder, "surgery coherence --profile @/b.profile", 1);
        assert!(folder.join("parts/coherence.md").exists());
        // Nothing is left of what was only for a run.
        assert!(!folder.join("a.profile.checkpoint").exists());
    }
}
