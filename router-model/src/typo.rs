//! Slips of the finger: training shows some, evaluation can ask for some.

use fastrand::Rng;

/// In each word longer than three letters, with probability `rate`, two
/// neighbouring letters change places.
pub(crate) fn mistype(text: &str, rate: f64, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word: Vec<char> = Vec::new();
    let mut end = |word: &mut Vec<char>, out: &mut String| {
        if word.len() > 3 && rng.f64() < rate {
            let at = rng.usize(..word.len() - 1);
            word.swap(at, at + 1);
        }
        out.extend(word.drain(..));
    };
    for c in text.chars() {
        if c.is_alphabetic() {
            word.push(c);
        } else {
            end(&mut word, &mut out);
            out.push(c);
        }
    }
    end(&mut word, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, rate: f64, want: &[&str]) {
        for seed in 0..50 {
            let got = mistype(text, rate, &mut Rng::with_seed(seed));
            assert!(want.contains(&got.as_str()), "{got}");
        }
    }

    #[test]
    fn neighbours_change_places() {
        // Words of up to three letters, and numbers, are never mistyped.
        check("the cat, 123456 or so", 1.0, &["the cat, 123456 or so"]);
        check("word!", 1.0, &["owrd!", "wrod!", "wodr!"]);
        check("word!", 0.0, &["word!"]);
        check("ß über", 1.0, &["ß büer", "ß uebr", "ß übre", "ß ürbe", "ß üebr", "ß bürer"]);
        check("", 1.0, &[""]);
    }

    #[test]
    fn as_often_as_said() {
        // Letters that differ, so that a swap is seen.
        let text = "photosynthesis among plants ".repeat(2_000);
        let other = mistype(&text, 0.2, &mut Rng::with_seed(1));
        let changed = text.split(' ').zip(other.split(' ')).filter(|(a, b)| a != b).count();
        let share = changed as f64 / 6_000.0;
        assert!((share - 0.2).abs() < 0.02, "{share}");
    }
}
