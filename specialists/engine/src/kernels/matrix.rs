//! A matrix in a mapped file, and tiles of its rows times rows of activations, whatever its format.

use thiserror::Error;

use super::activations::{Activations, Form};
use super::blocks;
use super::lanes::{Lanes, MOST, Rows};
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

    /// Its format, and its bytes where they lie.
    #[cfg(feature = "cuda")]
    pub(crate) fn raw(&self) -> (Kind, &[u8]) {
        (self.kind, &self.data.bytes()[..self.rows * self.row_bytes])
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
    pub(super) fn tile_start(&self, row: usize, lanes: usize) -> usize {
        row.min(self.rows.max(MOST) - lanes)
    }

    /// Rows `first` to `first + 2 L::N` with some rows of activations; the last rows come again instead of rows beyond
    /// them.
    #[inline(always)]
    pub(super) fn tile<L: Lanes>(
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
                let (tile, at) = (rows[at / L::N], at % L::N);
                let rows = [tile.row(at), tile.row(at + 1), tile.row(at + 2), tile.row(at + 3)];
                let rows = rows.map(<*const u8>::cast::<T>);
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
