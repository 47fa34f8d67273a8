//! Profiles to a mask file: they are checked and read, experts are chosen, and the file names all that it was made from.

use engine::{MaskFile, Masking, Pass as Recorded, Profile, Source, arch};

use super::{
    Choice, Guard, Guarded, MaskError, Needs, Reasoning, Request, Score, Stats, Step, Taps,
    Warning, Whitelist, Wishes, choose, enough, reached,
};

/// A profile other than the domain's, and the hash of its file.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    pub profile: &'a Profile,
    pub sha256: &'a str,
}

/// What a mask is made by.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    pub score: Score,
    pub request: Request,
    /// For llama.cpp: one count, and one that its kernels like.
    pub fused: bool,
    pub whitelist: Option<Whitelist>,
    /// A profile of reasoning, and how many of a layer's experts it may swap.
    pub reasoning: Option<(Beside<'a>, usize)>,
    /// Profiles of what must stay, each with the share of its gate mass.
    pub guards: &'a [(Beside<'a>, f64)],
    /// The domain's target beside guards, for a request that is no coverage; [`super::FLOOR`] without one.
    pub floor: Option<f64>,
    /// Which layers of the parent have experts, if that is known.
    pub routed: Option<&'a [bool]>,
    /// Where in the router the mask acts.
    pub masking: Masking,
    /// Few tokens are a warning.
    pub force: bool,
}

impl Order<'_> {
    /// The base pass alone, of a profile with tokens enough.
    pub fn plain(score: Score, request: Request) -> Order<'static> {
        let Wishes { request, fused, whitelist, floor, .. } = Wishes::plain(request);
        let (reasoning, guards, routed, force) = (None, &[][..], None, false);
        let masking = Masking::default();
        Order { score, request, fused, whitelist, reasoning, guards, floor, routed, masking, force }
    }
}

/// A mask and what there is to say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    pub file: MaskFile,
    pub guards: Vec<Guarded>,
    pub warnings: Vec<Warning>,
}

/// The mask file of a profile, by all passes that are wished for; `sha256` is of the profile's file.
///
/// # Errors
///
/// [`MaskError`]; never a partial mask.
pub fn make(profile: &Profile, sha256: &str, order: &Order) -> Result<Made, MaskError> {
    let renormalises = arch::renormalises(&profile.architecture).unwrap_or(false);
    if order.masking == Masking::AfterSoftmax && renormalises {
        return Err(MaskError::Renormalises { architecture: profile.architecture.clone() });
    }
    let mut warnings = Vec::new();
    let mut read = |other: &Profile, name: Option<&str>| -> Result<Stats, MaskError> {
        let mut read = || {
            if other.parent != profile.parent {
                let (other, parent) = (other.parent.clone(), profile.parent.clone());
                return Err(MaskError::OtherParent { other, parent });
            }
            order.score.check(other.known)?;
            if order.score.about().needs == Needs::Norms && !other.known.norms {
                warnings.push(Warning::StandIn { score: order.score.name() });
            }
            let stats = Stats::new(Taps::of(other), order.score)?;
            match enough(other) {
                Err(MaskError::FewTokens { tokens, experts, need }) if order.force => {
                    warnings.push(Warning::FewTokens { tokens, experts, need });
                }
                judged => judged?,
            }
            Ok(stats)
        };
        read().map_err(|error| match name {
            None => error,
            Some(name) => MaskError::In { profile: name.to_owned(), error: Box::new(error) },
        })
    };
    let stats = read(profile, None)?;
    let mut unread = None;
    match order.routed {
        Some(routed) => reached(profile, routed)?,
        None => {
            let mut unreached = (0..stats.layers()).filter(|layer| stats.dense(*layer));
            let others = unreached.clone().count();
            if let Some(layer) = unreached.next() {
                unread = Some(Warning::Unreached { layer, layers: others });
            }
        }
    }
    let reasoning = match order.reasoning {
        Some((other, swaps)) => Some((read(other.profile, Some("reasoning"))?, swaps)),
        None => None,
    };
    let guard = |(other, target): &(Beside, f64)| -> Result<Guard, MaskError> {
        let name = other.profile.domain.clone();
        Ok(Guard {
            stats: read(other.profile, Some(&format!("guard {name}")))?,
            name,
            target: *target,
        })
    };
    let guards: Vec<Guard> = order.guards.iter().map(guard).collect::<Result<_, _>>()?;
    let wishes = Wishes {
        request: order.request,
        fused: order.fused,
        whitelist: order.whitelist,
        reasoning: reasoning.as_ref().map(|(stats, swaps)| Reasoning { stats, swaps: *swaps }),
        guards: &guards,
        floor: order.floor,
    };
    let choice = choose(&stats, &wishes)?;
    warnings.extend(unread);
    warnings.extend(choice.warnings.iter().cloned());
    let guards = choice.guards.clone();
    Ok(Made { file: file(profile, sha256, order, choice), guards, warnings })
}

/// What of an order is made from other profiles than the domain's.
fn sources(order: &Order) -> Vec<Source> {
    let of = |pass: &str, beside: Beside, share, swaps| Source {
        pass: pass.to_owned(),
        domain: beside.profile.domain.clone(),
        profile: beside.sha256.to_owned(),
        share,
        swaps,
    };
    let reasoning =
        order.reasoning.map(|(beside, swaps)| of("reasoning", beside, None, Some(swaps)));
    let guards =
        order.guards.iter().map(|(beside, share)| of("guards", *beside, Some(*share), None));
    reasoning.into_iter().chain(guards).collect()
}

/// The mask file of a profile, by the base pass alone and however few its tokens are; `sha256` is
/// of the profile's file.
///
/// # Errors
///
/// [`MaskError`]; never a partial mask.
pub fn from_profile(
    profile: &Profile,
    sha256: &str,
    score: Score,
    request: Request,
) -> Result<MaskFile, MaskError> {
    let order = Order { force: true, ..Order::plain(score, request) };
    Ok(make(profile, sha256, &order)?.file)
}

fn file(profile: &Profile, sha256: &str, order: &Order, choice: Choice) -> MaskFile {
    let record = |step: Step| Recorded {
        name: step.pass.to_owned(),
        layer: step.layer,
        added: step.added,
        removed: step.removed,
    };
    MaskFile {
        format: order.masking.format().to_owned(),
        parent: profile.parent.clone(),
        domain: profile.domain.clone(),
        score: order.score.name().to_owned(),
        experts: choice.kept.iter().map(Vec::len).collect(),
        kept: choice.kept,
        coverage: choice.coverage,
        profile: sha256.to_owned(),
        sources: sources(order),
        masking: order.masking,
        passes: choice.steps.into_iter().map(record).collect(),
    }
}
