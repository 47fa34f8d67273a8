//! Writing a file so that a reader sees the old one or the whole new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name under which a file is written before it is renamed into place.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // The process, so that two writers of one file do not share a half-written one.
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// Whether a name is one that [`beside`] gives: of a process that was killed while it wrote.
pub fn is_beside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name.strip_suffix(".partial").and_then(|name| name.rsplit_once('.'));
    number.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// A file's new content, on the disk under another name; it goes when this is dropped.
#[must_use = "what is not put into place is removed"]
pub struct Written {
    partial: PathBuf,
    path: PathBuf,
}

impl Written {
    /// Writes what is to be at `path`; what is there stays until [`Written::place`].
    pub fn new(path: &Path, bytes: &[u8]) -> io::Result<Written> {
        let written = Written { partial: beside(path), path: path.to_owned() };
        let mut file = File::create(&written.partial)?;
        file.write_all(bytes)?;
        // Before the rename: else a power cut can leave the new name with no bytes.
        file.sync_all()?;
        Ok(written)
    }

    /// Puts it into place, which takes no room.
    pub fn place(self) -> io::Result<()> {
        fs::rename(&self.partial, &self.path)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // Where it was put into place, there is none.
        let _ = fs::remove_file(&self.partial);
    }
}

/// Replaces the file at `path`.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Written::new(path, bytes)?.place()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_placed_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"old").unwrap();
        let written = Written::new(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        drop(written);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        Written::new(&path, b"new").unwrap().place().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_of_files_on_their_way() {
        assert!(is_beside(&beside(Path::new("a/law.profile"))));
        for other in
            ["law.profile", "law.partial", "law.9x.partial", "law.9.partial.json", "9.partial"]
        {
            assert!(!is_beside(Path::new(other)), "{other}");
        }
    }
}
