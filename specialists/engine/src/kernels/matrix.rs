//! A matrix in a mapped file, and tiles of its rows times rows of activations, whatever its format.

use half::{bf16, f16};
use thiserror::Error;

use super::activations::{Activations, Form, Prepared};
use super::along;
use super::blocks;
use super::lanes::{Lanes, MOST, Rows, Set};
use super::supers;
use super::tile::{self, TILES};
use super::{dequantise, float};
use crate::ggml::Kind;
use crate::mapping::Region;

/// `rows` rows of `k` weights, row after row.
#[derive(Clone)]
pub struct Matrix {
    pub rows: usize,
    pub k: usize,
    kind: Kind,
    form: Form,
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

/// Whether a matrix in this format can be computed with.
pub fn runs(kind: Kind) -> bool {
    Form::of(kind).is_some()
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows of {} weights in {:?}", self.rows, self.k, self.kind)
    }
}

impl Matrix {
    /// Checks once what every product relies on.
    ///
    /// # Errors
    ///
    /// [`MatrixError`] when the format has no kernel, or the bytes do not fit the shape.
    pub fn new(data: Region, kind: Kind, rows: usize, k: usize) -> Result<Matrix, MatrixError> {
        let form = Form::of(kind).ok_or(MatrixError::NoKernel { kind })?;
        let bytes = data.bytes().len();
        let row_bytes = kind.bytes(k as u64).map(|b| b as usize);
        let row_bytes =
            row_bytes.filter(|b| b.checked_mul(rows) == Some(bytes) && k > 0 && rows > 0);
        let row_bytes = row_bytes.ok_or(MatrixError::Size { rows, k, kind, bytes })?;
        Ok(Matrix { rows, k, kind, form, row_bytes, data })
    }

    /// Its format.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is multiplied with.
    #[cfg(feature = "cuda")]
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Its rows, where they lie.
    pub fn bytes(&self) -> &[u8] {
        &self.data.bytes()[..self.rows * self.row_bytes]
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

    /// What of `x` the rows are multiplied with; `None` if `x` was not prepared for this matrix.
    pub(super) fn side<'a>(&self, x: &'a Activations<'_>) -> Option<Prepared<'a>> {
        x.prepared(self.form)
    }

    /// The set to compute with: this one, or one of as few lanes as there are rows.
    pub(super) fn set(&self, set: Set) -> Set {
        match self.form {
            // Their rows are read one by one.
            Form::F32 | Form::F16 | Form::BF16 => set,
            Form::Q8 | Form::Q8K => set.within(self.rows),
        }
    }

    /// Where row `i` lies.
    #[inline(always)]
    fn row(&self, i: usize) -> *const u8 {
        self.data.bytes().as_ptr().wrapping_add(i * self.row_bytes)
    }

    /// Where the tile of `lanes` rows begins that is to hold `row`: there, or at the last rows of all.
    #[inline(always)]
    pub(super) fn tile_start(&self, row: usize, lanes: usize) -> usize {
        row.min(self.rows.saturating_sub(lanes))
    }

    /// Rows `first` to `first + 2 L::N` with some rows of activations; the last rows come again instead of rows beyond
    /// them.
    ///
    /// # Safety
    ///
    /// `L` is the set that [`Matrix::set`] tells, `x` what [`Matrix::side`] does, and `picks`, at most
    /// [`tile::PICKS`], are rows of it.
    #[inline(always)]
    pub(super) unsafe fn tile<L: Lanes>(
        &self,
        l: L,
        first: usize,
        x: Prepared<'_>,
        picks: &[u32],
        sums: &mut [f32],
    ) {
        let tile = |t: usize| Rows {
            start: self.row(self.tile_start(first + t * L::N, L::N)),
            stride: self.row_bytes,
        };
        let rows = [tile(0), tile(1)];
        let along = L::ALONG && picks.len() == 1;
        // SAFETY: rows are within the data and as long as `k` says, by `new`, and as many as a tile has; the rest is by
        // the caller.
        unsafe {
            macro_rules! blocks {
                ($format:ty, $x:expr) => {{
                    let n = self.k / blocks::BLOCK;
                    tile::blocks::<L, $format>(l, rows, n, $x, picks, sums)
                }};
            }
            macro_rules! supers {
                ($format:ty, $x:expr) => {{
                    let n = self.k / supers::SUPER;
                    tile::supers::<L, $format>(l, rows, n, $x, picks, sums)
                }};
            }
            macro_rules! along {
                ($format:ty, $x:expr) => {{
                    let n = self.k / supers::SUPER;
                    along::supers::<L, $format>(l, rows, n, $x, picks[0], sums)
                }};
            }
            match (x, self.kind) {
                (Prepared::Floats(x), Kind::F32) => self.floats::<L, f32>(l, first, x, picks, sums),
                (Prepared::Floats(x), Kind::F16) => self.floats::<L, f16>(l, first, x, picks, sums),
                (Prepared::Floats(x), Kind::BF16) => {
                    self.floats::<L, bf16>(l, first, x, picks, sums)
                }
                (Prepared::Q8(x), Kind::Q4_0) => blocks!(blocks::Q4_0, x),
                (Prepared::Q8(x), Kind::Q4_1) => blocks!(blocks::Q4_1, x),
                (Prepared::Q8(x), Kind::Q5_0) => blocks!(blocks::Q5_0, x),
                (Prepared::Q8(x), Kind::Q5_1) => blocks!(blocks::Q5_1, x),
                (Prepared::Q8(x), Kind::Q8_0) => blocks!(blocks::Q8_0, x),
                (Prepared::Q8(x), Kind::MXFP4) => blocks!(blocks::Mxfp4, x),
                (Prepared::Q8K(x), Kind::Q4_K) if along => along!(supers::Q4K, x),
                (Prepared::Q8K(x), Kind::Q5_K) if along => along!(supers::Q5K, x),
                (Prepared::Q8K(x), Kind::Q6_K) if along => along!(supers::Q6K, x),
                (Prepared::Q8K(x), Kind::Q2_K) => supers!(supers::Q2K, x),
                (Prepared::Q8K(x), Kind::Q3_K) => supers!(supers::Q3K, x),
                (Prepared::Q8K(x), Kind::Q4_K) => supers!(supers::Q4K, x),
                (Prepared::Q8K(x), Kind::Q5_K) => supers!(supers::Q5K, x),
                (Prepared::Q8K(x), Kind::Q6_K) => supers!(supers::Q6K, x),
                (_, kind) => unreachable!("{kind:?} has no form, or another one; see `Form::of`"),
            }
        }
    }

    /// The same for rows of numbers.
    ///
    /// # Safety
    ///
    /// As [`Matrix::tile`]; any set will do.
    #[inline(always)]
    unsafe fn floats<L: Lanes, T: float::Float>(
        &self,
        l: L,
        first: usize,
        x: &[f32],
        picks: &[u32],
        sums: &mut [f32],
    ) {
        // With fewer lanes the sums of one row are all that registers hold.
        let done = match L::N == MOST {
            // SAFETY: by the caller; so below.
            true => unsafe { self.floats_of::<L, T, 4>(l, first, x, picks, sums) },
            false => 0,
        };
        let sums = &mut sums[done * TILES * L::N..];
        // SAFETY: see above.
        unsafe { self.floats_of::<L, T, 1>(l, first, x, &picks[done..], sums) };
    }

    /// The same for `C` rows of activations at a time, so that what is read of the matrix serves all of them; how many
    /// are done, all but the last that are fewer.
    ///
    /// # Safety
    ///
    /// As [`Matrix::tile`].
    #[inline(always)]
    unsafe fn floats_of<L: Lanes, T: float::Float, const C: usize>(
        &self,
        l: L,
        first: usize,
        x: &[f32],
        picks: &[u32],
        sums: &mut [f32],
    ) -> usize {
        let (all, last) = (self.data.bytes().as_ptr(), self.rows - 1);
        let (picks, _) = picks.as_chunks::<C>();
        for (picks, sums) in picks.iter().zip(sums.chunks_exact_mut(C * TILES * L::N)) {
            let mut xs = [x.as_ptr(); C];
            for (at, pick) in xs.iter_mut().zip(picks) {
                *at = x[*pick as usize * self.k..].as_ptr();
            }
            for t in 0..TILES {
                let start = self.tile_start(first + t * L::N, L::N);
                for i in (0..L::N).step_by(float::ROWS) {
                    let mut rows = [all.cast::<T>(); float::ROWS];
                    for (at, row) in rows.iter_mut().zip(start + i..) {
                        *at = all.wrapping_add(row.min(last) * self.row_bytes).cast();
                    }
                    // SAFETY: by the caller.
                    let dots = unsafe { float::dots::<L, T, C>(l, rows, xs, self.k) };
                    let there = float::ROWS.min(L::N);
                    for (c, dots) in dots.iter().enumerate() {
                        let to = &mut sums[(c * TILES + t) * L::N + i..][..there];
                        to.copy_from_slice(&dots[..there]);
                    }
                }
            }
        }
        C * picks.len()
    }
}

impl Activations<'_> {
    /// Rounds the rows into the form that `w` reads, unless they are already.
    pub fn prepare_for(&mut self, w: &Matrix) {
        self.prepare(w.form);
    }
}
