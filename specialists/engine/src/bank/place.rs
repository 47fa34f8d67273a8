//! Where experts are while they are resident: one interface for memory that is the file's own pages, and for memory of
//! a device.
//!
//! The bank decides who comes and goes; a [`Place`] does it, and says what the system reports.  [`Mapped`] is the place
//! of a CPU: experts are used where they lie in the map, resident means that their pages are brought in, and what is
//! not resident can be computed all the same.  [`Arena`](super::Arena) is the place of a device with memory of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sizes::{End, Sizes, Span};
use crate::memory;
use crate::model::Model;

/// Where resident experts are.  Experts are numbered through: layer * experts + index.
pub trait Place: Send + Sync {
    /// What each expert takes there.
    fn sizes(&self) -> &Arc<Sizes>;

    /// Brings an expert in; `false` if it has no place.
    fn bring_in(&self, expert: usize) -> bool;

    /// Gives back what an expert took and those that are resident do not need; it is resident no more.
    fn give_back(&self, expert: usize, resident: &Residents);

    /// Gives back whatever came to be in memory of a layer's experts without being resident; of all without a layer.
    /// How much a system maps around a page that is touched is its own affair: 64 KiB, or all of a large folio.
    fn tidy(&self, layer: Option<usize>, resident: &Residents);

    /// Bytes of experts as the system reports them; `None` where it does not tell.
    fn reported_bytes(&self) -> Option<u64>;
}

/// One bit for each expert, set while it is resident.  Written by the bank; read freely.
pub struct Residents {
    experts: usize,
    /// [layers][experts / 64, rounded up], as in a mask.
    bits: Vec<Vec<AtomicU64>>,
}

impl Residents {
    pub(crate) fn new(layers: usize, experts: usize) -> Residents {
        let words = || (0..experts.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Residents { experts, bits: (0..layers).map(|_| words()).collect() }
    }

    fn word(&self, expert: usize) -> (&AtomicU64, u64) {
        let (layer, e) = (expert / self.experts, expert % self.experts);
        (&self.bits[layer][e / 64], 1 << (e % 64))
    }

    pub(super) fn set(&self, expert: usize, resident: bool) {
        let (word, bit) = self.word(expert);
        match resident {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Whether the expert is resident.
    pub fn contains(&self, expert: usize) -> bool {
        let (word, bit) = self.word(expert);
        word.load(Ordering::Relaxed) & bit != 0
    }

    /// The bits of a layer now.
    pub(super) fn layer(&self, layer: usize) -> impl Iterator<Item = u64> {
        self.bits[layer].iter().map(|word| word.load(Ordering::Relaxed))
    }
}

/// Experts in place in the mapped file.
pub(crate) struct Mapped {
    /// Keeps the map for as long as its pages are named here.
    _model: Arc<Model>,
    sizes: Arc<Sizes>,
    /// Pages that are no file's would lose their bytes; those stay.
    of_files: bool,
    /// In order of addresses.
    spans: Vec<Span>,
    /// Of each expert, and of each layer, indices of its spans.
    of_expert: Vec<Vec<usize>>,
    of_layer: Vec<Vec<usize>>,
}

impl Mapped {
    pub fn new(model: Arc<Model>) -> Mapped {
        let (layers, experts) = (model.shape().layers, model.shape().experts);
        let of_files = model.gguf().parts().iter().all(|part| part.mapping().of_a_file());
        let slices: Vec<(usize, usize, usize)> = (0..layers)
            .flat_map(|layer| model.experts(layer).iter().enumerate().map(move |e| (layer, e)))
            .flat_map(|(layer, (e, expert))| {
                let number = layer * experts + e;
                expert.slices.iter().map(move |slice| {
                    (number, slice.bytes().as_ptr() as usize, slice.bytes().len())
                })
            })
            .collect();
        let backbone = model.backbone().map(|data| {
            let start = data.as_ptr() as usize;
            start..start + data.len()
        });
        let (sizes, spans) =
            Sizes::of_pages((layers, experts), memory::page_bytes(), &slices, backbone);
        let mut of_expert = vec![Vec::new(); layers * experts];
        let mut of_layer = vec![Vec::new(); layers];
        for (i, span) in spans.iter().enumerate() {
            of_expert[span.expert].push(i);
            of_layer[span.expert / experts].push(i);
        }
        Mapped { _model: model, sizes: Arc::new(sizes), of_files, spans, of_expert, of_layer }
    }

    /// The pages of a span that nobody resident needs.
    fn free(&self, span: &Span, resident: &Residents) -> Range<usize> {
        let needed = |end: End| match end {
            End::Own => false,
            End::Backbone => true,
            End::Shared(edge) => {
                self.sizes.touching(edge).iter().any(|e| resident.contains(*e as usize))
            }
        };
        let Range { start, end } = span.pages;
        let start = start + usize::from(needed(span.first));
        let end = end - usize::from(needed(span.last));
        start..end.max(start)
    }
}

/// Makes some tensors all that is mapped of a model; their bytes, by whole pages.
pub(crate) fn bring_in<'a>(model: &Model, tensors: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut pages: Vec<Range<usize>> = tensors.map(memory::pages_of).collect();
    pages.sort_by_key(|range| (range.start, range.end));
    let mut runs = Vec::new();
    joined(pages.into_iter(), |range| runs.push(range));
    runs.iter().cloned().for_each(memory::bring_in_pages);
    // What was read to open the file is not needed again, and what the system mapped around it never was.
    for map in model.gguf().parts().iter().map(|p| p.mapping()).filter(|map| map.of_a_file()) {
        let file = memory::pages_of(map.bytes());
        let within = |run: &&Range<usize>| file.start <= run.start && run.end <= file.end;
        let mut from = file.start;
        for run in runs.iter().filter(within) {
            memory::give_back_pages(from..run.start.max(from));
            from = run.end;
        }
        memory::give_back_pages(from..file.end);
    }
    runs.iter().map(|run| (run.len() * memory::page_bytes()) as u64).sum()
}

/// Joins ranges that come in order and touch or overlap, and hands them out.
fn joined(ranges: impl Iterator<Item = Range<usize>>, mut each: impl FnMut(Range<usize>)) {
    let mut run = 0..0;
    for range in ranges.filter(|range| !range.is_empty()) {
        if range.start <= run.end && !run.is_empty() {
            run.end = run.end.max(range.end);
        } else {
            if !run.is_empty() {
                each(run);
            }
            run = range;
        }
    }
    if !run.is_empty() {
        each(run);
    }
}

impl Place for Mapped {
    fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    fn bring_in(&self, expert: usize) -> bool {
        if !self.of_files {
            return true;
        }
        let spans = self.of_expert[expert].iter().map(|&i| self.spans[i].pages.clone());
        joined(spans, memory::bring_in_pages);
        true
    }

    fn give_back(&self, expert: usize, resident: &Residents) {
        if !self.of_files {
            return;
        }
        let spans = self.of_expert[expert].iter().map(|&i| self.free(&self.spans[i], resident));
        joined(spans, memory::give_back_pages);
    }

    fn tidy(&self, layer: Option<usize>, resident: &Residents) {
        if !self.of_files {
            return;
        }
        let outside = |span: &&Span| !resident.contains(span.expert);
        match layer {
            Some(layer) => {
                let spans = self.of_layer[layer].iter().map(|&i| &self.spans[i]).filter(outside);
                joined(spans.map(|span| self.free(span, resident)), memory::give_back_pages);
            }
            None => {
                let spans = self.spans.iter().filter(outside);
                joined(spans.map(|span| self.free(span, resident)), memory::give_back_pages);
            }
        }
    }

    fn reported_bytes(&self) -> Option<u64> {
        // What the backbone touches too is there anyway, and is not the experts'.
        let theirs = |span: &Span| {
            let Range { start, end } = span.pages;
            let start = start + usize::from(span.first == End::Backbone);
            start..(end - usize::from(span.last == End::Backbone)).max(start)
        };
        let (mut total, mut pagemap) = (0, memory::Pagemap::open()?);
        let mut told = true;
        joined(self.spans.iter().map(theirs), |pages| match pagemap.present(pages) {
            Some(present) => total += present as u64,
            None => told = false,
        });
        told.then_some(total * memory::page_bytes() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined() {
        #[track_caller]
        fn check(ranges: &[Range<usize>], want: &[Range<usize>]) {
            let mut got = Vec::new();
            joined(ranges.iter().cloned(), |range| got.push(range));
            assert_eq!(got, want);
        }
        check(&[], &[]);
        check(&[1..2, 2..4, 6..7], &[1..4, 6..7]);
        // Neighbours that share a page, and empty ones.
        check(&[1..3, 2..4, 4..4, 3..4, 5..6], &[1..4, 5..6]);
        check(&[0..0, 0..1, 2..3], &[0..1, 2..3]);
    }

    #[test]
    fn bits_of_residents() {
        let residents = Residents::new(2, 70);
        residents.set(69, true);
        residents.set(70, true);
        assert!(residents.contains(69) && residents.contains(70) && !residents.contains(71));
        assert_eq!(residents.layer(0).collect::<Vec<_>>(), [0, 1 << 5]);
        assert_eq!(residents.layer(1).collect::<Vec<_>>(), [1, 0]);
        residents.set(69, false);
        assert!(!residents.contains(69) && residents.contains(70));
    }
}
