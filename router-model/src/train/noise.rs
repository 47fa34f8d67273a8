//! Texts that nobody means: what a supervisor must not take for a question.

use fastrand::Rng;

/// A line of noise: bytes, letters, hexadecimal digits, a mashed keyboard, or
/// letters of another script.
pub(super) fn text(rng: &mut Rng) -> String {
    let length = 4 + rng.usize(..120);
    let kind = rng.u8(..6);
    let mut out = String::new();
    while out.chars().count() < length {
        let c = match kind {
            // Random bytes, as they look once they are text.
            0 => match char::from(rng.u8(..)) {
                c if c.is_ascii() => c,
                _ => char::REPLACEMENT_CHARACTER,
            },
            1 if rng.u8(..6) == 0 => ' ',
            1 => rng.lowercase(),
            2 => char::from(b"0123456789abcdef"[rng.usize(..16)]),
            3 if rng.u8(..9) == 0 => ' ',
            3 => char::from(b"asdfghjkl;"[rng.usize(..10)]),
            4 => rng.alphanumeric(),
            _ => rng.char('\u{a1}'..'\u{2fff}'),
        };
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_never_empty() {
        let mut rng = Rng::with_seed(1);
        let texts: Vec<String> = (0..200).map(|_| text(&mut rng)).collect();
        assert!(texts.iter().all(|text| text.chars().count() >= 4));
        assert!(texts.windows(2).all(|two| two[0] != two[1]));
    }
}
