//! The finished specialists of one parent: those shipped in the binary, and the folder where others are registered.
//!
//! A specialist is a folder `registry/<id>/` with `mask.json` and `manifest.toml`; the manifest is renamed into place
//! last, so that a reader sees none or all of it.  A registered one replaces a shipped one of the same id.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::file::Written;
use engine::hash::Late;
use engine::{ExpertMask, MaskFile, MaskFileError, Shape, hash};
use include_dir::{Dir, include_dir};
use thiserror::Error;

use crate::manifest::{Manifest, ManifestError, State, valid_id};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/nano/specialists");

/// A specialist that can be served.
#[derive(Clone, Debug)]
pub struct Entry {
    pub manifest: Manifest,
    pub mask: Arc<ExpertMask>,
    /// It came with the binary.
    pub shipped: bool,
}

/// Why one specialist is not served; the others are.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// Of the registry itself: nothing is known of any specialist.
    #[error("{path}: {error}")]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}")]
    Manifest { path: PathBuf, error: ManifestError },
    #[error("{path}: {error}")]
    Mask { path: PathBuf, error: MaskFileError },
    #[error("{path}: {what}; make the specialist again")]
    Mismatch { path: PathBuf, what: String },
}

impl RegistryError {
    /// The specialist may be there all the same: it could not be read just now.
    pub(crate) fn hides(&self, id: &str) -> bool {
        match self {
            RegistryError::Folder { .. } => true,
            RegistryError::Io { path, error } => {
                error.kind() != std::io::ErrorKind::NotFound
                    && path.parent().is_some_and(|folder| folder.ends_with(id))
            }
            _ => false,
        }
    }
}

/// The specialists of one parent.
pub struct Registry {
    folder: PathBuf,
    shape: Shape,
    parent: Late,
    disabled: Vec<String>,
}

impl Registry {
    /// `home` is the folder that holds `registry/`; `parent` the hash of the parent's file, until which is known there
    /// are no specialists; ids in `disabled` are not served.
    pub fn open(
        home: &Path,
        shape: &Shape,
        parent: impl Into<Late>,
        disabled: &[String],
    ) -> Registry {
        Registry {
            folder: home.join("registry"),
            shape: shape.clone(),
            parent: parent.into(),
            disabled: disabled.to_vec(),
        }
    }

    /// Where specialists are registered.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All that can be served now, by id, and what is wrong with the rest.  Specialists of other parents, retired and
    /// disabled ones are neither.
    pub fn read(&self) -> (BTreeMap<String, Entry>, Vec<RegistryError>) {
        let mut all = Vec::new();
        for dir in SHIPPED.dirs() {
            let text =
                |name: &str| dir.get_file(dir.path().join(name)).map(include_dir::File::contents);
            if let (Some(manifest), Some(mask)) = (text("manifest.toml"), text("mask.json")) {
                all.push(self.entry(dir.path(), &String::from_utf8_lossy(manifest), mask, true));
            }
        }
        // What is not there does not exist (yet); what cannot be read is another matter.
        let absent = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
        let mut folders: Vec<PathBuf> = Vec::new();
        match fs::read_dir(&self.folder) {
            Ok(entries) => folders.extend(entries.flatten().map(|e| e.path())),
            Err(error) if absent(&error) => {}
            Err(error) => all.push(Err(RegistryError::Folder { path: self.folder.clone(), error })),
        }
        folders.sort();
        for path in folders.into_iter().filter(|path| path.is_dir()) {
            let manifest = path.join("manifest.toml");
            let manifest = match fs::read_to_string(&manifest) {
                Ok(text) => text,
                Err(error) if absent(&error) => continue,
                Err(error) => {
                    all.push(Err(RegistryError::Io { path: manifest, error }));
                    continue;
                }
            };
            all.push(match fs::read(path.join("mask.json")) {
                Ok(mask) => self.entry(&path, &manifest, &mask, false),
                Err(error) => Err(RegistryError::Io { path: path.join("mask.json"), error }),
            });
        }
        let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
        for entry in all {
            match entry {
                Ok(Some(entry)) => drop(found.insert(entry.manifest.id.clone(), entry)),
                Ok(None) => {}
                Err(error) => wrong.push(error),
            }
        }
        (found, wrong)
    }

    fn entry(
        &self,
        path: &Path,
        manifest: &str,
        mask: &[u8],
        shipped: bool,
    ) -> Result<Option<Entry>, RegistryError> {
        let manifest = Manifest::parse(manifest)
            .map_err(|error| RegistryError::Manifest { path: path.join("manifest.toml"), error })?;
        let mismatch = |what: String| RegistryError::Mismatch { path: path.to_owned(), what };
        if path.file_name().and_then(|n| n.to_str()) != Some(&manifest.id) {
            return Err(mismatch(format!("the manifest is of {:?}", manifest.id)));
        }
        let Some(parent) = self.parent.get() else { return Ok(None) };
        if manifest.parent != parent
            || manifest.state == State::Retired
            || self.disabled.contains(&manifest.id)
        {
            return Ok(None);
        }
        let sha256 = hash::hex(mask);
        if sha256 != manifest.mask_sha256 {
            return Err(mismatch(format!(
                "mask.json has hash {sha256}, the manifest says {}",
                manifest.mask_sha256
            )));
        }
        let wrong = |error| RegistryError::Mask { path: path.join("mask.json"), error };
        let file = MaskFile::parse(&String::from_utf8_lossy(mask)).map_err(wrong)?;
        let mask = Arc::new(file.mask(&self.shape, parent).map_err(wrong)?);
        Ok(Some(Entry { manifest, mask, shipped }))
    }

    /// Registers a specialist, or replaces the one of its id; `mask` is the text of its `mask.json`.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; nothing that could be read as a specialist is left behind.
    pub fn register(&self, manifest: &Manifest, mask: &str) -> Result<(), RegistryError> {
        if !valid_id(&manifest.id) {
            let error = ManifestError::Id { id: manifest.id.clone() };
            return Err(RegistryError::Manifest { path: self.folder.clone(), error });
        }
        let folder = self.folder.join(&manifest.id);
        let text = manifest
            .to_toml()
            .map_err(|error| RegistryError::Manifest { path: folder.clone(), error })?;
        // What would not be served is not registered.
        self.entry(&folder, &text, mask.as_bytes(), false)?;
        let io = |error| RegistryError::Io { path: folder.clone(), error };
        fs::create_dir_all(&folder).map_err(io)?;
        let written = |name: &str, text: &str| Written::new(&folder.join(name), text.as_bytes());
        let same = fs::read(folder.join("mask.json")).ok().as_deref() == Some(mask.as_bytes());
        // Both before anything goes: a full disk leaves the old specialist.
        let new = if same { None } else { Some(written("mask.json", mask).map_err(io)?) };
        let manifest = written("manifest.toml", &text).map_err(io)?;
        // A reader of the old manifest must not find the new mask under it.
        if let Some(mask) = new {
            match fs::remove_file(folder.join("manifest.toml")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(io(error));
                }
                _ => {}
            }
            mask.place().map_err(io)?;
        }
        manifest.place().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Created;

    fn shape() -> Shape {
        Shape::of_experts(1, 4, 2)
    }

    fn sample(id: &str) -> (Manifest, String) {
        let mask = MaskFile {
            format: engine::MASK_FORMAT.into(),
            parent: "p".into(),
            domain: id.into(),
            score: "gate".into(),
            experts: vec![2],
            kept: vec![vec![1, 3]],
            coverage: vec![0.9],
            profile: "q".into(),
            sources: vec![],
            masking: Default::default(),
            passes: vec![],
        }
        .to_json()
        .unwrap();
        let manifest = Manifest {
            id: id.into(),
            domain: id.into(),
            parent: "p".into(),
            mask_sha256: hash::hex(mask.as_bytes()),
            state: State::Active,
            think: Default::default(),
            missing: Default::default(),
            sampling: Default::default(),
            evaluation: None,
            created: Created {
                profile_sha256: "q".into(),
                corpus_sha256: "c".into(),
                score: "gate".into(),
                coverage: 0.9,
                time: 0,
                version: "0".into(),
            },
        };
        (manifest, mask)
    }

    /// What is served after `prepare` had its way with the registry's folder.
    #[track_caller]
    fn check(prepare: impl Fn(&Path), want: &[&str], complaints: usize) {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(home.path(), &shape(), "p", &["off".into()]);
        for id in ["law", "math", "off"] {
            let (manifest, mask) = sample(id);
            registry.register(&manifest, &mask).unwrap();
        }
        prepare(registry.folder());
        let (found, wrong) = registry.read();
        assert_eq!(found.keys().collect::<Vec<_>>(), want);
        assert_eq!(wrong.len(), complaints, "{wrong:?}");
    }

    #[test]
    fn what_is_served() {
        check(|_| {}, &["law", "math"], 0);
        // Being written: the manifest is not there yet.
        check(|d| fs::remove_file(d.join("law/manifest.toml")).unwrap(), &["math"], 0);
        check(|d| fs::remove_file(d.join("law/mask.json")).unwrap(), &["math"], 1);
        check(|d| fs::write(d.join("law/mask.json"), "{}").unwrap(), &["math"], 1);
        check(|d| fs::write(d.join("law/manifest.toml"), "id = 3").unwrap(), &["math"], 1);
        check(|d| fs::rename(d.join("law"), d.join("other")).unwrap(), &["math"], 1);
        check(|d| fs::write(d.join("stray"), "x").unwrap(), &["law", "math"], 0);
    }

    #[test]
    fn specialists_wait_for_the_hash_of_their_parent() {
        let home = tempfile::tempdir().unwrap();
        let (manifest, mask) = sample("law");
        Registry::open(home.path(), &shape(), "p", &[]).register(&manifest, &mask).unwrap();
        let late = Late::default();
        let registry = Registry::open(home.path(), &shape(), late.clone(), &[]);
        assert!(registry.read().0.is_empty());
        late.set("p".to_owned());
        assert!(registry.read().0.contains_key("law"));
    }

    #[test]
    fn what_does_not_fit_is_not_registered() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(home.path(), &shape(), "p", &[]);
        let (manifest, mask) = sample("law");
        let wrong = mask.replace("[1,3]", "[1,9]");
        let wrong_hash = Manifest { mask_sha256: hash::hex(wrong.as_bytes()), ..manifest.clone() };
        assert!(registry.register(&wrong_hash, &wrong).is_err());
        assert!(registry.register(&manifest, &wrong).is_err());
        let escape = Manifest { id: "../law".into(), ..manifest };
        assert!(registry.register(&escape, &mask).is_err());
        assert!(registry.read().0.is_empty());
    }

    /// A folder in the place of a file that is to be written stands for a disk without room.
    #[test]
    fn what_cannot_be_written_leaves_the_old_one() {
        let home = tempfile::tempdir().unwrap();
        let registry = Registry::open(home.path(), &shape(), "p", &[]);
        let (manifest, mask) = sample("law");
        registry.register(&manifest, &mask).unwrap();
        let other = mask.replace("[1,3]", "[0,3]");
        let newer = Manifest { mask_sha256: hash::hex(other.as_bytes()), ..manifest.clone() };
        for name in ["mask.json", "manifest.toml"] {
            let stands = engine::file::beside(&registry.folder().join("law").join(name));
            fs::create_dir(&stands).unwrap();
            registry.register(&newer, &other).unwrap_err();
            fs::remove_dir(&stands).unwrap();
            assert_eq!(registry.read().0["law"].manifest, manifest, "{name}");
        }
        registry.register(&newer, &other).unwrap();
        assert_eq!(registry.read().0["law"].manifest, newer);
    }

    #[test]
    fn what_cannot_be_read_now_is_hidden_and_not_gone() {
        #[track_caller]
        fn check(path: &str, kind: std::io::ErrorKind, want: [bool; 2]) {
            let error = RegistryError::Io { path: path.into(), error: kind.into() };
            assert_eq!(["law", "math"].map(|id| error.hides(id)), want, "{error}");
        }
        use std::io::ErrorKind::{NotFound, Other};
        check("registry/law/manifest.toml", Other, [true, false]);
        check("registry/math/mask.json", Other, [false, true]);
        check("registry/law/mask.json", NotFound, [false, false]);
        let error = RegistryError::Folder { path: "registry".into(), error: Other.into() };
        assert!(error.hides("law") && error.hides("math"));
    }
}
