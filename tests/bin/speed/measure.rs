//! Runs the engine's steps over known tokens and looks at the clock.
//!
//! In: a model's file, masks of streams, numbers of tokens.  Out: seconds, and how many experts were read.  Every
//! measurement has contexts of its own, whose memory is new; what is not a step (drawing tokens, making contexts) is
//! outside the measured time.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use config::{Device, Missing};
use engine::gguf::Gguf;
use engine::kv::{KvStore, PAGE, Pages};
use engine::{Bank, ExpertMask, Model, Profile, Segment, Shape, Want, device, forward};

use crate::machine;
use crate::said;

/// One a stream; none for the generalist.
pub type Masks = Vec<Option<Arc<ExpertMask>>>;

/// A model that is ready to run.
pub struct Bench {
    model: Arc<Model>,
    bank: Arc<Bank>,
    random: fastrand::Rng,
    taps: bool,
    /// Who went first in [`Bench::taps_in_turn`].
    turn: bool,
    /// What a context's taps begin with.
    empty: Profile,
    /// At the end of the last run, its contexts still there.
    pub held: Held,
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

/// Memory that is no file's, bytes.
#[derive(Clone, Copy, Default)]
pub struct Held {
    pub anonymous: u64,
    /// Of them, what contexts have for keys and values.
    pub kv: u64,
}

impl Held {
    /// The one with more.
    pub fn max(self, other: Held) -> Held {
        if other.anonymous > self.anonymous { other } else { self }
    }
}

/// One context.
struct Stream {
    pages: Pages,
    mask: Option<Arc<ExpertMask>>,
    /// Whether there are taps; they come to be in the first step, as in serving.
    tapped: bool,
    taps: Option<Profile>,
    tokens: Vec<u32>,
}

/// The experts of a model on a device, which must be there: no other one is measured in its place.
pub fn bank(model: &Arc<Model>, device: Device) -> Result<Arc<Bank>, String> {
    match device::open(device, model) {
        (device, None) => Ok(Bank::on(device, model)),
        (_, Some(missing)) => Err(missing.to_string()),
    }
}

impl Bench {
    pub fn open(file: &Path, device: Device, taps: bool) -> Result<Bench, String> {
        let begun = Instant::now();
        let model = Model::load(Gguf::open(file).map_err(said)?).map_err(said)?;
        Ok(Bench {
            bank: bank(&model, device)?,
            empty: Profile::new(model.shape(), "", ""),
            model,
            random: fastrand::Rng::with_seed(1),
            taps,
            turn: false,
            held: Held::default(),
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
            for stream in &mut streams {
                stream.tokens = self.draw(tokens);
            }
            seconds += self.step(&mut streams, prompt)?;
        }
        self.held.anonymous = machine::memory().anonymous;
        Ok(Run { seconds, uses: self.uses() - uses })
    }

    /// One context with taps and one without, which of them first changing from step to step; seconds of each step.
    pub fn taps_in_turn(
        &mut self,
        steps: usize,
        tokens: usize,
        prompt: bool,
    ) -> Result<[Vec<f64>; 2], String> {
        let mut streams = self.streams(&[None, None], steps * tokens)?;
        streams[0].tapped = true;
        let mut seconds = [vec![], vec![]];
        for _ in 0..steps {
            let tokens = self.draw(tokens);
            self.turn = !self.turn;
            for who in if self.turn { [0, 1] } else { [1, 0] } {
                streams[who].tokens.clone_from(&tokens);
                seconds[who].push(self.step(&mut streams[who..=who], prompt)?);
            }
        }
        Ok(seconds)
    }

    fn draw(&mut self, tokens: usize) -> Vec<u32> {
        let vocab = self.model.shape().vocab as u32;
        (0..tokens).map(|_| self.random.u32(0..vocab)).collect()
    }

    fn streams(
        &mut self,
        masks: &[Option<Arc<ExpertMask>>],
        tokens: usize,
    ) -> Result<Vec<Stream>, String> {
        // As a server keeps them.
        let layout = self.model.layout(config::Memory::default().kv_type);
        let each = layout.bytes_at_once(tokens.next_multiple_of(PAGE));
        let store = KvStore::of(&self.bank, &layout, masks.len() as u64 * each).map_err(said)?;
        self.held.kv = store.bytes();
        let stream = |mask: &Option<Arc<ExpertMask>>| {
            Ok(Stream {
                pages: store.reserve(tokens).ok_or("no room for keys and values")?,
                mask: mask.clone(),
                tapped: self.taps,
                taps: None,
                tokens: Vec::new(),
            })
        };
        masks.iter().map(stream).collect()
    }

    /// One step; seconds.
    fn step(&self, streams: &mut [Stream], prompt: bool) -> Result<f64, String> {
        let begun = Instant::now();
        let segments = streams.iter_mut().map(|stream| Segment {
            tokens: &stream.tokens,
            pages: &mut stream.pages,
            mask: stream.mask.as_deref(),
            missing: Missing::Map,
            taps: match stream.tapped {
                true => Some(stream.taps.get_or_insert_with(|| self.empty.clone())),
                false => None,
            },
            prompt,
            want: Want::Last,
        });
        let mut segments: Vec<Segment<'_>> = segments.collect();
        let outputs = forward(&self.model, &self.bank, &mut segments);
        let seconds = begun.elapsed().as_secs_f64();
        let mut logits = outputs.iter().flat_map(|output| &output.logits);
        match logits.all(|logit| logit.is_finite()) {
            true => Ok(seconds),
            false => Err("a logit is not a number: what was measured is not the model".into()),
        }
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
