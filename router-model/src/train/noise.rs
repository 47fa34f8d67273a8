//! Texts that nobody means: what a supervisor must not take for a question.

use fastrand::Rng;

/// A line of noise: bytes, letters, hexadecimal digits, a mashed keyboard,
/// letters of another script, or one thing again and again.
pub(super) fn text(rng: &mut Rng) -> String {
    let length = 4 + rng.usize(..120);
    let kind = rng.u8(..7);
    if kind == 6 {
        return again_and_again(length, rng);
    }
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

/// Up to four characters, repeated.
fn again_and_again(length: usize, rng: &mut Rng) -> String {
    let one = |rng: &mut Rng| match rng.u8(..6) {
        0 => ' ',
        1 => char::REPLACEMENT_CHARACTER,
        2 => char::from(b".,-=+*/#0123456789"[rng.usize(..18)]),
        _ => rng.lowercase(),
    };
    let mut part: String = (0..1 + rng.usize(..4)).map(|_| one(rng)).collect();
    if rng.bool() {
        part.push(' ');
    }
    part.repeat(length.div_ceil(part.len()).max(2))
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
