//! The trained weights, as a file and in memory.
//!
//! A file is [`MAGIC`], the header's length (u32, little endian), the header
//! (JSON), for each bucket the fingerprint of its n-gram and how rare that is, then one signed byte
//! a bucket and column.
//!
//! A text's columns are the sums of its n-grams' rows: one for each label, and a last
//! one that tells what is strange to all labels.  Reading checks every number before
//! it is used, and copies the file's bytes once; it never panics.
//!
//! A byte `q` stands for `scale * q * |q| / 127^2`: half of all weights are
//! small, and squaring gives them finer steps than the large ones.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::WeightsError;
use crate::calibrate::Heat;
use crate::features::{Features, SCHEME};
use crate::stages::Second;
use crate::vocabulary::Vocabulary;

const MAGIC: &[u8; 8] = b"clgmlex\n";
const FORMAT: &str = "collegium.lexical/3";

/// A header is a few hundred bytes; a length above this is not a header's.
const MAX_HEADER: usize = 1 << 20;

/// What a file says about itself, in front of the numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub format: String,
    /// The rules by which text becomes buckets.
    pub features: String,
    /// Domain ids, in the order of the columns.
    pub labels: Vec<String>,
    pub buckets: u32,
    /// By label, in logits.
    pub biases: Vec<f32>,
    /// Of the last column, in logits.
    pub strange_bias: f32,
    /// By column: the weight that the byte 127 stands for.
    pub scales: Vec<f32>,
    /// What logits are divided by, so that probabilities mean what they say.
    pub heat: Heat,
    /// How often the truth is in the conformal set, on held-out questions.
    pub coverage: f32,
    /// The least probability with which a label is in that set.
    pub set_from: f32,
    /// A text less familiar than this is unlike anything seen.
    pub familiar_from: f32,
    /// What training found for the encoder beside these weights, where it had one.
    #[serde(default)]
    pub second: Option<Second>,
    /// FNV-1a of the numbers.
    pub checksum: u64,
    /// How it was trained and measured, for a reader; nothing here is used.
    #[serde(default)]
    pub trained: Value,
}

/// What training found, before it is made into bytes.
pub(crate) struct Trained {
    pub(crate) labels: Vec<String>,
    pub(crate) biases: Vec<f32>,
    pub(crate) strange_bias: f32,
    /// Fingerprints and rarities, each `[buckets]`.
    pub(crate) vocabulary: (Vec<u8>, Vec<u8>),
    /// `[buckets][columns]`.
    pub(crate) table: Vec<f32>,
}

/// Checked weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    header: Header,
    /// `[buckets]`, as `vocabulary.rs` has them.
    prints: Vec<u8>,
    rarity: Vec<u8>,
    /// `[buckets][columns]`.
    table: Vec<i8>,
}

impl Weights {
    /// The weights inside this crate.
    pub fn shipped() -> Result<Weights, WeightsError> {
        Weights::read(include_bytes!("../weights/lexical.bin"))
    }

    /// # Errors
    ///
    /// [`WeightsError`] for whatever is not exactly as the header says.
    pub fn read(bytes: &[u8]) -> Result<Weights, WeightsError> {
        let not = |why: &str| WeightsError::NotWeights { why: why.into() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| not("the first bytes are others"))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| not("it is cut off"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_HEADER || length > rest.len() {
            return Err(not("the header is longer than the file"));
        }
        let (header, numbers) = rest.split_at(length);
        // Another version may have other fields, so this is asked first.
        let any: Value = serde_json::from_slice(header).map_err(|err| not(&err.to_string()))?;
        let format = any["format"].as_str().unwrap_or_default();
        if format != FORMAT {
            return Err(WeightsError::Version { got: format.into(), want: FORMAT });
        }
        let header: Header = serde_json::from_value(any).map_err(|err| not(&err.to_string()))?;
        check(&header)?;
        let (buckets, columns) = (header.buckets as usize, header.scales.len());
        // No overflow: at most 2^24 buckets and 512 columns.
        let want = buckets * (columns + 2);
        if numbers.len() != want {
            return Err(WeightsError::Size { got: numbers.len() as u64, want: want as u64 });
        }
        let got = checksum(numbers);
        if got != header.checksum {
            return Err(WeightsError::Checksum { got, want: header.checksum });
        }
        let (prints, rest) = numbers.split_at(buckets);
        let (rarity, table) = rest.split_at(buckets);
        let table = table.iter().map(|byte| byte.cast_signed()).collect();
        Ok(Weights { header, prints: prints.to_vec(), rarity: rarity.to_vec(), table })
    }

    /// The file's bytes.
    pub fn write(&self) -> Vec<u8> {
        // A header of texts and numbers always has a JSON form.
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes.extend(&self.prints);
        bytes.extend(&self.rarity);
        bytes.extend(self.table.iter().map(|q| q.cast_unsigned()));
        bytes
    }

    /// Makes bytes of trained numbers.
    pub(crate) fn quantise(trained: Trained) -> Result<Weights, WeightsError> {
        let Trained { labels, biases, strange_bias, vocabulary, table: weights } = trained;
        let (prints, rarity) = vocabulary;
        let count = labels.len() + 1;
        let mut scales = vec![f32::MIN_POSITIVE; count];
        for row in weights.chunks_exact(count) {
            for (scale, weight) in scales.iter_mut().zip(row) {
                *scale = scale.max(weight.abs());
            }
        }
        let byte = |(weight, scale): (&f32, &f32)| {
            let root = (weight.abs() / scale).sqrt() * 127.0;
            (root.round() as i8) * if *weight < 0.0 { -1 } else { 1 }
        };
        let rows = weights.chunks_exact(count);
        let table: Vec<i8> = rows.flat_map(|row| row.iter().zip(&scales).map(byte)).collect();
        let bytes: Vec<u8> = prints
            .iter()
            .chain(&rarity)
            .copied()
            .chain(table.iter().map(|q| q.cast_unsigned()))
            .collect();
        let header = Header {
            format: FORMAT.into(),
            features: SCHEME.into(),
            labels,
            buckets: rarity.len() as u32,
            biases,
            strange_bias,
            scales,
            heat: Heat::NONE,
            coverage: 0.0,
            set_from: 0.0,
            familiar_from: 0.0,
            second: None,
            checksum: checksum(&bytes),
            trained: Value::Null,
        };
        check(&header)?;
        Ok(Weights { header, prints, rarity, table })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// For what is known only after the numbers are: what calibrates them, and how
    /// they fared.
    pub(crate) fn header_mut(&mut self) -> &mut Header {
        &mut self.header
    }

    /// Scores by label, before the temperature, and the probability that the text
    /// is like anything seen.
    pub(crate) fn judge(&self, features: &Features) -> (Vec<f32>, f32) {
        let mut sums = self.sums(features);
        let strange = sums.pop().unwrap_or(0.0) + self.header.strange_bias;
        sums.iter_mut().zip(&self.header.biases).for_each(|(sum, bias)| *sum += bias);
        (sums, 1.0 / (1.0 + strange.exp()))
    }

    /// By column.
    fn sums(&self, features: &Features) -> Vec<f32> {
        let mut sums = vec![0f32; self.header.scales.len()];
        for feature in &features.list {
            for (sum, q) in sums.iter_mut().zip(self.row(feature.bucket)) {
                *sum += feature.value * f32::from(i16::from(*q) * i16::from(q.abs()));
            }
        }
        let scaled = sums.iter().zip(&self.header.scales);
        scaled.map(|(sum, scale)| sum * scale / (127.0 * 127.0)).collect()
    }

    /// What moves `label` above the average label: weights by column.
    pub(crate) fn direction(&self, label: usize) -> Vec<f32> {
        let labels = self.header.labels.len();
        let mut direction = vec![-1.0 / labels as f32; labels];
        direction[label] += 1.0;
        direction
    }

    /// How far a bucket moves a text along a direction, in logits.
    pub(crate) fn along(&self, bucket: u32, direction: &[f32]) -> f32 {
        let row = self.row(bucket).iter().zip(&self.header.scales).zip(direction);
        row.map(|((q, scale), by)| {
            f32::from(i16::from(*q) * i16::from(q.abs())) * scale / (127.0 * 127.0) * by
        })
        .sum()
    }

    /// Takes another's calibration.
    pub(crate) fn rescale(&mut self, other: &Header) {
        self.header.heat = other.heat;
        self.header.coverage = other.coverage;
        self.header.set_from = other.set_from;
        self.header.familiar_from = other.familiar_from;
        self.header.second = other.second.clone();
    }

    pub(crate) fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary { prints: &self.prints, rarity: &self.rarity }
    }

    fn row(&self, bucket: u32) -> &[i8] {
        let columns = self.header.scales.len();
        let start = bucket as usize * columns;
        self.table.get(start..start + columns).unwrap_or(&[])
    }
}

fn check(header: &Header) -> Result<(), WeightsError> {
    let bad = |field, why: String| Err(WeightsError::Header { field, why });
    if header.features != SCHEME {
        return bad("features", format!("{:?}, this build has {SCHEME:?}", header.features));
    }
    let labels = header.labels.len();
    if !(2..=256).contains(&labels) {
        return bad("labels", format!("{labels} of them; 2 to 256 are read"));
    }
    let id = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if let Some(label) = header.labels.iter().find(|l| l.is_empty() || !l.bytes().all(id)) {
        return bad("labels", format!("{label:?} is not a domain's id"));
    }
    let repeated = |(at, label): (usize, &String)| header.labels[..at].contains(label);
    if header.labels.iter().enumerate().any(repeated) {
        return bad("labels", "one is there twice".into());
    }
    if !(1 << 8..=1 << 24).contains(&header.buckets) {
        return bad("buckets", format!("{} is not from 2^8 to 2^24", header.buckets));
    }
    // A logit of a million is as sure as any; above, sums could overflow.
    let sane = |x: &f32| x.is_finite() && x.abs() < 1e6;
    let columns = header.scales.len();
    if !(2..=512).contains(&columns) || !header.scales.iter().all(|s| sane(s) && *s > 0.0) {
        return bad("scales", format!("{columns} of them; 2 to 512 numbers above 0 are read"));
    }
    if columns != labels + 1 {
        return bad("scales", format!("{columns} of them for {labels} labels; one more is read"));
    }
    if header.biases.len() != labels || !header.biases.iter().all(sane) {
        return bad("biases", format!("each of {labels} labels needs a number"));
    }
    if !sane(&header.strange_bias) {
        return bad("strange_bias", format!("{} is no number to use", header.strange_bias));
    }
    if !header.heat.is_sound() {
        return bad("heat", format!("{:?} are not numbers from -100 to 100", header.heat));
    }
    if let Some(second) = &header.second {
        if !second.mix.is_sound() {
            return bad("second", format!("{:?} has numbers that no training finds", second.mix));
        }
        if second.classifier.as_ref().is_some_and(|c| !c.is_sound(labels)) {
            return bad("second", format!("its classifier is none of {labels} labels"));
        }
    }
    let shares = [
        ("coverage", header.coverage),
        ("set_from", header.set_from),
        ("familiar_from", header.familiar_from),
    ];
    for (field, share) in shares {
        if !(0.0..=1.0).contains(&share) {
            return bad(field, format!("{share} is not from 0 to 1"));
        }
    }
    Ok(())
}

fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small() -> Weights {
        Weights::quantise(Trained {
            labels: vec!["law".to_owned(), "math".to_owned()],
            biases: vec![0.5, -0.5],
            strange_bias: -2.0,
            vocabulary: (vec![7; 256], vec![40; 256]),
            table: (0..768).map(|i| ((i % 37) as f32 - 18.0) / 10.0).collect(),
        })
        .unwrap()
    }

    /// Changes the header's JSON and reads the file.
    #[track_caller]
    fn check(change: impl Fn(&mut Value), want: &str) {
        let bytes = small().write();
        let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[12..12 + length]).unwrap();
        change(&mut header);
        let header = serde_json::to_vec(&header).unwrap();
        let length = (header.len() as u32).to_le_bytes();
        let file = [MAGIC, &length[..], &header, &bytes[bytes.len() - 1280..]].concat();
        let got = Weights::read(&file).map(|_| "fine".to_owned());
        let got = got.unwrap_or_else(|err| err.to_string());
        assert!(got.contains(want), "got: {got}\nwant: {want}");
    }

    #[test]
    fn round_trip() {
        let weights = small();
        assert_eq!(Weights::read(&weights.write()), Ok(weights));
    }

    /// A byte's step is finest near zero and never above 1.6 % of the largest.
    #[test]
    fn bytes_are_near_the_numbers() {
        let weights = small();
        for bucket in 0..256u32 {
            for label in 0..2 {
                let at = bucket as usize * 3 + label;
                let want = ((at % 37) as f32 - 18.0) / 10.0;
                let got = weights.along(bucket, &[[1.0, 0.0], [0.0, 1.0]][label]);
                assert!((got - want).abs() <= 0.016 * 1.8, "{got} for {want}");
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        use serde_json::json;
        check(|_| (), "fine");
        check(
            |h| h["format"] = json!("collegium.lexical/2"),
            "\"collegium.lexical/2\", this build reads",
        );
        check(|h| h["format"] = json!("collegium.lexical/4"), "this build reads");
        check(|h| h["features"] = json!("words"), "\"features\" cannot be used");
        check(|h| h["labels"] = json!(["law"]), "1 of them; 2 to 256");
        check(|h| h["labels"] = json!(["law", "law"]), "one is there twice");
        check(|h| h["labels"] = json!(["law", "../law"]), "\"../law\" is not a domain's id");
        check(|h| h["labels"] = json!(["law", "math", "art"]), "3 of them for 3 labels");
        check(|h| h["buckets"] = json!(255), "255 is not from");
        check(|h| h["buckets"] = json!(512), "1280 bytes of numbers, the header says 2560");
        check(|h| h["buckets"] = json!(u32::MAX), "is not from 2^8");
        check(|h| h["buckets"] = json!(-1), "not a supervisor's weights");
        check(|h| h["scales"] = json!([1.0, 1.0, 0.0]), "\"scales\" cannot be used");
        check(|h| h["scales"] = json!([1.0, 1.0, 1e38]), "\"scales\" cannot be used");
        check(|h| h["scales"] = json!([1.0, 1.0, null]), "not a supervisor's weights");
        check(|h| h["biases"] = json!([0.5]), "each of 2 labels needs a number");
        check(|h| h["biases"][0] = json!(1e30), "each of 2 labels needs a number");
        check(|h| h["strange_bias"] = json!(1e30), "\"strange_bias\" cannot be used");
        check(|h| h["heat"]["base"] = json!(1e9), "\"heat\" cannot be used");
        check(
            |h| h["set_from"] = json!(1.5),
            "\"set_from\" cannot be used: 1.5 is not from 0 to 1",
        );
        check(|h| h["familiar_from"] = json!(-1), "-1 is not from 0 to 1");
        let second = |temperature: f32, weights: Value| {
            let mix = json!({"weight": 1, "temperature": temperature, "below": 1});
            let classifier = json!({"weights": weights, "biases": [0, 0]});
            json!({"encoder": 1, "mix": mix, "classifier": classifier})
        };
        check(|h| h["second"] = second(2.0, json!([[1], [2]])), "fine");
        check(|h| h["second"] = second(0.0, json!([[1], [2]])), "\"second\" cannot be used: Mix");
        check(|h| h["second"] = second(2.0, json!([[1]])), "classifier is none of 2 labels");
        check(|h| h["second"] = second(2.0, json!([[1], []])), "classifier is none of 2 labels");
        check(|h| h["second"] = second(2.0, json!([[1], [1e9]])), "classifier is none of 2 labels");
        check(|h| h["checksum"] = json!(1), "the header says 0000000000000001");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Weights::read(&bytes);
            let _ = Weights::read(&[MAGIC.as_slice(), &bytes].concat());
        }

        /// One changed or missing byte is noticed.
        #[test]
        fn no_damage_passes(at in 0usize..1280, flip in 1u8..) {
            let mut bytes = small().write();
            let length = bytes.len();
            bytes[length - 1 - at] ^= flip;
            prop_assert!(Weights::read(&bytes).is_err());
            let whole = small().write();
            prop_assert!(Weights::read(&whole[..length - 1 - at]).is_err());
        }
    }
}
