//! A parent in memory: the backbone's tensors in place, the layers with their experts, tokenizer and chat template.
//!
//! Immutable and shared; whatever changes while it runs (keys and values, residency, counts) is elsewhere.

use std::collections::HashSet;
use std::sync::Arc;

use config::Sampling;

use crate::arch::{self, Arch, Source};
use crate::gguf::Gguf;
use crate::graph::Layer;
use crate::kernels::Matrix;
use crate::keys::Keys;
use crate::kv::{Kept, Layout, Precision};
use crate::load::{Loader, ModelError};
use crate::names::{self, block_of};
use crate::parts::{Expert, Norm};
use crate::rope::Rope;
use crate::shape::Shape;
use crate::template::{ChatTemplate, TemplateError, TemplateMessage, Thinking};
use crate::tokenizer::Tokenizer;

/// A loaded parent (or a file cut from one).
pub struct Model {
    gguf: Gguf,
    arch: &'static Arch,
    shape: Shape,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    sampling: Sampling,
    kept: Vec<Kept>,
    pub(crate) embedding: Matrix,
    pub(crate) embedding_scale: f32,
    pub(crate) output_norm: Norm,
    pub(crate) output: Matrix,
    pub(crate) softcap: Option<f32>,
    pub(crate) layers: Vec<Box<dyn Layer>>,
    pub(crate) ropes: Vec<Rope>,
}

impl Model {
    /// Checks a file whole and makes it ready; no weight is copied.
    ///
    /// # Errors
    ///
    /// [`ModelError`] naming the file, and the tensor or key.
    pub fn load(gguf: Gguf) -> Result<Arc<Model>, ModelError> {
        let path = gguf.path().display().to_string();
        let load = Loader::new(&gguf);
        let arch = arch::find(&gguf).map_err(|error| load.shape_error(error))?;
        let shape = Shape::read(&gguf).map_err(|error| load.shape_error(error))?;
        let tokenizer = Tokenizer::read(&gguf)
            .map_err(|error| ModelError::Tokenizer { path: path.clone(), error })?;
        let template = ChatTemplate::read(&gguf)
            .map_err(|error| ModelError::Template { path: path.clone(), error })?;
        let keys = Keys::new(&gguf, arch.name);
        let eps = keys.norm_eps().map_err(|error| load.shape_error(error))?;
        let graph = arch.graph(&Source { load: &load, keys, shape: &shape })?;
        let embedding = load.matrix(names::EMBEDDING, shape.vocab, shape.dim)?;
        let output = match load.has(names::OUTPUT) {
            true => load.matrix(names::OUTPUT, shape.vocab, shape.dim)?,
            // Tied: the embedding is the output too.
            false => embedding.clone(),
        };
        let output_norm = Norm { weight: load.vector(names::OUTPUT_NORM, &[shape.dim])?, eps };
        // Blocks that predict further tokens are kept in the file and not run.
        let beyond = |name: &str| block_of(name).is_some_and(|(b, _)| b >= shape.layers);
        load.finish(arch.name, beyond)?;
        drop(load);
        Ok(Arc::new(Model {
            arch,
            tokenizer,
            template,
            sampling: suggested(|key| gguf.float(key)),
            kept: graph.kept,
            embedding,
            embedding_scale: graph.embedding_scale,
            output_norm,
            output,
            softcap: graph.softcap,
            layers: graph.layers,
            ropes: graph.ropes,
            shape,
            gguf,
        }))
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// What each layer keeps of a sequence.
    #[cfg(feature = "cuda")]
    pub(crate) fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// What its layers keep of a sequence, with this precision.
    pub fn layout(&self, precision: Precision) -> Layout {
        Layout::new(self.kept.clone(), precision)
    }

    /// Lowercase hex SHA-256 of the file; see [`Gguf::sha256`] for what it costs.
    pub fn parent(&self) -> String {
        self.gguf.sha256()
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What to sample with when nobody says, as the file suggests (`general.sampling.*`).
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The text of a conversation by the file's chat template.
    ///
    /// # Errors
    ///
    /// [`TemplateError`] when the template refuses the messages.
    pub fn render(
        &self,
        messages: &[TemplateMessage],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        self.template.render(messages, add_generation_prompt)
    }

    /// The same, ready for the assistant to go on, who is told whether to think aloud first.
    ///
    /// # Errors
    ///
    /// As [`Model::render`].
    pub fn render_open(
        &self,
        messages: &[TemplateMessage],
        thinking: Thinking,
    ) -> Result<String, TemplateError> {
        self.template.render_open(messages, thinking)
    }

    /// Routed experts of a layer; none if it is dense.
    pub(crate) fn experts(&self, layer: usize) -> &[Expert] {
        self.layers[layer].experts()
    }

    /// Every tensor that is not routed experts.
    pub(crate) fn backbone(&self) -> impl Iterator<Item = &[u8]> {
        let first = self.layers.iter().filter_map(|l| l.experts().first());
        let stacks: HashSet<*const u8> =
            first.flat_map(|e| &e.slices).map(|s| s.bytes().as_ptr()).collect();
        let all = self.gguf.tensors().iter().map(|t| self.gguf.data(t));
        all.filter(move |data| !stacks.contains(&data.as_ptr()))
    }

    /// Bytes of all tensors that are not routed experts.
    pub fn backbone_bytes(&self) -> u64 {
        self.backbone().map(|data| data.len() as u64).sum()
    }

    /// Bytes of all routed experts of some layers.
    pub fn expert_bytes(&self, layers: std::ops::Range<usize>) -> u64 {
        let experts = self.layers[layers].iter().flat_map(|l| l.experts());
        experts.flat_map(|e| &e.slices).map(|s| s.bytes().len() as u64).sum()
    }
}
/// The keys are llama.cpp's; what makes no sense is passed over, since it is only a suggestion.
fn suggested(get: impl Fn(&str) -> Option<f64>) -> Sampling {
    let number = |name: &str, least: f64, most: f64| {
        let value = get(&format!("general.sampling.{name}"))?;
        (least..=most).contains(&value).then_some(value as f32)
    };
    Sampling {
        temperature: number("temp", 0.0, 5.0),
        top_p: number("top_p", 0.0, 1.0),
        min_p: number("min_p", 0.0, 1.0),
        repetition_penalty: number("penalty_repeat", 0.1, 10.0),
        top_k: number("top_k", 0.0, 1e6).map(|k| k as usize),
        max_tokens: None,
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_suggests_to_sample_with() {
        #[track_caller]
        fn check(keys: &[(&str, f64)], want: Sampling) {
            let get = |key: &str| {
                let name = key.strip_prefix("general.sampling.")?;
                keys.iter().find(|(k, _)| *k == name).map(|(_, v)| *v)
            };
            assert_eq!(suggested(get), want);
        }
        let nothing = Sampling::default();
        check(&[], nothing.clone());
        let said = Sampling { temperature: Some(0.5), top_k: Some(40), ..nothing.clone() };
        check(&[("temp", 0.5), ("top_k", 40.0), ("mirostat", 2.0)], said);
        check(
            &[("penalty_repeat", 1.5)],
            Sampling { repetition_penalty: Some(1.5), ..nothing.clone() },
        );
        // A suggestion that makes no sense is none.
        check(
            &[("temp", -1.0), ("top_p", f64::NAN), ("top_k", -1.0), ("penalty_repeat", 0.0)],
            nothing,
        );
    }
}
