//! Sizes as people write them: `8GiB`, `512 MB`, `1.5 GiB`, `4096`.
//!
//! `KiB MiB GiB TiB` are powers of 1024, `KB MB GB TB` of 1000.  A bare `G` is
//! refused: the two readings differ by 7 %, which is an expert or two.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// A size that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not a size; write for example \"8GiB\", \"512 MB\" or a number of bytes")]
pub struct BadBytes {
    pub text: String,
}

/// Largest first, so that `Display` takes the largest unit that fits.
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = BadBytes;

    fn from_str(text: &str) -> Result<Bytes, BadBytes> {
        parse(text.trim()).map(Bytes).ok_or_else(|| BadBytes { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim();
    let unit = match unit {
        "" => 1,
        _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit);
    }
    // A fraction only means something of a unit, and only with digits around it.
    let (before, after) = number.split_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if unit == 1 || !digits(before) || !digits(after) {
        return None;
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    // Above 2^63 no machine has it, and the cast would only be approximate.
    (bytes < (1u64 << 63) as f64).then_some(bytes as u64)
}

impl fmt::Display for Bytes {
    /// Exact in the largest unit that divides it, else one decimal of the
    /// largest binary unit below it: `8 GiB`, `512 MB`, `7.3 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes(bytes) = *self;
        let exact = |unit: u64| bytes >= unit && bytes.is_multiple_of(unit);
        // "1000 KiB" is exact too, but nobody reads it as about a megabyte.
        let short = |unit: u64| bytes / unit < 10_000;
        if let Some((name, unit)) = UNITS.iter().find(|(_, unit)| exact(*unit) && short(*unit)) {
            return write!(f, "{} {name}", bytes / unit);
        }
        match UNITS.iter().find(|(name, unit)| name.ends_with("iB") && bytes >= *unit) {
            Some((name, unit)) => write!(f, "{:.1} {name}", bytes as f64 / *unit as f64),
            None => write!(f, "{bytes} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<u64>) {
        assert_eq!(text.parse::<Bytes>().ok().map(|b| b.0), want, "{text:?}");
    }

    #[track_caller]
    fn shows(bytes: u64, want: &str) {
        assert_eq!(Bytes(bytes).to_string(), want);
    }

    #[test]
    fn reads() {
        check("0", Some(0));
        check("4096", Some(4096));
        check("8GiB", Some(8 << 30));
        check(" 512 MB ", Some(512_000_000));
        check("512mb", Some(512_000_000));
        check("1.5 GiB", Some(3 << 29));
        check("2 KiB", Some(2048));
        check("2KB", Some(2000));
        check("7 B", Some(7));
        // Two readings, so neither.
        check("8G", None);
        check("8 gigs", None);
        check("", None);
        check("GiB", None);
        check("-1GiB", None);
        check("1.GiB", None);
        check(".5GiB", None);
        check("1.2.3GiB", None);
        check("1.5", None);
        check("1e3", None);
        check("nan", None);
        // Overflow is refused, not wrapped.
        check("99999999999999 TiB", None);
        check("99999999999999.5 TiB", None);
        check("18446744073709551616", None);
    }

    #[test]
    fn writes() {
        shows(0, "0 B");
        shows(7, "7 B");
        shows(8 << 30, "8 GiB");
        shows(512_000_000, "512 MB");
        shows(1 << 20, "1 MiB");
        shows(7_838_315_315, "7.3 GiB");
    }
}
