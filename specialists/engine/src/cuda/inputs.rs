//! What kernels read of a step: who the rows are and where they belong.  It goes to the device in one copy, and steps of
//! one [`Size`] have everything in the same places, so that one of them recorded serves all.

use super::attention::{Places, Rotations};
use super::delta::Stretch;
use super::device::CudaError;
use super::experts::Masks;
use super::memory::{Plain, Slice};
use super::queue::Queue;
use super::rows::Rows;
use super::scratch::Scratch;
use crate::kv::Kept;
use crate::model::Model;
use crate::rope::{Pairs, Rotation};
use crate::step::Step;

/// Sections begin at multiples of it.
const ALIGN: usize = 16;
/// No context is taken for shorter, so that few sizes serve short ones.
const LEAST_CONTEXT: usize = 256;

/// Sizes that grids and rooms are made for, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    pub rows: usize,
    /// Rows whose logits are wanted; may be none.
    pub wanted: usize,
    pub segments: usize,
    /// Tokens that a row sees at most.
    pub context: usize,
    /// Pages of one class, of all sequences together.
    pages: usize,
}

impl Size {
    pub fn of(step: &Step<'_, '_>, wanted: usize) -> Size {
        let furthest = step.places.iter().map(|&(_, position)| position + 1).max();
        let classes = step.segments.first().map_or(0, |s| s.pages.classes());
        let pages = |class| step.segments.iter().map(|s| s.pages.table(class).count()).sum();
        Size {
            rows: step.rows().next_power_of_two(),
            wanted: if wanted == 0 { 0 } else { wanted.next_power_of_two() },
            segments: step.segments.len().next_power_of_two(),
            context: furthest.unwrap_or(1).next_power_of_two().max(LEAST_CONTEXT),
            pages: (0..classes).map(pages).max().unwrap_or(0usize).next_power_of_two(),
        }
    }
}

/// Sections of one copy.
#[derive(Default)]
struct Pack(Vec<u8>);

/// Where a section begins, and values there is room for.
#[derive(Clone, Copy)]
struct Section<T>(usize, usize, std::marker::PhantomData<T>);

impl Pack {
    /// Values, and room for `most` in all.
    fn put<T: Plain>(&mut self, most: usize, values: &[T]) -> Section<T> {
        assert!(values.len() <= most, "{} values, {most} at most", values.len());
        let start = self.0.len().next_multiple_of(ALIGN);
        self.0.resize(start + most * size_of::<T>(), 0);
        // SAFETY: values without padding, as bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values))
        };
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
        Section(start, most, std::marker::PhantomData)
    }
}

/// All of it, on the device.
pub(super) struct Inputs<'r> {
    pub size: Size,
    pub rows: Rows<'r>,
    /// A row's experts: rows * top_k.
    pub pairs: Rows<'r>,
    pub wanted: Rows<'r>,
    pub tokens: Slice<'r, u32>,
    /// Rows whose logits are wanted.
    pub picks: Slice<'r, u32>,
    /// Of each class of pages.
    places: Vec<Places<'r>>,
    /// Of each rope.
    pub rotations: Vec<Rotations<'r>>,
    masks: Masks<'r>,
    /// [segments], who chooses from nothing but what is in memory.
    bounded: Vec<bool>,
    /// Bytes of a layer's part of a mask.
    mask_bytes: u64,
    /// [layers], of those that keep a state.
    stretches: Vec<Option<Slice<'r, Stretch>>>,
    pub stretch_count: Slice<'r, u32>,
    pub stretch_of: Slice<'r, u32>,
}

impl<'r> Inputs<'r> {
    pub fn new(
        (scratch, queue): (&mut Scratch, &Queue),
        model: &Model,
        step: &mut Step<'_, '_>,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Result<Inputs<'r>, CudaError> {
        let (size, shape, rows) = (Size::of(step, wanted.len()), model.shape(), step.rows());
        let mut pack = Pack::default();
        let counts = [rows, rows * shape.top_k, wanted.len(), step.segments.len()];
        let counts = pack.put(counts.len(), &counts.map(|n| n as u32));
        let tokens = pack.put(size.rows, tokens);
        let picks: Vec<u32> = wanted.iter().map(|&row| row as u32).collect();
        let picks = pack.put(size.wanted, &picks);
        let positions: Vec<u32> = step.places.iter().map(|&(_, p)| p as u32).collect();
        let positions = pack.put(size.rows, &positions);
        let segments: Vec<u32> = step.places.iter().map(|&(s, _)| s as u32).collect();
        let stretch_of = pack.put(size.rows, &segments);
        let classes = step.segments.first().map_or(0, |s| s.pages.classes());
        let tables: Vec<_> = (0..classes).map(|class| tables(step, class)).collect();
        let tables: Vec<_> = tables
            .iter()
            .map(|(of_rows, pages)| (pack.put(size.rows, of_rows), pack.put(size.pages, pages)))
            .collect();
        let rotations: Vec<_> = step
            .rotations
            .iter()
            .map(|rows| {
                let (cos, sin, turned, neighbours) = turned(rows);
                let most = size.rows * turned / 2;
                (pack.put(most, &cos), pack.put(most, &sin), turned, neighbours)
            })
            .collect();
        let stretches = stretches(step, model);
        let stretches: Vec<_> = stretches
            .iter()
            .map(|layer| layer.as_ref().map(|all| pack.put(size.segments, all)))
            .collect();
        let words = shape.experts.div_ceil(64);
        let (bits, of_segment) = masks(step, model);
        let bits = pack.put(size.segments * shape.layers * words, &bits);
        // What rows hold are addresses, which are known once there is room.
        let mask_rows = pack.put(size.rows, &vec![0u64; rows]);
        let room: Slice<'r, u8> = scratch.room("inputs", pack.0.len())?;
        let address = |start: usize| room.address() + start as u64;
        for (row, &(segment, _)) in step.places.iter().enumerate() {
            let at = of_segment[segment]
                .first
                .map_or(0, |first| address(bits.0 + first * size_of::<u64>()));
            let to = mask_rows.0 + row * size_of::<u64>();
            pack.0[to..to + size_of::<u64>()].copy_from_slice(&at.to_ne_bytes());
        }
        queue.write(room, &pack.0)?;
        fn at<'r, T: Plain>(room: Slice<'r, u8>, section: Section<T>) -> Slice<'r, T> {
            let Section(start, len, _) = section;
            // SAFETY: the section was written there, and is aligned.
            unsafe { Slice::at(room.address() + start as u64, len) }
        }
        let count = |i: usize| at(room, counts).range(i..i + 1);
        let places = tables.into_iter().map(|(tables, pages)| Places {
            positions: at(room, positions),
            tables: at(room, tables),
            pages: at(room, pages),
            offset: 0,
        });
        let rotations = rotations.into_iter().map(|(cos, sin, turned, neighbours)| Rotations {
            cos: at(room, cos),
            sin: at(room, sin),
            turned,
            neighbours,
        });
        Ok(Inputs {
            size,
            rows: Rows { most: size.rows, count: count(0) },
            pairs: Rows { most: size.rows * shape.top_k, count: count(1) },
            wanted: Rows { most: size.wanted, count: count(2) },
            tokens: at(room, tokens),
            picks: at(room, picks),
            places: places.collect(),
            rotations: rotations.collect(),
            bounded: of_segment.iter().map(|mask| mask.bounded).collect(),
            masks: Masks { rows: at(room, mask_rows), offset: 0 },
            mask_bytes: (words * size_of::<u64>()) as u64,
            stretches: stretches.into_iter().map(|s| s.map(|s| at(room, s))).collect(),
            stretch_count: count(3),
            stretch_of: at(room, stretch_of),
        })
    }

    /// Where the rows' pages of a layer are.
    pub fn places(&self, (class, offset): (usize, usize)) -> Places<'r> {
        Places { offset: offset as u64, ..self.places[class] }
    }

    /// Whether a segment's rows choose from nothing but what is in memory.
    pub fn bounded(&self, segment: usize) -> bool {
        self.bounded[segment]
    }

    /// The rows' masks of a layer.
    pub fn masks(&self, layer: usize) -> Masks<'r> {
        Masks { offset: layer as u64 * self.mask_bytes, ..self.masks }
    }

    /// The sequences' states of a layer; `None` of one that keeps none.
    pub fn stretches(&self, layer: usize) -> Option<Slice<'r, Stretch>> {
        self.stretches[layer]
    }
}

/// Where each row's table of pages begins, and all tables one after the other.
fn tables(step: &Step<'_, '_>, class: usize) -> (Vec<u32>, Vec<u64>) {
    let (mut pages, mut firsts) = (Vec::new(), Vec::new());
    for segment in step.segments.iter() {
        firsts.push(pages.len() as u32);
        pages.extend(segment.pages.table(class));
    }
    (step.places.iter().map(|&(segment, _)| firsts[segment]).collect(), pages)
}

/// Cosines and sines, row after row, how many numbers of a head they turn, and whether neighbours go together.
fn turned(rows: &[Rotation]) -> (Vec<f32>, Vec<f32>, usize, bool) {
    let (mut all_cos, mut all_sin, mut last) = (Vec::new(), Vec::new(), (0, false));
    for row in rows {
        let (cos, sin, pairs) = row.parts();
        all_cos.extend_from_slice(cos);
        all_sin.extend_from_slice(sin);
        last = (2 * cos.len(), pairs == Pairs::Neighbours);
    }
    (all_cos, all_sin, last.0, last.1)
}

/// Of each layer that keeps a state, where each sequence's is.
fn stretches(step: &mut Step<'_, '_>, model: &Model) -> Vec<Option<Vec<Stretch>>> {
    let of_layer = |(layer, kept): (usize, &Kept)| {
        matches!(kept, Kept::State { .. }).then(|| {
            let mut first = 0;
            let stretch = step.segments.iter_mut().map(|segment| {
                let (state, _) = segment.pages.state_at(layer);
                let count = segment.tokens.len() as u32;
                first += count;
                Stretch { first: first - count, count, state: state as u64 }
            });
            stretch.collect()
        })
    };
    model.kept().iter().enumerate().map(of_layer).collect()
}

/// What a segment's rows may choose.
struct MaskOf {
    /// Where its words begin; `None` is all.
    first: Option<usize>,
    /// Nothing but what is in memory.
    bounded: bool,
}

/// Words of all masks, [masks][layers][words], and each segment's.
fn masks(step: &Step<'_, '_>, model: &Model) -> (Vec<u64>, Vec<MaskOf>) {
    let (shape, mut words) = (model.shape(), Vec::new());
    let all = vec![u64::MAX; shape.experts.div_ceil(64)];
    let of_segment = step.segments.iter().map(|segment| {
        // Who makes do with what is there sees it as it is now.
        let there = |layer: usize| match segment.missing {
            config::Missing::Renormalise if shape.routed[layer] => {
                step.experts.there(layer, segment.mask, shape.top_k)
            }
            _ => None,
        };
        let there: Vec<Option<Vec<u64>>> = (0..shape.layers).map(there).collect();
        let bounded = there.iter().zip(&shape.routed).all(|(t, routed)| t.is_some() || !routed);
        if segment.mask.is_none() && there.iter().all(Option::is_none) {
            return MaskOf { first: None, bounded };
        }
        let first = words.len();
        for (layer, there) in there.iter().enumerate() {
            let own = segment.mask.map_or(&all[..], |mask| mask.words(layer));
            words.extend_from_slice(there.as_deref().unwrap_or(own));
        }
        MaskOf { first: Some(first), bounded }
    });
    let of_segment: Vec<MaskOf> = of_segment.collect();
    (words, of_segment)
}
