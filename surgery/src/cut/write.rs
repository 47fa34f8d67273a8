//! Writes a plan: streamed in pieces, forced to disk, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine::finite;
use engine::gguf::write::{Layout, WriteError};
use engine::gguf::{Gguf, GgufError, Part, Tensor};
use engine::mapping::Mapping;

use super::beside::Beside;
use super::forced::Forced;
use super::{CutError, Plan};
use crate::Progress;

/// Bytes copied between two looks at the progress: few enough to be in the
/// processor's cache still when they are written.
const PIECE: u64 = 1 << 20;

/// Writes a plan beside `out`, forces it to disk, and renames it.  The paths of
/// what was written: `out`, or the parts, whose names are made of it.
///
/// A part that is there of an earlier cut is replaced; the first one goes before
/// the others come and comes last, so that no mixture can be opened.
///
/// # Errors
///
/// [`CutError`]; `out` is then as it was before.
pub fn write(
    parent: &Gguf,
    plan: &Plan,
    out: &Path,
    progress: Progress,
) -> Result<Vec<PathBuf>, CutError> {
    let names = names(out, plan.parts.len(), plan.split)?;
    let targets: Vec<PathBuf> = names.iter().map(|name| out.with_file_name(name)).collect();
    for out in &targets {
        let same = |part: &Part| match (part.path().canonicalize(), out.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        if parent.parts().iter().any(same) {
            return Err(CutError::OverParent { path: out.clone() });
        }
    }
    // Removes what is unfinished however this ends.
    let beside = Beside::open(out)?;
    let piece = Vec::new();
    let mut pump = Pump { parent, plan, progress, piece, done: 0, spoilt: None };
    for (name, (layout, range)) in names.iter().zip(&plan.parts) {
        let path = beside.path(name);
        let written = pump.write(&path, layout, range.clone());
        // Before the error of writing: a map that is gone is one too, and says less.
        if let Err(changed @ GgufError::Changed { .. }) = parent.intact() {
            return Err(changed.into());
        }
        if let Some(spoilt) = pump.spoilt.take() {
            return Err(spoilt);
        }
        written.map_err(|error| named(error, &path, plan.summary.bytes_out))?;
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error| CutError::Io { path, error }
    };
    if let (true, Some(first)) = (targets.len() > 1, targets.first())
        && let Err(error) = fs::remove_file(first)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(io(first)(error));
    }
    for (name, target) in names.iter().zip(&targets).rev() {
        fs::rename(beside.path(name), target).map_err(io(target))?;
    }
    // The names are on disk once their folder is.
    let folder = out.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))?;
    Ok(targets)
}

/// File names of the parts, as llama.cpp and the engine look for them.
fn names(out: &Path, parts: usize, split: bool) -> Result<Vec<OsString>, CutError> {
    let wrong = || CutError::PartName { path: out.to_owned() };
    let name = out.file_name().ok_or_else(wrong)?;
    if !split {
        return Ok(vec![name.to_owned()]);
    }
    let stem = name.to_str().and_then(|name| name.strip_suffix(".gguf")).ok_or_else(wrong)?;
    if stem.is_empty() {
        return Err(wrong());
    }
    Ok((1..=parts).map(|no| format!("{stem}-{no:05}-of-{parts:05}.gguf").into()).collect())
}

/// What went wrong, and with which file.
fn named(error: WriteError, path: &Path, need: u64) -> CutError {
    let full = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    };
    let path = path.to_owned();
    match error {
        WriteError::Io(error) if full(&error) => CutError::Full { path, need, error },
        WriteError::Io(error) => CutError::Io { path, error },
        other => other.into(),
    }
}

/// Moves bytes from the parent's map to files.
struct Pump<'a, 'p> {
    parent: &'a Gguf,
    plan: &'a Plan,
    progress: Progress<'p>,
    /// What is on its way.
    piece: Vec<u8>,
    done: u64,
    /// The first number that is none.
    spoilt: Option<CutError>,
}

impl Pump<'_, '_> {
    fn write(
        &mut self,
        path: &Path,
        layout: &Layout,
        range: Range<usize>,
    ) -> Result<(), WriteError> {
        let mut file = Forced::create(path)?;
        let sources = &self.plan.sources[range];
        layout.write(&mut file, |index, sink| {
            let source = &sources[index];
            let tensor = &self.parent.tensors()[source.tensor];
            let mut copy = |at: Range<u64>| self.copy(tensor, at, sink);
            match &source.ids {
                None => copy(0..tensor.bytes),
                Some(ids) => {
                    let slice = source.bytes / ids.len().max(1) as u64;
                    ids.iter().try_for_each(|id| {
                        let at = u64::from(*id) * slice;
                        copy(at..at + slice)
                    })
                }
            }
        })?;
        Ok(file.finish()?)
    }

    /// One range of a tensor's bytes, looked through on the way.
    fn copy(
        &mut self,
        tensor: &Tensor,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let block = tensor.kind.block_bytes();
        let piece = PIECE / block * block;
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + piece);
            let bytes = read(self.parent, tensor, start..end, &mut self.piece)?;
            if let Some(found) = finite::find(tensor.kind, bytes) {
                let (name, block) = (tensor.name.clone(), start / block + found.block);
                self.spoilt = Some(CutError::NotFinite { tensor: name, block, what: found.what });
                return Err(io::ErrorKind::InvalidData.into());
            }
            sink(bytes)?;
            self.done += end - start;
            start = end;
            (self.progress)(self.done, self.plan.summary.bytes_out, "cut");
        }
        Ok(())
    }
}

/// Bytes of a tensor.  Of a file they are read, not touched in its map: pages that come into the map one by one cost
/// more than a copy of a piece that stays in the cache.
fn read<'a>(
    parent: &'a Gguf,
    tensor: &Tensor,
    range: Range<u64>,
    piece: &'a mut Vec<u8>,
) -> io::Result<&'a [u8]> {
    use std::os::unix::fs::FileExt;
    match parent.parts()[tensor.part].mapping() {
        Mapping::File(file) => {
            piece.resize((range.end - range.start) as usize, 0);
            file.file().read_exact_at(piece, tensor.offset + range.start)?;
            Ok(piece)
        }
        _ => Ok(&parent.data(tensor)[range.start as usize..range.end as usize]),
    }
}
