//! Numbers as people read them.

use crate::evaluate::statistics::Estimate;

/// With a sign; nothing is plain 0.
pub fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:+.digits$}");
    match text.trim_start_matches(['+', '-']).parse::<f64>() {
        Ok(0.0) => format!("{:.digits$}", 0.0),
        _ => text,
    }
}

/// `+0.011 (-0.002 to +0.024)`
pub fn signed_interval(estimate: &Estimate, digits: usize) -> String {
    let value = signed(estimate.value, digits);
    match estimate.spread {
        Some(s) => format!("{value} ({} to {})", signed(s.low, digits), signed(s.high, digits)),
        None => value,
    }
}

/// `0.98 ± 0.01`, one standard error.
pub fn sigma(estimate: &Estimate, digits: usize) -> String {
    match estimate.spread {
        Some(s) => format!("{:.digits$} ± {:.digits$}", estimate.value, s.sigma),
        None => format!("{:.digits$}", estimate.value),
    }
}

/// `97.3 %`
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// 12345 as 12,345.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// A probability under the null; small ones by their power of ten.
pub fn p(value: f64) -> String {
    if value < 0.001 { format!("{value:.0e}") } else { format!("{value:.3}") }
}

/// Bytes by powers of 1024.
pub fn bytes(n: u64) -> String {
    config::Bytes(n).to_string()
}

/// Shortened to `most` characters for where there is no room.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut text: String = text.chars().take(most.saturating_sub(1)).collect();
    text.push('…');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [signed(0.0114, 3), signed(-0.0004, 3), signed(-1.5, 1)],
            ["+0.011", "0.000", "-1.5"]
        );
        assert_eq!([count(7), count(1234), count(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!([p(0.625), p(0.00002)], ["0.625", "2e-5"]);
        assert_eq!([short("law", 5), short("philosophy", 5)], ["law", "phil…"]);
    }
}
