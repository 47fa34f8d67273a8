//! Bytes of a model where they lie: in a mapped file, or in the binary itself.
//!
//! A [`Region`] is a piece that keeps its owner alive.  Nothing here copies; pages come in when they are touched and
//! can be given back to the system one range at a time.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// All bytes of a model.
pub enum Mapping {
    File(Mmap),
    /// In the binary's read-only data, page aligned; the system maps it like any file.
    Embedded(&'static [u8]),
}

impl Mapping {
    /// Maps a whole file read-only.
    pub fn open(path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private.  A file that is cut short while mapped raises SIGBUS, as for every
        // program that maps its model; models are written beside and renamed, so that ours are not.
        Ok(Mapping::File(unsafe { Mmap::map(&file)? }))
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Mapping::File(map) => map,
            Mapping::Embedded(bytes) => bytes,
        }
    }
}

/// A range of a mapping.  Cheap to clone; the mapping lives as long as any of its regions.
#[derive(Clone)]
pub struct Region {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
}

impl Region {
    /// `None` if the range does not lie within the mapping.
    pub fn new(mapping: &Arc<Mapping>, start: u64, len: u64) -> Option<Region> {
        let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
        let end = start.checked_add(len)?;
        (end <= mapping.bytes().len()).then(|| Region { mapping: mapping.clone(), start, len })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.mapping.bytes()[self.start..self.start + self.len]
    }

    /// The bytes as little-endian F32, in place; `None` if they are not aligned or not whole numbers.
    pub fn floats(&self) -> Option<&[f32]> {
        let bytes = self.bytes();
        if !bytes.len().is_multiple_of(4) || !(bytes.as_ptr() as usize).is_multiple_of(4) {
            return None;
        }
        // SAFETY: aligned and whole by the check above; every bit pattern is an f32; the borrow keeps the map.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 4) })
    }

    /// The `len` bytes at `start` within this region.
    pub fn part(&self, start: usize, len: usize) -> Option<Region> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Region {
            mapping: self.mapping.clone(),
            start: self.start + start,
            len,
        })
    }

    /// Whether `next` begins where this region ends.
    pub fn ends_where(&self, next: &Region) -> bool {
        Arc::ptr_eq(&self.mapping, &next.mapping) && self.start + self.len == next.start
    }

    /// This region and the one that begins where it ends, as one.
    pub fn joined(&self, next: &Region) -> Region {
        debug_assert!(self.ends_where(next));
        Region { mapping: self.mapping.clone(), start: self.start, len: self.len + next.len }
    }
}
