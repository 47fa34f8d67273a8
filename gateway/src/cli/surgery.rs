//! The steps of `collegium surgery`; the flags of each are in a file of its own.

pub mod coherence;
pub mod compare;
pub mod create;
pub mod cut;
pub mod evaluate;
pub mod mask;
pub mod profile;
pub mod verify;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;

#[derive(Debug, Subcommand)]
pub enum Surgery {
    /// Measure what the parent's router does on a corpus
    #[command(after_help = "Examples:\n  \
        collegium surgery profile --corpus law.jsonl --domain law --out law.profile\n  \
        collegium surgery profile --corpus questions.jsonl --answers parent --domain law --out law.profile\n  \
        collegium surgery profile --imatrix imatrix.gguf --domain law --out law.profile\n  \
        collegium surgery profile --traffic --domain law --out law.profile\n  \
        collegium surgery profile --merge a.profile b.profile --domain law --out law.profile\n\n\
        An interrupted run leaves X.profile.checkpoint, and the same command goes on from there.")]
    Profile(profile::ProfileArgs),
    /// Ask whether one mask can cover a domain, or which parts it falls into
    #[command(after_help = "Example:\n  \
        collegium surgery coherence --profile law.profile --corpus law.jsonl --out law-parts")]
    Coherence(coherence::CoherenceArgs),
    /// Choose the experts that stay
    #[command(after_help = "Example:\n  \
        collegium surgery mask --profile law.profile --keep 50% --out law.mask.json")]
    Mask(mask::MaskArgs),
    /// Write a specialist as a GGUF file
    #[command(after_help = "Example:\n  \
        collegium surgery cut --mask law.mask.json --out law.gguf")]
    Cut(cut::CutArgs),
    /// Prove that a specialist is its masked parent
    #[command(after_help = "Examples:\n  \
        collegium surgery verify --mask law.mask.json\n  \
        collegium surgery verify --specialist law.gguf")]
    Verify(verify::VerifyArgs),
    /// What specialists share, what a pool of them costs, and whether overlap foretells transfer
    #[command(after_help = "Examples:\n  \
        collegium surgery compare law.mask.json math.mask.json law.profile math.profile\n  \
        collegium surgery compare --table rows.csv --without law")]
    Compare(compare::CompareArgs),
    /// Measure what specialists cost beside the parent and controls: text, questions, near and far
    #[command(after_help = "Examples:\n  \
        collegium surgery evaluate --mask law.mask.json --mask math.mask.json --corpus held-out.jsonl --out report\n  \
        collegium surgery evaluate --mask law.mask.json --questions mmlu-pro.jsonl --items 100")]
    Evaluate(evaluate::EvaluateArgs),
    /// Profile, mask, verify, evaluate and register in one go
    #[command(after_help = "Example:\n  \
        collegium surgery create --domain law --corpus law.jsonl")]
    Create(create::CreateArgs),
}

/// For counts of which none would be a slip.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
