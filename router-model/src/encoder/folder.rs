//! An encoder in a folder, in F32: `model.safetensors` with the published names
//! of BERT's tensors and a `classifier`, `vocab.txt`, `config.json` for the
//! number of heads, and `labels.json`; `mix.json` may say what it counts.
//!
//! It is what `router-model/encoder/train.py` writes; a model of another maker
//! runs once it has a classifier on the mean of its tokens and these labels.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use engine::ggml::Kind;
use engine::kernels::Matrix;
use engine::mapping::{Mapping, Region};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::bert::{Bert, Layer, Linear, Norm};
use super::mix::Mix;
use super::{EncoderError, Known, MOST_TOKENS};

#[derive(Deserialize)]
struct Config {
    num_attention_heads: usize,
    num_hidden_layers: usize,
    layer_norm_eps: f32,
}

pub(super) fn read(folder: &Path) -> Result<Known, EncoderError> {
    let path = folder.join("model.safetensors");
    let fail = |source| EncoderError::Read { path: path.clone(), source };
    let mapping = Arc::new(Mapping::open(&path).map_err(fail)?);
    let tensors = SafeTensors::deserialize(mapping.bytes())
        .map_err(|err| EncoderError::Safetensors { path: path.clone(), why: err.to_string() })?;
    let config: Config = json(&folder.join("config.json"))?;
    let labels: Vec<String> = json(&folder.join("labels.json"))?;
    let mix = match folder.join("mix.json") {
        path if path.exists() => json(&path)?,
        _ => Mix::default(),
    };
    let vocabulary = text(&folder.join("vocab.txt"))?;
    let tokens: Vec<String> = vocabulary.lines().map(str::to_owned).collect();
    let reader = Reader { tensors, mapping: &mapping };
    let bert = reader.bert(&config, tokens.len(), labels.len())?;
    Ok(Known { labels, tokens, bert, mix })
}

fn text(path: &Path) -> Result<String, EncoderError> {
    fs::read_to_string(path).map_err(|source| EncoderError::Read { path: path.to_owned(), source })
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T, EncoderError> {
    serde_json::from_str(&text(path)?).map_err(|err| EncoderError::Read {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, err),
    })
}

struct Reader<'a> {
    tensors: SafeTensors<'a>,
    mapping: &'a Arc<Mapping>,
}

impl Reader<'_> {
    fn bert(&self, config: &Config, words: usize, labels: usize) -> Result<Bert, EncoderError> {
        let bad = |field, why: String| EncoderError::Field { field, why };
        let embeddings = "embeddings.word_embeddings.weight";
        let [rows, width] = self.shape(embeddings)?;
        if rows != words {
            return Err(bad("vocab.txt", format!("{words} tokens, {rows} embeddings")));
        }
        let heads = config.num_attention_heads;
        if width == 0 || heads == 0 || !width.is_multiple_of(heads) {
            let why = format!("{heads} heads do not share a width of {width}");
            return Err(bad("num_attention_heads", why));
        }
        if config.num_hidden_layers > 1_000 || !(0.0..1.0).contains(&config.layer_norm_eps) {
            return Err(bad("config.json", "layers or layer_norm_eps are no BERT's".into()));
        }
        let [kinds, _] = self.shape("embeddings.token_type_embeddings.weight")?;
        let kind =
            self.floats("embeddings.token_type_embeddings.weight", kinds.saturating_mul(width))?;
        let [positions, _] = self.shape("embeddings.position_embeddings.weight")?;
        let mut places =
            self.floats("embeddings.position_embeddings.weight", positions.saturating_mul(width))?;
        places.truncate(MOST_TOKENS * width);
        if positions < 3 || kinds == 0 {
            return Err(bad("config.json", format!("{positions} positions, {kinds} kinds")));
        }
        for row in places.chunks_exact_mut(width) {
            row.iter_mut().zip(&kind).for_each(|(x, y)| *x += y);
        }
        let [wide, _] = self.shape("encoder.layer.0.intermediate.dense.weight")?;
        let layer = |at: usize| -> Result<Layer, EncoderError> {
            let name = |part: &str| format!("encoder.layer.{at}.{part}");
            let linear = |part: &str, rows, k| self.linear(&name(part), rows, k);
            Ok(Layer {
                q: linear("attention.self.query", width, width)?,
                k: linear("attention.self.key", width, width)?,
                v: linear("attention.self.value", width, width)?,
                o: linear("attention.output.dense", width, width)?,
                after_attention: self.norm(&name("attention.output.LayerNorm"), width)?,
                up: linear("intermediate.dense", wide, width)?,
                down: linear("output.dense", width, wide)?,
                after_feed_forward: self.norm(&name("output.LayerNorm"), width)?,
            })
        };
        Ok(Bert {
            words: self.matrix(embeddings, rows, width)?,
            places,
            norm: self.norm("embeddings.LayerNorm", width)?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
            head: self.linear("classifier", labels, width)?,
            heads,
            epsilon: config.layer_norm_eps,
        })
    }

    fn linear(&self, name: &str, rows: usize, k: usize) -> Result<Linear, EncoderError> {
        Ok(Linear {
            w: self.matrix(&format!("{name}.weight"), rows, k)?,
            bias: self.floats(&format!("{name}.bias"), rows)?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, EncoderError> {
        Ok(Norm {
            weight: self.floats(&format!("{name}.weight"), width)?,
            bias: self.floats(&format!("{name}.bias"), width)?,
        })
    }

    /// The tensor's shape and bytes, under its name or that with `bert.` before.
    fn tensor(&self, name: &str) -> Result<(Vec<usize>, &[u8]), EncoderError> {
        let found = self.tensors.tensor(name);
        let found = found.or_else(|_| self.tensors.tensor(&format!("bert.{name}")));
        let view = found.map_err(|_| EncoderError::Missing { name: name.to_owned() })?;
        if view.dtype() != Dtype::F32 {
            let why = format!("it is in {:?}; F32 is read", view.dtype());
            return Err(EncoderError::Tensor { name: name.to_owned(), why });
        }
        Ok((view.shape().to_vec(), view.data()))
    }

    fn shape(&self, name: &str) -> Result<[usize; 2], EncoderError> {
        let (shape, _) = self.tensor(name)?;
        shape.as_slice().try_into().map_err(|_| EncoderError::Tensor {
            name: name.to_owned(),
            why: format!("it is {shape:?}; rows of numbers are wanted"),
        })
    }

    fn floats(&self, name: &str, count: usize) -> Result<Vec<f32>, EncoderError> {
        let (shape, data) = self.tensor(name)?;
        let bad = |why: String| EncoderError::Tensor { name: name.to_owned(), why };
        if data.len() != count.saturating_mul(4) {
            return Err(bad(format!("it is {shape:?}, the others make it {count} numbers")));
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
        let all: Vec<f32> = data.chunks_exact(4).map(number).collect();
        match all.iter().all(|v| v.is_finite()) {
            true => Ok(all),
            false => Err(bad("it holds what is not a number".into())),
        }
    }

    fn matrix(&self, name: &str, rows: usize, k: usize) -> Result<Matrix, EncoderError> {
        self.floats(name, rows.saturating_mul(k))?;
        let bad = |why: String| EncoderError::Tensor { name: name.to_owned(), why };
        let (shape, data) = self.tensor(name)?;
        if shape != [rows, k] {
            return Err(bad(format!("it is {shape:?}, the others make it [{rows}, {k}]")));
        }
        let start = data.as_ptr() as usize - self.mapping.bytes().as_ptr() as usize;
        let region = Region::new(self.mapping, start as u64, data.len() as u64);
        let region = region.filter(|region| region.floats().is_some());
        let region = region.ok_or_else(|| bad("its numbers are not aligned in the file".into()))?;
        Matrix::new(region, Kind::F32, rows, k).map_err(|err| bad(err.to_string()))
    }
}
