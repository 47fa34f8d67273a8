//! What is computed: that two parents have the same logits, bit for bit, and
//! what a mask does to a router that does not renormalise.

use std::io;

use engine::{ExpertMask, Masking, Profile};

use crate::evaluate::text::{best, divergence};
use crate::tokens::Window;
use crate::{Parent, Progress};

/// How many logits were looked at; the first that is no number ends it.
pub(super) fn all_finite(before: u64, at: usize, logits: &[f32]) -> Result<u64, String> {
    match logits.iter().position(|v| !v.is_finite()) {
        Some(id) => Err(format!("token {at} of a probe: the logit of id {id} is {}", logits[id])),
        None => Ok(before + logits.len() as u64),
    }
}

/// The cut file computes the masked parent's logits, bit for bit.
pub(super) fn equal(
    parent: &Parent,
    mask: &ExpertMask,
    specialist: &Parent,
    probes: &[Window],
    progress: Progress,
) -> io::Result<Result<String, String>> {
    let vocab = parent.model.shape().vocab;
    let total = probes.len() as u64;
    let mut found = Ok(0u64);
    for (done, window) in probes.iter().enumerate() {
        progress(done as u64, total, "verify");
        let mut want = Vec::with_capacity(window.tokens.len() * vocab);
        parent.read(window, Some(mask), None, |_, logits| want.extend_from_slice(logits))?;
        specialist.read(window, None, None, |at, got| {
            let want = want.get(at * vocab..(at + 1) * vocab).unwrap_or_default();
            found = found.clone().and_then(|n| same_bits(n, done, at, want, got));
        })?;
    }
    progress(total, total, "verify");
    Ok(found.map(|n| format!("{n} logits of {total} probes are equal bit for bit")))
}

pub(super) fn same_bits(
    before: u64,
    probe: usize,
    at: usize,
    want: &[f32],
    got: &[f32],
) -> Result<u64, String> {
    all_finite(0, at, got)?;
    if want.len() != got.len() {
        return Err(format!("{} logits, the masked parent has {}", got.len(), want.len()));
    }
    match want.iter().zip(got).position(|(want, got)| want.to_bits() != got.to_bits()) {
        None => Ok(before + got.len() as u64),
        Some(id) => Err(format!(
            "probe {probe}, token {at}: the logit of id {id} is {}, the masked parent's {}",
            got[id], want[id]
        )),
    }
}

/// For a router that does not renormalise: how much larger the gates of kept
/// experts become when the others are gone, and how far that is from keeping
/// the parent's gates.
pub(super) fn gates(
    parent: &Parent,
    mask: &ExpertMask,
    probes: &[Window],
) -> io::Result<Result<String, String>> {
    let shape = parent.model.shape();
    let [before, after] =
        [Masking::BeforeSoftmax, Masking::AfterSoftmax].map(|masking| mask.clone().acting(masking));
    let mut taps = [(); 2].map(|()| Profile::new(shape, "", ""));
    let (mut far, mut positions) = ([0f64; 2], 0u64);
    let mut same_best = 0u64;
    for window in probes {
        let run = |mask, taps| -> io::Result<Vec<f32>> {
            let mut all = Vec::new();
            parent.read(window, mask, taps, |_, logits| all.extend_from_slice(logits))?;
            Ok(all)
        };
        let whole = run(None, None)?;
        let [first, second] = &mut taps;
        let masked = [run(Some(&before), Some(first))?, run(Some(&after), Some(second))?];
        for at in 0..window.tokens.len() {
            let of = |logits: &[f32]| logits[at * shape.vocab..(at + 1) * shape.vocab].to_vec();
            let [a, b] = masked.each_ref().map(|logits| of(logits));
            let whole = of(&whole);
            for (far, logits) in far.iter_mut().zip([&a, &b]) {
                *far += divergence(&whole, logits);
            }
            same_best += u64::from(best(&a) == best(&b));
            positions += 1;
        }
    }
    let [first, second] = taps.map(|taps| mean_gates(&taps));
    let layers = first.iter().zip(&second).enumerate().filter(|(_, (a, b))| **a > 0.0 && **b > 0.0);
    let ratios: Vec<(usize, f64)> = layers.map(|(layer, (a, b))| (layer, a / b)).collect();
    let mean = ratios.iter().map(|(_, r)| r).sum::<f64>() / ratios.len().max(1) as f64;
    let most = ratios.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((layer, most)) = most.filter(|_| mean.is_finite() && positions > 0) else {
        return Ok(Err("no expert ran, or gates are not numbers".to_owned()));
    };
    let [before, after] = far.map(|far| far / positions as f64);
    Ok(Ok(format!(
        "this router does not renormalise: without the others, gates of kept experts are 1/c of the parent's, c being \
         the probability they have together; x{mean:.2} in the mean, x{most:.2} in layer {layer}. That is the parent \
         masked before the softmax, and what a cut file computes (KL to the whole parent {before:.4}); masked after it, \
         which keeps the parent's gates, it is {after:.4}, and the best token the same at {same_best} of {positions}"
    )))
}

/// [layers], the mean gate of what ran, weighed by what it made.
fn mean_gates(taps: &Profile) -> Vec<f64> {
    let by_layer = |sums: &[f64]| -> Vec<f64> {
        sums.chunks(taps.experts.max(1)).map(|layer| layer.iter().sum()).collect()
    };
    let (gated, norms) = (by_layer(&taps.all.gated_norm), by_layer(&taps.all.output_norm));
    gated
        .iter()
        .zip(norms)
        .map(|(gated, norm)| if norm > 0.0 { gated / norm } else { 0.0 })
        .collect()
}
