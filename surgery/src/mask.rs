//! Chooses the experts a specialist keeps.
//!
//! In: what the router did on one domain's tokens ([`Profile`]), and what is
//! wished for ([`Order`]).  Out: the mask file, with what each pass did
//! to each layer, how the guards fared, and warnings.  Everything here is pure:
//! no files, no model, no clock, and the same profiles give the same mask anywhere.
//! Ties go to the lower id.
//!
//! Refused by name and number, with nothing made: profiles of another parent,
//! fewer than four tokens for each expert, counts below the router's choices, a
//! layer that was never reached, numbers that are none.
//!
//! A layer without experts (a dense block) is a row of zeros and keeps nothing.
//! A profile alone cannot tell it from one that was never reached: say which
//! layers have experts ([`Order::routed`], [`reached`]), or give a second profile,
//! which must have reached the same layers.  Shared experts are not in a mask:
//! they always run.
//!
//! * `score`: what makes an expert matter; `stats`: profiles, read by a score.
//! * `counts`: how many stay; `passes`: the list of passes, and those about counts.
//! * `whitelist`, `reasoning`, `guard`: a pass each; `maxmin`: the guards' solver.
//!
//! To add a score: a row of the list in `score`.  To add a rule: a pass in
//! `passes::PASSES`, a field of [`Wishes`], and a case in `tests`.

mod counts;
mod error;
mod guard;
mod maxmin;
mod passes;
#[cfg(test)]
mod properties;
mod reasoning;
mod score;
mod stats;
#[cfg(test)]
mod tests;
mod whitelist;

use engine::{MaskFile, Masking, Pass as Recorded, Profile, Source, arch};

pub use counts::{Request, Target, fused};
pub use error::{MaskError, Warning};
pub use guard::{FLOOR, Guard, Guarded};
pub use passes::Step;
pub use reasoning::{Reasoning, SWAPS};
pub use score::{About, DEFAULT, Needs, Score};
pub use stats::{Stats, Taps, enough, reached};
pub use whitelist::{USUAL as USUAL_WHITELIST, Whitelist};

/// What a mask is made by, of statistics that were read and checked.
#[derive(Clone, Debug)]
pub struct Wishes<'a> {
    pub request: Request,
    /// For llama.cpp: one count, and one that its kernels like.
    pub fused: bool,
    pub whitelist: Option<Whitelist>,
    pub reasoning: Option<Reasoning<'a>>,
    pub guards: &'a [Guard],
    /// The domain's target beside guards, for a request that is no coverage; [`FLOOR`] without one.
    pub floor: Option<f64>,
}

impl Wishes<'_> {
    /// The base pass alone.
    pub fn plain(request: Request) -> Wishes<'static> {
        Wishes { request, fused: false, whitelist: None, reasoning: None, guards: &[], floor: None }
    }

    fn floor(&self) -> f64 {
        match self.request.target {
            Target::Coverage(share) => share,
            _ => self.floor.unwrap_or(FLOOR),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Ascending ids per layer.
    pub kept: Vec<Vec<u32>>,
    /// Share of each layer's gate mass on kept experts.
    pub coverage: Vec<f64>,
    /// Only steps that changed something, in the order they were taken.
    pub steps: Vec<Step>,
    pub guards: Vec<Guarded>,
    pub warnings: Vec<Warning>,
}

/// Chooses the kept experts.
///
/// # Errors
///
/// [`MaskError`] if the wishes do not fit the shape or each other.
pub fn choose(stats: &Stats, wishes: &Wishes) -> Result<Choice, MaskError> {
    let experts = stats.experts();
    wishes.request.target.check(experts, stats.top_k)?;
    counts::share_of(wishes.floor())?;
    let guards = wishes.guards.iter().map(|guard| (&guard.name[..], &guard.stats));
    let reasoning = wishes.reasoning.iter().map(|reasoning| ("reasoning", reasoning.stats));
    for (name, other) in guards.chain(reasoning) {
        let wrong = |error| MaskError::In { profile: name.to_owned(), error: Box::new(error) };
        alike(stats, other).map_err(wrong)?;
    }
    for guard in wishes.guards {
        let wrong = |error| MaskError::In { profile: guard.name.clone(), error: Box::new(error) };
        counts::share_of(guard.target).map_err(wrong)?;
    }
    let request = Request { uniform: wishes.request.uniform || wishes.fused, ..wishes.request };
    let wishes = Wishes { request, ..wishes.clone() };
    let nothing = vec![vec![false; experts]; stats.layers()];
    let mut state = passes::State {
        stats,
        wishes: &wishes,
        keep: nothing.clone(),
        pinned: nothing,
        warnings: Vec::new(),
    };
    if stats.of_selections {
        state.warnings.push(Warning::OfSelections);
    }
    let steps = passes::run(&mut state);
    let ids =
        |row: &Vec<bool>| (0..).zip(row).filter(|(_, keep)| **keep).map(|(id, _)| id).collect();
    let kept: Vec<Vec<u32>> = state.keep.iter().map(ids).collect();
    let guards = guard::report(&mut state, &kept);
    Ok(Choice { coverage: stats.coverage(&kept), kept, steps, guards, warnings: state.warnings })
}

/// # Errors
///
/// [`MaskError`] unless two profiles have one shape and reached the same layers.
fn alike(stats: &Stats, other: &Stats) -> Result<(), MaskError> {
    let shape = |s: &Stats| format!("{}x{} top-{}", s.layers(), s.experts(), s.top_k);
    let (own, other_shape) = (shape(stats), shape(other));
    if own != other_shape {
        return Err(MaskError::OtherShape { other: other_shape, own });
    }
    let missed = (0..stats.layers()).find(|layer| other.dense(*layer) && !stats.dense(*layer));
    missed.map_or(Ok(()), |layer| Err(MaskError::Unreached { layer }))?;
    // Seen the other way round it is the domain's profile that lacks a layer.
    let missed = (0..stats.layers()).find(|layer| stats.dense(*layer) && !other.dense(*layer));
    missed.map_or(Ok(()), |layer| Err(MaskError::DomainUnreached { layer }))
}

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
    /// The domain's target beside guards, for a request that is no coverage; [`FLOOR`] without one.
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

/// How much of another profile's gate mass a mask carries, by layer: the test
/// on tokens it was not made from.
///
/// # Errors
///
/// [`MaskError`] if the profile cannot support a judgement.
pub fn coverage(profile: &Profile, kept: &[Vec<u32>]) -> Result<Vec<f64>, MaskError> {
    Ok(Stats::new(Taps::of(profile), Score::Gate)?.coverage(kept))
}

/// A mask of the same sizes drawn at random: the control that a score must
/// beat.  Equal seeds give equal masks.
pub fn random(kept: &[Vec<u32>], experts: u32, seed: u64) -> Vec<Vec<u32>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut draw = |ids: &Vec<u32>| {
        let mut drawn = random.choose_multiple(0..experts, ids.len());
        drawn.sort_unstable();
        drawn
    };
    kept.iter().map(&mut draw).collect()
}
