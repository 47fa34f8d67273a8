//! Which option an answer names.
//!
//! In: what a model wrote.  Out: the index of an option, or none.  Asked to end
//! with "The answer is (X)", models write it in many ways and some forget it;
//! the ways are tried in order, and within one the last place counts, since a
//! model that corrects itself means what it says last.  A letter that is only
//! mentioned is no answer.

/// Words after which the letter stands.
const PHRASES: [&str; 2] = ["answer is", "answer:"];
/// What may stand between those words and the letter.
const BETWEEN: [&str; 7] = ["option", "choice", "letter", "most", "likely", "correct", "therefore"];

/// Index of the option, below `options`.
pub fn read(answer: &str, options: usize) -> Option<usize> {
    let by_phrase = |phrase: &&str| after(answer, phrase, options);
    PHRASES
        .iter()
        .find_map(by_phrase)
        .or_else(|| boxed(answer, options))
        .or_else(|| alone(answer, options))
}

/// After the last such phrase that has a letter after it.
fn after(answer: &str, phrase: &str, options: usize) -> Option<usize> {
    // Only ASCII changes, so that places stay the same.
    let lower = answer.to_ascii_lowercase();
    lower.rmatch_indices(phrase).find_map(|(at, _)| {
        let mut rest = &answer[at + phrase.len()..];
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || "*_:`$\\\"'".contains(c));
            let word = |word: &&str| {
                rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            };
            match BETWEEN.iter().find(|w| word(w)) {
                Some(word) => rest = &rest[word.len()..],
                None => break,
            }
        }
        let rest = rest.strip_prefix("boxed{").unwrap_or(rest);
        letter(rest.trim_start_matches(['(', '[', '{']), options)
    })
}

/// The last letter in brackets: (X), [X] or \boxed{X}.
fn boxed(answer: &str, options: usize) -> Option<usize> {
    let places: Vec<usize> = answer.match_indices(['(', '[', '{']).map(|(at, _)| at).collect();
    places.into_iter().rev().find_map(|at| {
        let mut rest = answer[at + 1..].chars();
        let index = index(rest.next()?, options)?;
        matches!(rest.next(), Some(')' | ']' | '}')).then_some(index)
    })
}

/// The last line, or else the first, is a letter and nothing more than "B." or "B. text".
fn alone(answer: &str, options: usize) -> Option<usize> {
    let mut lines =
        answer.lines().map(|line| line.trim().trim_matches('*')).filter(|l| !l.is_empty());
    let first = lines.next()?;
    let of = |line: &str| {
        let mut chars = line.chars();
        let index = index(chars.next()?, options)?;
        matches!(chars.next(), None | Some('.' | ')' | ':')).then_some(index)
    };
    lines.next_back().and_then(of).or_else(|| of(first))
}

/// A capital letter that begins no word.
fn letter(text: &str, options: usize) -> Option<usize> {
    let mut chars = text.chars();
    let index = index(chars.next()?, options)?;
    // "The answer is a matter of taste", "I think": words.
    let next = chars.next();
    next.is_none_or(|c| !c.is_alphanumeric() && c != '\'').then_some(index).filter(|_| {
        // "The answer is A good one".
        let rest = chars.as_str();
        next != Some(' ')
            || !rest.starts_with(|c: char| c.is_lowercase())
            || ["because", "since", "as ", "and", "which", "with", "for"]
                .iter()
                .any(|w| rest.starts_with(w))
    })
}

fn index(letter: char, options: usize) -> Option<usize> {
    crate::corpus::letters().take(options).position(|own| own == letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_write() {
        #[track_caller]
        fn check(answer: &str, want: Option<char>) {
            let got = read(answer, 10).map(|at| (b'A' + at as u8) as char);
            assert_eq!(got, want, "{answer:?}");
        }
        check("Since x is 3, the answer is (C).", Some('C'));
        check("The answer is C", Some('C'));
        check("The answer is: **(C)**", Some('C'));
        check("the correct answer is **C. Habeas corpus**", Some('C'));
        check("The answer is option (J).", Some('J'));
        check("The answer is $\\boxed{D}$", Some('D'));
        check("Answer: B", Some('B'));
        check("**Answer:** (B) mens rea", Some('B'));
        check("The answer is B because the others are wrong.", Some('B'));
        // The last word is what is meant.
        check("The answer is (A)? No. The answer is (B).", Some('B'));
        check("The answer is (B). What is the answer is a deep question", Some('B'));
        // "answer is" goes before "answer:", wherever they stand.
        check("The answer is (A).\nAnswer: B", Some('A'));
        // Forgotten.
        check("It must be (E), since (F) is absurd; so (E)", Some('E'));
        check("\\boxed{G}", Some('G'));
        check("B", Some('B'));
        check("B. Habeas corpus", Some('B'));
        check("Let us see.\nD)", Some('D'));
        // No answer.
        check("", None);
        check("I think that a court would say so.", None);
        check("The answer is a matter of taste.", None);
        check("The answer is A good one", None);
        check("Both A and B have merit.", None);
        check("The answer is (K).", None);
        check("The answer is 42.", None);
        check("größer: the answer is (ß)", None);
    }
}
