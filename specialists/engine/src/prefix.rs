//! Sequences that have ended, kept while nobody needs their pages: one that begins alike goes on from there.
//!
//! What a sequence stored is a function of its tokens and its specialist's experts, so both must agree.  The promise:
//! going on from here gives the bits that reading it all again would give.  A sequence whose experts were renormalised
//! away while they were not resident goes on only for one of its kind, which is promised no bits.

use std::sync::Arc;

use crate::kv::{PAGE, Pages};
use crate::mask::ExpertMask;

/// Sequences kept at most: looking through them must stay cheap.
const MOST: usize = 64;

struct Entry {
    mask: Option<Arc<ExpertMask>>,
    exact: bool,
    /// Those that are stored.
    tokens: Vec<u32>,
    pages: Pages,
    /// When it was of use last.
    used: u64,
}

#[derive(Default)]
pub(crate) struct Prefixes {
    entries: Vec<Entry>,
    clock: u64,
}

fn same(a: &Option<Arc<ExpertMask>>, b: &Option<Arc<ExpertMask>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        _ => false,
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Prefixes {
    /// A sequence that has read as much of `tokens` as any kept one has, but not the last, whose logits are wanted.
    /// `None` if that is less than a page.
    pub fn find(
        &mut self,
        mask: &Option<Arc<ExpertMask>>,
        exact: bool,
        tokens: &[u32],
    ) -> Option<Pages> {
        self.clock += 1;
        let wanted = &tokens[..tokens.len().saturating_sub(1)];
        let fitting = |e: &Entry| {
            let shared = common(&e.tokens, wanted);
            let alike = e.exact == exact && same(&e.mask, mask);
            shared >= PAGE && alike && e.pages.forks_at(shared)
        };
        let all = self.entries.iter_mut().filter(|e| fitting(e));
        let best = all.max_by_key(|e| common(&e.tokens, wanted))?;
        best.used = self.clock;
        // A copy of its last page may need the page of another.
        loop {
            let best = self.entries.iter().find(|e| e.used == self.clock)?;
            let pages = best.pages.fork(common(&best.tokens, wanted));
            if pages.is_some() || self.entries.len() == 1 {
                return pages;
            }
            self.give_back();
        }
    }

    /// Keeps what a sequence stored of `tokens`; what it makes superfluous goes.
    pub fn keep(
        &mut self,
        mask: Option<Arc<ExpertMask>>,
        exact: bool,
        tokens: &[u32],
        pages: Pages,
    ) {
        let tokens = tokens[..pages.len().min(tokens.len())].to_vec();
        if tokens.len() < PAGE {
            return;
        }
        self.clock += 1;
        let covered = |e: &Entry| {
            let alike = e.exact == exact && same(&e.mask, &mask);
            alike && tokens.starts_with(&e.tokens) && pages.forks_at(e.tokens.len())
        };
        self.entries.retain(|e| !covered(e));
        if self.entries.len() == MOST {
            self.give_back();
        }
        self.entries.push(Entry { mask, exact, tokens, pages, used: self.clock });
    }

    /// Lets go of the one that was of no use for longest; `false` if there is none.
    pub fn give_back(&mut self) -> bool {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map(|(i, _)| i);
        oldest.map(|i| self.entries.swap_remove(i)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Kept, KvStore, Layout, Precision};
    use crate::shape::Shape;

    /// How many tokens of `wanted` need not be read after `kept` were.
    #[track_caller]
    fn check(kept: &[&[u32]], wanted: &[u32], expect: usize) {
        let layout = Layout::new(vec![Kept::keys(1, 4)], Precision::F32);
        let store = KvStore::new(&layout, layout.bytes_for(4096)).unwrap();
        let mut prefixes = Prefixes::default();
        for tokens in kept {
            let mut pages = store.reserve(tokens.len()).unwrap();
            (0..tokens.len()).for_each(|p| pages.put(0, p, &[0.0; 4], &[0.0; 4]));
            pages.advance(tokens.len());
            prefixes.keep(None, true, tokens, pages);
        }
        assert_eq!(prefixes.find(&None, true, wanted).map_or(0, |p| p.len()), expect);
        // Another specialist's are of no use.
        let mask = Arc::new(ExpertMask::full(&Shape::of_experts(1, 4, 2)));
        assert!(prefixes.find(&Some(mask), true, wanted).is_none());
        // And what depends on who was resident is for nobody who was promised the same bits.
        assert!(prefixes.find(&None, false, wanted).is_none());
        while prefixes.give_back() {}
        assert_eq!(store.bytes_in_use(), 0);
    }

    #[test]
    fn the_longest_beginning_is_found() {
        let text: Vec<u32> = (0..200).collect();
        let other: Vec<u32> = (0..50).chain(900..1000).collect();
        check(&[], &text, 0);
        check(&[&text[..100]], &text, 100);
        check(&[&text[..64], &text[..100], &other], &text, 100);
        check(&[&text], &other, 50);
        // The last token is always read: its logits are wanted.
        check(&[&text], &text, 199);
        check(&[&text], &text[..120], 119);
        // Less than a page is not worth a copy.
        check(&[&text[..20]], &text, 0);
        check(&[&text], &text[..32], 0);
    }
}
