//! Activation rows in the forms that weights are multiplied with.
//!
//! Weights in blocks meet activations rounded to eight bits, as in ggml: blocks of 32 with an F16 scale, or
//! super-blocks of 256 with an F32 scale.  Weights in F16 and BF16 meet activations rounded to the same.
//!
//! Blocks lie block by block, and within a block row by row, so that a tile reads the rows it multiplies side by side.

use half::{bf16, f16};

use super::blocks::BLOCK;
use super::lanes::{self, Lanes, Work};
use super::supers::SUPER;
use super::workers::{self, Filled};
use crate::ggml::Kind;

/// What a weight format wants on the other side of its product.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Form {
    /// As they are.
    F32,
    F16,
    BF16,
    /// Blocks of 32.
    Q8,
    /// Super-blocks of 256.
    Q8K,
}

impl Form {
    /// What a format's rows are multiplied with; `None` without a kernel.
    pub fn of(kind: Kind) -> Option<Form> {
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
}

/// Rows in the form that some matrix wants.
#[derive(Clone, Copy)]
pub(super) enum Prepared<'a> {
    Floats(&'a [f32]),
    Q8(&'a Q8),
    Q8K(&'a Q8K),
}

/// Rows of activations, [rows, k], rounded at most once to each form.
pub struct Activations<'a> {
    rows: usize,
    k: usize,
    floats: &'a [f32],
    /// 0, 1, … : every row.
    all: Vec<u32>,
    halves: Option<Vec<f32>>,
    brains: Option<Vec<f32>>,
    q8: Option<Q8>,
    q8k: Option<Q8K>,
}

/// As ggml's Q8_0 and Q8_1: scales pass through F16, and so do their products with the sums, unless they are too large
/// for it.
pub(super) struct Q8 {
    pub rows: usize,
    /// [k / 32, rows, 32]
    pub quants: Vec<i8>,
    /// [k / 32, rows]
    pub scales: Vec<f32>,
    /// [k / 32, rows], of the block's quants.
    pub sums: Vec<i32>,
    /// [k / 32, rows], what a least value is multiplied with: the scale times that sum.
    pub totals: Vec<f32>,
}

/// As ggml's Q8_K.
pub(super) struct Q8K {
    pub rows: usize,
    /// [k / 256, rows, 256]
    pub quants: Vec<i8>,
    /// [k / 256, rows]
    pub scales: Vec<f32>,
    /// [k / 256, rows, 16], of 16 quants each.
    pub sums: Vec<i16>,
    /// [k / 256, rows, 16], eight zeros, then of 32 quants each.
    pub pairs: Vec<i16>,
}

impl<'a> Activations<'a> {
    /// `floats` is [rows, k].
    pub fn new(floats: &'a [f32], k: usize) -> Activations<'a> {
        debug_assert!(k > 0 && floats.len().is_multiple_of(k));
        let rows = floats.len() / k;
        let all = (0..rows as u32).collect();
        Activations { rows, k, floats, all, halves: None, brains: None, q8: None, q8k: None }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Every row, in order.
    pub fn all(&self) -> &[u32] {
        &self.all
    }

    pub(super) fn prepare(&mut self, form: Form) {
        let (floats, rows, k) = (self.floats, self.rows, self.k);
        match form {
            Form::F32 => {}
            Form::F16 => {
                self.halves.get_or_insert_with(|| rounded(floats, |v| f16::from_f32(v).to_f32()));
            }
            Form::BF16 => {
                self.brains.get_or_insert_with(|| rounded(floats, |v| bf16::from_f32(v).to_f32()));
            }
            Form::Q8 => {
                self.q8.get_or_insert_with(|| Q8::new(floats, rows, k));
            }
            Form::Q8K => {
                self.q8k.get_or_insert_with(|| Q8K::new(floats, rows, k));
            }
        }
    }

    /// What `prepare` made of this form, if it did.
    pub(super) fn prepared(&self, form: Form) -> Option<Prepared<'_>> {
        match form {
            Form::F32 => Some(Prepared::Floats(self.floats)),
            Form::F16 => self.halves.as_deref().map(Prepared::Floats),
            Form::BF16 => self.brains.as_deref().map(Prepared::Floats),
            Form::Q8 => self.q8.as_ref().map(Prepared::Q8),
            Form::Q8K => self.q8k.as_ref().map(Prepared::Q8K),
        }
    }
}

fn rounded(x: &[f32], round: impl Fn(f32) -> f32) -> Vec<f32> {
    x.iter().map(|v| round(*v)).collect()
}

/// The largest size, or no number if one is none: as integers, sizes are in order and what is no number is largest.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)))
}

/// Rounds to the nearest; what is no number becomes anything.  The sum of what it made, from registers: bytes are slow to
/// read back where they have just been written.
#[inline(always)]
fn quantise<const N: usize>(x: &[f32; N], inverse: f32, out: &mut [i8]) -> i32 {
    /// Adding it leaves the nearest integer in the lowest bits.
    const INTEGERS: f32 = 12_582_912.0;
    let mut whole = [0i32; N];
    for i in 0..N {
        whole[i] = i32::from((x[i] * inverse + INTEGERS).to_bits() as i8);
    }
    for (q, whole) in out.iter_mut().zip(whole) {
        *q = whole as i8;
    }
    whole.iter().sum()
}

/// Rows that one thread quantises before it asks for more.
fn rows_at_once(k: usize) -> usize {
    (8192 / k).max(1)
}

impl Q8 {
    fn new(x: &[f32], rows: usize, k: usize) -> Q8 {
        let n = rows * (k / BLOCK);
        let mut made = Q8 {
            rows,
            quants: vec![0; n * BLOCK],
            scales: vec![0.0; n],
            sums: vec![0; n],
            totals: vec![0.0; n],
        };
        let into = IntoQ8 {
            rows,
            quants: Filled::new(&mut made.quants),
            scales: Filled::new(&mut made.scales),
            sums: Filled::new(&mut made.sums),
            totals: Filled::new(&mut made.totals),
        };
        each_row(x, rows, k, &into);
        made
    }
}

impl Q8K {
    fn new(x: &[f32], rows: usize, k: usize) -> Q8K {
        let n = rows * (k / SUPER);
        let mut made = Q8K {
            rows,
            quants: vec![0; n * SUPER],
            scales: vec![0.0; n],
            sums: vec![0; n * 16],
            pairs: vec![0; n * 16],
        };
        let into = IntoQ8K {
            rows,
            quants: Filled::new(&mut made.quants),
            scales: Filled::new(&mut made.scales),
            sums: Filled::new(&mut made.sums),
            pairs: Filled::new(&mut made.pairs),
        };
        each_row(x, rows, k, &into);
        made
    }
}

/// Where rows are rounded to.
trait Into: Sync {
    /// Implementations are `#[inline(always)]`.
    fn row(&self, row: usize, x: &[f32]);
}

struct IntoQ8<'a> {
    rows: usize,
    quants: Filled<'a, i8>,
    scales: Filled<'a, f32>,
    sums: Filled<'a, i32>,
    totals: Filled<'a, f32>,
}

struct IntoQ8K<'a> {
    rows: usize,
    quants: Filled<'a, i8>,
    scales: Filled<'a, f32>,
    sums: Filled<'a, i16>,
    pairs: Filled<'a, i16>,
}

impl Into for IntoQ8<'_> {
    #[inline(always)]
    fn row(&self, row: usize, x: &[f32]) {
        for (b, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            let at = b * self.rows + row;
            // SAFETY: this block of this row is nobody else's.
            let (quants, scale, sum, total) = unsafe {
                (
                    self.quants.range(at * BLOCK, BLOCK),
                    self.scales.range(at, 1),
                    self.sums.range(at, 1),
                    self.totals.range(at, 1),
                )
            };
            let most = largest(x);
            let inverse = if most == 0.0 { 0.0 } else { 127.0 / most };
            sum[0] = quantise(x, inverse, quants);
            scale[0] = f16::from_f32(most / 127.0).to_f32();
            let exact = most / 127.0 * sum[0] as f32;
            let through = f16::from_f32(exact).to_f32();
            total[0] = if through.is_infinite() { exact } else { through };
        }
    }
}

impl Into for IntoQ8K<'_> {
    #[inline(always)]
    fn row(&self, row: usize, x: &[f32]) {
        for (b, x) in x.as_chunks::<SUPER>().0.iter().enumerate() {
            let at = b * self.rows + row;
            // SAFETY: this super-block of this row is nobody else's.
            let (quants, scale, sums, pairs) = unsafe {
                (
                    self.quants.range(at * SUPER, SUPER),
                    self.scales.range(at, 1),
                    self.sums.range(at * 16, 16),
                    self.pairs.range(at * 16 + 8, 8),
                )
            };
            let most = largest(x);
            // The number that is largest in size becomes -127, whatever its sign.
            let sign = x.iter().find(|v| v.abs() == most).map_or(1.0, |v| v.signum());
            let inverse = if most == 0.0 { 0.0 } else { -127.0 / (sign * most) };
            scale[0] = if most == 0.0 { 0.0 } else { 1.0 / inverse };
            let small = x.as_chunks::<16>().0.iter().zip(quants.chunks_exact_mut(16));
            for (sum, (x, quants)) in sums.iter_mut().zip(small) {
                *sum = quantise(x, inverse, quants) as i16;
            }
            for (pair, sums) in pairs.iter_mut().zip(sums.as_chunks::<2>().0) {
                *pair = sums[0] + sums[1];
            }
        }
    }
}

/// Rounds each row in the widest registers, on several threads if it is worth it.
fn each_row(x: &[f32], rows: usize, k: usize, into: &impl Into) {
    struct Some<'a, T> {
        x: &'a [f32],
        rows: std::ops::Range<usize>,
        k: usize,
        into: &'a T,
    }
    impl<T: Into> Work for Some<'_, T> {
        type Output = ();

        #[inline(always)]
        fn run<L: Lanes>(self, _: L) {
            for row in self.rows {
                self.into.row(row, &self.x[row * self.k..(row + 1) * self.k]);
            }
        }
    }
    let at_once = rows_at_once(k);
    workers::run(rows.div_ceil(at_once), rows * k / 8, &|unit| {
        let rows = unit * at_once..((unit + 1) * at_once).min(rows);
        lanes::run(Some { x, rows, k, into });
    });
}
