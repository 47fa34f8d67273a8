//! How many experts a layer keeps: what was asked for, and what a runtime likes.

use super::error::MaskError;

/// How much of each layer stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// So many experts of each layer.
    Count(u32),
    /// This share of each layer's experts, in (0, 1], rounded to whole ones.
    Share(f64),
    /// The fewest experts, best score first, that carry this share of the
    /// layer's gate mass, in (0, 1].
    Coverage(f64),
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub target: Target,
    /// One count for all layers, as llama.cpp and every runtime that reads a
    /// single `expert_count` needs.  Otherwise a count or a share is the mean
    /// over the layers, and goes where the score is spread widest.
    pub uniform: bool,
}

impl Target {
    /// `"16"` or `"50%"`, as `--keep` takes it.
    ///
    /// # Errors
    ///
    /// [`MaskError::Keep`] if it is neither.
    pub fn keep(text: &str) -> Result<Target, MaskError> {
        let bad = || MaskError::Keep { text: text.to_owned() };
        match text.strip_suffix('%') {
            Some(percent) => {
                let share = percent.trim().parse::<f64>().map_err(|_| bad())? / 100.0;
                if share > 0.0 && share <= 1.0 { Ok(Target::Share(share)) } else { Err(bad()) }
            }
            None => match text.trim().parse() {
                Ok(0) | Err(_) => Err(bad()),
                Ok(count) => Ok(Target::Count(count)),
            },
        }
    }

    /// Experts of each layer, or in the mean over them; a coverage has no such number.
    pub(super) fn count(self, experts: usize) -> Option<usize> {
        match self {
            Target::Count(count) => Some(count as usize),
            Target::Share(share) => Some((share * experts as f64).round() as usize),
            Target::Coverage(_) => None,
        }
    }

    /// # Errors
    ///
    /// [`MaskError`] if no layer can be cut so.
    pub(crate) fn check(self, experts: usize, top_k: usize) -> Result<(), MaskError> {
        match self {
            Target::Count(asked) if asked as usize > experts => {
                return Err(MaskError::TooMany { asked, experts });
            }
            Target::Share(share) | Target::Coverage(share) => share_of(share)?,
            Target::Count(_) => {}
        }
        match self.count(experts) {
            Some(asked) if asked < top_k => Err(MaskError::BelowTopK { asked, top_k }),
            _ => Ok(()),
        }
    }
}

/// # Errors
///
/// [`MaskError::Share`] unless it is in (0, 1].
pub(super) fn share_of(share: f64) -> Result<(), MaskError> {
    if share > 0.0 && share <= 1.0 { Ok(()) } else { Err(MaskError::Share { share }) }
}

/// Why a count matters to llama.cpp.
pub(super) const FUSED_RULE: &str =
    "llama.cpp's fused routing on CUDA needs a power of two up to 512, or 288 or 576";

/// The largest number of experts that the fused kernel takes.
const FUSED_MOST: usize = 576;

/// Whether llama.cpp routes among so many experts in one fused kernel on CUDA;
/// others work and are slower.  Source: its `ggml/src/ggml-cuda/topk-moe.cu`.
pub fn fused(count: usize) -> bool {
    (count.is_power_of_two() && count <= 512) || count == 288 || count == FUSED_MOST
}

/// The smallest fused count from `least` up to `most`.
pub(super) fn fused_above(least: usize, most: usize) -> Option<usize> {
    (least..=most.min(FUSED_MOST)).find(|count| fused(*count))
}

/// The largest fused count from `least` up to `most`.
pub(super) fn fused_below(least: usize, most: usize) -> Option<usize> {
    (least..=most.min(FUSED_MOST)).rev().find(|count| fused(*count))
}
