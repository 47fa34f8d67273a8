//! Flags of `collegium supervisor outcomes`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Outcomes {
    /// Learn which model will be right, and report accuracy against cost on questions held out
    #[command(after_help = "Example:\n  \
        collegium supervisor outcomes train --data outcomes.csv.xz --questions questions.jsonl.xz --out outcomes/\n\n\
        Writes outcomes.bin (the trained model), report.json, report.md and curve.svg.")]
    Train(TrainArgs),
    /// Show which model would be asked, and why
    #[command(after_help = "Example:\n  \
        collegium supervisor outcomes route --model outcomes/outcomes.bin --lambda 0.002 \"Solve 3x + 4 = 19\"")]
    Route(RouteArgs),
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// CSV with the columns question_id, category, answer and one for each model: the letter it answered, or nothing
    #[arg(long, value_name = "OUTCOMES.csv[.xz]")]
    pub data: PathBuf,
    /// The questions, one a line: question_id, question, and options if there were some
    #[arg(long, value_name = "Q.jsonl[.xz]")]
    pub questions: PathBuf,
    /// What one answer of a model costs, in any one unit [default: billions of parameters that a token uses, of the
    /// models in the shipped table]; may be given several times
    #[arg(long, value_name = "MODEL=X", value_parser = cost)]
    pub cost: Vec<(String, f64)>,
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Folder for the trained model and the report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct RouteArgs {
    /// What training wrote
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Probability of being right that one unit of cost is worth; 0 always takes the likeliest to be right
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub lambda: f64,
    /// The question; - reads standard input
    pub text: String,
}

fn cost(text: &str) -> Result<(String, f64), String> {
    let want = "MODEL=X is expected, X a number of at least 0";
    let (model, cost) = text.rsplit_once('=').ok_or(want)?;
    match cost.parse::<f64>() {
        Ok(cost) if cost.is_finite() && cost >= 0.0 && !model.is_empty() => {
            Ok((model.to_owned(), cost))
        }
        _ => Err(want.to_owned()),
    }
}
