//! The run itself: rounds of items, and what is kept between them.

use std::time::Instant;

use engine::Profile;

use super::checkpoint::{Place, State};
use super::health::{finite, needed, usable, warnings};
use super::{Plan, ProfileError, Profiled, Round};
use crate::corpus::Survey;
use crate::stability::{agreement, change};
use crate::tokens::{Passed, Walk, walk_items};
use crate::{Parent, Progress};

/// Items and tokens of a first round: fewer say nothing of agreement.
const FIRST_ITEMS: u64 = 32;

/// Bytes of a corpus for each token, as a guess: only how many rounds there are depends on it.
const BYTES_PER_TOKEN: u64 = 4;

/// A run on its way.
pub(super) struct Run<'a> {
    parent: &'a Parent,
    plan: Plan<'a>,
    survey: Survey,
    /// The first of them takes one item in `2^doublings`.
    doublings: u32,
    state: State,
    resumed: u64,
    written: Instant,
}

impl<'a> Run<'a> {
    pub fn new(parent: &'a Parent, plan: Plan<'a>) -> Result<Run<'a>, ProfileError> {
        let (reading, model) = (plan.reading, &parent.model);
        let (shape, survey) = (model.shape(), reading.survey()?);
        let mut profile = Profile::new(shape, &model.parent(), reading.domain.unwrap_or_default());
        profile.source = plan.source()?;
        let of = format!(
            "{} {} {:?} {} pairs {} signatures {} settle {:?}",
            profile.parent,
            profile.source,
            reading.domain,
            survey.items,
            plan.pairs,
            plan.signatures,
            plan.settle
        );
        if plan.pairs {
            profile = profile.with_pairs();
        }
        if plan.signatures {
            profile = profile.with_signatures();
        }
        let none = vec![0.0; shape.layers * shape.experts];
        let place = Place { of, items: 0, round: 0, passed: 0, taken: 0, rounds: Vec::new() };
        let kept = match plan.checkpoint {
            Some(kept) => State::read(kept.path, &place.of)?,
            None => None,
        };
        let resumed = kept.as_ref().map_or(0, |state| state.place.items);
        let state =
            kept.unwrap_or(State { place, profile, halves: [none.clone(), none], before: None });
        let tokens = reading.tokens.unwrap_or(u64::MAX).min(survey.bytes / BYTES_PER_TOKEN);
        let doublings = match plan.settle {
            Some(_) => doublings(survey.items, tokens, needed(shape)),
            None => 0,
        };
        Ok(Run { parent, plan, survey, doublings, state, resumed, written: Instant::now() })
    }

    pub fn finish(mut self, progress: Progress) -> Result<Profiled, ProfileError> {
        let mut settled = false;
        while !settled && self.state.place.round <= self.doublings {
            self.round(progress)?;
            settled = self.judged()?;
        }
        let (shape, model) = (self.parent.model.shape(), &self.parent.model);
        let Run { plan, state, resumed, .. } = self;
        let State { place, mut profile, .. } = state;
        usable(&profile, shape, &model.parent(), plan.force)?;
        profile.agreement = place.rounds.last().and_then(|round| round.agreement);
        let warnings = warnings(&profile, shape);
        let Place { items, rounds, .. } = place;
        Ok(Profiled { profile, items, rounds, settled, resumed, warnings })
    }

    /// Reads the items of one round, from where it is.
    fn round(&mut self, progress: Progress) -> Result<(), ProfileError> {
        let (first, step) = of_round(self.doublings, self.state.place.round);
        let (passed, taken) = (self.state.place.passed, self.state.place.taken);
        let walk = Walk { first, step, passed, taken };
        // Rounds before this one passed the other items of its step.
        let before = if self.state.place.round == 0 { 0 } else { self.survey.bytes / step };
        let (reading, survey) = (self.plan.reading, self.survey);
        let name = reading.corpus.name();
        let model = self.parent.model.clone();
        walk_items(&model, reading, survey, walk, &mut |item: Passed| {
            let bytes = before + item.bytes;
            self.item(item)?;
            progress(bytes.min(survey.bytes), survey.bytes, &name);
            Ok::<(), ProfileError>(())
        })
    }

    fn item(&mut self, item: Passed) -> Result<(), ProfileError> {
        let Run { parent, plan, state, .. } = self;
        if !item.windows.is_empty() {
            let before = sums(&state.profile);
            for window in &item.windows {
                parent.tap(window, &mut state.profile)?;
                state.place.taken += window.tokens.len() as u64;
            }
            let mut own = sums(&state.profile);
            own.iter_mut().zip(&before).for_each(|(after, before)| *after -= before);
            let half = &mut state.halves[(state.place.items % 2) as usize];
            half.iter_mut().zip(&own).for_each(|(sum, own)| *sum += own);
            if let Some(signatures) = &mut state.profile.signatures {
                let own: Vec<f32> = own.iter().map(|own| *own as f32).collect();
                signatures.push(item.line, &own);
            }
            state.place.items += 1;
        }
        state.place.passed += 1;
        match plan.checkpoint {
            Some(kept) if self.written.elapsed() >= kept.every => {
                // Before it is kept: going on from it would not help.
                finite(&state.profile)?;
                state.write(kept.path)?;
                self.written = Instant::now();
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends a round; whether the mask has settled.
    fn judged(&mut self) -> Result<bool, ProfileError> {
        let state = &mut self.state;
        finite(&state.profile)?;
        let (experts, now) = (state.profile.experts, sums(&state.profile));
        let round = Round {
            tokens: state.profile.tokens,
            agreement: agreement([&state.halves[0], &state.halves[1]], experts),
            change: state.before.as_ref().and_then(|before| change(before, &now, experts)),
        };
        state.place.rounds.push(round);
        state.before = Some(now);
        state.place.round += 1;
        (state.place.passed, state.place.taken) = (0, 0);
        let enough = round.tokens >= needed(self.parent.model.shape());
        Ok(enough
            && self.plan.settle.is_some_and(|settle| {
                round.agreement.is_some_and(|agreement| agreement >= settle.agreement)
                    && round.change.is_some_and(|change| change < settle.change)
            }))
    }
}

/// Gate mass, [layers, experts].
fn sums(profile: &Profile) -> Vec<f64> {
    profile.all.gate_mass.chunks(profile.top_k.max(1)).map(|ranks| ranks.iter().sum()).collect()
}

/// How often a first round can be doubled, so that it has enough items and tokens itself.
fn doublings(items: u64, tokens: u64, needed: u64) -> u32 {
    let most = (items / FIRST_ITEMS).min(tokens / needed.max(1));
    most.max(1).ilog2()
}

/// First item and step of a round: one in `2^doublings`, then those halfway between all that came before.
fn of_round(doublings: u32, round: u32) -> (u64, u64) {
    match round {
        0 => (0, 1 << doublings),
        _ => {
            let step = 1 << (doublings + 1 - round);
            (step / 2, step)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_double_and_meet_every_item_once() {
        for doublings in 0..6 {
            let mut seen = vec![0; 100];
            for round in 0..=doublings {
                let (first, step) = of_round(doublings, round);
                seen.iter_mut().skip(first as usize).step_by(step as usize).for_each(|n| *n += 1);
                let (read, step) = (seen.iter().sum::<usize>(), 1 << (doublings - round));
                assert_eq!(read, 100usize.div_ceil(step), "{doublings} {round}");
            }
            assert!(seen.iter().all(|n| *n == 1));
        }
    }

    #[test]
    fn a_first_round_is_large_enough() {
        // Of so many items and tokens, with 100 tokens needed.
        #[track_caller]
        fn check(items: u64, tokens: u64, want: u32) {
            assert_eq!(doublings(items, tokens, 100), want);
        }
        check(1, 1 << 40, 0);
        check(63, 1 << 40, 0);
        check(64, 1 << 40, 1);
        check(1 << 20, 399, 1);
        check(1 << 20, 400, 2);
        check(1 << 20, 0, 0);
    }
}
