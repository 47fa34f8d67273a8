//! Where conversations are: a bounded map from marks to places that forgets.
//!
//! Only hashes and ids of domains are in it, never text.  When it is full the one that was of no use for longest leaves
//! (second chance: one that was used since it was last looked at is spared once); what was idle for too long is as if it
//! had never been there.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::identity::Mark;
use super::policy::Place;

struct Entry {
    place: Place,
    seen: Instant,
    /// Since it was last looked at to make room.
    used: bool,
}

/// The places of conversations, by mark.
pub struct Ring {
    places: DashMap<Mark, Entry>,
    /// Every mark in `places` once, the one to be looked at next first.
    order: Mutex<VecDeque<Mark>>,
    most: usize,
    idle: Duration,
}

impl Ring {
    pub fn new(most: usize, idle: Duration) -> Self {
        let (places, order) = (DashMap::new(), Mutex::default());
        Self { places, order, most: most.max(1), idle }
    }

    /// The place of a mark; nothing is changed.
    pub fn get(&self, mark: &Mark, now: Instant) -> Option<Place> {
        let entry = self.places.get(mark)?;
        let fresh = now.saturating_duration_since(entry.seen) < self.idle;
        fresh.then(|| entry.place.clone())
    }

    /// Keeps a place.
    pub fn put(&self, mark: Mark, place: Place, now: Instant) {
        // One at a time, so that `order` and `places` agree.
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry { place, seen: now, used: false };
        if let Some(mut old) = self.places.get_mut(&mark) {
            *old = Entry { used: true, ..entry };
            return;
        }
        self.places.insert(mark, entry);
        order.push_back(mark);
        while order.len() > self.most {
            let Some(oldest) = order.pop_front() else { break };
            if self.spare(&oldest, now) {
                order.push_back(oldest);
            } else {
                self.places.remove(&oldest);
            }
        }
    }

    /// Whether it was used since the last look; it is not spared twice.
    fn spare(&self, mark: &Mark, now: Instant) -> bool {
        let Some(mut entry) = self.places.get_mut(mark) else { return false };
        let fresh = now.saturating_duration_since(entry.seen) < self.idle;
        std::mem::take(&mut entry.used) && fresh
    }

    /// How many are remembered.
    pub fn remembered(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn place(domain: &str) -> Place {
        Place { domain: Some(domain.to_owned()), ..Place::default() }
    }

    fn mark(n: u64) -> Mark {
        Mark::of(&[&n.to_le_bytes()])
    }

    #[test]
    fn the_least_used_leave() {
        let (ring, now) = (Ring::new(4, IDLE), Instant::now());
        ring.put(mark(0), place("law"), now);
        for n in 1..1000 {
            ring.put(mark(n), place("math"), now);
            // One conversation goes on, however many others come.
            ring.put(mark(0), place("law"), now);
            assert!(ring.remembered() <= 4);
        }
        assert_eq!(ring.get(&mark(0), now), Some(place("law")));
        assert_eq!(ring.get(&mark(999), now), Some(place("math")));
        assert_eq!(ring.get(&mark(1), now), None);
    }

    #[test]
    fn one_that_speaks_often_pushes_nobody_out() {
        let (ring, now) = (Ring::new(4, IDLE), Instant::now());
        (0..4).for_each(|n| ring.put(mark(n), place("law"), now));
        (0..1000).for_each(|_| ring.put(mark(0), place("math"), now));
        assert!((1..4).all(|n| ring.get(&mark(n), now).is_some()));
    }

    #[test]
    fn the_idle_are_forgotten() {
        let (ring, now) = (Ring::new(4, IDLE), Instant::now());
        ring.put(mark(0), place("law"), now);
        assert!(ring.get(&mark(0), now + IDLE / 2).is_some());
        assert!(ring.get(&mark(0), now + IDLE).is_none());
        ring.put(mark(0), place("law"), now + IDLE / 2);
        assert!(ring.get(&mark(0), now + IDLE).is_some());
    }
}
