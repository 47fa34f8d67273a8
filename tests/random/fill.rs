//! What fills the tensors of a random parent: bytes made as they are written, no tensor in memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use engine::ggml::Kind;
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Array, Value};
use half::f16;

/// What a tensor is filled with.
#[derive(Clone)]
pub(super) enum Fill {
    /// Around zero, so that what comes out is as large as what goes in, times this; in the tensor's number format.
    Matrix(f32),
    /// Evenly between two bounds, F32.
    Between(f32, f32),
    /// These numbers, F32.
    Given(Vec<f32>),
}

/// About one.
pub(super) const NORM: Fill = Fill::Between(0.7, 1.3);

/// Tensors in file order.
#[derive(Default)]
pub(super) struct Tensors(Vec<(Entry, Fill)>);

impl Tensors {
    pub fn add(&mut self, name: &str, kind: Kind, dims: &[u64], fill: Fill) {
        self.0.push((Entry { name: name.to_owned(), dims: dims.to_vec(), kind }, fill));
    }

    /// Writes the file; its size in bytes.
    pub fn write(&self, path: &Path, keys: &[(String, Value)], seed: u64) -> io::Result<u64> {
        let entries: Vec<Entry> = self.0.iter().map(|(entry, _)| entry.clone()).collect();
        let layout = Layout::plan(keys, &entries).map_err(io::Error::other)?;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut random = fastrand::Rng::with_seed(seed);
        layout
            .write(&mut out, |at, sink| {
                let (entry, fill) = &self.0[at];
                let numbers: u64 = entry.dims.iter().product();
                match fill {
                    Fill::Matrix(gain) => {
                        let deviation = gain / (entry.dims[0] as f32).sqrt();
                        matrix(entry.kind, deviation, numbers, &mut random, sink)
                    }
                    Fill::Between(low, high) => (0..numbers)
                        .try_for_each(|_| sink(&(low + (high - low) * random.f32()).to_le_bytes())),
                    Fill::Given(given) => given.iter().try_for_each(|v| sink(&v.to_le_bytes())),
                }
            })
            .map_err(io::Error::other)?;
        out.flush()?;
        Ok(layout.bytes())
    }
}

/// Numbers of a deviation, all quants alike: random bits, and scales that make them so large.
///
/// Of quants that are spread evenly over n values the deviation is sqrt((n² - 1) / 12).
fn matrix(
    kind: Kind,
    deviation: f32,
    numbers: u64,
    random: &mut fastrand::Rng,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = vec![0u8; kind.block_bytes() as usize];
    // The scales of a super-block's small blocks, all the same.
    const SMALL: u8 = 32;
    let half = |value: f32| f16::from_f32(value).to_le_bytes();
    for _ in 0..numbers / kind.block_weights() {
        random.fill(&mut block);
        match kind {
            Kind::F32 => {
                let value = deviation * 3f32.sqrt() * (2.0 * random.f32() - 1.0);
                block.copy_from_slice(&value.to_le_bytes());
            }
            Kind::Q8_0 => block[..2].copy_from_slice(&half(deviation / 73.9)),
            Kind::Q4_K => {
                let scale = deviation / (f32::from(SMALL) * 4.61);
                block[..2].copy_from_slice(&half(scale));
                // Minima move the middle of 0..=15 to zero.
                block[2..4].copy_from_slice(&half(scale * 7.5));
                // Six bits each of eight scales and minima: four low bits of the last four of both are in the last
                // bytes, two high ones on top of the first.
                block[4..12].fill(SMALL | SMALL >> 4 << 6);
                block[12..16].fill(0);
            }
            Kind::Q6_K => {
                block[192..208].fill(SMALL);
                block[208..].copy_from_slice(&half(deviation / (f32::from(SMALL) * 18.47)));
            }
            other => return Err(io::Error::other(format!("no random blocks of {other:?}"))),
        }
        sink(&block)?;
    }
    Ok(())
}

/// A list of the vocabulary with the entries that `vocab` of them lack; any other key as it is.
pub(super) fn filled(key: &str, value: &Value, vocab: usize) -> Value {
    match (key, value) {
        ("tokenizer.ggml.tokens", Value::Array(Array::Text(texts))) => {
            let more = (texts.len()..vocab).map(|id| format!("<unused {id}>"));
            Value::Array(Array::Text(texts.iter().cloned().chain(more).collect()))
        }
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds))) => {
            // llama.cpp's number for a token that is not used.
            let more = (kinds.len()..vocab).map(|_| 5);
            Value::Array(Array::I32(kinds.iter().copied().chain(more).collect()))
        }
        (_, other) => other.clone(),
    }
}
