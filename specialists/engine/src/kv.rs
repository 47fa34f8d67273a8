//! What sequences keep while they run: keys and values in pages, and recurrent states, out of one budget in bytes.
//!
//! A page holds [`PAGE`] tokens of one sequence for all layers of a class: those that see everything are one class,
//! those that see a window of the same width another, whose pages go back as soon as the window has passed them.  A
//! page that is full never changes and is shared by sequences that begin alike ([`Pages::fork`]).  Pages come back when the
//! last sequence that holds them is dropped, and their memory goes back to the system.  `layout` says where in a page a
//! layer's keys (after rotation) and values are, `kernels::pages` how they lie there, `units` whose memory it is.
//!
//! The promise: bytes in use never exceed the budget, and a sequence that finds none left is told so.

mod layout;
mod units;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bank::Bank;
pub use crate::kernels::{PAGE, PageFormat};
pub use config::Precision;
use layout::{Class, Place};
pub use layout::{Kept, Layout};
pub use units::{HostUnits, Units};

/// The store of all sequences.
pub struct KvStore {
    layout: Layout,
    budget: u64,
    /// Bytes of a unit of each class, and of a state at last.
    unit_bytes: Vec<usize>,
    books: Mutex<Books>,
}

struct Books {
    used: u64,
    units: Box<dyn Units>,
}

/// A page, or a state; dropping it gives it back.
struct Unit {
    store: Arc<KvStore>,
    size: usize,
    /// In the memory of the store's device.
    start: *mut u8,
}

// SAFETY: a unit is nobody else's, and written only through its one `Arc`.
unsafe impl Send for Unit {}
// SAFETY: as above.
unsafe impl Sync for Unit {}

/// What one sequence keeps.  Dropping it gives it back.
pub struct Pages {
    store: Arc<KvStore>,
    /// [classes][pages]; none where the window has passed.
    tables: Vec<Vec<Option<Arc<Unit>>>>,
    state: Option<Arc<Unit>>,
    /// Tokens there is room for.
    room: usize,
    /// Tokens stored so far.
    len: usize,
}

impl KvStore {
    /// A store of `bytes` at most in this machine's memory; what is not used takes none.
    ///
    /// # Errors
    ///
    /// When the system has no addresses for it.
    pub fn new(layout: &Layout, bytes: u64) -> std::io::Result<Arc<KvStore>> {
        let units = HostUnits::new(&layout.unit_bytes(), bytes)?;
        Ok(KvStore::with(layout, bytes, Box::new(units)))
    }

    /// The same in memory of the device that computes with a bank's experts.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn of(bank: &Bank, layout: &Layout, bytes: u64) -> std::io::Result<Arc<KvStore>> {
        Ok(KvStore::with(layout, bytes, bank.device().units(layout, bytes)?))
    }

    fn with(layout: &Layout, bytes: u64, units: Box<dyn Units>) -> Arc<KvStore> {
        Arc::new(KvStore {
            layout: layout.clone(),
            budget: bytes,
            unit_bytes: layout.unit_bytes(),
            books: Mutex::new(Books { used: 0, units }),
        })
    }

    /// Tokens that one sequence may have when it is alone.
    pub fn capacity(&self) -> usize {
        self.layout.tokens_in(self.budget)
    }

    /// Where a sequence's numbers lie, and how many bytes they take.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Bytes that may be used.
    pub fn bytes(&self) -> u64 {
        self.budget
    }

    /// Bytes that sequences hold now.
    pub fn bytes_in_use(&self) -> u64 {
        self.books().used
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for `tokens` tokens, or `None` until others give theirs back.
    pub fn reserve(self: &Arc<Self>, tokens: usize) -> Option<Pages> {
        let mut pages = Pages {
            store: self.clone(),
            tables: vec![Vec::new(); self.layout.classes.len()],
            state: None,
            room: 0,
            len: 0,
        };
        pages.grow(tokens).then_some(pages)
    }

    fn take(self: &Arc<Self>, size: usize) -> Option<Arc<Unit>> {
        let (mut books, bytes) = (self.books(), self.unit_bytes[size] as u64);
        if books.used + bytes > self.budget {
            return None;
        }
        let start = books.units.take(size)?;
        books.used += bytes;
        Some(Arc::new(Unit { store: self.clone(), size, start }))
    }
}

impl Unit {
    fn bytes(&self) -> usize {
        self.store.unit_bytes[self.size]
    }

    /// All zero, while nobody else has it.
    fn clear(&self) {
        // SAFETY: the whole unit, new and nobody else's.
        unsafe { self.store.books().units.zero(self.start, self.bytes()) };
    }

    /// Makes this new unit hold what another of its size holds.
    fn copy_from(&self, other: &Unit) {
        debug_assert_eq!(self.size, other.size);
        // SAFETY: two units of one length; the new one has no other owner yet, the other is not written meanwhile,
        // since writing takes its sequence mutably.
        unsafe { self.store.books().units.copy(other.start, self.start, self.bytes()) };
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let mut books = self.store.books();
        books.units.give_back(self.size, self.start);
        books.used -= self.bytes() as u64;
    }
}

impl Pages {
    /// Tokens stored.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.room
    }

    /// Makes room for `tokens` tokens in all.  `false` until others give theirs back; what was got so far is kept.
    pub fn grow(&mut self, tokens: usize) -> bool {
        let arenas = self.tables.len();
        if self.state.is_none() && self.store.layout.state_bytes() > 0 {
            let Some(state) = self.store.take(arenas) else { return false };
            state.clear();
            self.state = Some(state);
        }
        while self.room < tokens {
            let page = self.room / PAGE;
            for class in 0..arenas {
                // A page that an earlier try got is there already.
                if self.tables[class].len() == page {
                    let Some(unit) = self.store.take(class) else { return false };
                    self.tables[class].push(Some(unit));
                }
            }
            self.room += PAGE;
        }
        true
    }

    /// Forgets all tokens.  `false` if others took the room meanwhile.
    pub fn clear(&mut self) -> bool {
        let room = std::mem::take(&mut self.room);
        self.len = 0;
        self.tables.iter_mut().for_each(Vec::clear);
        self.state = None;
        self.grow(room)
    }

    /// Whether another sequence can begin with this one's first `tokens` tokens: a state is only there for all of them,
    /// and a window may have passed what it would need.
    pub fn forks_at(&self, tokens: usize) -> bool {
        let there = |(class, table): (&Class, &Vec<Option<Arc<Unit>>>)| {
            let first = class.window.map_or(0, |w| (tokens + 1).saturating_sub(w) / PAGE);
            table[..tokens.div_ceil(PAGE)].iter().skip(first).all(Option::is_some)
        };
        tokens <= self.len
            && (self.state.is_none() || tokens == self.len)
            && self.store.layout.classes.iter().zip(&self.tables).all(there)
    }

    /// Another sequence that begins with this one's first `tokens` tokens.  Full pages are shared; a page that is not,
    /// and a state, are copied.  `None` if it cannot be, or there is no room for the copies.
    pub fn fork(&self, tokens: usize) -> Option<Pages> {
        if !self.forks_at(tokens) {
            return None;
        }
        let full = tokens / PAGE;
        let copy =
            |unit: &Arc<Unit>| self.store.take(unit.size).inspect(|copy| copy.copy_from(unit));
        let mut tables: Vec<_> = self.tables.iter().map(|table| table[..full].to_vec()).collect();
        if !tokens.is_multiple_of(PAGE) {
            for (from, to) in self.tables.iter().zip(&mut tables) {
                to.push(Some(copy(from[full].as_ref()?)?));
            }
        }
        let state = self.state.as_ref().map(|state| copy(state).ok_or(())).transpose().ok()?;
        let room = tokens.next_multiple_of(PAGE);
        Some(Pages { store: self.store.clone(), tables, state, room, len: tokens })
    }

    /// Counts `tokens` more as stored, after [`Pages::put`] stored them in every layer; pages that no window reaches
    /// any more go back.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        debug_assert!(self.len <= self.room);
        for (class, table) in self.store.layout.classes.iter().zip(&mut self.tables) {
            if let Some(window) = class.window {
                let passed = (self.len + 1).saturating_sub(window) / PAGE;
                table[..passed].iter_mut().for_each(|page| *page = None);
            }
        }
    }

    /// Stores one token's key and value at a position below the capacity, in a page that nobody shares.
    pub(crate) fn put(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) {
        let Place::Page { class, offset, format } = self.store.layout.places[layer] else {
            unreachable!("layer {layer} keeps no keys");
        };
        let unit = self.tables[class][position / PAGE].as_mut();
        let unit = unit.and_then(Arc::get_mut).expect("a page of its own was reserved");
        // SAFETY: within the unit, by the layout; it is borrowed mutably and has no other owner.
        unsafe { format.put(unit.start.wrapping_add(offset), position % PAGE, key, value) };
    }

    /// How a layer's keys and values lie in its pages.
    pub(crate) fn format(&self, layer: usize) -> PageFormat {
        let Place::Page { format, .. } = self.store.layout.places[layer] else {
            unreachable!("layer {layer} keeps no keys");
        };
        format
    }

    /// Where a layer's part of page `index` lies; only stored positions have meaning, and what others share is full and
    /// is not written any more.
    pub(crate) fn page(&self, layer: usize, index: usize) -> *const u8 {
        let Place::Page { class, offset, .. } = self.store.layout.places[layer] else {
            unreachable!("layer {layer} keeps no keys");
        };
        let unit = self.tables[class][index].as_ref().expect("the window has not passed it");
        unit.start.wrapping_add(offset)
    }

    /// Where each page of a class begins, in their order; zero where the window has passed.
    #[cfg(feature = "cuda")]
    pub(crate) fn table(&self, class: usize) -> impl Iterator<Item = u64> {
        self.tables[class].iter().map(|unit| unit.as_ref().map_or(0, |unit| unit.start as u64))
    }

    /// Bytes of a page of every kind together.
    #[cfg(feature = "cuda")]
    pub(crate) fn page_bytes(&self) -> usize {
        self.store.layout.classes.iter().map(|class| class.page_bytes).sum()
    }

    /// How many kinds of pages there are.
    #[cfg(feature = "cuda")]
    pub(crate) fn classes(&self) -> usize {
        self.tables.len()
    }

    /// The class of a layer's pages, and where in a page the layer's keys and values begin.
    #[cfg(feature = "cuda")]
    pub(crate) fn place(&self, layer: usize) -> (usize, usize) {
        let Place::Page { class, offset, .. } = self.store.layout.places[layer] else {
            unreachable!("layer {layer} keeps no keys");
        };
        (class, offset)
    }

    /// The state of a layer; zero at the start of a sequence.
    pub(crate) fn state(&mut self, layer: usize) -> &mut [f32] {
        let (start, floats) = self.state_at(layer);
        // SAFETY: within the unit, by the layout; it is borrowed mutably and has no other owner.
        unsafe { std::slice::from_raw_parts_mut(start, floats) }
    }

    /// Where the state of a layer begins, and how many numbers it has; nobody else writes it.
    pub(crate) fn state_at(&mut self, layer: usize) -> (*mut f32, usize) {
        let Place::State { offset, floats } = self.store.layout.places[layer] else {
            unreachable!("layer {layer} keeps no state");
        };
        let unit =
            self.state.as_mut().and_then(Arc::get_mut).expect("a state of its own was reserved");
        (unit.start.cast::<f32>().wrapping_add(offset), floats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(kept: &[Kept], tokens: usize) -> Arc<KvStore> {
        let layout = Layout::new(kept.to_vec(), Precision::F32);
        KvStore::new(&layout, layout.bytes_for(tokens)).unwrap()
    }

    /// The first numbers of a position's key and value, in F32.
    fn first(pages: &Pages, layer: usize, position: usize) -> [f32; 2] {
        let (format, token) = (pages.format(layer), position % PAGE);
        let page = pages.page(layer, position / PAGE).cast::<f32>();
        // SAFETY: pages of F32 hold keys number by number, then values token by token.
        unsafe { [page.add(token).read(), page.add((PAGE + token) * format.dim).read()] }
    }

    #[test]
    fn pages_come_back() {
        let store = store(&[Kept::keys(7, 4), Kept::keys(1, 4)], 96);
        assert_eq!(store.capacity(), 96);
        let mut a = store.reserve(33).unwrap();
        assert_eq!((a.capacity(), store.bytes_in_use()), (64, store.bytes() / 3 * 2));
        assert!(store.reserve(33).is_none());
        let b = store.reserve(1).unwrap();
        a.put(1, 40, &[1.0; 4], &[2.0; 4]);
        assert_eq!(first(&a, 1, 40), [1.0, 2.0]);
        drop((a, b));
        assert_eq!(store.bytes_in_use(), 0);
        // Memory that was given back reads as zero when it is used again.
        let c = store.reserve(96).unwrap();
        assert!((0..96).all(|p| first(&c, 1, p) == [0.0; 2]));
    }

    #[test]
    fn what_a_window_has_passed_goes_back() {
        let kept = [Kept::keys(1, 4), Kept::Keys { heads: 1, head_dim: 4, window: Some(40) }];
        let page = (2 * PAGE * 4 * size_of::<f32>()) as u64;
        let store = store(&kept, 320);
        // All ten pages of the one class; of the other a window of 40 reaches into three at most.
        assert_eq!(store.bytes(), 13 * page);
        let mut pages = store.reserve(0).unwrap();
        for tokens in 1..=320 {
            assert!(pages.grow(tokens), "no page for token {tokens}");
            pages.put(1, tokens - 1, &[tokens as f32; 4], &[0.0; 4]);
            pages.advance(1);
        }
        // The last token sees 40 with itself, from position 280 on: the ninth page holds 256 to 287.
        assert_eq!(first(&pages, 1, 280), [281.0, 0.0]);
        assert_eq!(store.bytes_in_use(), 12 * page);
    }

    #[test]
    fn a_fork_shares_pages_and_copies_the_state() {
        let store = store(&[Kept::keys(1, 4), Kept::State { floats: 16 }], 256);
        let mut a = store.reserve(64).unwrap();
        (0..64).for_each(|p| a.put(0, p, &[p as f32; 4], &[0.0; 4]));
        a.advance(64);
        a.state(1)[3] = 7.0;
        let before = store.bytes_in_use();
        let mut b = a.fork(64).unwrap();
        let state = (16 * size_of::<f32>()) as u64;
        assert_eq!(store.bytes_in_use(), before + state);
        b.state(1)[3] += 1.0;
        assert_eq!((a.state(1)[3], b.state(1)[3]), (7.0, 8.0));
        // Each goes on in a page of its own, and the shared ones outlive either.
        assert!(a.grow(65) && b.grow(65));
        b.put(0, 64, &[5.0; 4], &[0.0; 4]);
        b.advance(1);
        drop(a);
        assert_eq!([first(&b, 0, 63), first(&b, 0, 64)], [[63.0, 0.0], [5.0, 0.0]]);
        assert!(b.fork(64).is_none(), "the state is that of 65 tokens");
        drop(b);
        assert_eq!(store.bytes_in_use(), 0);
    }

    #[test]
    fn a_fork_within_a_page_copies_it() {
        let kept = [Kept::keys(1, 4), Kept::Keys { heads: 1, head_dim: 4, window: Some(8) }];
        let store = store(&kept, 640);
        let mut a = store.reserve(70).unwrap();
        (0..70).for_each(|p| (0..2).for_each(|l| a.put(l, p, &[p as f32; 4], &[0.0; 4])));
        a.advance(70);
        let mut b = a.fork(66).unwrap();
        assert_eq!((b.len(), first(&b, 0, 65)), (66, [65.0, 0.0]));
        // What the one writes now the other does not see.
        b.put(0, 66, &[1.0; 4], &[0.0; 4]);
        assert_eq!([first(&a, 0, 66), first(&b, 0, 66)], [[66.0, 0.0], [1.0, 0.0]]);
        assert!(a.fork(71).is_none(), "so many tokens were not stored");
        assert!(!a.forks_at(20), "the window has passed what the 20th token saw");
    }
}
