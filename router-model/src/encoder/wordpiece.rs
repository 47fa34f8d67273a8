//! Text to token ids as BERT reads it: lower case, no accents, words and marks,
//! then the longest pieces that the vocabulary has.
//!
//! The ids are those of the `tokenizers` library for texts in Latin letters.
//! Marks outside ASCII are told by their blocks, and accents by a table of
//! Western letters, so that no tables of all of Unicode are carried along; a
//! letter beyond them is looked up as it stands.

use std::collections::HashMap;

use super::EncoderError;

/// Longer words are one unknown token, as in BERT.
const LONGEST_WORD: usize = 100;

/// Characters from either end of a text that tokens are made of: no 128 tokens
/// need more, and a megabyte costs no more than a page.
const HEAD_CHARS: usize = 3_000;
const TAIL_CHARS: usize = 1_000;

/// A vocabulary, ready to cut words into pieces.
#[derive(Debug)]
pub(super) struct WordPiece {
    /// Pieces that begin a word.
    first: HashMap<Box<str>, u32>,
    /// Pieces that go on with one, without their `##`.
    later: HashMap<Box<str>, u32>,
    cls: u32,
    sep: u32,
    unknown: u32,
}

impl WordPiece {
    pub(super) fn new(tokens: &[String]) -> Result<WordPiece, EncoderError> {
        let (mut first, mut later) = (HashMap::new(), HashMap::new());
        for (id, token) in (0u32..).zip(tokens) {
            match token.strip_prefix("##").filter(|rest| !rest.is_empty()) {
                Some(rest) => later.insert(rest.into(), id),
                None => first.insert(token.as_str().into(), id),
            };
        }
        let special = |name: &'static str| {
            first.get(name).copied().ok_or_else(|| EncoderError::Field {
                field: "tokenizer.ggml.tokens",
                why: format!("{name} is not among them"),
            })
        };
        let (cls, sep, unknown) = (special("[CLS]")?, special("[SEP]")?, special("[UNK]")?);
        Ok(WordPiece { first, later, cls, sep, unknown })
    }

    /// At most `most` ids: of a long text the first three quarters of them from
    /// its start and the others from its end.
    pub(super) fn encode(&self, text: &str, most: usize) -> Vec<u32> {
        let mut ids = Vec::new();
        self.words(&shortened(text), &mut ids);
        let room = most.saturating_sub(2);
        if ids.len() > room {
            let tail = room / 4;
            ids.drain(room - tail..ids.len() - tail);
        }
        ids.insert(0, self.cls);
        ids.push(self.sep);
        ids
    }

    fn words(&self, text: &str, ids: &mut Vec<u32>) {
        let mut word = String::new();
        for c in text.chars() {
            if c.is_whitespace() {
                self.word(&mut word, ids);
            } else if c.is_control() || c == '\u{FFFD}' || is_format(c) {
            } else if is_mark(c) || is_ideograph(c) {
                self.word(&mut word, ids);
                word.push(c);
                self.word(&mut word, ids);
            } else {
                for c in c.to_lowercase().filter(|c| !is_accent(*c)) {
                    word.push_str(plain(c).unwrap_or(c.encode_utf8(&mut [0; 4])));
                }
            }
        }
        self.word(&mut word, ids);
    }

    /// The pieces of one word; one unknown token if it has no such pieces.
    fn word(&self, word: &mut String, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word.as_str();
        if rest.chars().nth(LONGEST_WORD).is_some() {
            ids.push(self.unknown);
            rest = "";
        }
        while !rest.is_empty() {
            let pieces = if ids.len() == before { &self.first } else { &self.later };
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
            let found = ends.rev().find_map(|end| Some((end, *pieces.get(&rest[..end])?)));
            let Some((end, id)) = found else {
                ids.truncate(before);
                ids.push(self.unknown);
                break;
            };
            ids.push(id);
            rest = &rest[end..];
        }
        word.clear();
    }
}

fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    if text.char_indices().nth(HEAD_CHARS + TAIL_CHARS).is_none() {
        return text.into();
    }
    let head = text.char_indices().nth(HEAD_CHARS).map_or(0, |(at, _)| at);
    let tail = text.char_indices().nth_back(TAIL_CHARS - 1).map_or(0, |(at, _)| at);
    format!("{} {}", &text[..head], &text[tail..]).into()
}

fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation()
        || matches!(c, '¡' | '§' | '«' | '¶' | '·' | '»' | '¿')
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{2043}' | '\u{2045}'..='\u{2051}')
        || matches!(c, '\u{2053}'..='\u{205E}' | '\u{2E00}'..='\u{2E4F}' | '\u{3001}'..='\u{3003}')
        || matches!(c, '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301F}' | '\u{30FB}' | '\u{27E6}'..='\u{27EF}')
        || matches!(c, '\u{FF01}'..='\u{FF03}' | '\u{FF05}'..='\u{FF0A}' | '\u{FF0C}'..='\u{FF0F}')
        || matches!(c, '\u{FF1A}' | '\u{FF1B}' | '\u{FF1F}' | '\u{FF20}' | '\u{FF3B}'..='\u{FF3D}')
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{20000}'..='\u{2CEAF}')
        || matches!(c, '\u{F900}'..='\u{FAFF}' | '\u{2F800}'..='\u{2FA1F}')
}

/// Invisible: soft hyphens, joiners, marks of direction.
fn is_format(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}')
}

fn is_accent(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{20D0}'..='\u{20F0}')
}

/// The letter under its accent.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' | 'ǎ' => "a",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' => "d",
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' => "h",
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò'..='ö' | 'ō' | 'ŏ' | 'ő' => "o",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' => "s",
        'ţ' | 'ť' => "t",
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> WordPiece {
        let tokens = "[PAD] [UNK] [CLS] [SEP] what is osmo ##sis o ##s ##m ? cafe 水 ' a b";
        let tokens: Vec<String> = tokens.split(' ').map(str::to_owned).collect();
        WordPiece::new(&tokens).expect("all special tokens are there")
    }

    #[track_caller]
    fn check(text: &str, want: &[u32]) {
        let ids = vocabulary().encode(text, 8);
        assert_eq!(ids[1..ids.len() - 1], *want, "{text:?}");
        assert_eq!((ids[0], ids[ids.len() - 1]), (2, 3));
    }

    #[test]
    fn pieces() {
        check("", &[]);
        check("What is OSMOSIS?", &[4, 5, 6, 7, 11]);
        check("oss osm", &[8, 9, 9, 8, 9, 10]);
        // A word that cannot be cut whole is unknown whole.
        check("osq o", &[1, 8]);
        check("Café\u{0} cafe\u{301} c\u{AD}afe", &[12, 12, 12]);
        check("水水a", &[13, 13, 15]);
        check(&"o".repeat(LONGEST_WORD + 1), &[1]);
    }

    #[test]
    fn long_texts_keep_both_ends() {
        // Of six places four are the start's and one and a half are the end's.
        check(&format!("{}{}", "a ".repeat(50), "b ".repeat(50)), &[15, 15, 15, 15, 15, 16]);
        // More than is looked at.
        let long = format!("{} what {}", "a ".repeat(100_000), "b ".repeat(100_000));
        check(&long, &[15, 15, 15, 15, 15, 16]);
    }

    #[test]
    fn special_tokens_must_be_there() {
        let err = WordPiece::new(&["[CLS]".into(), "[SEP]".into()]).unwrap_err().to_string();
        assert!(err.contains("[UNK]"), "{err}");
    }
}
