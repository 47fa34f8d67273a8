//! Bytes of a model where they lie: in a mapped file, or in the binary itself.
//!
//! A [`Region`] is a piece that keeps its owner alive.  Nothing here copies; pages come in when they are touched and
//! can be given back to the system one range at a time.
//!
//! A mapped file stays open, so that [`Mapping::check`] can ask the system what became of it: bytes that were changed
//! under the map are not the model that was opened.  A file that is cut short raises SIGBUS where it is touched; see
//! [`crate::fault`].

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use memmap2::{Mmap, MmapOptions};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fault::{self, Named};

/// All bytes of a model, or of one part of it.
pub enum Mapping {
    File(MappedFile),
    /// In the binary's read-only data, page aligned; the system maps it like any file.
    Embedded(&'static [u8]),
    /// Bytes that came from elsewhere than a file.
    Owned(Box<[u8]>),
}

/// What tells a file apart without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub bytes: u64,
    pub modified_ns: u64,
    pub inode: u64,
}

impl Identity {
    fn of(meta: &Metadata) -> io::Result<Identity> {
        let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let inode = std::os::unix::fs::MetadataExt::ino(meta);
        Ok(Identity { bytes: meta.len(), modified_ns: modified.as_nanos() as u64, inode })
    }
}

/// What became of a file since it was mapped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Change {
    /// The map may hold anything now, or nothing.
    #[error("it had {was} bytes and has {is} now")]
    Size { was: u64, is: u64 },
    #[error("it was written to")]
    Written,
    #[error("the system does not tell: {0}")]
    Unknown(String),
    /// No name leads to the file any more; the map still holds all of it.
    #[error("it was removed or replaced")]
    Unlinked,
}

/// A whole file, mapped read-only.
pub struct MappedFile {
    identity: Identity,
    /// Taken back before the map goes, as its addresses may be given out again.
    _named: Named,
    map: Mmap,
    /// Open for as long as it is mapped: a name may lead to another file by then.
    file: File,
}

impl MappedFile {
    fn open(path: &Path) -> io::Result<MappedFile> {
        // Asked before it is opened: opening a pipe waits for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
        }
        let file = File::open(path)?;
        let identity = Identity::of(&file.metadata()?)?;
        let len = usize::try_from(identity.bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "larger than addresses"))?;
        // SAFETY: the map is read-only, and as long as the file was.  Bytes that others write to the file while it is
        // mapped are still bytes; that they are no longer the model is what `check` finds.  A file that is cut short
        // raises SIGBUS, which `fault` turns into an error that names it.
        let map = unsafe { MmapOptions::new().len(len).map(&file)? };
        Ok(MappedFile { identity, _named: fault::name(&map, path), map, file })
    }

    /// What it was when it was mapped.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The open file.  Its cursor is nobody's: read at offsets.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check(&self) -> Result<(), Change> {
        let meta = self.file.metadata().map_err(|error| Change::Unknown(error.to_string()))?;
        let now = Identity::of(&meta).map_err(|error| Change::Unknown(error.to_string()))?;
        if now.bytes != self.identity.bytes {
            return Err(Change::Size { was: self.identity.bytes, is: now.bytes });
        }
        if now.modified_ns != self.identity.modified_ns {
            return Err(Change::Written);
        }
        match std::os::unix::fs::MetadataExt::nlink(&meta) {
            0 => Err(Change::Unlinked),
            _ => Ok(()),
        }
    }
}

impl Mapping {
    /// Maps a whole file read-only.
    pub fn open(path: &Path) -> io::Result<Mapping> {
        Ok(Mapping::File(MappedFile::open(path)?))
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Mapping::File(file) => &file.map,
            Mapping::Embedded(bytes) => bytes,
            Mapping::Owned(bytes) => bytes,
        }
    }

    /// Whether its pages are a file's, which can go and come back; those of other memory are lost when they go.
    pub fn of_a_file(&self) -> bool {
        !matches!(self, Mapping::Owned(_))
    }

    /// Whether the bytes are still those that were opened; one call to the system for a file.
    ///
    /// # Errors
    ///
    /// [`Change`]; after [`Change::Unlinked`] the bytes are still right.
    pub fn check(&self) -> Result<(), Change> {
        match self {
            Mapping::File(file) => file.check(),
            Mapping::Embedded(_) | Mapping::Owned(_) => Ok(()),
        }
    }
}

/// A file that a model, or a part of it, is in.  Cheap to clone.
#[derive(Clone)]
pub struct Part {
    pub(crate) path: PathBuf,
    pub(crate) mapping: Arc<Mapping>,
}

impl Part {
    pub fn new(path: PathBuf, mapping: Arc<Mapping>) -> Part {
        Part { path, mapping }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Its size, bytes.
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes().len() as u64
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
}
