//! The trained numbers, as a file and in memory.
//!
//! A file is [`MAGIC`], the header's length (u32, little endian), the header
//! (JSON), then f32 numbers, little endian: `[dense][models]`, `[buckets][models]`.
//! Reading checks every number before it is used.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OutcomeError;
use super::sight::{BUCKETS, PLAIN, Sight};
use crate::{Supervisor, Weights};

const MAGIC: &[u8; 8] = b"clgmout\n";
const FORMAT: &str = "collegium.outcomes/1";
/// Names the rules by which text becomes numbers; other rules, another name.
const SCHEME: &str = "words 1-2, pieces 4, v1";
const MAX_HEADER: usize = 1 << 20;
const MOST_MODELS: usize = 1_000;

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: String,
    /// The rules by which text becomes buckets.
    pub(super) features: String,
    /// Checksum of the supervisor's weights it was trained beside.
    pub(super) supervisor: u64,
    pub(super) models: Vec<String>,
    /// By model.
    pub(super) costs: Vec<f64>,
    /// By dense number: what is subtracted from it, and what it is divided by.
    pub(super) mean: Vec<f32>,
    pub(super) spread: Vec<f32>,
    /// What the buckets' values are multiplied by; 0 where words do not help.
    pub(super) gram: f32,
    /// By model: slope and offset in log-odds that calibrate it.
    pub(super) calibration: Vec<[f32; 2]>,
    /// For a reader; nothing here is used.
    #[serde(default)]
    pub(super) trained: Value,
}

/// What each model's chances are.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    pub(super) header: Header,
    /// `[dense][models]`, then `[buckets][models]`.
    pub(super) numbers: Vec<f32>,
}

/// One model's chances on one text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    pub model: String,
    /// Of being right, 0 to 1.
    pub probability: f64,
    pub cost: f64,
}

/// The place of the best: most probability less `lambda` times cost; of equals the
/// cheaper, then the first.  0 where there is none.
pub fn pick(judged: &[Judged], lambda: f64) -> usize {
    let worth = |j: &Judged| j.probability - lambda * j.cost;
    let places = (0..judged.len()).max_by(|a, b| {
        let (a_worth, b_worth) = (worth(&judged[*a]), worth(&judged[*b]));
        let cheaper = || judged[*b].cost.total_cmp(&judged[*a].cost);
        a_worth.total_cmp(&b_worth).then_with(cheaper).then_with(|| b.cmp(a))
    });
    places.unwrap_or(0)
}

impl Outcomes {
    /// Models and costs, in order.
    pub fn models(&self) -> impl Iterator<Item = (&str, f64)> {
        self.header.models.iter().map(String::as_str).zip(self.header.costs.iter().copied())
    }

    /// Every model's chances on a text, in the file's order.  `supervisor` has the
    /// weights that [`Outcomes::read`] was given.
    pub fn judge(&self, text: &str, supervisor: &Supervisor) -> Vec<Judged> {
        let odds = self.calibrated(&Sight::new(text, supervisor));
        let one = |((model, cost), z): ((&str, f64), f32)| Judged {
            model: model.to_owned(),
            probability: 1.0 / (1.0 + f64::from(-z).exp()),
            cost,
        };
        self.models().zip(odds).map(one).collect()
    }

    /// Log-odds by model, calibrated.
    pub(super) fn calibrated(&self, sight: &Sight) -> Vec<f32> {
        let raw = self.raw(sight);
        raw.iter().zip(&self.header.calibration).map(|(z, [a, b])| a * z + b).collect()
    }

    /// Log-odds by model, as fitted.
    pub(super) fn raw(&self, sight: &Sight) -> Vec<f32> {
        let models = self.header.models.len();
        let mut sums = vec![0f32; models];
        let mut add = |row: usize, value: f32| {
            let row = &self.numbers[row * models..(row + 1) * models];
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += value * w);
        };
        for (at, value) in self.scaled(sight).into_iter().enumerate() {
            add(at, value);
        }
        if self.header.gram > 0.0 {
            let dense = self.header.mean.len();
            for (bucket, value) in &sight.grams {
                add(dense + *bucket as usize, value * self.header.gram);
            }
        }
        sums
    }

    /// Dense numbers of unit spread.
    pub(super) fn scaled(&self, sight: &Sight) -> Vec<f32> {
        let scales = self.header.mean.iter().zip(&self.header.spread);
        sight.dense.iter().zip(scales).map(|(x, (mean, spread))| (x - mean) / spread).collect()
    }

    /// The file's bytes.
    pub fn write(&self) -> Vec<u8> {
        // A header of texts and numbers always has a JSON form.
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes.extend(self.numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// Reads a file's bytes; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`OutcomeError`] for another format, other features, other weights of the
    /// supervisor, and whatever is not exactly as the header says.
    pub fn read(bytes: &[u8], path: &Path, weights: &Weights) -> Result<Outcomes, OutcomeError> {
        let not = |why: &str| OutcomeError::NotOutcomes { path: path.to_owned(), why: why.into() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| not("the first bytes are others"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| not("it is cut off"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_HEADER || length > rest.len() {
            return Err(not("the header is longer than the file"));
        }
        let (header, rest) = rest.split_at(length);
        // Another version may have other fields, so this is asked first.
        let any: Value = serde_json::from_slice(header).map_err(|e| not(&e.to_string()))?;
        for (field, want) in [("format", FORMAT), ("features", SCHEME)] {
            let got = any[field].as_str().unwrap_or_default();
            if got != want {
                let (path, got) = (path.to_owned(), got.to_owned());
                return Err(OutcomeError::Version { path, got, want });
            }
        }
        let header: Header = serde_json::from_value(any).map_err(|e| not(&e.to_string()))?;
        let want = weights.header().checksum;
        if header.supervisor != want {
            let (path, got) = (path.to_owned(), header.supervisor);
            return Err(OutcomeError::Weights { path, got, want });
        }
        let (models, dense) = (header.models.len(), header.mean.len());
        let sound = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite() && x.abs() < 1e6);
        let shaped = (2..=MOST_MODELS).contains(&models)
            && dense == PLAIN + weights.header().labels.len()
            && header.spread.len() == dense
            && header.costs.len() == models
            && header.calibration.len() == models;
        if !shaped {
            return Err(not("its lists have lengths that do not go together"));
        }
        let scales = sound(&header.mean)
            && sound(&header.spread)
            && header.spread.iter().all(|s| *s > 0.0)
            && (0.0..=100.0).contains(&header.gram)
            && header.calibration.iter().all(|pair| sound(pair))
            && header.costs.iter().all(|cost| cost.is_finite() && *cost >= 0.0);
        if !scales {
            return Err(not("a number in its header is out of range"));
        }
        let want = (dense + BUCKETS as usize) * models * 4;
        if rest.len() != want {
            return Err(not(&format!("{} bytes of numbers, {want} are needed", rest.len())));
        }
        let (chunks, _) = rest.as_chunks::<4>();
        let numbers: Vec<f32> = chunks.iter().map(|four| f32::from_le_bytes(*four)).collect();
        if !sound(&numbers) {
            return Err(not("one of its numbers is none, or far too large"));
        }
        Ok(Outcomes { header, numbers })
    }

    /// Nothing learnt yet: every log-odds is 0.
    pub(super) fn blank(
        models: Vec<String>,
        costs: Vec<f64>,
        weights: &Weights,
        (mean, spread): (Vec<f32>, Vec<f32>),
        gram: f32,
    ) -> Outcomes {
        let numbers = vec![0f32; (mean.len() + BUCKETS as usize) * models.len()];
        let header = Header {
            format: FORMAT.into(),
            features: SCHEME.into(),
            supervisor: weights.header().checksum,
            calibration: vec![[1.0, 0.0]; models.len()],
            models,
            costs,
            mean,
            spread,
            gram,
            trained: Value::Null,
        };
        Outcomes { header, numbers }
    }
}
