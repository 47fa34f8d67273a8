//! The command line: names, flags and help of every command; nothing runs here.
//!
//! To add a command: a variant of [`Command`] with an example in its help, and
//! its arm in `commands::run`.  `tests` has clap check the declarations.

pub mod supervisor;
pub mod surgery;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use config::{Bytes, Device, Precision};
use router_model::Stage;
use router_model::train::Source;
use surgery::Surgery;

/// One OpenAI-compatible endpoint in front of a college of experts.
#[derive(Debug, Parser)]
#[command(
    name = "collegium",
    version,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        collegium serve\n  \
        collegium ask \"What is consideration in contract law?\"\n  \
        collegium route \"Solve 3x + 4 = 19\""
)]
pub struct Cli {
    /// Folder of registry, models and traffic [default: $COLLEGIUM_HOME, else the platform's data folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Settings; domains/*.toml beside the file are read too [default: ./collegium.toml, else the shipped one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Results and errors as JSON, for machines
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer over HTTP
    #[command(after_help = "Examples:\n  \
        collegium serve\n  \
        collegium serve --listen 0.0.0.0:8080 --parent model.gguf --budget 8GiB")]
    Serve(Serve),
    /// Answer one question on the terminal; no server is needed
    #[command(after_help = "Examples:\n  \
        collegium ask \"What is consideration in contract law?\"\n  \
        collegium ask --model math --temperature 0 \"Solve 3x + 4 = 19\"\n  \
        git diff | collegium ask -")]
    Ask(Ask),
    /// Show which specialist would answer, and why
    #[command(after_help = "Examples:\n  \
        collegium route \"Solve 3x + 4 = 19\"\n  \
        echo \"What is a tort?\" | collegium route --json -\n  \
        collegium route --body - < request.json")]
    Route(Route),
    /// Show a GGUF file: architecture, experts, sizes, what surgery would touch
    #[command(after_help = "Examples:\n  \
        collegium inspect model.gguf\n  \
        collegium inspect --json model.gguf")]
    Inspect(Inspect),
    /// Make specialists: profile, mask, cut, verify, evaluate, or all of it
    #[command(subcommand)]
    Surgery(Surgery),
    /// The registered specialists
    #[command(subcommand)]
    Specialists(Specialists),
    /// Train and evaluate the supervisor
    #[command(subcommand)]
    Supervisor(Supervisor),
}

/// Which parent, with how much memory; the settings' own where a flag is absent.
#[derive(Debug, Clone, Default, Args)]
pub struct ParentArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
    /// Memory for backbone, experts, KV and workspace, as 8GiB or 512MB
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Bytes>,
    /// How exactly keys and values are kept: f16 takes half the memory of f32, q8 a little more than a quarter
    #[arg(long, value_name = "f32|f16|q8")]
    pub kv_type: Option<Precision>,
    /// Where to compute
    #[arg(long, value_name = "auto|cpu|cuda:N|metal")]
    pub device: Option<Device>,
}

/// A local file; names of remote ones are refused with what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentPath(pub PathBuf);

impl FromStr for ParentPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("hf:") {
            Some(rest) => Err(format!(
                "this build cannot download (`collegium pull` is not part of it); \
                 fetch {rest} yourself and give the path of the GGUF file"
            )),
            None if text.is_empty() => Err("the path of a GGUF file is needed".to_owned()),
            None => Ok(Self(PathBuf::from(text))),
        }
    }
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port; port 0 picks a free one [default: as the settings say, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    #[command(flatten)]
    pub parent: ParentArgs,
}

#[derive(Debug, Args)]
pub struct Ask {
    /// Who answers: auto, generalist, or a domain
    #[arg(long, default_value = "auto")]
    pub model: String,
    /// Tokens of the answer at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f32>,
    /// Makes the answer repeatable
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub parent: ParentArgs,
    /// The question; - reads standard input
    pub text: String,
}

#[derive(Debug, Args)]
pub struct Route {
    /// The text is the body of a request, as POST /v1/route takes it: {"messages": …}, {"prompt": …} or {"text": …}
    #[arg(long)]
    pub body: bool,
    /// The query; - reads standard input
    pub text: String,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// A GGUF file (of a split model the first part), or `nano` for the embedded parent
    pub file: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum Specialists {
    /// Every specialist of the parent: shipped, made by hand, made by the autopilot
    #[command(after_help = "Example:\n  collegium specialists list --json")]
    List(ListArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The parent [default: as the settings say, else the embedded nano parent]
    #[arg(long, value_name = "GGUF")]
    pub parent: Option<ParentPath>,
}

#[derive(Debug, Subcommand)]
pub enum Supervisor {
    /// Train the classifier on labelled questions
    #[command(after_help = "Example:\n  \
        collegium supervisor train --data questions.jsonl --out weights/")]
    Train(TrainArgs),
    /// Train again with what users corrected, and use the result if it is better
    #[command(after_help = "Examples:\n  \
        collegium supervisor improve --data questions.jsonl\n  \
        collegium supervisor improve --rollback")]
    Improve(ImproveArgs),
    /// Measure accuracy, calibration and abstention
    #[command(after_help = "Example:\n  \
        collegium supervisor evaluate --data held-out.jsonl\n  \
        collegium supervisor evaluate --data held-out.jsonl --typos 0.2 --ood ood.jsonl --out report/")]
    Evaluate(JudgeArgs),
    /// Show what a domain's file would do before it is used: whom it will be confused with, what is wrong
    #[command(after_help = "Example:\n  \
        collegium supervisor lint --domain gardening.toml\n\n\
        Exit code 0 if the file can be used, 1 if it would be refused.")]
    Lint(supervisor::lint::LintArgs),
    /// Learn from outcomes which model will be right, and what that saves
    #[command(subcommand)]
    Outcomes(supervisor::outcomes::Outcomes),
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Labelled lines, a book, or a folder of them; DOMAIN= where the lines do not say; may be given several times
    #[arg(long, value_name = "[DOMAIN=]FILE", required = true)]
    pub data: Vec<Source>,
    /// The same files and seed give the same bytes [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Steps of the regression at most [default: 100]
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// What large weights cost: more of it trusts rare words less [default: 0.0000015]
    #[arg(long, value_name = "X")]
    pub penalty: Option<f32>,
    /// Learn nothing of this domain, to see how its questions are told from the others'; may be repeated
    #[arg(long, value_name = "DOMAIN")]
    pub leave_out: Vec<String>,
    /// Leave the tenth that calibrates out of the weights, to choose settings by it
    #[arg(long)]
    pub no_refit: bool,
    /// Folder for weights and report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct ImproveArgs {
    /// What the weights in use were trained on, as for train; corrections alone would make them forget it
    #[arg(long, value_name = "[DOMAIN=]FILE", required_unless_present = "rollback")]
    pub data: Vec<Source>,
    /// As for train
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Steps of the regression at most
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Go back to the weights before the last improvement
    #[arg(long, conflicts_with = "data")]
    pub rollback: bool,
}

#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// Labelled lines; may be given several times
    #[arg(long, value_name = "[DOMAIN=]FILE", required = true)]
    pub data: Vec<Source>,
    /// Other weights than the shipped ones
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Only the tenth that training with the same data holds out
    #[arg(long)]
    pub held_out: bool,
    /// Ask the questions without their options
    #[arg(long)]
    pub without_options: bool,
    /// Share of words longer than three letters of which two neighbouring letters change places, 0 to 1
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = share)]
    pub typos: f64,
    /// Which stages answer: lexical, or both [default: what this build ships]
    #[arg(long, value_name = "lexical|both")]
    pub stage: Option<Stage>,
    /// Texts of no domain, one a line, plain or as {"text", "kind"}: how well they are told from the questions
    #[arg(long, value_name = "FILE")]
    pub ood: Option<PathBuf>,
    /// Of the typos
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub report: supervisor::report::ReportArgs,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number between 0 and 1 is expected".to_owned()),
    }
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if (0.0..=2.0).contains(&t) => Ok(t),
        _ => Err("a number between 0 and 2 is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn declarations_are_sound() {
        Cli::command().debug_assert();
    }

    /// `expect` is a part of what was understood, or of the error.
    #[track_caller]
    fn check(line: &str, expect: &str) {
        let words = std::iter::once("collegium").chain(line.split_whitespace());
        let seen = match Cli::try_parse_from(words) {
            Ok(cli) => format!("{cli:?}"),
            Err(error) => error.to_string(),
        };
        assert!(seen.contains(expect), "{line}\n  gives {seen}");
    }

    #[test]
    fn lines() {
        check("serve", "Serve(Serve { listen: None");
        check("serve --budget 8GiB", "budget: Some(Bytes(8589934592))");
        check("serve --budget soon", "soon");
        check("ask --kv-type q8 hi", "kv_type: Some(Q8)");
        check("serve --kv-type f8", "'--kv-type <f32|f16|q8>': \"f32\", \"f16\" or \"q8\"");
        check("serve --kv-type fp16", "did you mean \"f16\"?");
        check("serve --device tpu", "\"cuda:N\" with the number of the device");
        check("serve --parent hf:a/b/c.gguf", "`collegium pull` is not part of it");
        check("serve --lisen :80", "--listen");
        // Global flags stand before or after the command.
        check("--json route hello", "json: true");
        check("route hello --home /x", "home: Some(\"/x\")");
        check("ask --temperature 3 hi", "between 0 and 2");
        check("ask", "<TEXT>");
        check("surgery mask --profile p --out m", "--keep");
        check("surgery mask --profile p --out m --keep 50%", "keep: Some(\"50%\")");
        check("surgery mask --profile p --out m --keep 4 --coverage 0.9", "cannot be used with");
        check("surgery mask --profile p --out m --keep 4 --for llama.cpp", "runtime: LlamaCpp");
        check("surgery verify", "--specialist");
        check("specialists list", "List(");
        check("supervisor improve", "--data");
        check("supervisor improve --rollback", "rollback: true");
        check("supervisor evaluate --data a --stage both", "stage: Some(Both)");
        check("supervisor evaluate --data a --stage all", "lexical or both");
        check("supervisor evaluate --data a --typos 2", "between 0 and 1");
        check("pull x", "unrecognized subcommand");
    }

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let name = command.get_name();
                assert!(help.contains("collegium "), "{name} has no example in its help");
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
