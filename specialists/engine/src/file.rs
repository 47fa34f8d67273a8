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

/// Replaces the file at `path`.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = beside(path);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        // Before the rename: else a power cut can leave the new name with no bytes.
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&partial, path));
    if renamed.is_err() {
        let _ = fs::remove_file(&partial);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

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
