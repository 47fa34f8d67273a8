//! Text as the features see it: cut to size, lower case, digits made alike.
//!
//! Part of the weights' meaning: a change here needs new weights, and the name
//! [`crate::features::SCHEME`] must change with it.

/// Longer texts keep their start and their end, where the task is usually put.
/// 2,000 characters are a page; they bound the time of a decision.
pub(crate) const HEAD_CHARS: usize = 1_200;
pub(crate) const TAIL_CHARS: usize = 800;

/// The part of a text that counts, as its two pieces.
pub(crate) fn ends(text: &str) -> (&str, &str) {
    let Some((head, _)) = text.char_indices().nth(HEAD_CHARS) else { return (text, "") };
    let rest = &text[head..];
    let tail = rest.char_indices().nth_back(TAIL_CHARS - 1).map_or(0, |(at, _)| at);
    (&text[..head], &rest[tail..])
}

/// One token of a normalised text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Where it stands in [`Normal::text`], in bytes.
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// A word or a number, rather than a symbol.
    pub(crate) word: bool,
    /// Written likeThis, like_this or LIKE THIS: code, or a name in short.
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Camel,
    Capitals,
}

/// A text that is ready to be counted.
#[derive(Debug, Default)]
pub(crate) struct Normal {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
}

impl Normal {
    pub(crate) fn new(text: &str) -> Normal {
        let mut normal = Normal::default();
        let (head, tail) = ends(text);
        normal.add(head);
        normal.add(tail);
        normal
    }

    fn add(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c.is_whitespace() || c.is_control() {
                continue;
            }
            let start = self.text.len();
            let mut shape = Shape::Plain;
            let word = c.is_alphanumeric();
            if c.is_numeric() {
                let mut digits = vec![c];
                while let Some(d) = chars.next_if(|d| d.is_numeric()) {
                    digits.push(d);
                }
                self.number(&digits);
            } else if c.is_alphabetic() {
                let (mut lower, mut upper, mut turn) = (0, 0, false);
                let mut next = Some(c);
                while let Some(c) = next {
                    if c.is_uppercase() {
                        turn |= lower > 0;
                        upper += 1;
                    } else {
                        lower += 1;
                    }
                    self.text.extend(c.to_lowercase());
                    next = chars.next_if(|c| c.is_alphabetic());
                }
                shape = match (turn, lower, upper) {
                    (true, _, _) => Shape::Camel,
                    (_, 0, 2..) => Shape::Capitals,
                    _ => Shape::Plain,
                };
            } else {
                self.text.push(c);
                // A row of one symbol is one token: "==", "----".
                if chars.next_if_eq(&c).is_some() {
                    self.text.push(c);
                    while chars.next_if_eq(&c).is_some() {}
                }
            }
            let token = Token { start: start as u32, end: self.text.len() as u32, word, shape };
            self.tokens.push(token);
            self.text.push(' ');
        }
    }

    /// Numbers matter by their size, not their digits; years by their century.
    fn number(&mut self, digits: &[char]) {
        let year = digits.len() == 4 && (digits[0] == '1' || digits[..2] == ['2', '0']);
        let keep = if year { 2 } else { 0 };
        self.text.extend(&digits[..keep]);
        self.text.extend(std::iter::repeat_n('0', digits.len().min(5) - keep));
    }

    pub(crate) fn get(&self, token: &Token) -> &str {
        &self.text[token.start as usize..token.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let normal = Normal::new(text);
        let show = |t: &Token| {
            let mark = match t.shape {
                Shape::Plain => "",
                Shape::Camel => "~",
                Shape::Capitals => "^",
            };
            format!("{}{mark}", normal.get(t))
        };
        assert_eq!(normal.tokens.iter().map(show).collect::<Vec<_>>().join(" "), want);
    }

    #[test]
    fn tokens() {
        check("What's x^2?", "what ' s x ^ 0 ?");
        check("In 1848 and 2023, not 9999", "in 1800 and 2000 , not 0000");
        check("12 345 67890123", "00 000 00000");
        check("getUserName SQL I", "getusername~ sql^ i");
        check("a == b----c", "a == b -- c");
        check("ÉCOLE straße", "école^ straße");
        check(" \t\n\u{0}", "");
        check("🙂🙂🙂 ok", "🙂🙂 ok");
    }

    #[test]
    fn long_texts_keep_both_ends() {
        let (head, tail) = ends("short");
        assert_eq!((head, tail), ("short", ""));
        // A text a little over the cut is kept whole, nothing twice.
        let text = "é".repeat(HEAD_CHARS + 10);
        let (head, tail) = ends(&text);
        assert_eq!(head.chars().count() + tail.chars().count(), HEAD_CHARS + 10);
        let text = format!("start {} end", "x ".repeat(5_000));
        let (head, tail) = ends(&text);
        assert!(head.starts_with("start") && tail.ends_with("end"));
        assert_eq!(tail.chars().count(), TAIL_CHARS);
    }
}
