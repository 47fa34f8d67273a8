//! What is measured is kept at once, so that a run that was interrupted goes on.
//!
//! A part is a file named by the hash of what it was made from: parent, experts,
//! items, settings, version.  Anything else makes another name, so that nothing
//! stale is ever found; a file that cannot be read was not finished.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use engine::hash;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A folder of parts, or none.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Part<T> {
    /// What it was made from.
    of: Vec<String>,
    value: T,
}

impl Parts {
    /// Nothing is kept.
    pub fn none() -> Parts {
        Parts::default()
    }

    /// Keeps parts in a folder, which is made.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn at(folder: &Path) -> io::Result<Parts> {
        fs::create_dir_all(folder)?;
        Ok(Parts { folder: Some(folder.to_owned()) })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, of: &[String]) -> Option<T> {
        let bytes = fs::read(self.path(of)?).ok()?;
        let part: Part<T> = serde_json::from_slice(&bytes).ok()?;
        (part.of == of).then_some(part.value)
    }

    pub(super) fn put<T: Serialize>(&self, of: &[String], value: &T) -> io::Result<()> {
        let Some(path) = self.path(of) else { return Ok(()) };
        let text = serde_json::to_vec(&Part { of: of.to_vec(), value })?;
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        engine::file::replace(&path, &text).map_err(named)
    }

    fn path(&self, of: &[String]) -> Option<PathBuf> {
        let name = hash::hex(of.join("\n").as_bytes());
        Some(self.folder.as_ref()?.join(format!("{name:.32}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_what_they_were_made_from() {
        let folder = tempfile::tempdir().unwrap();
        let parts = Parts::at(&folder.path().join("parts")).unwrap();
        let of = |text: &str| vec!["text/1".to_owned(), text.to_owned()];
        parts.put(&of("law"), &vec![1.5f64, 2.0]).unwrap();
        assert_eq!(parts.get::<Vec<f64>>(&of("law")), Some(vec![1.5, 2.0]));
        assert_eq!(parts.get::<Vec<f64>>(&of("math")), None);
        // Half a file, or one of another kind, is none.
        let path = parts.path(&of("law")).unwrap();
        fs::write(&path, &fs::read(&path).unwrap()[..20]).unwrap();
        assert_eq!(parts.get::<Vec<f64>>(&of("law")), None);
        assert_eq!(Parts::none().get::<Vec<f64>>(&of("law")), None);
        Parts::none().put(&of("law"), &1).unwrap();
    }
}
