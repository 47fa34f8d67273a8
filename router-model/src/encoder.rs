//! The second stage: a sentence encoder that reads meaning where the lexical
//! stage reads words.
//!
//! In: a text.  Out: its mean over tokens ([`Encoder`]), which a
//! [`Classifier`](crate::Classifier) scores.  [`MiniLm`] is the one there is: BERT's
//! six small layers, fine-tuned by `router-model/encoder/`, from the file that ships
//! ([`MiniLm::shipped`], int8) or from a folder ([`MiniLm::open`], F32), which may also
//! be a hub's (`hub`) and of any BERT.
//!
//! `wordpiece` makes tokens of the text.  A file is read by `file` and its layers are
//! run by `bert` on the engine's kernels; a folder is read by `folder` and run by
//! candle-transformers, which knows no blocks of eight bits.
//! The promise: no text and no file makes it panic, memory is bounded by 128
//! tokens whatever the text, and from a file the same text gives the same numbers,
//! however many threads compute them.
//!
//! Absent: training, batches, other architectures, and whether it is asked at
//! all and what it counts, which is [`Mix`](crate::Mix)'s.  To change how a text becomes
//! tokens, change `wordpiece.rs` and `model.py` together; the fixture of
//! `tests.rs` holds both.

mod bert;
mod error;
mod file;
mod folder;
mod hub;
#[cfg(feature = "encoder")]
mod shipped;
#[cfg(test)]
mod tests;
mod wordpiece;

use std::path::Path;

use engine::gguf::Gguf;

use crate::classifier::Classifier;
use bert::Bert;
pub use error::EncoderError;
use folder::Floats;
use wordpiece::WordPiece;

/// Reads meaning where the lexical stage reads words; slower, so it is asked
/// only where that one is unsure ([`Mix::below`](crate::Mix)).
pub trait Encoder: Send + Sync {
    /// The mean of the text's tokens after the last layer, `[width]`; never fails: a
    /// text it cannot read is all zeros.
    fn embed(&self, text: &str) -> Vec<f32>;

    /// Its own classifier for these labels, in their order; none where it does not
    /// know all of them.
    fn classifier(&self, labels: &[String]) -> Option<Classifier>;

    /// The labels that its own classifier knows.
    fn labels(&self) -> &[String];

    /// A checksum of its numbers: what was trained for another is not for this one.
    fn fingerprint(&self) -> u64;
}

impl std::fmt::Debug for dyn Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

/// The encoder that the configuration asks for; "shipped" is none in a build without
/// the feature `encoder`.
pub(crate) fn open(which: &config::Encoder) -> Result<Option<Box<dyn Encoder>>, EncoderError> {
    Ok(match which {
        config::Encoder::Off => None,
        #[cfg(feature = "encoder")]
        config::Encoder::Shipped => Some(Box::new(MiniLm::shipped()?)),
        #[cfg(not(feature = "encoder"))]
        config::Encoder::Shipped => None,
        config::Encoder::Path(path) => Some(Box::new(MiniLm::open(path)?)),
    })
}

/// Tokens of a text that are read; more cost time and, in questions, tell little.
pub const MOST_TOKENS: usize = 128;

/// What a file or a folder holds.
struct Known {
    tokens: Vec<String>,
    net: Net,
    /// Its own classifier, and the labels of its rows.
    classifier: Option<(Vec<String>, Classifier)>,
    fingerprint: u64,
}

/// What makes means of tokens.
enum Net {
    Blocks(Bert),
    Floats(Floats),
}

/// A BERT, ready to read.
pub struct MiniLm {
    words: WordPiece,
    net: Net,
    classifier: Option<(Vec<String>, Classifier)>,
    fingerprint: u64,
}

impl MiniLm {
    /// The encoder inside the binary.
    ///
    /// # Errors
    ///
    /// As [`MiniLm::open`].
    #[cfg(feature = "encoder")]
    pub fn shipped() -> Result<MiniLm, EncoderError> {
        let file = Gguf::embedded("(embedded encoder)", shipped::bytes())?;
        MiniLm::new(file::read(&file)?)
    }

    /// A file as `export.py` writes it, a folder as `train.py` does or a hub has, or
    /// the `owner/name` of a hub's model that was downloaded to this machine.
    ///
    /// # Errors
    ///
    /// [`EncoderError`] says what is missing, damaged, of another version, or of
    /// another shape.
    pub fn open(path: &Path) -> Result<MiniLm, EncoderError> {
        let found = if path.exists() { Some(path.to_owned()) } else { hub::find(path) };
        let path = &found.ok_or_else(|| EncoderError::Absent { path: path.to_owned() })?;
        MiniLm::new(if path.is_dir() {
            folder::read(path)?
        } else {
            file::read(&Gguf::open(path)?)?
        })
    }

    /// The bytes of a file, as [`MiniLm::open`] reads it.
    ///
    /// # Errors
    ///
    /// As [`MiniLm::open`].
    pub fn read(bytes: Vec<u8>) -> Result<MiniLm, EncoderError> {
        MiniLm::new(file::read(&Gguf::from_bytes("encoder", bytes)?)?)
    }

    fn new(known: Known) -> Result<MiniLm, EncoderError> {
        let words = WordPiece::new(&known.tokens)?;
        let Known { net, classifier, fingerprint, .. } = known;
        Ok(MiniLm { words, net, classifier, fingerprint })
    }

    /// The tokens of a text, as they are read: how long it will take.
    pub fn tokens(&self, text: &str) -> usize {
        self.ids(text).len()
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        let positions = match &self.net {
            Net::Blocks(bert) => bert.positions(),
            Net::Floats(floats) => floats.positions,
        };
        self.words.encode(text, MOST_TOKENS.min(positions))
    }
}

impl Encoder for MiniLm {
    fn embed(&self, text: &str) -> Vec<f32> {
        let ids = self.ids(text);
        match &self.net {
            Net::Blocks(bert) => bert.mean(&ids),
            Net::Floats(floats) => floats.mean(&ids),
        }
    }

    fn classifier(&self, labels: &[String]) -> Option<Classifier> {
        let (own, all) = self.classifier.as_ref()?;
        let place = |label: &String| own.iter().position(|name| name == label);
        let rows: Vec<usize> = labels.iter().map(place).collect::<Option<_>>()?;
        let weights = rows.iter().map(|row| all.weights[*row].clone()).collect();
        let biases = rows.iter().map(|row| all.biases[*row]).collect();
        Some(Classifier { weights, biases })
    }

    fn labels(&self) -> &[String] {
        self.classifier.as_ref().map_or(&[], |(labels, _)| labels)
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// FNV-1a, eight bytes at a step.
fn checksum<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    let step = |sum: u64, word: &[u8]| {
        let mut bytes = [0u8; 8];
        bytes[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_le_bytes(bytes)).wrapping_mul(0x0000_0100_0000_01B3)
    };
    parts.fold(0xCBF2_9CE4_8422_2325, |sum, part| part.chunks(8).fold(sum, step))
}
