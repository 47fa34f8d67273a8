//! Which routed experts stay: a set of experts per layer, and the `.mask.json` file that names it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::shape::Shape;

/// For each layer the experts that stay, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertMask {
    experts: usize,
    /// [layers][experts / 64, rounded up]
    layers: Vec<Vec<u64>>,
    masking: Masking,
}

/// Where a mask acts in a router that does not renormalise, as OLMoE's.  In one that does both are the same function,
/// and the first is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masking {
    /// On the logits, which become -inf: what a file without the other experts computes.  With c(x) the share of the
    /// router's probability that is kept, gates are 1 / c(x) of the parent's.
    #[default]
    BeforeSoftmax,
    /// On the probabilities: what is kept has the gates that it has in the parent, and the rest adds nothing.  On the
    /// processor alone, and no file without the other experts computes it.
    AfterSoftmax,
}

impl Masking {
    /// As mask files and flags name it.
    pub const fn name(self) -> &'static str {
        match self {
            Masking::BeforeSoftmax => "before-softmax",
            Masking::AfterSoftmax => "after-softmax",
        }
    }

    /// The lowest version of a mask file that can say so: what reads only the first would compute another function.
    pub const fn format(self) -> &'static str {
        match self {
            Masking::BeforeSoftmax => FORMAT,
            Masking::AfterSoftmax => FORMAT_2,
        }
    }

    /// Whether a mask file need not say it.
    pub fn is_default(&self) -> bool {
        *self == Masking::default()
    }
}

/// Why a list of kept experts is no mask for a parent.
#[derive(Debug, Error, PartialEq)]
pub enum MaskError {
    #[error("the mask has {got} layers, the parent has {want}")]
    Layers { got: usize, want: usize },
    #[error("layer {layer}: expert {expert} does not exist; the parent has {experts}")]
    Expert { layer: usize, expert: u32, experts: usize },
    #[error("layer {layer}: {kept} experts are kept, the router picks {top_k}")]
    TooFew { layer: usize, kept: usize, top_k: usize },
}

impl ExpertMask {
    /// Everything stays.
    pub fn full(shape: &Shape) -> ExpertMask {
        let all = |layer: usize| (0..shape.experts_in(layer) as u32).collect();
        ExpertMask::of(shape.experts, &(0..shape.layers).map(all).collect::<Vec<_>>())
    }

    /// Nothing stays: the start of a union.
    pub fn none(shape: &Shape) -> ExpertMask {
        ExpertMask::of(shape.experts, &vec![Vec::new(); shape.layers])
    }

    /// Adds all experts of another mask of the same parent.
    pub fn unite(&mut self, other: &ExpertMask) {
        for (mine, theirs) in self.layers.iter_mut().zip(&other.layers) {
            mine.iter_mut().zip(theirs).for_each(|(a, b)| *a |= b);
        }
    }

    fn of(experts: usize, kept: &[Vec<u32>]) -> ExpertMask {
        let mut layers = vec![vec![0u64; experts.div_ceil(64)]; kept.len()];
        for (bits, ids) in layers.iter_mut().zip(kept) {
            ids.iter().for_each(|&e| bits[e as usize / 64] |= 1 << (e % 64));
        }
        ExpertMask { experts, layers, masking: Masking::default() }
    }

    /// A mask from kept ids per layer, in any order.
    ///
    /// # Errors
    ///
    /// [`MaskError`] when it does not fit the parent, or leaves the router too few to pick from.
    pub fn from_kept(shape: &Shape, kept: &[Vec<u32>]) -> Result<ExpertMask, MaskError> {
        if kept.len() != shape.layers {
            return Err(MaskError::Layers { got: kept.len(), want: shape.layers });
        }
        for (layer, ids) in kept.iter().enumerate() {
            let experts = shape.experts_in(layer);
            if let Some(&expert) = ids.iter().find(|&&e| e as usize >= experts) {
                return Err(MaskError::Expert { layer, expert, experts });
            }
        }
        let mask = ExpertMask::of(shape.experts, kept);
        for layer in 0..shape.layers {
            let kept = mask.count(layer);
            if shape.routed[layer] && kept < shape.top_k {
                return Err(MaskError::TooFew { layer, kept, top_k: shape.top_k });
            }
        }
        Ok(mask)
    }

    /// The same set, acting elsewhere in the router.
    pub fn acting(self, masking: Masking) -> ExpertMask {
        ExpertMask { masking, ..self }
    }

    pub fn masking(&self) -> Masking {
        self.masking
    }

    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Whether the expert stays; ids that do not exist do not.
    pub fn contains(&self, layer: usize, expert: usize) -> bool {
        self.layers[layer].get(expert / 64).is_some_and(|bits| bits >> (expert % 64) & 1 == 1)
    }

    /// One bit for each expert of a layer, 64 to a word.
    pub(crate) fn words(&self, layer: usize) -> &[u64] {
        &self.layers[layer]
    }

    /// Kept ids of a layer, ascending.
    pub fn kept(&self, layer: usize) -> Vec<u32> {
        (0..self.experts).filter(|&e| self.contains(layer, e)).map(|e| e as u32).collect()
    }

    /// Number of experts kept in a layer.
    pub fn count(&self, layer: usize) -> usize {
        self.layers[layer].iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

/// The format's name and version.
pub const FORMAT: &str = "collegium.mask/1";

/// The version of those that say where in the router they act.
pub const FORMAT_2: &str = "collegium.mask/2";

/// A `.mask.json` file.  A key that is not known is an error: it may be a misspelt one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskFile {
    /// [`FORMAT`], or [`FORMAT_2`] where `masking` needs it; see [`Masking::format`].
    pub format: String,
    /// SHA-256 of the parent's file.
    pub parent: String,
    pub domain: String,
    /// What the experts were ranked by.
    pub score: String,
    /// Number kept, per layer.
    pub experts: Vec<usize>,
    /// Sorted ids, per layer.
    pub kept: Vec<Vec<u32>>,
    /// Share of the domain's gate mass on kept experts, per layer.
    pub coverage: Vec<f64>,
    /// SHA-256 of the profile it was made from.
    pub profile: String,
    /// The profiles beside it that passes were made with, also where they changed nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Where in the router it acts.
    #[serde(default, skip_serializing_if = "Masking::is_default")]
    pub masking: Masking,
    pub passes: Vec<Pass>,
}

/// A profile beside the domain's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The pass that read it.
    pub pass: String,
    /// What it is a profile of.
    pub domain: String,
    /// SHA-256 of its file.
    pub profile: String,
    /// Of a guard, the share of its gate mass that is to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Of reasoning, how many experts of a layer it may swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swaps: Option<usize>,
}

/// What one pass changed in one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    pub name: String,
    pub layer: usize,
    pub added: Vec<u32>,
    pub removed: Vec<u32>,
}

#[derive(Debug, Error)]
pub enum MaskFileError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("not a mask file: {0}")]
    Json(#[from] serde_json::Error),
    #[error("mask format {found:?} is not known; this version reads {FORMAT:?} and {FORMAT_2:?}")]
    Format { found: String },
    #[error(
        "a mask that acts after the softmax is of format {FORMAT_2:?}, and this says {FORMAT:?}"
    )]
    FormatOfMasking,
    #[error(
        "the mask is for parent {mask:.12}…, this parent is {parent:.12}…; profile and mask this parent"
    )]
    Parent { mask: String, parent: String },
    #[error("layer {layer}: kept ids are not sorted, or do not number {experts}")]
    Kept { layer: usize, experts: usize },
    #[error(transparent)]
    Mask(#[from] MaskError),
}

impl MaskFile {
    /// Reads and checks the form; what it says of a parent is checked by [`MaskFile::mask`].
    ///
    /// # Errors
    ///
    /// [`MaskFileError`].
    pub fn read(path: &Path) -> Result<MaskFile, MaskFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| MaskFileError::Io { path: path.to_owned(), error })?;
        MaskFile::parse(&text)
    }

    /// The same from text.
    pub fn parse(text: &str) -> Result<MaskFile, MaskFileError> {
        let file: MaskFile = serde_json::from_str(text)?;
        match &file.format[..] {
            FORMAT_2 => {}
            FORMAT if file.masking.is_default() => {}
            FORMAT => return Err(MaskFileError::FormatOfMasking),
            _ => return Err(MaskFileError::Format { found: file.format }),
        }
        for (layer, ids) in file.kept.iter().enumerate() {
            let experts = file.experts.get(layer).copied().unwrap_or(0);
            if ids.len() != experts || !ids.is_sorted_by(|a, b| a < b) {
                return Err(MaskFileError::Kept { layer, experts });
            }
        }
        Ok(file)
    }

    /// The file's text: JSON, one layer a line.
    pub fn to_json(&self) -> Result<String, MaskFileError> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// The set it names, for this parent.
    ///
    /// # Errors
    ///
    /// [`MaskFileError`] when it was made for another parent or does not fit the shape.
    pub fn mask(&self, shape: &Shape, parent: &str) -> Result<ExpertMask, MaskFileError> {
        if self.parent != parent {
            let (mask, parent) = (self.parent.clone(), parent.to_owned());
            return Err(MaskFileError::Parent { mask, parent });
        }
        Ok(ExpertMask::from_kept(shape, &self.kept)?.acting(self.masking))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_lists_become_masks() {
        #[track_caller]
        fn check(kept: &[&[u32]], want: Result<&[usize], MaskError>) {
            let kept: Vec<Vec<u32>> = kept.iter().map(|ids| ids.to_vec()).collect();
            // Two layers, 70 experts, the router picks 2.
            let got = ExpertMask::from_kept(&Shape::of_experts(2, 70, 2), &kept);
            match (got, want) {
                (Ok(mask), Ok(counts)) => {
                    assert_eq!((0..2).map(|l| mask.count(l)).collect::<Vec<_>>(), counts);
                    for (layer, ids) in kept.iter().enumerate() {
                        assert_eq!(mask.kept(layer), *ids);
                    }
                }
                (got, want) => assert_eq!(got.err(), want.err()),
            }
        }
        check(&[&[0, 69], &[1, 2, 3]], Ok(&[2, 3]));
        check(&[&[0, 1]], Err(MaskError::Layers { got: 1, want: 2 }));
        check(&[&[0, 70], &[0, 1]], Err(MaskError::Expert { layer: 0, expert: 70, experts: 70 }));
        check(&[&[0, 1], &[5]], Err(MaskError::TooFew { layer: 1, kept: 1, top_k: 2 }));
    }

    #[test]
    fn files_are_checked() {
        let good = MaskFile {
            format: FORMAT.into(),
            parent: "p".into(),
            domain: "law".into(),
            score: "gate".into(),
            experts: vec![2, 2],
            kept: vec![vec![0, 3], vec![1, 2]],
            coverage: vec![0.9, 0.8],
            profile: "q".into(),
            sources: vec![],
            masking: Masking::default(),
            passes: vec![],
        };
        let text = good.to_json().unwrap();
        assert_eq!(MaskFile::parse(&text).unwrap(), good);
        assert!(good.mask(&Shape::of_experts(2, 4, 2), "p").is_ok());
        #[track_caller]
        fn check(text: &str, want: &str) {
            let got = MaskFile::parse(text)
                .and_then(|f| f.mask(&Shape::of_experts(2, 4, 2), "p"))
                .unwrap_err();
            assert!(got.to_string().contains(want), "{got}");
        }
        check("{", "not a mask file");
        check(&text.replace("mask/1", "mask/3"), "\"collegium.mask/3\" is not known");
        check(&text.replace("[0,3]", "[3,0]"), "layer 0: kept ids are not sorted");
        check(&text.replace("[0,3]", "[0,1,3]"), "do not number 2");
        check(&text.replace("\"p\"", "\"other\""), "for parent other");
        check(&text.replace("[1,2]", "[1,9]"), "expert 9 does not exist");
        check(&text.replace("\"passes\"", "\"maskng\":1,\"passes\""), "unknown field `maskng`");
        // What an older version would not see is of a version that it refuses.
        let after = MaskFile { masking: Masking::AfterSoftmax, ..good.clone() };
        check(&after.to_json().unwrap(), "is of format \"collegium.mask/2\"");
        let after = MaskFile { format: after.masking.format().to_owned(), ..after };
        let read = MaskFile::parse(&after.to_json().unwrap()).unwrap();
        assert_eq!(read, after);
        let mask = read.mask(&Shape::of_experts(2, 4, 2), "p").unwrap();
        assert_eq!(mask.masking(), Masking::AfterSoftmax);
        // Nothing of it is in a file that does not need it.
        assert!(!text.contains("masking") && !text.contains("sources"), "{text}");
        let source = Source {
            pass: "guards".into(),
            domain: "tools".into(),
            profile: "r".into(),
            share: Some(0.9),
            swaps: None,
        };
        let guarded = MaskFile { sources: vec![source], ..good };
        assert_eq!(MaskFile::parse(&guarded.to_json().unwrap()).unwrap(), guarded);
    }
}
