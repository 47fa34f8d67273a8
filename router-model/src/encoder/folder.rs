//! An encoder in a folder, in floats: `model.safetensors` with the published names
//! of BERT's tensors, `vocab.txt`, and `config.json` for heads and layers; with
//! `labels.json` also a `classifier` on the mean of its tokens.
//!
//! It is what `router-model/encoder/train.py` writes, and what hubs have of others.
//! candle-transformers computes it, in F32 whatever the file has.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, HiddenAct};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{EncoderError, Known, Net};
use crate::classifier::Classifier;

/// What of `config.json` the tensors do not say.
#[derive(Deserialize)]
struct Said {
    num_attention_heads: usize,
    num_hidden_layers: usize,
    layer_norm_eps: f64,
    hidden_act: Option<HiddenAct>,
}

/// A model whose tensors fit each other.
pub(super) struct Floats {
    bert: BertModel,
    pub(super) positions: usize,
    width: usize,
}

impl Floats {
    /// The mean of all tokens, `[width]`; ids are below the vocabulary's size and at most
    /// `positions`.  Zeros where candle cannot compute them.
    pub(super) fn mean(&self, ids: &[u32]) -> Vec<f32> {
        let of = || -> candle_core::Result<Vec<f32>> {
            let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
            let tokens = self.bert.forward(&ids, &ids.zeros_like()?, None)?;
            tokens.mean(1)?.squeeze(0)?.to_vec1()
        };
        of().unwrap_or_else(|_| vec![0.0; self.width])
    }
}

pub(super) fn read(folder: &Path) -> Result<Known, EncoderError> {
    let path = folder.join("model.safetensors");
    let bytes =
        fs::read(&path).map_err(|source| EncoderError::Read { path: path.clone(), source })?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
        .map_err(|err| EncoderError::Safetensors { path: path.clone(), why: err.to_string() })?;
    let fingerprint = super::checksum(std::iter::once(&bytes[..]));
    drop(bytes);
    let said: Said = json(&folder.join("config.json"))?;
    let vocabulary = text(&folder.join("vocab.txt"))?;
    let tokens: Vec<String> = vocabulary.lines().map(str::to_owned).collect();
    let labels = folder.join("labels.json");
    let classifier = match labels.exists() {
        true => Some(classifier(&tensors, json(&labels)?)?),
        false => None,
    };
    let net = Net::Floats(floats(tensors, &said, tokens.len())?);
    Ok(Known { tokens, net, classifier, fingerprint })
}

/// The one of the file, and its labels.
fn classifier(
    tensors: &HashMap<String, Tensor>,
    labels: Vec<String>,
) -> Result<(Vec<String>, Classifier), EncoderError> {
    let bad = |name: &str, why: String| EncoderError::Tensor { name: name.to_owned(), why };
    let tensor = |name: &str| {
        let found =
            tensors.get(name).ok_or_else(|| EncoderError::Missing { name: name.to_owned() })?;
        found.to_dtype(DType::F32).map_err(|err| bad(name, err.to_string()))
    };
    let (weights, biases) = (tensor("classifier.weight")?, tensor("classifier.bias")?);
    let weights: Vec<Vec<f32>> =
        weights.to_vec2().map_err(|err| bad("classifier.weight", err.to_string()))?;
    let biases: Vec<f32> =
        biases.to_vec1().map_err(|err| bad("classifier.bias", err.to_string()))?;
    let classifier = Classifier { weights, biases };
    if !classifier.is_sound(labels.len()) {
        let why = format!("labels.json has {} labels, which it does not score", labels.len());
        return Err(bad("classifier.weight", why));
    }
    Ok((labels, classifier))
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

/// Checks what candle does not: sizes against each other, and that numbers are some.
fn floats(
    tensors: HashMap<String, Tensor>,
    said: &Said,
    words: usize,
) -> Result<Floats, EncoderError> {
    let bad = |field, why: String| EncoderError::Field { field, why };
    let shape = |name: &str| -> Result<[usize; 2], EncoderError> {
        let found = tensors.get(name).or_else(|| tensors.get(&format!("bert.{name}")));
        let tensor = found.ok_or_else(|| EncoderError::Missing { name: name.to_owned() })?;
        let (rows, columns) = tensor.dims2().map_err(|err| EncoderError::Tensor {
            name: name.to_owned(),
            why: format!("rows of numbers are wanted: {err}"),
        })?;
        Ok([rows, columns])
    };
    let [vocab_size, width] = shape("embeddings.word_embeddings.weight")?;
    if vocab_size != words {
        return Err(bad("vocab.txt", format!("{words} tokens, {vocab_size} embeddings")));
    }
    let heads = said.num_attention_heads;
    if width == 0 || heads == 0 || !width.is_multiple_of(heads) {
        let why = format!("{heads} heads do not share a width of {width}");
        return Err(bad("num_attention_heads", why));
    }
    if said.num_hidden_layers > 1_000 || !(0.0..1.0).contains(&said.layer_norm_eps) {
        return Err(bad("config.json", "layers or layer_norm_eps are no BERT's".into()));
    }
    let [kinds, _] = shape("embeddings.token_type_embeddings.weight")?;
    let [positions, _] = shape("embeddings.position_embeddings.weight")?;
    if positions < 3 || kinds == 0 {
        return Err(bad("config.json", format!("{positions} positions, {kinds} kinds")));
    }
    let [wide, _] = shape("encoder.layer.0.intermediate.dense.weight")?;
    for (name, tensor) in &tensors {
        let sum = tensor.to_dtype(DType::F32).and_then(|t| t.sum_all()?.to_scalar::<f32>());
        if !sum.is_ok_and(f32::is_finite) {
            let why = "it holds what is not a number".to_owned();
            return Err(EncoderError::Tensor { name: name.clone(), why });
        }
    }
    let config = Config {
        vocab_size,
        hidden_size: width,
        num_hidden_layers: said.num_hidden_layers,
        num_attention_heads: heads,
        intermediate_size: wide,
        hidden_act: said.hidden_act.unwrap_or(HiddenAct::Gelu),
        max_position_embeddings: positions,
        type_vocab_size: kinds,
        layer_norm_eps: said.layer_norm_eps,
        model_type: Some("bert".into()),
        ..Config::default()
    };
    let from = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    // candle's message names the tensor.
    let tensor = |name: &str, err: candle_core::Error| EncoderError::Tensor {
        name: name.to_owned(),
        why: err.to_string(),
    };
    let bert = BertModel::load(from, &config).map_err(|err| tensor("BERT", err))?;
    Ok(Floats { bert, positions, width })
}
