//! The second stage: a sentence encoder that reads meaning where the lexical
//! stage reads words.
//!
//! In: a text.  Out: a score for each label ([`Encoder`]).  [`MiniLm`] is the one
//! there is: BERT's six small layers, fine-tuned by `router-model/encoder/`, from
//! the file that ships ([`MiniLm::shipped`], int8) or from a folder
//! ([`MiniLm::open`], F32).
//!
//! `wordpiece` makes tokens of the text.  A file is read by `file` and its layers are
//! run by `bert` on the engine's kernels; a folder is read by `folder` and run by
//! candle-transformers, which knows no blocks of eight bits.
//! The promise: no text and no file makes it panic, memory is bounded by 128
//! tokens whatever the text, and from a file the same text gives the same numbers,
//! however many threads compute them.
//!
//! Absent: training, batches, other architectures, and whether it is asked at
//! all, which is [`stages`](crate::Stage)'s.  To change how a text becomes
//! tokens, change `wordpiece.rs` and `model.py` together; the fixture of
//! `tests.rs` holds both.

mod bert;
mod error;
mod file;
mod folder;
mod mix;
#[cfg(feature = "encoder")]
mod shipped;
#[cfg(test)]
mod tests;
mod wordpiece;

use std::path::Path;

use engine::gguf::Gguf;

use bert::Bert;
pub use error::EncoderError;
use folder::Floats;
pub use mix::Mix;
use wordpiece::WordPiece;

/// Reads meaning where the lexical stage reads words; slower, so it is asked
/// only where that one is unsure ([`Mix::below`]).
pub trait Encoder: Send + Sync {
    /// Logits per trained label, in the order of the lexical weights'
    /// `header().labels`; never fails: a text it cannot read is all zeros.
    fn logits(&self, text: &str) -> Vec<f32>;

    /// What its logits count beside the lexical ones.
    fn mix(&self) -> Mix {
        Mix::default()
    }
}

impl std::fmt::Debug for dyn Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

/// The encoder that the configuration asks for.  "shipped" is none in a build without
/// the feature `encoder`, and beside weights of other labels: those of a domain that
/// corrections brought, say, which do without it.
pub(crate) fn configured(
    which: &config::Encoder,
    labels: &[String],
) -> Result<Option<Box<dyn Encoder>>, EncoderError> {
    Ok(match which {
        config::Encoder::Off => None,
        #[cfg(feature = "encoder")]
        config::Encoder::Shipped => match MiniLm::shipped(labels) {
            Err(EncoderError::Labels { .. }) => None,
            encoder => Some(Box::new(encoder?)),
        },
        #[cfg(not(feature = "encoder"))]
        config::Encoder::Shipped => None,
        config::Encoder::Path(path) => Some(Box::new(MiniLm::open(path, labels)?)),
    })
}

/// Tokens of a text that are read; more cost time and, in questions, tell little.
pub const MOST_TOKENS: usize = 128;

/// What a file or a folder holds.
struct Known {
    labels: Vec<String>,
    tokens: Vec<String>,
    net: Net,
    mix: Mix,
}

/// What makes logits of tokens.
enum Net {
    Blocks(Bert),
    Floats(Floats),
}

/// A BERT classifier, ready to read.
pub struct MiniLm {
    words: WordPiece,
    net: Net,
    mix: Mix,
    /// Where the score of each lexical label is among its own.
    order: Vec<usize>,
}

impl MiniLm {
    /// The encoder inside the binary, for these labels.
    ///
    /// # Errors
    ///
    /// [`EncoderError::Labels`] if it was trained on others.
    #[cfg(feature = "encoder")]
    pub fn shipped(labels: &[String]) -> Result<MiniLm, EncoderError> {
        let file = Gguf::embedded("(embedded encoder)", shipped::bytes())?;
        Ok(MiniLm::new(file::read(&file)?, labels)?.with_mix(shipped::mix()?))
    }

    /// A file as `export.py` writes it, or a folder as `train.py` does.
    ///
    /// # Errors
    ///
    /// [`EncoderError`] says what is missing, damaged, of another version, or of
    /// another shape.
    pub fn open(path: &Path, labels: &[String]) -> Result<MiniLm, EncoderError> {
        let known =
            if path.is_dir() { folder::read(path)? } else { file::read(&Gguf::open(path)?)? };
        MiniLm::new(known, labels)
    }

    /// The bytes of a file, as [`MiniLm::open`] reads it.
    ///
    /// # Errors
    ///
    /// As [`MiniLm::open`].
    pub fn read(bytes: Vec<u8>, labels: &[String]) -> Result<MiniLm, EncoderError> {
        MiniLm::new(file::read(&Gguf::from_bytes("encoder", bytes)?)?, labels)
    }

    fn new(known: Known, labels: &[String]) -> Result<MiniLm, EncoderError> {
        let place = |label: &String| known.labels.iter().position(|own| own == label);
        let order: Option<Vec<usize>> = labels.iter().map(place).collect();
        let same = known.labels.len() == labels.len();
        let order = order.filter(|_| same).ok_or_else(|| EncoderError::Labels {
            got: known.labels.join(", "),
            want: labels.join(", "),
        })?;
        let words = WordPiece::new(&known.tokens)?;
        Ok(MiniLm { words, net: known.net, mix: known.mix, order })
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

    /// Other [`Mix`] than the file's, for measuring.
    pub fn with_mix(mut self, mix: Mix) -> MiniLm {
        self.mix = mix;
        self
    }
}

impl Encoder for MiniLm {
    fn logits(&self, text: &str) -> Vec<f32> {
        let ids = self.ids(text);
        let own = match &self.net {
            Net::Blocks(bert) => bert.logits(&ids),
            Net::Floats(floats) => floats.logits(&ids),
        };
        self.order.iter().map(|at| own[*at]).collect()
    }

    fn mix(&self) -> Mix {
        self.mix
    }
}
