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
//! * `make`: profiles to a mask file.
//! * `score`: what makes an expert matter; `stats`: profiles, read by a score.
//! * `counts`: how many stay; `state`: a mask on its way; `passes`: the list of passes, and those about counts.
//! * `whitelist`, `reasoning`, `guard`: a pass each; `maxmin`: the guards' solver.
//!
//! To add a score: a row of the list in `score`.  To add a rule: a pass in
//! `passes::PASSES`, a field of [`Wishes`], and a case in `tests`.

mod counts;
mod error;
mod guard;
mod make;
mod maxmin;
mod passes;
#[cfg(test)]
mod properties;
mod reasoning;
mod score;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod whitelist;

use engine::Profile;

pub use counts::{Request, Target, fused};
pub use error::{MaskError, Warning};
pub use guard::{FLOOR, Guard, Guarded};
pub use make::{Beside, Made, Order, from_profile, make};
pub use passes::Step;
pub use reasoning::{Reasoning, SWAPS};
pub use score::{About, DEFAULT, Needs, Score};
pub use stats::{Stats, Taps, enough, reached};
pub use whitelist::{USUAL as USUAL_WHITELIST, Whitelist};

use state::State;

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
    let mut state = State {
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
