//! Text to token ids and back, from a GGUF's own vocabulary.
//!
//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`), split by the pattern that `tokenizer.ggml.pre` names.  Encoding is
//! the `tokenizers` crate; decoding is a table of bytes per id, so that a stream can be cut anywhere and still give
//! whole characters ([`Utf8Stream`]).
//!
//! To add a pre-tokeniser: a row in [`PATTERNS`].

use thiserror::Error;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer as Bpe};

use crate::gguf::{Array, Gguf, Value};

/// `tokenizer.ggml.pre`, the split pattern, and whether a whole piece that is a token skips the merges.
/// Source: llama.cpp's `llama-vocab.cpp`.
const PATTERNS: &[(&str, &str, bool)] = &[
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        false,
    ),
    ("gpt-2", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", false),
    (
        "llama-bpe",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        true,
    ),
];

/// Token types of GGUF that are not text: control and user-defined.
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// A vocabulary of one parent.
pub struct Tokenizer {
    /// Knows control tokens by their text.
    with_control: Bpe,
    /// Reads control tokens as plain text.
    plain: Bpe,
    /// Bytes per id; empty for control tokens.
    pieces: Vec<Vec<u8>>,
    bos: Option<u32>,
    /// Ids that end an answer.
    ends: Vec<u32>,
    adds_bos: bool,
}

#[derive(Debug, Error)]
pub enum TokenizerError {
    #[error("tokenizer model {found:?} is not known to this engine; known is \"gpt2\"")]
    Model { found: String },
    #[error("pre-tokenizer {found:?} is not known to this engine; known are: {known}")]
    Pre { found: String, known: String },
    #[error("{key} is missing or of the wrong type")]
    Missing { key: &'static str },
    #[error("{key}: {what}")]
    Bad { key: &'static str, what: String },
}

impl Tokenizer {
    /// Builds the tokenizer a file describes.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] naming the key.
    pub fn read(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let model = gguf.text("tokenizer.ggml.model").unwrap_or("");
        if model != "gpt2" {
            return Err(TokenizerError::Model { found: model.to_owned() });
        }
        let pre = gguf.text("tokenizer.ggml.pre").unwrap_or("gpt-2");
        let Some((_, pattern, ignore_merges)) = PATTERNS.iter().find(|(name, ..)| *name == pre)
        else {
            let known: Vec<&str> = PATTERNS.iter().map(|(name, ..)| *name).collect();
            return Err(TokenizerError::Pre { found: pre.to_owned(), known: known.join(", ") });
        };
        let texts = |key: &'static str| {
            gguf.meta(key).and_then(Value::texts).ok_or(TokenizerError::Missing { key })
        };
        let tokens = texts("tokenizer.ggml.tokens")?;
        let merges = texts("tokenizer.ggml.merges")?
            .iter()
            .map(|pair| {
                let (a, b) = pair.split_once(' ').ok_or_else(|| TokenizerError::Bad {
                    key: "tokenizer.ggml.merges",
                    what: format!("{pair:?} is no pair"),
                })?;
                Ok((a.to_owned(), b.to_owned()))
            })
            .collect::<Result<Vec<_>, TokenizerError>>()?;
        let kinds: Vec<i32> = match gguf.meta("tokenizer.ggml.token_type") {
            Some(Value::Array(Array::I32(kinds))) if kinds.len() == tokens.len() => kinds.clone(),
            None => vec![1; tokens.len()],
            _ => return Err(TokenizerError::Missing { key: "tokenizer.ggml.token_type" }),
        };
        let special: Vec<AddedToken> = tokens
            .iter()
            .zip(&kinds)
            .filter(|(_, kind)| [CONTROL, USER_DEFINED].contains(kind))
            .map(|(text, kind)| AddedToken::from(text.clone(), *kind == CONTROL))
            .collect();
        let plain = bpe(tokens, merges, pattern, *ignore_merges)?;
        let mut with_control = plain.clone();
        with_control.add_special_tokens(special).map_err(|e| TokenizerError::Bad {
            key: "tokenizer.ggml.token_type",
            what: e.to_string(),
        })?;
        let pieces = tokens
            .iter()
            .zip(&kinds)
            .map(|(text, kind)| match *kind {
                CONTROL => Vec::new(),
                USER_DEFINED => text.clone().into_bytes(),
                _ => bytes_of(text),
            })
            .collect();
        let id = |key: &str| {
            gguf.int(key)
                .and_then(|id| u32::try_from(id).ok())
                .filter(|&id| (id as usize) < tokens.len())
        };
        let bos = id("tokenizer.ggml.bos_token_id");
        let ends = [
            "tokenizer.ggml.eos_token_id",
            "tokenizer.ggml.eot_token_id",
            "tokenizer.ggml.eom_token_id",
        ];
        let mut ends: Vec<u32> = ends.into_iter().filter_map(id).collect();
        // Files made by older converters name only one end; these texts end an answer in every family that has them.
        let by_text = ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>"];
        for (i, text) in tokens.iter().enumerate() {
            if kinds[i] == CONTROL && by_text.contains(&text.as_str()) {
                ends.push(i as u32);
            }
        }
        ends.sort_unstable();
        ends.dedup();
        let adds_bos = matches!(gguf.meta("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true)));
        Ok(Tokenizer { with_control, plain, pieces, bos, ends, adds_bos })
    }

    /// Ids of a text.  With `control`, control tokens written out in it become themselves; else they are text.
    pub fn encode(&self, text: &str, control: bool) -> Vec<u32> {
        let bpe = if control { &self.with_control } else { &self.plain };
        // Byte-level BPE knows every byte, so that encoding cannot fail on any text.
        bpe.encode_fast(text, false).map(|e| e.get_ids().to_vec()).unwrap_or_default()
    }

    /// Ids of a raw prompt, with the first token that the file asks for.
    pub fn encode_prompt(&self, text: &str, control: bool) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.filter(|_| self.adds_bos).into_iter().collect();
        ids.extend(self.encode(text, control));
        ids
    }

    /// Bytes of a token; empty for control tokens and ids that do not exist.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Text of ids; bytes that are no UTF-8 become the replacement character.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether the token ends an answer.
    pub fn ends(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The token that begins a text, if the vocabulary has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

fn bpe(
    tokens: &[String],
    merges: Vec<(String, String)>,
    pattern: &str,
    ignore_merges: bool,
) -> Result<Bpe, TokenizerError> {
    let bad = |key, e: tokenizers::Error| TokenizerError::Bad { key, what: e.to_string() };
    let vocab: Vocab = tokens.iter().enumerate().map(|(i, t)| (t.clone(), i as u32)).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|e| bad("tokenizer.ggml.merges", e))?;
    let split = Split::new(
        SplitPattern::Regex(pattern.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(|e| bad("tokenizer.ggml.pre", e))?;
    let mut bpe = Bpe::new(model);
    bpe.with_pre_tokenizer(Some(Sequence::new(vec![
        split.into(),
        ByteLevel::new(false, false, false).into(),
    ])));
    Ok(bpe)
}

/// GPT-2's table: printable bytes stand for themselves, the others for characters from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(code) {
        return Some(code as u8);
    }
    (0..256).filter(|&b| !printable(b)).nth(code.checked_sub(256)? as usize).map(|b| b as u8)
}

fn bytes_of(token: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(token.len());
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => out.extend(c.to_string().bytes()),
        }
    }
    out
}

/// Turns bytes that arrive in pieces into text without breaking a character.
#[derive(Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
}

impl Utf8Stream {
    /// The text that is complete once `bytes` have arrived.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend(bytes);
        let mut out = String::new();
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(text) => {
                    out.push_str(text);
                    self.held.clear();
                    return out;
                }
                Err(error) => {
                    let (whole, rest) = self.held.split_at(error.valid_up_to());
                    // Lossless: this part is valid.
                    out.push_str(&String::from_utf8_lossy(whole));
                    let Some(bad) = error.error_len() else {
                        self.held = rest.to_vec();
                        return out;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.held = rest[bad..].to_vec();
                }
            }
        }
    }

    /// What is left when no more bytes come.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let table: Vec<u8> = (0x21..0x144u32).filter_map(|c| byte_of(char::from_u32(c)?)).collect();
        let mut sorted = table.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((table.len(), sorted.len()), (256, 256));
        assert_eq!(bytes_of("Ġlaw"), b" law");
        assert_eq!(bytes_of("ĊĊ"), b"\n\n");
    }

    #[test]
    fn a_stream_gives_whole_characters() {
        #[track_caller]
        fn check(pieces: &[&[u8]], want: &[&str], rest: &str) {
            let mut stream = Utf8Stream::default();
            let got: Vec<String> = pieces.iter().map(|p| stream.push(p)).collect();
            assert_eq!(got, want);
            assert_eq!(stream.finish(), rest);
        }
        check(&[b"ab", b"c"], &["ab", "c"], "");
        let euro = "€".as_bytes();
        check(&[&euro[..1], &euro[1..2], &euro[2..]], &["", "", "€"], "");
        check(&[b"a\xff", b"b"], &["a\u{fffd}", "b"], "");
        // A character that never completes.
        check(&[b"a\xe2\x82"], &["a"], "\u{fffd}");
        check(&[b"\xe2\x82", b"x"], &["", "\u{fffd}x"], "");
    }
}
