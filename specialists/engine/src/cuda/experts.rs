//! Which experts rows choose, rows sorted by expert, and what experts made of them: `cuda/router.cu`, `cuda/experts.cu`.

use super::device::CudaError;
use super::memory::{Slice, address};
use super::products::Unit;
use super::queue::{Queue, launch};
use super::rows::{Rows, THREADS, holds};
pub(super) use crate::parts::Gates;

/// Experts of a layer at most, and threads of the block that sorts.
const MOST: usize = 1024;
/// Experts of a row at most.
const CHOSEN: usize = 64;
/// Rows in a unit.
const PICKS: usize = 8;

/// Experts that rows may choose.
#[derive(Clone, Copy)]
pub struct Masks<'a> {
    /// [rows], where the row's bits of layer 0 are, words of 64 experts; zero is all.
    pub rows: Slice<'a, u64>,
    /// Bytes from there to the layer's.
    pub offset: u64,
}

/// Chooses for every row, with its mask and without.
#[derive(Clone, Copy)]
pub struct Route<'a> {
    /// [rows, experts]
    pub logits: Slice<'a, f32>,
    pub experts: usize,
    pub top_k: usize,
    pub gates_are: Gates,
    pub masks: Option<Masks<'a>>,
    /// [rows, top_k] each, best first: what runs.
    pub ids: Slice<'a, i32>,
    pub gates: Slice<'a, f32>,
    /// The same of the full router.
    pub full_ids: Slice<'a, i32>,
    pub full_gates: Slice<'a, f32>,
    /// [rows], the share of the full gates that is on experts that the row may not have.
    pub missing: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

impl Route<'_> {
    /// # Safety
    ///
    /// Masks lie where the rows say.
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Route { logits, experts, top_k, masks, ids, gates, .. } = *self;
        let Route { full_ids, full_gates, missing, rows, .. } = *self;
        assert!(experts <= MOST && top_k <= CHOSEN.min(experts), "{top_k} of {experts} experts");
        let pairs = rows.most * top_k;
        holds(logits, "logits", rows.most * experts);
        [ids, full_ids].into_iter().for_each(|s| holds(s, "ids", pairs));
        [gates, full_gates].into_iter().for_each(|s| holds(s, "gates", pairs));
        holds(missing, "missing", rows.most);
        if let Some(masks) = masks {
            holds(masks.rows, "masks", rows.most);
        }
        let (of_rows, offset) = (address(masks.map(|m| m.rows)), masks.map_or(0, |m| m.offset));
        let kind = match self.gates_are {
            Gates::Renormalised => 0i32,
            Gates::OfAll => 1,
            Gates::OfChosen => 2,
        };
        let (experts, top_k, grid) = (experts as i32, top_k as i32, [rows.most, 1, 1]);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe {
            launch!(
                queue, "route", grid, 32, logits, of_rows, offset, rows.count, experts, top_k,
                kind, ids, gates, full_ids, full_gates, missing
            )
        }
    }
}

/// Units that so many pairs of rows and ranks make at most.
pub fn units(pairs: usize, experts: usize) -> usize {
    // Each expert begins one; the others are full.
    pairs.min(experts + pairs / PICKS)
}

/// Sorts rows by the experts that they chose.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    /// [rows, top_k], below `experts`.
    pub ids: Slice<'a, i32>,
    pub experts: usize,
    pub top_k: usize,
    /// [rows, top_k], where a pair's output is.
    pub place: Slice<'a, u32>,
    /// [rows * top_k], the row of each output.
    pub picks: Slice<'a, u32>,
    /// As many as [`units`] says.
    pub units: Slice<'a, Unit>,
    /// One number.
    pub count: Slice<'a, u32>,
    pub rows: Rows<'a>,
}

impl Group<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Group { ids, experts, top_k, place, picks, units: to, count, rows } = *self;
        let pairs = rows.most * top_k;
        assert!(experts <= MOST, "{experts} experts");
        holds(ids, "ids", pairs);
        [place, picks].into_iter().for_each(|s| holds(s, "places", pairs));
        holds(to, "units", units(pairs, experts));
        holds(count, "the count", 1);
        let (experts, top_k) = (experts as i32, top_k as i32);
        // SAFETY: shapes were checked; ids that are no expert are in no unit.
        unsafe {
            launch!(
                queue,
                "group",
                [1, 1, 1],
                MOST,
                ids,
                rows.count,
                experts,
                top_k,
                place,
                picks,
                to,
                count
            )
        }
    }
}

/// What experts made, [outputs, dim] in the order of [`Group`], becomes rows.
#[derive(Clone, Copy)]
pub struct Combine<'a> {
    pub y: Slice<'a, f32>,
    pub dim: usize,
    pub top_k: usize,
    /// [experts], what an expert's output is multiplied by.
    pub scales: Option<Slice<'a, f32>>,
    /// [experts, dim], added then.
    pub bias: Option<Slice<'a, f32>>,
    /// [rows, top_k] each.
    pub place: Slice<'a, u32>,
    pub ids: Slice<'a, i32>,
    pub rows: Rows<'a>,
}

impl Combine<'_> {
    fn check(&self) {
        let pairs = self.rows.most * self.top_k;
        holds(self.y, "y", pairs * self.dim);
        holds(self.place, "places", pairs);
        holds(self.ids, "ids", pairs);
    }

    /// `out[row]` = sum over ranks of gate * output; gates [rows, top_k], out [rows, dim].
    ///
    /// # Safety
    ///
    /// `ids` are below the lengths of scales and bias, and `place` below `outputs`.
    pub unsafe fn launch(
        &self,
        queue: &Queue,
        gates: Slice<'_, f32>,
        out: Slice<'_, f32>,
    ) -> Result<(), CudaError> {
        self.check();
        let Combine { y, dim, top_k, place, ids, rows, .. } = *self;
        holds(gates, "gates", rows.most * top_k);
        holds(out, "out", rows.most * dim);
        let (scales, bias) = (address(self.scales), address(self.bias));
        let grid = [dim.div_ceil(THREADS), rows.most, 1];
        let (dim, top_k) = (dim as i32, top_k as i32);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe {
            launch!(
                queue, "combine", grid, THREADS, y, scales, bias, place, ids, gates, rows.count,
                out, dim, top_k
            )
        }
    }

    /// The length of what each expert made: norms [rows, top_k].
    ///
    /// # Safety
    ///
    /// As `launch`.
    pub unsafe fn norms(&self, queue: &Queue, norms: Slice<'_, f32>) -> Result<(), CudaError> {
        self.check();
        let Combine { y, dim, top_k, place, ids, rows, .. } = *self;
        holds(norms, "norms", rows.most * top_k);
        let (scales, bias, dim) = (address(self.scales), address(self.bias), dim as i32);
        let grid = [top_k, rows.most, 1];
        // SAFETY: see above.
        unsafe {
            launch!(
                queue,
                "expert_norms",
                grid,
                THREADS,
                y,
                scales,
                bias,
                place,
                ids,
                rows.count,
                norms,
                dim
            )
        }
    }
}
