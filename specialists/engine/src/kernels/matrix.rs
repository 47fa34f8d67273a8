//! A matrix in a mapped file, and its products with rows of activations.

use std::mem::MaybeUninit;

use thiserror::Error;

use super::activations::{Activations, Form};
use super::blocks;
use super::functions::Activation;
use super::lanes::{self, Lanes, MOST, Rows, Set, Work};
use super::supers;
use super::tile::{self, PICKS, Sums, TILES};
use super::{dequantise, float, workers};
use crate::ggml::Kind;
use crate::mapping::Region;

/// `rows` rows of `k` weights, row after row.
#[derive(Clone)]
pub struct Matrix {
    pub rows: usize,
    pub k: usize,
    kind: Kind,
    row_bytes: usize,
    data: Region,
}

#[derive(Debug, Error)]
pub enum MatrixError {
    #[error("there is no kernel for {kind:?} yet; requantise the file to Q8_0, Q4_K or Q6_K")]
    NoKernel { kind: Kind },
    #[error("{rows} rows of {k} weights in {kind:?} do not make {bytes} bytes")]
    Size { rows: usize, k: usize, kind: Kind, bytes: usize },
}

/// The same bytes with zeros behind them: tiles are never narrower than the widest registers.
fn padded(data: &Region, len: usize) -> Region {
    let mut bytes = data.bytes().to_vec();
    bytes.resize(len, 0);
    Region::owned(bytes)
}

/// What a format's rows are multiplied with; `None` without a kernel.
fn form(kind: Kind) -> Option<Form> {
    match kind {
        Kind::F32 => Some(Form::F32),
        Kind::F16 => Some(Form::F16),
        Kind::BF16 => Some(Form::BF16),
        Kind::Q4_0 | Kind::Q4_1 | Kind::Q5_0 | Kind::Q5_1 | Kind::Q8_0 | Kind::MXFP4 => {
            Some(Form::Q8)
        }
        Kind::Q2_K | Kind::Q3_K | Kind::Q4_K | Kind::Q5_K | Kind::Q6_K => Some(Form::Q8K),
        _ => None,
    }
}

/// Whether a matrix in this format can be computed with.
pub fn runs(kind: Kind) -> bool {
    form(kind).is_some()
}

impl Matrix {
    /// Checks once what every product relies on.
    ///
    /// # Errors
    ///
    /// [`MatrixError`] when the format has no kernel, or the bytes do not fit the shape.
    pub fn new(data: Region, kind: Kind, rows: usize, k: usize) -> Result<Matrix, MatrixError> {
        if !runs(kind) {
            return Err(MatrixError::NoKernel { kind });
        }
        let bytes = data.bytes().len();
        let row_bytes = kind.bytes(k as u64).map(|b| b as usize);
        let row_bytes =
            row_bytes.filter(|b| b.checked_mul(rows) == Some(bytes) && k > 0 && rows > 0);
        let row_bytes = row_bytes.ok_or(MatrixError::Size { rows, k, kind, bytes })?;
        let data = if rows < MOST { padded(&data, MOST * row_bytes) } else { data };
        Ok(Matrix { rows, k, kind, row_bytes, data })
    }

    /// Row `i` as F32 into `out`, which has `k` numbers.
    pub fn dequantise_row(&self, i: usize, out: &mut [f32]) {
        debug_assert_eq!(out.len(), self.k);
        debug_assert!(i < self.rows);
        dequantise::row(self.kind, self.row_bytes(i), out);
    }

    pub(super) fn row_bytes(&self, i: usize) -> &[u8] {
        &self.data.bytes()[i * self.row_bytes..(i + 1) * self.row_bytes]
    }

    fn form(&self) -> Form {
        form(self.kind).expect("checked when it was made")
    }

    /// Where row `i` lies.
    #[inline(always)]
    fn row(&self, i: usize) -> *const u8 {
        self.data.bytes().as_ptr().wrapping_add(i * self.row_bytes)
    }

    /// Where the tile of `lanes` rows begins that is to hold `row`: there, or at the last rows of all.
    #[inline(always)]
    fn tile_start(&self, row: usize, lanes: usize) -> usize {
        row.min(self.rows.max(MOST) - lanes)
    }

    /// Rows `first` to `first + 2 L::N` with some rows of activations; the last rows come again instead of rows beyond
    /// them.
    #[inline(always)]
    fn tile<L: Lanes>(
        &self,
        l: L,
        first: usize,
        x: &Activations<'_>,
        picks: &[u32],
        sums: &mut [f32],
    ) {
        let tile = |t: usize| Rows {
            start: self.row(self.tile_start(first + t * L::N, L::N)),
            stride: self.row_bytes,
        };
        let rows = [tile(0), tile(1)];
        // SAFETY: rows are within the data and as long as `k` says, by `new`; `picks` are rows of `x`, which was
        // prepared, by `compute`.
        unsafe {
            macro_rules! blocks {
                ($format:ty) => {{
                    let n = self.k / blocks::BLOCK;
                    tile::blocks::<L, $format>(l, rows, n, x.q8(), picks, sums)
                }};
            }
            macro_rules! supers {
                ($format:ty) => {{
                    let n = self.k / supers::SUPER;
                    tile::supers::<L, $format>(l, rows, n, x.q8k(), picks, sums)
                }};
            }
            match self.kind {
                Kind::F32 => self.floats::<L, f32>(l, rows, x, picks, sums),
                Kind::F16 => self.floats::<L, half::f16>(l, rows, x, picks, sums),
                Kind::BF16 => self.floats::<L, half::bf16>(l, rows, x, picks, sums),
                Kind::Q4_0 => blocks!(blocks::Q4_0),
                Kind::Q4_1 => blocks!(blocks::Q4_1),
                Kind::Q5_0 => blocks!(blocks::Q5_0),
                Kind::Q5_1 => blocks!(blocks::Q5_1),
                Kind::Q8_0 => blocks!(blocks::Q8_0),
                Kind::MXFP4 => blocks!(blocks::Mxfp4),
                Kind::Q2_K => supers!(supers::Q2K),
                Kind::Q3_K => supers!(supers::Q3K),
                Kind::Q4_K => supers!(supers::Q4K),
                Kind::Q5_K => supers!(supers::Q5K),
                Kind::Q6_K => supers!(supers::Q6K),
                kind => unreachable!("{kind:?} was refused when the matrix was made"),
            }
        }
    }

    /// The same for rows of numbers.
    ///
    /// # Safety
    ///
    /// As [`tile::blocks`], of `k` numbers.
    #[inline(always)]
    unsafe fn floats<L: Lanes, T: float::Float>(
        &self,
        l: L,
        rows: [Rows; TILES],
        x: &Activations<'_>,
        picks: &[u32],
        sums: &mut [f32],
    ) {
        let x = x.floats(self.form());
        for (r, &pick) in picks.iter().enumerate() {
            let y = x[pick as usize * self.k..].as_ptr();
            let sums = &mut sums[r * TILES * L::N..(r + 1) * TILES * L::N];
            for (i, sums) in sums.chunks_exact_mut(float::ROWS).enumerate() {
                let at = i * float::ROWS;
                let row = |r| rows[at / L::N].row(at % L::N + r).cast::<T>();
                let rows = [row(0), row(1), row(2), row(3)];
                // SAFETY: by the caller.
                sums.copy_from_slice(&unsafe {
                    float::dots::<L, T, { float::ROWS }>(l, rows, y, self.k)
                });
            }
        }
    }
}

impl Activations<'_> {
    /// Rounds the rows into the form that `w` reads, unless they are already.
    pub fn prepare_for(&mut self, w: &Matrix) {
        self.prepare(w.form());
    }
}

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
    up: Option<Up<'a>>,
    x: &'a Activations<'a>,
    picks: &'a [u32],
    out: *mut f32,
    /// Units before this job's.
    first: usize,
}

/// What a gate is applied to.
struct Up<'a> {
    w: &'a Matrix,
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
    fn new(job: Job<'a>, first: usize) -> Plan<'a> {
        let (w, up, x, picks, out) = match job {
            Job::Product(Product { w, x, picks, out }) => (w, None, x, picks, out),
            Job::Gated(Gated { w: [gate, up], bias, activation, x, picks, out }) => {
                assert!(gate.rows == up.rows && gate.k == up.k);
                (gate, Some(Up { w: up, bias, activation }), x, picks, out)
            }
        };
        assert!(w.k == x.k() && out.len() == picks.len() * w.rows);
        assert!(picks.iter().all(|&pick| (pick as usize) < x.rows()));
        Plan { w, up, x, picks, out: out.as_mut_ptr(), first }
    }

    fn units(&self, rows_at_once: usize) -> usize {
        self.w.rows.div_ceil(rows_at_once)
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
struct Tile<'a> {
    plan: &'a Plan<'a>,
    first: usize,
}

impl Work for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Tile { plan, first } = self;
        let n = TILES * L::N;
        let mut room = [const { MaybeUninit::<Sums>::uninit() }; 2];
        let [room, up_room] = &mut room;
        for (chunk, picks) in plan.picks.chunks(PICKS).enumerate() {
            let sums = zeros(room, picks.len() * n);
            plan.w.tile(l, first, plan.x, picks, sums);
            if let Some(up) = &plan.up {
                let ups = zeros(up_room, picks.len() * n);
                up.w.tile(l, first, plan.x, picks, ups);
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
                    // SAFETY: `at + there` is within `out`, and only the unit of these rows writes there.
                    unsafe {
                        plan.out.wrapping_add(at).copy_from_nonoverlapping(sums.as_ptr(), there)
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
    let rows_at_once = TILES * set.lanes();
    let mut plans: Vec<Plan<'_>> = Vec::new();
    let mut units = 0;
    for job in jobs {
        let plan = Plan::new(job, units);
        units += plan.units(rows_at_once);
        plans.push(plan);
    }
    let operations = plans.iter().map(Plan::operations).sum();
    workers::run(units, operations, &|unit| {
        let plan = &plans[plans.partition_point(|plan| plan.first <= unit) - 1];
        lanes::run_with(set, Tile { plan, first: (unit - plan.first) * rows_at_once });
    });
}

/// `out[r, i] = w[i] · x[r]`, out [rows of x, rows of w].
pub fn matmul(w: &Matrix, x: &mut Activations<'_>, out: &mut [f32]) {
    x.prepare_for(w);
    compute([Job::Product(Product { w, x, picks: x.all(), out })]);
}
