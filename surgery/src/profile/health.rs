//! What a profile must be for a mask to be made from it.

use engine::{Profile, Shape, Taps};

use super::ProfileError;
use crate::stability::LEAST_AGREEMENT;

/// Tokens for each expert of a layer below which its share is a guess.
pub const TOKENS_PER_EXPERT: u64 = 4;

/// Tokens that a profile of this parent needs at least.
pub fn needed(shape: &Shape) -> u64 {
    TOKENS_PER_EXPERT * shape.experts as u64
}

/// That a profile is of this parent, whole, and long enough unless that is forced.
///
/// # Errors
///
/// The first thing that is wrong, by name and number.
pub fn usable(
    profile: &Profile,
    shape: &Shape,
    parent: &str,
    force: bool,
) -> Result<(), ProfileError> {
    if profile.parent != parent {
        let (profile, parent) = (profile.parent.clone(), parent.to_owned());
        return Err(ProfileError::OtherParent { profile, parent });
    }
    let (has, wants) = (
        [profile.layers, profile.experts, profile.top_k],
        [shape.layers, shape.experts, shape.top_k],
    );
    if has != wants {
        let (profile, parent) = (format!("{has:?}"), format!("{wants:?}"));
        return Err(ProfileError::Shape { profile, parent });
    }
    finite(profile)?;
    let more = needed(shape).saturating_sub(profile.tokens);
    if more > 0 && !force {
        let (tokens, experts) = (profile.tokens, shape.experts);
        return Err(ProfileError::Few { tokens, experts, more });
    }
    unreached(profile, shape)
}

/// What to know of a profile that can be used.
pub fn warnings(profile: &Profile, shape: &Shape) -> Vec<String> {
    let (needed, mut warnings) = (needed(shape), Vec::new());
    if profile.tokens < needed {
        warnings.push(format!(
            "{} tokens for {} experts a layer, {needed} are four each; a mask made of them is a guess",
            profile.tokens, profile.experts
        ));
    }
    match profile.agreement {
        None => warnings.push(
            "nothing says how stable a mask would be: it takes two items that reach a layer; split the text into lines"
                .to_owned(),
        ),
        Some(agreement) if agreement < LEAST_AGREEMENT => warnings.push(format!(
            "masks of the two halves of the items agree by {agreement:.3} only, {LEAST_AGREEMENT} are usual for enough \
             text; give more"
        )),
        Some(_) => {}
    }
    warnings
}

/// That every layer with experts was reached, if any token was read.
///
/// # Errors
///
/// [`ProfileError::Unreached`].
pub fn unreached(profile: &Profile, shape: &Shape) -> Result<(), ProfileError> {
    let never = |layer: &usize| {
        shape.routed[*layer] && profile.layer_counts(*layer).iter().all(|count| *count == 0)
    };
    match (0..shape.layers).find(never).filter(|_| profile.tokens > 0) {
        Some(layer) => Err(ProfileError::Unreached { layer, experts: shape.experts_in(layer) }),
        None => Ok(()),
    }
}

/// That gates and norms are numbers.
pub(super) fn finite(profile: &Profile) -> Result<(), ProfileError> {
    let (e, k) = (profile.experts.max(1), profile.top_k.max(1));
    let Taps { gate_mass, output_norm, gated_norm, .. } = &profile.all;
    for (what, sums, each) in
        [("gate", gate_mass, k), ("output norm", output_norm, 1), ("gated norm", gated_norm, 1)]
    {
        if let Some(at) = sums.iter().position(|sum| !sum.is_finite()) {
            let (layer, expert) = (at / (e * each), at / each % e);
            let (value, tokens) = (sums[at], profile.tokens);
            return Err(ProfileError::NotFinite { layer, expert, what, value, tokens });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_named() {
        #[track_caller]
        fn check(spoil: impl Fn(&mut Taps), want: &str) {
            let mut profile = Profile::new(&Shape::of_experts(2, 3, 2), "p", "law");
            spoil(&mut profile.all);
            let found = finite(&profile).map_or_else(|error| error.to_string(), |()| String::new());
            assert!(found.starts_with(want), "{found}");
        }
        check(|_| (), "");
        check(|taps| taps.gate_mass[11] = f64::NAN, "layer 1, expert 2: ");
        check(|taps| taps.output_norm[4] = f64::INFINITY, "layer 1, expert 1: ");
        check(|taps| taps.gated_norm[2] = f64::NAN, "layer 0, expert 2: ");
        check(|taps| taps.gated_norm[3] = f64::NAN, "layer 1, expert 0: ");
    }
}
