//! The latest decisions by id, for those who rate them.
//!
//! Only what a rating needs is kept, and no text unless texts are recorded.  The oldest leave first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;

use crate::conversation::Mark;
use crate::decide::Decided;

/// About a megabyte, and hours of conversation for one person.
const REMEMBERED: usize = 4096;

/// What is known of a decision later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    pub domain: Option<String>,
    pub specialist: String,
    /// Of the conversation, so that a correction moves it.
    pub mark: Option<Mark>,
    /// What the user said, only where texts are recorded.
    pub said: Option<String>,
}

/// The ring of decisions.
#[derive(Default)]
pub struct Decisions {
    by_id: DashMap<String, Remembered>,
    /// Ids in the order they came.
    order: Mutex<VecDeque<String>>,
}

impl Decisions {
    /// Keeps a decision, and drops the oldest if there are too many.
    pub fn remember(&self, decided: &Decided, mark: Option<Mark>, said: Option<String>) {
        let Decided { decision_id, specialist, word, .. } = decided;
        let (domain, specialist) = (word.domain.clone(), specialist.clone());
        let kept = Remembered { domain, specialist, mark, said };
        self.by_id.insert(decision_id.clone(), kept);
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(decision_id.clone());
        while order.len() > REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// The decision of that id, if it is still known.
    pub fn get(&self, id: &str) -> Option<Remembered> {
        self.by_id.get(id).map(|entry| entry.value().clone())
    }
}
