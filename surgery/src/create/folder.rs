//! The work folder of a specialist: one process at a time, and nothing half-written in it.
//!
//! Files are written beside and renamed.  What a process that was killed left behind is swept away by the next one; the
//! lock is the system's, and goes with its process however that ends.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::CreateError;

/// While it lives, nobody else makes a specialist in this folder.
#[must_use = "a lock that is dropped at once keeps nobody out"]
pub(super) struct Work {
    _lock: File,
}

impl Work {
    /// Takes the folder, and removes from it what an earlier process left half-written; `registered` is where its
    /// specialist will be, and is swept too.
    pub fn open(folder: &Path, registered: &Path) -> Result<Work, CreateError> {
        fs::create_dir_all(folder).map_err(io(folder))?;
        let lock = File::open(folder).map_err(io(folder))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CreateError::Busy { path: folder.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(io(folder)(error)),
        }
        for folder in [folder, registered] {
            sweep(folder).map_err(io(folder))?;
        }
        Ok(Work { _lock: lock })
    }
}

/// Removes files on their way to being written, here and in folders below.
fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep(&entry.path())?;
        } else if engine::file::is_beside(&entry.path()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// An error about a path.
pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> CreateError + use<> {
    let path = path.to_owned();
    move |error| CreateError::Io { path, error }
}

/// A file of an earlier run; one that cannot be read was not finished.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes JSON, whole or not at all.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CreateError> {
    let json = |error| CreateError::Json { path: path.to_owned(), error };
    let text = serde_json::to_string_pretty(value).map_err(json)? + "\n";
    engine::file::replace(path, text.as_bytes()).map_err(io(path))
}
