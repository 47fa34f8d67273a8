//! The folder beside the target in which it is written, until it is whole.
//!
//! `NAME.partial`, locked while somebody writes in it.  The lock is the
//! system's and goes with its process however that ends; what a process that
//! was killed left behind is swept away by the next one.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::CutError;

pub(super) struct Beside {
    folder: PathBuf,
    /// Held until the folder is gone.
    _lock: File,
}

impl Beside {
    /// The empty folder for `out`.
    pub fn open(out: &Path) -> Result<Beside, CutError> {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let folder = out.with_file_name(name);
        let failed = |error| CutError::Io { path: folder.clone(), error };
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let lock = File::open(&folder).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CutError::Busy { path: out.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let beside = Beside { folder, _lock: lock };
        beside.sweep().map_err(|error| CutError::Io { path: beside.folder.clone(), error })?;
        Ok(beside)
    }

    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.folder.join(name)
    }

    /// Removes files; a folder in it is not ours, and stays.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next one that writes here.
        let _ = self.sweep();
        let _ = fs::remove_dir(&self.folder);
    }
}
