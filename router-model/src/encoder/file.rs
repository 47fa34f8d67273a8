//! The file that ships: a GGUF of architecture `bert` with the labels in its header.
//!
//! `router-model/encoder/export.py` writes it.  Keys of our own begin with
//! `collegium.encoder.`; tensors have llama.cpp's names, matrices are Q8_0, and
//! the rest F32.  The engine's reader checks the table; here shapes are checked
//! against each other, numbers for being numbers, and all data by a checksum.

use engine::ggml::Kind;
use engine::gguf::{Gguf, Tensor};
use engine::kernels::Matrix;

use super::bert::{Bert, Layer, Linear, Norm};
use super::{EncoderError, Known, Net};
use crate::classifier::Classifier;

/// Changes with the meaning of anything in the file.
const FORMAT: &str = "collegium.encoder/1";

/// More than any encoder that is of use here; a header may claim anything.
const MOST: u64 = 1 << 16;

/// A quantised block is a scale in F16 and 32 weights.
const BLOCK_BYTES: usize = 34;

pub(super) fn read(file: &Gguf) -> Result<Known, EncoderError> {
    let format = file.text("collegium.encoder.format").unwrap_or("of no version");
    if format != FORMAT {
        return Err(EncoderError::Version { got: format.to_owned(), want: FORMAT });
    }
    let got = checksum(file);
    let want = file.int("collegium.encoder.checksum").unwrap_or_default();
    if got != want {
        return Err(EncoderError::Checksum { got, want });
    }
    let labels = texts(file, "collegium.encoder.labels")?;
    let tokens = texts(file, "tokenizer.ggml.tokens")?;
    let reader = Reader { file, width: int(file, "bert.embedding_length")? };
    let net = Net::Blocks(reader.bert(tokens.len())?);
    let rows = reader.floats("cls.output.weight", labels.len() * reader.width)?;
    let weights = rows.chunks_exact(reader.width).map(<[f32]>::to_vec).collect();
    let biases = reader.floats("cls.output.bias", labels.len())?;
    let classifier = Some((labels, Classifier { weights, biases }));
    Ok(Known { tokens, net, classifier, fingerprint: got })
}

fn texts(file: &Gguf, field: &'static str) -> Result<Vec<String>, EncoderError> {
    let list = file.meta(field).and_then(|value| value.texts());
    let why = "a list of texts is wanted".to_owned();
    list.map(<[String]>::to_vec).ok_or(EncoderError::Field { field, why })
}

fn int(file: &Gguf, field: &'static str) -> Result<usize, EncoderError> {
    let bad = |why: String| EncoderError::Field { field, why };
    let got = file.int(field).ok_or_else(|| bad("a number is wanted".into()))?;
    if !(1..=MOST).contains(&got) {
        return Err(bad(format!("it is {got}; it must be from 1 to {MOST}")));
    }
    Ok(got as usize)
}

fn float(file: &Gguf, field: &'static str, from: f64, to: f64) -> Result<f32, EncoderError> {
    let bad = |why: String| EncoderError::Field { field, why };
    let got = file.float(field).ok_or_else(|| bad("a number is wanted".into()))?;
    if !(from..=to).contains(&got) {
        return Err(bad(format!("it is {got}; it must be from {from} to {to}")));
    }
    Ok(got as f32)
}

/// Over all tensors in the table's order.
pub(super) fn checksum(file: &Gguf) -> u64 {
    super::checksum(file.tensors().iter().map(|tensor| file.data(tensor)))
}

struct Reader<'a> {
    file: &'a Gguf,
    width: usize,
}

impl Reader<'_> {
    fn bert(&self, vocabulary: usize) -> Result<Bert, EncoderError> {
        let (file, width) = (self.file, self.width);
        let wide = int(file, "bert.feed_forward_length")?;
        let positions = int(file, "bert.context_length")?;
        let heads = int(file, "bert.attention.head_count")?;
        if !width.is_multiple_of(heads) {
            let why = format!("{heads} heads do not share a width of {width}");
            return Err(EncoderError::Field { field: "bert.attention.head_count", why });
        }
        if positions < 3 {
            let why = format!("{positions} places hold no text between two marks");
            return Err(EncoderError::Field { field: "bert.context_length", why });
        }
        let layer = |at: usize| -> Result<Layer, EncoderError> {
            let linear = |part: &str, rows, k| self.linear(&format!("blk.{at}.{part}"), rows, k);
            Ok(Layer {
                q: linear("attn_q", width, width)?,
                k: linear("attn_k", width, width)?,
                v: linear("attn_v", width, width)?,
                o: linear("attn_output", width, width)?,
                after_attention: self.norm(&format!("blk.{at}.attn_output_norm"))?,
                up: linear("ffn_up", wide, width)?,
                down: linear("ffn_down", width, wide)?,
                after_feed_forward: self.norm(&format!("blk.{at}.layer_output_norm"))?,
            })
        };
        Ok(Bert {
            words: self.matrix("token_embd.weight", vocabulary, width)?,
            places: self.floats("position_embd.weight", positions * width)?,
            norm: self.norm("token_embd_norm")?,
            layers: (0..int(file, "bert.block_count")?).map(layer).collect::<Result<_, _>>()?,
            heads,
            epsilon: float(file, "bert.attention.layer_norm_epsilon", 0.0, 1.0)?,
        })
    }

    fn linear(&self, name: &str, rows: usize, k: usize) -> Result<Linear, EncoderError> {
        Ok(Linear {
            w: self.matrix(&format!("{name}.weight"), rows, k)?,
            bias: self.floats(&format!("{name}.bias"), rows)?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, EncoderError> {
        Ok(Norm {
            weight: self.floats(&format!("{name}.weight"), self.width)?,
            bias: self.floats(&format!("{name}.bias"), self.width)?,
        })
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, EncoderError> {
        self.file.tensor(name).ok_or_else(|| EncoderError::Missing { name: name.to_owned() })
    }

    fn matrix(&self, name: &str, rows: usize, k: usize) -> Result<Matrix, EncoderError> {
        let bad = |why: String| EncoderError::Tensor { name: name.to_owned(), why };
        let tensor = self.tensor(name)?;
        if tensor.dims != [k as u64, rows as u64] {
            return Err(bad(format!("it is {:?}, the header makes it [{k}, {rows}]", tensor.dims)));
        }
        let data = self.file.data(tensor);
        let whole = match tensor.kind {
            Kind::F32 => data.chunks_exact(4).all(is_number),
            Kind::Q8_0 => data.chunks_exact(BLOCK_BYTES).all(|block| {
                // The exponent of an infinity or of what is not a number.
                u16::from_le_bytes([block[0], block[1]]) & 0x7C00 != 0x7C00
            }),
            other => return Err(bad(format!("it is in {other:?}; F32 and Q8_0 are read"))),
        };
        if !whole {
            return Err(bad("it holds what is not a number".into()));
        }
        let region = self.file.region(tensor).ok_or_else(|| bad("it is not in the file".into()))?;
        Matrix::new(region, tensor.kind, rows, k).map_err(|err| bad(err.to_string()))
    }

    fn floats(&self, name: &str, count: usize) -> Result<Vec<f32>, EncoderError> {
        let bad = |why: String| EncoderError::Tensor { name: name.to_owned(), why };
        let tensor = self.tensor(name)?;
        let data = self.file.data(tensor);
        if tensor.kind != Kind::F32 || data.len() != count * 4 {
            let got = format!("{} bytes in {:?}", data.len(), tensor.kind);
            return Err(bad(format!("{got}; the header makes it {count} numbers in F32")));
        }
        if !data.chunks_exact(4).all(is_number) {
            return Err(bad("it holds what is not a number".into()));
        }
        Ok(data.chunks_exact(4).map(number).collect())
    }
}

fn number(bytes: &[u8]) -> f32 {
    bytes.try_into().map_or(f32::NAN, f32::from_le_bytes)
}

fn is_number(bytes: &[u8]) -> bool {
    number(bytes).is_finite()
}
