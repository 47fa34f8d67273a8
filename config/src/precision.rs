//! How exactly keys and values are kept: `f32`, `f16`, `q8`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::error::meant;
use crate::reader::nearest;

/// The number format of keys and values, and so what a token of a conversation takes.
///
/// The default is for measurements and proofs; a server's is in [`crate::Memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they were computed.
    #[default]
    F32,
    /// In half the memory.
    F16,
    /// Signed bytes, 32 with a scale in F16: a little more than a quarter.
    Q8,
}

/// A word that is no [`Precision`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("\"f32\", \"f16\" or \"q8\"{}", meant(*.nearest))]
pub struct BadPrecision {
    pub nearest: Option<&'static str>,
}

impl Precision {
    /// From the most exact to the least.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::F16, Precision::Q8];

    /// As it is written in settings.
    pub fn word(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Q8 => "q8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Precision {
    type Err = BadPrecision;

    fn from_str(text: &str) -> Result<Precision, BadPrecision> {
        let words = Precision::ALL.map(Precision::word);
        let found = Precision::ALL.into_iter().find(|p| p.word() == text);
        found.ok_or_else(|| BadPrecision { nearest: nearest(&text.to_lowercase(), words) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        #[track_caller]
        fn check(text: &str, meant: Option<&str>) {
            assert_eq!(text.parse::<Precision>().unwrap_err().nearest, meant, "{text}");
        }
        check("f61", Some("f16"));
        check("FP16", Some("f16"));
        check("bf16", Some("f16"));
        check("Q8", Some("q8"));
        check("q8_0", None);
        check("", None);
    }
}
