//! The expert bank: which experts are in memory, and for whom.
//!
//! The unit is (layer, expert).  [`Bank::warm`] brings in what a mask lacks; [`Bank::evict`] gives back what nobody else
//! needs.  In the room that warm masks leave ([`Bank::set_room`]) there may be *guests*: experts that no mask holds and
//! that a row chose.  What becomes of an expert that is not there is the row's policy, [`Missing`]; it can always be
//! computed from the file, and its pages then go back once the layer is done, so that the memory in use stays what the
//! account says.
//!
//! * `sizes`: what sets of experts take, by whole pages; pure.
//! * `books`: who holds what and which guests leave; pure.
//! * [`Place`]: where experts are while they are resident: in place in the map, in slots of a device ([`Arena`]), or as
//!   matrices of `candle`.
//! * Here: decisions and effects under one lock, never held while experts come, so that a step does not wait for a
//!   specialist to load; and counts by layer.  That all experts of a step are resident costs a look at a bit each.
//!
//! The promise: but for [`Missing::Renormalise`] no number depends on what is resident.

mod arena;
mod books;
mod place;
mod sizes;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use arena::{Arena, DeviceMemory, HostMemory};
pub(crate) use place::{Mapped, bring_in};
pub use place::{Place, Residents};
pub use sizes::Sizes;

use crate::device::Device;
use crate::host::Host;
use crate::kernels::{Filled, share};
use crate::mask::ExpertMask;
use crate::model::Model;
use crate::step::Experts;
use books::{Books, Invited, Uses};
use config::Missing;

/// The experts of one parent.
pub struct Bank {
    device: Arc<dyn Device>,
    place: Arc<dyn Place>,
    sizes: Arc<Sizes>,
    residents: Residents,
    books: Mutex<Books>,
    /// [layers * experts], the step in which each was of use last; kept while there are guests.
    used: Vec<AtomicU32>,
    steps: AtomicU32,
    /// Copies of what the books say.
    resident_bytes: AtomicU64,
    guest_bytes: AtomicU64,
    room: AtomicU64,
    backbone_bytes: u64,
    counts: Vec<Counts>,
    /// All experts.
    everyone: ExpertMask,
}

/// Experts that are brought in between two looks at the books.
const AT_ONCE: usize = 64;

/// What warming or evicting moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub experts: u64,
    pub bytes: u64,
}

/// What happened in one layer since the start.  An expert that several rows of a step chose is used once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LayerCounts {
    /// Experts that were resident when a step wanted them.
    pub hits: u64,
    /// Experts that were not.
    pub misses: u64,
    /// Tokens that went through the layer.
    pub tokens: u64,
    /// Sum over those: the share of the full router's gate mass on experts that the token could not have.
    pub missing_mass: f64,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    tokens: AtomicU64,
    /// Bits of an F64.
    missing_mass: AtomicU64,
}

impl Bank {
    /// Experts in place in the parent's file, computed by the processor.  All start outside; the backbone is brought in,
    /// so that touching it later maps no expert beside it.
    pub fn new(model: Arc<Model>) -> Arc<Bank> {
        Bank::on(Arc::new(Host), &model)
    }

    /// Experts where a device wants them.
    pub fn on(device: Arc<dyn Device>, model: &Arc<Model>) -> Arc<Bank> {
        let place = device.place(model);
        Bank::at(device, model, place)
    }

    /// Experts in a place of another kind.
    pub fn at(device: Arc<dyn Device>, model: &Model, place: Arc<dyn Place>) -> Arc<Bank> {
        let (layers, experts) = (model.shape().layers, model.shape().experts);
        let (sizes, backbone_bytes) = (place.sizes().clone(), device.bring_in_backbone(model));
        Arc::new(Bank {
            device,
            residents: Residents::new(layers, experts),
            books: Mutex::new(Books::new(sizes.clone())),
            used: (0..layers * experts).map(|_| AtomicU32::new(0)).collect(),
            steps: AtomicU32::new(0),
            resident_bytes: AtomicU64::new(0),
            guest_bytes: AtomicU64::new(0),
            room: AtomicU64::new(0),
            backbone_bytes,
            counts: (0..layers).map(|_| Counts::default()).collect(),
            everyone: ExpertMask::full(model.shape()),
            sizes,
            place,
        })
    }

    /// What computes with them.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// What experts take.
    pub fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    /// Bytes of all experts of a mask.
    pub fn bytes(&self, mask: &ExpertMask) -> u64 {
        self.sizes.bytes(mask)
    }

    /// Bytes of the tensors that are not routed experts, by whole pages.
    pub fn backbone_bytes(&self) -> u64 {
        self.backbone_bytes
    }

    /// Bytes of resident experts, guests among them.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that guests take beside what warm masks hold.
    pub fn guest_bytes(&self) -> u64 {
        self.guest_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of experts, resident or not, that the system has in memory for this process now; `None` where it does not
    /// tell.
    pub fn reported_bytes(&self) -> Option<u64> {
        self.place.reported_bytes()
    }

    /// Whether the expert is in memory.
    pub fn resident(&self, layer: usize, expert: usize) -> bool {
        self.residents.contains(self.index(layer, expert))
    }

    /// Of each layer, the share of the mask's experts that are resident; 1 where it has none.
    pub fn completeness(&self, mask: &ExpertMask) -> Vec<f32> {
        let share = |layer: usize| {
            let there = mask.words(layer).iter().zip(self.residents.layer(layer));
            let there: u32 = there.map(|(mask, resident)| (mask & resident).count_ones()).sum();
            match mask.count(layer) {
                0 => 1.0,
                kept => there as f32 / kept as f32,
            }
        };
        (0..mask.layers()).map(share).collect()
    }

    /// Uses of experts, and what was missing, by layer.
    pub fn counts(&self) -> Vec<LayerCounts> {
        let read = |c: &Counts| LayerCounts {
            hits: c.hits.load(Ordering::Relaxed),
            misses: c.misses.load(Ordering::Relaxed),
            tokens: c.tokens.load(Ordering::Relaxed),
            missing_mass: f64::from_bits(c.missing_mass.load(Ordering::Relaxed)),
        };
        self.counts.iter().map(read).collect()
    }

    /// Experts that were not resident when a step wanted them, since the start.
    pub fn misses(&self) -> u64 {
        self.counts.iter().map(|c| c.misses.load(Ordering::Relaxed)).sum()
    }

    /// Counts the mask as a holder and brings in what was missing.
    pub fn warm(&self, mask: &ExpertMask) -> Moved {
        let mut moved = Moved::default();
        let experts: Vec<usize> = self.sizes.each(mask).collect();
        for some in experts.chunks(AT_ONCE) {
            let (mut came, mut books) = (Vec::new(), self.books());
            for &expert in some {
                let before = books.bytes();
                if books.hold(expert) {
                    moved.bytes += books.bytes() - before;
                    came.push(expert);
                }
            }
            self.publish(&books);
            drop(books);
            moved.experts += came.len() as u64;
            let there = self.bring_in(&came);
            let books = self.books();
            for (expert, there) in came.into_iter().zip(there) {
                match books.has(expert) {
                    true => self.residents.set(expert, there),
                    // Evicted before it came.
                    false => self.leave(expert),
                }
            }
        }
        if moved.experts > 0 {
            self.tidy(None);
        }
        moved
    }

    /// Brings experts to their places, on several threads; which of them have one.  Not under the lock: the threads that
    /// help may wait for it with work of their own.
    fn bring_in(&self, experts: &[usize]) -> Vec<bool> {
        let mut there = vec![false; experts.len()];
        let filled = Filled::new(&mut there);
        share(experts.len(), usize::MAX, &|i| {
            // SAFETY: a place of its own.
            unsafe { filled.range(i, 1)[0] = self.place.bring_in(experts[i]) };
        });
        there
    }

    /// Takes the mask back as a holder and gives back what nobody holds any more.
    pub fn evict(&self, mask: &ExpertMask) -> Moved {
        let mut moved = Moved::default();
        for expert in self.sizes.each(mask) {
            let mut books = self.books();
            let before = books.bytes();
            if books.release(expert) {
                moved.experts += 1;
                moved.bytes += before - books.bytes();
                self.leave(expert);
            }
            self.publish(&books);
        }
        moved
    }

    /// Sets what guests may take beside the experts of warm masks, bytes; those for whom there is no room leave.
    pub fn set_room(&self, room: u64) {
        let mut books = self.books();
        let leave = books.set_room(room, &|expert| self.last_use(expert));
        leave.into_iter().for_each(|guest| self.leave(guest));
        self.room.store(room, Ordering::Relaxed);
        self.publish(&books);
    }

    /// A step begins.
    pub(crate) fn begin(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn fetch(&self, layer: usize, now: u32, wanted: &[(usize, Missing)]) {
        let mut books = self.books();
        let mut came = Vec::new();
        for &(e, wish) in wanted.iter().filter(|(_, wish)| *wish != Missing::Map) {
            let expert = self.index(layer, e);
            self.used[expert].store(now, Ordering::Relaxed);
            let uses = Uses { now, last: &|expert| self.last_use(expert) };
            let Invited { leave, came: comes } = books.invite(expert, wish == Missing::Fetch, uses);
            leave.into_iter().for_each(|guest| self.leave(guest));
            came.extend(comes.then_some(expert));
        }
        self.publish(&books);
        drop(books);
        let in_place = self.bring_in(&came);
        let mut books = self.books();
        for (expert, there) in came.into_iter().zip(in_place) {
            if there && books.has(expert) {
                self.residents.set(expert, true);
            } else {
                // It found no place, or had to leave before it came.
                books.leave(expert);
                self.leave(expert);
            }
        }
        self.publish(&books);
    }

    /// Gives back whatever is in memory of experts that are not resident.
    pub(crate) fn settle(&self) {
        self.tidy(None);
    }

    fn index(&self, layer: usize, expert: usize) -> usize {
        layer * self.sizes.experts() + expert
    }

    fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    fn last_use(&self, expert: usize) -> u32 {
        self.used[expert].load(Ordering::Relaxed)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, books: &Books) {
        self.resident_bytes.store(books.bytes(), Ordering::Relaxed);
        self.guest_bytes.store(books.guest_bytes(), Ordering::Relaxed);
    }

    fn leave(&self, expert: usize) {
        self.residents.set(expert, false);
        self.place.give_back(expert, &self.residents);
    }

    /// Under the lock, so that nothing is warmed meanwhile.  A guest on its way in may be taken for a stranger: it is
    /// read again when it is computed, and no number changes.
    fn tidy(&self, layer: Option<usize>) {
        let _books = self.books();
        self.place.tidy(layer, &self.residents);
    }
}

impl Experts for Bank {
    fn there(&self, layer: usize, mask: Option<&ExpertMask>, top_k: usize) -> Option<Vec<u64>> {
        if self.room() > 0 && self.books().has_room(self.index(layer, 0)) {
            return None;
        }
        let mut words: Vec<u64> = self.residents.layer(layer).collect();
        if let Some(mask) = mask {
            words.iter_mut().zip(mask.words(layer)).for_each(|(word, own)| *word &= own);
        }
        let there: u32 = words.iter().map(|word| word.count_ones()).sum();
        (there as usize >= top_k).then_some(words)
    }

    fn all_there(&self, mask: Option<&ExpertMask>) -> bool {
        let mask = mask.unwrap_or(&self.everyone);
        let there = |layer| {
            let mut both = mask.words(layer).iter().zip(self.residents.layer(layer));
            both.all(|(mask, resident)| mask & !resident == 0)
        };
        (0..mask.layers()).all(there)
    }

    fn prepare(&self, layer: usize, used: &[usize], wish: &dyn Fn(usize) -> Missing) -> bool {
        let now = self.steps.load(Ordering::Relaxed);
        if self.guest_bytes() > 0 {
            for &e in used {
                self.used[self.index(layer, e)].store(now, Ordering::Relaxed);
            }
        }
        let absent = used.iter().copied().filter(|&e| !self.resident(layer, e));
        let absent: Vec<usize> = absent.collect();
        let counts = &self.counts[layer];
        counts.hits.fetch_add((used.len() - absent.len()) as u64, Ordering::Relaxed);
        if absent.is_empty() {
            return false;
        }
        counts.misses.fetch_add(absent.len() as u64, Ordering::Relaxed);
        let wanted: Vec<(usize, Missing)> = absent.into_iter().map(|e| (e, wish(e))).collect();
        if self.room() > 0 && wanted.iter().any(|(_, wish)| *wish != Missing::Map) {
            self.fetch(layer, now, &wanted);
        }
        true
    }

    fn passed(&self, layer: usize, used: &[usize], absent: bool) {
        // Some may have been evicted meanwhile.
        if absent || used.iter().any(|&e| !self.resident(layer, e)) {
            self.tidy(Some(layer));
        }
    }

    fn lacked(&self, layer: usize, tokens: usize, missing_mass: f64) {
        let counts = &self.counts[layer];
        counts.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        if missing_mass > 0.0 {
            let add = |bits| Some((f64::from_bits(bits) + missing_mass).to_bits());
            let _ = counts.missing_mass.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }
}
