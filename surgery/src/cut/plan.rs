//! Every tensor's fate, decided before anything is written.

use std::ops::Range;

use engine::arch::{self, Arch};
use engine::gguf::write::{Entry, Layout};
use engine::gguf::{Gguf, Tensor};
use engine::{MaskFile, Masking, Shape};
use serde::{Deserialize, Serialize};

use super::{Ahead, CutError, Request, Runtime, keys, parts};
use crate::provenance::{self, Provenance, ProvenanceError};

/// What will be written, and all that was checked to say so.
pub struct Plan {
    /// Of each part, and which of `sources` it holds.
    pub(super) parts: Vec<(Layout, Range<usize>)>,
    /// What is written, in the parent's order.
    pub(super) sources: Vec<Source>,
    /// Parts were asked for, if only one came of it.
    pub(super) split: bool,
    pub provenance: Provenance,
    pub summary: Summary,
}

/// Where a tensor's bytes come from.
pub(super) struct Source {
    /// Index in the parent.
    pub tensor: usize,
    /// Experts whose slices are copied; all of it without.
    pub ids: Option<Vec<u32>>,
    /// Bytes to be written.
    pub bytes: u64,
}

/// What `--dry-run` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub architecture: String,
    pub domain: String,
    pub experts_in: usize,
    /// The most that a layer keeps.
    pub experts_out: usize,
    /// [layers], how many each keeps.
    pub experts_by_layer: Vec<usize>,
    /// Blocks that predict further tokens, in the parent and in what is written.
    pub ahead_in: usize,
    pub ahead_out: usize,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Bytes of each part; one without `--split`.
    pub parts: Vec<u64>,
    pub tensors_copied: usize,
    pub tensors_sliced: usize,
    pub tensors_dropped: usize,
    /// The router renormalises.  Where it does not, kept experts get larger
    /// gates than in the parent; `surgery verify` says by how much.
    pub renormalises: bool,
    /// Every tensor's fate, in file order.
    pub tensors: Vec<TensorPlan>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorPlan {
    pub name: String,
    pub kind: &'static str,
    pub fate: Fate,
    pub experts_in: usize,
    pub experts_out: usize,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Byte for byte.
    Kept,
    /// The slices of kept experts.
    Sliced,
    /// Left out with its block.
    Dropped,
}

/// Blocks behind the layers, which predict further tokens.
pub(crate) fn ahead(file: &Gguf, arch: &Arch) -> usize {
    file.int(&arch.ahead_key()).unwrap_or(0) as usize
}

/// Decides every tensor's fate.  `mask_sha256` is of the mask's file.
///
/// # Errors
///
/// [`CutError`] for anything that would make the result unusable or unequal.
pub fn plan(
    parent: &Gguf,
    mask: &MaskFile,
    mask_sha256: &str,
    request: &Request,
) -> Result<Plan, CutError> {
    let arch = arch::find(parent)?;
    let shape = Shape::read(parent)?;
    if shape.experts == 0 {
        return Err(CutError::Dense { name: shape.name });
    }
    mask.mask(&shape, &parent.sha256())?;
    whole(mask, mask_sha256, shape.layers)?;
    if mask.masking == Masking::AfterSoftmax && !arch.renormalises {
        return Err(CutError::Masking { architecture: shape.architecture });
    }
    let ahead_in = ahead(parent, arch);
    let mut kept = mask.kept.clone();
    let experts_out = most(&kept, request.runtime)?;
    kept.extend(vec![ids_ahead(&shape, ahead_in, experts_out, &request.ahead)?; ahead_in]);
    if request.ahead == Ahead::Drop {
        kept.truncate(shape.layers);
    }
    let ahead_out = kept.len() - shape.layers;

    let (mut sources, mut entries, mut tensors) = (Vec::new(), Vec::new(), Vec::new());
    let mut unseen: Vec<bool> = kept.iter().map(|kept| !kept.is_empty()).collect();
    for (index, tensor) in parent.tensors().iter().enumerate() {
        let of = fate(arch, tensor, &shape, &kept)?;
        let mut row = TensorPlan {
            name: tensor.name.clone(),
            kind: tensor.kind.name(),
            fate: of.fate,
            experts_in: of.experts_in,
            experts_out: of.ids.map_or(0, Vec::len),
            bytes_in: tensor.bytes,
            bytes_out: tensor.bytes,
        };
        let mut dims = tensor.dims.clone();
        match (of.fate, of.ids) {
            (Fate::Dropped, _) => row.bytes_out = 0,
            (Fate::Sliced, Some(ids)) => {
                row.bytes_out = slice_bytes(tensor, of.experts_in)? * ids.len() as u64;
                dims.pop();
                dims.push(ids.len() as u64);
                unseen[of.block] = false;
            }
            _ => {}
        }
        if of.fate != Fate::Dropped {
            let (ids, bytes) = (of.ids.cloned(), row.bytes_out);
            sources.push(Source { tensor: index, ids, bytes });
            entries.push(Entry { name: tensor.name.clone(), dims, kind: tensor.kind });
        }
        tensors.push(row);
    }
    if let Some(block) = unseen.iter().position(|unseen| *unseen) {
        return Err(CutError::NoExperts { block });
    }
    let provenance = provenance_of(parent, &shape, mask, mask_sha256, &kept, ahead_in)?;
    let changed =
        keys::Changed { arch, experts: experts_out, blocks: (shape.layers + ahead_in, kept.len()) };
    let metadata = keys::metadata(parent, &changed, &provenance);
    let parts = parts::deal(&metadata, &entries, request.split)?;
    let count = |fate| tensors.iter().filter(|row| row.fate == fate).count();
    let sizes: Vec<u64> = parts.iter().map(|(layout, _)| layout.bytes()).collect();
    let summary = Summary {
        architecture: shape.architecture,
        domain: mask.domain.clone(),
        experts_in: shape.experts,
        experts_out,
        experts_by_layer: mask.kept.iter().map(Vec::len).collect(),
        ahead_in,
        ahead_out,
        bytes_in: parent.bytes(),
        bytes_out: sizes.iter().sum(),
        parts: sizes,
        tensors_copied: count(Fate::Kept),
        tensors_sliced: count(Fate::Sliced),
        tensors_dropped: count(Fate::Dropped),
        renormalises: arch.renormalises,
        tensors,
    };
    Ok(Plan { parts, sources, split: request.split.is_some(), provenance, summary })
}

/// What of a mask goes into the file without being used.
fn whole(mask: &MaskFile, sha256: &str, layers: usize) -> Result<(), CutError> {
    if mask.coverage.len() != layers {
        let what = format!("{} coverages, the parent has {layers} layers", mask.coverage.len());
        return Err(CutError::MaskField { what });
    }
    if let Some(layer) = mask.coverage.iter().position(|c| !provenance::is_share(*c as f32)) {
        let what = format!("a coverage of {} in layer {layer}", mask.coverage[layer]);
        return Err(CutError::MaskField { what });
    }
    for (of, hash) in [("itself", sha256), ("its profile", &mask.profile)] {
        if !provenance::is_sha256(hash) {
            return Err(CutError::MaskField { what: format!("{hash:?} as the SHA-256 of {of}") });
        }
    }
    Ok(())
}

/// What becomes of one tensor, and by whose experts.
struct Of<'a> {
    fate: Fate,
    block: usize,
    experts_in: usize,
    ids: Option<&'a Vec<u32>>,
}

fn fate<'a>(
    arch: &Arch,
    tensor: &Tensor,
    shape: &Shape,
    kept: &'a [Vec<u32>],
) -> Result<Of<'a>, CutError> {
    let name = || tensor.name.clone();
    if arch::block_of(&tensor.name).is_some_and(|block| block >= kept.len()) {
        return Ok(Of { fate: Fate::Dropped, block: 0, experts_in: 0, ids: None });
    }
    match arch.fate(&tensor.name) {
        arch::Fate::Keep => Ok(Of { fate: Fate::Kept, block: 0, experts_in: 0, ids: None }),
        arch::Fate::Unknown => Err(CutError::Unknown { tensor: name() }),
        arch::Fate::Slice { block } => {
            let ids = kept.get(block).filter(|kept| !kept.is_empty());
            let ids = Some(ids.ok_or_else(|| CutError::NoMask { tensor: name() })?);
            let experts_in =
                if block < shape.layers { shape.experts_in(block) } else { shape.experts };
            Ok(Of { fate: Fate::Sliced, block, experts_in, ids })
        }
    }
}

/// The most that a layer keeps; for most runtimes the number that all keep.
fn most(kept: &[Vec<u32>], runtime: Runtime) -> Result<usize, CutError> {
    let mut counts = kept.iter().map(Vec::len).enumerate().filter(|(_, count)| *count > 0);
    if runtime == Runtime::Collegium {
        return Ok(counts.map(|(_, count)| count).max().unwrap_or(0));
    }
    let (first, want) = counts.next().unwrap_or_default();
    match counts.find(|(_, got)| *got != want) {
        Some((layer, got)) => Err(CutError::NotUniform { layer, got, first, want }),
        None => Ok(want),
    }
}

/// The experts that stay in a block that predicts further tokens.
fn ids_ahead(
    shape: &Shape,
    blocks: usize,
    want: usize,
    request: &Ahead,
) -> Result<Vec<u32>, CutError> {
    let ids = match request {
        Ahead::Drop => return Ok(Vec::new()),
        _ if blocks == 0 => return Err(CutError::NothingAhead),
        Ahead::First => return Ok((0..want as u32).collect()),
        Ahead::Ids(ids) => ids,
    };
    let in_order = ids.is_sorted_by(|a, b| a < b);
    match in_order && ids.len() == want && ids.iter().all(|id| (*id as usize) < shape.experts) {
        true => Ok(ids.clone()),
        false => Err(CutError::AheadIds { got: ids.len(), want, experts: shape.experts }),
    }
}

/// Bytes of one expert in a tensor with an expert axis.
fn slice_bytes(tensor: &Tensor, experts: usize) -> Result<u64, CutError> {
    let experts_u64 = experts as u64;
    // One number for each expert, such as a bias of the router, has no axis beside theirs that blocks could run along.
    let in_blocks_across = tensor.dims.len() < 2 && tensor.kind.block_weights() > 1;
    if in_blocks_across
        || experts == 0
        || tensor.dims.last() != Some(&experts_u64)
        || !tensor.bytes.is_multiple_of(experts_u64)
    {
        let (tensor, dims) = (tensor.name.clone(), tensor.dims.clone());
        return Err(CutError::Axis { tensor, dims, experts });
    }
    Ok(tensor.bytes / experts_u64)
}

fn provenance_of(
    parent: &Gguf,
    shape: &Shape,
    mask: &MaskFile,
    mask_sha256: &str,
    kept: &[Vec<u32>],
    ahead: usize,
) -> Result<Provenance, CutError> {
    let counts = provenance::counts(shape, ahead);
    let before = Provenance::read(parent, &counts)?;
    let compose = |(block, kept): (usize, &Vec<u32>)| match &before {
        None => Ok(kept.clone()),
        Some(before) => {
            let first = &before.kept[block];
            let (got, want) = (first.len(), counts[block]);
            provenance::compose(first, kept).ok_or(ProvenanceError::Count { block, got, want })
        }
    };
    let kept = kept.iter().enumerate().map(compose).collect::<Result<_, _>>()?;
    let (first, name) = match &before {
        Some(before) => (before.parent.clone(), before.name.clone()),
        None => (parent.sha256(), shape.name.clone()),
    };
    Ok(Provenance {
        parent: first,
        name,
        domain: mask.domain.clone(),
        mask: mask_sha256.to_owned(),
        profile: mask.profile.clone(),
        coverage: mask.coverage.iter().map(|share| *share as f32).collect(),
        kept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn experts_are_the_last_axis() {
        let parent = Folder::new().parent(1);
        let tensor = parent.tensor("blk.0.ffn_down_exps.weight").unwrap();
        assert_eq!(slice_bytes(tensor, 4).unwrap(), tensor.bytes / 4);
        let turned = Tensor { dims: vec![4, 32, 32], ..tensor.clone() };
        for (tensor, experts) in [(&turned, 4), (tensor, 2), (tensor, 0)] {
            let error = slice_bytes(tensor, experts).unwrap_err();
            assert!(matches!(error, CutError::Axis { .. }), "{error}");
        }
        // A number for each expert is no blocks of numbers.
        let scales = Tensor { dims: vec![4], kind: engine::ggml::Kind::Q8_0, ..tensor.clone() };
        assert!(slice_bytes(&scales, 4).is_err());
    }
}
