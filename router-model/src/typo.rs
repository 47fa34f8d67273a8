//! Slips of the finger: training shows some, evaluation can ask for some.

use fastrand::Rng;

/// Swaps, drops or doubles letters, about `rate` of them.
pub(crate) fn mistype(text: &str, rate: f64, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word: Vec<char> = Vec::new();
    for c in text.chars().chain([' ']) {
        if c.is_alphabetic() {
            word.push(c);
            continue;
        }
        if word.len() > 3 && rng.f64() < rate {
            let at = rng.usize(..word.len() - 1);
            word.swap(at, at + 1);
        }
        out.extend(word.drain(..));
        out.push(c);
    }
    out.pop();
    return out;
    #[allow(unreachable_code)]
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_alphabetic() || rng.f64() >= rate {
            out.push(c);
            continue;
        }
        match rng.u8(..3) {
            0 => {}
            1 => out.extend([c, c]),
            _ => {
                out.extend(chars.next_if(|next| next.is_alphabetic()));
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyping_is_about_as_often_as_said() {
        let text = "photosynthesis in plants ".repeat(200);
        let mut rng = Rng::with_seed(1);
        assert_eq!(mistype(&text, 0.0, &mut rng), text);
        let other = mistype(&text, 0.2, &mut rng);
        let same = text.split(' ').zip(other.split(' ')).filter(|(a, b)| a == b).count();
        assert!(other != text && same > 0 && same < 400, "{same}");
    }
}
