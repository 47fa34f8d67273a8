//! Heads normed and turned, keys and values stored in pages, and attention over them: `cuda/heads.cu`, `cuda/pages.cuh`,
//! `cuda/store.cu`, `cuda/attend.cu`.

use config::Precision;

use super::device::CudaError;
use super::memory::{Slice, address};
use super::queue::{Queue, launch};
use super::rows::{Rows, holds};
use crate::kernels::PAGE;

/// Threads that have a head, and the longest head.
const HEAD_THREADS: usize = 128;
const MOST: usize = 512;
/// Positions in a piece of the context, and threads that have one.
const PIECE: usize = 128;
/// Heads of queries that a block has.
const HEADS: usize = 8;
/// Numbers that share a scale in [`Precision::Q8`].
const SHARE: usize = 32;

/// What is done to a head before it is turned.
#[derive(Clone, Copy)]
pub enum HeadNorm<'a> {
    None,
    /// [head_dim], of each head by itself.
    Each(Slice<'a, f32>),
    /// [heads, head_dim], of all heads together.
    Together(Slice<'a, f32>),
    /// Of each, without a weight.
    Unit,
    /// To length one; eps is added to the square of the length.
    Length,
}

/// Cosines and sines of the rows' positions, each [rows, turned / 2]: the first `turned` numbers of a head turn.
#[derive(Clone, Copy)]
pub struct Rotations<'a> {
    pub cos: Slice<'a, f32>,
    pub sin: Slice<'a, f32>,
    pub turned: usize,
    /// Numbers 2i and 2i + 1 turn together, else i and i + turned / 2.
    pub neighbours: bool,
}

/// Heads after their projection.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub x: Slice<'a, f32>,
    /// Numbers from a row of `x` to the next, and from a head to the next.
    pub row: usize,
    pub head: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub norm: HeadNorm<'a>,
    pub eps: f32,
    pub rotations: Option<Rotations<'a>>,
    /// Heads side by side; may be `x` where they lie there alike, unless heads are normed together.
    pub out: Slice<'a, f32>,
    /// Numbers from a row of `out` to the next.
    pub out_row: usize,
    pub rows: Rows<'a>,
}

impl Heads<'_> {
    pub fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Heads { x, row, head, heads, head_dim, eps, out, out_row, rows, .. } = *self;
        assert!(head_dim <= MOST, "heads of {head_dim}");
        let in_place = x.address() == out.address();
        assert!(!in_place || (row, head) == (out_row, head_dim), "heads are moved over others");
        if rows.most > 0 {
            holds(x, "x", (rows.most - 1) * row + (heads - 1) * head + head_dim);
            holds(out, "out", (rows.most - 1) * out_row + heads * head_dim);
        }
        let (norm, weight) = match self.norm {
            HeadNorm::None => (0i32, None),
            HeadNorm::Each(weight) => (1, Some((weight, head_dim))),
            HeadNorm::Together(weight) => {
                assert!(!in_place, "heads are read by their neighbours");
                (2, Some((weight, heads * head_dim)))
            }
            HeadNorm::Unit => (3, None),
            HeadNorm::Length => (4, None),
        };
        if let Some((weight, len)) = weight {
            holds(weight, "the weight", len);
        }
        let weight = address(weight.map(|(weight, _)| weight));
        let (mut cos, mut sin, mut turned, mut neighbours) = (0u64, 0u64, 0i32, 0i32);
        if let Some(r) = self.rotations {
            assert!(r.turned <= head_dim && r.turned.is_multiple_of(2), "{} turn", r.turned);
            [r.cos, r.sin]
                .into_iter()
                .for_each(|s| holds(s, "rotations", rows.most * r.turned / 2));
            (cos, sin, turned) = (r.cos.address(), r.sin.address(), r.turned as i32);
            neighbours = i32::from(r.neighbours);
        }
        let (grid, hd) = ([heads, rows.most, 1], head_dim as i32);
        let [row, head, out_row] = [row, head, out_row].map(|n| n as i32);
        // SAFETY: shapes were checked.
        unsafe {
            launch!(
                queue,
                "turn_heads",
                grid,
                HEAD_THREADS,
                x,
                row,
                head,
                weight,
                cos,
                sin,
                rows.count,
                out,
                out_row,
                hd,
                turned,
                neighbours,
                norm,
                eps
            )
        }
    }
}

/// Keys and values of one layer in a page of [`PAGE`] tokens: `cuda/pages.cuh` says how they lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageFormat {
    pub precision: Precision,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl PageFormat {
    /// Bytes of keys and values, a multiple of 16.
    ///
    /// # Panics
    ///
    /// When [`Precision::Q8`] does not find whole blocks in a head.
    pub fn bytes(self) -> usize {
        let numbers = self.kv_heads * PAGE * self.head_dim;
        2 * match self.precision {
            Precision::F32 => 4 * numbers,
            Precision::F16 => 2 * numbers,
            Precision::Q8 => {
                assert!(self.head_dim.is_multiple_of(SHARE), "heads of {}", self.head_dim);
                numbers + 2 * numbers / SHARE
            }
        }
    }

    fn name(self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Q8 => "q8",
        }
    }
}

/// Rows and their sequences.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// [rows]
    pub positions: Slice<'a, u32>,
    /// [rows], where the table of the row's sequence begins in `pages`.
    pub tables: Slice<'a, u32>,
    /// Addresses of pages, multiples of 16; those that a window has passed are not read.
    pub pages: Slice<'a, u64>,
    /// Bytes from there to the layer's, a multiple of 16.
    pub offset: u64,
}

/// As `Places` in `cuda/pages.cuh`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PlacesAt {
    positions: u64,
    tables: u64,
    pages: u64,
    offset: u64,
}

impl Places<'_> {
    fn parameter(&self, rows: Rows<'_>) -> PlacesAt {
        holds(self.positions, "positions", rows.most);
        holds(self.tables, "tables", rows.most);
        assert!(self.offset.is_multiple_of(16), "a layer begins at {}", self.offset);
        let (positions, tables) = (self.positions.address(), self.tables.address());
        PlacesAt { positions, tables, pages: self.pages.address(), offset: self.offset }
    }
}

/// Keys and values of all rows, each [rows, kv heads, head_dim], to their pages.
#[derive(Clone, Copy)]
pub struct Store<'a> {
    pub format: PageFormat,
    pub keys: Slice<'a, f32>,
    pub values: Slice<'a, f32>,
    pub places: Places<'a>,
    pub rows: Rows<'a>,
}

impl Store<'_> {
    /// # Safety
    ///
    /// Pages of the format lie where rows are, and nobody reads them meanwhile.
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        let Store { format, keys, values, places, rows } = *self;
        let dim = format.kv_heads * format.head_dim;
        [keys, values].into_iter().for_each(|s| holds(s, "keys and values", rows.most * dim));
        format.bytes();
        let (places, hd) = (places.parameter(rows), format.head_dim as i32);
        let (name, grid) = (format!("store_{}", format.name()), [format.kv_heads, rows.most, 1]);
        // SAFETY: shapes were checked, the rest is the caller's.
        unsafe { launch!(queue, &name, grid, HEAD_THREADS, keys, values, places, rows.count, hd) }
    }
}

/// What the output of attention is multiplied by: the sigmoid of what lies beside the queries.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// Begins with the gate of head 0 of row 0.
    pub x: Slice<'a, f32>,
    /// Numbers from a row to the next, and from a head to the next.
    pub row: usize,
    pub head: usize,
}

/// Attention of rows over the tokens they see.
#[derive(Clone, Copy)]
pub struct Attend<'a> {
    pub format: PageFormat,
    /// [rows, heads, head_dim]
    pub q: Slice<'a, f32>,
    pub heads: usize,
    /// Scores are multiplied by it.
    pub scale: f32,
    /// Tokens that a row sees, itself among them.
    pub window: Option<usize>,
    /// [heads]
    pub sinks: Option<Slice<'a, f32>>,
    pub gate: Option<Gate<'a>>,
    pub places: Places<'a>,
    /// [rows, heads, head_dim]
    pub out: Slice<'a, f32>,
    pub rows: Rows<'a>,
}

/// As `Attend` in `cuda/attend.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameter {
    q: u64,
    places: PlacesAt,
    rows: u64,
    sinks: u64,
    gate: u64,
    out: u64,
    partial: u64,
    gate_row: i32,
    gate_head: i32,
    heads: i32,
    kv_heads: i32,
    head_dim: i32,
    window: i32,
    pieces: i32,
    scale: f32,
}

impl Attend<'_> {
    /// Pieces that a row sees at most in a context of so many tokens.
    fn pieces(&self, context: usize) -> usize {
        match self.window {
            // The first may be cut.
            Some(window) if window < context => window.div_ceil(PIECE) + 1,
            _ => context.div_ceil(PIECE),
        }
    }

    /// Numbers of the room that [`Attend::launch_apart`] needs.
    pub fn room(&self, context: usize) -> usize {
        self.rows.most * self.heads * self.pieces(context) * (2 + self.format.head_dim)
    }

    fn parameter(&self) -> Parameter {
        let Attend { format, q, heads, scale, window, sinks, gate, places, out, rows } = *self;
        let (kv_heads, hd) = (format.kv_heads, format.head_dim);
        assert!(hd <= MOST, "heads of {hd}");
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "{heads} heads over {kv_heads}");
        [q, out].into_iter().for_each(|s| holds(s, "queries and answers", rows.most * heads * hd));
        if let Some(sinks) = sinks {
            holds(sinks, "sinks", heads);
        }
        if let Some(gate) = gate
            && rows.most > 0
        {
            holds(gate.x, "gates", (rows.most - 1) * gate.row + (heads - 1) * gate.head + hd);
        }
        format.bytes();
        Parameter {
            q: q.address(),
            places: places.parameter(rows),
            rows: rows.count.address(),
            sinks: address(sinks),
            gate: address(gate.map(|g| g.x)),
            out: out.address(),
            partial: 0,
            gate_row: gate.map_or(0, |g| g.row) as i32,
            gate_head: gate.map_or(0, |g| g.head) as i32,
            heads: heads as i32,
            kv_heads: kv_heads as i32,
            head_dim: hd as i32,
            window: window.unwrap_or(0) as i32,
            pieces: 1,
            scale,
        }
    }

    fn run(&self, queue: &Queue, parameter: Parameter, pieces: usize) -> Result<(), CudaError> {
        let dims = [128, 256, MOST].into_iter().find(|d| self.format.head_dim <= *d);
        let name = format!("attend_{}_{}", self.format.name(), dims.unwrap_or(MOST));
        let groups = (self.heads / self.format.kv_heads).div_ceil(HEADS);
        let grid = [pieces, self.format.kv_heads * groups, self.rows.most];
        // SAFETY: shapes were checked when the parameter was made, the rest is the callers'.
        unsafe { launch!(queue, &name, grid, PIECE, parameter) }
    }

    /// A row's pieces of the context one after the other, for many rows.
    ///
    /// # Safety
    ///
    /// Pages of the format lie where the sequences of rows have them, and hold what rows see.
    pub unsafe fn launch(&self, queue: &Queue) -> Result<(), CudaError> {
        self.run(queue, self.parameter(), 1)
    }

    /// A row's pieces side by side, for few rows; the same bits.  No row is beyond `context` tokens, and `room` holds what
    /// [`Attend::room`] says.
    ///
    /// # Safety
    ///
    /// As `launch`.
    pub unsafe fn launch_apart(
        &self,
        queue: &Queue,
        context: usize,
        room: Slice<'_, f32>,
    ) -> Result<(), CudaError> {
        let pieces = self.pieces(context);
        holds(room, "room", self.room(context));
        let mut parameter = self.parameter();
        (parameter.partial, parameter.pieces) = (room.address(), pieces as i32);
        self.run(queue, parameter, pieces)?;
        let grid = [self.heads, self.rows.most, 1];
        // SAFETY: shapes were checked; the pieces lie in the room.
        unsafe { launch!(queue, "merge", grid, PIECE, parameter) }
    }
}
