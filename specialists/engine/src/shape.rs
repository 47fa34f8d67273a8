//! The sizes of a parent that masks, profiles and budgets depend on.

use crate::gguf::{Array, Gguf, Value};
use crate::keys::{Keys, ShapeError};
use crate::names;

/// The sizes of a parent, in counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub architecture: String,
    pub name: String,
    /// Layers that run; blocks that predict further tokens are not counted.
    pub layers: usize,
    pub dim: usize,
    /// Routed experts in a layer that has them; 0 in a dense model.  In a file that was cut to a count for each layer
    /// the largest of them.
    pub experts: usize,
    /// Experts the router picks for a token.
    pub top_k: usize,
    /// [layers], which have routed experts.
    pub routed: Vec<bool>,
    /// [layers], how many.
    counts: Vec<usize>,
    pub vocab: usize,
    /// Tokens the model was made for.
    pub context: usize,
}

impl Shape {
    /// Reads the sizes of a file, checked against each other; whether its architecture is known is not asked here (see
    /// [`arch::find`](crate::arch::find)).
    ///
    /// # Errors
    ///
    /// [`ShapeError`] naming the key.
    pub fn read(gguf: &Gguf) -> Result<Shape, ShapeError> {
        let arch = gguf.text(names::ARCHITECTURE).unwrap_or("");
        let keys = Keys::new(gguf, arch);
        let vocab = gguf.meta(names::VOCABULARY).and_then(|v| v.texts()).map_or(0, <[String]>::len);
        if vocab == 0 {
            return Err(ShapeError::Missing { key: names::VOCABULARY.to_owned() });
        }
        let (blocks, ahead) = (keys.count("block_count")?, keys.any_count("nextn_predict_layers")?);
        if ahead >= blocks {
            let want = "it must be below block_count";
            return Err(keys.wrong("nextn_predict_layers", ahead, want));
        }
        let layers = blocks - ahead;
        let has_router = |layer: usize| gguf.tensor(&names::block(layer, names::ROUTER)).is_some();
        let routed: Vec<bool> = (0..layers).map(has_router).collect();
        let (experts, top_k) = match routed.contains(&true) {
            true => (keys.count("expert_count")?, keys.count("expert_used_count")?),
            false => (0, 0),
        };
        if top_k > experts {
            let want = "it must not exceed expert_count";
            return Err(keys.wrong("expert_used_count", top_k, want));
        }
        let count = |layer: usize| match routed[layer] {
            true => count_of_layer(gguf, layer, experts, top_k),
            false => Ok(0),
        };
        let counts = (0..layers).map(count).collect::<Result<_, _>>()?;
        Ok(Shape {
            architecture: arch.to_owned(),
            name: gguf.text("general.name").unwrap_or(arch).to_owned(),
            layers,
            dim: keys.count("embedding_length")?,
            experts,
            top_k,
            routed,
            counts,
            vocab,
            context: keys.count("context_length")?,
        })
    }

    /// A shape of which masks and profiles are made, without a file: every layer has routed experts.
    pub fn of_experts(layers: usize, experts: usize, top_k: usize) -> Shape {
        Shape {
            architecture: "qwen3moe".to_owned(),
            name: String::new(),
            layers,
            dim: 1,
            experts,
            top_k,
            routed: vec![true; layers],
            counts: vec![experts; layers],
            vocab: 1,
            context: 1,
        }
    }

    /// Routed experts of one layer.
    pub fn experts_in(&self, layer: usize) -> usize {
        self.counts[layer]
    }
}

/// Experts of a layer that has some: all, unless the file was cut and says which of its parent's are left there.
fn count_of_layer(
    gguf: &Gguf,
    layer: usize,
    experts: usize,
    top_k: usize,
) -> Result<usize, ShapeError> {
    let key = format!("{}{layer}", names::KEPT);
    match gguf.meta(&key) {
        Some(Value::Array(Array::U32(kept))) if (top_k..=experts).contains(&kept.len()) => {
            Ok(kept.len())
        }
        Some(Value::Array(Array::U32(kept))) => {
            let want = "a list of experts is as long as expert_used_count at least, and expert_count at most";
            Err(ShapeError::Value { key, value: kept.len() as u64, want })
        }
        // What the key says is for surgery to judge.
        _ => Ok(experts),
    }
}
