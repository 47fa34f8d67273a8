//! Products that are computed at once: cut into tiles, which threads share.
//!
//! A unit of work is two tiles of one matrix, or a few times two, with all rows of activations that its job picks; of a
//! gated job, the same tiles of gate and up, and what comes of both.  Each writes its own rows of the output.

use std::mem::MaybeUninit;

use super::activations::{Activations, Prepared};
use super::functions::Activation;
use super::lanes::{self, Lanes, MOST, Set, Work};
use super::matrix::Matrix;
use super::tile::{PICKS, Sums, TILES};
use super::workers;

/// Bytes of weights that make a unit, where one is too short to be worth a thread's while: a microsecond or two.
const UNIT: usize = 64 << 10;
/// Units that each thread should have, so that none waits long for another's last.
const UNITS_EACH: usize = 8;

/// `out[r, i] = w[i] · x[picks[r]]`, out [picks, rows of w].
pub struct Product<'a> {
    pub w: &'a Matrix,
    /// Prepared for `w`.
    pub x: &'a Activations<'a>,
    pub picks: &'a [u32],
    pub out: &'a mut [f32],
}

/// `out[r, i] = act(gate[i] · x[picks[r]] + bias, up[i] · x[picks[r]] + bias)`, out [picks, rows of gate].
pub struct Gated<'a> {
    /// Gate and up.
    pub w: [&'a Matrix; 2],
    pub bias: [Option<&'a [f32]>; 2],
    pub activation: Activation,
    /// Prepared for both.
    pub x: &'a Activations<'a>,
    pub picks: &'a [u32],
    pub out: &'a mut [f32],
}

/// One of several things that are computed at once.
pub enum Job<'a> {
    Product(Product<'a>),
    Gated(Gated<'a>),
}

/// What a job is without its exclusive hold on the output.
struct Plan<'a> {
    w: &'a Matrix,
    /// Of `w`.
    x: Prepared<'a>,
    up: Option<Up<'a>>,
    picks: &'a [u32],
    out: *mut f32,
    /// What its tiles are computed with.
    set: Set,
    /// Two tiles each, in a unit.
    pairs: usize,
    /// Units before this job's.
    first: usize,
}

/// What a gate is applied to.
struct Up<'a> {
    w: &'a Matrix,
    /// Of `w`.
    x: Prepared<'a>,
    /// Of gate and up.
    bias: [Option<&'a [f32]>; 2],
    activation: Activation,
}

impl Up<'_> {
    /// Gates and ups of the rows from `start` on; the result is in place of the gates.
    #[inline(always)]
    fn gate(&self, gates: &mut [f32], ups: &mut [f32], start: usize) {
        for (sums, bias) in [&mut *gates, &mut *ups].into_iter().zip(self.bias) {
            if let Some(bias) = bias {
                sums.iter_mut().zip(&bias[start..]).for_each(|(s, b)| *s += b);
            }
        }
        self.activation.apply(gates, ups);
    }
}

// SAFETY: units write `out` at places of their own.
unsafe impl Sync for Plan<'_> {}

impl<'a> Plan<'a> {
    /// Checks what the tiles of the job rely on; `set` is the widest to compute with.
    fn new(job: Job<'a>, set: Set) -> Plan<'a> {
        let side = |w: &Matrix, x: &'a Activations<'a>| match w.side(x) {
            Some(side) => side,
            None => panic!("activations for {w:?} were not prepared; call `prepare_for` before"),
        };
        let (w, up, x, picks, out) = match job {
            Job::Product(Product { w, x, picks, out }) => (w, None, x, picks, out),
            Job::Gated(Gated { w: [gate, up], bias, activation, x, picks, out }) => {
                assert!(gate.rows == up.rows && gate.k == up.k, "gate {gate:?}, but up {up:?}");
                (gate, Some(Up { w: up, x: side(up, x), bias, activation }), x, picks, out)
            }
        };
        assert!(w.k == x.k(), "{w:?} with activations of {} numbers", x.k());
        assert!(out.len() == picks.len() * w.rows, "{w:?} for {} numbers", out.len());
        assert!(picks.iter().all(|&pick| (pick as usize) < x.rows()), "a row that is not there");
        // Gate and up are cut into the same tiles.
        let set = up.as_ref().map_or(set, |up| up.w.set(set));
        let set = w.set(set);
        Plan { w, x: side(w, x), up, picks, out: out.as_mut_ptr(), set, pairs: 1, first: 0 }
    }

    /// Rows of two tiles.
    fn rows_at_once(&self) -> usize {
        TILES * self.set.lanes()
    }

    fn units(&self) -> usize {
        self.w.rows.div_ceil(self.pairs * self.rows_at_once())
    }

    /// As many tiles in a unit as make it long enough, but no more than so many times two.
    fn lengthen(&mut self, most: usize) {
        let bytes = self.rows_at_once() * self.w.bytes().len() / self.w.rows;
        let picked = bytes * self.picks.len() * if self.up.is_some() { 2 } else { 1 };
        self.pairs = (UNIT / picked.max(1)).clamp(1, most.max(1));
    }

    fn operations(&self) -> usize {
        self.picks.len() * self.w.rows * self.w.k * if self.up.is_some() { 2 } else { 1 }
    }
}

/// The first `len` numbers of the room, zero.
#[inline(always)]
fn zeros(room: &mut MaybeUninit<Sums>, len: usize) -> &mut [f32] {
    assert!(len <= PICKS * TILES * MOST);
    // SAFETY: within the room, and written before it is read.
    unsafe {
        let start = room.as_mut_ptr().cast::<f32>();
        start.write_bytes(0, len);
        std::slice::from_raw_parts_mut(start, len)
    }
}

/// Some rows of a job's matrix.
struct Unit<'a> {
    plan: &'a Plan<'a>,
    first: usize,
}

impl Work for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Unit { plan, first } = self;
        let end = plan.w.rows.min(first + plan.pairs * plan.rows_at_once());
        let mut from = first;
        while from < end {
            plan.tiles(l, from);
            from += plan.rows_at_once();
        }
    }
}

impl Plan<'_> {
    /// The two tiles from row `first` on.
    #[inline(always)]
    fn tiles<L: Lanes>(&self, l: L, first: usize) {
        let (plan, n) = (self, TILES * L::N);
        let mut room = [const { MaybeUninit::<Sums>::uninit() }; 2];
        let [room, up_room] = &mut room;
        for (chunk, picks) in plan.picks.chunks(PICKS).enumerate() {
            let sums = zeros(room, picks.len() * n);
            // SAFETY: by `Plan::new`, here and below.
            unsafe { plan.w.tile(l, first, plan.x, picks, sums) };
            if let Some(up) = &plan.up {
                let ups = zeros(up_room, picks.len() * n);
                // SAFETY: see above.
                unsafe { up.w.tile(l, first, up.x, picks, ups) };
                for t in 0..TILES {
                    let start = plan.w.tile_start(first + t * L::N, L::N);
                    let there = L::N.min(plan.w.rows - start);
                    for r in 0..picks.len() {
                        let at = (r * TILES + t) * L::N;
                        up.gate(&mut sums[at..at + there], &mut ups[at..at + there], start);
                    }
                }
            }
            for t in 0..TILES {
                let from = first + t * L::N;
                let start = plan.w.tile_start(from, L::N);
                // Rows that came again are another tile's.
                let skip = (from - start).min(L::N);
                let there = (L::N - skip).min(plan.w.rows.saturating_sub(from));
                for r in 0..picks.len() {
                    let sums = &sums[(r * TILES + t) * L::N + skip..][..there];
                    let at = (chunk * PICKS + r) * plan.w.rows + from;
                    let out = plan.out.wrapping_add(at);
                    // SAFETY: `at + there` is within `out`, and only the unit of these rows writes there.  A whole
                    // tile, as most are, is a register's worth, which needs no call.
                    unsafe {
                        if there == L::N {
                            out.copy_from_nonoverlapping(sums.as_ptr(), L::N);
                        } else {
                            out.copy_from_nonoverlapping(sums.as_ptr(), there);
                        }
                    };
                }
            }
        }
    }
}

/// Does all jobs, on several threads.
pub fn compute<'a>(jobs: impl IntoIterator<Item = Job<'a>>) {
    compute_with(*lanes::WIDEST, jobs);
}

/// The same with a set of instructions.
pub(super) fn compute_with<'a>(set: Set, jobs: impl IntoIterator<Item = Job<'a>>) {
    let mut plans: Vec<Plan<'_>> = jobs.into_iter().map(|job| Plan::new(job, set)).collect();
    let shortest: usize = plans.iter().map(Plan::units).sum();
    let most = shortest / (UNITS_EACH * workers::threads());
    let mut units = 0;
    for plan in &mut plans {
        plan.lengthen(most);
        plan.first = units;
        units += plan.units();
    }
    let operations = plans.iter().map(Plan::operations).sum();
    workers::run(units, operations, &|unit| {
        let plan = &plans[plans.partition_point(|plan| plan.first <= unit) - 1];
        let first = (unit - plan.first) * plan.pairs * plan.rows_at_once();
        lanes::run_with(plan.set, Unit { plan, first });
    });
}

/// `out[r, i] = w[i] · x[r]`, out [rows of x, rows of w].
pub fn matmul(w: &Matrix, x: &mut Activations<'_>, out: &mut [f32]) {
    x.prepare_for(w);
    compute([Job::Product(Product { w, x, picks: x.all(), out })]);
}
