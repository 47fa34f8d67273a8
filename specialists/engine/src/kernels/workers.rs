//! The threads that share the work of one product.
//!
//! Work is cut into units.  Each thread, the caller among them, has a range of them to do in order, so that what it asks
//! memory for ahead of time is what it does next; when it is done it takes units off the end of another's range.  A
//! thread that the system has taken off its core takes nothing, and the others do its share; only a unit that it had
//! begun is waited for.
//!
//! A thread that was waited for longer than all else took was off its core, and would be again: it has to share that
//! core with another program.  It sits out for [`REST`] times as long as it was waited for, and longer each time that
//! it comes back too early, while the others have cores of their own and wait for nobody.  So beside other programs
//! throughput falls by the cores they take.
//!
//! Threads look for new work for [`PATIENCE`] turns, about as long as passes between two products of one token, and
//! then sleep.  One caller at a time has them; another does its work alone.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, LazyLock, Mutex, TryLockError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Instant;

/// Turns of looking before a thread sleeps: some tens of microseconds.
const PATIENCE: usize = 400;
/// Looks in a turn, after which the thread pauses.  Without looks between them pauses are what tells a hypervisor that a
/// core has nothing to do, and it gives it away for longer than a product takes.
const LOOKS: usize = 100;
/// Operations below which one thread is faster than waking others.
const WORTH_IT: usize = 1 << 16;

/// How long a thread sits out that was waited for, over how long it was.
const REST: u64 = 4;
/// The same at most, however often it was late.
const LONGEST_REST: u64 = 64;
/// Nanoseconds below which nobody was off their core: less than the system's slices, more than a unit.
const LATE: u64 = 500_000;

/// The open bit, below the number of the job and above the count of threads within.
const OPEN: u64 = 1 << 31;
const JOB: u64 = 1 << 32;

type Unit<'a> = &'a (dyn Fn(usize) + Sync);

struct Job {
    /// Valid while the gate is open or threads are within.
    unit: *const (dyn Fn(usize) + Sync),
    caller: Thread,
}

/// Units that a thread has yet to do: the first, and the one behind the last in the upper half.  On a line of its own.
#[repr(align(128))]
struct Left(AtomicU64);

impl Left {
    fn set(&self, units: std::ops::Range<usize>) {
        self.0.store(units.start as u64 | (units.end as u64) << 32, Ordering::Relaxed);
    }

    fn range(packed: u64) -> (u64, u64) {
        (packed & 0xffff_ffff, packed >> 32)
    }

    /// The next unit, from the front for its thread and from the back for others.
    fn take(&self, front: bool) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (first, end) = Left::range(packed);
            (first < end).then(|| if front { packed + 1 } else { packed - (1 << 32) })
        });
        taken.ok().map(|packed| {
            let (first, end) = Left::range(packed);
            if front { first as usize } else { end as usize - 1 }
        })
    }
}

struct Sleeper {
    asleep: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    /// When it may work again, in nanoseconds since the pool began; zero if it always might.
    back: AtomicU64,
    /// How long it sat out before.
    rest: AtomicU64,
}

struct Shared {
    /// Number of the job, whether threads may enter, how many are within.
    gate: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    /// One a thread, the caller's first.
    left: Vec<Left>,
    /// The caller sleeps until the last thread has left.
    waiting: AtomicBool,
    /// Who that was, by the number of the sleeper.
    last: AtomicUsize,
    began: Instant,
    /// A unit of this job panicked.
    failed: AtomicBool,
    /// There will be no more jobs.
    ended: AtomicBool,
    sleepers: Vec<Sleeper>,
}

// SAFETY: `job` is written only while the gate is shut and nobody is within, and read only from within.
unsafe impl Sync for Shared {}
// SAFETY: as above; what it points to is `Sync`.
unsafe impl Send for Shared {}

/// Threads that sleep while there is nothing to do, and end with it.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Held by the one caller.
    turn: Mutex<()>,
}

/// As many as there are cores.
static THREADS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |n| n.get()));
static ALL: LazyLock<Workers> = LazyLock::new(|| Workers::new(*THREADS));

/// Threads that share work, the caller among them.
pub fn threads() -> usize {
    *THREADS
}

/// Calls `unit` with each number below `units`, on several threads if so many `operations` are worth it.
pub fn run(units: usize, operations: usize, unit: Unit<'_>) {
    if units < 2 || operations < WORTH_IT {
        (0..units).for_each(unit);
    } else {
        ALL.run(units, unit);
    }
}

impl Workers {
    /// `threads` in all, the caller among them.
    pub fn new(threads: usize) -> Workers {
        let sleeper = |_| Sleeper {
            asleep: AtomicBool::new(false),
            thread: Default::default(),
            back: AtomicU64::new(0),
            rest: AtomicU64::new(0),
        };
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            left: (0..threads.max(1)).map(|_| Left(AtomicU64::new(0))).collect(),
            waiting: AtomicBool::new(false),
            last: AtomicUsize::new(0),
            began: Instant::now(),
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            sleepers: (1..threads.max(1)).map(sleeper).collect(),
        });
        let mut started = Vec::new();
        for index in 0..shared.sleepers.len() {
            let at = shared.clone();
            let name = format!("engine-{}", index + 1);
            // Without the thread the caller does its share.
            if let Ok(handle) = thread::Builder::new().name(name).spawn(move || at.work(index + 1))
            {
                let _ = shared.sleepers[index].thread.set(handle.thread().clone());
                started.push(handle);
            }
        }
        Workers { shared, threads: started, turn: Mutex::new(()) }
    }

    /// Calls `unit` with each number below `units` and returns when all calls have.
    ///
    /// # Panics
    ///
    /// When a call did.
    pub fn run(&self, units: usize, unit: Unit<'_>) {
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..units).for_each(unit),
        };
        let shared = &*self.shared;
        // SAFETY: the gate is shut and nobody is within; the closure outlives this call, and nobody is within after it.
        let open = unsafe {
            let unit = std::mem::transmute::<Unit<'_>, Unit<'static>>(unit);
            *shared.job.get() = Some(Job { unit, caller: thread::current() });
            Open { shared, opened: shared.now() }
        };
        shared.failed.store(false, Ordering::Relaxed);
        let works = |sleeper: &Sleeper| sleeper.back.load(Ordering::Relaxed) <= open.opened;
        let threads = 1 + shared.sleepers.iter().filter(|sleeper| works(sleeper)).count();
        let mut share = (0..threads).map(|i| units * i / threads..units * (i + 1) / threads);
        shared.left[0].set(share.next().unwrap_or(0..units));
        for (left, sleeper) in shared.left[1..].iter().zip(&shared.sleepers) {
            left.set(if works(sleeper) { share.next().unwrap_or(0..0) } else { 0..0 });
        }
        shared.gate.fetch_add(JOB | OPEN, Ordering::SeqCst);
        for sleeper in &shared.sleepers {
            if works(sleeper)
                && sleeper.asleep.swap(false, Ordering::SeqCst)
                && let Some(thread) = sleeper.thread.get()
            {
                thread.unpark();
            }
        }
        shared.claim(0, unit);
        drop(open);
        assert!(!shared.failed.swap(false, Ordering::Relaxed), "a unit of work panicked");
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // What a unit panicked with is its caller's.
            let _ = thread.join();
        }
    }
}

/// While it lives threads may enter; dropping it waits for the last to leave.
struct Open<'a> {
    shared: &'a Shared,
    /// When, as [`Shared::now`] has it.
    opened: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        // On the way out of a panic nobody needs the rest.
        if thread::panicking() {
            shared.left.iter().for_each(|left| left.set(0..0));
        }
        let within = |gate: u64| gate & (OPEN - 1);
        if within(shared.gate.fetch_and(!OPEN, Ordering::AcqRel)) == 0 {
            return;
        }
        let shut = shared.now();
        for _ in 0..PATIENCE {
            for _ in 0..LOOKS {
                if within(shared.gate.load(Ordering::Acquire)) == 0 {
                    return;
                }
            }
            std::hint::spin_loop();
        }
        shared.waiting.store(true, Ordering::SeqCst);
        while within(shared.gate.load(Ordering::SeqCst)) != 0 {
            thread::park();
        }
        shared.waiting.store(false, Ordering::Relaxed);
        let sleeper = &shared.sleepers[shared.last.load(Ordering::Relaxed)];
        sleeper.waited_for(shut - self.opened, shared.now() - shut, shut);
    }
}

impl Sleeper {
    /// The others were done `worked` after the job began, at `shut`, and then `waited` for this thread.
    fn waited_for(&self, worked: u64, waited: u64, shut: u64) {
        let (back, before) = (self.back.load(Ordering::Relaxed), self.rest.load(Ordering::Relaxed));
        if let Some(rest) = rest(worked, waited, before, shut.saturating_sub(back)) {
            self.rest.store(rest, Ordering::Relaxed);
            self.back.store(shut + waited + rest, Ordering::Relaxed);
        }
    }
}

/// How long a thread has to sit out that the others `waited` for when they had `worked`, if at all: twice as long as
/// `before` if it had not been back for as long as that.  Nanoseconds.
fn rest(worked: u64, waited: u64, before: u64, since_back: u64) -> Option<u64> {
    let late = waited >= LATE && waited > worked;
    late.then(|| match since_back < before {
        true => (2 * before).clamp(REST * waited, LONGEST_REST * waited),
        false => REST * waited,
    })
}

impl Shared {
    /// Nanoseconds since the pool began.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// The thread's own units, then others'.
    fn claim(&self, index: usize, unit: Unit<'_>) {
        while let Some(next) = self.left[index].take(true) {
            unit(next);
        }
        for other in 1..self.left.len() {
            let other = (index + other) % self.left.len();
            while let Some(next) = self.left[other].take(false) {
                unit(next);
            }
        }
    }

    /// Whether a thread is not to work yet.
    fn sits_out(&self, sleeper: &Sleeper) -> bool {
        let back = sleeper.back.load(Ordering::Relaxed);
        back > 0 && self.now() < back
    }

    /// A thread's life.
    fn work(&self, index: usize) {
        let mut done = 0;
        let mut turns = 0;
        let sleeper = &self.sleepers[index - 1];
        loop {
            let gate = self.gate.load(Ordering::Acquire);
            if gate & OPEN != 0 && gate / JOB != done && self.sits_out(sleeper) {
                done = gate / JOB;
                turns = PATIENCE * LOOKS;
                continue;
            }
            if gate & OPEN != 0 && gate / JOB != done {
                turns = 0;
                let entered = self.gate.compare_exchange_weak(
                    gate,
                    gate + 1,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                );
                if entered.is_ok() {
                    done = gate / JOB;
                    self.within(index);
                }
                continue;
            }
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            if turns < PATIENCE * LOOKS {
                turns += 1;
                if turns.is_multiple_of(LOOKS) {
                    std::hint::spin_loop();
                }
                continue;
            }
            sleeper.asleep.store(true, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let gate = self.gate.load(Ordering::SeqCst);
            if gate & OPEN == 0 || gate / JOB == done {
                thread::park();
            }
            sleeper.asleep.store(false, Ordering::SeqCst);
            turns = 0;
        }
    }

    /// Does units of the job there is, then leaves.
    fn within(&self, index: usize) {
        // SAFETY: this thread is within, so the job and its closure are there.
        let job = unsafe { (*self.job.get()).as_ref() };
        let Some(job) = job else { return };
        let caller = job.caller.clone();
        // SAFETY: as above.
        let unit = unsafe { &*job.unit };
        // A thread that is lost would be waited for; what a panic leaves behind is the caller's to judge.
        if catch_unwind(AssertUnwindSafe(|| self.claim(index, unit))).is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        self.last.store(index - 1, Ordering::Relaxed);
        let left = self.gate.fetch_sub(1, Ordering::SeqCst) - 1;
        if left & (OPEN | (OPEN - 1)) == 0 && self.waiting.load(Ordering::SeqCst) {
            caller.unpark();
        }
    }
}

/// An array that threads fill at places of their own.
pub struct Filled<'a, T> {
    to: *mut T,
    len: usize,
    all: PhantomData<&'a mut [T]>,
}

// SAFETY: threads have ranges that do not overlap, by the contract of `range`.
unsafe impl<T: Send> Sync for Filled<'_, T> {}

impl<'a, T> Filled<'a, T> {
    pub fn new(all: &'a mut [T]) -> Filled<'a, T> {
        Filled { to: all.as_mut_ptr(), len: all.len(), all: PhantomData }
    }

    /// # Safety
    ///
    /// Nobody else has any of the range.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn range(&self, at: usize, len: usize) -> &mut [T] {
        assert!(at + len <= self.len);
        // SAFETY: within the array; and by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.to.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_unit_runs_once() {
        for threads in [1, 2, 5] {
            let workers = Workers::new(threads);
            for units in [1, 2, 3, 100, 1000] {
                let ran: Vec<AtomicU32> = (0..units).map(|_| AtomicU32::new(0)).collect();
                workers.run(units, &|i| {
                    ran[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads}, {units}");
            }
        }
    }

    #[test]
    fn callers_at_once_and_calls_within_calls() {
        let (workers, ran) = (Workers::new(3), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        workers.run(5, &|_| {
                            workers.run(3, &|_| {
                                ran.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(ran.into_inner(), 4 * 200 * 5 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_job_runs() {
        let workers = Workers::new(2);
        for bad in 0..20 {
            let job = || workers.run(20, &|i| assert!(i != bad, "unit {i}"));
            assert!(catch_unwind(AssertUnwindSafe(job)).is_err());
        }
        let ran = AtomicU32::new(0);
        workers.run(20, &|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 20);
    }

    #[test]
    fn threads_end_with_their_pool() {
        for asleep in [false, true] {
            let workers = Workers::new(3);
            workers.run(20, &|_| {});
            if asleep {
                let all =
                    || workers.shared.sleepers.iter().all(|s| s.asleep.load(Ordering::SeqCst));
                while !all() {
                    thread::yield_now();
                }
            }
            let shared = Arc::downgrade(&workers.shared);
            drop(workers);
            assert!(shared.upgrade().is_none(), "asleep {asleep}");
        }
    }

    #[test]
    fn rests() {
        #[track_caller]
        fn check([worked, waited, before, since_back]: [u64; 4], want: Option<u64>) {
            let ms = |v| v * 1_000_000;
            let got = rest(ms(worked), ms(waited), ms(before), ms(since_back));
            assert_eq!(got, want.map(ms));
        }
        check([0, 3, 0, 9], Some(12));
        // A unit is waited for no longer than others took.
        check([4, 3, 0, 9], None);
        check([0, 0, 12, 0], None);
        // Late again before it worked as long as it sat out.
        check([0, 3, 12, 11], Some(24));
        check([0, 3, 12, 12], Some(12));
        check([0, 3, 150, 0], Some(192));
        check([0, 9, 12, 0], Some(36));
    }

    #[test]
    fn a_thread_that_is_waited_for_sits_out() {
        let (workers, caller) = (Workers::new(2), thread::current().id());
        let others_units = |nap| {
            let others = AtomicU32::new(0);
            workers.run(50, &|_| {
                if thread::current().id() != caller {
                    others.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(nap);
                } else {
                    // The other thread comes to do something.
                    thread::sleep(Duration::from_micros(50));
                }
            });
            others.into_inner()
        };
        // Until it has been late, it works; then it does not; then it does again.
        while others_units(Duration::from_millis(100)) == 0 {}
        assert_eq!(others_units(Duration::ZERO), 0);
        while others_units(Duration::ZERO) == 0 {}
    }

    #[test]
    fn sleepers_wake() {
        let (workers, ran) = (Workers::new(2), AtomicU32::new(0));
        for _ in 0..5 {
            thread::sleep(std::time::Duration::from_millis(5));
            workers.run(2, &|_| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(ran.into_inner(), 10);
    }
}
