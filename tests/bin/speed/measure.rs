//! Runs the engine's steps over known tokens and looks at the clock.
//!
//! In: a model's file, masks of streams, numbers of tokens.  Out: seconds, and how many experts were read.  Every
//! measurement has contexts of its own, whose memory is new; what is not a step (drawing tokens, making contexts) is
//! outside the measured time.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use config::Missing;
use engine::gguf::Gguf;
use engine::kv::{KvStore, PAGE, Pages, Precision};
use engine::{Bank, ExpertMask, Model, Profile, Segment, Shape, Want, forward};

use crate::said;

/// One a stream; none for the generalist.
pub type Masks = Vec<Option<Arc<ExpertMask>>>;

/// A model that is ready to run.
pub struct Bench {
    model: Arc<Model>,
    bank: Arc<Bank>,
    random: fastrand::Rng,
    taps: bool,
    begun: Instant,
    /// From opening the file to having the experts of [`Bench::warm`] in memory.
    pub load_seconds: f64,
}

/// One measurement.
pub struct Run {
    pub seconds: f64,
    /// Experts that were read, over all steps and layers; one that several rows of a step chose counts once.
    pub uses: u64,
}

/// One context.
struct Stream {
    pages: Pages,
    mask: Option<Arc<ExpertMask>>,
    taps: Option<Profile>,
    tokens: Vec<u32>,
}

impl Bench {
    pub fn open(file: &Path, taps: bool) -> Result<Bench, String> {
        let begun = Instant::now();
        let model = Model::load(Gguf::open(file).map_err(said)?).map_err(said)?;
        Ok(Bench {
            bank: Bank::new(model.clone()),
            model,
            random: fastrand::Rng::with_seed(1),
            taps,
            begun,
            load_seconds: 0.0,
        })
    }

    /// Brings in the experts that streams with these masks may use.
    pub fn warm(&mut self, masks: &[Option<Arc<ExpertMask>>]) {
        for mask in masks {
            match mask {
                Some(mask) => self.bank.warm(mask),
                None => self.bank.warm(&ExpertMask::full(self.model.shape())),
            };
        }
        self.load_seconds = self.seconds_since_start();
    }

    pub fn seconds_since_start(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub fn shape(&self) -> &Shape {
        self.model.shape()
    }

    /// Layers with a router.
    pub fn routed_layers(&self) -> usize {
        self.shape().routed.iter().filter(|routed| **routed).count()
    }

    /// Reads a prompt in one step; seconds.
    pub fn prompt(&mut self, tokens: usize) -> Result<f64, String> {
        Ok(self.run(&[None], 1, tokens, true)?.seconds)
    }

    /// Every stream goes on by a token a step.
    pub fn generate(
        &mut self,
        masks: &[Option<Arc<ExpertMask>>],
        tokens: usize,
    ) -> Result<Run, String> {
        self.run(masks, tokens, 1, false)
    }

    /// `steps` steps, each with `tokens` tokens of every stream.
    fn run(
        &mut self,
        masks: &[Option<Arc<ExpertMask>>],
        steps: usize,
        tokens: usize,
        prompt: bool,
    ) -> Result<Run, String> {
        let mut streams = self.streams(masks, steps * tokens)?;
        let uses = self.uses();
        let mut seconds = 0.0;
        for _ in 0..steps {
            let vocab = self.model.shape().vocab as u32;
            for stream in &mut streams {
                stream.tokens = (0..tokens).map(|_| self.random.u32(0..vocab)).collect();
            }
            let begun = Instant::now();
            let finite = self.step(&mut streams, prompt);
            seconds += begun.elapsed().as_secs_f64();
            if !finite {
                return Err("a logit is not a number: what was measured is not the model".into());
            }
        }
        Ok(Run { seconds, uses: self.uses() - uses })
    }

    fn streams(
        &self,
        masks: &[Option<Arc<ExpertMask>>],
        tokens: usize,
    ) -> Result<Vec<Stream>, String> {
        let layout = self.model.layout(Precision::default());
        let each = layout.bytes_at_once(tokens.next_multiple_of(PAGE));
        let store = KvStore::new(&layout, masks.len() as u64 * each).map_err(said)?;
        let stream = |mask: &Option<Arc<ExpertMask>>| {
            Ok(Stream {
                pages: store.reserve(tokens).ok_or("no room for keys and values")?,
                mask: mask.clone(),
                taps: self.taps.then(|| Profile::new(self.model.shape(), "", "")),
                tokens: Vec::new(),
            })
        };
        masks.iter().map(stream).collect()
    }

    /// Whether all logits are numbers.
    fn step(&self, streams: &mut [Stream], prompt: bool) -> bool {
        let segments = streams.iter_mut().map(|stream| Segment {
            tokens: &stream.tokens,
            pages: &mut stream.pages,
            mask: stream.mask.as_deref(),
            missing: Missing::Map,
            taps: stream.taps.as_mut(),
            prompt,
            want: Want::Last,
        });
        let mut segments: Vec<Segment<'_>> = segments.collect();
        let outputs = forward(&self.model, &self.bank, &mut segments);
        outputs.iter().flat_map(|output| &output.logits).all(|logit| logit.is_finite())
    }

    fn uses(&self) -> u64 {
        self.bank.counts().iter().map(|layer| layer.hits + layer.misses).sum()
    }

    /// Bytes of weights that one token is multiplied with.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes_per_step((self.routed_layers() * self.shape().top_k) as f64)
    }

    /// The same of a step that reads `uses` experts: they, and the backbone once.  Of embeddings only rows are read,
    /// unless they are the output matrix too.
    pub fn bytes_per_step(&self, uses: f64) -> f64 {
        let gguf = self.model.gguf();
        let bytes = |name: &str| gguf.tensor(name).map_or(0, |tensor| tensor.bytes);
        let rows = if bytes("output.weight") > 0 { bytes("token_embd.weight") } else { 0 };
        let experts = (self.routed_layers() * self.shape().experts).max(1) as f64;
        let expert = self.model.expert_bytes(0..self.shape().layers) as f64 / experts;
        (self.model.backbone_bytes() - rows) as f64 + uses * expert
    }
}
